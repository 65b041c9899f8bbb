"""What the model wrote, for the page's browser: test problems before and after, and training by step.

A page cannot hold a run's rollouts. The choice is blind to the outcome: problems in the order of their id,
families and languages in turn, the first samples of each; the page says how many of how many it holds.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from r1jax.data.tinyworld import REFLECTION_WORDS
from r1jax.rewards.accuracy import UNGRADED
from r1jax.runtime.report.load import Run, Stage
from r1jax.runtime.report.models import label_of, result_of
from r1jax.runtime.rollouts import as_rows, step_path

MOST_PROBLEMS, SAMPLES_OF_EACH = 200, 2
MOST_STEPS, PROMPTS_OF_EACH = 24, 12
# Bytes of JSON for each half of the browser, whatever room the page has; and characters shown of one completion.
MOST_BYTES, LEAST_BYTES = 350_000, 40_000
HEAD, TAIL = 3000, 1500
# From this accuracy reward on, an answer counts as right: the reward is 1 or 0, but for partly passed tests.
RIGHT = 0.999

_KEYS = ['step', 'prompt_id', 'sample', 'task', 'language', 'rewards']


@dataclasses.dataclass(frozen=True)
class _EvalFile:
    model: str
    label: str
    path: pathlib.Path


def collect(run: Run, room: int) -> dict[str, Any]:
    """Samples ready for JSON, and what the page must say about the choice.

    Args:
      run: whose samples.
      room: bytes that the page has left for them. Each half gets half of it, but within LEAST_BYTES and MOST_BYTES.

    Returns:
      models: the names of the models before and after, or of the only one; labels: what tables call them.
      pairs: test problems with each model's samples; pairs_of: how many there are on the disk, in how many
        sets, i.e. evaluations.
      training: completions of the training steps; steps_held of steps_of steps are among them.
      words: the reflection words to mark.
    """
    words = [word for of_language in REFLECTION_WORDS.values() for word in of_language]
    most = min(MOST_BYTES, max(LEAST_BYTES, room // 2))
    return _pairs(run, most) | _training(run, most) | {
        'words': words, 'samples_of_each': SAMPLES_OF_EACH, 'prompts_of_each': PROMPTS_OF_EACH}


def nothing() -> dict[str, Any]:
    """What `collect` returns where there are no samples, as far as the page's template asks."""
    return {'models': [], 'pairs': [], 'training': []}


def _pairs(run: Run, most: int) -> dict[str, Any]:
    """Test problems with the samples of the first model that kept any, and of the result or the last one that did."""
    files = [_eval_file(path, stage, run.evaluated) for stage in run.stages for path in stage.eval_files]
    order = run.evaluated + [stage.name for stage in run.stages]
    models = sorted({file.model for file in files}, key=order.index)
    if len(models) > 2:
        result = result_of(run.summary)
        models = list(dict.fromkeys((models[0], result if result in models else models[-1])))
    # (label, task, language, id) -> model -> outcomes of all samples; texts of the chosen ones follow.
    outcomes: dict[tuple, dict[str, list[bool | None]]] = {}
    wanted = [file for file in files if file.model in models]
    for file in wanted:
        for row in _rows(run, file.path, _KEYS):
            key = (file.label, *_key(row))
            outcomes.setdefault(key, {}).setdefault(file.model, []).append(_right(row))
    # Where two models were asked, only problems that both answered: they are what the page is for.
    both = [key for key, by_model in outcomes.items() if len(by_model) == len(models)]
    chosen = _in_turn(both or outcomes, lambda key: key[:3])[:MOST_PROBLEMS]
    problems: dict[tuple, dict[str, Any]] = {}
    for file in wanted:
        ids = {key[3] for key in chosen if key[0] == file.label}
        for row in _rows(run, file.path, None, ids):
            key = (file.label, *_key(row))
            if key in chosen:
                problem = problems.setdefault(key, _problem(row) | {'set': file.label, 'models': {}})
                told = [right for right in outcomes[key][file.model] if right is not None]
                of_model = problem['models'].setdefault(file.model, {
                    'right': sum(told) if told else None, 'of': len(outcomes[key][file.model]), 'samples': []})
                of_model['samples'].append(_sample(row))
                if _cut(row['prompt'] or '') != problem['prompt']:  # asked through another template
                    of_model['prompt'] = _cut(row['prompt'] or '')
    for problem in problems.values():
        for of_model in problem['models'].values():
            of_model['samples'].sort(key=lambda sample: sample['sample'])
            del of_model['samples'][SAMPLES_OF_EACH:]
    pairs = _within_size((problems[key] for key in chosen if key in problems), most)
    return {'models': models, 'labels': {model: label_of(run.summary, model) for model in models}, 'pairs': pairs,
            'pairs_of': len(outcomes), 'sets': len({file.label for file in wanted})}


