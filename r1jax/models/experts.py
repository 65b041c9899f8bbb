"""DeepSeek-V3's mixture of experts (arXiv 2412.19437, section 2.1.2): routing, and experts spread over devices.

No token is ever dropped: tokens are sorted by expert and go through grouped matrix products of any group sizes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.config import Experts, ModelConfig
from r1jax.models.kernels import grouped_product
from r1jax.models.layers import FeedForward, feed_forward, feed_forward_specs
from r1jax.models.spec import ArraySpec
from r1jax.parallel.rules import Sharding

# Pairs of token and expert are dispatched in chunks that hold this many numbers at most (1 GiB in bfloat16).
CHUNK_ELEMENTS = 2**29


@struct.dataclass
class Mixture:
    """Weights of a mixture of experts, stacked over layers."""

    router: jax.Array  # [L, D, E]
    balance: jax.Array  # [L, E], added to scores for the choice alone; no gradient reaches it, see `learning.balance`
    w_gate: jax.Array  # [L, E, D, F]
    w_up: jax.Array  # [L, E, D, F]
    w_down: jax.Array  # [L, E, F, D]
    shared: FeedForward | None


def specs(cfg: ModelConfig, L: int, into_residual: int) -> Mixture:
    """Returns a Mixture of ArraySpecs for L layers; `into_residual` as `transformer.abstract` explains it."""
    D, E, F = cfg.d_model, cfg.experts.n, cfg.experts.d_ff
    shared = feed_forward_specs(L, D, F * cfg.experts.shared, into_residual) if cfg.experts.shared else None
    return Mixture(
        router=ArraySpec((L, D, E), ('layers', 'embed', None), fan_in=D, exact=True),
        balance=ArraySpec((L, E), ('layers', None), 'zeros', exact=True),
        w_gate=ArraySpec((L, E, D, F), ('layers', 'experts', 'embed', 'ffw'), fan_in=D),
        w_up=ArraySpec((L, E, D, F), ('layers', 'experts', 'embed', 'ffw'), fan_in=D),
        w_down=ArraySpec((L, E, F, D), ('layers', 'experts', 'ffw', 'embed'), fan_in=F * into_residual),
        shared=shared)


def route(h_BTD: jax.Array, router_DE: jax.Array, balance_E: jax.Array, experts: Experts):
    """Chooses A experts a token (arXiv 2412.19437, eq. 12-16, and node-limited routing, section 2.1.2).

    Scores are sigmoids. `balance_E` is added for the choice alone; the weights are the scores without it, normalised over
    the chosen and scaled.

    Returns:
        weights [B, T, A] (float32), chosen [B, T, A] (int32) and all scores [B, T, E] (float32).
    """
    # Float32 throughout, as the released model does: the choice hangs on small differences.
    logits = jnp.einsum('btd,de->bte', h_BTD.astype(jnp.float32), router_DE.astype(jnp.float32),
                        precision=jax.lax.Precision.HIGHEST)
    scores_BTE = jax.nn.sigmoid(logits)
    biased = jax.lax.stop_gradient(scores_BTE) + balance_E
    if experts.groups_per_token < experts.groups:
        in_groups = biased.reshape(*biased.shape[:-1], experts.groups, -1)
        _, best = jax.lax.top_k(jax.lax.top_k(in_groups, 2)[0].sum(-1), experts.groups_per_token)
        allowed = (best[..., None] == jnp.arange(experts.groups)).any(-2)
        # Not 0: where all biased scores are negative, 0 would win.
        biased = jnp.where(allowed[..., None], in_groups, -jnp.inf).reshape(biased.shape)
    _, chosen_BTA = jax.lax.top_k(biased, experts.per_token)
    weights_BTA = jnp.take_along_axis(scores_BTE, chosen_BTA, axis=-1)
    weights_BTA = weights_BTA / (weights_BTA.sum(-1, keepdims=True) + 1e-20) * experts.scale
    return weights_BTA, chosen_BTA, scores_BTE


def apply_experts(
    x_MD: jax.Array, chosen_MA: jax.Array, weights_MA: jax.Array, w_gate_EDF: jax.Array, w_up_EDF: jax.Array,
    w_down_EFD: jax.Array, first: jax.Array | int = 0, platform: str | None = None,
) -> jax.Array:
    """Sums weight * expert(x) over those of a token's experts whose weights are given: `first` and the E - 1 after it.

    The pairs of token and expert are sorted by expert, so that each expert's are one block of rows of a grouped product;
    pairs whose expert is not here come last, and belong to no group.

    Args:
        platform: as `kernels.grouped_product` takes it.
    """
    M, A = chosen_MA.shape
    E, dtype = w_gate_EDF.shape[0], x_MD.dtype
    expert_MA = chosen_MA - first
    expert_MA = jnp.where((expert_MA >= 0) & (expert_MA < E), expert_MA, E)
    place_MA, sizes_E = _sorted_places(expert_MA, E)
    # A token's experts are different ones, so no more of its pairs than E can be here.
    R = M * min(A, E)
    pair_R = jnp.zeros(R, jnp.int32).at[place_MA.reshape(-1)].set(
        jnp.arange(M * A, dtype=jnp.int32), mode='drop', unique_indices=True)
    here_MA = expert_MA < E
    place_MA = jnp.minimum(place_MA, R - 1)
    product = functools.partial(grouped_product, sizes_E=sizes_E, platform=platform)
    x_RD = _dispatch(x_MD, pair_R, place_MA, here_MA)
    hidden_RF = jax.nn.silu(product(x_RD, w_gate_EDF)) * product(x_RD, w_up_EDF)
    y_MAD = _collect(product(hidden_RF, w_down_EFD), pair_R, place_MA)
    return jnp.einsum('mad,ma->md', y_MAD, jnp.where(here_MA, weights_MA, 0).astype(dtype))


def _sorted_places(expert_MA: jax.Array, E: int) -> tuple[jax.Array, jax.Array]:
    """Returns where each pair comes among all, sorted by expert and then by token [M, A], and how many each expert has [E].

    By counting: sorting itself takes as long as the products on a TPU. Pairs of expert number E, which is none, come last.
    """
    is_PE = (expert_MA.reshape(-1, 1) == jnp.arange(E + 1)).astype(jnp.int32)
    so_far_PE = jnp.cumsum(is_PE, axis=0)
    sizes_E = so_far_PE[-1]
    before_E = jnp.cumsum(sizes_E) - sizes_E
    place_P = (is_PE * (so_far_PE - 1 + before_E)).sum(1)
    return place_P.reshape(expert_MA.shape), sizes_E[:E]


# Each of the two gathers is the other's inverse, so that their gradients are gathers as well: a scatter would add up in
# whatever order it comes to its rows, and is slow on a TPU.


@jax.custom_vjp
def _dispatch(x_MD: jax.Array, pair_R: jax.Array, place_MA: jax.Array, here_MA: jax.Array) -> jax.Array:
    """Returns the tokens of sorted pairs, [R, D]."""
    return x_MD[pair_R // place_MA.shape[1]]


def _dispatch_forward(x_MD, pair_R, place_MA, here_MA):
    return _dispatch(x_MD, pair_R, place_MA, here_MA), (place_MA, here_MA)


def _dispatch_backward(kept, d_RD):
    place_MA, here_MA = kept
    d_MAD = jnp.where(here_MA[..., None], d_RD[place_MA], 0)
    return d_MAD.sum(1, dtype=jnp.float32).astype(d_RD.dtype), None, None, None


_dispatch.defvjp(_dispatch_forward, _dispatch_backward)


@jax.custom_vjp
def _collect(y_RD: jax.Array, pair_R: jax.Array, place_MA: jax.Array) -> jax.Array:
    """Returns what sorted pairs have become in the order of tokens, [M, A, D]; of pairs that are not here anything."""
    return y_RD[place_MA]


def _collect_forward(y_RD, pair_R, place_MA):
    return _collect(y_RD, pair_R, place_MA), pair_R


def _collect_backward(pair_R, d_MAD):
    return d_MAD.reshape(-1, d_MAD.shape[-1])[pair_R], None, None


_collect.defvjp(_collect_forward, _collect_backward)


def imbalance(scores_BTE: jax.Array, segments_BT: jax.Array, experts: Experts) -> jax.Array:
    """The sequence-wise balance loss (arXiv 2412.19437, eq. 17-20, without its factor), spread over tokens: [B, T], float32.

    With f_e the share of a sequence's choices that fell on expert e (by its scores alone, without balance and groups), times
    E, and p_e the mean share that e has in a token's scores, the loss of the sequence is sum_e f_e p_e: 1 where all experts
    have the same, more the less even they are. Here each token has sum_e f_e p_e of its own scores; the mean over a
    sequence's tokens is its loss. Padding has 0. No gradient flows through f.

    Args:
        segments_BT: sequences of a row, each of which lies in one piece.
    """
    _, best = jax.lax.top_k(scores_BTE, experts.per_token)
    chosen_BTE = (best[..., None] == jnp.arange(experts.n)).any(-2).astype(jnp.float32)
    so_far_BTE = jnp.cumsum(chosen_BTE, axis=1)
    index_T = jnp.arange(segments_BT.shape[1])
    new_BT = segments_BT != jnp.pad(segments_BT, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    start_BT = jax.lax.cummax(jnp.where(new_BT, index_T, 0), axis=1)
    last_BT = jnp.roll(new_BT, -1, axis=1).at[:, -1].set(True)
    end_BT = jax.lax.cummin(jnp.where(last_BT, index_T, len(index_T)), axis=1, reverse=True)

    def at(index_BT: jax.Array) -> jax.Array:
        return jnp.take_along_axis(so_far_BTE, index_BT[..., None], axis=1)

    counts_BTE = at(end_BT) - at(start_BT) + jnp.take_along_axis(chosen_BTE, start_BT[..., None], axis=1)
    length_BT = (end_BT - start_BT + 1).astype(jnp.float32)
    f_BTE = jax.lax.stop_gradient(counts_BTE * experts.n / (experts.per_token * length_BT[..., None]))
    return jnp.where(segments_BT > 0, (f_BTE * scores_BTE).sum(-1) / scores_BTE.sum(-1), 0.0)


def mixture(
    h_BTD: jax.Array, w: Mixture, segments_BT: jax.Array, cfg: ModelConfig, sharding: Sharding | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns what the experts, shared ones included, make of each token [B, T, D]; how many tokens, padding left out, went
    to each expert, [E] (int32, over all devices and hosts); and `imbalance` [B, T].
    """
    weights_BTA, chosen_BTA, scores_BTE = route(h_BTD, w.router, w.balance, cfg.experts)
    routed_BTD = spread(h_BTD, chosen_BTA, weights_BTA, w, sharding)
    sent_BTE = (chosen_BTA[..., None] == jnp.arange(cfg.experts.n)).any(-2) & (segments_BT > 0)[..., None]
    if w.shared is not None:
        routed_BTD = routed_BTD + feed_forward(h_BTD, w.shared)
    return routed_BTD, sent_BTE.sum((0, 1), dtype=jnp.int32), imbalance(scores_BTE, segments_BT, cfg.experts)


