"""Optimizers and learning-rate schedules, all through optax.

Parameters are a tree of named leaves whose layers are stacked in front ([L, ...]), so that a norm's scale is
a matrix by its shape: which leaf is what is read from its field name.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from r1jax.errors import UserError, nearest

SCHEDULES = ('constant', 'cosine', 'linear')
NAMES = ('adamw', 'muon')

# Matrices that Muon orthogonalises: (axes summed over, axes produced). Axes not named, the stacked layers
# first of all, are batched.
_MATRICES = {
    'wq': ((-3,), (-2, -1)),  # [L, D, H, K]; of latent attention [L, C, H, K + P], and so on
    'wk': ((-3,), (-2, -1)),  # [L, D, N, K]
    'wv': ((-3,), (-2, -1)),  # [L, D, N, K]
    'wo': ((-3, -2), (-1,)),  # [L, H, K, D]
    'wq_down': ((-2,), (-1,)),  # [L, D, C]
    'wkv_down': ((-2,), (-1,)),  # [L, D, R + P]
    'w_gate': ((-2,), (-1,)),  # [L, D, F], of experts [L, E, D, F]
    'w_up': ((-2,), (-1,)),  # [L, D, F]
    'w_down': ((-2,), (-1,)),  # [L, F, D]
}
_BIASES = ('bq', 'bk', 'bv', 'balance')


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its schedule.

    Attributes:
        learning_rate: the peak.
        schedule: what follows the warm-up: 'constant', or 'cosine' or 'linear' down to the end rate.
        warmup_steps: updates over which the rate rises linearly, from learning_rate / warmup_steps.
        total_steps: updates until the end rate is reached; 0 is all updates of the stage, see `over`.
        end_ratio: end rate as a share of `learning_rate`.
        b1, b2, eps: AdamW's (under 'muon' b1 and b2 are of the leaves that are not matrices, eps of all).
        weight_decay: decoupled, times the learning rate; never on norms, biases and embeddings (under 'muon',
          on Muon's matrices only).
        clip_norm: largest global norm of the gradient; None does not clip.
        name: 'adamw', or 'muon' (Muon for the matrices of the layers, AdamW with Nesterov momentum for the rest).

    Raises:
        UserError: a value outside its range.
    """

    learning_rate: float
    schedule: Literal['constant', 'cosine', 'linear'] = 'constant'
    warmup_steps: int = 0
    total_steps: int = 0
    end_ratio: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    name: Literal['adamw', 'muon'] = 'adamw'

    def __post_init__(self):
        for field, known in (('schedule', SCHEDULES), ('name', NAMES)):
            value = getattr(self, field)
            if value not in known:
                raise UserError(f'OptimizerConfig.{field} cannot be {value!r}{nearest(str(value), known)}')
        for field in ('learning_rate', 'warmup_steps', 'total_steps', 'end_ratio', 'weight_decay'):
            if not getattr(self, field) >= 0:
                raise UserError(f'OptimizerConfig.{field} must be 0 or more, got {getattr(self, field)}')
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(
                f'OptimizerConfig.clip_norm must be positive, or None for no clipping, got {self.clip_norm}'
            )
        if self.schedule != 'constant' and 0 < self.total_steps <= self.warmup_steps:
            raise UserError(
                f"OptimizerConfig.schedule='{self.schedule}' needs total_steps greater than warmup_steps, "
                f'got {self.total_steps} and {self.warmup_steps}'
            )

    def over(self, updates: int) -> 'OptimizerConfig':
        """Returns the same with `updates` as total_steps, unless that is set. Raises UserError if the warm-up is longer."""
        return dataclasses.replace(self, total_steps=self.total_steps or updates)


def make_schedule(config: OptimizerConfig) -> optax.Schedule:
    """The learning rate (float32) as a function of the number of updates already made."""
    if config.schedule != 'constant' and not config.total_steps:
        raise ValueError(f"schedule='{config.schedule}' without total_steps: call OptimizerConfig.over first")
    decay_steps = max(1, config.total_steps - 1 - config.warmup_steps)

    def schedule(count):
        count = jnp.asarray(count, jnp.float32)
        done = jnp.clip((count - config.warmup_steps) / decay_steps, 0.0, 1.0)
        if config.schedule == 'cosine':
            height = 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        elif config.schedule == 'linear':
            height = 1.0 - done
        else:
            height = jnp.ones_like(done)
        warmup = jnp.minimum(1.0, (count + 1.0) / max(1, config.warmup_steps))
        return config.learning_rate * warmup * (config.end_ratio + (1.0 - config.end_ratio) * height)

    return schedule


def make_optimizer(config: OptimizerConfig) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns (global-norm clipping followed by the optimizer, its learning-rate schedule)."""
    schedule = make_schedule(config)
    if config.name == 'adamw':
        update = optax.adamw(
            schedule, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decay_mask
        )
    else:
        # Updates of RMS 0.2 whatever the shape of the matrix, so that AdamW's learning rates hold for both
        # parts (arXiv 2502.16982).
        update = contrib.muon(
            schedule,
            weight_decay=config.weight_decay,
            weight_decay_mask=decay_mask,
            adam_b1=config.b1,
            adam_b2=config.b2,
            eps=config.eps,
            muon_weight_dimension_numbers=_muon_dimensions,
            consistent_rms=0.2,
        )
    if config.clip_norm is None:
        return update, schedule
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), update), schedule


def decay_mask(params) -> object:
    """A tree of bools like `params`: False for norms, biases and embeddings, which do not decay."""

    def decays(path, _):
        name = _field(path)
        return name not in _BIASES and not any(part in name for part in ('norm', 'bias', 'embed'))

    return jax.tree_util.tree_map_with_path(decays, params)


def _muon_dimensions(params) -> object:
    def dimensions(path, _):
        axes = _MATRICES.get(_field(path))
        return contrib.MuonDimensionNumbers(*axes) if axes else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _field(path) -> str:
    """The name of a leaf: the last attribute or dictionary key on its path."""
    names = [str(getattr(key, 'name', getattr(key, 'key', ''))) for key in path]
    return names[-1] if names else ''
