"""Group relative policy optimisation: advantages, KL estimators and per-token losses; arrays in, arrays out.

Every loss is returned per token and unreduced; `packing.loss_weights` says how tokens add up to the loss of a
minibatch. Sources: GRPO arXiv 2402.03300 and 2501.12948, DAPO 2503.14476, Dr. GRPO 2503.20783, GSPO
2507.18071, CISPO 2506.13585, dual clip 1912.09729, the k1/k2/k3 estimators
http://joschu.net/blog/kl-approx.html.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from r1jax.errors import UserError, nearest

RATIOS = ('token', 'gspo', 'cispo')
KL_ESTIMATORS = ('k1', 'k2', 'k3')
KL_PLACES = ('loss', 'reward')

# exp() of a log-ratio overflows float32 at 88, and inf * 0 in a gradient is NaN. Log-ratios are held inside
# this bound.
LOG_RATIO_LIMIT = 20.0
# Rewards of a group that differ by no more than this, relative to max(1, |reward|), are the same reward:
# float noise of a sum such as 0.1 + 0.2 must not be divided by its own standard deviation.
REWARD_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class GRPOLoss:
    """What the policy loss is; static under jit.

    Attributes:
        clip_low: the ratio is clipped from below at 1 - clip_low. R1 uses 10 (arXiv 2501.12948, supplement):
          no clip below.
        clip_high: the ratio is clipped from above at 1 + clip_high; greater than `clip_low` is DAPO's
          clip-higher.
        dual_clip: c > 1 bounds the loss of a negative advantage at c |A|; None leaves it unbounded.
        ratio: 'token' (PPO, GRPO), 'gspo' (one ratio per sequence; its clips are near 3e-4), or 'cispo' (the
          clipped ratio is a constant weight of the log-likelihood, so that clipped tokens keep a gradient).
        kl_coef: beta, the coefficient of the KL divergence to the reference model, which is measured at 0 as well.
        kl_estimator: 'k3' (GRPO's) or 'k2' in the loss; any of the three in the reward.
        kl_in: 'loss' adds the penalty per token here; 'reward' leaves it to `kl_shaped_rewards`, before the
          advantages.
        entropy_coef: coefficient of the entropy bonus.
        importance_cap: C of truncated importance sampling, the weight min(pi_old / pi_sampler, C) on the
          policy term, where the sampler's numerics differ from the trainer's; None turns it off.
        temperature: what the sampler divided its logits by; `likelihood.token_logprobs` must be given the
          same.

    Raises:
        UserError: a value outside its range, or two settings that contradict each other.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    ratio: Literal['token', 'gspo', 'cispo'] = 'token'
    kl_coef: float = 0.0
    kl_estimator: Literal['k1', 'k2', 'k3'] = 'k3'
    kl_in: Literal['loss', 'reward'] = 'loss'
    entropy_coef: float = 0.0
    importance_cap: float | None = None
    temperature: float = 1.0

    def __post_init__(self):
        choices = (('ratio', RATIOS), ('kl_estimator', KL_ESTIMATORS), ('kl_in', KL_PLACES))
        for name, known in choices:
            value = getattr(self, name)
            if value not in known:
                raise UserError(f'GRPOLoss.{name} cannot be {value!r}{nearest(str(value), known)}')
        for name in ('clip_low', 'clip_high', 'kl_coef', 'entropy_coef'):
            if not getattr(self, name) >= 0:
                raise UserError(f'GRPOLoss.{name} must be 0 or more, got {getattr(self, name)}')
        if not self.temperature > 0:
            raise UserError(
                f'GRPOLoss.temperature must be positive, got {self.temperature}: greedy decoding has no '
                'log-probabilities'
            )
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f'GRPOLoss.dual_clip must be greater than 1, got {self.dual_clip} (3 is usual)')
        if self.dual_clip is not None and self.ratio == 'cispo':
            raise UserError(
                "GRPOLoss.dual_clip has no meaning with ratio='cispo', which bounds every weight by clip_high"
            )
        if self.importance_cap is not None and not self.importance_cap > 0:
            raise UserError(
                f'GRPOLoss.importance_cap must be positive, got {self.importance_cap} (2 is usual)'
            )
        if self.kl_in == 'loss' and self.kl_estimator == 'k1':
            raise UserError(
                "GRPOLoss.kl_estimator='k1' cannot be used in the loss: on policy the expected gradient of "
                "log(pi / pi_ref) is zero, so it would not hold the policy back; take 'k3' or 'k2', or "
                "kl_in='reward'"
            )


