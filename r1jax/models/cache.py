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
        slots = jnp.arange(position_S.shape[0])
        return jax.tree.map(
            lambda old, new: old.at[slots, :, position_S].set(new, mode='drop'), self, LayerCache(k_SNK, v_SNV))


@struct.dataclass
class Cache:
    """The caches of all layers; separate arrays, so that a decode loop updates each in place."""

    layers: tuple[LayerCache, ...]

    @property
    def length(self) -> int:
        """T, how many positions fit."""
        return self.layers[0].k_SNTK.shape[2]


def empty_cache(cfg: ModelConfig, slots: int, length: int) -> Cache:
    """Returns a cache of zeros for `slots` rows of up to `length` tokens, in the model's dtype."""

    def zeros(heads: int, width: int) -> jax.Array:
        return jnp.zeros((slots, heads, length, width), cfg.dtype)

    def layer() -> LayerCache:
        if cfg.latent:
            return LayerCache(zeros(1, cfg.latent.kv_rank + cfg.latent.rope_dim))
        return LayerCache(zeros(cfg.n_kv_heads, cfg.head_dim), zeros(cfg.n_kv_heads, cfg.head_dim))

    return Cache(tuple(layer() for _ in range(cfg.n_layers)))


def cache_axes(cfg: ModelConfig) -> tuple[str | None, ...]:
    """The logical axes of the arrays of a cache: heads are split as the projections that write them."""
    return ('batch', None if cfg.latent else 'kv_heads', None, None)
