"""Losses of reward models, and their training step over packed items.

An item is what one term of the loss needs: a chosen and a rejected sequence, or a single one with a label. Both sequences
of a pair lie in one row, as segments of their own, so that their difference never leaves a device. A sequence's score is
read at its last token, or added up over all of them.
"""

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from r1jax.learning.packing import best_fit
from r1jax.learning.step import cut_rows
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.rules import Sharding

Loss = Literal['pairwise', 'pointwise']
LOSSES = get_args(Loss)
# Where a sequence's score comes from: the head's value at its last token, or the sum of those at all tokens in units of
# `SPAN`. The prompt's part of a sum is the same for all its responses. A model of a few million parameters learns from sums
# with far fewer pairs: what is wrong is told where it stands, and not carried to the end first.
Pooling = Literal['last', 'sum']
POOLINGS = get_args(Pooling)
SPAN = 16  # tokens; keeps sums of short responses near the scale of a single value
# The fewest items that a row has places for; above, it is a power of two, so that few programs are compiled.
PLACES = 8


def pairwise_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """-log sigmoid(chosen - rejected) of each pair, float32, finite however far the scores lie apart.

    The preference model of Bradley and Terry: DeepSeek-R1, arXiv 2501.12948, 2025 revision, helpful reward model; arXiv
    2203.02155, eq. 1.

    Args:
        chosen: scores of the better responses, any shape.
        rejected: those of the worse ones, of the same shape.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jax.nn.softplus(rejected.astype(jnp.float32) - chosen.astype(jnp.float32))


def pointwise_loss(score: jax.Array, label: jax.Array) -> jax.Array:
    """-label log sigmoid(score) - (1 - label) log sigmoid(-score) of each response, float32, finite for any score.

    Logistic regression on safe (1) and unsafe (0): DeepSeek-R1, arXiv 2501.12948, 2025 revision, safety reward model.

    Args:
        score: any shape.
        label: in [0, 1], of the same shape.
    """
    chex.assert_equal_shape([score, label])
    score, label = score.astype(jnp.float32), label.astype(jnp.float32)
    return label * jax.nn.softplus(-score) + (1 - label) * jax.nn.softplus(score)


@struct.dataclass
class PackedItems:
    """Items packed into R rows of T tokens, with P places for items of S sequences each; pieces of it lie on the mesh."""

    tokens: np.ndarray  # int32 [R, T]; 0 in padding
    positions: np.ndarray  # int32 [R, T]; from 0 in every sequence; 0 in padding
    segments: np.ndarray  # int32 [R, T]; 1, 2, ... per sequence in the row; 0 = padding
    ends_RPS: np.ndarray  # int32; where in its row the last token of each sequence stands; 0 in empty places
    labels_RP: np.ndarray  # float32; 0 in empty places
    weights_RP: np.ndarray  # float32; 1 / n of the n items packed, 0 in empty places
    item_RP: np.ndarray  # int32; index into the packed list; -1 in empty places


def pack_items(
    items: Sequence[tuple[np.ndarray, ...]], row_length: int, labels: Sequence[float] | None = None
) -> PackedItems:
    """Packs by best fit into rows of `row_length`; all sequences of an item come into one row.

    Args:
        items: at least one; each a tuple of S int32 arrays [N], of one S: (chosen, rejected) or (sequence,).
        row_length: T.
        labels: one an item, in [0, 1]; None where the loss needs none.

    Raises:
        ValueError: there is no item, items differ in S, or one is longer than a row or has an empty sequence.
    """
    sizes = {len(item) for item in items}
    if len(sizes) != 1:
        raise ValueError(f'items must have one number of sequences, got {sorted(sizes)}')
    if any(len(sequence) == 0 for item in items for sequence in item):
        raise ValueError('an item has an empty sequence')
    bins = best_fit([sum(map(len, item)) for item in items], row_length)
    n_rows, places = len(bins), max(PLACES, 1 << (max(map(len, bins)) - 1).bit_length())
    tokens, positions, segments = (np.zeros((n_rows, row_length), np.int32) for _ in range(3))
    ends = np.zeros((n_rows, places, sizes.pop()), np.int32)
    labels_RP, weights = np.zeros((2, n_rows, places), np.float32)
    index = np.full((n_rows, places), -1, np.int32)
    for row, members in enumerate(bins):
        start = segment = 0
        for place, i in enumerate(members):
            for which, sequence in enumerate(items[i]):
                end, segment = start + len(sequence), segment + 1
                tokens[row, start:end] = sequence
                positions[row, start:end] = np.arange(len(sequence))
                segments[row, start:end] = segment
                ends[row, place, which] = end - 1
                start = end
            labels_RP[row, place] = labels[i] if labels is not None else 0
            weights[row, place] = 1 / len(items)
            index[row, place] = i
    return PackedItems(tokens, positions, segments, ends, labels_RP, weights, index)


def _scores_RPS(params, batch: PackedItems, cfg: ModelConfig, pooling: Pooling, sharding: Sharding) -> jax.Array:
    out = transformer.forward(params, batch.tokens, batch.positions, batch.segments, cfg, sharding=sharding)
    values_RT = transformer.scores(params, out.hidden_BTD)
    R, P, S = batch.ends_RPS.shape
    ends_RN = batch.ends_RPS.reshape(R, P * S)
    if pooling == 'last':
        return jnp.take_along_axis(values_RT, ends_RN, axis=1).reshape(R, P, S)
    segments_RN = jnp.take_along_axis(batch.segments, ends_RN, axis=1)
    inside_RNT = segments_RN[:, :, None] == batch.segments[:, None, :]
    return (jnp.where(inside_RNT, values_RT[:, None, :], 0).sum(axis=2) / SPAN).reshape(R, P, S)


@functools.partial(jax.jit, static_argnames=('cfg', 'pooling', 'sharding'))
def score_items(
    params: transformer.Params, batch: PackedItems, *, cfg: ModelConfig, pooling: Pooling, sharding: Sharding
) -> jax.Array:
    """Scores [R, P, S] of all sequences (float32), whole on every device; without meaning in empty places."""
    return sharding.constrain_replicated(_scores_RPS(params, batch, cfg, pooling, sharding))


@functools.partial(jax.jit, static_argnames=('cfg', 'loss', 'pooling', 'sharding'))
def reward_gradients(
    params: transformer.Params, batch: PackedItems, *, cfg: ModelConfig, loss: Loss, pooling: Pooling, sharding: Sharding
) -> tuple[transformer.Params, dict[str, jax.Array]]:
    """Gradients of sum(weights * loss) over the rows of one micro-batch, and its sums.

    The weights are those of the whole batch, so micro-batches only add up: `loss_sum` to the mean loss, `accuracy_sum` to
    the share of items that are right: pairs whose chosen response scores higher, labels on their side of 0.
    """

    def objective(params):
        scores_RPS = _scores_RPS(params, batch, cfg, pooling, sharding)
        if loss == 'pairwise':
            chosen_RP, rejected_RP = scores_RPS[..., 0], scores_RPS[..., 1]
            loss_RP, right_RP = pairwise_loss(chosen_RP, rejected_RP), chosen_RP > rejected_RP
        else:
            score_RP = scores_RPS[..., 0]
            loss_RP, right_RP = pointwise_loss(score_RP, batch.labels_RP), (score_RP > 0) == (batch.labels_RP > 0.5)
        total = (loss_RP * batch.weights_RP).sum()
        return total, {'loss_sum': total, 'accuracy_sum': (right_RP * batch.weights_RP).sum()}

    grads, sums = jax.grad(objective, has_aux=True)(params)
    return jax.lax.with_sharding_constraint(grads, transformer.shardings(cfg, sharding)), sums


def scores_of(
    params: transformer.Params, items: Sequence[tuple[np.ndarray, ...]], *, row_length: int, micro_rows: int,
    cfg: ModelConfig, pooling: Pooling, sharding: Sharding,
) -> np.ndarray:
    """Scores any number of items; returns float32 [n, S], S sequences an item, in their order."""
    packed = pack_items(items, row_length)
    scores_RPS = np.concatenate([
        np.asarray(score_items(params, batch, cfg=cfg, pooling=pooling, sharding=sharding))
        for batch in cut_rows(packed, micro_rows, sharding)])[:len(packed.tokens)]
    taken = packed.item_RP >= 0
    found = np.empty((len(items), scores_RPS.shape[2]), np.float32)
    found[packed.item_RP[taken]] = scores_RPS[taken]
    return found
