"""Whatever is wrong with what is imported is told in one sentence that names it, and nothing is written."""

import json
import struct
import sys

import numpy as np
import pytest
import safetensors.numpy

from r1jax import __main__ as cli
from r1jax.errors import UserError
from r1jax.interop.sources import SafetensorsSource

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from tests.interop.folders import write_deepseek, write_folder, write_tokenizer  # noqa: E402  (they need these)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('whole') / 'in', 'llama 3', 'bfloat16')


@pytest.fixture
def folder(whole, tmp_path):
    """A copy in which the test may break things."""
    copy = tmp_path / 'in'
    copy.mkdir()
    for path in whole.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def refused(capsys, source, out=None) -> str:
    """Imports what must be refused; returns what was said."""
    out = out or source.parent / 'out'
    before = sorted(source.parent.rglob('*'))
    capsys.readouterr()
    assert cli.main(['import', f'--from={source}', f'--out={out}']) == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.startswith('r1jax: ') and said.err.count('\n') == 1
    assert sorted(source.parent.rglob('*')) == before
    return said.err


def test_an_undamaged_folder_is_imported_also_where_one_was_killed_before(folder, tmp_path):
    (tmp_path / '.out.tmp' / 'params').mkdir(parents=True)
    (tmp_path / '.out.tmp' / 'params' / 'half').write_text('half')
    assert cli.main(['import', f'--from={folder}', f'--out={tmp_path}/out']) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']
    assert not (tmp_path / 'out' / 'params' / 'half').exists()


def test_a_folder_that_is_there_is_left_alone(folder, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'mine').write_text('mine')
    assert 'out is there already; name a new folder' in refused(capsys, folder)
    assert cli.main(['import', f'--from={folder}', f'--out={tmp_path}/made']) == 0
    assert cli.main(['export', f'--checkpoint={tmp_path}/made', f'--out={tmp_path}/out']) == 2
    assert 'out is there already' in capsys.readouterr().err


