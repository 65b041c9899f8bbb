"""Rewards by rule are begun while other completions are still sampled, and stand in their places in the end."""

import numpy as np

from r1jax.rewards import Example, RewardOutput
from r1jax.rewards.mix import MAX_CHUNK
from r1jax.stages.rollout import Rollout
from r1jax.stages.scoring import Payroll

GROUP, N_GROUPS, FIRST = 4, 10, 7


class Mix:
    """Stands in for a `RewardMix`: notes what it was given, and when."""

    def __init__(self, ahead: bool):
        self.ahead, self.begun = ahead, []

    def begin(self, completions, examples):
        self.begun.append([c.text for c in completions])
        values = np.array([float(c.text) for c in completions], np.float32)
        return lambda: RewardOutput(values, {'doubled': 2 * values})


def rollouts() -> list[Rollout]:
    """Ordered by prompt and sample; the text of each says where it stands."""
    tokens = np.zeros(3, np.int32)
    return [
        Rollout(Example('q'), FIRST + i // GROUP, i % GROUP, tokens, tokens, tokens.astype(np.float32), True, str(i))
        for i in range(N_GROUPS * GROUP)]


def finish(mix: Mix) -> tuple[Payroll, list[int]]:
    """Adds all rollouts in a random order; returns how many calls had begun after each."""
    payroll = Payroll(mix, N_GROUPS, GROUP, FIRST, step=3)
    calls = []
    for i in np.random.default_rng(0).permutation(N_GROUPS * GROUP):
        payroll.add(rollouts()[i])
        calls.append(len(mix.begun))
    return payroll, calls


def test_workers_get_what_is_finished_while_the_rest_is_sampled():
    mix = Mix(ahead=True)
    payroll, calls = finish(mix)
    assert calls == [i // MAX_CHUNK for i in range(1, N_GROUPS * GROUP + 1)]
    outcome = payroll.outcome()
    assert sorted(map(len, mix.begun)) == [N_GROUPS * GROUP % MAX_CHUNK, MAX_CHUNK, MAX_CHUNK]
    np.testing.assert_array_equal(outcome[''], np.arange(N_GROUPS * GROUP))
    np.testing.assert_array_equal(outcome['doubled'], 2 * np.arange(N_GROUPS * GROUP))


def test_without_workers_all_is_scored_in_one_call_and_in_order():
    mix = Mix(ahead=False)
    payroll, calls = finish(mix)
    assert not any(calls)
    np.testing.assert_array_equal(payroll.outcome()[''], np.arange(N_GROUPS * GROUP))
    assert mix.begun == [[r.text for r in rollouts()]]
