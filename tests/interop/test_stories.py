"""A real model, of which it is known what it writes: stories260K, from the layout of llama2.c."""

import math
import pathlib

import jax
import numpy as np
import pytest

from r1jax import __main__ as cli
from r1jax.data import tokenizers
from r1jax.interop import hf
from r1jax.interop.sources import Source
from r1jax.models import transformer
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.runtime.checkpoint import Model, save_model
from r1jax.sampling.engine import Engine, Request
from r1jax.sampling.logits import SamplingConfig

ONE = Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), DECODING)


class Llama2C(Source):
    """A .bin of llama2.c under Hugging Face's names; its rotary pairs are neighbours, and there they are K/2 apart."""

    def __init__(self, path: pathlib.Path):
        self.where = path
        D, F, L, H, N, V, T = np.fromfile(path, np.int32, 7)
        K = D // H
        shapes = [(V, D), (L, D), (L, H * K, D), (L, N * K, D), (L, N * K, D), (L, D, H * K), (L, D), (L, F, D), (L, D, F),
                  (L, F, D), (D,)]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        *flat, tables = np.split(np.fromfile(path, np.float32, offset=28), ends)
        assert tables.size == T * K  # sines and cosines
        embedding, attn_norm, q, k, v, o, mlp_norm, gate, down, up, norm = (
            x.reshape(shape) for x, shape in zip(flat, shapes, strict=True))
        q, k = (x.reshape(L, -1, K // 2, 2, D).swapaxes(2, 3).reshape(x.shape) for x in (q, k))
        stacked = {
            'input_layernorm': attn_norm, 'post_attention_layernorm': mlp_norm, 'self_attn.q_proj': q, 'self_attn.k_proj': k,
            'self_attn.v_proj': v, 'self_attn.o_proj': o, 'mlp.gate_proj': gate, 'mlp.down_proj': down, 'mlp.up_proj': up}
        self._tensors = {'model.embed_tokens.weight': embedding, 'model.norm.weight': norm} | {
            f'model.layers.{i}.{name}.weight': x[i] for name, x in stacked.items() for i in range(L)}
        self.shapes = {name: x.shape for name, x in self._tensors.items()}
        self.dtypes = {name: x.dtype for name, x in self._tensors.items()}
        self.cfg = hf.config_of(
            {key: int(value) for key, value in {
                'vocab_size': V, 'hidden_size': D, 'num_hidden_layers': L, 'num_attention_heads': H,
                'num_key_value_heads': N, 'intermediate_size': F, 'max_position_embeddings': T}.items()} | {
                'architectures': ['LlamaForCausalLM'], 'rms_norm_eps': 1e-5, 'tie_word_embeddings': True}, path)

    def read(self, name: str) -> np.ndarray:
        return self._tensors[name]


@pytest.fixture(scope='module')
def stories(shared):
    folder = shared / 'models' / 'stories260K'
    source = Llama2C(folder / 'stories260K.bin')
    params = hf.read_params(source, source.cfg, transformer.shardings(source.cfg, ONE))
    # As the file stands, and without the newline that was written after it.
    story = (folder / 'greedy.txt').read_text().removesuffix('\n')
    return Model(params, source.cfg, tokenizers.load(folder / 'tok512.model')), story


def test_the_sampler_writes_its_greedy_story_to_the_letter(stories):
    model, story = stories
    sampling = SamplingConfig(slots=1, max_tokens=len(model.tokenizer.encode(story)), temperature=0.0)
    engine = Engine(model.params, model.cfg, sampling, eos=model.tokenizer.eos_id, sharding=ONE)
    (completion,) = engine.generate([Request((model.tokenizer.bos_id,), 0, 1)])
    assert model.tokenizer.decode(completion.tokens) == story
    assert len(completion.tokens) > 200


def test_so_does_transformers_from_its_export(stories, tmp_path):
    torch = pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    model, story = stories
    save_model(tmp_path / 'model', model)
    assert cli.main(['export', f'--checkpoint={tmp_path}/model', f'--out={tmp_path}/out']) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'out')
    assert theirs.config.tie_word_embeddings and theirs.dtype == torch.float32
    tokens = theirs.generate(
        torch.tensor([[model.tokenizer.bos_id]]), do_sample=False, max_new_tokens=len(model.tokenizer.encode(story)))
    assert model.tokenizer.decode(tokens[0].tolist()) == story
