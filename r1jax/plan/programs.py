"""The programs that a stage runs on the mesh, with the shapes they are run on, and what lies in memory beside them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.errors import UserError
from r1jax.learning.balance import balance_of
from r1jax.learning.preference import PLACES, PackedItems, reward_gradients
from r1jax.learning.step import (
    MicroBatch,
    abstract_state,
    apply_gradients,
    grpo_gradients,
    reshard,
    score,
    sft_gradients,
)
from r1jax.models import transformer
from r1jax.models.cache import cache_axes, empty_cache
from r1jax.models.config import ModelConfig
from r1jax.parallel.rules import DECODING, TRAINING, Sharding
from r1jax.sampling.engine import BUCKET, decode_chunk, drawing, empty_state, lanes
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages.collect import CollectStage
from r1jax.stages.grpo import GRPOStage
from r1jax.stages.preferences import PreferencesStage
from r1jax.stages.pretrain import PretrainStage
from r1jax.stages.reward_model import RewardModelStage
from r1jax.stages.sft import SFTStage

# Room for a prompt where a stage does not say how long they are.
PROMPT = 2048
# Trees of gradients that lie on a device at once: their sum so far, and those of the micro-batch that is computed and of the
# one before, see `step.accumulate`.
GRADIENT_TREES = 3

Arrays = Any
# What lies in memory beside a program's own, for a model.
Beside = Callable[[ModelConfig], Mapping[str, list[Arrays]]]


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function and the shapes of its arguments.

    Attributes:
        name: what tables call it.
        unit: what one run does, in words.
        function, args, static: called as function(*args, **static); args are trees of ShapeDtypeStructs with shardings.
        units: how many of `unit` one run does, where that is a loop.
        memory: what lies on the devices meanwhile, by name: of each a list of trees, arguments and results included.
        by_layers: whether each layer costs what the one before it does, so that a few tell what all of them cost.
    """

    name: str
    unit: str
    function: Callable
    args: tuple[Arrays, ...]
    static: Mapping[str, Any]
    memory: Mapping[str, list[Arrays]]
    units: int = 1
    by_layers: bool = False


def programs(stage: object, cfg: ModelConfig, mesh: jax.sharding.Mesh) -> Iterator[Callable[[ModelConfig], Program]]:
    """Yields, for each program of a stage, what makes it for a model: for `cfg`, or for one of fewer layers.

    Args:
        stage: settings of a stage.
        cfg: the model that the stage starts from.

    Raises:
        UserError: if the mesh does not divide a batch or a parameter.
    """
    training, decoding = Sharding(mesh, TRAINING), Sharding(mesh, DECODING)
    match stage:
        case GRPOStage():
            def beside(cfg: ModelConfig) -> dict[str, list[Arrays]]:
                whole, trained = (transformer.shapes(of, training) for of in (cfg, stage.trains(cfg)[0]))
                scoring = transformer.shapes(dataclasses.replace(cfg, scalar_head=True, mtp=0), training)
                return {'reference': [trained], 'MTP': [whole.mtp], 'reward models': [scoring] * len(stage.reward_models)}

            yield functools.partial(_gradients, stage=stage, sharding=training, beside=beside)
            yield functools.partial(_update, stage=stage, sharding=training, beside=beside)
            yield functools.partial(_scoring, stage=stage, sharding=training, beside=beside)
            yield functools.partial(
                _decode, sampling=stage.sampling, length=stage.row_length, sharding=decoding,
                trained=lambda cfg: stage.trains(cfg)[0],
                beside=lambda cfg: beside(cfg) | _state_memory(stage, stage.trains(cfg)[0], training))
        case SFTStage() | PretrainStage() | RewardModelStage():
            yield functools.partial(_gradients, stage=stage, sharding=training, beside=lambda cfg: {})
            yield functools.partial(_update, stage=stage, sharding=training, beside=lambda cfg: {})
        case CollectStage() | PreferencesStage():
            yield functools.partial(
                _decode, sampling=stage.sampling, length=stage.sampling.max_tokens + PROMPT, sharding=decoding,
                trained=lambda cfg: cfg, beside=lambda cfg: {})
        case _:
            raise UserError(f'there is nothing to plan in a stage of kind {type(stage).__name__}')


def _rows(stage, sharding: Sharding) -> Callable[[Any], jax.ShapeDtypeStruct]:
    """Returns what makes [micro_rows, row_length] arrays of a dtype."""
    sharding.check_batch('micro_rows', stage.micro_rows)
    shape = stage.micro_rows, stage.row_length
    where = sharding.named(('batch', None), shape, 'micro_rows')
    return lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=where)


def _micro_batch(stage, cfg: ModelConfig, sharding: Sharding, values: tuple[str, ...]) -> MicroBatch:
    row = _rows(stage, sharding)
    return MicroBatch(
        *(row(jnp.int32) for _ in range(4)), row(jnp.float32), row(jnp.float32), {name: row(jnp.float32) for name in values},
        row(jnp.float32) if cfg.experts else None)


def _items(stage: RewardModelStage, sharding: Sharding) -> PackedItems:
    row = _rows(stage, sharding)

    def places(dtype, *more: int) -> jax.ShapeDtypeStruct:
        shape = (stage.micro_rows, PLACES, *more)
        return jax.ShapeDtypeStruct(
            shape, dtype, sharding=sharding.named(('batch',) + (None,) * (len(shape) - 1), shape, 'micro_rows'))

    sequences = 2 if stage.loss == 'pairwise' else 1
    return PackedItems(
        *(row(jnp.int32) for _ in range(3)), places(jnp.int32, sequences), places(jnp.float32), places(jnp.float32),
        places(jnp.int32))


