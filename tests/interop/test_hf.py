"""Hugging Face folders: round trips, and damage that is named before anything runs. (Logits: tests/models.)"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from r1jax.errors import UserError
from r1jax.interop import hf
from r1jax.interop.sources import SafetensorsSource
from r1jax.models import transformer
from r1jax.models.config import LlamaRope, ModelConfig, Yarn
from r1jax.models.presets import preset
from tests.families import FAMILIES

CFG = ModelConfig(
    vocab_size=40, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24, qkv_bias=True, max_positions=32)


# config.json of models on their public pages, with what is of no concern here.
RELEASED = {
    'qwen2.5-14b': {
        'architectures': ['Qwen2ForCausalLM'], 'attention_dropout': 0.0, 'bos_token_id': 151643, 'eos_token_id': 151643,
        'hidden_act': 'silu', 'hidden_size': 5120, 'initializer_range': 0.02, 'intermediate_size': 13824,
        'max_position_embeddings': 131072, 'max_window_layers': 48, 'model_type': 'qwen2', 'num_attention_heads': 40,
        'num_hidden_layers': 48, 'num_key_value_heads': 8, 'rms_norm_eps': 1e-05, 'rope_theta': 1000000.0,
        'sliding_window': 131072, 'tie_word_embeddings': False, 'torch_dtype': 'bfloat16', 'transformers_version': '4.43.1',
        'use_cache': True, 'use_sliding_window': False, 'vocab_size': 152064},
    'llama3.1-8b': {
        'architectures': ['LlamaForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0, 'bos_token_id': 128000,
        'eos_token_id': [128001, 128008, 128009], 'hidden_act': 'silu', 'hidden_size': 4096, 'initializer_range': 0.02,
        'intermediate_size': 14336, 'max_position_embeddings': 131072, 'mlp_bias': False, 'model_type': 'llama',
        'num_attention_heads': 32, 'num_hidden_layers': 32, 'num_key_value_heads': 8, 'pretraining_tp': 1,
        'rms_norm_eps': 1e-05, 'rope_scaling': {
            'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 8192,
            'rope_type': 'llama3'},
        'rope_theta': 500000.0, 'tie_word_embeddings': False, 'torch_dtype': 'bfloat16', 'use_cache': True,
        'vocab_size': 128256},
    'deepseek-v3': {
        'architectures': ['DeepseekV3ForCausalLM'], 'attention_bias': False, 'attention_dropout': 0.0,
        'auto_map': {'AutoConfig': 'configuration_deepseek.DeepseekV3Config'}, 'aux_loss_alpha': 0.001, 'bos_token_id': 0,
        'eos_token_id': 1, 'ep_size': 1, 'first_k_dense_replace': 3, 'hidden_act': 'silu', 'hidden_size': 7168,
        'initializer_range': 0.02, 'intermediate_size': 18432, 'kv_lora_rank': 512, 'max_position_embeddings': 163840,
        'model_type': 'deepseek_v3', 'moe_intermediate_size': 2048, 'moe_layer_freq': 1, 'n_group': 8,
        'n_routed_experts': 256, 'n_shared_experts': 1, 'norm_topk_prob': True, 'num_attention_heads': 128,
        'num_experts_per_tok': 8, 'num_hidden_layers': 61, 'num_key_value_heads': 128, 'num_nextn_predict_layers': 1,
        'pretraining_tp': 1, 'q_lora_rank': 1536, 'qk_nope_head_dim': 128, 'qk_rope_head_dim': 64,
        'quantization_config': {
            'activation_scheme': 'dynamic', 'fmt': 'e4m3', 'quant_method': 'fp8', 'weight_block_size': [128, 128]},
        'rms_norm_eps': 1e-06, 'rope_scaling': {
            'beta_fast': 32, 'beta_slow': 1, 'factor': 40, 'mscale': 1.0, 'mscale_all_dim': 1.0,
            'original_max_position_embeddings': 4096, 'type': 'yarn'},
        'rope_theta': 10000, 'routed_scaling_factor': 2.5, 'scoring_func': 'sigmoid', 'seq_aux': True,
        'tie_word_embeddings': False, 'topk_group': 4, 'topk_method': 'noaux_tc', 'torch_dtype': 'bfloat16',
        'use_cache': True, 'v_head_dim': 128, 'vocab_size': 129280},
}


@pytest.mark.parametrize('name', RELEASED)
def test_descriptions_of_released_models_are_the_presets(name):
    assert hf.config_of(RELEASED[name], 'config.json') == dataclasses.replace(preset(name), dtype='float32')


@pytest.mark.parametrize('change, factor', [
    ({'rope_scaling': {'type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 32}}, 4),
    ({'rope_scaling': {'rope_type': 'yarn', 'factor': 2, 'original_max_position_embeddings': 16, 'beta_fast': 8}}, 2)])
def test_a_stretched_qwen_has_the_logits_of_transformers(tmp_path, change, factor):
    """As Qwen2.5's pages have it for long contexts; transformers sharpens attention by the factor itself there."""
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    params = transformer.init(jax.random.key(0), CFG)
    hf.write(tmp_path, params, CFG, eos=2, bos=1)
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change | {'max_position_embeddings': 128}))
    cfg = hf.read_config(tmp_path)
    assert cfg.rope_scaling.factor == factor and cfg.rope_scaling.magnitude > 1
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation='eager')
    tokens = np.random.default_rng(0).integers(0, CFG.vocab_size, (1, 100))
    hidden = transformer.forward(params, tokens, np.arange(100)[None], np.ones_like(tokens), cfg).hidden_BTD
    np.testing.assert_allclose(
        hidden @ transformer.head(params), theirs(torch.tensor(tokens)).logits.detach().numpy(), atol=1e-4)


