"""Packs sequences of different lengths into fixed rows, and the loss weights that make packing invisible.

Convention: index t of a row holds token t as the input and `targets[t]` is token t + 1 of the same sequence,
so that every array of per-token values (log-probabilities, advantages, masks) is aligned with the *target*:
the last prompt position predicts the first completion token and has mask 1. The end-of-sequence token is part
of the completion.
"""

import bisect
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import flax.struct
import numpy as np

Normalize = Literal['sequence', 'token', 'constant']


@dataclasses.dataclass(frozen=True)
class TokenSequence:
    """A prompt with its completion (C tokens), ready to be packed.

    Attributes:
        tokens: int32 [N], the prompt followed by the completion, which ends with EOS if it stopped by itself.
        prompt_length: N - C, at least 1, because nothing predicts the first token. C is at least 1, too.
        per_token: named float arrays [C], one value per completion token (old_logp, sampler_logp, ...).
        per_sequence: named numbers that hold for every completion token (advantage, ...).
        masked: True takes the whole sequence out of the loss (a truncated completion under overlong
          filtering); it is still packed, so that its log-probabilities can be read back.
    """

    tokens: np.ndarray
    prompt_length: int
    per_token: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    per_sequence: Mapping[str, float] = dataclasses.field(default_factory=dict)
    masked: bool = False


@flax.struct.dataclass
class PackedBatch:
    """Sequences packed into R rows of T tokens."""

    tokens: np.ndarray  # int32 [R, T]; 0 in padding
    targets: np.ndarray  # int32 [R, T]; the next token of the sequence; 0 at its last token and in padding
    positions: np.ndarray  # int32 [R, T]; from 0 in every sequence; 0 in padding
    segments: np.ndarray  # int32 [R, T]; 1, 2, ... per sequence in the row; 0 = padding
    mask: np.ndarray  # float32 [R, T]; 1 where the target is a completion token that takes part in the loss
    sequence: np.ndarray  # int32 [R, T]; index into the packed list of sequences; -1 = padding
    values: dict[str, np.ndarray]  # each float32 [R, T]; 0 where the target is not in a completion


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: longest first, each into the fullest bin that still has room for it.

    Returns:
        Bins of indices into `lengths`, in the order in which they were opened. Equal lengths keep their
        order.

    Raises:
        ValueError: a length is greater than `capacity`, or not positive.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room left, bin), sorted
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[i]
        if not 0 < length <= capacity:
            raise ValueError(f'sequence {i} has {length} tokens, but a row holds 1 to {capacity}')
        place = bisect.bisect_left(rooms, (length, -1))
        if place == len(rooms):
            room, chosen = capacity, len(bins)
            bins.append([])
        else:
            room, chosen = rooms.pop(place)
        bins[chosen].append(i)
        bisect.insort(rooms, (room - length, chosen))
    return bins


def pack(sequences: Sequence[TokenSequence], row_length: int) -> PackedBatch:
    """Packs by best fit into rows of `row_length`, at least one.

    Raises:
        ValueError: a sequence is longer than a row, has no prompt or no completion, has a per-token array of
          the wrong length, or has other names of values than the first one.
    """
    bins = best_fit([len(s.tokens) for s in sequences], row_length)
    names = _value_names(sequences[0]) if sequences else set()
    shape = (max(1, len(bins)), row_length)
    tokens, targets, positions, segments = (np.zeros(shape, np.int32) for _ in range(4))
    mask = np.zeros(shape, np.float32)
    sequence = np.full(shape, -1, np.int32)
    values = {name: np.zeros(shape, np.float32) for name in sorted(names)}
    for row, members in enumerate(bins):
        start = 0
        for segment, i in enumerate(members, start=1):
            s = sequences[i]
            _check(i, s, names)
            end = start + len(s.tokens)
            tokens[row, start:end] = s.tokens
            targets[row, start : end - 1] = s.tokens[1:]
            positions[row, start:end] = np.arange(end - start)
            segments[row, start:end] = segment
            sequence[row, start:end] = i
            predicted = slice(start + s.prompt_length - 1, end - 1)
            mask[row, predicted] = 0.0 if s.masked else 1.0
            for name, value in (*s.per_token.items(), *s.per_sequence.items()):
                values[name][row, predicted] = value
            start = end
    return PackedBatch(tokens, targets, positions, segments, mask, sequence, values)


