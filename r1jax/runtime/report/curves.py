"""metrics.jsonl -> what the page's script draws: each stage's panels and the numbers behind them."""

import dataclasses
import math
from typing import Any

from r1jax.runtime.report.load import Run, Stage
from r1jax.runtime.report.reward_models import scores_and_truths

# All curves of a page together: keeps a run of ten thousand steps within the page's size.
MOST_NUMBERS = 30_000
MOST_POINTS = 600


@dataclasses.dataclass(frozen=True)
class Panel:
    """One plot. `lines` are (metric, label); `band` is (metric of the lower edge, of the upper, label)."""
    section: str
    title: str
    unit: str
    help: str
    lines: tuple[tuple[str, str], ...]
    band: tuple[str, str, str] | None = None
    below: tuple[tuple[str, str], ...] = ()  # shares, in a second plot under the first
    stacked: tuple[tuple[str, str], ...] = ()
    percent: bool = False
    log: bool = False
    sparse: bool = False  # not every step has a value: join over the gaps

    @property
    def metrics(self) -> list[str]:
        return [name for name, _ in self.lines + self.below + self.stacked] + list(self.band[:2] if self.band else ())


LEARNING, WRITING, OPTIMISATION, SPEED, OTHER = (
    'Learning', 'What it writes', 'Optimisation', 'Speed', 'Other metrics')

PANELS = (
    Panel(LEARNING, 'Pass rate', '% of completions',
          'Training completions with a right answer, all problems.',
          (('pass_rate', 'all'),), percent=True),
    Panel(LEARNING, 'Total reward', 'reward',
          'Mean over the completions of a step, and their standard deviation.',
          (('reward/mean', 'mean'), ('reward/std', 'standard deviation'))),
    Panel(LEARNING, 'Groups without a signal', '% of groups',
          'All completions of the group earned the same: its advantages are 0.',
          (('groups/zero_variance', 'zero variance'),), percent=True),
    Panel(LEARNING, 'Groups resampled', 'groups',
          'Groups without a signal that were replaced by new prompts.',
          (('groups/resampled', 'resampled'),)),
    Panel(WRITING, 'Response length', 'tokens',
          'Mean of all completions and of those that ended by themselves; the band: shortest to longest.',
          (('length/mean', 'mean'), ('length/finished_mean', 'mean of the finished')),
          band=('length/min', 'length/max', 'shortest to longest')),
    Panel(WRITING, 'Truncated', '% of completions',
          'Completions cut at the maximum length.',
          (('truncated', 'truncated'),), percent=True),
    Panel(WRITING, 'Format', '% of completions',
          'Completions in the form that was asked for.',
          (('format_rate', 'right format'),), percent=True),
    Panel(WRITING, 'Answers that cannot be read', 'completions',
          'Those of a step without an answer, or with none of its task\'s kind: two of them, a hedge.',
          (('rewards/unparseable', 'without a readable answer'),)),
    Panel(WRITING, 'Reflection words', 'per 1,000 tokens',
          'Words such as wait, however, check and verify.',
          (('reflection_per_1k', 'reflection words'),)),
    Panel(WRITING, 'Language consistency', '% of words',
          'Words in the language of the question.',
          (('language_consistency', 'in the language'),), percent=True),
    Panel(OPTIMISATION, 'Entropy', 'nats per token',
          'Of the next-token distribution that was sampled from.',
          (('entropy', 'entropy'),)),
    Panel(OPTIMISATION, 'KL to the reference', 'nats per token',
          'How far the policy is from the reference model; a sudden fall is the reference being renewed.',
          (('kl_ref', 'KL'),)),
    Panel(OPTIMISATION, 'Probability ratio', 'ratio',
          'New over old policy, per token: the mean and the largest of a step.',
          (('ratio/mean', 'mean'), ('ratio/max', 'largest'))),
    Panel(OPTIMISATION, 'Clipped tokens', '% of tokens',
          'Tokens whose ratio the clip stops, below and above.',
          (('clip/low', 'below'), ('clip/high', 'above')), percent=True),
    Panel(OPTIMISATION, 'Gradient norm', 'L2 norm',
          'Global norm before clipping.',
          (('grad_norm', 'gradient norm'),)),
    Panel(OPTIMISATION, 'Learning rate', 'learning rate',
          '',
          (('lr', 'learning rate'),)),
    Panel(OPTIMISATION, 'Sampler against trainer', 'nats',
          'A token\'s log-probability as sampled and as the trainer computes it: the absolute difference.',
          (('logp_diff/mean', 'mean'), ('logp_diff/max', 'largest')), log=True),
    Panel(SPEED, 'Tokens per second', 'tokens/s',
          '',
          (('tokens_per_s/sampling', 'sampling'), ('tokens_per_s/training', 'training'))),
    Panel(SPEED, 'Seconds of a step', 's',
          'Phases stacked, and the whole step: lower than the stack where phases overlap, as rewards may.',
          (('seconds/step', 'whole step'),),
          stacked=(('seconds/sampling', 'sampling'), ('seconds/rewards', 'rewards'),
                   ('seconds/scoring', 'scoring'), ('seconds/update', 'update'))),
    Panel(SPEED, 'Failed reward computations', 'completions',
          'Verifiers that ran out of time or crashed.',
          (('rewards/timeouts', 'timed out'), ('rewards/crashes', 'crashed'))),
)


