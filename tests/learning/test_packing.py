"""Packing keeps every sequence whole and in place, and loss weights hide packing from the gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.learning import likelihood, packing
from r1jax.learning.packing import TokenSequence

EOS = 0  # the same id as padding, as in many tokenizers: no mask may be inferred from it


def make_sequence(rng, prompt, completion, advantage=1.0, finished=True, masked=False):
    tokens = rng.integers(1, 20, prompt + completion).astype(np.int32)
    if finished:
        tokens[-1] = EOS
    old_logp = -rng.random(completion).astype(np.float32)
    return TokenSequence(tokens, prompt, {'old_logp': old_logp}, {'advantage': advantage}, masked)


def make_sequences(seed=0, n=16):
    rng = np.random.default_rng(seed)
    lengths = rng.integers([1, 1], [5, 12], (n, 2)).tolist()
    return [make_sequence(rng, *lengths[i], float(rng.normal()), finished=bool(i % 3)) for i in range(n)]


def test_best_fit_puts_each_into_the_fullest_row_with_room():
    # 7 opens row 0; 6 opens row 1; 4 fits row 1 only (room 4); 3 fills row 0; 1 opens row 2.
    assert packing.best_fit([3, 7, 6, 4, 1], 10) == [[1, 0], [2, 3], [4]]
    # 2 goes to row 0 (room 2), not to the emptier row 1 (room 4).
    assert packing.best_fit([2, 8, 6], 10) == [[1, 0], [2]]
    assert packing.best_fit([5, 5, 5], 5) == [[0], [1], [2]]
    assert packing.best_fit([], 5) == []


def test_best_fit_holds_everything_once_and_wastes_little():
    lengths = np.random.default_rng(0).integers(1, 100, 500).tolist()
    bins = packing.best_fit(lengths, 128)
    assert sorted(itertools.chain(*bins)) == list(range(500))
    assert all(sum(lengths[i] for i in members) <= 128 for members in bins)
    assert len(bins) <= 1.05 * sum(lengths) / 128


@pytest.mark.parametrize('lengths', [[3, 11], [0, 3]])
def test_best_fit_refuses_what_no_row_holds(lengths):
    with pytest.raises(ValueError, match='a row holds 1 to 10'):
        packing.best_fit(lengths, 10)


def test_layout_of_one_row():
    a = TokenSequence(np.array([5, 6, 7, EOS]), 2, {'old_logp': np.array([-1.0, -2.0])}, {'advantage': 3.0})
    b = TokenSequence(np.array([8, 9]), 1, {'old_logp': np.array([-4.0])}, {'advantage': -1.0})
    packed = packing.pack([b, a], 8)
    expected = {
        'tokens': [5, 6, 7, EOS, 8, 9, 0, 0],
        'targets': [6, 7, EOS, 0, 9, 0, 0, 0],
        'positions': [0, 1, 2, 3, 0, 1, 0, 0],
        'segments': [1, 1, 1, 1, 2, 2, 0, 0],
        'mask': [0, 1, 1, 0, 1, 0, 0, 0],
        'sequence': [1, 1, 1, 1, 0, 0, -1, -1],
    }
    for name, row in expected.items():
        array = getattr(packed, name)
        assert array.shape == (1, 8), name
        assert array.dtype == (np.float32 if name == 'mask' else np.int32), name
        np.testing.assert_array_equal(array[0], row, err_msg=name)
    np.testing.assert_array_equal(packed.values['old_logp'][0], [0, -1, -2, 0, -4, 0, 0, 0])
    np.testing.assert_array_equal(packed.values['advantage'][0], [0, 3, 3, 0, -1, 0, 0, 0])


def test_pack_keeps_every_sequence():
    sequences = make_sequences()
    packed = packing.pack(sequences, 24)
    for i, s in enumerate(sequences):
        rows, at = np.nonzero(packed.sequence == i)
        assert len(set(rows)) == 1 and (np.diff(at) == 1).all()
        span = (rows[0], slice(at[0], at[-1] + 1))
        np.testing.assert_array_equal(packed.tokens[span], s.tokens)
        np.testing.assert_array_equal(packed.targets[span][:-1], s.tokens[1:])
        np.testing.assert_array_equal(packed.positions[span], np.arange(len(s.tokens)))
        assert len(set(packed.segments[span])) == 1
        masked = packed.mask[span] > 0
        np.testing.assert_array_equal(packed.targets[span][masked], s.tokens[s.prompt_length :])
        np.testing.assert_array_equal(packed.values['old_logp'][span][masked], s.per_token['old_logp'])
        np.testing.assert_allclose(packed.values['advantage'][span][masked], s.per_sequence['advantage'])
    assert ((packed.sequence == -1) == (packed.segments == 0)).all()
    assert not packed.mask[packed.sequence == -1].any()


def test_pack_of_nothing_is_one_row_of_padding():
    packed = packing.pack([], 8)
    assert packed.tokens.shape == (1, 8) and not packed.segments.any()


def test_unpack_inverts_pack():
    sequences = make_sequences()
    sequences[3] = make_sequence(np.random.default_rng(1), 3, 4, masked=True)
    packed = packing.pack(sequences, 24)
    restored = packing.unpack(packed.values['old_logp'], packed, sequences)
    assert len(restored) == len(sequences)
    for values, s in zip(restored, sequences, strict=True):
        np.testing.assert_array_equal(values, s.per_token['old_logp'])


@pytest.mark.parametrize(
    'bad, message',
    [
        (TokenSequence(np.arange(3), 0), '0 prompt and 3 completion'),
        (TokenSequence(np.arange(3), 3), '3 prompt and 0 completion'),
        (TokenSequence(np.arange(3), 1, {'old_logp': np.zeros(3)}), r'shape \(3,\), not \(2,\)'),
        (TokenSequence(np.arange(9), 1), 'a row holds 1 to 8'),
    ],
)
def test_pack_refuses(bad, message):
    with pytest.raises(ValueError, match=message):
        packing.pack([bad], 8)


def test_pack_refuses_sequences_with_other_values():
    with pytest.raises(ValueError, match=r"sequence 1 has values \['x'\], the first one \[\]"):
        packing.pack([TokenSequence(np.arange(3), 1), TokenSequence(np.arange(5), 1, {'x': np.zeros(4)})], 8)


def test_stopping_gets_a_gradient_and_eos_is_not_padding():
    """The target EOS (the id of the padding) is in the mask, and the gradient raises its probability."""
    finished = TokenSequence(np.array([3, 4, EOS]), 1)
    truncated = TokenSequence(np.array([3, 4, 5]), 1)
    packed = packing.pack([finished, truncated], 4)
    weights = packing.loss_weights(packed.mask, packed.sequence, 'token')
    assert packed.mask.sum() == 4
    assert packed.mask[0, 1] == 1 and packed.targets[0, 1] == EOS

    def loss(logits_RTV):
        logp = jax.nn.log_softmax(logits_RTV)
        logp = jnp.take_along_axis(logp, packed.targets[..., None], -1)[..., 0]
        return likelihood.sft_loss(logp, weights)[0]

    gradient = jax.grad(loss)(jnp.zeros((*packed.tokens.shape, 8)))
    assert gradient[0, 1, EOS] < 0
    assert gradient[1, 1, EOS] > 0  # truncated: the last token pushes its own id up, and EOS down
    assert not np.asarray(gradient)[packed.mask == 0].any()


def reference_weights(sequences, normalize, max_length):
    """What each completion token weighs, one sequence at a time, from the three equations."""
    lengths = [0 if s.masked else len(s.tokens) - s.prompt_length for s in sequences]
    n = sum(length > 0 for length in lengths)
    return [
        (length > 0)
        / {'sequence': n * max(1, length), 'token': sum(lengths), 'constant': n * max_length}[normalize]
        for length in lengths
    ]


@pytest.mark.parametrize('normalize', ['sequence', 'token', 'constant'])
@pytest.mark.parametrize('truncated', [False, True])
def test_loss_weights_are_the_equations(normalize, truncated):
    sequences = make_sequences()
    if truncated:
        sequences[5] = make_sequence(np.random.default_rng(1), 2, 9, finished=False, masked=True)
    packed = packing.pack(sequences, 24)
    weights = packing.loss_weights(packed.mask, packed.sequence, normalize, 12)
    assert weights.dtype == np.float32 and not weights[packed.mask == 0].any()
    expected = reference_weights(sequences, normalize, 12)
    unpacked = packing.unpack(weights, packed, sequences)
    for values, weight, s in zip(unpacked, expected, sequences, strict=True):
        np.testing.assert_allclose(values, np.full(len(s.per_token['old_logp']), weight), rtol=1e-6)


def test_a_masked_sequence_weighs_as_if_it_had_not_been_sampled():
    kept = make_sequences(n=6)
    masked = make_sequence(np.random.default_rng(1), 2, 9, finished=False, masked=True)
    packs = [packing.pack(sequences, 24) for sequences in (kept, [*kept, masked])]
    for normalize in ('sequence', 'token', 'constant'):
        without, with_it = (
            packing.unpack(packing.loss_weights(p.mask, p.sequence, normalize, 12), p, s)
            for p, s in zip(packs, (kept, [*kept, masked]), strict=True)
        )
        np.testing.assert_array_equal(np.concatenate(without), np.concatenate(with_it[:-1]))
        assert not with_it[-1].any()


def test_loss_weights_refuse():
    packed = packing.pack(make_sequences(), 24)
    with pytest.raises(ValueError, match='positive max_length'):
        packing.loss_weights(packed.mask, packed.sequence, 'constant')
    with pytest.raises(ValueError, match="got 'batch'"):
        packing.loss_weights(packed.mask, packed.sequence, 'batch')


def test_loss_weights_of_padding_alone_are_zero():
    packed = packing.pack([], 8)
    for normalize in ('sequence', 'token', 'constant'):
        assert not packing.loss_weights(packed.mask, packed.sequence, normalize, 4).any()


# A model whose logits depend on a token and its position in its own sequence: whatever is wrong about packing
# or micro-batches shows in its gradient.
VOCABULARY, WIDTH, LONGEST = 20, 6, 24


def model():
    rng = np.random.default_rng(0)
    shapes = {'embed': (VOCABULARY, WIDTH), 'position': (LONGEST, WIDTH), 'head': (WIDTH, VOCABULARY)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@jax.jit
def micro_gradient(params, batch, weights):
    def loss(params):
        hidden = params['embed'][batch.tokens] + params['position'][batch.positions]
        logp, _ = likelihood.token_logprobs(hidden, params['head'], batch.targets, blocks=5)
        return -jnp.sum(jnp.exp(logp - batch.values['old_logp']) * batch.values['advantage'] * weights)

    return jax.value_and_grad(loss)(params)


def gradient(batch, normalize, micro):
    weights = packing.loss_weights(batch.mask, batch.sequence, normalize, 12)
    total = None
    for start in range(0, len(batch.tokens), micro):
        rows = slice(start, start + micro)
        part = micro_gradient(model(), jax.tree.map(lambda x: x[rows], batch), weights[rows])
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total


def one_per_row(sequences):
    rows = [packing.pack([s], LONGEST) for s in sequences]
    batch = jax.tree.map(lambda *xs: np.concatenate(xs), *rows)
    ids = np.arange(len(sequences))[:, None]
    return batch.replace(sequence=np.where(batch.sequence >= 0, ids, -1).astype(np.int32))


@pytest.mark.parametrize('normalize', ['sequence', 'token', 'constant'])
def test_micro_batches_and_packing_do_not_change_the_gradient(normalize):
    """16 x 1, 4 x 4, 1 x 16, and packed into fewer rows."""
    sequences = make_sequences()
    separate, packed = one_per_row(sequences), packing.pack(sequences, LONGEST)
    assert len(packed.tokens) < 16

    params, expected = model(), 0.0
    for s, weight in zip(sequences, reference_weights(sequences, normalize, 12), strict=True):
        at = np.arange(s.prompt_length - 1, len(s.tokens) - 1)
        logits = (params['embed'][s.tokens[at]] + params['position'][at]) @ params['head']
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        ratio = p[np.arange(len(at)), s.tokens[at + 1]] / np.exp(s.per_token['old_logp'])
        expected -= float(ratio.sum() * s.per_sequence['advantage'] * weight)

    first = gradient(separate, normalize, 1)
    np.testing.assert_allclose(first[0], expected, rtol=1e-4)
    assert max(float(jnp.abs(x).max()) for x in first[1].values()) > 1e-2
    for batch, micro in ((separate, 4), (separate, 16), (packed, 2), (packed, len(packed.tokens))):
        got = gradient(batch, normalize, micro)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, first)
