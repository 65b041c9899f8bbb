"""A tiny model of every family, for the tests that hold for all of them."""

from r1jax.models.config import Experts, LatentAttention, LlamaRope, ModelConfig, Yarn

FAMILIES = {
    'qwen2': ModelConfig(
        vocab_size=96, d_model=32, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=48, rope_theta=1e4,
        qkv_bias=True, tie_embeddings=True, max_positions=64),
    'llama': ModelConfig(
        vocab_size=96, d_model=32, n_layers=3, n_heads=4, n_kv_heads=1, head_dim=8, d_ff=56, rope_theta=5e5, norm_eps=1e-5,
        max_positions=64),
    'llama3': ModelConfig(
        vocab_size=96, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=48, rope_theta=5e5,
        rope_scaling=LlamaRope(factor=8), norm_eps=1e-5, max_positions=131_072),
    'qwen3': ModelConfig(
        vocab_size=96, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=48, rope_theta=1e6, qk_norm=True,
        max_positions=64),
    'deepseek': ModelConfig(
        vocab_size=96, d_model=32, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=16, d_ff=48,
        rope_scaling=Yarn(factor=40, original_positions=32),
        latent=LatentAttention(kv_rank=24, q_rank=16, rope_dim=8, v_dim=12),
        experts=Experts(n=16, per_token=4, d_ff=24, groups=4, groups_per_token=2, scale=2.5, dense_layers=1),
        max_positions=1280),
}
