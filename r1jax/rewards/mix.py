"""Rewards put together, worked out here or in killable workers.

R1-Zero's reward (DeepSeek-R1, arXiv 2501.12948, 2025 revision, eq. 4) is `RewardMix('accuracy=1,format=1')`.
"""

import functools
import importlib
import pathlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards.base import (
    FILE_MODULE,
    Completion,
    Example,
    Reward,
    RewardOutput,
    find,
    get,
    option_names,
    prepare,
    short_name,
)
from r1jax.rewards.pool import Outcome, WorkerPool
from r1jax.rewards.weights import parse_weights

# Chunks for the pool: small enough to spread over the workers and to retry cheaply.
MAX_CHUNK = 16
# What may become of a completion in a worker -> the metric that says so.
LOST = {'timeout': 'timeouts', 'crash': 'crashes'}
# Metrics of a mix that are 0 or 1 and worth counting. The last one is that of any of its rewards.
COUNTED = (*LOST.values(), 'unparseable')


class RewardMix:
    """The total reward of a run: the sum over terms of weight * the product of the term's rewards.

    Calling it with B completions and their B examples gives values float32 [B] and info, float32 [B] each:
    every reward's own value under its name, its metrics as 'name/metric', and COUNTED. A reward that an example's task is
    not routed to is NaN there, and terms with it add nothing.

    weights: 'accuracy=1,format=0.5,my_rewards.py:brevity=0.1', 'accuracy*format + 0.1*language', or a mapping.
    options: by reward name, for example {'overlong': {'max_length': 512, 'cache': 64}}.
    tasks: by reward name, the tasks it is for, {'accuracy': ('math', 'code')}; all of them where it is not named.
    prefilled: the prompt template wrote the opening `<think>`; told to every reward that has this option.
    pool: where to compute; None is this process, fast, and right for rewards that cannot hang. With a pool,
        completions travel in chunks, so a reward must score each completion on its own; a chunk that times
        out or crashes is retried item by item, and a completion that does so again gets 0 from every reward
        and is counted. Whoever made the pool closes it. An exception in a reward is raised here either way.

    Raises UserError for unknown rewards or options, and for bad weights.
    """

    def __init__(
        self,
        weights: str | Mapping[str, float],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        tasks: Mapping[str, Sequence[str]] | None = None,
        prefilled: bool = False,
        pool: WorkerPool | None = None,
    ):
        self.weights = parse_weights(weights)
        options, tasks = dict(options or {}), dict(tasks or {})
        for what, told in (('options', options), ('tasks', tasks)):
            for name in told:
                if name not in self.weights.names:
                    raise UserError(f"{what} for '{name}', which has no weight{nearest(name, self.weights.names)}")
        chosen = {}
        for name in self.weights.names:
            chosen[name] = dict(options.get(name, {}))
            if 'prefilled' in option_names(find(name)):
                chosen[name].setdefault('prefilled', prefilled)
        self._rewards = {short_name(name): routed(get(name, **chosen[name]), tasks.get(name)) for name in chosen}
        self._recipe = _recipe(chosen, tasks) if pool is not None else b''
        self._pool = pool

    def __call__(self, completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
        """Scores a batch and waits for it; ValueError where completions and examples differ in number."""
        return self.begin(completions, examples)()

    @property
    def ahead(self) -> bool:
        """Whether there are workers, so that what `begin` is given is scored while other things are done here."""
        return self._pool is not None

    def begin(self, completions: Sequence[Completion], examples: Sequence[Example]) -> Callable[[], RewardOutput]:
        """Begins to score a batch, and returns a function that waits for the outcome.

        Without workers all is done when the outcome is asked for. Raises ValueError where completions and examples differ
        in number.
        """
        if len(completions) != len(examples):
            raise ValueError(f'{len(completions)} completions but {len(examples)} examples')
        if self._pool is None or not completions:
            none = {status: np.zeros(len(completions), np.float32) for status in LOST.values()}
            return lambda: self._total(_score(self._rewards, completions, examples), none)
        size = max(1, min(MAX_CHUNK, -(-len(completions) // (2 * self._pool.n_workers))))
        pieces = [range(start, min(start + size, len(completions))) for start in range(0, len(completions), size)]
        begun = self._submit(pieces, completions, examples)
        return lambda: self._total(*self._gather(begun, completions, examples))

    def _submit(
        self, pieces: Sequence[range], completions: Sequence[Completion], examples: Sequence[Example]
    ) -> list[tuple[range, Future]]:
        return [
            (piece, self._pool.submit(
                score_chunk, (self._recipe, [completions[i] for i in piece], [examples[i] for i in piece]), load_rewards))
            for piece in pieces]

    def _gather(
        self, begun: Sequence[tuple[range, Future]], completions: Sequence[Completion], examples: Sequence[Example]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Waits for the pieces, then for the items of failed ones one by one. Returns what was scored, and what was lost."""
        batch = len(completions)
        lost = {status: np.zeros(batch, np.float32) for status in LOST.values()}
        info = {short_name(name): np.zeros(batch, np.float32) for name in self.weights.names}
        while begun:
            again = []
            for piece, future in begun:
                outcome: Outcome = future.result()
                if outcome.status == 'error':
                    raise outcome.value
                if outcome.status == 'ok':
                    for key, values in outcome.value.items():
                        info.setdefault(key, np.zeros(batch, np.float32))[piece.start : piece.stop] = values
                elif len(piece) > 1:
                    again += [range(i, i + 1) for i in piece]
                else:
                    lost[LOST[outcome.status]][piece.start] = 1
            begun = self._submit(again, completions, examples)
        return info, lost

    def _total(self, info: dict[str, np.ndarray], lost: dict[str, np.ndarray]) -> RewardOutput:
        total_B = np.zeros(len(lost['timeouts']))
        for term, weight in self.weights.items():
            factors = [info[short_name(name)].astype(np.float64) for name in term.split('*')]
            total_B += weight * np.nan_to_num(np.prod(factors, axis=0))
        unparseable = [np.nan_to_num(values) for key, values in info.items() if key.endswith('/unparseable')]
        counted = lost | {'unparseable': np.max([np.zeros(len(total_B), np.float32), *unparseable], axis=0)}
        return RewardOutput(total_B.astype(np.float32), info | counted)


def routed(reward: Reward, tasks: Sequence[str] | None) -> Reward:
    """Returns the reward for examples of these tasks only: NaN for all others, which it never sees. None is all tasks."""
    if tasks is None:
        return reward

    def route(completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
        mine = [i for i, example in enumerate(examples) if example.task in tasks]
        output = reward([completions[i] for i in mine], [examples[i] for i in mine])
        spread = {}
        for key, values in {'': output.values, **output.info}.items():
            spread[key] = np.full(len(examples), np.nan, np.float32)
            spread[key][mine] = values
        return RewardOutput(spread.pop(''), spread)

    return route


def load_rewards(job: tuple[bytes, list[Completion], list[Example]]) -> None:
    """What a worker runs before its clock starts: users' files and verifiers may be slow to import, a sandbox to start."""
    recipe, _, examples = job
    for name in _from_recipe(recipe):
        prepare(name, examples)


def score_chunk(job: tuple[bytes, list[Completion], list[Example]]) -> dict[str, np.ndarray]:
    """What a worker runs: (recipe, completions, examples) -> every reward's values and metrics."""
    recipe, completions, examples = job
    return _score(_from_recipe(recipe), completions, examples)


def _recipe(chosen: Mapping[str, Mapping[str, Any]], tasks: Mapping[str, Sequence[str]]) -> bytes:
    """Pickles what workers build the rewards from: name, module that registers it or '', version, options
    and tasks of each.

    The version of a reward in a file is the file's time of change: workers keep what they have built, and an edited file
    makes another recipe. Raises UserError for a reward that a fresh process cannot find.
    """
    recipe = []
    for name, options in chosen.items():
        path, in_file, function = name.rpartition(':')
        module = '' if in_file else find(name).__module__
        if module == '__main__' or module.startswith(FILE_MODULE):
            raise UserError(f"worker processes cannot find the reward '{name}': write 'file.py:function'")
        version = 0
        if in_file:
            file = pathlib.Path(path).resolve()
            name, version = f'{file}:{function}', file.stat().st_mtime_ns
        recipe.append((name, module, version, dict(options), tasks.get(name)))
    return pickle.dumps(recipe)


@functools.lru_cache(maxsize=8)
def _from_recipe(recipe: bytes) -> dict[str, Reward]:
    rewards = {}
    for name, module, _, options, tasks in pickle.loads(recipe):
        if module:
            importlib.import_module(module)
        rewards[short_name(name)] = routed(get(name, **options), tasks)
    return rewards


def _score(
    rewards: Mapping[str, Reward], completions: Sequence[Completion], examples: Sequence[Example]
) -> dict[str, np.ndarray]:
    info: dict[str, np.ndarray] = {}
    for name, reward in rewards.items():
        output = reward(completions, examples)
        info[name] = output.values
        info |= {f'{name}/{key}': values for key, values in output.info.items()}
    return info
