"""Keys and values of the tokens so far, a slot a row."""

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.config import ModelConfig


@struct.dataclass
class LayerCache:
    """One layer's cache. Time stands next to the head dimension, so that decoding is a batch of plain matrix products.

    With latent attention there is one 'head', whose key is what `latent` keeps of a token; the values are part of it.
    """

    k_SNTK: jax.Array
    v_SNTV: jax.Array | None = None

    def write(self, position_S: jax.Array, k_SNK: jax.Array, v_SNV: jax.Array | None = None) -> 'LayerCache':
        """Writes one token a slot, at that slot's position. Positions past the end are dropped."""

        def one(old_TK: jax.Array, new_K: jax.Array, position: jax.Array) -> jax.Array:
            return old_TK.at[position].set(widened(new_K, old_TK.shape[-1]), mode='drop')

        # Head by head: written together, a token's heads would want to lie together, and a TPU would lay the whole cache out
        # anew before a chunk of decoding and after it.
        position_SN = jnp.broadcast_to(position_S[:, None], k_SNK.shape[:2])
        return jax.tree.map(
            lambda old, new: jax.vmap(jax.vmap(one))(old, new, position_SN), self, LayerCache(k_SNK, v_SNV))


@struct.dataclass
class Cache:
    """The caches of all layers; separate arrays, so that a decode loop updates each in place."""

    layers: tuple[LayerCache, ...]

    @property
    def length(self) -> int:
        """T, how many positions fit."""
        return self.layers[0].k_SNTK.shape[2]


def widened(x: jax.Array, width: int) -> jax.Array:
    """Returns x with zeros after the last dimension's values, `width` of them in all."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


def empty_cache(cfg: ModelConfig, slots: int, length: int, lanes: int = 1) -> Cache:
    """Returns a cache of zeros for `slots` rows of up to `length` tokens, in the model's dtype.

    Args:
        lanes: what the width of a head is rounded up to a multiple of, with zeros. A TPU's registers are 128 wide; arrays of
            another width come to a program in another layout than it computes in, and it would begin with a second copy.
    """

    def zeros(heads: int, width: int) -> jax.Array:
        return jnp.zeros((slots, heads, length, width + -width % lanes), cfg.dtype)

    def layer() -> LayerCache:
        if cfg.latent:
            return LayerCache(zeros(1, cfg.latent.kv_rank + cfg.latent.rope_dim))
        return LayerCache(zeros(cfg.n_kv_heads, cfg.head_dim), zeros(cfg.n_kv_heads, cfg.head_dim))

    return Cache(tuple(layer() for _ in range(cfg.n_layers)))


def cache_axes(cfg: ModelConfig) -> tuple[str | None, ...]:
    """The logical axes of the arrays of a cache: heads are split as the projections that write them."""
    return ('batch', None if cfg.latent else 'kv_heads', None, None)
