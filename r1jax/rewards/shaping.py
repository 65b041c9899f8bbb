"""Rewards that do not read the answer: the soft length penalty, that of repetition, and the random control arm."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards.answers import READS, Reads, text_read
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
    if (n_tokens_B < 1).any():
        raise UserError("the reward 'overlong' needs the number of tokens of a completion (n_tokens), and has none")
    return RewardOutput(np.clip((max_length - cache - n_tokens_B) / cache, -1, 0).astype(np.float32))


_WORD = re.compile(r'[A-Za-z]+|\d+|[^\sA-Za-z\d]')


def repetition(text: str, n: int) -> float:
    """Returns the share, in [0, 1], of runs of n words (Chinese: characters; marks count) that stood in the text before."""
    words = _WORD.findall(text)
    runs = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@register('repetition')
def repetition_penalty(
    completions: Sequence[Completion], examples: Sequence[Example], *, n: int = 8, reads: Reads = 'response'
) -> RewardOutput:
    """Minus the share of runs of n words that a completion has said before (`repetition`), in [-1, 0].

    n-gram penalties keep a policy from being paid again and again for what one reward likes (as in arXiv 2502.03373,
    section 4.4, there for each token). Tags count as words. `reads` is 'response', or 'summary' for what follows the last
    `</think>`. Raises UserError for another n than 1, 2, ... or another `reads`.
    """
    del examples
    if not isinstance(n, int) or n < 1:
        raise UserError(f"the reward 'repetition' needs a whole number n of at least 1, not {n!r}")
    if reads not in READS:
        raise UserError(f"the reward 'repetition' reads 'summary' or 'response', not '{reads}'{nearest(reads, READS)}")
    return RewardOutput(np.array([-repetition(text_read(c.text, reads), n) for c in completions], np.float32))


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
