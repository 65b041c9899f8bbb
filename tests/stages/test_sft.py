"""Supervised fine-tuning: what is learnt of an example, the order of the epochs, resume bit for bit, and bad data."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from r1jax.data import tokenizers
from r1jax.errors import Missing, UserError
from r1jax.learning.balance import BalanceConfig
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.runtime import datasets
from r1jax.runtime.checkpoint import load_model, read_config
from r1jax.runtime.metrics import read_metrics
from r1jax.stages import sft

STAGE = sft.SFTStage(
    optimizer=OptimizerConfig(learning_rate=1e-2, schedule='cosine', end_ratio=0.1), epochs=3, batch=4, row_length=128,
    micro_rows=4, checkpoint_every=2)


def example(i, completion=' yes.'):
    return {
        'prompt': f'what is {i}+{i}?', 'completion': completion, 'task': 'arithmetic', 'kind': '', 'language': 'en',
        'answer': str(2 * i), 'id': str(i), 'source': 'reasoning', 'n_tokens': 3}


@pytest.fixture
def given(inputs, tmp_path):
    datasets.write(tmp_path / 'data' / 'examples.parquet', [example(i) for i in range(10)], datasets.EXAMPLES)
    return dataclasses.replace(inputs, given={'data': str(tmp_path / 'data')})


def test_an_example_is_bos_prompt_completion_eos_and_the_prompt_is_not_learnt(model_folder):
    tokenizer = tokenizers.load(model_folder)
    sequence = sft.tokenize('what is 3+4?', ' it is 7.', tokenizer)
    assert sequence.tokens[0] == tokenizer.bos_id and sequence.tokens[-1] == tokenizer.eos_id
    assert tokenizer.decode(sequence.tokens[1:-1]) == 'what is 3+4? it is 7.'
    assert tokenizer.decode(sequence.tokens[sequence.prompt_length:-1], continues=True) == ' it is 7.'


def test_every_epoch_has_each_example_once_in_an_order_of_its_own():
    seen = [i for step in range(8) for i in sft.batch_at(step, 10, 4, 3, seed=1)]
    epochs = [seen[:10], seen[10:20], seen[20:]]
    assert [Counter(epoch) for epoch in epochs] == [Counter(range(10))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert len(sft.batch_at(7, 10, 4, 3, seed=1)) == 2 and sft.batch_at(8, 10, 4, 3, seed=1) == []
    assert seen != [i for step in range(8) for i in sft.batch_at(step, 10, 4, 3, seed=2)]


def test_a_run_that_is_interrupted_ends_bit_for_bit_as_one_that_is_not(given, tmp_path, monkeypatch):
    whole = sft.run(STAGE, given, tmp_path / 'whole')
    real = sft.apply_gradients

    def fail_at_step_6(state, *arguments, **keywords):
        if int(state.step) == 5:
            raise KeyboardInterrupt
        return real(state, *arguments, **keywords)

    monkeypatch.setattr(sft, 'apply_gradients', fail_at_step_6)
    with pytest.raises(KeyboardInterrupt):
        sft.run(STAGE, given, tmp_path / 'cut')
    monkeypatch.setattr(sft, 'apply_gradients', real)
    resumed = sft.run(STAGE, given, tmp_path / 'cut')
    results = [jax.tree.leaves(load_model(artifact.folder, given.training).params) for artifact in (whole, resumed)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[(m['step'], m['loss'], m['lr']) for m in read_metrics(tmp_path / name)] for name in ('whole', 'cut')]
    assert losses[0] == losses[1] and len(losses[0]) == 8  # 3 epochs of 10 examples, 4 at a time
    assert losses[0][-1][1] < losses[0][0][1] / 2
    assert losses[0][-1][2] == pytest.approx(1e-3)  # cosine to a tenth


@pytest.mark.parametrize('mtp_loss', [None, 0.0])
def test_mtp_learns_or_is_left_exactly_as_it_was(given, mixture, tmp_path, mtp_loss):
    stage = dataclasses.replace(
        STAGE, epochs=2, mtp_loss=mtp_loss, optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.5))
    artifact = sft.run(stage, dataclasses.replace(mixture, given=given.given), tmp_path / 'out')
    before, after = (load_model(folder, mixture.training) for folder in (mixture.model, artifact.folder))
    assert after.cfg == before.cfg
    changed = [np.abs(np.asarray(a) - b).max() for a, b in zip(
        *(jax.tree.leaves(model.params.mtp) for model in (before, after)), strict=True)]
    assert min(changed) > 1e-4 if mtp_loss is None else max(changed) == 0
    for line in read_metrics(tmp_path / 'out'):
        assert ('mtp_loss' in line) == (mtp_loss is None) and 'balance_loss' in line
    assert np.abs(np.asarray(after.params.layers.mlp.balance)).max() >= 1e-3


def test_what_is_too_long_is_left_out_and_counted(given, tmp_path):
    rows = [example(i) for i in range(3)] + [example(3, ' yes' * 200)]
    datasets.write(tmp_path / 'data' / 'examples.parquet', rows, datasets.EXAMPLES)
    figures = sft.run(STAGE, given, tmp_path / 'out').figures
    assert figures['examples']['mean'] == 3 and figures['too_long'] == {'mean': 1, 'low': 1, 'high': 1, 'n': 4}
    with pytest.raises(UserError, match='none of its 4 examples fits into row_length=4 tokens'):
        sft.run(dataclasses.replace(STAGE, row_length=4), given, tmp_path / 'none')


def test_a_file_of_json_lines_will_do_and_a_missing_one_is_told(inputs, tmp_path):
    (tmp_path / 'chains.jsonl').write_text('{"prompt": "what is 1+1?", "completion": " 2"}\n')
    given = dataclasses.replace(inputs, given={'data': str(tmp_path / 'chains.jsonl')})
    assert sft.run(STAGE, given, tmp_path / 'out').figures['examples']['mean'] == 1
    with pytest.raises(Missing, match='nowhere'):
        sft.run(STAGE, dataclasses.replace(inputs, given={'data': str(tmp_path / 'nowhere')}), tmp_path / 'out2')


def test_what_can_be_known_to_fail_is_refused(inputs):
    with pytest.raises(UserError, match='needs a model to start from'):
        STAGE.check(inputs.training, None)
    with pytest.raises(UserError, match='micro_rows=3 is not divisible by 2'):
        dataclasses.replace(STAGE, micro_rows=3).check(inputs.training, read_config(inputs.model))
    with pytest.raises(UserError, match='epochs=0 must be at least 1'):
        dataclasses.replace(STAGE, epochs=0)
    for change, sentence in (({'mtp_loss': 0.3}, 'no MTP module'), ({'balance': BalanceConfig()}, 'no experts')):
        with pytest.raises(UserError, match=sentence):
            dataclasses.replace(STAGE, **change).check(inputs.training, read_config(inputs.model))
