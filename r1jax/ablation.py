"""What if something else had been paid? Stored rollouts under other rewards, and short runs that train under them.

    from r1jax import ablation

    rollouts = ablation.load('runs/tiny-r1_zero/stages/r1_zero/rollouts')
    mixes = {'paid': 'accuracy=1,format=0.05', 'short': 'accuracy=1,my_rewards.py:brevity=0.2'}
    table = ablation.rescore(rollouts, mixes)
    table.flips('paid', 'short')
    ablation.plot_arms(ablation.run_arms(mixes, steps=5))

Rescoring takes seconds and says which way each completion would have been pushed: its advantage within its group. It says
so of samples that one policy drew, and nothing of what a policy becomes: for that `run_arms` trains. Both take the same
mixes, and rewards that a notebook's cell has registered.

What comes back shows itself as HTML in a notebook and as text elsewhere. Dimensions: B = P * G completions in P groups of
G samples, group after group; C rewards; S steps; F completions whose advantage changes its sign.
"""

import collections
import contextlib
import dataclasses
import functools
import html
import io
import itertools
import json
import os
import pathlib
import re
import typing
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1jax.config import CHECKOUT, from_dict, load_experiment, to_dict
from r1jax.errors import UserError, nearest
from r1jax.learning.grpo import REWARD_TOLERANCE, group_advantages, zero_variance_groups
from r1jax.parallel.mesh import split_cpu
from r1jax.pipeline import BASE, run_experiment
from r1jax.rewards.base import Completion, Example, RewardOutput, short_name
from r1jax.rewards.mix import COUNTED, RewardMix
from r1jax.rewards.pool import WorkerPool
from r1jax.rewards.weights import parse_weights
from r1jax.runtime.metrics import read_metrics
from r1jax.runtime.rollouts import LATER, as_rows, read_rollouts
from r1jax.stages.base import MODEL
from r1jax.stages.rollout import prefilled, read_row

if typing.TYPE_CHECKING:
    from matplotlib.figure import Figure

# Seconds that a reward may take, as a GRPO stage has it.
TIMEOUT_S = 10.0
EXPERIMENT = 'experiments/tiny/r1_zero.py'
# Where a file that `excerpt` wrote keeps the settings of the stage that paid.
_SETTINGS = b'r1jax.grpo'
# Okabe and Ito's colours, told apart with any colour vision; their yellow, faint on white, is left out.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_MARKERS = ('o', 's', '^', 'D', 'v')
_PANELS = (
    ('pass_rate', 'accuracy', 'share that is right'),
    ('length/mean', 'length', 'tokens'),
    ('format_rate', 'format', 'share that has the format'),
    ('language_consistency', 'language', "share in the question's language"),
)
_PASS = re.compile(r'pass@1/T=[\d.]+/all')
_TEXT_WIDTH = 125


@dataclasses.dataclass(frozen=True)
class Mix:
    """What is paid, and how it becomes an advantage: these settings of a GRPO stage, by the names that they have there.

    Reward models are no part of it: they are not asked again, and those of an experiment pay in each of its arms.

    Attributes:
        rewards: weights by name, 'accuracy=1,format=0.5'.
        reward_options: options of single rewards by name, {'overlong': {'max_length': 96, 'cache': 32}}.
        reward_tasks: which tasks a reward is for, {'accuracy': 'math+code'}; all where it is not named.
        advantage_std: whether advantages are divided by the group's standard deviation. None: as the run that is scored
            again has it, or the experiment that trains.
    """

    rewards: str
    reward_options: dict[str, dict[str, int | float | bool | str]] = dataclasses.field(default_factory=dict)
    reward_tasks: dict[str, str] = dataclasses.field(default_factory=dict)
    advantage_std: bool | None = None


