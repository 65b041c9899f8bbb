"""Jitted steps over packed rows: score, gradients of one micro-batch, update. The loop over them is the stage's."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from r1jax.learning.balance import rebalanced
from r1jax.learning.grpo import GRPOLoss, grpo_loss, merge_diagnostics
from r1jax.learning.likelihood import sft_loss, token_logprobs
from r1jax.learning.optimizer import OptimizerConfig, make_optimizer
from r1jax.learning.packing import PackedBatch
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.models.mtp import predict_second
from r1jax.parallel.rules import Sharding, put


@struct.dataclass
class TrainState:
    """Everything an optimizer step reads and writes. Parameters are float32 whatever the model computes in."""

    params: transformer.Params
    opt_state: optax.OptState
    step: jax.Array  # int32 scalar, updates made


@struct.dataclass
class MicroBatch:
    """Some packed rows, [R, T] each, with what the losses need beside the tokens. All values align with the targets."""

    tokens: jax.Array  # int32
    targets: jax.Array  # int32, the next token of the same sequence
    positions: jax.Array  # int32
    segments: jax.Array  # int32, 0 = padding
    mask: jax.Array  # float32, 1 on completion tokens, EOS included
    weights: jax.Array  # float32, share of each token in the minibatch's loss
    values: dict[str, jax.Array]  # float32: advantage, old_logp, ref_logp, sampler_logp, as far as they are known
    balance: jax.Array | None = None  # float32, share of each token in the minibatch's balance loss; None: there is none


def init_state(params: transformer.Params, cfg: ModelConfig, optimizer: OptimizerConfig, sharding: Sharding) -> TrainState:
    """Puts parameters and fresh optimizer state on the mesh."""
    placed = put(params, transformer.shardings(cfg, sharding))
    init = make_optimizer(optimizer)[0].init
    opt_state = jax.jit(init, out_shardings=_optimizer_shardings(jax.eval_shape(init, placed), cfg, sharding))(placed)
    return TrainState(placed, opt_state, put(np.zeros((), np.int32), sharding.replicated()))


def abstract_state(cfg: ModelConfig, optimizer: OptimizerConfig, sharding: Sharding) -> TrainState:
    """Returns a TrainState of ShapeDtypeStructs with shardings: that of `init_state`, before there is one."""
    params = transformer.shapes(cfg, sharding)
    opt_state = jax.eval_shape(make_optimizer(optimizer)[0].init, params)
    opt_state = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        opt_state, _optimizer_shardings(opt_state, cfg, sharding))
    return TrainState(params, opt_state, jax.ShapeDtypeStruct((), np.int32, sharding=sharding.replicated()))


def _optimizer_shardings(opt_state, cfg: ModelConfig, sharding: Sharding):
    """Shardings of optimizer state: moments lie as their parameter does and are split over data beside (ZeRO-1, arXiv
    1910.02054), by layers where the data axis divides their number. Everything else lies on every device."""
    split = sharding.with_axes(layers=('data',))
    by_path = {}
    for path, spec in jax.tree_util.tree_flatten_with_path(transformer.abstract(cfg))[0]:
        divides = spec.axes[0] == 'layers' and spec.shape[0] % sharding.mesh.shape['data'] == 0
        by_path[path] = spec.shape, (split if divides else sharding).named(
            spec.axes, spec.shape, what=jax.tree_util.keystr(path))

    def choose(path, leaf):
        for start in range(len(path)):
            shape, where = by_path.get(path[start:], (None, None))
            if shape == leaf.shape:
                return where
        return sharding.replicated()

    return jax.tree_util.tree_map_with_path(choose, opt_state)


@functools.partial(jax.jit, static_argnames=('cfg', 'sharding', 'dtype'))
def reshard(params: transformer.Params, *, cfg: ModelConfig, sharding: Sharding, dtype: str) -> transformer.Params:
    """The one place where parameters change layout, from training's to decoding's (or back), and dtype.

    What the model uses in float32 in any case stays so (`ArraySpec.exact`): rounded routers and balances would send tokens
    to other experts in the sampler than in training.
    """
    cast = jax.tree.map(lambda spec, x: x if spec.exact else x.astype(dtype), transformer.abstract(cfg), params)
    return jax.lax.with_sharding_constraint(cast, transformer.shardings(cfg, sharding))


def _forward(params, batch: MicroBatch, cfg: ModelConfig, sharding: Sharding) -> transformer.Output:
    return transformer.forward(params, batch.tokens, batch.positions, batch.segments, cfg, sharding=sharding)


def _logprobs(
    params, hidden_BTD: jax.Array, targets_BT: jax.Array, cfg: ModelConfig, sharding: Sharding, temperature: float = 1.0
):
    head_DV = transformer.head(params).astype(cfg.dtype)
    return token_logprobs(hidden_BTD, head_DV, targets_BT, temperature=temperature, sharding=sharding)


def _balanced(
    total: jax.Array, batch: MicroBatch, balance_loss: float, outputs: list[transformer.Output], sharding: Sharding
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Adds balance_loss * the balance loss to a micro-batch's loss. Returns beside it `balance_sum`, that loss without its
    coefficient, and `load_LE` of the layers of all outputs. Without experts the loss stays as it is, and nothing is told.
    """
    outputs = [out for out in outputs if out.load_LE is not None]
    if not outputs:
        return total, {}
    told = {'load_LE': sharding.constrain_replicated(jnp.concatenate([out.load_LE for out in outputs]))}
    if batch.balance is None:
        return total, told
    balance = sum((out.imbalance_LBT * batch.balance).sum() for out in outputs)
    return total + balance_loss * balance, told | {'balance_sum': balance}


