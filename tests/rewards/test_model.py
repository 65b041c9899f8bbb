"""The reward-model scorer: what it reads, and scores that depend on nothing but example and completion."""

import dataclasses
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
from r1jax.parallel.rules import DECODING, TRAINING, Sharding
from r1jax.rewards.answers import text_read
from r1jax.rewards.base import Completion, Example
from r1jax.rewards.model import Description, RewardModel
from r1jax.runtime.checkpoint import Model, load_model, save_model

CFG = ModelConfig(
    vocab_size=640, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=48, tie_embeddings=True,
    max_positions=96)
ONE = Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), TRAINING)
EIGHT = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), DECODING)
DESCRIPTION = Description('pairwise', 'response', mean=0.25, std=1.75, row_length=128, micro_rows=3)

EXAMPLES = [Example(prompt=f'what is {i}+{i}?') for i in range(20)]
COMPLETIONS = [
    Completion(f'<think> let me see: {i} and {i}' + ' again' * (i % 5) + f' </think> it is {2 * i}') for i in range(20)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('reward_model')
    documents = (tinyworld.document_at(i) for i in range(1500))
    tokenizer = tokenizers.train_sentencepiece(documents, folder / 'raw' / 'tokenizer.model', 640)
    params, cfg = transformer.with_scalar_head(transformer.init(jax.random.key(0), CFG), CFG, jax.random.key(1))
    save_model(folder / 'model', Model(params, cfg, tokenizer))
    DESCRIPTION.save(folder / 'model')
    return folder


def describe(folder, tmp_path, **changes):
    """The same model with another reward.json."""
    target = tmp_path / 'changed'
    target.mkdir(exist_ok=True)
    for path in (folder / 'model').iterdir():
        if path.name != 'reward.json' and not (target / path.name).exists():
            (target / path.name).symlink_to(path)
    dataclasses.replace(DESCRIPTION, **changes).save(target)
    return target


def alone(folder, prompt, text):
    """The score of one sequence by itself, its tokens put together by hand."""
    model = load_model(folder, ONE)
    t = model.tokenizer
    tokens = jnp.array([[t.bos_id, *t.encode(prompt), *t.encode(text, continues=True), t.eos_id]])
    out = transformer.forward(model.params, tokens, jnp.arange(tokens.size)[None], jnp.ones_like(tokens), model.cfg)
    return float(out.hidden_BTD[0, -1] @ model.params.head_DV[:, 0])


@pytest.mark.parametrize('response, summary', [
    ('<think> hm </think> yes', ' yes'),
    (' hm </think>\n\nyes', '\n\nyes'),  # the template wrote the opening tag
    ('yes', 'yes'),
    ('<think> hm </think> no <think> wait </think> yes', ' yes'),
    ('<think> hm </think>', ''),
    ('<think> cut', '<think> cut'),
    ('', ''),
])
def test_the_summary_is_what_follows_the_last_thought(response, summary):
    assert text_read(response, 'summary') == summary
    assert text_read(response, 'response') == response


@pytest.mark.parametrize('reads', ['summary', 'response'])
def test_a_score_is_that_of_prompt_what_is_read_and_eos_standardised(folder, tmp_path, reads):
    out = RewardModel(describe(folder, tmp_path, reads=reads), ONE)(COMPLETIONS, EXAMPLES)
    texts = [c.text if reads == 'response' else c.text.split('</think>')[1] for c in COMPLETIONS[:4]]
    wanted = [alone(folder, e.prompt, text) for e, text in zip(EXAMPLES[:4], texts, strict=True)]
    np.testing.assert_allclose(out.info['raw'][:4], wanted, atol=1e-5)
    np.testing.assert_allclose(out.values, (out.info['raw'] - 0.25) / 1.75, atol=1e-6)
    assert out.values.dtype == np.float32 and out.values.shape == (20,) and out.values.std() > 0.01
    assert not out.info['cut'].any()


def test_the_thinking_changes_the_score_of_the_response_and_not_that_of_the_summary(folder, tmp_path):
    texts = ['<think> one way </think> it is 4', '<think> quite another way </think> it is 4', 'no tags: it is 4']
    completions, examples = [Completion(text) for text in texts], [EXAMPLES[2]] * 3
    whole = RewardModel(folder, ONE)(completions, examples).values
    summary = RewardModel(describe(folder, tmp_path, reads='summary'), ONE)(completions, examples).values
    assert len(set(whole.round(4))) == 3
    np.testing.assert_allclose(summary[0], summary[1], atol=1e-6)
    assert abs(summary[2] - summary[0]) > 1e-3


def test_a_score_depends_neither_on_the_rest_of_the_batch_nor_on_the_mesh(folder):
    model = RewardModel(folder, EIGHT)
    together = model(COMPLETIONS, EXAMPLES).values
    again = model(COMPLETIONS, EXAMPLES).values
    np.testing.assert_array_equal(together, again)
    order = np.random.default_rng(0).permutation(20)
    other = model([COMPLETIONS[i] for i in order], [EXAMPLES[i] for i in order]).values
    np.testing.assert_allclose(other, together[order], atol=1e-5)
    for i in (0, 7):
        np.testing.assert_allclose(model([COMPLETIONS[i]], [EXAMPLES[i]]).values, together[i:i + 1], atol=1e-5)
    np.testing.assert_allclose(RewardModel(folder, ONE)(COMPLETIONS, EXAMPLES).values, together, atol=1e-5)


def test_in_bfloat16_it_is_the_same_up_to_rounding(folder):
    full, half = (RewardModel(folder, ONE, Execution(dtype))(COMPLETIONS, EXAMPLES).values for dtype in (None, 'bfloat16'))
    assert 0 < np.abs(full - half).max() < 0.1


def test_nothing_is_scored_as_nothing_and_lists_must_match(folder):
    model = RewardModel(folder, ONE)
    out = model([], [])
    assert out.values.shape == out.info['raw'].shape == out.info['cut'].shape == (0,)
    with pytest.raises(ValueError):
        model(COMPLETIONS[:2], EXAMPLES[:1])


@pytest.mark.parametrize('row_length, limit', [(40, 40), (128, 96)])  # the row is the limit, or the model's positions
def test_of_a_response_that_does_not_fit_the_beginning_is_left_out(folder, tmp_path, row_length, limit):
    model = RewardModel(describe(folder, tmp_path, row_length=row_length), ONE)
    tokenizer = load_model(folder, ONE).tokenizer
    prompt = EXAMPLES[0].prompt
    text = ' '.join(str(i) for i in range(100))
    out = model([Completion(text), Completion('999 ' + text), COMPLETIONS[0]], [EXAMPLES[0]] * 3)
    np.testing.assert_array_equal(out.info['cut'], [1, 1, 0])
    np.testing.assert_allclose(out.values[0], out.values[1], atol=1e-6)  # what differs was cut off
    room = limit - 2 - len(tokenizer.encode(prompt))  # BOS and EOS
    kept = tokenizer.decode(tokenizer.encode(text, continues=True)[-room:], continues=True)
    assert text.endswith(kept) and len(kept) < len(text)
    np.testing.assert_allclose(out.info['raw'][0], alone(folder, prompt, kept), atol=1e-5)
    # One token less is not cut: the edge.
    fits = tokenizer.decode(tokenizer.encode(text, continues=True)[:room], continues=True)
    assert len(tokenizer.encode(fits, continues=True)) == room
    assert not model([Completion(fits)], [EXAMPLES[0]]).info['cut'].any()


def test_a_prompt_that_leaves_no_room_is_an_error(folder):
    with pytest.raises(UserError, match='leaves no room for a response in the 96 tokens that the reward model reads'):
        RewardModel(folder, ONE)([Completion('yes')], [Example(prompt='1 ' * 100)])


def test_what_is_no_reward_model_is_refused(folder, tmp_path):
    model = load_model(folder, ONE)
    plain = transformer.init(jax.random.key(0), CFG)
    save_model(tmp_path / 'policy', Model(plain, CFG, model.tokenizer))
    with pytest.raises(UserError, match='policy is no reward model: it has no scalar head'):
        RewardModel(tmp_path / 'policy', ONE)
    with pytest.raises(UserError, match='does not exist'):
        RewardModel(tmp_path / 'none', ONE)


@pytest.mark.parametrize('change, sentence', [
    (None, 'No such file'),
    ({'reads': 'thinking'}, "reads='thinking' is unknown"),
    ({'loss': 'pairwize'}, "did you mean 'pairwise'"),
    ({'std': 0.0}, 'std=0.0 positive'),
    ({'mean': None}, 'real number'),
    ({'colour': 'red'}, 'colour'),
    ('{', 'Expecting'),
])
def test_a_wrong_description_is_named(folder, tmp_path, change, sentence):
    target = describe(folder, tmp_path)
    path = target / 'reward.json'
    if change is None:
        path.unlink()
    else:
        path.write_text(change if isinstance(change, str) else json.dumps(dataclasses.asdict(DESCRIPTION) | change))
    with pytest.raises(UserError, match=f'reward.json is missing or describes no reward model: .*{sentence}'):
        RewardModel(target, ONE)