def spread(h_BTD, chosen_BTA, weights_BTA, w: Mixture, sharding: Sharding | None) -> jax.Array:
    """Expert parallelism: the tokens of all devices that experts are split over come to each of them, which adds up what its
    own experts make of them; the sums go back to where the tokens live. Without `sharding` all is on one device.
    """
    if sharding is None:
        return _in_chunks(h_BTD, chosen_BTA, weights_BTA, (w.w_gate, w.w_up, w.w_down), 1, apply_experts)
    rows = sharding.spec(('batch', None, None))
    up, down = sharding.spec(('experts', None, 'ffw')), sharding.spec(('experts', 'ffw', None))

    axes = dict(sharding.rules)['experts']

    def on_device(h_BTD, chosen_BTA, weights_BTA, *w):
        return _in_chunks(h_BTD, chosen_BTA, weights_BTA, w, sharding.ways('experts'), exchange)

    def exchange(x_MD, chosen_MA, weights_MA, w_gate, w_up, w_down):
        everyone = functools.partial(jax.lax.all_gather, axis_name=axes, tiled=True)
        first = jax.lax.axis_index(axes) * w_gate.shape[0]
        mixed = apply_experts(
            everyone(x_MD), everyone(chosen_MA), everyone(weights_MA), w_gate, w_up, w_down, first, sharding.platform)
        return jax.lax.psum(jax.lax.psum_scatter(mixed, axes, tiled=True), 'tensor')

    return jax.shard_map(
        on_device, mesh=sharding.mesh, in_specs=(rows, rows, rows, up, up, down), out_specs=rows,
        # The TPU's kernel does not say over which mesh axes its results vary.
        check_vma=sharding.platform != 'tpu')(h_BTD, chosen_BTA, weights_BTA, w.w_gate, w.w_up, w.w_down)