def _optimizer(stage):
    return stage.optimizer.over(stage.updates if isinstance(stage, GRPOStage) else 1000)


def _state_memory(stage, cfg: ModelConfig, sharding: Sharding) -> dict[str, list[Arrays]]:
    state = abstract_state(cfg, _optimizer(stage), sharding)
    return {'weights': [state.params], 'optimizer': [state.opt_state]}


def _gradients(cfg: ModelConfig, *, stage, sharding: Sharding, beside: Beside) -> Program:
    memory = beside(cfg)
    cfg, mtp_loss = stage.trains(cfg)
    params = transformer.shapes(cfg, sharding)
    static = {'cfg': cfg, 'sharding': sharding}
    if isinstance(stage, RewardModelStage):
        function, batch = reward_gradients, _items(stage, sharding)
        static |= {'loss': stage.loss, 'pooling': stage.pooling}
    else:
        static['balance_loss'] = balance_of(stage.balance, cfg).loss
        if isinstance(stage, GRPOStage):
            values = ('advantage', 'old_logp', 'ref_logp', 'sampler_logp')
            function, batch = grpo_gradients, _micro_batch(stage, cfg, sharding, values)
            static['loss'] = stage.loss
        else:
            function, batch = sft_gradients, _micro_batch(stage, cfg, sharding, ())
            static['mtp_loss'] = mtp_loss
    return Program(
        'gradients', f'{stage.micro_rows} rows of {stage.row_length:,} tokens', function, (params, batch), static,
        _state_memory(stage, cfg, sharding) | {'gradients': [params] * GRADIENT_TREES, 'batch': [batch]} | memory)


def _update(cfg: ModelConfig, *, stage, sharding: Sharding, beside: Beside) -> Program:
    memory = beside(cfg)
    cfg, _ = stage.trains(cfg)
    state, grads = abstract_state(cfg, _optimizer(stage), sharding), transformer.shapes(cfg, sharding)
    static = {'optimizer': _optimizer(stage), 'cfg': cfg, 'sharding': sharding}
    args = state, grads
    if cfg.experts and not isinstance(stage, RewardModelStage):
        layers = cfg.n_layers - cfg.experts.dense_layers + cfg.mtp
        args += (jax.ShapeDtypeStruct((layers, cfg.experts.n), jnp.int32, sharding=sharding.replicated()),)
        static['bias_rate'] = balance_of(stage.balance, cfg).bias_rate
    return Program(
        'update', 'one optimizer step', apply_gradients, args, static,
        _state_memory(stage, cfg, sharding) | {'gradients': [grads]} | memory)


def _scoring(cfg: ModelConfig, *, stage: GRPOStage, sharding: Sharding, beside: Beside) -> Program:
    memory = beside(cfg)
    cfg, _ = stage.trains(cfg)
    params, batch = transformer.shapes(cfg, sharding), _micro_batch(stage, cfg, sharding, ())
    return Program(
        'scoring', f'{stage.micro_rows} rows of {stage.row_length:,} tokens', score,
        (params, dataclasses.replace(batch, balance=None)),
        {'cfg': cfg, 'temperature': stage.loss.temperature, 'sharding': sharding},
        _state_memory(stage, cfg, sharding) | {'batch': [batch]} | memory)


def _decode(
    cfg: ModelConfig, *, sampling: SamplingConfig, length: int, sharding: Sharding,
    trained: Callable[[ModelConfig], ModelConfig], beside: Beside,
) -> Program:
    memory = beside(cfg)
    cfg = trained(cfg)
    sharding.check_batch('sampling.slots', sampling.slots)
    like = jax.eval_shape(
        functools.partial(reshard, cfg=cfg, sharding=sharding, dtype=cfg.dtype), transformer.shapes(cfg, sharding))
    params = _placed(like, transformer.shardings(cfg, sharding))
    length = min(length, cfg.max_positions) + sampling.chunk
    length += -length % BUCKET
    cache = jax.eval_shape(lambda: empty_cache(cfg, sampling.slots, length, lanes(sharding)))
    state = jax.eval_shape(lambda: empty_state(cfg, sampling.slots, sharding)).replace(cache=cache)
    where = jax.tree.map(lambda x: sharding.named(('batch',) + (None,) * (x.ndim - 1), x.shape, 'sampling.slots'), state)
    where = where.replace(cache=jax.tree.map(lambda x: sharding.named(cache_axes(cfg), x.shape, 'the cache'), cache))
    state = _placed(state, where)
    return Program(
        'decode', f'one token in {sampling.slots:,} slots of {length:,}', decode_chunk, (params, state),
        {'cfg': cfg, 'sampling': drawing(sampling), 'eos': 0, 'sharding': sharding},
        {'decoding weights': [params], 'cache': [state.cache]} | memory, units=sampling.chunk, by_layers=True)


def _placed(like: Arrays, shardings: Arrays) -> Arrays:
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), like, shardings)


def bytes_on_device(tree: Arrays) -> float:
    """What the largest share of a tree of placed shapes takes on one device."""
    return float(sum(
        np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)))
