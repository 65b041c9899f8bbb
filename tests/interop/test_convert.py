"""`import` and `export` as users run them: nothing changes on the way, what is wrong is named, nothing is left behind."""

import json

import jax
import numpy as np
import pytest

from r1jax import __main__ as cli
from r1jax.data import tinyworld, tokenizers
from r1jax.models import transformer
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from r1jax.runtime.checkpoint import load_model
from tests.interop.folders import MODELS, build, same_bits, tensors, write_deepseek, write_folder, write_tokenizer

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

SAVED = (
    'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'chat_template.jinja', 'generation_config.json')


def convert(source, folder, *flags):
    """Imports, exports, and returns what came out."""
    assert cli.main(['import', f'--from={source}', f'--out={folder}/model']) == 0
    assert cli.main(['export', f'--checkpoint={folder}/model', f'--out={folder}/out', *flags]) == 0
    return folder / 'out'


def logits(folder, reward):
    auto = transformers.AutoModelForSequenceClassification if reward else transformers.AutoModelForCausalLM
    model, said = auto.from_pretrained(folder, output_loading_info=True)
    assert not said['missing_keys'] and not said['mismatched_keys']
    tokens = torch.tensor(np.random.default_rng(0).integers(0, 320, (1, 100)))
    return model, model(tokens).logits


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('name', [*MODELS, 'qwen2 tied reward', 'llama 3 reward', 'qwen3 tied reward', 'deepseek_v3 reward'])
def test_what_transformers_wrote_comes_back_bit_for_bit(tmp_path, name, dtype):
    reward, name = name.endswith('reward'), name.removesuffix(' reward')
    write_folder(tmp_path / 'in', name, dtype, reward=reward, shard='30kB' if dtype != 'float32' else '5GB')
    assert (tmp_path / 'in' / 'model.safetensors').exists() == (dtype == 'float32')
    out = convert(tmp_path / 'in', tmp_path, *(['--shard_gb=0.00003'] if dtype != 'float32' else []))
    assert (out / 'model.safetensors').exists() == (dtype == 'float32')
    before, after = tensors(tmp_path / 'in'), tensors(out)
    assert before.keys() == after.keys()
    assert [name for name in before if not same_bits(before[name], after[name])] == []
    for file in SAVED:
        assert (tmp_path / 'in' / file).read_bytes() == (out / file).read_bytes(), file
    (one, wanted), (other, got) = logits(tmp_path / 'in', reward), logits(out, reward)
    assert type(one) is type(other) and one.dtype == other.dtype == getattr(torch, dtype)
    assert torch.equal(wanted, got) and wanted.isfinite().all() and (wanted != 0).all()
    texts = 'let me think', '<|user|>12 + 34<|end|> 中文'
    a, b = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / 'in', out))
    assert [a.encode(text) for text in texts] == [b.encode(text) for text in texts]
    chat = [{'role': 'user', 'content': 'hi'}]
    assert b.apply_chat_template(chat, tokenize=False) == a.apply_chat_template(chat, tokenize=False) == '<|user|>hi<|end|>'
    assert reward or other.generation_config.eos_token_id == [1, 2]


@pytest.mark.parametrize('name', ['deepseek_v3', 'smollm2'])
def test_the_tokenizers_of_real_models_come_along(shared, tmp_path, name):
    size = {'vocab_size': 129_280, 'hidden_size': 8, 'intermediate_size': 8, 'num_hidden_layers': 1}
    build('llama', 'bfloat16', **size).save_pretrained(tmp_path / 'in')
    files = [path for path in (shared / 'tokenizers' / name).iterdir() if path.name.startswith('tokenizer')]
    for path in files:
        (tmp_path / 'in' / path.name).write_bytes(path.read_bytes())
    out = convert(tmp_path / 'in', tmp_path)
    for path in files:
        assert (out / path.name).read_bytes() == path.read_bytes()
    one, other = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / 'in', out))
    chat = [{'role': 'user', 'content': "What's 12345 + 67? 中文"}]
    assert one.apply_chat_template(chat, return_dict=False) == other.apply_chat_template(chat, return_dict=False)
    assert (one.bos_token_id, one.eos_token_id) == (other.bos_token_id, other.eos_token_id)