def _value_names(s: TokenSequence) -> set[str]:
    return {*s.per_token, *s.per_sequence}


def _check(i: int, s: TokenSequence, names: set[str]) -> None:
    completion = len(s.tokens) - s.prompt_length
    if s.prompt_length < 1 or completion < 1:
        raise ValueError(f'sequence {i} has {s.prompt_length} prompt and {completion} completion tokens')
    if _value_names(s) != names:
        raise ValueError(f'sequence {i} has values {sorted(_value_names(s))}, the first one {sorted(names)}')
    for name, value in s.per_token.items():
        if np.shape(value) != (completion,):
            raise ValueError(f'{name} of sequence {i} has shape {np.shape(value)}, not ({completion},)')


def unpack(
    values_RT: np.ndarray, packed: PackedBatch, sequences: Sequence[TokenSequence]
) -> list[np.ndarray]:
    """Reads per-token values (scored log-probabilities, say) back into one array [C] per sequence.

    Args:
        values_RT: [R, T], aligned with `packed.targets`.
        packed: what `pack(sequences, ...)` returned.
        sequences: the list that was packed, in the same order.

    Returns:
        One array [C_i] for each of `sequences`, in their order.
    """
    values = np.asarray(values_RT).reshape(-1)
    flat = packed.sequence.reshape(-1)
    at = np.flatnonzero((packed.positions.reshape(-1) == 0) & (flat >= 0))
    starts = np.empty(len(sequences), np.int64)
    starts[flat[at]] = at
    return [
        values[start + s.prompt_length - 1 : start + len(s.tokens) - 1]
        for start, s in zip(starts, sequences, strict=True)
    ]


def loss_weights(
    mask_RT: np.ndarray,
    sequence_RT: np.ndarray,
    normalize: Normalize,
    max_length: int = 0,
) -> np.ndarray:
    """Weights under which sum(weights * per-token loss) is a minibatch's loss, however it is packed or split.

    - 'sequence': 1 / (n |o_i|), the mean over sequences of the mean over tokens. GRPO: arXiv 2501.12948
      eq. 1, arXiv 2402.03300 eq. 3.
    - 'token': 1 / sum_i |o_i|, the mean over all tokens. DAPO: arXiv 2503.14476 eq. 8.
    - 'constant': 1 / (n * max_length), no length in the denominator. Dr. GRPO: arXiv 2503.20783.

    n and |o_i| count what takes part in the loss: a sequence masked as truncated is in no count, so the
    others weigh as much as if it had never been sampled.

    Args:
        mask_RT: float32 [R, T], of the whole minibatch (before it is cut into micro-batches).
        sequence_RT: int32 [R, T], which sequence a position belongs to, -1 in padding.
        normalize: one of the three above.
        max_length: the longest completion allowed, in tokens; used by 'constant' only.

    Returns:
        float32 [R, T], 0 outside the mask.

    Raises:
        ValueError: unknown `normalize`, or 'constant' without a positive `max_length`.
    """
    mask = np.asarray(mask_RT) > 0
    sequence = np.where(mask, np.asarray(sequence_RT), -1)
    n_sequences, n_tokens = len(np.unique(sequence[mask])), int(mask.sum())
    if normalize == 'sequence':
        _, inverse, counts = np.unique(sequence, return_inverse=True, return_counts=True)
        denominator = n_sequences * counts[inverse].reshape(mask.shape)
    elif normalize == 'token':
        denominator = np.full(mask.shape, n_tokens)
    elif normalize == 'constant':
        if max_length < 1:
            raise ValueError(f"normalize='constant' needs a positive max_length, got {max_length}")
        denominator = np.full(mask.shape, n_sequences * max_length)
    else:
        raise ValueError(f"normalize must be 'sequence', 'token' or 'constant', got {normalize!r}")
    return np.divide(1.0, denominator, out=np.zeros(mask.shape), where=mask).astype(np.float32)
