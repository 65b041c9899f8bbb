"""A weighted sum of rewards, worked out here or in killable workers.

R1-Zero's reward (DeepSeek-R1, arXiv 2501.12948, 2025 revision, eq. 4) is `RewardMix('accuracy=1,format=1')`.
"""

import functools
import importlib
import pathlib
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards import code
from r1jax.rewards.base import (
    FILE_MODULE,
    Completion,
    Example,
    Reward,
    RewardOutput,
    find,
    get,
    option_names,
    parse_weights,
    short_name,
)
from r1jax.rewards.pool import WorkerPool

# Chunks for the pool: small enough to spread over the workers and to retry cheaply.
MAX_CHUNK = 16


class RewardMix:
    """The total reward of a run: sum over rewards of weight * value.

    Calling it with B completions and their B examples gives values float32 [B] and info, float32 [B] each:
    every reward's own value under its name, its metrics as 'name/metric', and 'timeouts' and 'crashes'. A reward that an
    example's task is not routed to is NaN there, and adds nothing.

    weights: 'accuracy=1,format=0.5,my_rewards.py:brevity=0.1' or a mapping.
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
        options = dict(options or {})
        for name in options:
            if name not in self.weights:
                raise UserError(f"options for '{name}', which has no weight{nearest(name, self.weights)}")
        tasks = dict(tasks or {})
        for name in tasks:
            if name not in self.weights:
                raise UserError(f"tasks for '{name}', which has no weight{nearest(name, self.weights)}")
        chosen = {}
        for name in self.weights:
            chosen[name] = dict(options.get(name, {}))
            if 'prefilled' in option_names(find(name)):
                chosen[name].setdefault('prefilled', prefilled)
        self._rewards = {short_name(name): routed(get(name, **chosen[name]), tasks.get(name)) for name in self.weights}
        self._recipe = _recipe(chosen, tasks) if pool is not None else b''
        self._pool = pool

    def __call__(self, completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
        """Scores a batch and waits for it; ValueError where completions and examples differ in number."""
        if len(completions) != len(examples):
            raise ValueError(f'{len(completions)} completions but {len(examples)} examples')
        lost = {status: np.zeros(len(completions), np.float32) for status in ('timeout', 'crash')}
        if self._pool is None or not completions:
            info = _score(self._rewards, completions, examples)
        else:
            info = self._score_in_pool(completions, examples, lost)
        total = np.zeros(len(completions))
        for name, weight in self.weights.items():
            total += weight * np.nan_to_num(info[short_name(name)])
        info |= {'timeouts': lost['timeout'], 'crashes': lost['crash']}
        return RewardOutput(total.astype(np.float32), info)

    def _score_in_pool(
        self, completions: Sequence[Completion], examples: Sequence[Example], lost: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Scores chunk by chunk, then the items of failed chunks one by one; marks what is lost."""
        batch = len(completions)
        size = max(1, min(MAX_CHUNK, -(-batch // (2 * self._pool.n_workers))))
        info = {short_name(name): np.zeros(batch, np.float32) for name in self.weights}
        pieces = [range(start, min(start + size, batch)) for start in range(0, batch, size)]
        while pieces:
            jobs = [(self._recipe, [completions[i] for i in p], [examples[i] for i in p]) for p in pieces]
            outcomes = self._pool.map(score_chunk, jobs, prepare=load_rewards)
            again = []
            for piece, outcome in zip(pieces, outcomes, strict=True):
                if outcome.status == 'error':
                    raise outcome.value
                if outcome.status == 'ok':
                    for key, values in outcome.value.items():
                        info.setdefault(key, np.zeros(batch, np.float32))[piece.start : piece.stop] = values
                elif len(piece) > 1:
                    again += [range(i, i + 1) for i in piece]
                else:
                    lost[outcome.status][piece.start] = 1
            pieces = again
        return info


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
    _from_recipe(job[0])
    code.warm_up(job[2])


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