def collect(run: Run) -> list[dict[str, Any]]:
    """For each stage with metrics: {name, steps, every, columns, panels, absent}, ready for JSON.

    `every` is how many steps a point stands for: 1 unless the run is so long that points are means (the
    smallest for a minimum, the largest for a maximum) of neighbouring steps. `absent` names the known metrics
    of reinforcement learning that such a stage did not record.
    """
    stages = [stage for stage in run.stages if stage.metrics]
    series = sum(len(stage.metric_names) for stage in stages) or 1
    points = min(MOST_POINTS, max(50, MOST_NUMBERS // series))
    return [_stage(stage, points) for stage in stages]


def _stage(stage: Stage, points: int) -> dict[str, Any]:
    columns = {name: stage.column(name) for name in stage.metric_names}
    columns = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    panels, derived = _pass_rates(columns)
    columns |= derived
    preference = _preference(stage, columns)
    shown_there = {name for panel in preference for name in panel.metrics}
    panels = _known(columns) + panels + _reward_parts(columns, shown_there) + preference
    drawn = {name for panel in panels for name in panel.metrics}
    panels += _others([name for name in columns if name not in drawn])
    order = (LEARNING, WRITING, OPTIMISATION, SPEED, OTHER)
    panels.sort(key=lambda panel: order.index(panel.section))
    every = math.ceil(len(stage.steps) / points)
    shown = {name for panel in panels for name in panel.metrics}
    expected = [name for panel in PANELS for name in panel.metrics] if 'reward/mean' in columns else []
    return {
        'name': stage.name, 'every': every,
        'steps': [chunk[len(chunk) // 2] for chunk in _chunks(stage.steps, every)],
        'columns': {name: [_reduce(name, chunk) for chunk in _chunks(values, every)]
                    for name, values in columns.items() if name in shown},
        'panels': [dataclasses.asdict(panel) | {'summary': _in_words(panel, columns)} for panel in panels],
        'absent': [name for name in expected if name not in columns]}


def _known(columns: dict[str, list]) -> list[Panel]:
    """The panels of PANELS that have at least one metric here, without the metrics that they lack."""
    found = []
    for panel in PANELS:
        panel = dataclasses.replace(
            panel, lines=tuple(line for line in panel.lines if line[0] in columns),
            stacked=tuple(line for line in panel.stacked if line[0] in columns),
            band=panel.band if panel.band and all(name in columns for name in panel.band[:2]) else None)
        values = [value for name in panel.metrics for value in columns[name] if value is not None]
        if panel.log and min(values, default=1) <= 0:
            panel = dataclasses.replace(panel, log=False)  # a logarithmic axis would hide the zeros
        if panel.unit == 'groups' and max(values, default=2) <= 1:  # recorded as a share, not as a number
            panel = dataclasses.replace(panel, unit='% of groups', percent=True)
        if panel.metrics:
            found.append(panel)
    return found


def _pass_rates(columns: dict[str, list]) -> tuple[list[Panel], dict[str, list]]:
    """Panels by family and by language from pass_rate/FAMILY/LANGUAGE, and the columns that they need."""
    cells = {name: name.split('/')[1:] for name in columns
             if name.startswith('pass_rate/') and name.count('/') == 2}
    derived: dict[str, list] = {}
    panels = []
    for i, (what, other) in enumerate((('family', 'languages'), ('language', 'families'))):
        values = list(dict.fromkeys(cell[i] for cell in cells.values()))
        lines = []
        for value in values:
            # A stage may record the family's rate itself; then that is the one to show.
            name = f'pass_rate/{value}' if i == 0 else ''
            if name not in columns:
                name = f'pass rate, {what} {value}'
                derived[name] = _mean_of([columns[cell] for cell in cells if cells[cell][i] == value])
            lines.append((name, value or 'none'))
        if lines:
            panels.append(Panel(
                LEARNING, f'Pass rate by {what}', '% of completions',
                f'Mean of the rates of its {other}; a step without such problems is passed over.',
                tuple(lines), percent=True, sparse=True))
    if len(cells) > 1:
        families = list(dict.fromkeys(parts[0] for parts in cells.values()))
        ordered = sorted(cells.items(), key=lambda cell: (families.index(cell[1][0]), cell[1][1]))
        panels.append(Panel(
            LEARNING, 'Pass rate by family and language', '% of completions',
            'A step without such problems is passed over. Double-click a name to see it alone.',
            tuple((name, ' · '.join(parts)) for name, parts in ordered), percent=True, sparse=True))
    return panels, derived


def _reward_parts(columns: dict[str, list], elsewhere: set[str]) -> list[Panel]:
    lines = tuple((name, name.removeprefix('reward/').replace('_', ' ')) for name in columns
                  if name.startswith('reward/') and name not in elsewhere | {'reward/mean', 'reward/std'})
    return [Panel(LEARNING, 'Reward by component', 'reward before its weight',
                  'Mean over the completions of a step.', lines)] if lines else []


def _preference(stage: Stage, columns: dict[str, list]) -> list[Panel]:
    """What reward models pay above what is truly preferred, in a stage that recorded both."""
    scores, truths = ([name for name in names if name in columns] for names in scores_and_truths(stage))
    if not scores or not truths:
        return []
    return [Panel(
        LEARNING, 'Reward model against true preference', 'score',
        'Above the score that was paid, in standard deviations from the mean of what the reward model was trained on; below '
        'the truth. A score that rises over a truth that falls is reward hacking.',
        tuple((name, 'score: ' + name.removeprefix('reward/').replace('_', ' ')) for name in scores),
        below=tuple((name, name.removeprefix('reward/').replace('_', ' ')) for name in truths), sparse=True)]


def _others(names: list[str]) -> list[Panel]:
    """Whatever else was recorded, by the part of the name before the first '/': nothing stays hidden."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.split('/')[0], []).append(name)
    return [Panel(OTHER, family.replace('_', ' '), members[0] if len(members) == 1 else 'value', '',
                  tuple((name, name.partition('/')[2] or name) for name in members))
            for family, members in families.items()]


def _mean_of(series: list[list[float | None]]) -> list[float | None]:
    """The mean at each step over the series that have a value there."""
    present = ([value for value in values if value is not None] for values in zip(*series, strict=True))
    return [sum(values) / len(values) if values else None for values in present]


def _chunks(values: list, every: int) -> list[list]:
    return [values[i:i + every] for i in range(0, len(values), every)]


def _reduce(name: str, chunk: list[float | None]) -> float | None:
    present = [value for value in chunk if value is not None]
    if not present:
        return None
    if name.endswith('/min') or name.endswith('/max'):
        value = min(present) if name.endswith('/min') else max(present)
    else:
        value = sum(present) / len(present)
    return float(f'{value:.5g}')


def _in_words(panel: Panel, columns: dict[str, list]) -> str:
    """A plot's first lines in words, for who cannot see or hover: the means of the first and last tenth."""
    parts = []
    for name, label in (panel.lines or panel.stacked)[:4] + panel.below:
        values = [value for value in columns[name] if value is not None]
        tenth = max(1, len(values) // 10)
        first, last = sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth
        percent = panel.percent or (name, label) in panel.below
        parts.append(f'{label} {_show(first, percent)} → {_show(last, percent)}')
    return '; '.join(parts)


def _show(value: float, percent: bool) -> str:
    if percent:
        return f'{100 * value:.1f}%'
    return f'{value:,.0f}' if 1000 <= abs(value) < 1e9 else f'{value:.4g}'
