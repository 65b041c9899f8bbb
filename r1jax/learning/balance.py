"""What training adds for a mixture of experts and for the prediction of the token after the next one: settings and figures.

DeepSeek-V3 (arXiv 2412.19437) keeps its experts evenly used by a bias that is moved after every update, outside of the
gradient (auxiliary-loss-free balancing, section 2.1.2), and by a small balance loss of every sequence (eq. 17-20). Its MTP
module learns from a loss of its own (section 2.2, eq. 24-25).
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.errors import UserError, at_least
from r1jax.learning.packing import PackedBatch, loss_weights
from r1jax.models.config import ModelConfig
from r1jax.models.transformer import Layers, Params


@dataclasses.dataclass(frozen=True)
class BalanceConfig:
    """How training keeps experts evenly used. The defaults are DeepSeek-V3's (section 4.2).

    Attributes:
        bias_rate: gamma, by which an expert's bias is raised or lowered after each update. (In V3's pretraining 0 for the
            last .5 of 14.8 trillion tokens.)
        loss: alpha, the coefficient of the balance loss.
    """

    bias_rate: float = 1e-3
    loss: float = 1e-4

    def __post_init__(self):
        at_least(0, self, 'bias_rate', 'loss')


def balance_of(given: BalanceConfig | None, cfg: ModelConfig) -> BalanceConfig:
    """Returns how the experts of a model are balanced: as given, else as DeepSeek-V3 does it; not at all where it has none.

    Raises:
        UserError: settings for a model without experts.
    """
    if cfg.experts:
        return given or BalanceConfig()
    if given:
        raise UserError('balance is set, and the model has no experts that could be balanced: leave it out')
    return BalanceConfig(0.0, 0.0)


def mtp_coefficient(given: float | None, cfg: ModelConfig, default: float) -> float:
    """Returns the coefficient of the MTP loss: as given, the default, or 0 for a model without that module.

    Raises:
        UserError: a coefficient below 0, or one for a model without MTP.
    """
    if given is not None and given < 0:
        raise UserError(f'mtp_loss={given} must be at least 0')
    if cfg.mtp:
        return default if given is None else given
    if given:
        raise UserError(f'mtp_loss={given}, and the model has no MTP module that could learn from it: leave it out')
    return 0.0


def balance_shares(packed: PackedBatch, cfg: ModelConfig) -> np.ndarray | None:
    """What each token's `experts.imbalance` weighs in the balance loss of a minibatch, float32 [R, T]; None without experts.

    The loss of a minibatch is the mean over its sequences of each one's (eq. 17), added up over layers. So a token weighs
    1 / (n |s_i|), prompts and what is masked included, since they are routed as well; and micro-batches, rows and devices
    only ever add up.
    """
    return loss_weights(packed.sequence >= 0, packed.sequence, 'sequence') if cfg.experts else None


def rebalanced(params: Params, load_LE: jax.Array, bias_rate: float) -> Params:
    """Moves every expert's bias by `bias_rate`, up if it had less than the mean load of its layer, down if it had more
    (section 2.1.2).

    Args:
        load_LE: int32, tokens that each expert had in all of an update's micro-batches, MTP's layer last if it is trained.
    """
    # A sum of integers is the same in any order; only then does it become a fraction.
    mean_L1 = load_LE.sum(-1, keepdims=True).astype(jnp.float32) / load_LE.shape[-1]
    moved_LE = bias_rate * jnp.sign(mean_L1 - load_LE)

    def moved(layers: Layers, by_LE: jax.Array) -> Layers:
        return layers.replace(mlp=layers.mlp.replace(balance=layers.mlp.balance + by_LE))

    n = len(params.layers.mlp.balance)
    params = params.replace(layers=moved(params.layers, moved_LE[:n]))
    if len(load_LE) > n:
        params = params.replace(mtp=params.mtp.replace(layer=moved(params.mtp.layer, moved_LE[n:])))
    return params


def balance_metrics(sums: Mapping[str, jax.Array], updates: int = 1) -> dict[str, float]:
    """Metrics of what `step`'s gradients tell of experts, added up over some updates; none of a model without them.

    'balance_loss' is the mean over updates, without its coefficient. 'load_imbalance' is the largest load of a layer's
    experts over their mean load, as the mean over layers and of the worst layer.
    """
    if 'load_LE' not in sums:
        return {}
    load_LE = np.asarray(sums['load_LE'], np.float64)
    worst_L = load_LE.max(-1) / load_LE.mean(-1)
    return {
        'balance_loss': float(sums['balance_sum']) / updates,
        'load_imbalance/mean': float(worst_L.mean()),
        'load_imbalance/max': float(worst_L.max()),
    }
