"""Where each parameter lies in a Hugging Face checkpoint, and how it is turned: reading and writing follow these tables.

Projections lie there as [out, in] with the heads flattened; ours are [in, heads, K] and so on.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from r1jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor on disk.

    Attributes:
        name: on disk, behind the layer's prefix; '{e}' stands for the number of an expert.
        parts: the parameters that it holds, as paths in `transformer.Layers` or `Params`. Where there are two, each head's
            outputs are those of the first, then those of the second.
        inputs: how many of a parameter's leading dimensions (without L and E) are inputs; None where it lies as it is.
        rotary: whether the last rope_dim outputs are rotated in pairs (2i, 2i + 1), where ours have (i, i + P/2).
    """

    name: str
    parts: tuple[str, ...]
    inputs: int | None = None
    rotary: bool = False

    def read(self, x: np.ndarray, shapes: Sequence[tuple[int, ...]], cfg: ModelConfig) -> list[np.ndarray]:
        """Turns a tensor into the parameters it holds, of these shapes."""
        widths = [shape[-1] for shape in shapes]
        x = (x.T if self.inputs else x).reshape(*shapes[0][:-1], sum(widths))
        if self.rotary:
            plain = sum(widths) - cfg.rope_dim
            x = np.concatenate([x[..., :plain], x[..., plain::2], x[..., plain + 1::2]], axis=-1)
        return np.split(x, np.cumsum(widths)[:-1], axis=-1)

    def write(self, parts: Sequence[np.ndarray], cfg: ModelConfig) -> np.ndarray:
        """The inverse of `read`."""
        shape = self.shape([part.shape for part in parts])
        x = np.concatenate(parts, axis=-1)
        if self.rotary:
            pairs = x[..., -cfg.rope_dim:].reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2)
            x = np.concatenate([x[..., :-cfg.rope_dim], pairs.reshape(*x.shape[:-1], -1)], axis=-1)
        return x.reshape(shape[::-1]).T if self.inputs else x.reshape(shape)

    def shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """What shape the tensor has on disk, given those of its parameters."""
        whole = *shapes[0][:-1], sum(shape[-1] for shape in shapes)
        if self.inputs is None:
            return whole
        outputs = math.prod(whole[self.inputs:])
        return (outputs, math.prod(whole[:self.inputs])) if self.inputs else (outputs,)


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor of one model: its full name on disk, and where in our stacked parameters its parts belong."""

    name: str
    entry: Entry
    stack: str  # 'layers.', 'dense_layers.', 'mtp.layer.' or '' for what is not stacked
    index: tuple[int, ...]  # the layer in that stack, and the expert


TOP = (
    Entry('model.embed_tokens.weight', ('embed_VD',)),
    Entry('model.norm.weight', ('final_norm_D',)),
)
HEAD, SCORE = Entry('lm_head.weight', ('head_DV',), inputs=1), Entry('score.weight', ('head_DV',), inputs=1)
NORMS = (
    Entry('input_layernorm.weight', ('attn_norm',)),
    Entry('post_attention_layernorm.weight', ('mlp_norm',)),
)
ATTENTION = (
    Entry('self_attn.q_proj.weight', ('attn.wq',), inputs=1),
    Entry('self_attn.k_proj.weight', ('attn.wk',), inputs=1),
    Entry('self_attn.v_proj.weight', ('attn.wv',), inputs=1),
    Entry('self_attn.o_proj.weight', ('attn.wo',), inputs=2),
)
BIASES = tuple(Entry(f'self_attn.{name}_proj.bias', (f'attn.b{name}',), inputs=0) for name in 'qkv')
QK_NORMS = tuple(Entry(f'self_attn.{name}_norm.weight', (f'attn.{name}_norm',)) for name in 'qk')
LATENT = (
    Entry('self_attn.kv_a_proj_with_mqa.weight', ('attn.wkv_down',), inputs=1, rotary=True),
    Entry('self_attn.kv_a_layernorm.weight', ('attn.kv_norm',)),
    Entry('self_attn.kv_b_proj.weight', ('attn.wk', 'attn.wv'), inputs=1),
    Entry('self_attn.o_proj.weight', ('attn.wo',), inputs=2),
)
LATENT_QUERIES = (
    Entry('self_attn.q_a_proj.weight', ('attn.wq_down',), inputs=1),
    Entry('self_attn.q_a_layernorm.weight', ('attn.q_norm',)),
    Entry('self_attn.q_b_proj.weight', ('attn.wq',), inputs=1, rotary=True),
)
PLAIN_QUERIES = (Entry('self_attn.q_proj.weight', ('attn.wq',), inputs=1, rotary=True),)
FEED_FORWARD = tuple(Entry(f'mlp.{name}_proj.weight', (f'mlp.w_{name}',), inputs=1) for name in ('gate', 'up', 'down'))
MIXTURE = (
    Entry('mlp.gate.weight', ('mlp.router',), inputs=1),
    Entry('mlp.gate.e_score_correction_bias', ('mlp.balance',)),
    *(Entry(f'mlp.experts.{{e}}.{name}_proj.weight', (f'mlp.w_{name}',), inputs=1) for name in ('gate', 'up', 'down')),
)
SHARED = tuple(
    Entry(f'mlp.shared_experts.{name}_proj.weight', (f'mlp.shared.w_{name}',), inputs=1) for name in ('gate', 'up', 'down'))
# Of the module that predicts the token after the next one, which lies there as one more layer; it has no head of its own.
SECOND_TOKEN = (
    Entry('enorm.weight', ('token_norm',)),
    Entry('hnorm.weight', ('hidden_norm',)),
    Entry('eh_proj.weight', ('join',), inputs=2),
    Entry('shared_head.norm.weight', ('norm',)),
)


def places(cfg: ModelConfig) -> Iterator[Place]:
    """Yields every tensor of a model's checkpoint."""
    head = () if cfg.tie_embeddings and not cfg.scalar_head else (SCORE if cfg.scalar_head else HEAD,)
    for entry in (*TOP, *head):
        yield Place(entry.name, entry, '', ())
    n_dense = cfg.experts.dense_layers if cfg.experts else 0
    for layer in range(cfg.n_layers):
        if layer < n_dense:
            yield from _layer_places(cfg, layer, 'dense_layers.', layer, with_experts=False)
        else:
            yield from _layer_places(cfg, layer, 'layers.', layer - n_dense, with_experts=cfg.experts is not None)
    if cfg.mtp:
        for entry in SECOND_TOKEN:
            yield Place(f'model.layers.{cfg.n_layers}.{entry.name}', entry, 'mtp.', ())
        yield from _layer_places(cfg, cfg.n_layers, 'mtp.layer.', 0, with_experts=cfg.experts is not None)