def zero_variance_groups(rewards_B: np.ndarray, group_size: int) -> np.ndarray:
    """Which groups carry no signal: all their rewards are the same, constant continuous rewards included.

    Args:
        rewards_B: finite floats, the G samples of one prompt side by side.
        group_size: G.

    Returns:
        bool [B / G].

    Raises:
        ValueError: B is not a multiple of G, or a reward is not finite.
    """
    rewards_PG = _groups(rewards_B, group_size)
    spread_P = rewards_PG.max(axis=1) - rewards_PG.min(axis=1)
    return spread_P <= REWARD_TOLERANCE * np.maximum(1.0, np.abs(rewards_PG).max(axis=1))


def group_advantages(
    rewards_B: np.ndarray, group_size: int, *, normalize_std: bool = True
) -> np.ndarray:
    """A_i = (r_i - mean(r)) / (std(r) + 1e-6) over the G samples of a prompt, on the host.

    Source: arXiv 2501.12948 eq. 3.

    std is the population's (ddof 0), which the paper leaves open: the advantages of a group then have mean
    square 1 whatever G is, so that changing G does not also change the step size, and G = 1 is defined.

    Args:
        rewards_B: finite floats, the G samples of one prompt side by side.
        group_size: G.
        normalize_std: False leaves the division out (Dr. GRPO, arXiv 2503.20783).

    Returns:
        float32 [B]; exactly 0 throughout a group of `zero_variance_groups`.

    Raises:
        ValueError: B is not a multiple of G, or a reward is not finite.
    """
    rewards_PG = _groups(rewards_B, group_size)
    advantages_PG = rewards_PG - rewards_PG.mean(axis=1, keepdims=True)
    if normalize_std:
        advantages_PG = advantages_PG / (rewards_PG.std(axis=1, keepdims=True) + 1e-6)
    advantages_PG[zero_variance_groups(rewards_B, group_size)] = 0.0
    return advantages_PG.reshape(-1).astype(np.float32)


def _groups(rewards_B: np.ndarray, group_size: int) -> np.ndarray:
    rewards = np.asarray(rewards_B, np.float64)
    if rewards.ndim != 1 or group_size < 1 or rewards.size % group_size:
        raise ValueError(f'rewards of shape {rewards.shape} do not divide into groups of {group_size}')
    if not np.isfinite(rewards).all():
        raise ValueError('every reward must be finite: give completions that could not be scored a number')
    return rewards.reshape(-1, group_size)


def kl_penalty(logp: jax.Array, ref_logp: jax.Array, estimator: str) -> jax.Array:
    """Per-token estimate of KL(pi || pi_ref) in nats, for tokens drawn from pi.

    With d = ref_logp - logp, held within `LOG_RATIO_LIMIT`: k1 = -d; k2 = d^2 / 2; k3 = exp(d) - d - 1, which
    is never negative (arXiv 2402.03300 eq. 4). All are 0 at d = 0.

    Args:
        logp, ref_logp: float32, any one shape.
        estimator: 'k1', 'k2' or 'k3'.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: unknown estimator.
    """
    d = _log_ratio(ref_logp, logp)
    if estimator == 'k1':
        return -d
    if estimator == 'k2':
        return 0.5 * jnp.square(d)
    if estimator == 'k3':
        return jnp.expm1(d) - d
    raise ValueError(f'estimator must be one of {KL_ESTIMATORS}, got {estimator!r}')


def kl_shaped_rewards(
    rewards_B: np.ndarray,
    logp: Sequence[np.ndarray],
    ref_logp: Sequence[np.ndarray],
    coef: float,
    estimator: str = 'k1',
) -> np.ndarray:
    """r_i - coef * sum_t D_it: the estimate of a sequence's KL to the reference, taken from its reward.

    In the reward every estimator is sound, k1 too: it is a number there, and its gradient is not asked for.

    Args:
      rewards_B: float [B].
      logp, ref_logp: B arrays [C_i], log-probabilities of the completion's tokens under the policy that sampled
        them and under the reference.
      coef: beta.
      estimator: of `kl_penalty`.

    Returns:
      float32 [B], the rewards to compute advantages from.
    """
    per_token = np.asarray(kl_penalty(np.concatenate(logp), np.concatenate(ref_logp), estimator))
    starts = np.cumsum([0, *map(len, logp[:-1])])
    return (np.asarray(rewards_B) - coef * np.add.reduceat(per_token, starts)).astype(np.float32)


