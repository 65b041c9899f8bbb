"""DeepSeek-V3's mixture of experts (arXiv 2412.19437, section 2.1.2): routing, and experts spread over devices.

No token is ever dropped: tokens are sorted by expert and go through grouped matrix products of any group sizes.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from r1jax.models.config import Experts, ModelConfig
from r1jax.models.kernels import LANES, grouped_product, sum_of_rows
from r1jax.models.layers import FeedForward, feed_forward, feed_forward_specs
from r1jax.models.spec import ArraySpec
from r1jax.parallel.rules import Sharding

# Pairs of token and expert are worked on in blocks that hold this many numbers at most (1 GiB in bfloat16), and that have
# room for so many times the pairs that come to a device when experts are chosen evenly.
BLOCK_ELEMENTS = 2**29
ROOM = 2


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
    # Not looked up: the gradient of that would be a scatter.
    is_chosen_BTAE = chosen_BTA[..., None] == jnp.arange(experts.n)
    weights_BTA = jnp.where(is_chosen_BTAE, scores_BTE[..., None, :], 0).sum(-1)
    weights_BTA = weights_BTA / (weights_BTA.sum(-1, keepdims=True) + 1e-20) * experts.scale
    return weights_BTA, chosen_BTA, scores_BTE


@struct.dataclass
class _Order:
    """Pairs of token and expert, sorted by expert and then by token; those whose expert is not here come last.

    place_MA: where each pair comes.
    pair_P: the other way round, the pair at each place; filled up to whole blocks.
    starts_E, ends_E: places of the first pair of each expert, and after its last.
    """

    place_MA: jax.Array
    pair_P: jax.Array
    starts_E: jax.Array
    ends_E: jax.Array


def _sorted_pairs(expert_MA: jax.Array, E: int, block: int) -> _Order:
    """Sorts pairs by counting: sorting itself takes as long as the products on a TPU.

    Args:
        expert_MA: 0 to E - 1, or E where it is not here.
        block: rows of a block.
    """
    P = expert_MA.size
    is_PE = (expert_MA.reshape(-1, 1) == jnp.arange(E + 1)).astype(jnp.int32)
    so_far_PE = jnp.cumsum(is_PE, axis=0)
    ends_E = jnp.cumsum(so_far_PE[-1])
    starts_E = ends_E - so_far_PE[-1]
    place_P = (is_PE * (so_far_PE - 1 + starts_E)).sum(1)
    pair_P = jnp.zeros(P + -P % block, jnp.int32).at[place_P].set(jnp.arange(P, dtype=jnp.int32), unique_indices=True)
    return _Order(place_P.reshape(expert_MA.shape), pair_P, starts_E[:E], ends_E[:E])


@struct.dataclass
class _Block:
    """R sorted pairs that one grouped product works on; the last rows of the last block belong to no expert here.

    pair_R: the pair of each row.
    row_MA: the row of each pair, anything where `here_MA` is false: the pair is in another block, or not on this device.
    sizes_E: rows of each expert.
    """

    pair_R: jax.Array
    row_MA: jax.Array
    here_MA: jax.Array
    sizes_E: jax.Array


def _block(order: _Order, number: jax.Array | int, R: int) -> _Block:
    start = number * R
    row_MA = order.place_MA - start
    starts_E, ends_E = (jnp.clip(x - start, 0, R) for x in (order.starts_E, order.ends_E))
    return _Block(
        jax.lax.dynamic_slice(order.pair_P, (start,), (R,)), jnp.clip(row_MA, 0, R - 1),
        (row_MA >= 0) & (row_MA < ends_E[-1]), ends_E - starts_E)


# Tokens go to the rows of their pairs, and rows are added up to tokens: each is the gradient of the other, so that neither
# is a scatter, which would add up in whatever order it comes to its rows.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_rows(platform: str | None, x_MD: jax.Array, block: _Block) -> jax.Array:
    """Returns the token of each row, [R, D]."""
    return x_MD[block.pair_R // block.row_MA.shape[1]]


_to_rows.defvjp(
    lambda platform, x_MD, block: (_to_rows(platform, x_MD, block), block),
    lambda platform, block, d_RD: (_to_tokens(platform, d_RD, block), None))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_tokens(platform: str | None, y_RD: jax.Array, block: _Block) -> jax.Array:
    """Returns the sum of each token's rows, [M, D], added up in float32; 0 for a token without any."""
    return sum_of_rows(y_RD, block.row_MA, block.here_MA, platform)


_to_tokens.defvjp(
    lambda platform, y_RD, block: (_to_tokens(platform, y_RD, block), block),
    lambda platform, block, d_MD: (_to_rows(platform, d_MD, block), None))


@jax.custom_vjp
def _weights_of_rows(weights_MA: jax.Array, block: _Block) -> jax.Array:
    """Returns the weight of each row's pair, [R]."""
    return weights_MA.reshape(-1)[block.pair_R]


