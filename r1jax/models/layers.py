"""The small pieces every family shares: norm, rotary positions, feed-forward."""

import jax
import jax.numpy as jnp

from r1jax.models.config import ModelConfig


def rms_norm(x_BTD: jax.Array, scale_D: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * scale over the last axis (arXiv 1910.07467), in float32, returned in x's dtype."""
    x32 = x_BTD.astype(jnp.float32)
    inverse_rms = jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (x32 * inverse_rms * scale_D.astype(jnp.float32)).astype(x_BTD.dtype)


def rope(positions_BT: jax.Array, cfg: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Returns cos and sin [B, T, K/2] of the rotary angles (arXiv 2104.09864), float32 whatever the model's dtype.

    Half precision would lose whole turns at long positions.
    """
    half = cfg.head_dim // 2
    frequencies = cfg.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x_BTHK: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turns the pairs (i, i + K/2) of each head: the layout of Hugging Face's Llama and Qwen weights."""
    first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTHK.dtype)


def swiglu(x_BTD: jax.Array, w_gate_DF: jax.Array, w_up_DF: jax.Array, w_down_FD: jax.Array) -> jax.Array:
    """(silu(x W_gate) * x W_up) W_down (arXiv 2002.05202)."""
    dtype = x_BTD.dtype
    gate_BTF = jnp.einsum('btd,df->btf', x_BTD, w_gate_DF.astype(dtype))
    up_BTF = jnp.einsum('btd,df->btf', x_BTD, w_up_DF.astype(dtype))
    return jnp.einsum('btf,fd->btd', jax.nn.silu(gate_BTF) * up_BTF, w_down_FD.astype(dtype))
