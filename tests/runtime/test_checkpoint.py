"""Model folders and checkpoints: what is written is what is read, on another mesh too; what is missing is named."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.data import tinyworld, tokenizers
from r1jax.errors import UserError
from r1jax.models import transformer
from r1jax.models.config import Execution, ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from r1jax.runtime.checkpoint import Checkpoints, Model, load_model, resolve, save_model

CFG = ModelConfig(vocab_size=400, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=32, max_positions=32)
EIGHT = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), TRAINING)
ONE = Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), TRAINING)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tokenizer')
    tokenizer = tokenizers.train_sentencepiece(
        (tinyworld.document_at(i, recipe='plain') for i in range(300) if i % 2), folder / 'tokenizer.model', 640)
    cfg = ModelConfig(**{**vars(CFG), 'vocab_size': 640})
    params = jax.device_put(transformer.init(jax.random.key(3), cfg), transformer.shardings(cfg, EIGHT))
    return Model(params, cfg, tokenizer)


def test_a_model_folder_is_read_back_on_any_mesh(model, tmp_path):
    save_model(tmp_path / 'stage' / 'model', model)
    for sharding in (EIGHT, ONE):
        back = load_model(tmp_path / 'stage', sharding)  # the stage's folder will do as well as its model/
        assert back.cfg == model.cfg
        assert back.tokenizer.encode('what is 3+4?') == model.tokenizer.encode('what is 3+4?')
        for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(back.params), strict=True):
            np.testing.assert_array_equal(a, b)
            assert b.sharding.mesh == sharding.mesh


def test_how_a_model_is_run_is_told_anew_each_time_and_not_in_its_folder(model, tmp_path):
    execution = Execution('bfloat16', scan_layers=True, remat='dots')
    save_model(tmp_path / 'model', Model(model.params, execution.of(model.cfg), model.tokenizer))
    assert not {'scan_layers', 'remat'} & json.loads((tmp_path / 'model' / 'model.json').read_text()).keys()
    read = load_model(tmp_path, ONE).cfg
    assert (read.dtype, read.scan_layers, read.remat) == ('bfloat16', False, 'none')
    again = load_model(tmp_path, ONE, Execution('float32', scan_layers=True, remat='full')).cfg
    assert (again.dtype, again.scan_layers, again.remat) == ('float32', True, 'full')


def test_a_reward_model_is_read_back_with_its_head(model, tmp_path):
    params, cfg = transformer.with_scalar_head(model.params, model.cfg, jax.random.key(1))
    save_model(tmp_path / 'model', Model(params, cfg, model.tokenizer))
    for sharding in (EIGHT, ONE):
        back = load_model(tmp_path, sharding)
        assert back.cfg == cfg and back.cfg.scalar_head and back.params.head_DV.shape[1] == 1
        np.testing.assert_array_equal(back.params.head_DV, params.head_DV)


def test_missing_and_broken_folders_are_named(model, tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        resolve(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='has no model.json and no config.json'):
        resolve(tmp_path)
    with pytest.raises(UserError, match="no model named 'huge' ships with the package"):
        resolve('package:huge')
    save_model(tmp_path / 'model', model)
    (tmp_path / 'model' / 'model.json').write_text('{"vocab_size": 4}')
    with pytest.raises(UserError, match='is no model description'):
        load_model(tmp_path, ONE)


def test_checkpoints_keep_state_and_position_and_only_the_newest(tmp_path):
    state = {'w': jnp.arange(6.0).reshape(2, 3), 'step': jnp.int32(0)}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest() is None
        for step in (2, 4, 6):
            checkpoints.save(step, jax.tree.map(lambda x: x + step, state), {'examples': 10 * step})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 6
        back, position = checkpoints.restore(6, state)
    assert position == {'examples': 60}
    np.testing.assert_array_equal(back['w'], state['w'] + 6)
    assert back['step'].dtype == jnp.int32
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ['4', '6']
