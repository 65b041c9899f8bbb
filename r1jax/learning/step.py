"""Jitted steps over packed rows: score, gradients of one micro-batch, update. The loop over them is the stage's."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from r1jax.learning.grpo import GRPOLoss, grpo_loss, merge_diagnostics
from r1jax.learning.likelihood import sft_loss, token_logprobs
from r1jax.learning.optimizer import OptimizerConfig, make_optimizer
from r1jax.learning.packing import PackedBatch
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
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


def init_state(params: transformer.Params, cfg: ModelConfig, optimizer: OptimizerConfig, sharding: Sharding) -> TrainState:
    """Puts parameters and fresh optimizer state on the mesh."""
    placed = put(params, transformer.shardings(cfg, sharding))
    init = make_optimizer(optimizer)[0].init
    opt_state = jax.jit(init, out_shardings=_optimizer_shardings(jax.eval_shape(init, placed), cfg, sharding))(placed)
    return TrainState(placed, opt_state, put(np.zeros((), np.int32), sharding.replicated()))


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


def _logprobs(params, batch: MicroBatch, cfg: ModelConfig, temperature: float, sharding: Sharding):
    out = transformer.forward(params, batch.tokens, batch.positions, batch.segments, cfg, sharding=sharding)
    head_DV = transformer.head(params).astype(cfg.dtype)
    return token_logprobs(out.hidden_BTD, head_DV, batch.targets, temperature=temperature)


@functools.partial(jax.jit, static_argnames=('cfg', 'temperature', 'sharding'))
def score(
    params: transformer.Params, batch: MicroBatch, *, cfg: ModelConfig, temperature: float, sharding: Sharding
) -> jax.Array:
    """Log-probabilities [R, T] of the targets, at the sampling temperature (float32)."""
    return sharding.constrain_replicated(_logprobs(params, batch, cfg, temperature, sharding)[0])


@functools.partial(jax.jit, static_argnames=('cfg', 'loss', 'sharding'))
def grpo_gradients(
    params: transformer.Params, batch: MicroBatch, *, cfg: ModelConfig, loss: GRPOLoss, sharding: Sharding
) -> tuple[transformer.Params, dict[str, jax.Array]]:
    """Gradients of sum(weights * per-token loss) over one micro-batch, and its diagnostics.

    Where `values` holds no old_logp, the batch is taken as on policy: the old log-probabilities are the current ones.
    """

    def objective(params):
        logp, entropy = _logprobs(params, batch, cfg, loss.temperature, sharding)
        old_logp = batch.values.get('old_logp', jax.lax.stop_gradient(logp))
        per_token, diagnostics = grpo_loss(
            logp, old_logp, batch.values.get('ref_logp'), batch.values['advantage'], batch.mask, loss,
            entropy_BT=entropy, sampler_logp_BT=batch.values.get('sampler_logp'), segments_BT=batch.segments)
        total = (per_token * batch.weights).sum()
        return total, diagnostics | {'loss_sum': total}

    grads, diagnostics = jax.grad(objective, has_aux=True)(params)
    return jax.lax.with_sharding_constraint(grads, transformer.shardings(cfg, sharding)), diagnostics


@functools.partial(jax.jit, static_argnames=('cfg', 'sharding'))
def sft_gradients(
    params: transformer.Params, batch: MicroBatch, *, cfg: ModelConfig, sharding: Sharding
) -> tuple[transformer.Params, dict[str, jax.Array]]:
    """Gradients of the weighted negative log-likelihood over one micro-batch, and its sums."""

    def objective(params):
        logp, _ = _logprobs(params, batch, cfg, 1.0, sharding)
        return sft_loss(logp, batch.weights)

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


@functools.partial(jax.jit, static_argnames=('optimizer', 'cfg', 'sharding'), donate_argnames=('state',))
def apply_gradients(
    state: TrainState, grads: transformer.Params, *, optimizer: OptimizerConfig, cfg: ModelConfig, sharding: Sharding
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer update. Returns the new state, and the gradient's norm (before clipping) and the learning rate."""
    transform, schedule = make_optimizer(optimizer)
    updates, opt_state = transform.update(grads, state.opt_state, state.params)
    metrics = {'grad_norm': optax.tree.norm(grads), 'lr': schedule(state.step)}
    params, opt_state = jax.lax.with_sharding_constraint(
        (optax.apply_updates(state.params, updates), opt_state),
        (transformer.shardings(cfg, sharding), _optimizer_shardings(opt_state, cfg, sharding)))
    return TrainState(params, opt_state, state.step + 1), metrics


def micro_batches(packed: PackedBatch, weights: np.ndarray, rows: int, sharding: Sharding) -> Iterator[MicroBatch]:
    """Cuts packed rows into micro-batches of `rows` rows on the mesh, as `cut_rows` does."""
    return cut_rows(
        MicroBatch(packed.tokens, packed.targets, packed.positions, packed.segments, packed.mask, weights, packed.values),
        rows, sharding)


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