def _second_tokens(params, out: transformer.Output, batch: MicroBatch, cfg: ModelConfig, sharding: Sharding):
    """What the MTP module makes of a micro-batch, and its loss, without its coefficient (arXiv 2412.19437, eq. 24).

    At index t it reads token t + 1 and predicts token t + 2 of the same sequence. As there, a token weighs in this loss what
    it weighs in the next-token loss: there are fewer terms, and none weighs more for that. The last token of a sequence,
    which none follows, is padding to the module.
    """

    def following(x_BT: jax.Array) -> jax.Array:
        return jnp.pad(x_BT[:, 1:], ((0, 0), (0, 1)))

    follows_BT = following(batch.segments) == batch.segments
    second = predict_second(
        params, out.hidden_BTD, batch.targets, batch.positions, jnp.where(follows_BT, batch.segments, 0), cfg, sharding)
    logp_BT, _ = _logprobs(params, second.hidden_BTD, following(batch.targets), cfg, sharding)
    total, sums = sft_loss(logp_BT, jnp.where(follows_BT, following(batch.weights), 0.0))
    return second, total, {f'mtp_{name}': value for name, value in sums.items()}


@functools.partial(jax.jit, static_argnames=('cfg', 'temperature', 'sharding'))
def score(
    params: transformer.Params, batch: MicroBatch, *, cfg: ModelConfig, temperature: float, sharding: Sharding
) -> jax.Array:
    """Log-probabilities [R, T] of the targets, at the sampling temperature (float32)."""
    hidden_BTD = _forward(params, batch, cfg, sharding).hidden_BTD
    return sharding.constrain_replicated(_logprobs(params, hidden_BTD, batch.targets, cfg, sharding, temperature)[0])


@functools.partial(jax.jit, static_argnames=('cfg', 'loss', 'sharding', 'balance_loss'))
def grpo_gradients(
    params: transformer.Params, batch: MicroBatch, *, cfg: ModelConfig, loss: GRPOLoss, sharding: Sharding,
    balance_loss: float = 0.0,
) -> tuple[transformer.Params, dict[str, jax.Array]]:
    """Gradients of sum(weights * per-token loss) over one micro-batch, and its diagnostics.

    With experts, balance_loss * the balance loss is added, which `loss_sum` leaves out; `balance_sum` and `load_LE` tell
    of it.
    Where `values` holds no old_logp, the batch is taken as on policy: the old log-probabilities are the current ones.
    """

    def objective(params):
        out = _forward(params, batch, cfg, sharding)
        logp, entropy = _logprobs(params, out.hidden_BTD, batch.targets, cfg, sharding, loss.temperature)
        old_logp = batch.values.get('old_logp', jax.lax.stop_gradient(logp))
        per_token, diagnostics = grpo_loss(
            logp, old_logp, batch.values.get('ref_logp'), batch.values['advantage'], batch.mask, loss,
            entropy_BT=entropy, sampler_logp_BT=batch.values.get('sampler_logp'), segments_BT=batch.segments)
        total = (per_token * batch.weights).sum()
        whole, told = _balanced(total, batch, balance_loss, [out], sharding)
        return whole, diagnostics | {'loss_sum': total} | told

    grads, diagnostics = jax.grad(objective, has_aux=True)(params)
    return jax.lax.with_sharding_constraint(grads, transformer.shardings(cfg, sharding)), diagnostics


