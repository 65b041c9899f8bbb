"""Rewards of how long an answer is and how often it says a thing, and the random control arm."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards.accuracy import UNGRADED, accuracy, prepare
from r1jax.rewards.answers import READS, Reads, text_read
from r1jax.rewards.base import Completion, Example, RewardOutput, register


@register('overlong')
def overlong(
    completions: Sequence[Completion], examples: Sequence[Example], *, max_length: int, cache: int
) -> RewardOutput:
    """Soft overlong punishment in tokens, in [-1, 0]: DAPO, arXiv 2503.14476, eq. 13.

    With n the tokens of a completion, EOS included: 0 up to max_length - cache, then (max_length - cache - n)
    / cache down to -1 at max_length, and -1 beyond. Raises UserError unless 0 < cache <= max_length, or without the number
    of tokens.
    """
    del examples
    if not 0 < cache <= max_length:
        raise UserError(f"the reward 'overlong' needs 0 < cache <= max_length, not {cache} and {max_length}")
    n_tokens_B = _lengths('overlong', completions)
    return RewardOutput(np.clip((max_length - cache - n_tokens_B) / cache, -1, 0).astype(np.float32))


@register('cosine', prepare)
def cosine(
    completions: Sequence[Completion], examples: Sequence[Example], *, max_length: int, correct_short: float = 1.0,
    correct_long: float = 0.5, wrong_short: float = -1.0, wrong_long: float = -0.5, exceeded: float = -1.0,
    prefilled: bool = False
) -> RewardOutput:
    """Accuracy scaled by length: arXiv 2502.03373, section 4.2.

    Right answers are worth correct_short at 0 tokens, and along half a cosine less up to correct_long at max_length; wrong
    ones wrong_short to wrong_long, so that thinking longer costs little where it helps. A completion of max_length tokens or
    more, or one that was cut, is worth `exceeded`; one that no rule can grade 0. The defaults are this project's, in the
    paper's order: right above wrong, short above long where right, long above short where wrong.

    Raises UserError for another order of the values, or without the number of tokens.
    """
    if max_length < 1:
        raise UserError(f"the reward 'cosine' needs max_length of at least 1, not {max_length}")
    if not wrong_short <= wrong_long <= correct_long <= correct_short or exceeded > correct_long:
        raise UserError(
            "the reward 'cosine' needs wrong_short <= wrong_long <= correct_long <= correct_short, not "
            f'{wrong_short}, {wrong_long}, {correct_long}, {correct_short}, and exceeded <= correct_long, not {exceeded}')
    right_B = accuracy(completions, examples, prefilled=prefilled).values > 0
    n_tokens_B = _lengths('cosine', completions)
    short_B, long_B = np.where(right_B, correct_short, wrong_short), np.where(right_B, correct_long, wrong_long)
    values_B = long_B + 0.5 * (short_B - long_B) * (1 + np.cos(np.pi * np.minimum(n_tokens_B / max_length, 1)))
    cut_B = np.array([not c.finished for c in completions], bool) | (n_tokens_B >= max_length)
    graded_B = np.array([example.task not in UNGRADED for example in examples], bool)
    return RewardOutput(np.where(graded_B, np.where(cut_B, exceeded, values_B), 0).astype(np.float32))


def _lengths(name: str, completions: Sequence[Completion]) -> np.ndarray:
    """Tokens of each completion; nothing that was sampled has none."""
    n_tokens_B = np.array([c.n_tokens for c in completions], np.float64)
    if (n_tokens_B < 1).any():
        raise UserError(f"the reward '{name}' needs the number of tokens of a completion (n_tokens), and has none")
    return n_tokens_B


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
