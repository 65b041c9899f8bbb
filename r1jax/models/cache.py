"""Keys and values of the tokens so far, a slot a row."""

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.config import ModelConfig


@struct.dataclass
class LayerCache:
    """One layer's cache. Time stands next to the head dimension, so that decoding is a batch of plain matrix products."""

    k_SNTK: jax.Array
    v_SNTK: jax.Array

    def write(self, position_S: jax.Array, k_SNK: jax.Array, v_SNK: jax.Array) -> 'LayerCache':
        """Writes one token a slot, at that slot's position. Positions past the end are dropped."""
        slots = jnp.arange(position_S.shape[0])
        return LayerCache(
            self.k_SNTK.at[slots, :, position_S].set(k_SNK, mode='drop'),
            self.v_SNTK.at[slots, :, position_S].set(v_SNK, mode='drop'))


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
    shape = (slots, cfg.n_kv_heads, length, cfg.head_dim)
    zeros = [jnp.zeros(shape, cfg.dtype) for _ in range(2 * cfg.n_layers)]
    return Cache(tuple(LayerCache(k, v) for k, v in zip(zeros[::2], zeros[1::2], strict=True)))
