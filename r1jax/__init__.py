"""r1jax: train reasoning models the way DeepSeek-R1 was trained, in JAX."""

__version__ = '0.1.0'
