"""What holds for every family: decoding equals scoring, loops equal unrolled layers, long positions equal transformers'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.interop import hf
from r1jax.models import transformer
from r1jax.models.cache import empty_cache
from r1jax.models.config import LlamaRope, ModelConfig, Yarn
from r1jax.models.presets import PRESETS, preset
from r1jax.models.rope import frequencies
from tests.families import FAMILIES

every_family = pytest.mark.parametrize('cfg', FAMILIES.values(), ids=FAMILIES)


def random_params(cfg: ModelConfig, seed: int = 0) -> transformer.Params:
    """Random everywhere: biases and norms too, whose initial 0 and 1 would hide a mistake."""
    params = transformer.init(jax.random.key(seed), cfg)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.1 * jnp.asarray(rng.normal(size=x.shape), x.dtype), params)


def run(params, cfg, tokens_BT, **options):
    positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    return transformer.forward(params, jnp.asarray(tokens_BT), positions, jnp.ones_like(tokens_BT), cfg, **options)


@every_family
def test_decoding_over_a_cache_equals_scoring(cfg):
    """With latent attention: absorbed against expanded."""
    params, tokens = random_params(cfg), np.random.default_rng(1).integers(0, cfg.vocab_size, (3, 20))
    wanted = run(params, cfg, tokens, prefill=True)
    cache = empty_cache(cfg, 3, 24)
    step = jax.jit(lambda cache, token, t: transformer.forward(params, token, t, t, cfg, cache))
    hidden = []
    for t in range(20):
        out = step(cache, tokens[:, t:t + 1], jnp.full((3, 1), t))
        cache, _ = out.cache, hidden.append(out.hidden_BTD[:, 0])
    np.testing.assert_allclose(np.stack(hidden, 1), wanted.hidden_BTD, atol=1e-5)
    for ours, prefilled in zip(cache.layers, wanted.cache.layers, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:, :, :20], b, atol=1e-5), ours, prefilled)


def test_a_latent_cache_holds_one_vector_a_token_whatever_the_heads():
    cfg = preset('deepseek-v3')
    layer = jax.eval_shape(lambda: empty_cache(dataclasses.replace(cfg, n_layers=4), 2, 8)).layers[0]
    assert layer.k_SNTK.shape == (2, 1, 8, 512 + 64) and layer.v_SNTV is None


@every_family
@pytest.mark.parametrize('remat', ['none', 'dots', 'full'])
def test_a_loop_over_layers_equals_one_program_for_each_with_every_rematerialisation(cfg, remat):
    params, tokens = random_params(cfg), np.random.default_rng(1).integers(0, cfg.vocab_size, (2, 16))

    def value(params, cfg):
        out = run(params, cfg, tokens)
        return jnp.square(out.hidden_BTD @ transformer.head(params)).mean(), out.load_LE

    grad = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
    (wanted, wanted_load), wanted_grads = grad(params, cfg)
    (got, load), grads = grad(params, dataclasses.replace(cfg, scan_layers=True, remat=remat))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(grads)[0], jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()), err_msg=jax.tree_util.keystr(path))
    assert (load is None) == (cfg.experts is None)
    if load is not None:
        np.testing.assert_array_equal(load, wanted_load)
        assert load.shape == (cfg.n_layers - cfg.experts.dense_layers, cfg.experts.n)


def test_a_loop_prefills_what_unrolled_layers_do():
    cfg = FAMILIES['deepseek']
    params, tokens = random_params(cfg), np.random.default_rng(1).integers(0, cfg.vocab_size, (2, 16))
    wanted = run(params, cfg, tokens, prefill=True).cache
    got = run(params, dataclasses.replace(cfg, scan_layers=True), tokens, prefill=True).cache
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, wanted)


@every_family
def test_padded_batches_have_the_logits_of_transformers(cfg, tmp_path):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), random_params(cfg))
    hf.write(tmp_path, params, cfg, eos=2, bos=1)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation='eager')
    tokens = np.random.default_rng(1).integers(0, cfg.vocab_size, (2, 30))
    lengths = np.array([[30], [17]])
    for mask in (np.arange(30) < lengths, np.arange(30) >= 30 - lengths):  # padded on the right, on the left
        positions = np.maximum(mask.cumsum(1) - 1, 0)
        wanted = theirs(
            torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(int)), position_ids=torch.tensor(positions)).logits
        out = transformer.forward(params, tokens, positions, mask.astype(int), cfg)
        got = out.hidden_BTD @ transformer.head(params)
        np.testing.assert_allclose(got[mask], wanted.detach().numpy()[mask], atol=1e-4)


@pytest.mark.parametrize('family, start', [('llama3', 8_200), ('llama3', 100_000), ('deepseek', 1_000)])
def test_stretched_positions_have_the_logits_of_transformers(family, start, tmp_path):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    cfg = FAMILIES[family]
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), random_params(cfg))
    hf.write(tmp_path, params, cfg, eos=2, bos=1)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation='eager')
    tokens = np.random.default_rng(1).integers(0, cfg.vocab_size, (1, 40))
    # Far apart, so that every pair turns by another angle.
    positions = np.sort(np.random.default_rng(2).choice(start, 39, replace=False))[None]
    positions = np.concatenate([positions, [[start]]], 1)
    wanted = theirs(torch.tensor(tokens), position_ids=torch.tensor(positions)).logits
    got = transformer.forward(params, tokens, positions, np.ones_like(tokens), cfg).hidden_BTD @ transformer.head(params)
    np.testing.assert_allclose(got, wanted.detach().numpy(), atol=1e-4)
    plain = dataclasses.replace(cfg, rope_scaling=None)
    other = transformer.forward(params, tokens, positions, np.ones_like(tokens), plain).hidden_BTD @ transformer.head(params)
    assert np.abs(other - got).max() > 1e-2  # the scaling matters here


def test_llama_keeps_fast_pairs_and_slows_slow_ones_by_its_factor():
    plain = frequencies(preset('qwen2.5-14b'))
    cfg = preset('llama3.1-8b')
    ratio = frequencies(cfg) / frequencies(dataclasses.replace(cfg, rope_scaling=None))
    wavelength = 2 * np.pi / frequencies(dataclasses.replace(cfg, rope_scaling=None))
    np.testing.assert_array_equal(ratio[wavelength < 8192 / 4], 1)
    np.testing.assert_allclose(ratio[wavelength > 8192], 1 / 8, rtol=1e-6)
    between = ratio[(wavelength > 8192 / 4) & (wavelength < 8192)]
    assert len(between) and ((1 / 8 < between) & (between < 1)).all() and plain.dtype == np.float32


def test_deepseek_sharpens_attention_as_its_factor_says():
    cfg = preset('deepseek-v3')
    assert cfg.softmax_scale == pytest.approx(192**-0.5 * (0.1 * np.log(40) + 1) ** 2)
    assert cfg.rope_scaling.magnitude == 1.0
    assert Yarn(factor=4, mscale_all_dim=0).softmax_scale == 1 and Yarn(factor=4, mscale_all_dim=0).magnitude > 1


@pytest.mark.parametrize('change, sentence', [
    ({'rope_scaling': LlamaRope(factor=8), 'remat': 'some'}, "remat='some' must be"),
    ({'mtp': 2}, 'mtp=2 must be 0 or 1'),
    ({'latent': FAMILIES['deepseek'].latent, 'qk_norm': True}, 'latent attention has no'),
    ({'experts': dataclasses.replace(FAMILIES['deepseek'].experts, dense_layers=3)}, 'dense_layers=3 must be 0 to 2')])
def test_impossible_models_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(FAMILIES['qwen2'], **change)


def test_presets_have_the_published_numbers_of_parameters():
    # Billions: model cards of Qwen2.5, Llama 3 and SmolLM2; DeepSeek-V3, arXiv 2412.19437, section 4.2 (671 B without MTP).
    published = {
        'smollm2-135m': 0.1345, 'qwen2.5-math-1.5b': 1.54, 'qwen2.5-math-7b': 7.62, 'qwen2.5-14b': 14.77,
        'qwen2.5-32b': 32.76, 'llama3.1-8b': 8.03, 'llama3.3-70b': 70.55, 'deepseek-v3': 671.03}
    assert set(published) == {name for name in PRESETS if not name.startswith('tiny')}
    for name, billions in published.items():
        counted = transformer.n_params(dataclasses.replace(preset(name), mtp=0)) / 1e9
        assert counted == pytest.approx(billions, rel=4e-3), name
