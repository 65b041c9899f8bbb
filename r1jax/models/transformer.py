"""The model as a pure function of its parameters.

Everything about a parameter stands in one place, `abstract`: shape, dtype, logical axes and initialiser. Initialising,
sharding, importing and exporting derive from it. Layers are stacked on a leading axis L.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.errors import UserError
from r1jax.models import attention, experts, latent
from r1jax.models.cache import Cache, LayerCache
from r1jax.models.config import ModelConfig
from r1jax.models.layers import FeedForward, feed_forward, feed_forward_specs, rms_norm
from r1jax.models.rope import rope
from r1jax.models.spec import ArraySpec
from r1jax.parallel.rules import Sharding


@struct.dataclass
class Layers:
    """Weights of layers of one kind, stacked on the leading axis L."""

    attn_norm: jax.Array  # [L, D]
    attn: attention.Attention | latent.Latent
    mlp_norm: jax.Array  # [L, D]
    mlp: FeedForward | experts.Mixture


@struct.dataclass
class SecondToken:
    """Weights of the module that predicts the token after the next one, see `mtp`."""

    token_norm: jax.Array  # [D]
    hidden_norm: jax.Array  # [D]
    join: jax.Array  # [2, D, D]: of the next token's embedding, of the hidden state
    layer: Layers  # L = 1
    norm: jax.Array  # [D]


@struct.dataclass
class Params:
    """The whole model. `head_DV` is None when the head is the transposed embedding, and [D, 1] in a reward model.

    `dense_layers` are the first layers of a model of experts, which have none; elsewhere None. So is `mtp` without that
    module.
    """

    embed_VD: jax.Array
    layers: Layers
    final_norm_D: jax.Array
    head_DV: jax.Array | None = None
    dense_layers: Layers | None = None
    mtp: SecondToken | None = None


# The stream between layers. What tensor parallelism works on together is brought together within a layer alone (sequence
# parallelism, arXiv 2205.05198), so that the layers' inputs, which training keeps, are split over all devices.
RESIDUAL = ('batch', 'time', None)

# Of a layer with experts: the load of each, [E], and `experts.imbalance` [B, T].
Balance = tuple[jax.Array, jax.Array]


@struct.dataclass
class Output:
    """What `forward` returns: the normalised hidden states [B, T, D], and beside them what there is of the following.

    cache: given a cache, that cache with the new token in it; asked for one (`prefill`), keys and values of the T tokens.
    load_LE: how many tokens each expert had, in every layer that has experts (int32, padding left out).
    imbalance_LBT: `experts.imbalance` of each of these layers.
    """

    hidden_BTD: jax.Array
    cache: Cache | None = None
    load_LE: jax.Array | None = None
    imbalance_LBT: jax.Array | None = None


def abstract(cfg: ModelConfig) -> Params:
    """Returns Params whose leaves are ArraySpecs: the one description of every parameter."""
    D, V = cfg.d_model, cfg.vocab_size
    n_dense = cfg.experts.dense_layers if cfg.experts else 0
    return Params(
        embed_VD=ArraySpec((V, D), ('vocab', 'embed'), fan_in=D),
        layers=_layers(cfg, cfg.n_layers - n_dense, with_experts=cfg.experts is not None),
        final_norm_D=ArraySpec((D,), ('norm',), 'ones', exact=True),
        head_DV=_head(cfg),
        dense_layers=_layers(cfg, n_dense, with_experts=False) if n_dense else None,
        mtp=_second_token(cfg) if cfg.mtp else None)


def _second_token(cfg: ModelConfig) -> SecondToken:
    def norm() -> ArraySpec:
        return ArraySpec((cfg.d_model,), ('norm',), 'ones', exact=True)

    return SecondToken(
        token_norm=norm(),
        hidden_norm=norm(),
        join=ArraySpec((2, cfg.d_model, cfg.d_model), (None, 'embed', None), fan_in=2 * cfg.d_model),
        layer=_layers(cfg, 1, with_experts=cfg.experts is not None),
        norm=norm())


def _layers(cfg: ModelConfig, L: int, *, with_experts: bool) -> Layers:
    # Projections that write into the residual stream start smaller with depth (GPT-2), so that its variance does not grow.
    into_residual = 2 * cfg.n_layers
    return Layers(
        attn_norm=ArraySpec((L, cfg.d_model), ('layers', 'norm'), 'ones', exact=True),
        attn=(latent if cfg.latent else attention).specs(cfg, L, into_residual),
        mlp_norm=ArraySpec((L, cfg.d_model), ('layers', 'norm'), 'ones', exact=True),
        mlp=experts.specs(cfg, L, into_residual) if with_experts else feed_forward_specs(
            L, cfg.d_model, cfg.d_ff, into_residual))


def _head(cfg: ModelConfig) -> ArraySpec | None:
    if cfg.scalar_head:
        # Whole on every device, as the scale of a norm: a vector is not worth gathering. Its variance of 1 / D is what arXiv
        # 2009.01325 starts from, but for D + 1 there: scores of normalised hidden states begin with about unit variance.
        return ArraySpec((cfg.d_model, 1), ('norm', None), fan_in=cfg.d_model, exact=True)
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
    cfg = dataclasses.replace(cfg, scalar_head=True, mtp=0)
    return params.replace(head_DV=_draw(_head(cfg), key), mtp=None), cfg


def shardings(cfg: ModelConfig, sharding: Sharding) -> Params:
    """Returns Params of NamedShardings. Raises UserError, naming the parameter, where a mesh axis does not divide it."""
    flat, tree = jax.tree_util.tree_flatten_with_path(abstract(cfg))
    named = [sharding.named(s.axes, s.shape, what=jax.tree_util.keystr(path).lstrip('.')) for path, s in flat]
    return jax.tree.unflatten(tree, named)


def shapes(cfg: ModelConfig, sharding: Sharding) -> Params:
    """Returns Params of ShapeDtypeStructs with shardings. Raises UserError as `shardings` does."""
    return jax.tree.map(
        lambda spec, where: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=where),
        abstract(cfg), shardings(cfg, sharding))


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
    *,
    prefill: bool = False,
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
        cache: keys and values so far, of `cache.LayerCache` a layer.
        sharding: where activations live; None leaves it to the compiler.
        prefill: whether to return the tokens' keys and values as a cache.

    Returns:
        Output with hidden states [B, T, D] and keys and values, both in `cfg.dtype`.
    """
    constrain = sharding.constrain if sharding else lambda x, axes: x
    angles = rope(positions_BT, cfg)
    x_BTD = constrain(in_use(params.embed_VD, abstract(cfg).embed_VD, cfg, sharding)[tokens_BT], RESIDUAL)
    mix = latent if cfg.latent else attention
    run = functools.partial(block, segments_BT=segments_BT, cfg=cfg, sharding=sharding)

    def layer(x_BTD: jax.Array, w: Layers) -> tuple[jax.Array, tuple[LayerCache | None, Balance | None]]:
        x_BTD, kept, balance = run(
            x_BTD, w, lambda h_BTD, attn: mix.attend(h_BTD, attn, *angles, segments_BT, cfg, sharding))
        return x_BTD, (kept if prefill else None, balance)

    def cached_layer(x_BTD: jax.Array, w: Layers, so_far: LayerCache):
        x_BTD, kept, balance = run(
            x_BTD, w, lambda h_BTD, attn: mix.attend_cached(h_BTD, attn, *angles, positions_BT, so_far, cfg))
        return x_BTD, (kept, balance)

    layer_caches: list[LayerCache] = []
    balances: list[Balance] = []
    for stack in (params.dense_layers, params.layers):
        if stack is None:
            continue
        if cfg.scan_layers and cache is None:
            x_BTD, of_layers = jax.lax.scan(rematerialised(layer, cfg, in_loop=True), x_BTD, stack)
            of_layers = _unstack(of_layers)
        else:
            of_layers = []
            for w in _unstack(stack):
                if cache is None:
                    x_BTD, of_layer = rematerialised(layer, cfg, in_loop=False)(x_BTD, w)
                else:
                    x_BTD, of_layer = cached_layer(x_BTD, w, cache.layers[len(layer_caches) + len(of_layers)])
                of_layers.append(of_layer)
        layer_caches += [kept for kept, _ in of_layers if kept is not None]
        balances += [balance for _, balance in of_layers if balance is not None]
    hidden_BTD = rms_norm(x_BTD, params.final_norm_D, cfg.norm_eps)
    return Output(
        hidden_BTD,
        Cache(tuple(layer_caches)) if layer_caches else None,
        jnp.stack([load_E for load_E, _ in balances]) if balances else None,
        jnp.stack([imbalance_BT for _, imbalance_BT in balances]) if balances else None)