@functools.partial(jax.jit, static_argnames=('cfg', 'sharding', 'balance_loss', 'mtp_loss'))
def sft_gradients(
    params: transformer.Params, batch: MicroBatch, *, cfg: ModelConfig, sharding: Sharding, balance_loss: float = 0.0,
    mtp_loss: float = 0.0,
) -> tuple[transformer.Params, dict[str, jax.Array]]:
    """Gradients of the weighted negative log-likelihood over one micro-batch, and its sums.

    With experts, balance_loss * the balance loss is added to it, and with mtp_loss > 0 mtp_loss * that of the MTP module
    (arXiv 2412.19437, eq. 25), whose layer is then balanced as well. `loss_sum` is the whole.
    """

    def objective(params):
        out = _forward(params, batch, cfg, sharding)
        logp, _ = _logprobs(params, out.hidden_BTD, batch.targets, cfg, sharding)
        total, sums = sft_loss(logp, batch.weights)
        outputs = [out]
        if mtp_loss:
            second, more, more_sums = _second_tokens(params, out, batch, cfg, sharding)
            total, sums = total + mtp_loss * more, sums | more_sums
            outputs.append(second)
        total, told = _balanced(total, batch, balance_loss, outputs, sharding)
        return total, sums | told

    (total, sums), grads = jax.value_and_grad(objective, has_aux=True)(params)
    grads = jax.lax.with_sharding_constraint(grads, transformer.shardings(cfg, sharding))
    return grads, sums | {'loss_sum': total}


@functools.partial(jax.jit, donate_argnames=('total',))
def _add(total, more):
    return jax.tree.map(jnp.add, total, more)


def accumulate(gradients, params: transformer.Params, batches: Iterator[MicroBatch], **static):
    """Sums `gradients(params, batch, **static)` over micro-batches: the gradient of the whole minibatch.

    One micro-batch is computed while the next one waits, and no more: each that is dispatched holds a tree of gradients.
    """
    total, diagnostics, before = None, None, None
    for batch in batches:
        grads, more = gradients(params, batch, **static)
        jax.block_until_ready(before)
        before = more
        total = grads if total is None else _add(total, grads)
        diagnostics = more if diagnostics is None else merge_diagnostics(diagnostics, more)
    return total, diagnostics


@functools.partial(jax.jit, static_argnames=('optimizer', 'cfg', 'sharding', 'bias_rate'), donate_argnames=('state',))
def apply_gradients(
    state: TrainState, grads: transformer.Params, load_LE: jax.Array | None = None, *, optimizer: OptimizerConfig,
    cfg: ModelConfig, sharding: Sharding, bias_rate: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer update. Returns the new state, and the gradient's norm (before clipping) and the learning rate.

    The optimizer never moves experts' balances, which have no gradient and do not decay. Given the load of the update's
    micro-batches, `balance.rebalanced` does.
    """
    transform, schedule = make_optimizer(optimizer)
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
    metrics = {'grad_norm': optax.tree.norm(grads), 'lr': schedule(state.step)}
    params = optax.apply_updates(state.params, updates)
    if load_LE is not None:
        params = rebalanced(params, load_LE, bias_rate)
    params, opt_state = jax.lax.with_sharding_constraint(
        (params, opt_state),
        (transformer.shardings(cfg, sharding), _optimizer_shardings(opt_state, cfg, sharding)))
    return TrainState(params, opt_state, state.step + 1), metrics


def micro_batches(
    packed: PackedBatch, weights: np.ndarray, rows: int, sharding: Sharding, balance: np.ndarray | None = None
) -> Iterator[MicroBatch]:
    """Cuts packed rows into micro-batches of `rows` rows on the mesh, as `cut_rows` does."""
    whole = MicroBatch(
        packed.tokens, packed.targets, packed.positions, packed.segments, packed.mask, weights, packed.values, balance)
    return cut_rows(whole, rows, sharding)


def cut_rows(whole, rows: int, sharding: Sharding) -> Iterator:
    """Cuts a pytree of host arrays into pieces of `rows` rows on the mesh; the last one is filled up with rows of zeros.

    Raises:
        UserError: if the mesh does not divide `rows`.
    """
    sharding.check_batch('micro_rows', rows)

    def fill(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))

    for start in range(0, len(jax.tree.leaves(whole)[0]), rows):
        yield sharding.place_rows(jax.tree.map(lambda x: fill(x[start:start + rows]), whole))
