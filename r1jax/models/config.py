"""What a transformer looks like: a frozen, hashable description. The shapes that ship by name are in presets.py."""

import dataclasses
import math
from typing import Literal

from r1jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LlamaRope:
    """How Llama 3.1 and later stretch rotary positions: the formula of the released code of arXiv 2407.21783.

    With w the wavelength of a pair in tokens and o = original_positions: pairs of w < o / high keep their frequency, those
    of w > o / low turn `factor` times slower, and between the two the frequency is interpolated in o / w.
    """

    factor: float
    low: float = 1.0
    high: float = 4.0
    original_positions: int = 8192

    def __post_init__(self):
        if not (self.factor >= 1 and 0 < self.low < self.high and self.original_positions > 0):
            raise UserError(f'model: {self} needs factor >= 1, 0 < low < high and original_positions > 0')


@dataclasses.dataclass(frozen=True)
class Yarn:
    """How DeepSeek-V3 stretches rotary positions: YaRN (arXiv 2309.00071, section 3; DeepSeek-V3, arXiv 2412.19437, section
    4.3).

    Pairs that turn more than `beta_fast` times within original_positions keep their frequency, those that turn less than
    `beta_slow` times turn `factor` times slower, with a linear ramp over pairs between. Attention is sharpened beside: see
    `magnitude` and `softmax_scale`.
    """

    factor: float
    original_positions: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0

    def __post_init__(self):
        if not (self.factor >= 1 and self.beta_fast > self.beta_slow > 0 and self.original_positions > 0):
            raise UserError(f'model: {self} needs factor >= 1, beta_fast > beta_slow > 0 and original_positions > 0')

    def _m(self, mscale: float) -> float:
        return 0.1 * mscale * math.log(self.factor) + 1.0

    @property
    def magnitude(self) -> float:
        """What the rotated part of queries and keys is multiplied by (arXiv 2309.00071, eq. 22)."""
        return self._m(self.mscale) / self._m(self.mscale_all_dim)

    @property
    def softmax_scale(self) -> float:
        """What the scores are multiplied by beside K^-1/2. Squared: once for the queries, once for the keys."""
        return self._m(self.mscale_all_dim) ** 2


