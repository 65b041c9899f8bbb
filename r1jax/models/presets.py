"""The shapes that ship by name: those of the paper's models, and tiny ones of every kind.

From config.json of each model on its public page: Qwen2.5 (arXiv 2412.15115) and Qwen2.5-Math (2409.12122), Qwen3
(2505.09388), Llama 3 (2407.21783), SmolLM2 (2502.02737), DeepSeek-V3 (2412.19437, section 4.2).
"""

from r1jax.errors import UserError, nearest
from r1jax.models.config import Experts, LatentAttention, LlamaRope, ModelConfig, Yarn

PRESETS: dict[str, ModelConfig] = {
    'tiny': ModelConfig(
        vocab_size=1024, d_model=192, n_layers=4, n_heads=6, n_kv_heads=2, head_dim=32, d_ff=512, tie_embeddings=True,
        max_positions=512),
    # What 'tiny' is distilled into: of the other family (biases, every query head with its own keys), less than half as big.
    'tiny-student': ModelConfig(
        vocab_size=640, d_model=128, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=32, d_ff=320, qkv_bias=True,
        max_positions=512),
    'tiny-qwen3': ModelConfig(
        vocab_size=1024, d_model=192, n_layers=4, n_heads=6, n_kv_heads=2, head_dim=48, d_ff=512, rope_theta=1e6,
        qk_norm=True, tie_embeddings=True, max_positions=512),
    'tiny-llama3': ModelConfig(
        vocab_size=1024, d_model=192, n_layers=4, n_heads=6, n_kv_heads=2, head_dim=32, d_ff=512, rope_theta=5e5,
        rope_scaling=LlamaRope(factor=8, original_positions=64), norm_eps=1e-5, max_positions=512),
    'tiny-deepseek': ModelConfig(
        vocab_size=1024, d_model=192, n_layers=4, n_heads=6, n_kv_heads=6, head_dim=32, d_ff=512,
        rope_scaling=Yarn(factor=8, original_positions=64),
        latent=LatentAttention(kv_rank=64, q_rank=96, rope_dim=16, v_dim=32),
        experts=Experts(n=16, per_token=4, d_ff=96, groups=4, groups_per_token=2, scale=2.5, dense_layers=1),
        mtp=1, max_positions=512),
    'smollm2-135m': ModelConfig(
        vocab_size=49_152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536, rope_theta=1e5,
        norm_eps=1e-5, tie_embeddings=True, max_positions=8192, dtype='bfloat16'),
    'qwen2.5-math-1.5b': ModelConfig(
        vocab_size=151_936, d_model=1536, n_layers=28, n_heads=12, n_kv_heads=2, head_dim=128, d_ff=8960,
        qkv_bias=True, tie_embeddings=True, dtype='bfloat16'),
    'qwen2.5-math-7b': ModelConfig(
        vocab_size=152_064, d_model=3584, n_layers=28, n_heads=28, n_kv_heads=4, head_dim=128, d_ff=18_944,
        qkv_bias=True, dtype='bfloat16'),
    'qwen2.5-14b': ModelConfig(
        vocab_size=152_064, d_model=5120, n_layers=48, n_heads=40, n_kv_heads=8, head_dim=128, d_ff=13_824,
        rope_theta=1e6, norm_eps=1e-5, qkv_bias=True, max_positions=131_072, dtype='bfloat16'),
    'qwen2.5-32b': ModelConfig(
        vocab_size=152_064, d_model=5120, n_layers=64, n_heads=40, n_kv_heads=8, head_dim=128, d_ff=27_648,
        rope_theta=1e6, norm_eps=1e-5, qkv_bias=True, max_positions=131_072, dtype='bfloat16'),
    'llama3.1-8b': ModelConfig(
        vocab_size=128_256, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128, d_ff=14_336,
        rope_theta=5e5, rope_scaling=LlamaRope(factor=8), norm_eps=1e-5, max_positions=131_072, dtype='bfloat16'),
    'llama3.3-70b': ModelConfig(
        vocab_size=128_256, d_model=8192, n_layers=80, n_heads=64, n_kv_heads=8, head_dim=128, d_ff=28_672,
        rope_theta=5e5, rope_scaling=LlamaRope(factor=8), norm_eps=1e-5, max_positions=131_072, dtype='bfloat16'),
    'deepseek-v3': ModelConfig(
        vocab_size=129_280, d_model=7168, n_layers=61, n_heads=128, n_kv_heads=128, head_dim=128, d_ff=18_432,
        rope_scaling=Yarn(factor=40),
        latent=LatentAttention(kv_rank=512, q_rank=1536, rope_dim=64, v_dim=128),
        experts=Experts(n=256, per_token=8, d_ff=2048, groups=8, groups_per_token=4, scale=2.5, dense_layers=3),
        mtp=1, max_positions=163_840, dtype='bfloat16'),
}


def preset(name: str) -> ModelConfig:
    """Returns the named shape; raises UserError with the nearest name if there is none."""
    if name not in PRESETS:
        raise UserError(f"there is no model named '{name}'{nearest(name, PRESETS)}")
    return PRESETS[name]
