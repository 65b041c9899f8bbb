"""A model folder small enough to train in a test: tiny-world tokenizer, random weights."""

import jax
import pytest

from r1jax.data import tinyworld, tokenizers
from r1jax.models import transformer
from r1jax.models.config import Experts, ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.runtime.checkpoint import Model, save_model
from r1jax.stages.base import Inputs

# A mixture of experts with MTP.
MIXTURE = ModelConfig(
    vocab_size=640, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=48, tie_embeddings=True,
    max_positions=256, mtp=1, experts=Experts(n=4, per_token=2, d_ff=16, dense_layers=1))


@pytest.fixture(scope='session')
def tokenizer(tmp_path_factory):
    documents = (tinyworld.document_at(i) for i in range(1500))
    return tokenizers.train_sentencepiece(documents, tmp_path_factory.mktemp('raw') / 'tokenizer.model', 640)


@pytest.fixture(scope='session')
def model_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp('model')
    cfg = ModelConfig(
        vocab_size=640, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=48, tie_embeddings=True,
        max_positions=256)
    save_model(folder / 'model', Model(transformer.init(jax.random.key(0), cfg), cfg, tokenizer))
    return folder / 'model'


@pytest.fixture(scope='session')
def mixture_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp('mixture') / 'model'
    save_model(folder, Model(transformer.init(jax.random.key(0), MIXTURE), MIXTURE, tokenizer))
    return folder


@pytest.fixture
def inputs(model_folder):
    return Inputs('rl', 3, make_mesh(MeshConfig(data=2), jax.devices()[:2]), str(model_folder))


@pytest.fixture
def mixture(mixture_folder):
    return Inputs('rl', 3, make_mesh(MeshConfig(data=1, expert=2), jax.devices()[:2]), str(mixture_folder))