def copies(cfg: ModelConfig) -> list[Place]:
    """Returns the tensors under whose names files may repeat the embedding or the head (`entry.name`)."""
    return ([Place(HEAD.name, TOP[0], '', ())] if cfg.tie_embeddings else []) + second_token_copies(cfg)


def second_token_copies(cfg: ModelConfig) -> list[Place]:
    """Returns those of them that the module which predicts the token after the next one has in released checkpoints."""
    layer, head = f'model.layers.{cfg.n_layers}', TOP[0] if cfg.tie_embeddings else HEAD
    return [
        Place(f'{layer}.embed_tokens.weight', TOP[0], '', ()),
        Place(f'{layer}.shared_head.head.weight', head, '', ())] if cfg.mtp else []


def _layer_places(cfg: ModelConfig, number: int, stack: str, index: int, *, with_experts: bool) -> Iterator[Place]:
    for entry in _layer_entries(cfg, with_experts=with_experts):
        if '{e}' in entry.name:
            for e in range(cfg.experts.n):
                yield Place(f'model.layers.{number}.{entry.name.format(e=e)}', entry, stack, (index, e))
        else:
            yield Place(f'model.layers.{number}.{entry.name}', entry, stack, (index,))


def _layer_entries(cfg: ModelConfig, *, with_experts: bool) -> tuple[Entry, ...]:
    if cfg.latent:
        attention = LATENT + (LATENT_QUERIES if cfg.latent.q_rank else PLAIN_QUERIES)
    else:
        attention = ATTENTION + (BIASES if cfg.qkv_bias else ()) + (QK_NORMS if cfg.qk_norm else ())
    if not with_experts:
        return NORMS + attention + FEED_FORWARD
    return NORMS + attention + MIXTURE + (SHARED if cfg.experts.shared else ())
