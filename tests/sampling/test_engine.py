"""The engine against teacher forcing, and its promises about noise, slots, meshes, EOS and prefills."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.sampling import engine as engine_module
from r1jax.sampling.engine import Engine, Request
from r1jax.sampling.logits import SamplingConfig
from tests.families import FAMILIES

CFG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, qkv_bias=True,
    max_positions=128)
EOS = 2


@pytest.fixture(scope='module')
def params():
    # Larger weights than at initialisation: peaked distributions, in which wrong positions would show.
    return jax.tree.map(lambda x: 2.5 * x, transformer.init(jax.random.key(1), CFG))


def requests(n_prompts=5, n=4):
    rng = np.random.default_rng(0)
    return [Request(tuple(rng.integers(3, 64, size=rng.integers(1, 40)).tolist()), i, n) for i in range(n_prompts)]


def run(params, sampling, step=0, seed=7, sharding=None, reqs=None):
    sharding = sharding or Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), DECODING)
    params = jax.device_put(params, transformer.shardings(CFG, sharding))
    engine = Engine(params, CFG, sampling, eos=EOS, sharding=sharding, seed=seed)
    return {(c.prompt_id, c.sample): c for c in engine.generate(reqs or requests(), step)}


@functools.partial(jax.jit, static_argnums=2)
def padded_logits(params, whole_1T, cfg):
    positions = jnp.arange(whole_1T.shape[1])[None]
    out = transformer.forward(params, whole_1T, positions, jnp.ones_like(whole_1T), cfg)
    return out.hidden_BTD[0] @ transformer.head(params)


def teacher_forced(params, prompt, tokens, cfg=CFG):
    whole = np.zeros((1, cfg.max_positions), np.int32)  # one length, so that it compiles once
    whole[0, :len(prompt) + len(tokens)] = [*prompt, *tokens]
    return padded_logits(params, whole, cfg)[len(prompt) - 1:len(prompt) - 1 + len(tokens)]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k].tokens, b[k].tokens) for k in a)


def test_greedy_equals_teacher_forced_argmax(params):
    for (prompt_id, _), c in run(params, SamplingConfig(slots=4, max_tokens=50, temperature=0, chunk=8)).items():
        logits = teacher_forced(params, requests()[prompt_id].prompt, c.tokens)
        np.testing.assert_array_equal(jnp.argmax(logits, -1), c.tokens)


@pytest.mark.parametrize('family', FAMILIES)
def test_greedy_of_every_family_on_a_mesh_equals_teacher_forced_argmax(family):
    cfg = dataclasses.replace(FAMILIES[family], max_positions=128)
    weights = jax.tree.map(lambda x: 2.5 * x, transformer.init(jax.random.key(1), cfg))
    sharding = Sharding(make_mesh(MeshConfig(data=2, expert=4)), DECODING)
    engine = Engine(
        jax.device_put(weights, transformer.shardings(cfg, sharding)), cfg,
        SamplingConfig(slots=8, max_tokens=40, temperature=0), eos=EOS, sharding=sharding)
    asked = requests(n=2)
    completions = list(engine.generate(asked))
    assert len(completions) == 10
    for c in completions:
        logits = teacher_forced(weights, asked[c.prompt_id].prompt, c.tokens, cfg)
        np.testing.assert_array_equal(jnp.argmax(logits, -1), c.tokens)


def test_logprobs_are_those_of_the_teacher_forced_forward_at_the_temperature(params):
    for (prompt_id, _), c in run(params, SamplingConfig(slots=8, max_tokens=30, temperature=0.7)).items():
        logits = teacher_forced(params, requests()[prompt_id].prompt, c.tokens)
        expected = jax.nn.log_softmax(logits / 0.7)[np.arange(len(c.tokens)), c.tokens]
        np.testing.assert_allclose(c.logprobs, expected, atol=3e-4)


def test_every_sample_comes_once_whatever_the_slots_chunks_and_mesh_and_is_the_same(params):
    one = run(params, SamplingConfig(slots=20, max_tokens=33, chunk=8))
    assert set(one) == {(p, s) for p in range(5) for s in range(4)}
    for slots, chunk in ((1, 16), (3, 5), (64, 33)):
        assert same(one, run(params, SamplingConfig(slots=slots, max_tokens=33, chunk=chunk)))
    for mesh in (MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)):
        assert same(one, run(params, SamplingConfig(slots=8, max_tokens=33),
                             sharding=Sharding(make_mesh(mesh), DECODING)))


def test_samples_and_steps_and_seeds_differ_and_repeat(params):
    sampling = SamplingConfig(slots=8, max_tokens=20)
    one = run(params, sampling)
    assert same(one, run(params, sampling))
    assert not same(one, run(params, sampling, step=1))
    assert not same(one, run(params, sampling, seed=8))
    assert len({c.tokens.tobytes() for c in one.values()}) > 15


def test_the_same_prompt_under_another_id_is_sampled_anew(params):
    both = run(params, SamplingConfig(slots=8, max_tokens=20), reqs=[Request((5, 6, 7), i, 4) for i in range(2)])
    assert not all(np.array_equal(both[0, s].tokens, both[1, s].tokens) for s in range(4))


def test_the_cache_is_split_over_slots_and_heads(params, monkeypatch):
    states = []
    real = engine_module.decode_chunk

    def spy(*arguments, **keywords):
        states.append(real(*arguments, **keywords))
        return states[-1]

    monkeypatch.setattr(engine_module, 'decode_chunk', spy)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    run(params, SamplingConfig(slots=8, max_tokens=8), sharding=Sharding(mesh, DECODING), reqs=requests(2, 4))
    cache = states[-1][0].cache.layers[0].k_SNTK
    slots, heads, length, dim = cache.shape
    assert cache.addressable_shards[0].data.shape == (slots // 4, heads // 2, length, dim)


def test_another_longest_completion_needs_no_other_program(params):
    run(params, SamplingConfig(slots=8, max_tokens=8))
    compiled = engine_module.decode_chunk._cache_size()
    run(params, SamplingConfig(slots=8, max_tokens=12))
    assert engine_module.decode_chunk._cache_size() == compiled
    run(params, SamplingConfig(slots=8, max_tokens=12, temperature=0.5))
    assert engine_module.decode_chunk._cache_size() > compiled


def test_eos_is_kept_and_truncation_is_told(params):
    completions = run(params, SamplingConfig(slots=8, max_tokens=12), reqs=requests(20, 4)).values()
    finished = [c for c in completions if c.finished]
    truncated = [c for c in completions if not c.finished]
    assert finished and truncated
    assert all(c.tokens[-1] == EOS and EOS not in c.tokens[:-1] and len(c.tokens) <= 12 for c in finished)
    assert all(EOS not in c.tokens and len(c.tokens) == 12 for c in truncated)


def test_a_prompt_is_prefilled_once_for_all_its_samples(params, monkeypatch):
    seen = []
    real = Engine._prefill
    monkeypatch.setattr(Engine, '_prefill', lambda self, prompts: seen.extend(prompts) or real(self, prompts))
    run(params, SamplingConfig(slots=3, max_tokens=10), reqs=requests(6, 7))
    assert sorted(seen) == sorted(r.prompt for r in requests(6, 7))


def test_a_slow_row_holds_up_nobody(params, monkeypatch):
    """With refill, the number of chunks follows the sum of the lengths and not slots x the longest."""
    chunks = []
    real = engine_module.decode_chunk
    monkeypatch.setattr(engine_module, 'decode_chunk', lambda *a, **k: chunks.append(1) or real(*a, **k))
    # Nearly any token, so that many completions end early.
    done = run(params, SamplingConfig(slots=8, max_tokens=64, chunk=4, temperature=30.0), reqs=requests(16, 8))
    in_waves = sum(max(len(done[p, s].tokens) for s in range(8)) for p in range(16))
    assert 4 * len(chunks) < 0.8 * in_waves, (4 * len(chunks), in_waves)


@pytest.mark.parametrize('mesh, smallest', [(MeshConfig(), 8), (None, 2)])
def test_the_last_completions_are_decoded_without_empty_rows(params, monkeypatch, mesh, smallest):
    rows = []
    real = engine_module.decode_chunk
    monkeypatch.setattr(
        engine_module, 'decode_chunk', lambda p, s, **k: rows.append(len(s.active_S)) or real(p, s, **k))
    sharding = Sharding(make_mesh(mesh), DECODING) if mesh else None
    sampling = SamplingConfig(slots=16, max_tokens=64, chunk=4, temperature=30.0)
    done = run(params, sampling, reqs=requests(8, 8), sharding=sharding)
    assert len(done) == 64
    assert rows == sorted(rows, reverse=True) and rows[0] == 16 and rows[-1] == smallest


def test_decoding_starts_with_a_short_cache(params, monkeypatch):
    lengths = []
    real = engine_module.decode_chunk
    monkeypatch.setattr(
        engine_module, 'decode_chunk', lambda p, s, **k: lengths.append(s.cache.length) or real(p, s, **k))
    run(params, SamplingConfig(slots=4, max_tokens=100, chunk=8), reqs=[Request((5, 6, 7), 0, 4)])
    assert lengths[0] == engine_module.BUCKET and lengths == sorted(lengths)


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(UserError, match='prompt 3 has 0 tokens'):
        run(params, SamplingConfig(slots=4), reqs=[Request((), 3)])
    with pytest.raises(UserError, match='max_positions=128'):
        run(params, SamplingConfig(slots=4, max_tokens=100), reqs=[Request((5,) * 29, 0)])
    with pytest.raises(UserError, match='slots=6 is not divisible by 8'):
        run(params, SamplingConfig(slots=6), sharding=Sharding(make_mesh(MeshConfig()), DECODING))
