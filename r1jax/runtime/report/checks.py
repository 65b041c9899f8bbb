"""What a reader must know before believing the page: what is missing, what is unfinished, what looks odd."""

import itertools
from collections import Counter

from r1jax.runtime.report.load import Run, Stage
from r1jax.runtime.report.models import awaited
from r1jax.runtime.report.reward_models import hacked

# With more completions than this cut at the maximum length, the figures tell as much of that limit.
TRUNCATED_WORTH_A_WORD = 0.2


def findings(run: Run) -> list[str]:
    """One sentence for each thing missing or odd; [] if all is there."""
    found = list(run.unreadable)
    if not run.evaluated:
        found.append('There is no final evaluation: summary.json has no figures, so that this page cannot '
                     'say whether training helped.')
    elif len(run.evaluated) == 1:
        found.append(f'Only {run.evaluated[0]} was evaluated: there is nothing to compare it with.')
    result = awaited(run.summary)
    if result:
        found.append(f'The result, {result}, is not evaluated yet: {run.evaluated[-1]} stands in its place.')
    begun = {stage.name for stage in run.stages}
    ahead = [name for name in run.planned if name not in begun]
    if ahead and run.stages:
        found.append(f'Not begun yet: {", ".join(ahead)}.')
    if not run.stages:
        found.append('There is no stage: the folder stages/ is empty or not there.')
    if run.evaluated and not any(stage.eval_files for stage in run.stages):
        found.append('No evaluation samples were kept (stages/NAME/eval/*.parquet): the figures are there, '
                     'the answers behind them are not.')
    for stage in run.stages:
        found += _of_stage(stage)
    return found


def _of_stage(stage: Stage) -> list[str]:
    found = []
    if not stage.done:
        until = f'its last recorded step is {stage.steps[-1]:,}' if stage.steps else 'it recorded no step'
        planned = stage.config.get('steps')
        of = f' of {planned:,}' if stage.steps and isinstance(planned, int) else ''
        found.append(f'Stage {stage.name} is not finished: {until}{of}.')
    if not stage.metrics:
        # A stage that only evaluates or exports records no steps: no fault if it is done.
        if stage.done and stage.rollout_steps:
            found.append(f'Stage {stage.name} kept rollouts but no metrics.')
        return found
    nonfinite = Counter(name for line in stage.metrics for name in line.get('nonfinite', []))
    for name, count in nonfinite.most_common():
        steps = [line['step'] for line in stage.metrics if name in line.get('nonfinite', [])]
        listed = ', '.join(str(step) for step in steps[:5]) + (', ...' if len(steps) > 5 else '')
        found.append(f'Stage {stage.name}: {name} was not a finite number at {count:,} '
                     f'step{"s" if count > 1 else ""} ({listed}); its curve has gaps there.')
    gaps = [(a, b) for a, b in itertools.pairwise(stage.steps) if b != a + 1]
    strides = {b - a for a, b in itertools.pairwise(stage.steps)}
    if gaps and len(strides) > 1:  # one stride throughout is a stage that logs every n-th step
        a, b = gaps[0]
        found.append(f'Stage {stage.name}: metrics are missing between steps {a:,} and {b:,}'
                     + (f', and in {len(gaps) - 1:,} more places.' if len(gaps) > 1 else '.'))
    for name, what in (('rewards/timeouts', 'timed out'), ('rewards/crashes', 'crashed')):
        total = sum(value for value in stage.column(name) if value)
        if total:
            found.append(f'Stage {stage.name}: {total:,.0f} reward computations {what} over the whole stage.')
    truncated = [value for value in stage.column('truncated') if value is not None]
    late = truncated[-max(1, len(truncated) // 10):]
    if late and sum(late) / len(late) > TRUNCATED_WORTH_A_WORD:
        found.append(f'Stage {stage.name}: {sum(late) / len(late):.0%} of the completions of the last steps '
                     'were cut at the maximum length; such a completion has no end, and the mean length '
                     'understates what the model would have written.')
    hacking = hacked(stage)
    if hacking:
        found.append(hacking)
    if 'reward/mean' in stage.metric_names and not stage.rollout_steps:
        found.append(f'Stage {stage.name} kept no training rollouts (rollouts/*.parquet).')
    return found