def test_what_fails_while_it_is_written_leaves_nothing(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError('no space left on device')

    monkeypatch.setattr('r1jax.interop.convert.save_model', fail)
    with pytest.raises(OSError, match='no space'):
        cli.main(['import', f'--from={folder}', f'--out={tmp_path}/out'])
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_a_source_that_is_missing_or_empty(folder, tmp_path, capsys):
    assert f'there is no file or folder {tmp_path}/nowhere to import' in refused(capsys, tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    assert 'empty has no config.json' in refused(capsys, tmp_path / 'empty')
    (folder / 'model.safetensors').unlink()
    assert 'in has no *.safetensors' in refused(capsys, folder)


# ---- tensors ----


def with_tensors(folder, **changed):
    """Replaces, adds or (None) removes tensors; names with '/' for the dots."""
    path = folder / 'model.safetensors'
    tensors = safetensors.numpy.load_file(path) | {name.replace('/', '.'): x for name, x in changed.items()}
    safetensors.numpy.save_file({name: x for name, x in tensors.items() if x is not None}, path)


@pytest.mark.parametrize('changed, sentence', [
    ({'model/layers/1/mlp/up_proj/weight': None}, "the tensor 'model.layers.1.mlp.up_proj.weight' is missing"),
    ({'model/norm/weight': np.zeros(17, np.float32)},
     "'model.norm.weight' has shape (17,), its model's description wants (32,)"),
    ({'model/layers/7/mlp/up_proj/weight': np.zeros(3, np.float32)}, "'model.layers.7.mlp.up_proj.weight' has no place"),
    ({'model/norm/weight': np.full(32, np.nan, np.float32)}, "'model.norm.weight' holds numbers that are not finite"),
    ({'model/norm/weight': np.full(32, np.inf, np.float16)}, "'model.norm.weight' holds numbers that are not finite"),
    ({'model/norm/weight': np.zeros(32, np.int8)}, "the tensor 'model.norm.weight' is of the type I8"),
])
def test_a_tensor_that_is_wrong(folder, capsys, changed, sentence):
    with_tensors(folder, **changed)
    assert sentence in refused(capsys, folder)


def test_a_copy_of_the_embedding_that_is_none(tmp_path, capsys):
    """Files of tied models may hold their head as well; transformers uses it where it differs."""
    folder = write_folder(tmp_path / 'in', 'qwen2 tied', 'float32')
    head = safetensors.numpy.load_file(folder / 'model.safetensors')['model.embed_tokens.weight']
    with_tensors(folder, **{'lm_head/weight': head + 1})
    assert "'lm_head.weight' ought to repeat 'model.embed_tokens.weight'" in refused(capsys, folder)
    with_tensors(folder, **{'lm_head/weight': head})
    assert cli.main(['import', f'--from={folder}', f'--out={tmp_path}/out']) == 0


def test_float8_without_the_factors_of_its_blocks(tmp_path, capsys):
    folder = tmp_path / 'in'
    write_deepseek(folder, float8=True)
    name, path = 'model.layers.0.mlp.up_proj.weight', folder / 'model-00002-of-00002.safetensors'
    import safetensors.torch

    tensors = safetensors.torch.load_file(path)
    other = safetensors.torch.load_file(folder / 'model-00001-of-00002.safetensors')
    factors = f'{name}_scale_inv'
    held, held_in = (tensors, path) if factors in tensors else (other, folder / 'model-00001-of-00002.safetensors')
    safetensors.torch.save_file(held | {factors: torch.ones(1, 3)}, held_in)
    assert f"the tensor '{name}' (48, 32) has factors of shape (1, 3), not (1, 1)" in refused(capsys, folder)
    held.pop(factors)
    safetensors.torch.save_file(held, held_in)
    assert f"the tensor '{name}' is float8 and its factors '{factors}' are missing" in refused(capsys, folder)


# ---- files ----


def test_a_file_that_is_cut_anywhere_is_named(folder, capsys):
    path = folder / 'model.safetensors'
    data = path.read_bytes()
    for length in (0, 5, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert 'model.safetensors is damaged' in refused(capsys, folder)
    path.write_bytes(data[:-1])
    assert "it ends within the tensor 'model.norm.weight', 1 bytes too early" in refused(capsys, folder)
    path.write_bytes(data + b'more')
    assert 'is damaged: 4 bytes follow its last tensor' in refused(capsys, folder)


def test_a_header_that_does_not_fit_its_file_is_damage(folder):
    path = folder / 'model.safetensors'
    data = path.read_bytes()
    (length,) = struct.unpack('<Q', data[:8])
    header, rest = json.loads(data[8:8 + length]), data[8 + length:]
    name = 'model.norm.weight'

    def write(header):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack('<Q', len(text)) + text + rest)

    write(header)
    assert SafetensorsSource(folder).shapes[name] == (32,)
    entry = header[name]
    start, end = entry['data_offsets']
    for wrong in (
            b'{', b'\xff\xfe', b'[]', b'{"a": 1}', header | {name: entry | {'shape': [33]}},
            header | {name: entry | {'shape': ['x']}}, header | {name: entry | {'shape': None}},
            header | {name: entry | {'dtype': 'F32'}}, header | {name: entry | {'data_offsets': [start - 2, end]}},
            header | {name: entry | {'data_offsets': [end, start]}}, header | {name: entry | {'data_offsets': [start]}},
            header | {name: entry | {'data_offsets': ['a', 'b']}}, header | {name: {}}):
        write(wrong)
        with pytest.raises(UserError, match='model.safetensors is damaged'):
            SafetensorsSource(folder)
    path.write_bytes(struct.pack('<Q', 2**63) + data[8:])
    with pytest.raises(UserError, match='model.safetensors is damaged'):
        SafetensorsSource(folder)


def test_files_that_the_index_names(tmp_path, capsys):
    folder = write_folder(tmp_path / 'in', 'llama', 'bfloat16', shard='20kB')
    index = folder / 'model.safetensors.index.json'
    raw = json.loads(index.read_text())
    file = raw['weight_map']['model.layers.1.mlp.up_proj.weight']
    (folder / file).rename(tmp_path / 'away')
    assert f"the file '{file}', which model.safetensors.index.json names, is missing" in refused(capsys, folder)
    (tmp_path / 'away').rename(folder / file)
    (folder / 'backup.safetensors').write_bytes((folder / file).read_bytes())  # not in the index, so not read
    assert cli.main(['import', f'--from={folder}', f'--out={tmp_path}/out']) == 0
    for text in ('{', '[]', '{}', json.dumps({'weight_map': 3}), json.dumps({'weight_map': {'a': None}})):
        index.write_text(text)
        assert 'is no index of safetensors' in refused(capsys, folder, tmp_path / 'new')
    index.unlink()
    assert "is in backup.safetensors as well" in refused(capsys, folder, tmp_path / 'new')


# ---- config.json and the tokenizer ----


@pytest.mark.parametrize('change, sentence', [
    ({'hidden_size': None}, "config.json is no model description: it lacks 'hidden_size'"),
    ({'rms_norm_eps': None}, "it lacks 'rms_norm_eps'"),
    ({'architectures': None}, "it lacks 'architectures'"),
    ({'architectures': ['MixtralForCausalLM']}, "cannot read the architecture 'MixtralForCausalLM'"),
    ({'num_attention_heads': 0, 'head_dim': None}, 'config.json is no model description'),
    ({'rope_parameters': {'rope_type': 'longrope', 'factor': 4}}, "its rotary scaling 'longrope'"),
    ({'rope_parameters': {'rope_type': 'llama3', 'factor': 4}}, "it lacks 'low_freq_factor'"),
    ({'layer_types': ['full_attention', 'sliding_attention']}, "layer_types has 'sliding_attention'"),
    ({'quantization_config': {'quant_method': 'gptq', 'bits': 4}}, "quantization_config has quant_method='gptq'"),
    ({'quantization_config': {'quant_method': 'fp8', 'fmt': 'e4m3', 'weight_block_size': [64, 64]}},
     'weight_block_size=[64, 64]'),
    ({'num_hidden_layers': 3}, "the tensor 'model.layers.2.input_layernorm.weight' is missing"),
    ({'vocab_size': 256}, 'its tokenizer has 282 tokens, and its model an embedding of 256'),
])
def test_a_description_of_another_model(folder, capsys, change, sentence):
    path = folder / 'config.json'
    raw = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    assert sentence in refused(capsys, folder)


def test_a_tokenizer_that_is_missing_or_damaged(folder, capsys):
    (folder / 'tokenizer.json').write_text('{"version"')
    assert 'tokenizer.json: the tokenizers package cannot read it' in refused(capsys, folder)
    (folder / 'tokenizer.json').unlink()
    assert 'the folder must hold tokenizer.json or one *.model file' in refused(capsys, folder)
    write_tokenizer(folder)
    assert cli.main(['import', f'--from={folder}', f'--out={folder.parent}/out']) == 0


def test_gguf_without_its_package(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gguf', None)
    (tmp_path / 'model.gguf').write_bytes(b'GGUF')
    assert "through the package 'gguf': pip install 'r1jax[gguf]'" in refused(capsys, tmp_path / 'model.gguf')
