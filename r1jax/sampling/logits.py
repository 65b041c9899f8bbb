"""From logits to a token: temperature, top-k, nucleus and min-p, and a draw that needs one random number a row."""

import dataclasses

import jax
import jax.numpy as jnp

from r1jax.errors import UserError

# Columns of the vocabulary that the draw adds up at a time; a power of two near the square root of usual vocabularies.
BLOCK = 128


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How completions are drawn.

    Attributes:
        slots: S, sequences decoded at once; finished ones are refilled. Divisible by the mesh's data x fsdp.
        max_tokens: longest completion, EOS included; a longer one is truncated.
        temperature: logits are divided by it; 0 is greedy.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens with at least this mass (arXiv 1904.09751); 1 keeps all.
        min_p: keep tokens at least this share as likely as the likeliest (arXiv 2407.01082); 0 keeps all.
        chunk: decode steps between two looks at the result from the host.
    """

    slots: int = 64
    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    chunk: int = 16

    def __post_init__(self):
        for name, good, rule in (
            ('slots', self.slots > 0, 'positive'),
            ('max_tokens', self.max_tokens > 0, 'positive'),
            ('temperature', self.temperature >= 0, '0 (greedy) or positive'),
            ('top_k', self.top_k >= 0, '0 (off) or positive'),
            ('top_p', 0 < self.top_p <= 1, 'above 0 and at most 1'),
            ('min_p', 0 <= self.min_p < 1, 'at least 0 and below 1'),
            ('chunk', self.chunk > 0, 'positive'),
        ):
            if not good:
                raise UserError(f'sampling: {name}={getattr(self, name)} must be {rule}')


def _threshold(probs_SV: jax.Array, enough) -> jax.Array:
    """Returns for each row the largest t such that enough(probs >= t); `enough` is true at t = 0 and monotone.

    Positive floats order like their bits, so 31 halvings over the bits find the exact value without sorting V entries.
    """

    def halve(_, bounds):
        low_S, high_S = bounds
        middle_S = low_S + (high_S - low_S) // 2
        t_S = jax.lax.bitcast_convert_type(middle_S, jnp.float32)
        good_S = enough(probs_SV >= t_S[:, None])
        return jnp.where(good_S, middle_S, low_S), jnp.where(good_S, high_S, middle_S)

    rows = probs_SV.shape[0]
    above_one = jax.lax.bitcast_convert_type(jnp.float32(2.0), jnp.int32)
    low_S, _ = jax.lax.fori_loop(
        0, 31, halve, (jnp.zeros(rows, jnp.int32), jnp.full(rows, above_one, jnp.int32)))
    return jax.lax.bitcast_convert_type(low_S, jnp.float32)


def filter_probs(probs_SV: jax.Array, config: SamplingConfig) -> jax.Array:
    """Zeroes what top-k, then top-p, then min-p leave out; not renormalised. Ties at the edge stay in together."""
    if config.top_k:
        t_S = _threshold(probs_SV, lambda keep: keep.sum(-1) >= config.top_k)
        probs_SV = jnp.where(probs_SV >= t_S[:, None], probs_SV, 0)
    if config.top_p < 1:
        needed_S = config.top_p * probs_SV.sum(-1)
        t_S = _threshold(probs_SV, lambda keep: jnp.where(keep, probs_SV, 0).sum(-1) >= needed_S)
        probs_SV = jnp.where(probs_SV >= t_S[:, None], probs_SV, 0)
    if config.min_p:
        probs_SV = jnp.where(probs_SV >= config.min_p * probs_SV.max(-1, keepdims=True), probs_SV, 0)
    return probs_SV


def draw(weights_SV: jax.Array, uniform_S: jax.Array) -> jax.Array:
    """Inverts the cumulative distribution of unnormalised weights at `uniform_S` in [0, 1); returns int32 tokens [S].

    Two levels, blocks and then tokens of one block: a pass over V instead of a scan, and one random number a row
    instead of V. A token of weight 0 is never drawn.
    """
    S, V = weights_SV.shape
    blocks = -(-V // BLOCK)
    w_SbB = jnp.pad(weights_SV, ((0, 0), (0, blocks * BLOCK - V))).reshape(S, blocks, BLOCK)
    mass_Sb = w_SbB.sum(-1)
    upto_Sb = jnp.cumsum(mass_Sb, -1)
    target_S = uniform_S * upto_Sb[:, -1]

    def first_above(upto_SX, target_S, mass_SX):
        # Rounding may put the target at or past the end (then: the last entry that has any mass), and lets a running sum,
        # which is added up in blocks, rise over entries of no mass.
        here_SX = (upto_SX > target_S[:, None]) & (mass_SX > 0)
        last_S = mass_SX.shape[1] - 1 - jnp.argmax(mass_SX[:, ::-1] > 0, -1)
        return jnp.where(here_SX.any(-1), jnp.argmax(here_SX, -1), last_S)

    block_S = first_above(upto_Sb, target_S, mass_Sb)
    rows = jnp.arange(S)
    before_S = upto_Sb[rows, block_S] - mass_Sb[rows, block_S]
    w_SB = w_SbB[rows, block_S]
    inside_S = first_above(jnp.cumsum(w_SB, -1), target_S - before_S, w_SB)
    return (block_S * BLOCK + inside_S).astype(jnp.int32)


def sample(logits_SV: jax.Array, uniform_S: jax.Array, config: SamplingConfig) -> tuple[jax.Array, jax.Array]:
    """Draws a token a row.

    Args:
        logits_SV: float32.
        uniform_S: one random number in [0, 1) a row.

    Returns:
        tokens [S] int32, and their log-probabilities [S] float32 under the distribution they were drawn from (that is,
        after temperature and filters). Greedy tokens carry the log-probability at temperature 1.
    """
    rows = jnp.arange(logits_SV.shape[0])
    if config.temperature == 0:
        tokens_S = jnp.argmax(logits_SV, -1).astype(jnp.int32)
        return tokens_S, jax.nn.log_softmax(logits_SV)[rows, tokens_S]
    scaled_SV = logits_SV / config.temperature
    weights_SV = filter_probs(jnp.exp(scaled_SV - scaled_SV.max(-1, keepdims=True)), config)
    tokens_S = draw(weights_SV, uniform_S)
    return tokens_S, jnp.log(weights_SV[rows, tokens_S]) - jnp.log(weights_SV.sum(-1))
