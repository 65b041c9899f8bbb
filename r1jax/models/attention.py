"""Grouped-query attention: over packed segments for training and scoring, over a cache for decoding."""

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.cache import LayerCache, widened
from r1jax.models.config import ModelConfig
from r1jax.models.kernels import flash_attention
from r1jax.models.layers import rms_norm
from r1jax.models.rope import apply_rope
from r1jax.models.spec import ArraySpec
from r1jax.parallel.rules import Sharding

# Finite, because the difference of two -inf is NaN, in a softmax and in its gradient.
MASKED = -1e30
# By this name of a scope a plan knows products of which half are masked.
CAUSAL = 'causal_attention'


@struct.dataclass
class Attention:
    """Weights of grouped-query attention, stacked over layers. Biases and norms are None where the family has none."""

    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, N, K]
    wv: jax.Array  # [L, D, N, K]
    wo: jax.Array  # [L, H, K, D]
    bq: jax.Array | None = None  # [L, H, K]
    bk: jax.Array | None = None  # [L, N, K]
    bv: jax.Array | None = None  # [L, N, K]
    q_norm: jax.Array | None = None  # [L, K], one scale for all heads
    k_norm: jax.Array | None = None  # [L, K]


def specs(cfg: ModelConfig, L: int, into_residual: int) -> Attention:
    """Returns an Attention of ArraySpecs for L layers; `into_residual` as `transformer.abstract` explains it."""
    D, H, N, K = cfg.d_model, cfg.n_heads, cfg.n_kv_heads, cfg.head_dim

    def bias(heads: int, axis: str) -> ArraySpec | None:
        return ArraySpec((L, heads, K), ('layers', axis, None), 'zeros') if cfg.qkv_bias else None

    def norm() -> ArraySpec | None:
        return ArraySpec((L, K), ('layers', None), 'ones', exact=True) if cfg.qk_norm else None

    return Attention(
        wq=ArraySpec((L, D, H, K), ('layers', 'embed', 'heads', None), fan_in=D),
        wk=ArraySpec((L, D, N, K), ('layers', 'embed', 'kv_heads', None), fan_in=D),
        wv=ArraySpec((L, D, N, K), ('layers', 'embed', 'kv_heads', None), fan_in=D),
        wo=ArraySpec((L, H, K, D), ('layers', 'heads', None, 'embed'), fan_in=H * K * into_residual),
        bq=bias(H, 'heads'), bk=bias(N, 'kv_heads'), bv=bias(N, 'kv_heads'),
        q_norm=norm(), k_norm=norm())


def _project(h_BTD, w: Attention, cos, sin, cfg: ModelConfig):
    """Returns rotated q [B, T, H, K], rotated k [B, T, N, K] and v [B, T, N, K]."""
    q = jnp.einsum('btd,dhk->bthk', h_BTD, w.wq)
    k = jnp.einsum('btd,dnk->btnk', h_BTD, w.wk)
    v = jnp.einsum('btd,dnk->btnk', h_BTD, w.wv)
    if w.bq is not None:
        q, k, v = q + w.bq, k + w.bk, v + w.bv
    if w.q_norm is not None:
        q, k = rms_norm(q, w.q_norm, cfg.norm_eps), rms_norm(k, w.k_norm, cfg.norm_eps)
    return apply_rope(q, cos, sin), apply_rope(k, cos, sin), v


def attend(
    h_BTD: jax.Array, w: Attention, cos: jax.Array, sin: jax.Array, segments_BT: jax.Array, cfg: ModelConfig,
    sharding: Sharding | None = None,
) -> tuple[jax.Array, LayerCache]:
    """Causal self-attention within segments; scores and softmax in float32.

    Returns the output [B, T, D], and the keys and values in the layout of the cache (for a prefill; otherwise unused and
    compiled away).
    """
    q, k, v = _project(h_BTD, w, cos, sin, cfg)
    mixed_BTHK = self_attention(q, k, v, segments_BT, cfg.softmax_scale, sharding)
    out_BTD = jnp.einsum('bthk,hkd->btd', mixed_BTHK, w.wo)
    return out_BTD, LayerCache(k.swapaxes(1, 2), v.swapaxes(1, 2))