def test_what_no_family_of_transformers_is_made_of_is_not_written(tmp_path):
    for change in ({'qk_norm': True}, {'experts': FAMILIES['deepseek'].experts, 'n_layers': 3}):
        cfg = dataclasses.replace(CFG, **change)
        with pytest.raises(UserError, match='no family of transformers has the parts of this model'):
            hf.write(tmp_path / 'out', transformer.init(jax.random.key(0), cfg), cfg, eos=2, bos=1)
    assert not (tmp_path / 'out').exists()


@pytest.fixture
def folder(tmp_path):
    params = transformer.init(jax.random.key(0), CFG)
    hf.write(tmp_path, jax.tree.map(lambda x: x + 0.5, params), CFG, eos=2, bos=1)
    return tmp_path


@pytest.mark.parametrize(
    'change', [{}, {'tie_embeddings': True}, {'qkv_bias': False}, {'scalar_head': True},
               {'scalar_head': True, 'qkv_bias': False, 'tie_embeddings': True},
               {'qkv_bias': False, 'qk_norm': True}, {'qkv_bias': False, 'rope_scaling': LlamaRope(factor=8)},
               {'rope_scaling': Yarn(factor=4, mscale_all_dim=0)}, vars(FAMILIES['deepseek']),
               vars(FAMILIES['deepseek']) | {'scalar_head': True}], ids=lambda change: str(change)[:60])
def test_a_round_trip_keeps_config_and_every_bfloat16_bit(tmp_path, change):
    cfg = dataclasses.replace(CFG, **change)
    params = jax.tree.map(lambda x: (x + 0.1).astype(jnp.bfloat16), transformer.init(jax.random.key(1), cfg))
    hf.write(tmp_path, params, cfg, eos=2, bos=None)
    assert hf.read_config(tmp_path) == cfg
    back = hf.read_params(SafetensorsSource(tmp_path), cfg)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), b)


@pytest.mark.parametrize('family', ['Qwen2', 'Llama'])
def test_a_reward_model_scores_as_the_classifier_that_transformers_reads(tmp_path, family):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    policy = dataclasses.replace(CFG, qkv_bias=family == 'Qwen2', tie_embeddings=family == 'Qwen2')
    params = jax.tree.map(lambda x: x + 0.1, transformer.init(jax.random.key(0), policy))
    params, cfg = transformer.with_scalar_head(params, policy, jax.random.key(1))
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    hf.write(tmp_path / 'ours', params, cfg, eos=2, bos=1)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / 'ours', dtype=torch.float32, attn_implementation='eager')
    assert type(theirs).__name__ == f'{family}ForSequenceClassification'
    for tokens in np.random.default_rng(0).integers(0, cfg.vocab_size, (3, 1, 20)):
        out = transformer.forward(params, tokens, np.arange(20)[None], np.ones_like(tokens), cfg)
        wanted = theirs(torch.tensor(tokens)).logits.detach().numpy()
        assert wanted.shape == (1, 1) and abs(wanted[0, 0]) > 1e-2
        np.testing.assert_allclose(transformer.scores(params, out.hidden_BTD)[:, -1:], wanted, atol=1e-5)
    # And back, from the folder that transformers writes.
    theirs.save_pretrained(tmp_path / 'theirs')
    assert hf.read_config(tmp_path / 'theirs') == cfg
    back = hf.read_params(SafetensorsSource(tmp_path / 'theirs'), cfg)
    assert jax.tree.structure(back) == jax.tree.structure(params) and back.head_DV.shape[1] == 1
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_classifier_of_several_labels_is_no_reward_model(folder):
    path = folder / 'config.json'
    raw = json.loads(path.read_text()) | {'architectures': ['Qwen2ForSequenceClassification']}
    for labels in ({}, {'num_labels': 2}, {'id2label': {'0': 'a', '1': 'b'}}):  # two are the default in transformers
        path.write_text(json.dumps(raw | labels))
        with pytest.raises(UserError, match='a reward model has one label, this one has 2'):
            hf.read_config(folder)
    path.write_text(json.dumps(raw | {'id2label': {'0': 'a'}}))
    with pytest.raises(UserError, match="the tensor 'score.weight' is missing"):
        hf.read_params(SafetensorsSource(folder), hf.read_config(folder))