def test_an_imported_model_is_trained_in_float32_and_exported_in_any_type(tmp_path):
    write_folder(tmp_path / 'in', 'qwen2', 'bfloat16')
    out = convert(tmp_path / 'in', tmp_path, '--dtype=float32')
    before, after = tensors(tmp_path / 'in'), tensors(out)
    assert all(after[name].dtype == torch.float32 and torch.equal(after[name], x.float()) for name, x in before.items())
    assert json.loads((out / 'config.json').read_text())['torch_dtype'] == 'float32'
    sharding = Sharding(make_mesh(MeshConfig(data=4, fsdp=2)), TRAINING)
    for folder in ('in', 'model'):
        params = load_model(tmp_path / folder, sharding).params
        assert {str(x.dtype) for x in params.layers.attn.__dict__.values() if x is not None} == {'float32'}
        np.testing.assert_array_equal(params.embed_VD, before['model.embed_tokens.weight'].float().numpy())


@pytest.mark.parametrize('name', ['tiny_base', 'tiny_student'])
def test_a_shipped_model_has_its_logits_in_transformers(tmp_path, name):
    assert cli.main(['export', f'--checkpoint=package:{name}', f'--out={tmp_path}/out']) == 0
    model = load_model(f'package:{name}', Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), TRAINING))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out', dtype=torch.float32)
    # Not with AutoTokenizer: what transformers makes of a SentencePiece model with symbols of its own cuts otherwise.
    tokenizer = tokenizers.load(tmp_path / 'out')
    assert tokenizer.eos_id == model.tokenizer.eos_id == theirs.generation_config.eos_token_id
    tokens = np.array([tokenizer.encode(tinyworld.document_at(0)[:400])])
    where = np.arange(tokens.size)[None]
    out = transformer.forward(model.params, tokens, where, np.ones_like(tokens), model.cfg)
    wanted = theirs(torch.tensor(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(out.hidden_BTD @ transformer.head(model.params), wanted, atol=1e-3)


def test_a_number_that_a_type_cannot_hold_is_not_written(tmp_path, capsys):
    model = build('llama', 'float32')
    model.model.norm.weight.data[3] = 1e6
    model.save_pretrained(tmp_path / 'in')
    write_tokenizer(tmp_path / 'in')
    assert cli.main(['import', f'--from={tmp_path}/in', f'--out={tmp_path}/model']) == 0
    assert cli.main(['export', f'--checkpoint={tmp_path}/model', f'--out={tmp_path}/out', '--dtype=float16']) == 2
    assert "'model.norm.weight' holds numbers that are not finite in float16" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'model']


@pytest.mark.parametrize('sizes', [{}, {'hidden_size': 192, 'intermediate_size': 256, 'moe_intermediate_size': 136}])
@pytest.mark.parametrize('float8', [False, True])
def test_what_deepseek_released_comes_back(tmp_path, sizes, float8):
    """With the module for the token after the next one, and blocks of float8 as bfloat16."""
    wanted = write_deepseek(tmp_path / 'in', float8=float8, **sizes)
    after = tensors(convert(tmp_path / 'in', tmp_path))
    assert wanted.keys() == after.keys()
    assert [name for name in wanted if not same_bits(wanted[name], after[name])] == []
    description = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert description['num_nextn_predict_layers'] == 1 and 'quantization_config' not in description
    # transformers passes over that module, and writes config.json as if it were there.
    model, said = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out', output_loading_info=True)
    assert not said['missing_keys']
    model.save_pretrained(tmp_path / 'without')
    write_tokenizer(tmp_path / 'without')
    again = tensors(convert(tmp_path / 'without', tmp_path / 'again'))
    assert again.keys() == {name for name in wanted if not name.startswith('model.layers.3.')}
    assert json.loads((tmp_path / 'again' / 'out' / 'config.json').read_text())['num_nextn_predict_layers'] == 0