def self_attention(
    q_BTHK: jax.Array, k_BTNK: jax.Array, v_BTNV: jax.Array, segments_BT: jax.Array, scale: float,
    sharding: Sharding | None = None,
) -> jax.Array:
    """softmax(scale * q k) v over the tokens up to each one, of its own segment. Returns [B, T, H, V].

    By a kernel where the platform of `sharding` has one, see `kernels`.
    """
    if sharding and (mixed_BTHV := flash_attention(q_BTHK, k_BTNK, v_BTNV, segments_BT, scale, sharding)) is not None:
        return mixed_BTHV
    with jax.named_scope(CAUSAL):
        return _dense_attention(q_BTHK, k_BTNK, v_BTNV, segments_BT, scale)


def _dense_attention(q_BTHK, k_BTNK, v_BTNV, segments_BT, scale):
    B, T, H, K = q_BTHK.shape
    N = k_BTNK.shape[2]
    Q = H // N
    # The Q query heads of a kv head are stacked along time: one matrix product a kv head instead of Q thin ones.
    q_BNtK = q_BTHK.reshape(B, T, N, Q, K).transpose(0, 2, 3, 1, 4).reshape(B, N, Q * T, K)
    k_BNTK, v_BNTV = k_BTNK.swapaxes(1, 2), v_BTNV.swapaxes(1, 2)
    scores = jnp.einsum('bnqk,bnsk->bnqs', q_BNtK, k_BNTK, preferred_element_type=jnp.float32) * scale
    mask_BTT = (segments_BT[:, :, None] == segments_BT[:, None, :]) & jnp.tril(jnp.ones((T, T), bool))
    scores = jnp.where(mask_BTT[:, None, None], scores.reshape(B, N, Q, T, T), MASKED)
    # Softmax by hand: normalising after the product with v spares two passes over [T, T] and one in the gradient.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True).astype(jnp.float32)
    weights = weights.astype(q_BTHK.dtype).reshape(B, N, Q * T, T)
    mixed = jnp.einsum('bnqs,bnsv->bnqv', weights, v_BNTV, preferred_element_type=jnp.float32)
    mixed = (mixed.reshape(B, N, Q, T, -1) / total).astype(q_BTHK.dtype)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, H, -1)


def attend_cached(
    h_S1D: jax.Array,
    w: Attention,
    cos: jax.Array,
    sin: jax.Array,
    positions_S1: jax.Array,
    cache: LayerCache,
    cfg: ModelConfig,
) -> tuple[jax.Array, LayerCache]:
    """Attention of one new token a row over that row's cache, itself included. Returns [S, 1, D] and the new cache."""
    q, k, v = _project(h_S1D, w, cos, sin, cfg)
    position_S = positions_S1[:, 0]
    cache = cache.write(position_S, k[:, 0], v[:, 0])
    mixed_S1HK = cached_attention(q, cache.k_SNTK, cache.v_SNTV, position_S, cfg.softmax_scale)[..., :cfg.head_dim]
    return jnp.einsum('bthk,hkd->btd', mixed_S1HK, w.wo), cache


def cached_attention(
    q_S1HK: jax.Array, k_SNTK: jax.Array, v_SNTV: jax.Array, position_S: jax.Array, scale: float
) -> jax.Array:
    """softmax(scale * q k) v over positions 0 to position_S of each row's cache. Returns [S, 1, H, V].

    Keys may be wider than queries, by zeros.
    """
    S, _, H, _ = q_S1HK.shape
    N, T, K = k_SNTK.shape[1:]
    q_SNQK = widened(q_S1HK, K).reshape(S, N, H // N, K)
    scores = jnp.einsum('snqk,sntk->snqt', q_SNQK, k_SNTK, preferred_element_type=jnp.float32)
    mask_ST = jnp.arange(T) <= position_S[:, None]
    scores = jnp.where(mask_ST[:, None, None], scores * scale, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(q_S1HK.dtype)
    return jnp.einsum('snqt,sntv->snqv', weights, v_SNTV).reshape(S, 1, H, -1)
