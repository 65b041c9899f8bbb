"""Log-probabilities and entropies of given tokens without ever holding `[B, T, V]` logits, and the SFT loss.

With 150,000 words of vocabulary the logits of one 32,768-token row are 20 GB in float32. `token_logprobs` works in blocks
of the vocabulary: the forward pass keeps only the log-normaliser and the entropy of each position, and the backward pass
computes each block's logits again.

Blocks of the vocabulary, not of positions, because the output projection and its gradient then come block by block, too: on
a mesh that splits its rows over devices, one block at a time is brought together, and one block's gradient is summed.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from flax import struct

from r1jax.parallel.rules import Sharding

# A block of logits holds at most this many float32 values on a device (256 MiB) when the caller names no number of blocks.
BLOCK_ELEMENTS = 2**26


def token_logprobs(
    hidden_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    *,
    temperature: float = 1.0,
    blocks: int | None = None,
    sharding: Sharding | None = None,
) -> tuple[jax.Array, jax.Array]:
    """log softmax(hidden @ head / temperature)[target], and the entropy of that distribution in nats.

    The sampler divides its logits by the temperature before it draws, so a likelihood that is to form a ratio
    with the sampler's must do the same.

    Args:
        hidden_BTD: final hidden states, float32 or bfloat16. The product with the head accumulates in
          float32.
        head_DV: output projection, same dtype as `hidden_BTD` (the transposed embedding where they are tied).
        targets_BT: int32 token ids in [0, V).
        temperature: sampling temperature, > 0; a Python number (static under jit).
        blocks: how many blocks the vocabulary is cut into. None takes the fewest with `BLOCK_ELEMENTS` logits or less
          on a device. With one block there is no loop.
        sharding: where the arrays lie; None leaves it to the compiler.

    Returns:
        logp_BT and entropy_BT, float32. Gradients flow from both to `hidden_BTD` and `head_DV`.

    Raises:
        ValueError: the temperature or the number of blocks is not positive.
    """
    chex.assert_rank([hidden_BTD, head_DV, targets_BT], [3, 2, 2])
    chex.assert_equal_shape_prefix([hidden_BTD, targets_BT], 2)
    chex.assert_equal(hidden_BTD.shape[2], head_DV.shape[0])
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    B, T, _ = hidden_BTD.shape
    V = head_DV.shape[1]
    batch_ways, vocab_ways = (sharding.ways('batch'), sharding.ways('vocab')) if sharding else (1, 1)
    if blocks is None:
        blocks = -(-B * T * V // (batch_ways * vocab_ways * BLOCK_ELEMENTS))
    if blocks < 1:
        raise ValueError(f'blocks must be positive, got {blocks}')
    # Equal blocks save a copy of the head, padded; if the next number that divides it is near, that is taken.
    per_device = V // vocab_ways
    divisors = (n for n in range(blocks, min(2 * blocks, per_device) + 1) if per_device % n == 0)
    blocks = next(divisors, min(blocks, per_device))
    return _token_logprobs(float(temperature), blocks, sharding, hidden_BTD, head_DV, targets_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _token_logprobs(temperature, blocks, sharding, hidden_BTD, head_DV, targets_BT):
    return _forward(temperature, blocks, sharding, hidden_BTD, head_DV, targets_BT)[0]


@struct.dataclass
class _Softmax:
    """The softmax of the logits seen so far, each field float32 [B, T]."""

    top: jax.Array  # the greatest logit
    total: jax.Array  # sum of exp(logit - top)
    moment: jax.Array  # sum of exp(logit - top) (logit - top)
    chosen: jax.Array  # the target's logit, 0 before it has been seen

    def merge(self, other: '_Softmax') -> '_Softmax':
        top = jnp.maximum(self.top, other.top)

        def moved(part: _Softmax) -> tuple[jax.Array, jax.Array]:
            shift = part.top - top
            return part.total * jnp.exp(shift), (part.moment + part.total * shift) * jnp.exp(shift)

        (total, moment), (more, more_moment) = moved(self), moved(other)
        return _Softmax(top, total + more, moment + more_moment, self.chosen + other.chosen)


def _cut(head_DV: jax.Array, blocks: int, sharding: Sharding | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cuts the head into blocks. A vocabulary split over S devices is cut on each, so that all work on every block.

    Returns:
        head [blocks, D, S, C], the token ids of its columns [blocks, S, C], and which of these there are: the last block may
        be padded.
    """
    D, V = head_DV.shape
    S = sharding.ways('vocab') if sharding else 1
    per_device, C = V // S, -(-V // S // blocks)
    ids_SnC = jnp.arange(S)[:, None, None] * per_device + jnp.arange(blocks * C).reshape(blocks, C)
    there_nC = (jnp.arange(blocks * C) < per_device).reshape(blocks, C)
    head_DSv = jnp.pad(head_DV.reshape(D, S, per_device), ((0, 0), (0, 0), (0, blocks * C - per_device)))
    head_nDSC = jnp.moveaxis(head_DSv.reshape(D, S, blocks, C), 2, 0)
    return _constrain(head_nDSC, (None, 'embed', 'vocab', None), sharding), ids_SnC.swapaxes(0, 1), there_nC


def _constrain(x: jax.Array, axes: tuple[str | None, ...], sharding: Sharding | None) -> jax.Array:
    return sharding.constrain(x, axes) if sharding else x


