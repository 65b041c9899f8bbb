"""The prediction of the token after the next one, against transformers' module."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.interop import hf
from r1jax.interop.sources import SafetensorsSource
from r1jax.models import transformer
from r1jax.models.mtp import predict_second
from tests.families import FAMILIES

CFG = dataclasses.replace(FAMILIES['deepseek'], mtp=1)


def random_params(cfg):
    params, rng = transformer.init(jax.random.key(0), cfg), np.random.default_rng(0)
    return jax.tree.map(lambda x: (x + 0.1 * rng.normal(size=x.shape)).astype(jnp.bfloat16).astype(jnp.float32), params)


def second(params, tokens, segments, positions):
    hidden = transformer.forward(params, tokens, positions, segments, CFG).hidden_BTD
    return predict_second(params, hidden, np.roll(tokens, -1, axis=1), positions, segments, CFG).hidden_BTD


def test_it_is_the_module_that_transformers_reads_from_the_same_folder(tmp_path):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    modeling_layers = pytest.importorskip('transformers.modeling_layers')
    params, tokens = random_params(CFG), np.random.default_rng(1).integers(0, CFG.vocab_size, (2, 24))
    hf.write(tmp_path, params, CFG, eos=2, bos=1)
    main = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation='eager')
    main._keys_to_ignore_on_load_unexpected = [rf'model\.layers\.{CFG.n_layers}.*']  # names DeepSeek-V3's own layer 61
    module = modeling_layers.MtpModel.from_pretrained(main)
    hidden = main.model(torch.tensor(tokens)).last_hidden_state
    wanted = module.forward_layer(
        0, hidden[:, :-1], torch.arange(1, 24)[None].expand(2, -1), None, input_ids=torch.tensor(tokens[:, 1:]))
    positions = np.tile(np.arange(24), (2, 1))
    got = second(params, tokens, np.ones_like(tokens), positions)
    np.testing.assert_allclose(got[:, :-1], wanted.detach().numpy(), atol=1e-4)


def test_packed_sequences_do_not_see_each_other():
    params, rng = random_params(CFG), np.random.default_rng(2)
    a, b = rng.integers(0, 96, 9), rng.integers(0, 96, 12)
    packed = second(
        params, np.concatenate([a, b])[None], np.array([[1] * 9 + [2] * 12]), np.array([[*range(9), *range(12)]]))[0]
    for tokens, start in ((a, 0), (b, 9)):
        alone = second(params, tokens[None], np.ones((1, len(tokens)), int), np.arange(len(tokens))[None])[0]
        # At its last token it reads what follows, which is nothing of this sequence.
        np.testing.assert_allclose(packed[start:start + len(tokens) - 1], alone[:-1], atol=1e-5)


def test_a_round_trip_keeps_it(tmp_path):
    params = random_params(CFG)
    hf.write(tmp_path, params, CFG, eos=2, bos=1)
    assert hf.read_config(tmp_path) == CFG
    jax.tree.map(np.testing.assert_array_equal, hf.read_params(SafetensorsSource(tmp_path), CFG), params)


def test_a_reward_model_has_none():
    params, cfg = transformer.with_scalar_head(random_params(CFG), CFG, jax.random.key(0))
    assert params.mtp is None and cfg.mtp == 0
    assert jax.tree.structure(params) == jax.tree.structure(transformer.abstract(cfg))
