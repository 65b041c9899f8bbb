"""Log-probabilities and entropies of given tokens without ever holding `[B, T, V]` logits, and the SFT loss.

With 150,000 words of vocabulary the logits of one 32,768-token row are 20 GB in float32. `token_logprobs`
works in chunks along T: the forward pass keeps only the log-normaliser and the entropy of each position, and
the backward pass computes each chunk's logits again.
"""

import functools

import chex
import jax
import jax.numpy as jnp

# A chunk of logits holds at most this many float32 values (256 MiB) when the caller names no chunk size.
CHUNK_ELEMENTS = 2**26


def token_logprobs(
    hidden_BTD: jax.Array,
    head_DV: jax.Array,
    targets_BT: jax.Array,
    *,
    temperature: float = 1.0,
    chunk_size: int | None = None,
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
        chunk_size: positions of T per chunk. None takes the fewest chunks with B * chunk * V <=
          `CHUNK_ELEMENTS`, made equal in length. With one chunk there is no loop.

    Returns:
        logp_BT and entropy_BT, float32. Gradients flow from both to `hidden_BTD` and `head_DV`.

    Raises:
        ValueError: the temperature or the chunk size is not positive.
    """
    chex.assert_rank([hidden_BTD, head_DV, targets_BT], [3, 2, 2])
    chex.assert_equal_shape_prefix([hidden_BTD, targets_BT], 2)
    chex.assert_equal(hidden_BTD.shape[2], head_DV.shape[0])
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, got {temperature}')
    B, T, _ = hidden_BTD.shape
    if chunk_size is None:
        largest = max(1, CHUNK_ELEMENTS // (B * head_DV.shape[1]))
        chunk_size = -(-T // -(-T // largest))
    if chunk_size < 1:
        raise ValueError(f'chunk_size must be positive, got {chunk_size}')
    return _token_logprobs(float(temperature), min(chunk_size, T), hidden_BTD, head_DV, targets_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _token_logprobs(temperature, chunk, hidden_BTD, head_DV, targets_BT):
    return _forward(temperature, chunk, hidden_BTD, head_DV, targets_BT)[0]


def _logits(hidden_BCD, head_DV, temperature):
    return jnp.einsum('bcd,dv->bcv', hidden_BCD, head_DV, preferred_element_type=jnp.float32) / temperature


def _is_target(targets_BC, logits_BCV):
    # A comparison with an iota fuses into the sum around it and stays local when V is sharded; an indexed
    # gather and its transpose, a scatter, depend on the compiler for both.
    return jax.lax.broadcasted_iota(jnp.int32, logits_BCV.shape, 2) == targets_BC[..., None]


def _split(x, chunk):
    """[B, T, ...] -> [n, B, chunk, ...], zero-padded along T."""
    B, T = x.shape[:2]
    n = -(-T // chunk)
    x = jnp.pad(x, [(0, 0), (0, n * chunk - T)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(B, n, chunk, *x.shape[2:]), 1, 0)


def _join(x, T):
    """[n, B, chunk, ...] -> [B, T, ...], the inverse of `_split`."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :T]


def _forward(temperature, chunk, hidden_BTD, head_DV, targets_BT):
    T = hidden_BTD.shape[1]

    def one(hidden_BCD, targets_BC):
        logits_BCV = _logits(hidden_BCD, head_DV, temperature)
        top_BC = jnp.max(logits_BCV, axis=-1)
        shifted_BCV = logits_BCV - top_BC[..., None]
        exp_BCV = jnp.exp(shifted_BCV)
        total_BC = jnp.sum(exp_BCV, axis=-1)
        log_total_BC = jnp.log(total_BC)
        chosen_BC = jnp.sum(jnp.where(_is_target(targets_BC, logits_BCV), shifted_BCV, 0.0), axis=-1)
        entropy_BC = log_total_BC - jnp.sum(exp_BCV * shifted_BCV, axis=-1) / total_BC
        return chosen_BC - log_total_BC, entropy_BC, top_BC + log_total_BC

    if chunk == T:
        logp_BT, entropy_BT, normaliser_BT = one(hidden_BTD, targets_BT)
    else:
        _, chunks = jax.lax.scan(
            lambda _, xs: (None, one(*xs)), None, (_split(hidden_BTD, chunk), _split(targets_BT, chunk))
        )
        logp_BT, entropy_BT, normaliser_BT = (_join(x, T) for x in chunks)
    return (logp_BT, entropy_BT), (hidden_BTD, head_DV, targets_BT, normaliser_BT, entropy_BT)


def _backward(temperature, chunk, residuals, cotangents):
    hidden_BTD, head_DV, targets_BT, normaliser_BT, entropy_BT = residuals
    d_logp_BT, d_entropy_BT = cotangents
    T = hidden_BTD.shape[1]

    def one(hidden_BCD, targets_BC, normaliser_BC, entropy_BC, d_logp_BC, d_entropy_BC):
        logits_BCV = _logits(hidden_BCD, head_DV, temperature)
        log_p_BCV = logits_BCV - normaliser_BC[..., None]
        p_BCV = jnp.exp(log_p_BCV)
        # d log p_y / d l_j = [j = y] - p_j,   d H / d l_j = -p_j (log p_j + H)
        d_logits_BCV = (
            jnp.where(_is_target(targets_BC, logits_BCV), d_logp_BC[..., None], 0.0)
            - p_BCV * (d_logp_BC[..., None] + d_entropy_BC[..., None] * (log_p_BCV + entropy_BC[..., None]))
        ) / temperature
        # The two products run in the operands' dtype (bfloat16 on an accelerator) and accumulate in float32.
        d_logits_BCV = d_logits_BCV.astype(hidden_BCD.dtype)
        d_hidden_BCD = jnp.einsum('bcv,dv->bcd', d_logits_BCV, head_DV, preferred_element_type=jnp.float32)
        d_head_DV = jnp.einsum('bcd,bcv->dv', hidden_BCD, d_logits_BCV, preferred_element_type=jnp.float32)
        return d_head_DV, d_hidden_BCD.astype(hidden_BCD.dtype)

    arrays = (hidden_BTD, targets_BT, normaliser_BT, entropy_BT, d_logp_BT, d_entropy_BT)
    if chunk == T:
        d_head_DV, d_hidden_BTD = one(*arrays)
    else:

        def step(total_DV, xs):
            d_head_DV, d_hidden_BCD = one(*xs)
            return total_DV + d_head_DV, d_hidden_BCD

        # Padding has zero cotangents and therefore adds nothing to the head's gradient.
        d_head_DV, d_hidden = jax.lax.scan(
            step, jnp.zeros(head_DV.shape, jnp.float32), tuple(_split(x, chunk) for x in arrays)
        )
        d_hidden_BTD = _join(d_hidden, T)
    return d_hidden_BTD, d_head_DV.astype(head_DV.dtype), None


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
