"""Grouped-query attention: over packed segments for training and scoring, over a cache for decoding."""

import typing

import jax
import jax.numpy as jnp

from r1jax.models.cache import LayerCache
from r1jax.models.config import ModelConfig
from r1jax.models.layers import apply_rope

if typing.TYPE_CHECKING:
    from r1jax.models.transformer import Layers

# Finite, because the difference of two -inf is NaN, in a softmax and in its gradient.
MASKED = -1e30


def _project(h_BTD, w: 'Layers', cos, sin):
    """Returns rotated q [B, T, H, K], rotated k [B, T, N, K] and v [B, T, N, K]."""
    dtype = h_BTD.dtype
    q = jnp.einsum('btd,dhk->bthk', h_BTD, w.wq.astype(dtype))
    k = jnp.einsum('btd,dnk->btnk', h_BTD, w.wk.astype(dtype))
    v = jnp.einsum('btd,dnk->btnk', h_BTD, w.wv.astype(dtype))
    if w.bq is not None:
        q, k, v = q + w.bq.astype(dtype), k + w.bk.astype(dtype), v + w.bv.astype(dtype)
    return apply_rope(q, cos, sin), apply_rope(k, cos, sin), v


def attend(
    h_BTD: jax.Array, w: 'Layers', cos: jax.Array, sin: jax.Array, segments_BT: jax.Array, cfg: ModelConfig
) -> tuple[jax.Array, LayerCache]:
    """Causal self-attention within segments; scores and softmax in float32.

    Returns the output [B, T, D], and the keys and values in the layout of the cache (for a prefill; otherwise unused and
    compiled away).
    """
    B, T, _ = h_BTD.shape
    N, Q, K = cfg.n_kv_heads, cfg.queries_per_kv, cfg.head_dim
    q, k, v = _project(h_BTD, w, cos, sin)
    # The Q query heads of a kv head are stacked along time: one matrix product a kv head instead of Q thin ones.
    q_BNtK = q.reshape(B, T, N, Q, K).transpose(0, 2, 3, 1, 4).reshape(B, N, Q * T, K)
    k_BNTK, v_BNTK = k.swapaxes(1, 2), v.swapaxes(1, 2)
    scores = jnp.einsum('bnqk,bnsk->bnqs', q_BNtK, k_BNTK, preferred_element_type=jnp.float32) * K**-0.5
    mask_BTT = (segments_BT[:, :, None] == segments_BT[:, None, :]) & jnp.tril(jnp.ones((T, T), bool))
    scores = jnp.where(mask_BTT[:, None, None], scores.reshape(B, N, Q, T, T), MASKED)
    # Softmax by hand: normalising after the product with v spares two passes over [T, T] and one in the gradient.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True).astype(jnp.float32)
    weights = weights.astype(h_BTD.dtype).reshape(B, N, Q * T, T)
    mixed = jnp.einsum('bnqs,bnsk->bnqk', weights, v_BNTK, preferred_element_type=jnp.float32)
    mixed = (mixed.reshape(B, N, Q, T, K) / total).astype(h_BTD.dtype)
    mixed_BTHK = mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, cfg.n_heads, K)
    return jnp.einsum('bthk,hkd->btd', mixed_BTHK, w.wo.astype(h_BTD.dtype)), LayerCache(k_BNTK, v_BNTK)


def attend_cached(
    h_S1D: jax.Array,
    w: 'Layers',
    cos: jax.Array,
    sin: jax.Array,
    positions_S1: jax.Array,
    cache: LayerCache,
    cfg: ModelConfig,
) -> tuple[jax.Array, LayerCache]:
    """Attention of one new token a row over that row's cache, itself included. Returns [S, 1, D] and the new cache."""
    S = h_S1D.shape[0]
    q, k, v = _project(h_S1D, w, cos, sin)
    position_S = positions_S1[:, 0]
    cache = cache.write(position_S, k[:, 0], v[:, 0])
    q_SNGK = q.reshape(S, cfg.n_kv_heads, cfg.queries_per_kv, cfg.head_dim)
    scores = jnp.einsum('sngk,sntk->sngt', q_SNGK, cache.k_SNTK, preferred_element_type=jnp.float32)
    mask_ST = jnp.arange(cache.k_SNTK.shape[2]) <= position_S[:, None]
    scores = jnp.where(mask_ST[:, None, None], scores * cfg.head_dim**-0.5, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(h_S1D.dtype)
    mixed = jnp.einsum('sngt,sntk->sngk', weights, cache.v_SNTK).reshape(S, 1, cfg.n_heads, cfg.head_dim)
    return jnp.einsum('bthk,hkd->btd', mixed, w.wo.astype(h_S1D.dtype)), cache
