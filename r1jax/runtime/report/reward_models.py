"""Reward models: what they are worth on responses held out, and whether what they pay for is what is preferred."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.runtime.report.load import Run, Stage
from r1jax.runtime.report.tables import Column, Figure, column_of, figure_of, split_name

COLUMNS: tuple[Column, ...] = tuple(map(column_of, ('accuracy', 'calibration_error', 'brier', 'recall_unsafe')))
# Two means differ clearly if they are more than this many standard errors apart, each over at least so many steps.
STANDARD_ERRORS = 3.0
LEAST_STEPS = 5
Z95 = 1.959964


@dataclasses.dataclass(frozen=True)
class RewardModel:
    """The figures of COLUMNS of one stage's model, for all its held-out prompts ('all') and for each task.

    A group is (task, prompts, figures). A figure may be over fewer prompts than that, the recall of unsafe responses is.
    """
    name: str
    groups: list[tuple[str, int | None, list[Figure | None]]]


@dataclasses.dataclass(frozen=True)
class Trend:
    """Means of the first and of the last quarter of a series; `clear` is +1 or -1 for a clear rise or fall, else 0."""
    first: float
    last: float
    clear: int


def reward_models(summary: Mapping[str, Any]) -> list[RewardModel]:
    """The reward models that summary.json has figures for."""
    stages = summary.get('stages')
    found = []
    for name, named in (stages if isinstance(stages, dict) else {}).items():
        if not isinstance(named, dict) or 'calibration_error' not in named:
            continue
        figures = {split_name(key): figure_of(value) for key, value in named.items()}
        tasks = dict.fromkeys(task for metric, task in figures if any(metric == column.metric for column in COLUMNS))
        groups = []
        for task in tasks:
            row = [figures.get((column.metric, task)) for column in COLUMNS]
            groups.append((task, max((figure.n for figure in row if figure and figure.n is not None), default=None), row))
        found.append(RewardModel(name, groups))
    return found


def reliability(run: Run) -> list[dict[str, Any]]:
    """For each stage with a calibration: {stage, summary, lines: [{name, points}]}, ready for JSON.

    A point is [predicted probability, observed share, lower and upper end of its 95% interval, n]. The intervals are
    Wilson's and take the responses of a bin as independent.
    """
    found = []
    for stage in run.stages:
        if not stage.calibration:
            continue
        try:
            lines = [{'name': name, 'points': [_point(b['predicted'], b['observed'], b['n']) for b in bins]}
                     for name, bins in stage.calibration.items()]
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
            run.note(f'stages/{stage.name}/calibration.json holds no bins')
            continue
        words = '; '.join(f'{100 * p[0]:.0f}% → {100 * p[1]:.0f}%' for p in lines[0]['points'])
        found.append({'stage': stage.name, 'lines': lines, 'summary': f'predicted → observed: {words}'})
    return found


def _point(predicted: float, observed: float, n: int) -> list[float]:
    centre = (observed + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(observed * (1 - observed) / n + Z95**2 / (4 * n**2))
    values = (predicted, observed, min(observed, centre - half), max(observed, centre + half))
    if not all(math.isfinite(value) for value in values):
        raise ValueError('not a finite number')
    return [float(f'{value:.4g}') for value in values] + [n]


def scores_and_truths(stage: Stage) -> tuple[list[str], list[str]]:
    """The metrics of a stage's reward models, and those of the true preference that was measured beside them.

    The score of a reward model is the one that was paid: standardised, 0 being the mean of the responses that it was
    trained on, and 1 their standard deviation. The truth is a share.
    """
    roles = stage.config.get('reward_models')
    scores = [f'reward/{role}' for role in (roles if isinstance(roles, dict) else ())]
    return ([name for name in scores if name in stage.metric_names],
            [name for name in stage.metric_names if name.startswith('reward/true_')])


def trend(values: Sequence[float]) -> Trend | None:
    """Compares the first quarter of a series with the last; None if it is empty.

    The change is clear if it exceeds STANDARD_ERRORS standard errors of a difference of two means (Welch, Biometrika 34,
    1947), the values of a quarter being the draws: a trend within a quarter widens the error, and the verdict errs towards
    saying nothing. Series shorter than four times LEAST_STEPS give no verdict.
    """
    if not values:
        return None
    quarter = max(1, len(values) // 4)
    first, last = values[:quarter], values[-quarter:]
    means = [sum(part) / quarter for part in (first, last)]
    change = means[1] - means[0]
    if quarter < LEAST_STEPS:
        return Trend(*means, 0)
    squares = [sum((value - mean)**2 for value in part) for part, mean in zip((first, last), means, strict=True)]
    error = math.sqrt(sum(squares) / (quarter - 1) / quarter)
    clear = abs(change) > STANDARD_ERRORS * error
    return Trend(*means, (1 if change > 0 else -1) if clear else 0)


def hacked(stage: Stage) -> str | None:
    """A sentence if a score clearly rises over the steps in which it was paid, while a truth clearly falls; else None."""
    scores, truths = scores_and_truths(stage)
    paid = [line for line in stage.metrics if any(line.get(name) is not None for name in scores)]
    trends = {name: trend([line[name] for line in paid if line.get(name) is not None]) for name in scores + truths}
    risen = [name for name in scores if trends[name] and trends[name].clear > 0]
    fallen = [name for name in truths if trends[name] and trends[name].clear < 0]
    if not risen or not fallen:
        return None
    up = ', '.join(f'{_plain(name)} ({trends[name].first:.2f} → {trends[name].last:.2f})' for name in risen)
    down = ', '.join(f'{_plain(name)} ({trends[name].first:.1%} → {trends[name].last:.1%})' for name in fallen)
    numbers = f'Score up: {up}. Truth down: {down}.'.replace('-', '\N{MINUS SIGN}')
    return (f'Stage {stage.name}: what reward models pay rises while what is truly preferred falls, as in reward hacking. '
            f'{numbers} (Means of the first and of the last quarter of the {len(paid):,} steps with that pay; each pair is '
            f'more than {STANDARD_ERRORS:g} standard errors apart.)')


def _plain(metric: str) -> str:
    return metric.removeprefix('reward/').replace('_', ' ')
