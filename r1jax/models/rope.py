"""Rotary positions (arXiv 2104.09864), plain and stretched."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.models.config import LlamaRope, ModelConfig, Yarn


def frequencies(cfg: ModelConfig) -> np.ndarray:
    """Returns the angle in radians that each pair turns by from one position to the next, float32 [P / 2].

    Worked out in float32 and in the order of the released models' own code: at position 100,000 the last bit of a
    frequency is a hundredth of a radian, and these are the bits that they were trained with.
    """
    exponents = np.arange(0, cfg.rope_dim, 2, dtype=np.float32) / np.float32(cfg.rope_dim)
    plain = np.float32(1) / np.float32(cfg.rope_theta) ** exponents
    scaling = cfg.rope_scaling
    if isinstance(scaling, LlamaRope):
        turns = np.float32(scaling.original_positions) * plain / np.float32(2 * math.pi)  # o / w
        kept = np.clip((turns - np.float32(scaling.low)) / np.float32(scaling.high - scaling.low), 0, 1)
    elif isinstance(scaling, Yarn):
        kept = 1 - _ramp(cfg.rope_dim, cfg.rope_theta, scaling)
    else:
        return plain
    return (kept * plain + (1 - kept) * plain / np.float32(scaling.factor)).astype(np.float32)


def _ramp(dim: int, theta: float, scaling: Yarn) -> np.ndarray:
    """From 0 for pairs that turn often enough to keep their frequency to 1 for those that are slowed down whole, [P / 2].

    arXiv 2309.00071, section 3.2, with the ramp over pairs instead of over turns and its ends rounded outwards, as in the
    released code of YaRN and of DeepSeek-V3.
    """

    def pair(turns: float) -> float:
        """The (fractional) pair that turns so often within the original positions."""
        return dim * math.log(scaling.original_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = max(math.floor(pair(scaling.beta_fast)), 0), min(math.ceil(pair(scaling.beta_slow)), dim - 1)
    return np.clip((np.arange(dim // 2, dtype=np.float32) - first) / np.float32(max(last - first, 1e-3)), 0, 1)


def rope(positions_BT: jax.Array, cfg: ModelConfig) -> tuple[jax.Array, jax.Array]:
    """Returns cos and sin [B, T, P/2] of the rotary angles, float32 whatever the model's dtype.

    Half precision would lose whole turns at long positions.
    """
    angles = positions_BT[..., None].astype(jnp.float32) * frequencies(cfg)
    magnitude = cfg.rope_scaling.magnitude if isinstance(cfg.rope_scaling, Yarn) else 1.0
    return jnp.cos(angles) * magnitude, jnp.sin(angles) * magnitude


def apply_rope(x_BTHP: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turns the pairs (i, i + P/2) of each head: the layout of Hugging Face's Llama and Qwen weights.

    DeepSeek's weights have pairs (2i, 2i + 1); `interop.hf` turns their columns into this order.
    """
    first, second = jnp.split(x_BTHP.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BTHP.dtype)
