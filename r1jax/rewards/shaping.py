"""Rewards that do not read the answer: the soft length penalty, and the random control arm."""

import hashlib
from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError
from r1jax.rewards.base import Completion, Example, RewardOutput, register


@register('overlong')
def overlong(
    completions: Sequence[Completion], examples: Sequence[Example], *, max_length: int, cache: int
) -> RewardOutput:
    """Soft overlong punishment in tokens, in [-1, 0]: DAPO, arXiv 2503.14476, eq. 13.

    With n the tokens of a completion, EOS included: 0 up to max_length - cache, then (max_length - cache - n)
    / cache down to -1 at max_length, and -1 beyond. Raises UserError unless 0 < cache <= max_length.
    """
    del examples
    if not 0 < cache <= max_length:
        raise UserError(f"the reward 'overlong' needs 0 < cache <= max_length, not {cache} and {max_length}")
    n_tokens_B = np.array([c.n_tokens for c in completions], np.float64)
    return RewardOutput(np.clip((max_length - cache - n_tokens_B) / cache, -1, 0).astype(np.float32))


@register('random')
def random(completions: Sequence[Completion], examples: Sequence[Example], *, seed: int = 0) -> RewardOutput:
    """A fair coin for every draw, blind to the text: the control arm of any claim that a reward teaches.

    The coin is a hash of (seed, example id, completion key) and nothing else, so it is the same on every host
    and in every batch. The key must name the draw (`base.sample_key` of step, prompt and sample). Raises
    ValueError where two completions of a call share id and key: their coins would be one coin.
    """
    draws = [f'{seed}\0{example.id}\0{c.key}' for c, example in zip(completions, examples, strict=True)]
    if len(set(draws)) != len(draws):
        raise ValueError("the reward 'random' needs another Completion.key for every sample of an example")
    coins = [hashlib.blake2b(draw.encode()).digest()[0] & 1 for draw in draws]
    return RewardOutput(np.array(coins, np.float32))
