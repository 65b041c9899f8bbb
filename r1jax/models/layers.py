"""The small pieces every family shares: norm and feed-forward."""

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.spec import ArraySpec


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis (arXiv 1910.07467), in float32, returned in x's dtype."""
    x32 = x.astype(jnp.float32)
    inverse_rms = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (x32 * inverse_rms * scale.astype(jnp.float32)).astype(x.dtype)


@struct.dataclass
class FeedForward:
    """A SwiGLU feed-forward, stacked over layers."""

    w_gate: jax.Array  # [L, D, F]
    w_up: jax.Array  # [L, D, F]
    w_down: jax.Array  # [L, F, D]


def feed_forward_specs(L: int, D: int, F: int, into_residual: int) -> FeedForward:
    """Returns a FeedForward of ArraySpecs; `into_residual` as `transformer.abstract` explains it."""
    return FeedForward(
        w_gate=ArraySpec((L, D, F), ('layers', 'embed', 'ffw'), fan_in=D),
        w_up=ArraySpec((L, D, F), ('layers', 'embed', 'ffw'), fan_in=D),
        w_down=ArraySpec((L, F, D), ('layers', 'ffw', 'embed'), fan_in=F * into_residual))


def feed_forward(x_BTD: jax.Array, w: FeedForward) -> jax.Array:
    """(silu(x W_gate) * x W_up) W_down (arXiv 2002.05202)."""
    gate_BTF = jnp.einsum('btd,df->btf', x_BTD, w.w_gate)
    up_BTF = jnp.einsum('btd,df->btf', x_BTD, w.w_up)
    return jnp.einsum('btf,fd->btd', jax.nn.silu(gate_BTF) * up_BTF, w.w_down)
