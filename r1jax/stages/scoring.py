"""Rollouts and what they are paid: by rules, and by reward models."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from r1jax.learning.grpo import zero_variance_groups
from r1jax.parallel import distributed
from r1jax.rewards.accuracy import UNGRADED
from r1jax.rewards.base import Reward
from r1jax.rewards.mix import RewardMix
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


def pay(
    rollouts: list[Rollout], group: int, step: int, reward: RewardMix, models: Mapping[str, tuple[float, Reward]]
) -> Scored:
    """Rewards rollouts.

    By rule each host works on its share of the groups and gets the rest from the others; reward models lie on the mesh, so
    that all hosts score everything together.

    Args:
        rollouts: whole groups of `group` samples.
        step: what random rewards are drawn from, beside each sample's place.
        reward: the rules with their weights.
        models: name -> (weight, reward model).
    """
    n_groups = len(rollouts) // group
    completions, examples = [r.for_rewards(step) for r in rollouts], [r.example for r in rollouts]
    groups = distributed.share(n_groups)
    mine = slice(groups.start * group, groups.stop * group)
    output = reward(completions[mine], examples[mine])
    by_group = {name: np.reshape(x, (-1, group)) for name, x in {'': output.values, **output.info}.items()}
    whole = {name: x.reshape(-1) for name, x in distributed.gather(by_group, n_groups).items()}
    total_B = whole.pop('')
    for name, (weight, model) in models.items():
        whole[name] = model(completions, examples).values
        total_B = total_B + weight * np.nan_to_num(whole[name])
    return Scored(rollouts, total_B, whole)


def reward_metrics(seen: Scored, kept: Scored, group: int) -> dict[str, float]:
    """Means of everything sampled; pass rates by family and language beside the whole."""
    metrics = {'reward/mean': seen.reward_B.mean(), 'reward/std': seen.reward_B.std()}
    for name, values in seen.components.items():
        lost = name in ('timeouts', 'crashes')
        # NaN is what a reward is not for.
        present = values[~np.isnan(values)]
        if lost or len(present):
            metrics[f'rewards/{name}' if lost else f'reward/{name}'] = present.sum() if lost else present.mean()
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
