"""Reward-model losses against PyTorch, packing of items, and gradients that no mesh, micro-batch or packing changes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.learning import preference
from r1jax.learning.optimizer import OptimizerConfig, decay_mask
from r1jax.learning.preference import pack_items, pairwise_loss, pointwise_loss, reward_gradients, scores_of
from r1jax.learning.step import accumulate, apply_gradients, cut_rows, init_state
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding

CFG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=64, qkv_bias=True, scalar_head=True,
    max_positions=64)
ONE = MeshConfig()
MESHES = {'8 fsdp': MeshConfig(data=1, fsdp=8), '2x2x2': MeshConfig(data=2, fsdp=2, tensor=2)}


def sharding(mesh: MeshConfig) -> Sharding:
    return Sharding(make_mesh(mesh, jax.devices()[:1] if mesh is ONE else None), TRAINING)


def params(shard):
    return jax.device_put(transformer.init(jax.random.key(0), CFG), transformer.shardings(CFG, shard))


def items(sequences=2, n=16):
    rng = np.random.default_rng(0)
    drawn = [tuple(rng.integers(0, 64, rng.integers(2, 12)).astype(np.int32) for _ in range(sequences)) for _ in range(n)]
    return drawn, rng.integers(0, 2, n).astype(float)


def gradients(loss, mesh=ONE, rows=16, row_length=24, pooling='last'):
    shard = sharding(mesh)
    drawn, labels = items(2 if loss == 'pairwise' else 1)
    packed = pack_items(drawn, row_length, labels)
    return accumulate(
        reward_gradients, params(shard), cut_rows(packed, rows, shard), cfg=CFG, loss=loss, pooling=pooling,
        sharding=shard), packed


def assert_close(a, b, atol):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=1e-6, err_msg=jax.tree_util.keystr(path))


@functools.partial(jax.jit, static_argnames='pooling')
def alone(p, drawn, pooling='last'):
    """Scores with a row for every sequence: nothing is packed, and what follows a last token cannot reach it."""
    flat = [sequence for item in drawn for sequence in item]
    tokens = jnp.stack([jnp.pad(sequence, (0, 12 - len(sequence))) for sequence in flat])
    out = transformer.forward(p, tokens, jnp.broadcast_to(jnp.arange(12), tokens.shape), jnp.ones_like(tokens), CFG)
    if pooling == 'last':
        scores = [out.hidden_BTD[i, len(sequence) - 1] @ p.head_DV[:, 0] for i, sequence in enumerate(flat)]
    else:
        scores = [(out.hidden_BTD[i, :len(sequence)] @ p.head_DV[:, 0]).sum() / 16 for i, sequence in enumerate(flat)]
    return jnp.stack(scores).reshape(len(drawn), -1)


# ---- losses ----


def test_losses_and_their_gradients_equal_those_of_torch():
    torch = pytest.importorskip('torch')
    rng = np.random.default_rng(0)
    a, b, label = rng.normal(0, 3, 50), rng.normal(0, 3, 50), rng.random(50)
    x, y = (torch.tensor(v, requires_grad=True) for v in (a, b))
    pairs = -torch.nn.functional.logsigmoid(x - y)
    points = torch.nn.functional.binary_cross_entropy_with_logits(x, torch.tensor(label), reduction='none')
    np.testing.assert_allclose(pairwise_loss(jnp.array(a), jnp.array(b)), pairs.detach(), rtol=1e-5)
    np.testing.assert_allclose(pointwise_loss(jnp.array(a), jnp.array(label)), points.detach(), rtol=1e-5)
    wanted = torch.autograd.grad(pairs.sum(), (x, y))
    found = jax.grad(lambda x, y: pairwise_loss(x, y).sum(), (0, 1))(jnp.array(a), jnp.array(b))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    (wanted,) = torch.autograd.grad(points.sum(), (x,))
    found = jax.grad(lambda x: pointwise_loss(x, jnp.array(label)).sum())(jnp.array(a))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_losses_are_finite_and_exact_at_their_ends():
    far = jnp.array([0.0, 20.0, 1e4, -1e4])
    np.testing.assert_allclose(pairwise_loss(far, jnp.zeros(4)), [np.log(2), np.log1p(np.exp(-20)), 0, 1e4], rtol=1e-6)
    np.testing.assert_allclose(pointwise_loss(far, jnp.ones(4)), [np.log(2), np.log1p(np.exp(-20)), 0, 1e4], rtol=1e-6)
    np.testing.assert_allclose(pointwise_loss(-far, jnp.zeros(4)), pointwise_loss(far, jnp.ones(4)))
    for grad in (jax.grad(lambda x: pairwise_loss(x, jnp.zeros(4)).sum())(far),
                 jax.grad(lambda x: pointwise_loss(x, jnp.ones(4)).sum())(far)):
        np.testing.assert_allclose(grad, [-0.5, -1 / (1 + np.exp(20)), 0, -1], rtol=1e-6)
    assert pairwise_loss(jnp.ones(1, jnp.bfloat16), jnp.zeros(1, jnp.bfloat16)).dtype == jnp.float32


# ---- packing ----


@pytest.mark.parametrize('sequences', [1, 2])
def test_every_sequence_is_found_whole_at_its_end_and_pairs_share_a_row(sequences):
    drawn, labels = items(sequences, n=40)
    packed = pack_items(drawn, 32, labels)
    seen = []
    for row, place in zip(*np.nonzero(packed.item_RP >= 0), strict=True):
        i = packed.item_RP[row, place]
        seen.append(i)
        for which, end in enumerate(packed.ends_RPS[row, place]):
            segment = packed.segments[row] == packed.segments[row, end]
            np.testing.assert_array_equal(packed.tokens[row, segment], drawn[i][which])
            np.testing.assert_array_equal(packed.positions[row, segment], np.arange(len(drawn[i][which])))
            assert np.flatnonzero(segment)[-1] == end
        assert packed.labels_RP[row, place] == labels[i]
        assert packed.weights_RP[row, place] == np.float32(1 / 40)
    assert sorted(seen) == list(range(40))
    # Nothing else is in the rows: every token belongs to a sequence.
    assert (packed.segments > 0).sum() == sum(len(s) for item in drawn for s in item)
    empty = packed.item_RP < 0
    assert not packed.weights_RP[empty].any() and not packed.ends_RPS[empty].any()
    # Rows are filled: best fit needs hardly more of them than there are tokens for.
    assert len(packed.tokens) <= np.ceil((packed.segments > 0).sum() / 32 * 1.15)


def test_places_are_few_sizes():
    one = (np.array([1, 2], np.int32),)
    assert [pack_items([one] * n, 2 * n).item_RP.shape for n in (1, 8, 9, 16, 17)] == [
        (1, 8), (1, 8), (1, 16), (1, 16), (1, 32)]


@pytest.mark.parametrize('wrong, sentence', [
    ([], 'one number of sequences'),
    ([(np.ones(2),), (np.ones(2), np.ones(2))], 'one number of sequences'),
    ([(np.ones(2), np.ones(0))], 'an empty sequence'),
    ([(np.ones(3), np.ones(2))], 'has 5 tokens, but a row holds 1 to 4'),
])
def test_items_that_cannot_be_packed_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        pack_items(wrong, 4)


# ---- scores and gradients ----


@pytest.mark.parametrize('pooling', preference.POOLINGS)
@pytest.mark.parametrize('name', MESHES)
def test_scores_are_those_of_each_sequence_alone(name, pooling):
    shard = sharding(MESHES[name])
    p = params(shard)
    drawn, _ = items()
    found = scores_of(p, drawn, row_length=40, micro_rows=8, cfg=CFG, pooling=pooling, sharding=shard)
    wanted = alone(jax.device_get(p), drawn, pooling)
    assert np.std(wanted) > (0.3 if pooling == 'last' else 0.03) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize('pooling', preference.POOLINGS)
@pytest.mark.parametrize('loss', preference.LOSSES)
def test_the_loss_is_the_mean_over_items_and_its_gradient_that_of_the_mean(loss, pooling):
    (grads, sums), _ = gradients(loss, pooling=pooling)
    p = params(sharding(ONE))
    drawn, labels = items(2 if loss == 'pairwise' else 1)

    def mean(p):
        scores = alone(p, drawn, pooling)
        if loss == 'pairwise':
            return -jnp.log(jax.nn.sigmoid(scores[:, 0] - scores[:, 1])).mean(), scores
        p = jax.nn.sigmoid(scores[:, 0])
        return -jnp.where(labels > 0, jnp.log(p), jnp.log(1 - p)).mean(), scores

    (wanted, scores), wanted_grads = jax.value_and_grad(mean, has_aux=True)(p)
    np.testing.assert_allclose(sums['loss_sum'], wanted, rtol=1e-5)
    right = scores[:, 0] > scores[:, 1] if loss == 'pairwise' else (scores[:, 0] > 0) == (labels > 0)
    assert 0 < np.mean(right) < 1
    np.testing.assert_allclose(sums['accuracy_sum'], np.mean(right), rtol=1e-5)
    assert float(jnp.abs(grads.head_DV).max()) > 1e-3 and float(jnp.abs(grads.layers.mlp.w_up).max()) > 1e-4
    assert_close(grads, wanted_grads, 1e-6)


@pytest.mark.parametrize('loss, pooling', [('pairwise', 'last'), ('pointwise', 'last'), ('pairwise', 'sum')])
def test_no_mesh_micro_batch_or_packing_changes_the_gradient(loss, pooling):
    (whole, sums), loose = gradients(loss, rows=16, row_length=24, pooling=pooling)
    (packed, more), dense = gradients(loss, rows=16, row_length=96, pooling=pooling)
    assert len(dense.tokens) < len(loose.tokens) / 2
    assert_close(whole, packed, 1e-6)
    assert_close(sums, more, 1e-6)
    for rows in (1, 4):
        (other, more), _ = gradients(loss, rows=rows, pooling=pooling)
        assert_close(whole, other, 1e-6)
        assert_close(sums, more, 1e-6)
    for mesh, rows, row_length in ((MESHES['8 fsdp'], 8, 24), (MESHES['2x2x2'], 4, 96)):
        (other, more), _ = gradients(loss, mesh, rows, row_length, pooling)
        assert_close(whole, other, 1e-5)
        assert_close(sums, more, 1e-5)


def test_a_micro_batch_that_the_mesh_does_not_divide_is_refused():
    with pytest.raises(UserError, match='micro_rows=6 is not divisible by 8'):
        gradients('pairwise', MESHES['8 fsdp'], rows=6)


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_the_head_is_updated_by_either_optimizer_as_on_one_device(name):
    optimizer = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, name=name)
    results = []
    for mesh in (ONE, MESHES['2x2x2']):
        shard = sharding(mesh)
        state = init_state(transformer.init(jax.random.key(0), CFG), CFG, optimizer, shard)
        before = np.asarray(state.params.head_DV)
        (grads, _), _ = gradients('pairwise', mesh, rows=8)
        state, _ = apply_gradients(state, grads, optimizer=optimizer, cfg=CFG, sharding=shard)
        assert np.abs(np.asarray(state.params.head_DV) - before).min() > 1e-3
        results.append(state.params.head_DV)
    np.testing.assert_allclose(*results, atol=3e-5)


def test_the_head_decays_as_every_projection_does():
    assert decay_mask(transformer.init(jax.random.key(0), CFG)).head_DV


def test_a_bfloat16_model_is_scored_in_float32():
    shard = sharding(ONE)
    drawn, _ = items(1)
    scores = [
        scores_of(params(shard), drawn, row_length=24, micro_rows=4, cfg=cfg, pooling='last', sharding=shard)
        for cfg in (dataclasses.replace(CFG, dtype='bfloat16'), CFG)]
    assert scores[0].dtype == np.float32 and 0 < np.abs(scores[0] - scores[1]).max() < 0.1
    # Sums of bfloat16 products would be bfloat16 numbers.
    assert np.any(scores[0] != scores[0].astype(jnp.bfloat16).astype(np.float32))