def _logits(hidden_BTD, head_DSC, there_C, temperature, sharding):
    """Logits [B, T, S, C] of a block of the head, which is brought together from where its rows lie."""
    head_DSC = _constrain(head_DSC, (None, 'vocab', None), sharding)
    logits_BTSC = jnp.einsum('btd,dsc->btsc', hidden_BTD, head_DSC, preferred_element_type=jnp.float32) / temperature
    return jnp.where(there_C, logits_BTSC, -jnp.inf)


def _is_target(targets_BT, ids_SC):
    # A comparison fuses into the sum around it and stays local when V is sharded; an indexed gather and its transpose, a
    # scatter, depend on the compiler for both.
    return ids_SC == targets_BT[..., None, None]


def _forward(temperature, blocks, sharding, hidden_BTD, head_DV, targets_BT):
    hidden_BTD = _constrain(hidden_BTD, ('batch', None, None), sharding)

    def one(head_DSC, ids_SC, there_C) -> _Softmax:
        logits_BTSC = _logits(hidden_BTD, head_DSC, there_C, temperature, sharding)
        top_BT = logits_BTSC.max((-2, -1))
        shifted = logits_BTSC - top_BT[..., None, None]
        exp = jnp.exp(shifted)
        # Columns of padding have exp 0, and 0 * -inf is no number.
        moment = exp * jnp.where(there_C, shifted, 0.0)
        chosen = jnp.where(_is_target(targets_BT, ids_SC) & there_C, logits_BTSC, 0.0)
        return _Softmax(top_BT, *(x.sum((-2, -1)) for x in (exp, moment, chosen)))

    cut = _cut(head_DV, blocks, sharding)
    softmax = one(*(x[0] for x in cut))
    if blocks > 1:
        softmax, _ = jax.lax.scan(lambda so_far, xs: (so_far.merge(one(*xs)), None), softmax, [x[1:] for x in cut])
    log_total_BT = jnp.log(softmax.total)
    logp_BT = softmax.chosen - softmax.top - log_total_BT
    entropy_BT = log_total_BT - softmax.moment / softmax.total
    return (logp_BT, entropy_BT), (hidden_BTD, head_DV, targets_BT, softmax.top + log_total_BT, entropy_BT)


def _backward(temperature, blocks, sharding, residuals, cotangents):
    hidden_BTD, head_DV, targets_BT, normaliser_BT, entropy_BT = residuals
    d_logp, d_entropy = (x[..., None, None] for x in cotangents)

    def one(head_DSC, ids_SC, there_C):
        logits_BTSC = _logits(hidden_BTD, head_DSC, there_C, temperature, sharding)
        log_p = logits_BTSC - normaliser_BT[..., None, None]
        # d log p_y / d l_j = [j = y] - p_j,   d H / d l_j = -p_j (log p_j + H)
        d_logits = (
            jnp.where(_is_target(targets_BT, ids_SC), d_logp, 0.0)
            - jnp.exp(log_p) * (d_logp + d_entropy * (jnp.where(there_C, log_p, 0.0) + entropy_BT[..., None, None]))
        ) / temperature
        # The two products run in the operands' dtype (bfloat16 on an accelerator) and accumulate in float32.
        d_logits = jnp.where(there_C, d_logits, 0.0).astype(hidden_BTD.dtype)
        head_DSC = _constrain(head_DSC, (None, 'vocab', None), sharding)
        d_hidden_BTD = jnp.einsum('btsc,dsc->btd', d_logits, head_DSC, preferred_element_type=jnp.float32)
        d_head_DSC = jnp.einsum('btd,btsc->dsc', hidden_BTD, d_logits, preferred_element_type=jnp.float32)
        # Whole first, as in `Sharding.move`: the sum is scattered then, and not computed piece by piece.
        d_head_DSC = _constrain(_constrain(d_head_DSC, (None, 'vocab', None), sharding), ('embed', 'vocab', None), sharding)
        return d_hidden_BTD, d_head_DSC.astype(head_DV.dtype)

    cut = _cut(head_DV, blocks, sharding)
    if blocks == 1:
        d_hidden_BTD, d_head_DSC = one(*(x[0] for x in cut))
        d_head_nDSC = d_head_DSC[None]
    else:

        def step(total_BTD, xs):
            d_hidden_BTD, d_head_DSC = one(*xs)
            return total_BTD + d_hidden_BTD, d_head_DSC

        d_hidden_BTD, d_head_nDSC = jax.lax.scan(step, jnp.zeros(hidden_BTD.shape, jnp.float32), cut)
    (D, V), S = head_DV.shape, d_head_nDSC.shape[2]
    d_head_DSv = jnp.moveaxis(d_head_nDSC, 0, 2).reshape(D, S, -1)[..., :V // S]
    return d_hidden_BTD.astype(hidden_BTD.dtype), d_head_DSv.reshape(D, V), None


_token_logprobs.defvjp(_forward, _backward)


def sft_loss(logp_BT: jax.Array, weights_BT: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted negative log-likelihood, -sum(logp * weights).

    Args:
        logp_BT: float32, the log-probability of each target token.
        weights_BT: float32, 0 where there is no loss, already normalised (`packing.loss_weights`).

    Returns:
        The scalar loss, and sums over the positions that have a weight: `nll_sum` (nats) and `token_count`.
        All three add up over micro-batches.
    """
    chex.assert_equal_shape([logp_BT, weights_BT])
    chosen_BT = weights_BT != 0
    nll_BT = -jnp.where(chosen_BT, logp_BT, 0.0)
    sums = {'nll_sum': nll_BT.sum(), 'token_count': chosen_BT.sum(dtype=jnp.float32)}
    return (nll_BT * weights_BT).sum(), jax.lax.stop_gradient(sums)