# By name: weights like 'accuracy=1,format=0.5', or a mapping with fields of Mix.
Mixes = Mapping[str, str | Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, repr=False)
class Grid:
    """A table that shows itself: a caption, a header, and rows of text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        table = Table(title=Text(self.caption), title_justify='left', box=box.SIMPLE_HEAD)
        for index, name in enumerate(self.header):
            table.add_column(Text(name), justify='right' if index else 'left', no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))
        return _as_text(table, width=1000)  # it takes what it needs

    def _repr_html_(self) -> str:
        lines = [_cells('th', self.header), *(_cells('td', row) for row in self.rows)]
        body = ''.join(f'<tr>{line}</tr>' for line in lines)
        return f'<p><b>{html.escape(self.caption)}</b></p><table>{body}</table>'


class _Shown:
    """What shows itself as its table, `_grid`."""

    def __repr__(self) -> str:
        return repr(self._grid)

    def _repr_html_(self) -> str:
        return self._grid._repr_html_()


# ---- stored rollouts ----


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rollouts:
    """Stored completions in whole groups.

    Attributes:
        source: the file or folder.
        completions, examples: B each, as the reward functions saw them.
        step_B, prompt_id_B, sample_B: int64; the first two name a group.
        reward_B: float32, what was paid; NaN where nothing was.
        components: reward -> float32 [B], its stored value before the weight; NaN where it was not for the example.
        group: G.
        paid: the rewards of the run; None where nothing says what they were.
        checked: a sentence: whether rescoring gives what was paid.
    """

    source: pathlib.Path
    completions: tuple[Completion, ...]
    examples: tuple[Example, ...]
    step_B: np.ndarray
    prompt_id_B: np.ndarray
    sample_B: np.ndarray
    reward_B: np.ndarray
    components: dict[str, np.ndarray]
    group: int
    paid: Mix | None = None
    checked: str = ''

    @property
    def groups(self) -> int:
        """P."""
        return len(self.completions) // self.group

    @property
    def steps(self) -> list[int]:
        """The steps that they were drawn in."""
        return sorted(set(self.step_B.tolist()))

    def name(self, index: int) -> str:
        """What a completion is called, 'step 6, problem 83, sample 4'."""
        return f'step {self.step_B[index]}, problem {self.prompt_id_B[index]}, sample {self.sample_B[index]}'

    def __repr__(self) -> str:
        shown = ', '.join(map(str, self.steps)) if len(self.steps) <= 8 else f'{self.steps[0]} to {self.steps[-1]}'
        paid = f", paid by '{self.paid.rewards}'" if self.paid else ''
        return (f'{len(self.completions)} completions in {self.groups} groups of {self.group} '
                f'(step{"s" * (len(self.steps) > 1)} {shown}){paid}. {self.checked}')

    def _repr_html_(self) -> str:
        return f'<p>{html.escape(str(self))}</p>'


def load(path: str | os.PathLike[str], steps: Collection[int] | None = None) -> Rollouts:
    """Reads rollouts and checks that rescoring them under the run's own rewards gives what was paid, to float32.

    They are scored in as many workers as the run had. What reward models paid is taken as it was stored, for those are not
    asked again. Where anything differs, a warning names the first completion that does.

    Args:
        path: a stage's folder of rollouts, or one file; of the working folder, or else of the checkout.
        steps: only these steps of a folder; None for all.

    Raises:
        UserError: no such path or step, nothing in it, or groups that are not whole.
    """
    path = _found(path)
    rows = as_rows(read_rollouts(path, steps))
    if not rows:
        raise UserError(f'{path}: there are no rollouts')
    completions, examples = zip(*map(read_row, rows), strict=True)
    parts = [_values_by_reward(row['rewards'] or {}) for row in rows]
    rollouts = Rollouts(
        path, completions, examples,
        *(np.array([row[name] for row in rows], np.int64) for name in ('step', 'prompt_id', 'sample')),
        reward_B=np.array([row['reward'] for row in rows], np.float32),
        components={
            name: np.array([part.get(name, np.nan) for part in parts], np.float32)
            for name in dict.fromkeys(itertools.chain.from_iterable(parts))},
        group=_group_size(path, rows))
    settings = _settings(path)
    if settings is None or all(row['advantage'] is None for row in rows):
        return dataclasses.replace(rollouts, checked='What was paid for them is not known, so rescoring is not checked.')
    known = {field.name: settings[field.name] for field in dataclasses.fields(Mix) if field.name in settings}
    rollouts = dataclasses.replace(rollouts, paid=from_dict(Mix, known, f'the settings of {path}'))
    sentence, fault = _check(rollouts, settings)
    if fault and all(row[name] is None for row in rows for name in LATER):
        sentence += f' (The rollouts are older than the columns {", ".join(LATER)}, which rewards may read.)'
    if fault:
        warnings.warn(f'{path}: {sentence}', stacklevel=2)
    return dataclasses.replace(rollouts, checked=sentence)


def excerpt(folder: str | os.PathLike[str], out: str | os.PathLike[str], *, steps: Collection[int], groups: int) -> None:
    """Writes some of a stage's rollouts to one Parquet file, with the settings that paid them, so that it can be passed on.

    Args:
        folder: stages/NAME/rollouts of a run.
        out: the file; one that is there is replaced.
        steps: of these steps ...
        groups: ... the first so many groups of each.

    Raises:
        UserError: no such folder or step, or no settings beside the folder.
    """
    folder, out = _found(folder), pathlib.Path(out)
    table = read_rollouts(folder, steps)
    settings = _settings(folder)
    if settings is None:
        raise UserError(f"{folder}: no 'config.json' of a stage of kind 'grpo' lies beside it, which says what was paid")
    keys = list(zip(table['step'].to_pylist(), table['prompt_id'].to_pylist(), strict=True))
    of_step = collections.defaultdict(list)
    for step, prompt_id in dict.fromkeys(keys):
        of_step[step].append((step, prompt_id))
    kept = {key for some in of_step.values() for key in some[:groups]}
    table = table.filter([key in kept for key in keys]).replace_schema_metadata({_SETTINGS: json.dumps(settings)})
    temporary = out.with_name(f'.{out.name}.tmp')
    pq.write_table(table, temporary, compression='zstd')
    os.replace(temporary, out)


def _found(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path, of the checkout if the working folder has no such one: a notebook's is that which it lies in."""
    path = pathlib.Path(path)
    return path if path.exists() or not (CHECKOUT / path).exists() else CHECKOUT / path