def grpo_loss(
    logp_BT: jax.Array,
    old_logp_BT: jax.Array,
    ref_logp_BT: jax.Array | None,
    advantages_BT: jax.Array,
    mask_BT: jax.Array,
    config: GRPOLoss,
    *,
    entropy_BT: jax.Array | None = None,
    sampler_logp_BT: jax.Array | None = None,
    segments_BT: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of every token, to be summed with `packing.loss_weights`. With r_t = pi(o_t) / pi_old(o_t):

        loss_t = -w_t J_t + beta D_t - entropy_coef H_t

    - ratio 'token' (arXiv 1707.06347 eq. 7, 2402.03300 eq. 3, clip-higher 2503.14476 eq. 8):
      J_t = min(r_t A, clip(r_t, 1 - clip_low, 1 + clip_high) A)
    - ratio 'gspo' (2507.18071 eq. 7, in the token form of its eq. 14): the same with
      s_t = sg[s] pi(o_t) / sg[pi(o_t)] for r_t, s = exp(mean over the sequence's tokens of log r_t). The
      value is that of s, and with 'sequence' weights so is the gradient.
    - ratio 'cispo' (2506.13585 eq. 4-5): J_t = sg[clip(r_t, 1 - clip_low, 1 + clip_high)] A log pi(o_t)
    - dual clip (1912.09729): where A < 0, J_t = max(J_t, dual_clip A)
    - w_t = sg[min(pi_old / pi_sampler, importance_cap)], or 1
    - D_t is `kl_penalty`, where kl_in is 'loss' and kl_coef > 0; H_t the entropy of the next-token
      distribution.

    Args:
        logp_BT: float32, of the policy in training, at the sampling temperature.
        old_logp_BT: float32, of the policy that sampled, from the trainer's own forward pass.
        ref_logp_BT: float32, of the reference; None where there is none.
        advantages_BT: float32.
        mask_BT: 1 where the token takes part. What the other arrays hold elsewhere, NaN included, has no
          effect.
        config: which of the above.
        entropy_BT: float32; needed when entropy_coef > 0, otherwise only reported.
        sampler_logp_BT: float32, what the sampler itself recorded; needed when importance_cap is set,
          otherwise only compared with `old_logp_BT`.
        segments_BT: int32, which sequence of its row a token belongs to; None for one sequence per row
          ('gspo' only).

    Returns:
        loss_BT: float32, exactly 0 where the mask is 0.
        diagnostics: scalars over the masked tokens, without gradient; `merge_diagnostics` joins those of two
          micro-batches exactly, `mean_diagnostics` makes metrics of them.

    Raises:
        ValueError: an array that `config` needs is missing.
    """
    chex.assert_rank(logp_BT, 2)
    given = [x for x in (ref_logp_BT, entropy_BT, sampler_logp_BT, segments_BT) if x is not None]
    chex.assert_equal_shape([logp_BT, old_logp_BT, advantages_BT, mask_BT, *given])
    for needed, array, name in (
        (config.kl_coef > 0 and config.kl_in == 'loss', ref_logp_BT, 'ref_logp_BT'),
        (config.entropy_coef > 0, entropy_BT, 'entropy_BT'),
        (config.importance_cap is not None, sampler_logp_BT, 'sampler_logp_BT'),
    ):
        if needed and array is None:
            raise ValueError(f'this GRPOLoss needs {name}')

    keep_BT = mask_BT > 0

    # Masked inputs become 0 before any arithmetic: a where() after it would still pass NaN gradients back.
    def kept(x_BT):
        return jnp.where(keep_BT, 0.0 if x_BT is None else x_BT, 0.0)

    logp_BT, advantages_BT, entropy_BT = kept(logp_BT), kept(advantages_BT), kept(entropy_BT)
    old_logp_BT = jax.lax.stop_gradient(kept(old_logp_BT))
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high

    log_ratio_BT = _log_ratio(logp_BT, old_logp_BT)
    if config.ratio == 'gspo':
        log_s_BT = jax.lax.stop_gradient(_sequence_means(log_ratio_BT, keep_BT, segments_BT))
        log_ratio_BT = log_s_BT + (logp_BT - jax.lax.stop_gradient(logp_BT))
    ratio_BT = jnp.exp(log_ratio_BT)
    clipped_BT = jnp.clip(ratio_BT, low, high)
    if config.ratio == 'cispo':
        objective_BT = jax.lax.stop_gradient(clipped_BT) * advantages_BT * logp_BT
        below_BT, above_BT = ratio_BT < low, ratio_BT > high
    else:
        objective_BT = jnp.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
        if config.dual_clip is not None:
            bounded_BT = jnp.maximum(objective_BT, config.dual_clip * advantages_BT)
            objective_BT = jnp.where(advantages_BT < 0, bounded_BT, objective_BT)
        # Clipping acts on a token only where it would go on in the direction of its advantage.
        below_BT = (ratio_BT < low) & (advantages_BT < 0)
        above_BT = (ratio_BT > high) & (advantages_BT > 0)

    logp_diff_BT = jnp.zeros_like(logp_BT)
    if sampler_logp_BT is not None:
        log_weight_BT = _log_ratio(old_logp_BT, kept(sampler_logp_BT))
        logp_diff_BT = jnp.abs(log_weight_BT)
        if config.importance_cap is not None:
            weight_BT = jnp.minimum(jnp.exp(log_weight_BT), config.importance_cap)
            objective_BT = jax.lax.stop_gradient(weight_BT) * objective_BT

    loss_BT = -objective_BT
    kl_BT = jnp.zeros_like(logp_BT)
    if ref_logp_BT is not None:
        kl_BT = kl_penalty(logp_BT, jax.lax.stop_gradient(kept(ref_logp_BT)), config.kl_estimator)
        if config.kl_in == 'loss' and config.kl_coef > 0:
            loss_BT += config.kl_coef * kl_BT
    if config.entropy_coef > 0:
        loss_BT -= config.entropy_coef * entropy_BT

    count = keep_BT.sum(dtype=jnp.float32)
    diagnostics = {
        'token_count': count,
        'ratio_sum': kept(ratio_BT).sum(),
        'ratio_max': kept(ratio_BT).max(),
        'clip_low_sum': kept(below_BT).sum(),
        'clip_high_sum': kept(above_BT).sum(),
        'kl_sum': kl_BT.sum(),
        'entropy_sum': entropy_BT.sum(),
        'logp_diff_sum': logp_diff_BT.sum(),
        'logp_diff_max': logp_diff_BT.max(),
    }
    return jnp.where(keep_BT, loss_BT, 0.0), jax.lax.stop_gradient(diagnostics)


def _log_ratio(logp: jax.Array, base_logp: jax.Array) -> jax.Array:
    return jnp.clip(logp - base_logp, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _sequence_means(x_BT: jax.Array, keep_BT: jax.Array, segments_BT: jax.Array | None) -> jax.Array:
    """The mean of `x_BT` over the kept tokens of each sequence, at each of its positions."""
    B, T = x_BT.shape
    if segments_BT is None:
        segments_BT = jnp.ones((B, T), jnp.int32)

    def row(x_T, keep_T, segments_T):
        sums = jax.ops.segment_sum(x_T, segments_T, num_segments=T + 1)
        counts = jax.ops.segment_sum(keep_T.astype(x_T.dtype), segments_T, num_segments=T + 1)
        return (sums / jnp.maximum(counts, 1.0))[segments_T]

    return jax.vmap(row)(x_BT, keep_BT, segments_BT)


@jax.jit
def merge_diagnostics(a: dict[str, jax.Array], b: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Joins the diagnostics of two micro-batches: maxima by maximum, everything else by sum."""
    return {name: jnp.maximum(a[name], b[name]) if name.endswith('_max') else a[name] + b[name] for name in a}


def mean_diagnostics(diagnostics: dict[str, jax.Array]) -> dict[str, float]:
    """Metrics of (merged) diagnostics under their names in metrics.jsonl; clip/* are shares of the tokens."""
    d = {name: float(value) for name, value in diagnostics.items() if np.ndim(value) == 0}
    count = max(1.0, d['token_count'])
    return {
        'ratio/mean': d['ratio_sum'] / count,
        'ratio/max': d['ratio_max'],
        'clip/low': d['clip_low_sum'] / count,
        'clip/high': d['clip_high_sum'] / count,
        'kl_ref': d['kl_sum'] / count,
        'entropy': d['entropy_sum'] / count,
        'logp_diff/mean': d['logp_diff_sum'] / count,
        'logp_diff/max': d['logp_diff_max'],
    }
