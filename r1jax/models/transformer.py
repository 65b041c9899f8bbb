"""The model as a pure function of its parameters.

Everything about a parameter stands in one place, `abstract`: shape, dtype, logical axes and initialiser. Initialising,
sharding, importing and exporting derive from it. Layers are stacked on a leading axis L.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.errors import UserError
from r1jax.models.attention import attend, attend_cached
from r1jax.models.cache import Cache
from r1jax.models.config import ModelConfig
from r1jax.models.layers import rms_norm, rope, swiglu
from r1jax.parallel.rules import Sharding


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """One parameter before it exists: the axes name its dimensions for `parallel.rules`."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: str = 'normal'  # 'normal' (fan-in scaled), 'ones' or 'zeros'
    fan_in: int = 1
    dtype: str = 'float32'


@struct.dataclass
class Layers:
    """Weights of all layers, stacked on the leading axis L. Biases are None where the family has none."""

    attn_norm: jax.Array  # [L, D]
    wq: jax.Array  # [L, D, H, K]
    wk: jax.Array  # [L, D, N, K]
    wv: jax.Array  # [L, D, N, K]
    wo: jax.Array  # [L, H, K, D]
    mlp_norm: jax.Array  # [L, D]
    w_gate: jax.Array  # [L, D, F]
    w_up: jax.Array  # [L, D, F]
    w_down: jax.Array  # [L, F, D]
    bq: jax.Array | None = None  # [L, H, K]
    bk: jax.Array | None = None  # [L, N, K]
    bv: jax.Array | None = None  # [L, N, K]


@struct.dataclass
class Params:
    """The whole model. `head_DV` is None when the head is the transposed embedding, and [D, 1] in a reward model."""

    embed_VD: jax.Array
    layers: Layers
    final_norm_D: jax.Array
    head_DV: jax.Array | None = None


@struct.dataclass
class Output:
    """What `forward` returns: the normalised hidden states [B, T, D], and the keys and values of every layer.

    Given a cache, that cache with the new token in it; without one, the T tokens' own keys and values: a prefill.
    """

    hidden_BTD: jax.Array
    cache: Cache


def abstract(cfg: ModelConfig) -> Params:
    """Returns Params whose leaves are ArraySpecs: the one description of every parameter."""
    L, D, H, N, K, F, V = (
        cfg.n_layers, cfg.d_model, cfg.n_heads, cfg.n_kv_heads, cfg.head_dim, cfg.d_ff, cfg.vocab_size)
    # Projections that write into the residual stream start smaller with depth (GPT-2), so that its variance does not grow.
    into_residual = 2 * L

    def bias(heads: int, axis: str) -> ArraySpec | None:
        return ArraySpec((L, heads, K), ('layers', axis, None), 'zeros') if cfg.qkv_bias else None

    layers = Layers(
        attn_norm=ArraySpec((L, D), ('layers', 'norm'), 'ones'),
        wq=ArraySpec((L, D, H, K), ('layers', 'embed', 'heads', None), fan_in=D),
        wk=ArraySpec((L, D, N, K), ('layers', 'embed', 'kv_heads', None), fan_in=D),
        wv=ArraySpec((L, D, N, K), ('layers', 'embed', 'kv_heads', None), fan_in=D),
        wo=ArraySpec((L, H, K, D), ('layers', 'heads', None, 'embed'), fan_in=H * K * into_residual),
        mlp_norm=ArraySpec((L, D), ('layers', 'norm'), 'ones'),
        w_gate=ArraySpec((L, D, F), ('layers', 'embed', 'ffw'), fan_in=D),
        w_up=ArraySpec((L, D, F), ('layers', 'embed', 'ffw'), fan_in=D),
        w_down=ArraySpec((L, F, D), ('layers', 'ffw', 'embed'), fan_in=F * into_residual),
        bq=bias(H, 'heads'), bk=bias(N, 'kv_heads'), bv=bias(N, 'kv_heads'))
    return Params(
        embed_VD=ArraySpec((V, D), ('vocab', 'embed'), fan_in=D),
        layers=layers,
        final_norm_D=ArraySpec((D,), ('norm',), 'ones'),
        head_DV=_head(cfg))


def _head(cfg: ModelConfig) -> ArraySpec | None:
    if cfg.scalar_head:
        # Whole on every device, as the scale of a norm: a vector is not worth gathering. Its variance of 1 / D is what arXiv
        # 2009.01325 starts from, but for D + 1 there: scores of normalised hidden states begin with about unit variance.
        return ArraySpec((cfg.d_model, 1), ('norm', None), fan_in=cfg.d_model)
    if cfg.tie_embeddings:
        return None
    return ArraySpec((cfg.d_model, cfg.vocab_size), ('embed', 'vocab'), fan_in=cfg.d_model)


