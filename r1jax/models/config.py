"""What a transformer looks like: a frozen, hashable description, and the shapes that ship by name."""

import dataclasses

from r1jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A dense decoder with grouped-query attention, rotary positions, RMSNorm and a SwiGLU feed-forward (Qwen2, Llama).

    Attributes:
        vocab_size: V, rows of the embedding (at least the tokenizer's vocabulary).
        d_model: D, width of the residual stream.
        n_layers: L.
        n_heads: H, query heads.
        n_kv_heads: N, key and value heads; divides H.
        head_dim: K; even, because rotary positions turn pairs.
        d_ff: F, width of the feed-forward.
        rope_theta: base of the rotary frequencies.
        norm_eps: epsilon of RMSNorm.
        qkv_bias: whether q, k and v have biases (Qwen2: yes, Llama: no).
        tie_embeddings: whether the head is the transposed embedding.
        scalar_head: whether a score stands in the head's place: a reward model, which reads and cannot write.
        max_positions: longest sequence that the model was made for.
        dtype: of activations and of weights as used ('float32' or 'bfloat16'); norms, softmax, logits stay float32.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    tie_embeddings: bool = False
    scalar_head: bool = False
    max_positions: int = 4096
    dtype: str = 'float32'

    def __post_init__(self):
        if self.n_heads % self.n_kv_heads:
            raise UserError(f'model: n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}')
        if self.head_dim % 2:
            raise UserError(f'model: head_dim={self.head_dim} must be even, because rotary positions turn pairs')
        if self.dtype not in ('float32', 'bfloat16'):
            raise UserError(f"model: dtype='{self.dtype}' is neither 'float32' nor 'bfloat16'")

    @property
    def queries_per_kv(self) -> int:
        return self.n_heads // self.n_kv_heads


# Shapes: config.json of each model on its public page; the table stands in the papers' facts (Qwen2.5, arXiv 2412.15115;
# Llama 3, arXiv 2407.21783). Llama 3.x is left out until its rotary scaling is there.
PRESETS: dict[str, ModelConfig] = {
    'tiny': ModelConfig(
        vocab_size=1024, d_model=192, n_layers=4, n_heads=6, n_kv_heads=2, head_dim=32, d_ff=512, tie_embeddings=True,
        max_positions=512),
    # What 'tiny' is distilled into: of the other family (biases, every query head with its own keys), less than half as big.
    'tiny-student': ModelConfig(
        vocab_size=640, d_model=128, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=32, d_ff=320, qkv_bias=True,
        max_positions=512),
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
}


def preset(name: str) -> ModelConfig:
    """Returns the named shape; raises UserError with the nearest name if there is none."""
    if name not in PRESETS:
        raise UserError(f"there is no model named '{name}'{nearest(name, PRESETS)}")
    return PRESETS[name]