def _training(run: Run, most: int) -> dict[str, Any]:
    """The first sample of some prompts of evenly spaced steps, the first and the last included."""
    stages = [stage for stage in run.stages if stage.rollout_steps]
    found: list[dict[str, Any]] = []
    total_steps = sum(len(stage.rollout_steps) for stage in stages)
    for stage in stages:
        of_stage = []
        steps = _spaced(stage.rollout_steps, max(2, MOST_STEPS // len(stages)))
        for step in steps:
            rows = _rows(run, step_path(stage.folder / 'rollouts', step), _KEYS)
            first: dict[int, tuple] = {}
            for row in sorted(rows, key=lambda row: row['sample'] or 0):
                first.setdefault(row['prompt_id'], _key(row))
            ids = {key[2] for key in _in_turn(first.values(), lambda key: key[:2])[:PROMPTS_OF_EACH]}
            texts: dict[int, dict[str, Any]] = {}
            rows = _rows(run, step_path(stage.folder / 'rollouts', step), None, ids)
            for row in sorted(rows, key=lambda row: row['sample'] or 0):
                entry = _problem(row) | _sample(row) | {'stage': stage.name, 'step': step}
                texts.setdefault(row['prompt_id'], entry)
            if texts:
                of_stage.append(list(texts.values()))
        # Long completions: rather fewer steps, evenly spaced, than a run without its end.
        share = most // len(stages)
        of_stage = _spaced(of_stage, max(2, len(_within_size((entries[0] for entries in of_stage), share))))
        # One prompt of every step, then the next; in each turn first and last step go before the others.
        of_stage = of_stage[:1] + of_stage[:0:-1]
        turns = [entries[i] for i in range(PROMPTS_OF_EACH) for entries in of_stage if i < len(entries)]
        found += sorted(_within_size(turns, share), key=lambda entry: entry['step'])
    return {'training': found, 'steps_of': total_steps,
            'steps_held': len({(entry['stage'], entry['step']) for entry in found})}


def _eval_file(path: pathlib.Path, stage: Stage, models: list[str]) -> _EvalFile:
    """Whose answers a file holds: those of its stage, or of the model whose name its own begins with."""
    for model in sorted([*models, stage.name], key=len, reverse=True):  # a stage may be under evaluation
        rest = path.stem.removeprefix(model)
        if rest != path.stem and not rest[:1].isalnum():
            return _EvalFile(model, rest.lstrip('-_. ') or 'test', path)
    return _EvalFile(stage.name, path.stem, path)


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row['task'] or '', row['language'] or '', row['prompt_id']


def _rows(run: Run, path: pathlib.Path, columns: list[str] | None,
          ids: set[int] | None = None) -> list[dict[str, Any]]:
    """The rows of a file, only of the prompts `ids` if given; [] and a note if it cannot be read."""
    table = run.rollouts(path, columns)
    if table is None:
        return []
    if ids is not None:
        table = table.filter(pc.is_in(table['prompt_id'], value_set=pa.array(sorted(ids), pa.int64())))
    return as_rows(table)


def _right(row: dict[str, Any]) -> bool | None:
    """None where nothing says: no accuracy, or that of a task that no rule can grade, which is 0 whatever was written."""
    accuracy = (row['rewards'] or {}).get('accuracy')
    if accuracy is None or math.isnan(accuracy) or row['task'] in UNGRADED:
        return None
    return accuracy >= RIGHT


def _problem(row: dict[str, Any]) -> dict[str, Any]:
    return {'id': row['prompt_id'], 'task': row['task'] or '', 'kind': row['kind'] or '',
            'language': row['language'] or '', 'difficulty': row['difficulty'],
            'prompt': _cut(row['prompt'] or ''), 'answer': _cut(row['answer'] or '')}


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    rewards = {name: _number(value) for name, value in (row['rewards'] or {}).items()}
    return {'sample': row['sample'] or 0, 'text': _cut(row['completion'] or ''),
            'right': _right(row), 'reward': _number(row['reward']), 'rewards': rewards,
            'advantage': _number(row['advantage']), 'tokens': row['n_tokens'], 'finished': row['finished'],
            'reflection': row['reflection_words'], 'logprob': _number(row['logprob_mean'])}


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f'{value:.4g}')


def _cut(text: str) -> str:
    left_out = len(text) - HEAD - TAIL
    if left_out <= 0:
        return text
    return f'{text[:HEAD]}\n[… {left_out:,} characters left out of this page …]\n{text[-TAIL:]}'


def _in_turn(keys: Iterable[tuple], stratum) -> list[tuple]:
    """The keys in ascending order within each stratum, one of each stratum in turn."""
    strata: dict[tuple, list[tuple]] = {}
    for key in sorted(keys):
        strata.setdefault(stratum(key), []).append(key)
    longest = max((len(members) for members in strata.values()), default=0)
    return [members[i] for i in range(longest) for members in strata.values() if i < len(members)]


def _within_size(entries: Iterable[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The leading entries that fit in `most` bytes of JSON; at least one."""
    kept, size = [], 0
    for entry in entries:
        text = json.dumps(entry, ensure_ascii=False)
        # Inside <script>, each of these three becomes a six-byte escape.
        size += len(text.encode('utf-8', 'surrogatepass')) + 5 * sum(text.count(sign) for sign in '<>&')
        if kept and size > most:
            break
        kept.append(entry)
    return kept


def _spaced(items: list, most: int) -> list:
    """At most `most` (2 or more) of the items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