def block(
    x_BTD: jax.Array,
    w: Layers,
    attend: Callable[[jax.Array, attention.Attention | latent.Latent], tuple[jax.Array, LayerCache]],
    *,
    segments_BT: jax.Array,
    cfg: ModelConfig,
    sharding: Sharding | None,
) -> tuple[jax.Array, LayerCache, Balance | None]:
    """One layer: attention and a feed-forward, each normalised before and added to the residual stream.

    Returns the new stream [B, T, D], the keys and values, and how evenly experts were used where there are experts.
    """
    move = sharding.move if sharding else lambda x, origin, axes: x
    w = in_use(w, _layers(cfg, 1, with_experts=isinstance(w.mlp, experts.Mixture)), cfg, sharding)
    whole = ('batch', None, None)
    a_BTD, kept = attend(move(rms_norm(x_BTD, w.attn_norm, cfg.norm_eps), RESIDUAL, whole), w.attn)
    x_BTD = x_BTD + move(a_BTD, whole, RESIDUAL)
    h_BTD = move(rms_norm(x_BTD, w.mlp_norm, cfg.norm_eps), RESIDUAL, whole)
    balance = None
    if isinstance(w.mlp, experts.Mixture):
        m_BTD, *balance = experts.mixture(h_BTD, w.mlp, segments_BT, cfg, sharding)
    else:
        m_BTD = feed_forward(h_BTD, w.mlp)
    return x_BTD + move(m_BTD, whole, RESIDUAL), kept, balance and tuple(balance)