_weights_of_rows.defvjp(
    lambda weights_MA, block: (_weights_of_rows(weights_MA, block), block),
    lambda block, d_R: (jnp.where(block.here_MA, d_R[block.row_MA], 0), None))


def _apply(platform: str | None, block: _Block, x_MD, weights_MA, w_gate_EDF, w_up_EDF, w_down_EFD) -> jax.Array:
    """Returns, of each token, the sum of weight * expert(x) over its pairs in this block, [M, D]."""
    product = functools.partial(grouped_product, sizes_E=block.sizes_E, platform=platform)
    x_RD = _to_rows(platform, x_MD, block)
    hidden_RF = jax.nn.silu(product(x_RD, w_gate_EDF)) * product(x_RD, w_up_EDF)
    # Weighed before the last product, which is linear: F numbers a row, not D, and the gradient of a weight needs no more.
    weight_R = _weights_of_rows(weights_MA, block).astype(x_MD.dtype)
    return _to_tokens(platform, product(hidden_RF * weight_R[:, None], w_down_EFD), block)


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

    Gradients are written out, with their collectives: how many blocks of pairs there are is not known before, and no loop
    of unknown length has a gradient. They are computed from the same inputs again, nothing else is kept.
    """
    return _spread(_Devices(sharding), h_BTD, chosen_BTA, weights_BTA, w.w_gate, w.w_up, w.w_down)


@dataclasses.dataclass(frozen=True)
class _Devices:
    """How tokens, experts and sums of them move between the devices of a mesh; nothing moves without one."""

    sharding: Sharding | None

    @property
    def platform(self) -> str | None:
        return self.sharding and self.sharding.platform

    @property
    def ways(self) -> int:
        """Over how many devices experts are split."""
        return self.sharding.ways('experts') if self.sharding else 1

    def _axes(self, name: str) -> tuple[str, ...]:
        return dict(self.sharding.rules)[name] if self.sharding else ()

    def run(self, function: Callable, inputs: str, outputs: str) -> Callable:
        """The function on each device; 't' stands for an array of tokens, 'i' and 'o' for weights into experts and out."""
        if self.sharding is None:
            return function
        specs = {'t': self.sharding.spec(('batch', None, None)), 'i': self.sharding.spec(('experts', 'embed', 'ffw')),
                 'o': self.sharding.spec(('experts', 'ffw', 'embed'))}
        out = tuple(specs[kind] for kind in outputs)
        # The TPU's kernel does not say over which mesh axes its results vary, so that cannot be checked.
        return jax.shard_map(
            function, mesh=self.sharding.mesh, in_specs=tuple(specs[kind] for kind in inputs),
            out_specs=out if len(out) > 1 else out[0], check_vma=False)

    def first_expert(self, E: int) -> jax.Array | int:
        """The first of this device's E experts."""
        return jax.lax.axis_index(self._axes('experts')) * E if self.ways > 1 else 0

    def tokens_of_all(self, x_MD: jax.Array) -> jax.Array:
        return jax.lax.all_gather(x_MD, self._axes('experts'), tiled=True) if self.ways > 1 else x_MD

    def sums_of_own(self, x_MD: jax.Array) -> jax.Array:
        """The tokens of this device, added up over all that worked on them."""
        x_MD = jax.lax.psum_scatter(x_MD, self._axes('experts'), tiled=True) if self.ways > 1 else x_MD
        return jax.lax.psum(x_MD, self._axes('ffw')) if self._axes('ffw') else x_MD

    def whole(self, w: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Weights [E, D, F], [E, D, F], [E, F, D] whose D is split."""
        if not (axes := self._axes('embed')):
            return w
        return tuple(jax.lax.all_gather(x, axes, axis=d, tiled=True) for x, d in zip(w, (1, 1, 2), strict=True))

    def parts_of_sums(self, w: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """The gradients of `whole` weights, added up over all devices that have the same ones; split as these are."""
        axes = self._axes('embed')
        others = tuple(axis for axis in self._axes('batch') if axis not in axes + self._axes('experts'))
        if axes:
            w = tuple(jax.lax.psum_scatter(x, axes, scatter_dimension=d, tiled=True)
                      for x, d in zip(w, (1, 1, 2), strict=True))
        return tuple(jax.lax.psum(x, others) for x in w) if others else w


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(devices: _Devices, h_BTD, chosen_BTA, weights_BTA, w_gate, w_up, w_down) -> jax.Array:
    def on_device(h_BTD, chosen_BTA, weights_BTA, *w):
        w = devices.whole(w)
        R, (x_nMD, *routes) = _chunks(devices, len(w[0]), h_BTD, chosen_BTA, weights_BTA)

        def chunk(xs):
            x_MD, chosen_MA, weights_MA = map(devices.tokens_of_all, xs)
            blocks = _blocks(devices, chosen_MA, len(w[0]), R)

            def add(sum_MD: jax.Array, block: _Block) -> jax.Array:
                return sum_MD + _apply(devices.platform, block, x_MD, weights_MA, *w)

            return devices.sums_of_own(blocks(add, jnp.zeros_like(x_MD)))

        return _unchunked(jax.lax.map(chunk, (x_nMD, *routes)), h_BTD)

    return devices.run(on_device, 'tttiio', 't')(h_BTD, chosen_BTA, weights_BTA, w_gate, w_up, w_down)


def _spread_forward(devices: _Devices, *inputs):
    return _spread(devices, *inputs), inputs


def _spread_backward(devices: _Devices, inputs, d_BTD):
    def on_device(h_BTD, chosen_BTA, weights_BTA, *w_and_d):
        *w, d_BTD = w_and_d
        w = devices.whole(tuple(w))
        R, arrays = _chunks(devices, len(w[0]), h_BTD, chosen_BTA, weights_BTA, d_BTD)

        def chunk(d_w, xs):
            x_MD, chosen_MA, weights_MA, d_MD = map(devices.tokens_of_all, xs)
            blocks = _blocks(devices, chosen_MA, len(w[0]), R)

            def add(sums, block: _Block):
                _, back = jax.vjp(functools.partial(_apply, devices.platform, block), x_MD, weights_MA, *w)
                return jax.tree.map(lambda total, more: total + more.astype(total.dtype), sums, back(d_MD))

            d_x, d_weights, *d_w = blocks(add, (jnp.zeros_like(x_MD), jnp.zeros_like(weights_MA), *d_w))
            return d_w, (devices.sums_of_own(d_x), devices.sums_of_own(d_weights))

        # Over all chunks and blocks, in float32.
        d_w, of_tokens = jax.lax.scan(chunk, [jnp.zeros(x.shape, jnp.float32) for x in w], arrays)
        d_h, d_weights = (_unchunked(d, like) for d, like in zip(of_tokens, (h_BTD, weights_BTA), strict=True))
        return d_h, d_weights, *devices.parts_of_sums(tuple(d.astype(x.dtype) for d, x in zip(d_w, w, strict=True)))

    d_h, d_weights, *d_w = devices.run(on_device, 'tttiiot', 'ttiio')(*inputs, d_BTD)
    return d_h, None, d_weights, *d_w


_spread.defvjp(_spread_forward, _spread_backward)


def _chunks(
    devices: _Devices, E: int, h_BTD: jax.Array, chosen_BTA: jax.Array, *more_BTX: jax.Array
) -> tuple[int, tuple[jax.Array, ...]]:
    """Cuts a device's tokens into chunks, the last of them filled up with zeros that choose no expert.

    Returns:
        R, rows of a block: `ROOM` times the pairs that a device has of a chunk if experts are chosen evenly, but no more
        than it can have at all. A block holds `BLOCK_ELEMENTS` numbers at most, which is what limits a chunk.
        The arrays, [n, M, X].
    """
    (B, T, D), A = h_BTD.shape, chosen_BTA.shape[-1]
    M, rows_of_token = B * T, min(devices.ways * min(A, E), ROOM * A)
    n = -(-M // max(1, BLOCK_ELEMENTS // (rows_of_token * D)))
    size = -(-M // n)
    if n > 1:
        # Whole tiles: XLA takes ten times as long to compile for a TPU where devices' tokens begin in the middle of one.
        size += -size % LANES
        n = -(-M // size)

    def cut(x_BTX: jax.Array, filling: int = 0) -> jax.Array:
        filled = jnp.pad(x_BTX.reshape(M, -1), ((0, -M % size), (0, 0)), constant_values=filling)
        return filled.reshape(n, size, x_BTX.shape[-1])

    rows = size * rows_of_token
    return rows + -rows % LANES, (cut(h_BTD), cut(chosen_BTA, -1), *map(cut, more_BTX))


def _unchunked(x_nMX: jax.Array, like_BTX: jax.Array) -> jax.Array:
    B, T, X = like_BTX.shape
    return x_nMX.reshape(-1, X)[:B * T].reshape(B, T, X)


def _blocks(devices: _Devices, chosen_MA: jax.Array, E: int, R: int) -> Callable:
    """Returns fold(function, start), which is function(function(start, block 0), block 1) and so on over the blocks of R
    sorted pairs that there are: one in all likelihood, and more where experts are chosen unevenly. No pair is dropped.
    """
    expert_MA = chosen_MA - devices.first_expert(E)
    expert_MA = jnp.where((expert_MA >= 0) & (expert_MA < E), expert_MA, E)
    order = _sorted_pairs(expert_MA, E, R)

    def fold(function: Callable, start):
        if chosen_MA.shape[0] * min(chosen_MA.shape[1], E) <= R:
            return function(start, _block(order, 0, R))
        n = -(-order.ends_E[-1] // R)
        return jax.lax.fori_loop(0, n, lambda i, so_far: function(so_far, _block(order, i, R)), start)

    return fold
