"""The dense transformer against transformers (PyTorch) on random weights, and its own promises about segments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.interop import hf
from r1jax.interop.sources import SafetensorsSource
from r1jax.models import transformer
from r1jax.models.presets import PRESETS, preset
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, TRAINING, Sharding
from tests.families import FAMILIES

QWEN, LLAMA = FAMILIES['qwen2'], FAMILIES['llama']


def random_params(cfg, seed=0):
    """Random everywhere: biases and norms too, whose initial 0 and 1 would hide a mistake."""
    params = transformer.init(jax.random.key(seed), cfg)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.1 * jnp.asarray(rng.normal(size=x.shape), x.dtype), params)


def logits(params, cfg, tokens_BT, segments_BT=None, positions_BT=None):
    tokens_BT = jnp.asarray(tokens_BT)
    if positions_BT is None:
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    segments_BT = jnp.ones_like(tokens_BT) if segments_BT is None else jnp.asarray(segments_BT)
    out = transformer.forward(params, tokens_BT, jnp.asarray(positions_BT), segments_BT, cfg)
    return out.hidden_BTD @ transformer.head(params)


@pytest.mark.parametrize('cfg', FAMILIES.values(), ids=FAMILIES)
def test_logits_and_gradients_equal_those_of_transformers(cfg, tmp_path):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    # The folder holds bfloat16, so both sides start from rounded weights.
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), random_params(cfg))
    hf.write(tmp_path, params, cfg, eos=2, bos=1)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation='eager')
    tokens = np.random.default_rng(1).integers(0, cfg.vocab_size, (2, 40))
    out = theirs(torch.tensor(tokens), labels=torch.tensor(tokens))
    np.testing.assert_allclose(logits(params, cfg, tokens), out.logits.detach().numpy(), atol=1e-4)

    def loss(params):
        logp = jax.nn.log_softmax(logits(params, cfg, tokens)[:, :-1])
        return -jnp.take_along_axis(logp, tokens[:, 1:, None], -1).mean()

    out.loss.backward()
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    theirs.save_pretrained(tmp_path / 'grads', max_shard_size='20KB')
    # As transformers lays a model out: several files, and the base of the rotary angles where it puts it today.
    assert len(list((tmp_path / 'grads').glob('*.safetensors'))) > 1 and hf.read_config(tmp_path / 'grads') == cfg
    expected = hf.read_params(SafetensorsSource(tmp_path / 'grads'), cfg)
    for (path, ours), wanted in zip(
            jax.tree_util.tree_flatten_with_path(jax.grad(loss)(params))[0], jax.tree.leaves(expected), strict=True):
        name = jax.tree_util.keystr(path)
        if name.endswith('.balance'):  # no parameter there, and no gradient here
            wanted = np.zeros_like(wanted)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(ours, wanted, atol=1e-3 * scale, err_msg=name)


def test_packed_sequences_do_not_see_each_other():
    params = random_params(QWEN)
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 96, 9), rng.integers(0, 96, 12)
    packed = np.concatenate([a, b, np.zeros(3, int)])[None]
    segments = np.array([[1] * 9 + [2] * 12 + [0] * 3])
    positions = np.array([[*range(9), *range(12), 0, 0, 0]])
    together = logits(params, QWEN, packed, segments, positions)[0]
    np.testing.assert_allclose(together[:9], logits(params, QWEN, a[None])[0], atol=1e-5)
    np.testing.assert_allclose(together[9:21], logits(params, QWEN, b[None])[0], atol=1e-5)
    assert np.isfinite(together).all()


def test_padding_rows_give_finite_gradients():
    def total(params):
        return logits(params, QWEN, np.zeros((2, 8), int), np.zeros((2, 8), int)).sum()

    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(total)(random_params(QWEN))))


def test_later_tokens_do_not_change_earlier_logits():
    params, tokens = random_params(LLAMA), np.random.default_rng(3).integers(0, 96, (1, 16))
    changed = tokens.copy()
    changed[0, 10:] = (changed[0, 10:] + 1) % 96
    before, after = logits(params, LLAMA, tokens)[0], logits(params, LLAMA, changed)[0]
    np.testing.assert_array_equal(before[:10], after[:10])
    assert np.abs(before[10] - after[10]).max() > 1e-3


def test_bfloat16_keeps_norms_and_rotary_angles_in_float32():
    cfg = dataclasses.replace(LLAMA, dtype='bfloat16', max_positions=100_000)
    params = random_params(LLAMA)
    positions = np.arange(70_000, 70_016)[None]
    tokens = np.random.default_rng(3).integers(0, 96, (1, 16))
    half = transformer.forward(params, tokens, positions, np.ones_like(tokens), cfg).hidden_BTD
    full = transformer.forward(params, tokens, positions, np.ones_like(tokens), LLAMA).hidden_BTD
    assert half.dtype == jnp.bfloat16
    # bfloat16 has 8 bits: angles of 70,000 radians kept in it would be wrong by whole turns and the rest unrelated.
    assert np.corrcoef(np.ravel(half.astype(np.float32)), np.ravel(full))[0, 1] > 0.999


def test_shardings_cover_every_parameter_and_name_the_one_that_does_not_fit():
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), TRAINING)
    named = transformer.shardings(QWEN, sharding)
    assert jax.tree.structure(named) == jax.tree.structure(random_params(QWEN))
    assert 'fsdp' in str(named.layers.attn.wq.spec) and 'tensor' in str(named.layers.attn.wq.spec)
    decoding = transformer.shardings(QWEN, Sharding(sharding.mesh, DECODING))
    assert 'fsdp' not in str(decoding.layers.attn.wq.spec)
    with pytest.raises(UserError, match=r"layers.attn.wk: its 'kv_heads' dimension of 1 is not divisible by 2"):
        transformer.shardings(LLAMA, sharding)


def test_a_policy_becomes_a_reward_model_that_keeps_its_body_and_cannot_write():
    params = random_params(LLAMA)
    scoring, cfg = transformer.with_scalar_head(params, LLAMA, jax.random.key(1))
    assert cfg == dataclasses.replace(LLAMA, scalar_head=True)
    assert scoring.head_DV.shape == (32, 1)
    assert jax.tree.structure(scoring) == jax.tree.structure(transformer.init(jax.random.key(0), cfg))
    assert transformer.n_params(cfg) == transformer.n_params(LLAMA) - 32 * 96 + 32
    for ours, theirs in zip(
            jax.tree.leaves(params.replace(head_DV=None)), jax.tree.leaves(scoring.replace(head_DV=None)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    tokens = np.random.default_rng(3).integers(0, 96, (2, 16))
    hidden = transformer.forward(scoring, tokens, np.tile(np.arange(16), (2, 1)), np.ones_like(tokens), cfg).hidden_BTD
    np.testing.assert_allclose(
        transformer.scores(scoring, hidden), np.einsum('btd,dv->bt', hidden, scoring.head_DV, dtype=np.float64), atol=1e-5)
    assert transformer.scores(scoring, hidden.astype(jnp.bfloat16)).dtype == jnp.float32
    with pytest.raises(UserError, match='a reward model scores text and cannot write it'):
        transformer.head(scoring)


def test_the_head_is_drawn_from_its_key_with_a_variance_of_one_over_d():
    cfg = dataclasses.replace(LLAMA, d_model=4096, n_layers=1)
    specs = transformer.abstract(cfg)  # of the body nothing is read
    drawn = [transformer.with_scalar_head(specs, cfg, jax.random.key(seed))[0].head_DV[:, 0] for seed in (0, 0, 1)]
    np.testing.assert_allclose(np.std(drawn[0]) * 64, 1, atol=0.05)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert abs(np.corrcoef(drawn[0], drawn[2])[0, 1]) < 0.1


def test_a_scalar_head_lies_whole_on_every_device():
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), TRAINING)
    named = transformer.shardings(dataclasses.replace(QWEN, scalar_head=True), sharding)
    assert named.head_DV.is_fully_replicated and not named.layers.attn.wq.is_fully_replicated


def test_presets_are_named_and_a_wrong_name_gets_the_nearest():
    assert transformer.n_params(preset('tiny')) < 3e6
    # Public parameter counts: 1.54 B (1.31 B without embedding), 7.6 B, 14.8 B, 32.8 B.
    counts = {name: transformer.n_params(cfg) / 1e9 for name, cfg in PRESETS.items()}
    for name, billions in (('qwen2.5-math-1.5b', 1.54), ('qwen2.5-math-7b', 7.62), ('qwen2.5-14b', 14.77),
                           ('qwen2.5-32b', 32.76)):
        assert abs(counts[name] - billions) < 0.01, (name, counts[name])
    with pytest.raises(UserError, match="did you mean 'qwen2.5-32b'"):
        preset('qwen2.5-32')