def _settings(path: pathlib.Path) -> dict[str, Any] | None:
    """The settings of the GRPO stage that rollouts are of: kept in the file, or beside its folder. None without any."""
    if path.is_file() and (kept := (pq.read_schema(path).metadata or {}).get(_SETTINGS)):
        return json.loads(kept)
    beside = (path.parent if path.is_file() else path).resolve().parent / 'config.json'
    settings = json.loads(beside.read_text()) if beside.is_file() else {}
    return settings if settings.get('kind') == 'grpo' else None


def _values_by_reward(info: Mapping[str, Any]) -> dict[str, Any]:
    """What rewards say, without their metrics ('accuracy/ungraded') and what is counted."""
    return {name: values for name, values in info.items() if '/' not in name and name not in COUNTED}


def _group_size(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> int:
    counts = collections.Counter(key for key, _ in itertools.groupby(rows, lambda row: (row['step'], row['prompt_id'])))
    sizes = collections.Counter((row['step'], row['prompt_id']) for row in rows)
    usual = collections.Counter(sizes.values()).most_common(1)[0][0]
    for (step, prompt_id), size in sizes.items():
        if size != usual or counts[step, prompt_id] > 1:
            raise UserError(
                f'{path}: problem {prompt_id} of step {step} is no whole group: it has {size} completions'
                + (f', where others have {usual}' if size != usual else ', which are not side by side'))
    return usual


def _check(rollouts: Rollouts, settings: Mapping[str, Any]) -> tuple[str, bool]:
    """A sentence that says whether rescoring gives what was paid, and whether something is wrong."""
    try:
        with _pool(settings.get('reward_workers', 0), settings.get('reward_timeout_s', TIMEOUT_S)) as pool:
            output = _pay(rollouts, rollouts.paid, pool)
    except Exception as error:  # whatever a user's reward may raise: the rollouts can be looked at in any case
        name = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
        return f"Rescoring under the run's own rewards fails: {name}{error}.", True
    total_B, parts = output.values, _values_by_reward(output.info)
    # Before the last part of a stage they pay nothing, and nothing is stored.
    for name, weight in settings.get('reward_models', {}).items():
        total_B = total_B + weight * np.nan_to_num(rollouts.components.get(name, np.zeros_like(total_B)))
    paid_B = rollouts.reward_B
    differs = np.flatnonzero(~(np.abs(total_B - paid_B) <= REWARD_TOLERANCE * np.maximum(1, np.abs(paid_B))))
    if not len(differs):
        return "Rescored under the run's own rewards, each has the reward that was paid.", False
    first = differs[0]
    changed = ', '.join(
        f'{name} {rollouts.components[name][first]:g} -> {values_B[first]:g}' for name, values_B in parts.items()
        if name in rollouts.components and not np.isclose(values_B[first], rollouts.components[name][first], equal_nan=True))
    return (
        f"Rescored under the run's own rewards, {len(differs)} have another reward than was paid, the first being "
        f'{rollouts.name(first)}: {paid_B[first]:g} -> {total_B[first]:g}{changed and f" ({changed})"}.'), True


# ---- rescoring ----


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Rollouts under one mix: reward_B and advantage_B, float32; components: reward -> float32 [B] before its weight."""

    mix: Mix
    reward_B: np.ndarray
    advantage_B: np.ndarray
    components: dict[str, np.ndarray]

    def parts(self, group: int) -> dict[str, np.ndarray]:
        """Term of the mix -> float64 [B], by how much it lifts a completion above its group's mean.

        That is weight * (value - mean). They add up to the reward less its group's mean, of which the advantage is a
        multiple. A term is a reward or a product of rewards.
        """
        parts = {}
        for term, weight in parse_weights(self.mix.rewards).items():
            names = [short_name(name) for name in term.split('*')]
            value_B = np.prod([self.components[name] for name in names], axis=0, dtype=np.float64)
            parts['*'.join(names)] = weight * _centred(np.nan_to_num(value_B), group)
        return parts


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rescored(_Shown):
    """The same rollouts under several mixes, by name; the first is what the others are compared with."""

    rollouts: Rollouts
    scored: dict[str, Scored]

    def compare(self, mix: str, other: str) -> 'Comparison':
        """How advantages and ranks differ between two mixes. Raises UserError for an unknown name."""
        a, b, group = self._get(mix), self._get(other), self.rollouts.group
        ranks = [_mean_ranks(_levels(x.reward_B).reshape(-1, group)) for x in (a, b)]
        best = [rank_PG == rank_PG.max(axis=1, keepdims=True) for rank_PG in ranks]
        flat_P = [zero_variance_groups(x.reward_B, group) for x in (a, b)]
        first_PG, second_PG = (rank_PG - rank_PG.mean(axis=1, keepdims=True) for rank_PG in ranks)
        spread_P = np.sqrt((first_PG**2).sum(axis=1) * (second_PG**2).sum(axis=1))
        varied_P = ~(flat_P[0] | flat_P[1]) & (spread_P > 0)
        rank_correlation_P = np.full(self.rollouts.groups, np.nan)
        rank_correlation_P[varied_P] = (first_PG * second_PG).sum(axis=1)[varied_P] / spread_P[varied_P]
        return Comparison(
            self.rollouts, (mix, other), rank_correlation_P, ~(best[0] & best[1]).any(axis=1), *flat_P,
            a.advantage_B * b.advantage_B < 0)

    def flips(self, mix: str, other: str, most: int = 5) -> 'Flips':
        """The completions that one mix pushes up and the other down.

        Args:
            most: how many are shown, one of a group, those whose advantage changes most; `Flips.index_F` has all.

        Raises:
            UserError: an unknown name.
        """
        change_B = self._get(other).advantage_B - self._get(mix).advantage_B
        flipped = np.flatnonzero(self.compare(mix, other).flipped_B)
        index_F = flipped[np.argsort(-np.abs(change_B[flipped]), kind='stable')]
        start_F = index_F // self.rollouts.group * self.rollouts.group
        # Changes of a group add up to 0, so that some other one has gone the other way.
        against_FG = -np.sign(change_B[index_F])[:, None] * change_B[start_F[:, None] + np.arange(self.rollouts.group)]
        return Flips(self, (mix, other), index_F, start_F + against_FG.argmax(axis=1), most)

    def correlations(self) -> 'Correlations':
        """How each two rewards go together within groups."""
        values: dict[str, np.ndarray] = {}
        for mix, scored in self.scored.items():
            for name, values_B in scored.components.items():
                if not np.array_equal(values.setdefault(name, values_B), values_B, equal_nan=True):
                    values[f'{name} ({mix})'] = values_B
        deviations_CB = np.array([_centred(np.nan_to_num(values_B), self.rollouts.group) for values_B in values.values()])
        norm_C = np.linalg.norm(deviations_CB, axis=1)
        norm_C[norm_C <= REWARD_TOLERANCE * np.sqrt(deviations_CB.shape[1])] = np.nan
        return Correlations(tuple(values), deviations_CB @ deviations_CB.T / np.outer(norm_C, norm_C))

    def ranking(self, step: int, problem: int) -> Grid:
        """One group under all mixes: each sample's rewards, and its rank (1 is best, ties share one) and advantage.

        Raises:
            UserError: there is no such group.
        """
        rollouts = self.rollouts
        mine = np.flatnonzero((rollouts.step_B == step) & (rollouts.prompt_id_B == problem))
        if not len(mine):
            known = [str(key) for key in dict.fromkeys(rollouts.prompt_id_B[rollouts.step_B == step].tolist())]
            raise UserError(f'{rollouts.source}: there is no problem {problem} of step {step}{nearest(str(problem), known)}')
        parts: dict[str, np.ndarray] = {}
        for name, values_B in itertools.chain.from_iterable(x.components.items() for x in self.scored.values()):
            parts.setdefault(name, values_B)
        levels = {name: _levels(x.reward_B[mine]) for name, x in self.scored.items()}
        ranks = {name: 1 + (level_G > level_G[:, None]).sum(axis=1) for name, level_G in levels.items()}
        rows = []
        for place in np.argsort(next(iter(ranks.values())), kind='stable'):
            index = mine[place]
            rows.append((
                str(rollouts.sample_B[index]), str(rollouts.completions[index].n_tokens),
                *(_number(x_B[index]) for x_B in parts.values()),
                *(f'{ranks[name][place]} ({scored.advantage_B[index]:+.2f})' for name, scored in self.scored.items())))
        return Grid(f'step {step}, problem {problem}: rank (advantage) under each mix',
                    ('sample', 'tokens', *parts, *self.scored), tuple(rows))

    def _get(self, mix: str) -> Scored:
        if mix not in self.scored:
            raise UserError(f"there is no mix '{mix}'{nearest(mix, self.scored)}")
        return self.scored[mix]

    @functools.cached_property
    def _grid(self) -> Grid:
        first, rows = next(iter(self.scored)), []
        for name, scored in self.scored.items():
            versus = self.compare(first, name)
            rows.append((
                name, scored.mix.rewards, f'{scored.reward_B.mean():.3f}', f'{versus.flat_other_P.mean():.1%}',
                *(('', '', '') if name == first else versus.figures(np.ones(self.rollouts.groups, bool)))))
        return Grid(
            f"{self.rollouts.groups} groups of {self.rollouts.group} under each mix, and against '{first}'",
            ('mix', 'rewards', 'mean reward', 'groups without variance', 'rank correlation', 'another best', 'sign flips'),
            tuple(rows))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison(_Shown):
    """Two mixes on the same groups.

    Attributes:
        rank_correlation_P: Spearman's, with mean ranks for ties; NaN where a mix pays a whole group alike.
        another_best_P: whether no completion that is best under one mix is best (or as good as the best) under the other.
        flat_P, flat_other_P: whether the group has no variance, and so no advantage, under the first and the second mix.
        flipped_B: whether the advantages have opposite signs.
    """

    rollouts: Rollouts
    mixes: tuple[str, str]
    rank_correlation_P: np.ndarray
    another_best_P: np.ndarray
    flat_P: np.ndarray
    flat_other_P: np.ndarray
    flipped_B: np.ndarray

    def figures(self, chosen_P: np.ndarray) -> tuple[str, str, str]:
        """Over some groups, as text: mean rank correlation, and the shares of another best and of flipped signs."""
        known = self.rank_correlation_P[chosen_P & ~np.isnan(self.rank_correlation_P)]
        flipped_PG = self.flipped_B.reshape(-1, self.rollouts.group)
        return (_number(known.mean() if len(known) else np.nan), f'{self.another_best_P[chosen_P].mean():.1%}',
                f'{flipped_PG[chosen_P].mean():.1%}')

    @functools.cached_property
    def _grid(self) -> Grid:
        step_P = self.rollouts.step_B[::self.rollouts.group]
        rows = []
        for name, steps in {**{f'step {step}': [step] for step in self.rollouts.steps}, 'all': self.rollouts.steps}.items():
            chosen_P = np.isin(step_P, steps)
            flat = (f'{flat_P[chosen_P].mean():.1%}' for flat_P in (self.flat_P, self.flat_other_P))
            rows.append((name, str(chosen_P.sum()), *flat, *self.figures(chosen_P)))
        a, b = self.mixes
        return Grid(
            f"'{a}' against '{b}'",
            ('', 'groups', f'without variance: {a}', b, 'rank correlation', 'another best', 'sign flips'), tuple(rows))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Correlations(_Shown):
    """Pearson's correlation of rewards' deviations from their group's mean: no advantage has differences between groups.

    Attributes:
        names: of the C rewards. One to which a later mix gives other options is there again, with the mix in brackets.
        matrix_CC: float64; NaN for a reward that does not vary in any group.
    """

    names: tuple[str, ...]
    matrix_CC: np.ndarray

    @functools.cached_property
    def _grid(self) -> Grid:
        return Grid(
            'correlation of rewards within groups', ('', *self.names),
            tuple((name, *map(_number, row_C)) for name, row_C in zip(self.names, self.matrix_CC, strict=True)))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Flips:
    """Completions whose advantage changes its sign, the greatest change first, each beside the one that it gave way to.

    Attributes:
        index_F: int64, the completions.
        rival_F: int64, of the same group the one whose advantage changed most the other way.
        most: how many are shown.
    """

    table: Rescored
    mixes: tuple[str, str]
    index_F: np.ndarray
    rival_F: np.ndarray
    most: int

    def cause(self, index: int) -> str:
        """The reward whose part (`Scored.parts`) changed most in the direction in which the completion's advantage went."""
        change = {name: after - before for name, (before, after) in self._parts(index).items()}
        scored = [self.table.scored[name] for name in self.mixes]
        upward = scored[1].advantage_B[index] > scored[0].advantage_B[index]
        return (max if upward else min)(change, key=change.get)

    def _parts(self, index: int) -> dict[str, tuple[float, float]]:
        """Reward -> its part under either mix; 0 under one that does not have it."""
        both = self._all_parts
        return {name: tuple(float(parts[name][index]) if name in parts else 0.0 for parts in both)
                for name in {**both[0], **both[1]}}

    @functools.cached_property
    def _all_parts(self) -> list[dict[str, np.ndarray]]:
        return [self.table.scored[name].parts(self.table.rollouts.group) for name in self.mixes]

    @property
    def shown(self) -> list[tuple[int, int]]:
        """Those that are shown, with their rivals: one of each group."""
        group = self.table.rollouts.group
        of_group = {}
        for index, rival in zip(self.index_F.tolist(), self.rival_F.tolist(), strict=True):
            of_group.setdefault(index // group, (index, rival))
        return list(of_group.values())[:self.most]

    def causes(self) -> dict[str, int]:
        """Reward -> how many of all that flip it is the `cause` of, the most frequent first."""
        return dict(collections.Counter(self.cause(index) for index in self.index_F.tolist()).most_common())

    @property
    def _head(self) -> str:
        rollouts, (a, b) = self.table.rollouts, self.mixes
        head = f"{len(self.index_F)} of {len(rollouts.completions)} completions: opposite advantages under '{a}' and '{b}'"
        if not len(self.index_F):
            return head + '.'
        told = ', '.join(f'{name} {count}' for name, count in self.causes().items())
        n = len(self.shown)
        return f'{head}. What turned them: {told}. The {n} with the greatest change, one of a group:'

    def _advantages(self, index: int) -> str:
        return ' -> '.join(f'{self.table.scored[name].advantage_B[index]:+.2f}' for name in self.mixes)

    def _reasons(self, index: int, rival: int) -> Grid:
        """Each reward's value here, in the rival and in the group's mean, and its part under either mix."""
        a, b = self.mixes
        group = slice(index // self.table.rollouts.group * self.table.rollouts.group, None)
        values = self.table.scored[b].components | self.table.scored[a].components
        cause, rows = self.cause(index), []
        for name, parts in self._parts(index).items():
            told = ('', '', '')
            if name in values:
                mean = np.nan_to_num(values[name][group][:self.table.rollouts.group]).mean()
                told = tuple(map(_number, (values[name][index], values[name][rival], mean)))
            rows.append((f'{name} *' if name == cause else name, *told, *(f'{part:+.3f}' for part in parts)))
        return Grid("weight * (left - group's mean) under each mix; * turned it",
                    ('reward', 'left', 'right', "group's mean", a, b), tuple(rows))

    def __repr__(self) -> str:
        pieces = [self._head]
        for index, rival in self.shown:
            sides = Table(box=box.SIMPLE_HEAD, expand=True)
            for here in (index, rival):
                sides.add_column(
                    Text(f'{self.table.rollouts.name(here)}: {self._advantages(here)}'), ratio=1, overflow='fold')
            sides.add_row(*(Text(self.table.rollouts.completions[here].text.strip()) for here in (index, rival)))
            pieces += [self._question(index), _as_text(sides, width=_TEXT_WIDTH), repr(self._reasons(index, rival))]
        return '\n'.join(pieces)

    def _repr_html_(self) -> str:
        pieces = [f'<p>{html.escape(self._head)}</p>']
        for index, rival in self.shown:
            names = [f'{self.table.rollouts.name(here)}: {self._advantages(here)}' for here in (index, rival)]
            texts = ''.join(
                '<td style="text-align:left;vertical-align:top;width:50%"><pre style="white-space:pre-wrap">'
                f'{html.escape(self.table.rollouts.completions[here].text.strip())}</pre></td>' for here in (index, rival))
            pieces.append(
                f'<p><b>{html.escape(self._question(index))}</b></p>'
                f'<table style="width:100%"><tr>{_cells("th", names)}</tr><tr>{texts}</tr></table>'
                + self._reasons(index, rival)._repr_html_())
        return ''.join(pieces)

    def _question(self, index: int) -> str:
        example = self.table.rollouts.examples[index]
        return f'{example.question or example.prompt[-300:]} (answer: {example.answer})'


def rescore(rollouts: Rollouts, mixes: Mixes, *, workers: int = 0, timeout_s: float = TIMEOUT_S) -> Rescored:
    """Scores rollouts under several mixes, and finds each completion's advantage in its group.

    Args:
        mixes: name -> weights ('accuracy=1,format=0.5') or a mapping of `Mix`'s fields; the first is what others are
            compared with. Rewards may be registered ones, those of a notebook's cells included, or 'file.py:name'.
        workers: processes that compute rewards, for rewards that may hang; 0 computes them in this one, where alone a cell's
            rewards are known.
        timeout_s: run time after which a worker is killed. Its completion gets 0, as in training, and a warning says so.

    Raises:
        UserError: no mix, unknown rewards, options or fields, or an example that a reward cannot score.
    """
    scored = {}
    divided = rollouts.paid is None or rollouts.paid.advantage_std is not False
    with _pool(workers, timeout_s) as pool:
        for name, mix in _parse(mixes).items():
            output = _pay(rollouts, mix, pool)
            lost = int(output.info['timeouts'].sum() + output.info['crashes'].sum())
            if lost:
                warnings.warn(
                    f"the mix '{name}': rewards of {lost} completions took more than {timeout_s:g} s or crashed their "
                    'process, and these have 0', stacklevel=2)
            advantage_B = group_advantages(
                output.values, rollouts.group, normalize_std=divided if mix.advantage_std is None else mix.advantage_std)
            scored[name] = Scored(mix, output.values, advantage_B, _values_by_reward(output.info))
    return Rescored(rollouts, scored)


def _parse(mixes: Mixes) -> dict[str, Mix]:
    if not mixes:
        raise UserError("there is no mix to score under: give say {'paid': 'accuracy=1,format=0.5'}")
    return {name: Mix(mix) if isinstance(mix, str) else from_dict(Mix, mix, f"the mix '{name}'")
            for name, mix in mixes.items()}


def _pool(workers: int, timeout_s: float) -> contextlib.AbstractContextManager[WorkerPool | None]:
    return WorkerPool(workers, timeout_s) if workers else contextlib.nullcontext()


def _pay(rollouts: Rollouts, mix: Mix, pool: WorkerPool | None) -> RewardOutput:
    tasks = {name: tasks.split('+') for name, tasks in mix.reward_tasks.items()}
    # As in training the first example tells the template.
    reward = RewardMix(
        mix.rewards, options=mix.reward_options, tasks=tasks, prefilled=prefilled(rollouts.examples[0]), pool=pool)
    return reward(rollouts.completions, rollouts.examples)


def _centred(values_B: np.ndarray, group: int) -> np.ndarray:
    values_PG = values_B.astype(np.float64).reshape(-1, group)
    return (values_PG - values_PG.mean(axis=1, keepdims=True)).reshape(-1)


def _mean_ranks(levels_PG: np.ndarray) -> np.ndarray:
    """Ranks within each group, from 1 for the lowest; those that are equal share the mean of theirs."""
    below_PGG = levels_PG[:, :, None] > levels_PG[:, None, :]
    equal_PGG = levels_PG[:, :, None] == levels_PG[:, None, :]
    return below_PGG.sum(axis=2) + (equal_PGG.sum(axis=2) + 1) / 2


def _levels(reward_B: np.ndarray) -> np.ndarray:
    """Rewards as whole numbers, so that those that float noise alone sets apart have one rank."""
    return np.round(reward_B.astype(np.float64) / REWARD_TOLERANCE)


# ---- short runs ----


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Arms(_Shown):
    """What the GRPO stages of a run have left.

    Attributes:
        folder: the run's.
        rewards: arm -> its weights.
        metrics: arm -> metric of metrics.jsonl -> float64 [S]; 'step' is one of them. NaN where a step has none.
        figures: model ('base' or an arm) -> figures of its evaluation, as in summary.json; {} without one.
    """

    folder: pathlib.Path
    rewards: dict[str, str]
    metrics: dict[str, dict[str, np.ndarray]]
    figures: dict[str, dict[str, Any]]

    def pass_at_1(self, model: str) -> dict[str, float] | None:
        """The figure of a model: mean, low and high of its 95% interval, and n problems. None where it was not measured."""
        return next((figure for name, figure in self.figures.get(model, {}).items() if _PASS.fullmatch(name)), None)

    @functools.cached_property
    def _grid(self) -> Grid:
        rows = []
        for arm in [BASE] * (BASE in self.figures) + list(self.rewards):
            known, measured = self.metrics.get(arm, {}), self.pass_at_1(arm)
            rows.append((
                arm, self.rewards.get(arm, ''),
                *(f'{_number(known[key][0])} -> {_number(known[key][-1])}' if key in known else '' for key, *_ in _PANELS),
                f'{measured["mean"]:.3f} [{measured["low"]:.3f}, {measured["high"]:.3f}]' if measured else ''))
        return Grid(
            'first step -> last step, in training; pass@1 [95% interval] on held-out problems after it',
            ('arm', 'rewards', *(name for _, name, _ in _PANELS), 'pass@1'), tuple(rows))


def run_arms(
    mixes: Mixes, *, steps: int = 5, problems: int = 32, base: str = '', experiment: str = EXPERIMENT,
    workdir: str | os.PathLike[str] = 'runs/ablation', rerun: Iterable[str] = (),
) -> Arms:
    """Trains the same model under each mix, as stages of one experiment, and measures it before and after.

    All arms begin at the base and see the same problems; with the seed, their first step's samples are the same too. What is
    done is skipped, and what was interrupted goes on, as in any run.

    Args:
        mixes: as `rescore` takes them; the names become stages.
        steps: of each arm.
        problems: of the evaluation, which is the experiment's suite 'main' alone.
        base: the model to start from; '' is the experiment's.
        experiment: 'file.py' or 'file.py:arg' with one stage, of kind 'grpo'; of the working folder or else of the checkout.
        workdir: the run's folder.
        rerun: arms to run again although they are done.

    Raises:
        UserError: as `pipeline.run_experiment` does; or an experiment of other stages.
    """
    file, suffix, arg = experiment.partition('.py')
    config = load_experiment(f'{_found(file + suffix)}{arg}')
    kinds = [config.stages[name].kind for name in config.stages]
    if kinds != ['grpo']:
        raise UserError(f"'{experiment}' must have one stage, of kind 'grpo', and not {', '.join(kinds)}")
    stage = next(iter(config.stages.values())).to_dict()
    stage['steps'] = steps
    stage.pop('label', None)
    stage['inputs'] = {**stage.get('inputs', {}), MODEL: BASE}
    config.stages = ConfigDict({
        name: stage | {key: value for key, value in to_dict(mix).items() if value is not None}
        for name, mix in _parse(mixes).items()})
    for name in {'result', 'sources'} & set(config):  # they speak of the stage that has become arms
        del config[name]
    config.name = f'{config.name}-ablation'
    config.base = base or config.get('base', '')
    if config.get('evaluation') and 'main' in config.evaluation.suites:
        config.evaluation.suites = ConfigDict({'main': config.evaluation.suites.main.to_dict() | {'problems': problems}})
    with contextlib.suppress(RuntimeError):  # jax runs already, and the devices are what they are
        split_cpu(config.get('cpu_devices', 1))
    run_experiment(config, pathlib.Path(workdir), rerun=list(rerun))
    return read_arms(workdir)


def read_arms(workdir: str | os.PathLike[str]) -> Arms:
    """Reads the GRPO stages of a run, whether `run_arms` or an experiment made it. Raises UserError if there is none."""
    workdir = _found(workdir)
    try:
        stages = json.loads((workdir / 'manifest.json').read_text())['experiment']['stages']
    except OSError as error:
        raise UserError(f"'{workdir}' is no run's folder: it has no manifest.json") from error
    rewards = {name: stage['rewards'] for name, stage in stages.items() if stage['kind'] == 'grpo'}
    lines = {name: read_metrics(workdir / 'stages' / name) for name in rewards}
    done = [name for name in rewards if lines[name]]
    if not done:
        raise UserError(f"'{workdir}' has no stage of kind 'grpo' that has made a step")
    metrics = {}
    for name in done:
        keys = dict.fromkeys(key for line in lines[name] for key in line if key not in ('time', 'nonfinite'))
        metrics[name] = {key: np.array([line.get(key) for line in lines[name]], np.float64) for key in keys}
    summary = workdir / 'summary.json'
    figures = json.loads(summary.read_text())['stages'] if summary.exists() else {}
    return Arms(workdir, {name: rewards[name] for name in done}, metrics, figures)


# ---- pictures ----


def plot_arms(arms: Arms) -> 'Figure':
    """Four panels over steps: accuracy, length, format and language of each step's completions, a line an arm.

    A step's completions are drawn before its update, so that those of step 1 are the base's. All axes begin at 0, lest noise
    look large.
    """
    figure, axes = _subplots(2, 2, (9.0, 6.2))
    for ax, (key, title, what) in zip(axes.flat, _PANELS, strict=True):
        for index, (arm, metrics) in enumerate(arms.metrics.items()):
            if key in metrics:
                ax.plot(
                    metrics['step'], metrics[key], color=_COLOURS[index % len(_COLOURS)], label=arm,
                    marker=_MARKERS[index % len(_MARKERS)], markersize=5, markerfacecolor='none')
        ax.set(title=title, xlabel='step', ylabel=what)
        ax.update_datalim([(1, 0)], updatex=False)
        ax.autoscale_view()
        ax.set_ylim(bottom=0)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=min(4, len(labels)), frameon=False)
    return figure


def plot_advantages(table: Rescored, mix: str, other: str) -> 'Figure':
    """Each completion's advantage under one mix against that under another; opposite signs stand out.

    Raises:
        UserError: an unknown name.
    """
    flipped_B = table.compare(mix, other).flipped_B
    figure, axes = _subplots(1, 1, (5.0, 4.6))
    ax = axes.flat[0]
    x_B, y_B = (table.scored[name].advantage_B for name in (mix, other))
    for colour, marker, chosen, label in (
            (_COLOURS[0], 'o', ~flipped_B, 'same sign'), (_COLOURS[1], 'x', flipped_B, 'opposite signs')):
        ax.scatter(x_B[chosen], y_B[chosen], s=18, alpha=0.5, color=colour, marker=marker, label=f'{label} ({chosen.sum()})')
    ax.axhline(0, color='0.6', linewidth=0.8)
    ax.axvline(0, color='0.6', linewidth=0.8)
    ax.set(xlabel=f"advantage under '{mix}'", ylabel=f"advantage under '{other}'")
    ax.legend(frameon=False)
    return figure


def _subplots(rows: int, columns: int, inches: tuple[float, float]) -> tuple['Figure', np.ndarray]:
    """A figure that is closed at once: a cell that ends in it shows it, once."""
    try:
        import matplotlib.pyplot as plt  # here, because all else does without it
    except ImportError as error:
        raise UserError("pictures need matplotlib: pip install 'r1jax[notebook]'") from error
    figure, axes = plt.subplots(rows, columns, figsize=inches, layout='constrained', squeeze=False)
    plt.close(figure)
    return figure, axes


# ---- text ----


def _number(value: float) -> str:
    if np.isnan(value):
        return '-'
    return f'{value:.1f}' if abs(value) >= 10 else f'{value:.2f}'


def _cells(tag: str, texts: Iterable[str]) -> str:
    return ''.join(f'<{tag} style="text-align:left">{html.escape(text)}</{tag}>' for text in texts)


def _as_text(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_jupyter=False, color_system=None)
    console.print(table)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())