def edit(folder, change):
    path = folder / 'model.safetensors'
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


def test_a_missing_tensor_is_named(folder):
    edit(folder, lambda t: t.pop('model.layers.1.mlp.up_proj.weight'))
    with pytest.raises(UserError, match=r"the tensor 'model.layers.1.mlp.up_proj.weight' is missing"):
        hf.read_params(SafetensorsSource(folder), CFG)


def test_a_tensor_of_another_shape_is_named(folder):
    edit(folder, lambda t: t.update({'model.norm.weight': np.zeros(17, np.float32)}))
    with pytest.raises(UserError, match=r"'model.norm.weight' has shape \(17,\), .* wants \(16,\)"):
        hf.read_params(SafetensorsSource(folder), CFG)


def test_a_truncated_file_is_named(folder):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r'model.safetensors is damaged'):
        hf.read_params(SafetensorsSource(folder), CFG)


def test_other_architectures_and_rotary_scalings_are_refused(folder):
    path = folder / 'config.json'
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {'architectures': ['Qwen2MoeForCausalLM']}))
    with pytest.raises(UserError, match="did you mean 'Qwen2ForCausalLM'"):
        hf.read_config(folder)
    for scaling in ({'rope_type': 'dynamic', 'factor': 8},
                    {'type': 'yarn', 'factor': 8, 'original_max_position_embeddings': 32, 'attention_factor': 2}):
        path.write_text(json.dumps(raw | {'rope_scaling': scaling}))
        with pytest.raises(UserError, match=f"rotary scaling '{scaling.get('type', 'dynamic')}'.* is not supported"):
            hf.read_config(folder)
    for change, sentence in (
            ({'hidden_act': 'gelu'}, "hidden_act='gelu' is not supported, only 'silu' is"),
            ({'use_sliding_window': True}, 'use_sliding_window=True is not supported'),
            ({'mlp_bias': True}, 'mlp_bias=True is not supported')):
        path.write_text(json.dumps(raw | change))
        with pytest.raises(UserError, match=sentence):
            hf.read_config(folder)
    for text in ('{', '[]', json.dumps(raw | {'architectures': None}), json.dumps(raw | {'rope_scaling': 'yarn'}),
                 json.dumps(raw | {'rope_scaling': {'rope_type': 'llama3', 'factor': 8}})):
        path.write_text(text)
        with pytest.raises(UserError, match='is no model description'):
            hf.read_config(folder)


def test_a_tensor_without_a_place_is_named(folder):
    edit(folder, lambda t: t.update({'model.layers.0.self_attn.o_proj.bias': np.zeros(16, np.float32)}))
    with pytest.raises(UserError, match="'model.layers.0.self_attn.o_proj.bias' has no place in the model"):
        hf.read_params(SafetensorsSource(folder), CFG)
    edit(folder, lambda t: (
        t.pop('model.layers.0.self_attn.o_proj.bias'),
        t.update({'model.layers.0.self_attn.rotary_emb.inv_freq': np.zeros(4, np.float32)})))
    hf.read_params(SafetensorsSource(folder), CFG)


def test_a_llama_with_biases_is_read_with_them(folder):
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'architectures': ['LlamaForCausalLM']}))
    assert hf.read_config(folder).qkv_bias
    path.write_text(json.dumps(json.loads(path.read_text()) | {'attention_bias': False}))
    with pytest.raises(UserError, match="q_proj.bias' has no place|k_proj.bias' has no place"):
        hf.read_params(SafetensorsSource(folder), hf.read_config(folder))
