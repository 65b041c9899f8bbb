"""Rollouts and what they are paid: by rules, some of them while others are still sampled, and by reward models."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from r1jax.learning.grpo import zero_variance_groups
from r1jax.parallel import distributed
from r1jax.rewards.accuracy import UNGRADED
from r1jax.rewards.base import Reward, RewardOutput
from r1jax.rewards.mix import COUNTED, MAX_CHUNK, RewardMix
from r1jax.rewards.pool import WorkerPool
from r1jax.stages.rollout import Rollout


@dataclasses.dataclass
class Scored:
    """Rollouts with their rewards, ordered by prompt and sample; the lists and arrays run along B = prompts x G."""

    rollouts: list[Rollout]
    reward_B: np.ndarray
    components: dict[str, np.ndarray]

    def take(self, groups: Sequence[int], size: int) -> 'Scored':
        index = np.concatenate([np.arange(g * size, (g + 1) * size) for g in groups])
        return Scored(
            [self.rollouts[i] for i in index], self.reward_B[index], {k: v[index] for k, v in self.components.items()})

    def join(self, other: 'Scored') -> 'Scored':
        return Scored(
            self.rollouts + other.rollouts, np.concatenate([self.reward_B, other.reward_B]),
            {k: np.concatenate([v, other.components[k]]) for k, v in self.components.items()})


def reward_pool(workers: int, timeout_s: float) -> contextlib.AbstractContextManager[WorkerPool | None]:
    """Worker processes for the rewards; None where there are to be none."""
    return WorkerPool(workers, timeout_s) if workers else contextlib.nullcontext()


class Payroll:
    """The rewards by rule of one rollout; each host works on its share of the groups.

    With workers they score what is finished while the rest is sampled, MAX_CHUNK completions at a time. Without, all are
    scored when the outcome is asked for, in one call.
    """

    def __init__(self, reward: RewardMix, n_groups: int, group: int, first: int, step: int):
        """For groups of `group` samples, whose prompt ids count up from `first`; `step` is what random rewards draw from."""
        self._reward, self._n_groups, self._group, self.step = reward, n_groups, group, step
        share = distributed.share(n_groups)
        self._mine = range(first + share.start, first + share.stop)
        self._waiting: list[Rollout] = []
        self._begun: list[tuple[list[Rollout], Callable[[], RewardOutput]]] = []

    def add(self, rollout: Rollout) -> None:
        """Takes up a sample that has just been finished."""
        if rollout.prompt_id in self._mine:
            self._waiting.append(rollout)
            if len(self._waiting) == MAX_CHUNK and self._reward.ahead:
                self._begin()

    def outcome(self) -> dict[str, np.ndarray]:
        """Returns the total, under '', and all that the mix tells, float32 [B] each, ordered by prompt and sample."""
        if self._waiting or not self._begun:
            self._begin()
        place = {(prompt_id, sample): g * self._group + sample
                 for g, prompt_id in enumerate(self._mine) for sample in range(self._group)}
        values: dict[str, np.ndarray] = {}
        for rollouts, wait in self._begun:
            output = wait()
            for name, values_b in {'': output.values, **output.info}.items():
                whole_B = values.setdefault(name, np.zeros(len(place), np.float32))
                whole_B[[place[r.prompt_id, r.sample] for r in rollouts]] = values_b
        by_group = {name: values_B.reshape(-1, self._group) for name, values_B in values.items()}
        return {name: x.reshape(-1) for name, x in distributed.gather(by_group, self._n_groups).items()}

    def _begin(self) -> None:
        # In the order of prompts and samples, whichever was finished first.
        rollouts = sorted(self._waiting, key=lambda r: (r.prompt_id, r.sample))
        completions, examples = [r.for_rewards(self.step) for r in rollouts], [r.example for r in rollouts]
        self._begun.append((rollouts, self._reward.begin(completions, examples)))
        self._waiting = []


def pay(rollouts: list[Rollout], payroll: Payroll, models: Mapping[str, tuple[float, Reward]]) -> Scored:
    """Rewards rollouts: waits for what the rules pay, and adds what reward models do.

    Reward models lie on the mesh, so that all hosts score everything together.

    Args:
        rollouts: whole groups, ordered by prompt and sample, which the payroll has seen one by one.
        models: name -> (weight, reward model).
    """
    whole = payroll.outcome()
    total_B = whole.pop('')
    completions, examples = [r.for_rewards(payroll.step) for r in rollouts], [r.example for r in rollouts]
    for name, (weight, model) in models.items():
        whole[name] = model(completions, examples).values
        total_B = total_B + weight * np.nan_to_num(whole[name])
    return Scored(rollouts, total_B, whole)


def reward_metrics(seen: Scored, kept: Scored, group: int) -> dict[str, float]:
    """Means of everything sampled; pass rates by family and language beside the whole."""
    metrics = {'reward/mean': seen.reward_B.mean(), 'reward/std': seen.reward_B.std()}
    for name, values in seen.components.items():
        counted = name in COUNTED
        # NaN is what a reward is not for.
        present = values[~np.isnan(values)]
        if counted or len(present):
            metrics[f'rewards/{name}' if counted else f'reward/{name}'] = present.sum() if counted else present.mean()
    # Problems that no rule can grade are in no pass rate, rather than counted as wrong.
    graded = np.array([rollout.example.task not in UNGRADED for rollout in seen.rollouts])
    right = seen.components.get('accuracy', np.full(len(graded), np.nan))
    graded &= ~np.isnan(right)
    metrics['pass_rate'] = right[graded].mean() if graded.any() else float('nan')
    by_family = collections.defaultdict(list)
    for index in np.flatnonzero(graded):
        example = seen.rollouts[index].example
        by_family[f'{example.task}/{example.language}'.rstrip('/')].append(right[index])
    metrics |= {f'pass_rate/{name}': np.mean(values) for name, values in by_family.items()}
    metrics['groups/zero_variance'] = zero_variance_groups(seen.reward_B, group).mean()
    metrics['groups/resampled'] = (len(seen.rollouts) - len(kept.rollouts)) // group
    return metrics