def in_use(weights, specs, cfg: ModelConfig, sharding: Sharding | None):
    """Weights as a layer computes with them: in `cfg.dtype` unless they are exact, and brought together over fsdp, which
    cuts their 'embed' dimension.

    Said here because the compiler would do otherwise: it multiplies by the pieces of a matrix one after the other, as they
    come in, and reads and writes all activations as often (32 pieces of Qwen 32B: six times the traffic of the whole step,
    and sums of 32 roundings). Of embeddings it would make every device look up all tokens.

    Args:
        specs: a tree like `weights` of their ArraySpecs; a leading 'layers' dimension is left out of the weights of one.
    """

    def one(spec: ArraySpec, x: jax.Array) -> jax.Array:
        # Cast where it lies: what is gathered is half as much then.
        x = x if spec.exact else x.astype(cfg.dtype)
        axes = spec.axes[len(spec.axes) - x.ndim:]
        # Experts are brought together where tokens come to them, see `experts.spread`.
        if sharding is None or 'embed' not in axes or 'experts' in axes:
            return x
        return sharding.move(x, axes, tuple(None if axis == 'embed' else axis for axis in axes))

    return jax.tree.map(one, specs, weights)


def rematerialised(layer: Callable, cfg: ModelConfig, *, in_loop: bool) -> Callable:
    """The same function, of whose values the gradient keeps what `cfg.remat` says."""
    if cfg.remat == 'none':
        return layer
    policies = jax.checkpoint_policies
    policy = {'dots': policies.dots_with_no_batch_dims_saveable, 'full': policies.nothing_saveable}[cfg.remat]
    # Inside a loop nothing can be merged with what was computed before, so there is nothing to prevent.
    return jax.checkpoint(layer, policy=policy, prevent_cse=not in_loop)


def _unstack(tree) -> list:
    """Cuts a pytree of arrays with a leading axis into one tree for each of its places; nothing where it has no arrays."""
    lengths = {len(x) for x in jax.tree.leaves(tree)}
    return [jax.tree.map(lambda x: x[i], tree) for i in range(max(lengths, default=0))]
