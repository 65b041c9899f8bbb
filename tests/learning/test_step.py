"""Training steps on real shardings: every mesh and every split into micro-batches gives the same loss and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.learning.grpo import GRPOLoss
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.packing import TokenSequence, loss_weights, pack
from r1jax.learning.step import (
    accumulate,
    apply_gradients,
    grpo_gradients,
    init_state,
    micro_batches,
    reshard,
    score,
    sft_gradients,
)
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, TRAINING, Sharding
from tests.families import FAMILIES

CFG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=64, qkv_bias=True, max_positions=64)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1)
LOSS = GRPOLoss(kl_coef=0.05, clip_high=0.28, entropy_coef=0.01)
ONE = MeshConfig()
MESHES = {'8 fsdp': MeshConfig(data=1, fsdp=8), '2x2x2': MeshConfig(data=2, fsdp=2, tensor=2)}


def sharding(mesh: MeshConfig, rules=TRAINING) -> Sharding:
    return Sharding(make_mesh(mesh, jax.devices()[:1] if mesh is ONE else None), rules)


def sequences(n=24, off_policy=True):
    rng = np.random.default_rng(0)
    out = []
    for _ in range(n):
        prompt, completion = rng.integers(2, 8), rng.integers(1, 16)
        values = {name: rng.normal(-3, 0.4, completion).astype(np.float32) for name in
                  (('old_logp', 'ref_logp', 'sampler_logp') if off_policy else ('ref_logp', 'sampler_logp'))}
        out.append(TokenSequence(
            rng.integers(0, 64, prompt + completion).astype(np.int32), int(prompt), values,
            {'advantage': float(rng.normal())}))
    return out


def minibatch(seqs, shard, rows, row_length=32, normalize='sequence'):
    packed = pack(seqs, row_length)
    weights = loss_weights(packed.mask, packed.sequence, normalize, 16)
    return micro_batches(packed, weights, rows, shard)


def gradients(mesh, rows=8, row_length=32, normalize='sequence', seqs=None, cfg=CFG):
    shard = sharding(mesh)
    params = jax.device_put(transformer.init(jax.random.key(0), cfg), transformer.shardings(cfg, shard))
    return accumulate(
        grpo_gradients, params, minibatch(seqs or sequences(), shard, rows, row_length, normalize), cfg=cfg, loss=LOSS,
        sharding=shard)


def assert_close(a, b, atol=1e-5):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=1e-6, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize('name', MESHES)
def test_a_grpo_step_on_any_mesh_equals_one_device(name):
    grads, diagnostics = gradients(ONE)
    other, more = gradients(MESHES[name])
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-3
    assert_close(grads, other)
    assert_close(diagnostics, more, atol=1e-4)
    # The weights really are split: no device holds a whole matrix.
    shard = other.layers.mlp.w_up.addressable_shards[0].data
    assert shard.size == other.layers.mlp.w_up.size // (8 if name == '8 fsdp' else 4)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_grpo_step_of_every_family_on_three_meshes_equals_one_device(family):
    cfg = FAMILIES[family]
    grads, diagnostics = gradients(ONE, cfg=cfg)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-3
    tensor = 1 if cfg.n_kv_heads == 1 else 2
    for mesh in (MeshConfig(data=1, fsdp=8), MeshConfig(data=-1, fsdp=2, tensor=tensor), MeshConfig(data=2, expert=4)):
        other, more = gradients(mesh, cfg=cfg)
        assert_close(grads, other)
        assert_close(diagnostics, more, atol=1e-4)


@pytest.mark.parametrize('normalize', ['sequence', 'token', 'constant'])
def test_micro_batching_and_packing_do_not_change_the_gradient(normalize):
    whole, _ = gradients(ONE, rows=32, row_length=24, normalize=normalize)  # hardly packed, one micro-batch
    for rows, row_length in ((1, 24), (4, 24), (4, 64)):
        other, _ = gradients(ONE, rows, row_length, normalize)
        assert_close(whole, other, atol=2e-6)


def test_the_mean_over_micro_batches_would_have_differed():
    """Guards the test above: with weights normalised per micro-batch instead of per minibatch it would fail."""
    shard = sharding(ONE)
    params = transformer.init(jax.random.key(0), CFG)
    parts = []
    for half in (sequences()[:6], sequences()[6:]):
        grads, _ = accumulate(grpo_gradients, params, minibatch(half, shard, 32, 32, 'token'), cfg=CFG, loss=LOSS,
                              sharding=shard)
        parts.append(grads)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    whole, _ = gradients(ONE, 32, 32, 'token')
    differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), mean, whole)
    assert max(jax.tree.leaves(differences)) > 1e-4


def test_on_policy_without_old_logprobs_the_ratio_is_exactly_one():
    _, diagnostics = gradients(ONE, seqs=sequences(off_policy=False))
    assert float(diagnostics['ratio_sum']) == float(diagnostics['token_count'])
    assert float(diagnostics['ratio_max']) == 1.0
    assert float(diagnostics['clip_low_sum']) == float(diagnostics['clip_high_sum']) == 0


def test_scoring_and_training_see_the_same_logprobs_so_that_ratio_is_1_and_kl_0():
    shard = sharding(MESHES['2x2x2'])
    params = jax.device_put(transformer.init(jax.random.key(0), CFG), transformer.shardings(CFG, shard))
    loss = GRPOLoss(kl_coef=0.1, temperature=0.7)
    seqs = sequences()
    (batch,) = minibatch(seqs, shard, 16, 64)
    logp = score(params, batch, cfg=CFG, temperature=0.7, sharding=shard)
    batch = batch.replace(values=batch.values | {'old_logp': logp, 'ref_logp': logp})
    _, d = grpo_gradients(params, batch, cfg=CFG, loss=loss, sharding=shard)
    np.testing.assert_allclose(d['ratio_sum'] / d['token_count'], 1, atol=1e-6)
    np.testing.assert_allclose(d['ratio_max'], 1, atol=1e-5)
    np.testing.assert_allclose(d['kl_sum'], 0, atol=1e-5)


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_an_optimizer_step_on_a_mesh_equals_one_device_and_moments_are_split_further_than_parameters(name):
    optimizer = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, name=name)
    results = []
    for mesh in (ONE, MESHES['2x2x2']):
        shard = sharding(mesh)
        state = init_state(transformer.init(jax.random.key(0), CFG), CFG, optimizer, shard)
        grads, _ = gradients(mesh)
        state, metrics = apply_gradients(state, grads, optimizer=optimizer, cfg=CFG, sharding=shard)
        results.append((state.params, metrics))
        assert int(state.step) == 1
        moments = [x for path, x in jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
                   if 'w_up' in jax.tree_util.keystr(path) and x.shape == state.params.layers.mlp.w_up.shape]
        ways = 4 if mesh is not ONE else 1  # fsdp x tensor
        assert state.params.layers.mlp.w_up.addressable_shards[0].data.size * ways == state.params.layers.mlp.w_up.size
        ways *= 2 if mesh is not ONE else 1  # and, by layers, data
        assert moments and all(x.addressable_shards[0].data.size * ways == x.size for x in moments)
    assert_close(results[0][0], results[1][0], atol=2e-5)
    assert_close(results[0][1], results[1][1], atol=1e-4)


def test_eos_gets_gradient_and_the_prompt_does_not():
    """The only completion token is EOS: its logit must be pushed, and nothing else trains."""
    shard = sharding(ONE)
    params = transformer.init(jax.random.key(0), CFG)
    seq = TokenSequence(np.array([5, 6, 7, 2], np.int32), 3)
    (batch,) = minibatch([seq], shard, 1, 8)
    assert batch.mask.tolist() == [[0, 0, 1, 0, 0, 0, 0, 0]]
    grads, sums = sft_gradients(params, batch, cfg=CFG, sharding=shard)
    assert float(sums['token_count']) == 1
    push = jnp.linalg.norm(grads.head_DV, axis=0)
    assert int(jnp.argmax(push)) == 2


def test_resharding_to_the_decoding_layout_keeps_the_values():
    train = sharding(MESHES['2x2x2'])
    decode = Sharding(train.mesh, DECODING)
    params = jax.device_put(transformer.init(jax.random.key(0), CFG), transformer.shardings(CFG, train))
    moved = reshard(params, cfg=CFG, sharding=decode, dtype='float32')
    assert_close(params, moved, atol=0)
    assert moved.layers.mlp.w_up.sharding.is_equivalent_to(transformer.shardings(CFG, decode).layers.mlp.w_up, 3)


def test_in_bfloat16_the_sampler_keeps_what_the_model_uses_in_float32_and_routes_as_training_does():
    cfg = dataclasses.replace(FAMILIES['deepseek'], mtp=1, dtype='bfloat16')
    decode = Sharding(make_mesh(MeshConfig(data=2, expert=4)), DECODING)
    params = transformer.init(jax.random.key(0), cfg)
    # Scores near 1/2 and balances that bfloat16 cannot tell apart: rounded, they would choose otherwise.
    balance = 1 + 1e-3 * jax.random.normal(jax.random.key(1), params.layers.mlp.balance.shape)
    params = params.replace(layers=params.layers.replace(mlp=params.layers.mlp.replace(
        balance=balance, router=0.01 * params.layers.mlp.router)))
    cast = reshard(params, cfg=cfg, sharding=decode, dtype='bfloat16')
    kept = {jax.tree_util.keystr(path).split('.')[-1] for path, x in jax.tree_util.tree_flatten_with_path(cast)[0]
            if x.dtype == np.float32}
    norms = {'attn_norm', 'mlp_norm', 'q_norm', 'kv_norm', 'final_norm_D', 'token_norm', 'hidden_norm', 'norm'}
    assert kept == norms | {'router', 'balance'}
    assert {x.dtype.name for x in jax.tree.leaves(cast)} == {'bfloat16', 'float32'}
    tokens = np.random.default_rng(0).integers(0, 96, (8, 16)).astype(np.int32)
    positions, segments = np.tile(np.arange(16, dtype=np.int32), (8, 1)), np.ones((8, 16), np.int32)

    def load(params):
        return np.asarray(transformer.forward(params, tokens, positions, segments, cfg).load_LE)

    np.testing.assert_array_equal(load(cast), load(params))
    rounded = jax.tree.map(lambda x: x.astype('bfloat16'), params)
    assert (load(rounded) != load(params)).any()


def test_the_learning_rate_that_is_told_is_the_one_that_was_used():
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=4)
    shard = sharding(ONE)
    state = init_state(transformer.init(jax.random.key(0), CFG), CFG, optimizer, shard)
    before = state.params.layers.mlp.w_up.copy()
    grads, _ = gradients(ONE)
    state, metrics = apply_gradients(state, grads, optimizer=optimizer, cfg=CFG, sharding=shard)
    # Adam's first update is the learning rate in size wherever there is a gradient.
    np.testing.assert_allclose(float(metrics['lr']), 0.0025, rtol=1e-6)
    np.testing.assert_allclose(float(jnp.abs(state.params.layers.mlp.w_up - before).max()), 0.0025, rtol=1e-3)


def test_a_micro_batch_that_the_mesh_does_not_divide_is_refused():
    with pytest.raises(UserError, match='micro_rows=6 is not divisible by 8'):
        gradients(MESHES['8 fsdp'], rows=6)