@dataclasses.dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; DeepSeek-V3, arXiv 2412.19437, eq. 1-11).

    Keys and values of all heads are made of one latent vector a token, beside one rotary key that all heads share: this is
    all that a cache holds.

    Attributes:
        kv_rank: R, width of that latent vector.
        q_rank: width of the latent vector that queries are made of; None makes them of the hidden state.
        rope_dim: P, the rotary part of a query's and of the shared key's dimensions; even.
        v_dim: value dimensions of a head. The query's and key's other part is `ModelConfig.head_dim`.
    """

    kv_rank: int
    q_rank: int | None
    rope_dim: int
    v_dim: int

    def __post_init__(self):
        if self.rope_dim % 2:
            raise UserError(f'model: latent.rope_dim={self.rope_dim} must be even, because rotary positions turn pairs')


@dataclasses.dataclass(frozen=True)
class Experts:
    """A mixture of experts in the feed-forward of all but the first layers (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).

    Attributes:
        n: E, routed experts.
        per_token: how many of them each token is sent to.
        d_ff: width of an expert.
        shared: experts that see every token, kept as one feed-forward of shared * d_ff.
        groups, groups_per_token: experts lie in groups, and a token may only use those of its best groups (node-limited
            routing), where a group's score is the sum of its two best experts.
        scale: factor of the routed output; the weights of a token's experts are its scores, normalised to 1 before it.
        dense_layers: layers at the start that have a feed-forward of `ModelConfig.d_ff` instead.
    """

    n: int
    per_token: int
    d_ff: int
    shared: int = 1
    groups: int = 1
    groups_per_token: int = 1
    scale: float = 1.0
    dense_layers: int = 0

    def __post_init__(self):
        if self.n % self.groups or self.n // self.groups < 2:
            raise UserError(f'model: experts.n={self.n} must fall into groups={self.groups} of two at least')
        if not 1 <= self.groups_per_token <= self.groups:
            raise UserError(f'model: experts.groups_per_token={self.groups_per_token} must be 1 to groups={self.groups}')
        reach = self.groups_per_token * (self.n // self.groups)
        if not 1 <= self.per_token <= reach:
            raise UserError(
                f'model: experts.per_token={self.per_token} must be 1 to {reach}, the experts of the chosen groups')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder with rotary positions, RMSNorm and SwiGLU feed-forwards: Qwen2.5, Qwen3, Llama 3, SmolLM2, DeepSeek-V3.

    Fields choose what a model is made of, never its name.

    Attributes:
        vocab_size: V, rows of the embedding (at least the tokenizer's vocabulary).
        d_model: D, width of the residual stream.
        n_layers: L.
        n_heads: H, query heads.
        n_kv_heads: N, key and value heads; divides H. With latent attention every head has its own: N = H.
        head_dim: K; even, because rotary positions turn pairs.
        d_ff: F, width of the feed-forward.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how rotary positions are stretched beyond the pretrained context; None does not.
        norm_eps: epsilon of RMSNorm.
        qkv_bias: whether q, k and v have biases (Qwen2: yes, Llama: no).
        qk_norm: whether each head's queries and keys are normalised before they are rotated (Qwen3).
        latent: latent attention instead of grouped-query attention.
        experts: a mixture of experts in the feed-forwards.
        mtp: modules that predict one more token each (DeepSeek-V3, section 2.2): 0 or 1.
        tie_embeddings: whether the head is the transposed embedding.
        scalar_head: whether a score stands in the head's place: a reward model, which reads and cannot write.
        max_positions: longest sequence that the model was made for.
        dtype: of activations and of weights as used ('float32' or 'bfloat16'); norms, softmax, logits stay float32.
        scan_layers: whether one program for a layer is run in a loop, which compiles in a time that does not grow with L, or
            every layer has its own. Decoding always has its own: each layer's cache is then updated in place.
        remat: what training keeps of a layer for its gradient: 'none' of it is computed again, or all but the results of
            its matrix products is ('dots'), or all but what goes in ('full').
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0
    rope_scaling: LlamaRope | Yarn | None = None
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = False
    latent: LatentAttention | None = None
    experts: Experts | None = None
    mtp: int = 0
    tie_embeddings: bool = False
    scalar_head: bool = False
    max_positions: int = 4096
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    scan_layers: bool = False
    remat: Literal['none', 'dots', 'full'] = 'none'

    def __post_init__(self):
        if self.n_heads % self.n_kv_heads:
            raise UserError(f'model: n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}')
        if self.head_dim % 2:
            raise UserError(f'model: head_dim={self.head_dim} must be even, because rotary positions turn pairs')
        if self.dtype not in ('float32', 'bfloat16'):
            raise UserError(f"model: dtype='{self.dtype}' is neither 'float32' nor 'bfloat16'")
        if self.remat not in ('none', 'dots', 'full'):
            raise UserError(f"model: remat='{self.remat}' must be 'none', 'dots' or 'full'")
        if self.latent and (self.qkv_bias or self.qk_norm or self.n_kv_heads != self.n_heads):
            raise UserError('model: latent attention has no qkv_bias, no qk_norm, and n_kv_heads = n_heads')
        if self.experts and not 0 <= self.experts.dense_layers < self.n_layers:
            raise UserError(
                f'model: experts.dense_layers={self.experts.dense_layers} must be 0 to {self.n_layers - 1}, less than '
                'n_layers')
        if self.mtp not in (0, 1):
            raise UserError(f'model: mtp={self.mtp} must be 0 or 1')

    @property
    def queries_per_kv(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def rope_dim(self) -> int:
        """How many dimensions of a query are rotated."""
        return self.latent.rope_dim if self.latent else self.head_dim

    @property
    def softmax_scale(self) -> float:
        """What scores are multiplied by before the softmax."""
        width = self.head_dim + self.latent.rope_dim if self.latent else self.head_dim
        return width**-0.5 * (self.rope_scaling.softmax_scale if isinstance(self.rope_scaling, Yarn) else 1.0)


@dataclasses.dataclass(frozen=True)
class Execution:
    """How an experiment runs its models, whatever they are.

    Attributes:
        dtype: what they compute in; None leaves it to their descriptions.
        scan_layers, remat: as in `ModelConfig`. A description on disk does not say them.
    """

    dtype: Literal['float32', 'bfloat16'] | None = None
    scan_layers: bool = False
    remat: Literal['none', 'dots', 'full'] = 'none'

    def of(self, cfg: ModelConfig) -> ModelConfig:
        """Returns the description of the same model, run like this."""
        return dataclasses.replace(cfg, dtype=self.dtype or cfg.dtype, scan_layers=self.scan_layers, remat=self.remat)


AS_DESCRIBED = Execution()