def init(key: jax.Array, cfg: ModelConfig) -> Params:
    """Draws float32 parameters from `key`: normal with standard deviation fan_in^-1/2, norms at 1, biases at 0."""
    specs, tree = jax.tree.flatten(abstract(cfg))
    keys = jax.random.split(key, len(specs))
    return jax.tree.unflatten(tree, [_draw(s, k) for s, k in zip(specs, keys, strict=True)])


def _draw(spec: ArraySpec, key: jax.Array) -> jax.Array:
    if spec.init == 'normal':
        return jax.random.normal(key, spec.shape, spec.dtype) / math.sqrt(spec.fan_in)
    return {'ones': jnp.ones, 'zeros': jnp.zeros}[spec.init](spec.shape, spec.dtype)


def with_scalar_head(params: Params, cfg: ModelConfig, key: jax.Array) -> tuple[Params, ModelConfig]:
    """Turns a policy into an untrained reward model: a score drawn from `key` takes the place of the output projection."""
    cfg = dataclasses.replace(cfg, scalar_head=True)
    return params.replace(head_DV=_draw(_head(cfg), key)), cfg


def shardings(cfg: ModelConfig, sharding: Sharding) -> Params:
    """Returns Params of NamedShardings. Raises UserError, naming the parameter, where a mesh axis does not divide it."""
    flat, tree = jax.tree_util.tree_flatten_with_path(abstract(cfg))
    named = [sharding.named(s.axes, s.shape, what=jax.tree_util.keystr(path).lstrip('.')) for path, s in flat]
    return jax.tree.unflatten(tree, named)


def n_params(cfg: ModelConfig) -> int:
    return sum(math.prod(s.shape) for s in jax.tree.leaves(abstract(cfg)))


def head(params: Params) -> jax.Array:
    """Returns the output projection [D, V], the transposed embedding where it is tied.

    Raises:
        UserError: for a reward model, which has none.
    """
    if params.head_DV is not None and params.head_DV.shape[1] == 1:
        raise UserError('a reward model scores text and cannot write it: it has a scalar head and no output projection')
    return params.embed_VD.T if params.head_DV is None else params.head_DV


def scores(params: Params, hidden_BTD: jax.Array) -> jax.Array:
    """Returns the reward [B, T] (float32) that a reward model reads at each position of its final hidden states."""
    return jnp.einsum('btd,d->bt', hidden_BTD.astype(jnp.float32), params.head_DV[:, 0].astype(jnp.float32))


def forward(
    params: Params,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array,
    cfg: ModelConfig,
    cache: Cache | None = None,
    sharding: Sharding | None = None,
) -> Output:
    """Runs the model up to its last norm; `head(params)` and `learning.likelihood` turn that into log-probabilities,
    `scores` into rewards.

    Without a cache, token t attends to the tokens up to t of its own segment (packed sequences never see each other;
    segment 0 is padding). With a cache (T = 1), row b's token is written at `positions_BT[b, 0]` and attends to
    everything the row has written up to there.

    Args:
        tokens_BT: int32 token ids.
        positions_BT: int32 position of each token in its own sequence.
        segments_BT: int32 segment ids; ignored with a cache.
        cache: keys and values so far, [S, N, T, K] a layer.
        sharding: where activations live; None leaves it to the compiler.

    Returns:
        Output with hidden states [B, T, D] and keys and values, both in `cfg.dtype`.
    """
    dtype = jnp.dtype(cfg.dtype)
    constrain = sharding.constrain if sharding else lambda x, axes: x
    cos_BTK, sin_BTK = rope(positions_BT, cfg)
    # Gathered over fsdp before the look-up: the compiler would otherwise replicate what comes out of it on all devices.
    embed_VD = constrain(params.embed_VD.astype(dtype), ('vocab', None))
    x_BTD = constrain(embed_VD[tokens_BT], ('batch', None, None))
    new_cache = []
    for layer in range(cfg.n_layers):
        w: Layers = jax.tree.map(lambda a: a[layer], params.layers)
        h_BTD = rms_norm(x_BTD, w.attn_norm, cfg.norm_eps)
        if cache is None:
            a_BTD, layer_cache = attend(h_BTD, w, cos_BTK, sin_BTK, segments_BT, cfg)
        else:
            a_BTD, layer_cache = attend_cached(h_BTD, w, cos_BTK, sin_BTK, positions_BT, cache.layers[layer], cfg)
        new_cache.append(layer_cache)
        x_BTD = constrain(x_BTD + a_BTD, ('batch', None, None))
        x_BTD = x_BTD + swiglu(rms_norm(x_BTD, w.mlp_norm, cfg.norm_eps), w.w_gate, w.w_up, w.w_down)
        x_BTD = constrain(x_BTD, ('batch', None, None))
    hidden_BTD = rms_norm(x_BTD, params.final_norm_D, cfg.norm_eps)
    return Output(hidden_BTD, Cache(tuple(new_cache)))