def _in_chunks(h_BTD, chosen_BTA, weights_BTA, w: tuple[jax.Array, ...], ways: int, apply: Callable) -> jax.Array:
    """Returns apply(x_MD, chosen_MA, weights_MA, *w) of all tokens, of so many at a time that the pairs of token and expert
    that could meet on a device, of `ways` devices' tokens, hold `CHUNK_ELEMENTS` at most.

    Every token may choose this device's experts, and none is dropped: it is that case which there must be room for.
    """
    (B, T, D), A = h_BTD.shape, chosen_BTA.shape[-1]
    M, most = B * T, max(1, CHUNK_ELEMENTS // (ways * min(A, len(w[0])) * D))
    n = -(-M // most)
    tokens = tuple(
        jnp.pad(x.reshape(M, -1), ((0, -M % n), (0, 0))).reshape(n, -1, x.shape[-1])
        for x in (h_BTD, chosen_BTA, weights_BTA))
    if n == 1:
        return apply(*(x[0] for x in tokens), *w).reshape(B, T, D)
    # The gradients of the weights add up over chunks, in float32.
    w32 = [x.astype(jnp.float32) for x in w]

    @jax.checkpoint
    def chunk(_, of_chunk):
        return None, apply(*of_chunk, *(x.astype(h_BTD.dtype) for x in w32))

    return jax.lax.scan(chunk, None, tokens)[1].reshape(-1, D)[:M].reshape(B, T, D)
