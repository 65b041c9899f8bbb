"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; DeepSeek-V3, arXiv 2412.19437, eq. 1-11).

For training and scoring keys and values are *expanded* from the latent vectors, and attention is as any other. For decoding
the expansion is *absorbed*: a query is turned into latent space once, scores are taken against the cached latent vectors
themselves, and what comes out is expanded for the one new token. A cache then holds R + P numbers a token and layer,
whatever the number of heads.
"""

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.attention import cached_attention, self_attention
from r1jax.models.cache import LayerCache
from r1jax.models.config import ModelConfig
from r1jax.models.layers import rms_norm
from r1jax.models.rope import apply_rope
from r1jax.models.spec import ArraySpec
from r1jax.parallel.rules import Sharding


@struct.dataclass
class Latent:
    """Weights of latent attention, stacked over layers: C the width of the queries' latent vector, R that of keys and
    values, K + P the dimensions of a query (P of them rotated), V those of a value. The first two are None, and C is D,
    where queries are made of the hidden state.
    """

    wq_down: jax.Array | None  # [L, D, C]
    q_norm: jax.Array | None  # [L, C]
    wq: jax.Array  # [L, C, H, K + P]
    wkv_down: jax.Array  # [L, D, R + P], the last P of which are the rotary key of all heads
    kv_norm: jax.Array  # [L, R]
    wk: jax.Array  # [L, R, H, K]
    wv: jax.Array  # [L, R, H, V]
    wo: jax.Array  # [L, H, V, D]


def specs(cfg: ModelConfig, L: int, into_residual: int) -> Latent:
    """Returns a Latent of ArraySpecs for L layers; `into_residual` as `transformer.abstract` explains it."""
    D, H, K = cfg.d_model, cfg.n_heads, cfg.head_dim
    R, P, V, C = cfg.latent.kv_rank, cfg.latent.rope_dim, cfg.latent.v_dim, cfg.latent.q_rank
    return Latent(
        wq_down=ArraySpec((L, D, C), ('layers', 'embed', None), fan_in=D) if C else None,
        q_norm=ArraySpec((L, C), ('layers', 'norm'), 'ones', exact=True) if C else None,
        wq=ArraySpec((L, C or D, H, K + P), ('layers', 'embed', 'heads', None), fan_in=C or D),
        wkv_down=ArraySpec((L, D, R + P), ('layers', 'embed', None), fan_in=D),
        kv_norm=ArraySpec((L, R), ('layers', 'norm'), 'ones', exact=True),
        wk=ArraySpec((L, R, H, K), ('layers', 'embed', 'heads', None), fan_in=R),
        wv=ArraySpec((L, R, H, V), ('layers', 'embed', 'heads', None), fan_in=R),
        wo=ArraySpec((L, H, V, D), ('layers', 'heads', None, 'embed'), fan_in=H * V * into_residual))


def _queries(h_BTD, w: Latent, cos, sin, cfg: ModelConfig):
    """Returns the plain part [B, T, H, K] and the rotated part [B, T, H, P] of the queries."""
    c_BTC = h_BTD
    if w.wq_down is not None:
        c_BTC = rms_norm(jnp.einsum('btd,dc->btc', h_BTD, w.wq_down), w.q_norm, cfg.norm_eps)
    q = jnp.einsum('btc,chk->bthk', c_BTC, w.wq)
    return q[..., :cfg.head_dim], apply_rope(q[..., cfg.head_dim:], cos, sin)


def _latents(h_BTD, w: Latent, cos, sin, cfg: ModelConfig):
    """Returns what a cache holds of each token, [B, T, R + P]: the normalised latent vector and the rotated key."""
    both = jnp.einsum('btd,dr->btr', h_BTD, w.wkv_down)
    latent, key = both[..., :cfg.latent.kv_rank], both[..., cfg.latent.kv_rank:]
    return jnp.concatenate(
        [rms_norm(latent, w.kv_norm, cfg.norm_eps), apply_rope(key[:, :, None], cos, sin)[:, :, 0]], axis=-1)


def attend(
    h_BTD: jax.Array, w: Latent, cos: jax.Array, sin: jax.Array, segments_BT: jax.Array, cfg: ModelConfig,
    sharding: Sharding | None = None,
) -> tuple[jax.Array, LayerCache]:
    """Causal self-attention within segments, keys and values expanded. Returns as `attention.attend`."""
    R = cfg.latent.kv_rank
    q_plain, q_rotated = _queries(h_BTD, w, cos, sin, cfg)
    kept_BTR = _latents(h_BTD, w, cos, sin, cfg)
    k_plain = jnp.einsum('btr,rhk->bthk', kept_BTR[..., :R], w.wk)
    v = jnp.einsum('btr,rhv->bthv', kept_BTR[..., :R], w.wv)
    k_rotated = jnp.broadcast_to(kept_BTR[:, :, None, R:], q_rotated.shape)
    mixed_BTHV = self_attention(
        jnp.concatenate([q_plain, q_rotated], -1), jnp.concatenate([k_plain, k_rotated], -1), v, segments_BT,
        cfg.softmax_scale, sharding)
    return jnp.einsum('bthv,hvd->btd', mixed_BTHV, w.wo), LayerCache(kept_BTR[:, None])


def attend_cached(
    h_S1D: jax.Array,
    w: Latent,
    cos: jax.Array,
    sin: jax.Array,
    positions_S1: jax.Array,
    cache: LayerCache,
    cfg: ModelConfig,
) -> tuple[jax.Array, LayerCache]:
    """Attention of one new token a row over that row's cache, the expansion absorbed; as `attention.attend_cached`."""
    R = cfg.latent.kv_rank
    q_plain, q_rotated = _queries(h_S1D, w, cos, sin, cfg)
    position_S = positions_S1[:, 0]
    cache = cache.write(position_S, _latents(h_S1D, w, cos, sin, cfg))
    q_latent = jnp.einsum('bthk,rhk->bthr', q_plain, w.wk)
    # All heads share one key, the kept vector, and one value, its first R numbers.
    mixed_S1HR = cached_attention(
        jnp.concatenate([q_latent, q_rotated], -1), cache.k_SNTK, cache.k_SNTK[..., :R], position_S, cfg.softmax_scale)
    v = jnp.einsum('bthr,rhv->bthv', mixed_S1HR, w.wv)
    return jnp.einsum('bthv,hvd->btd', v, w.wo), cache
