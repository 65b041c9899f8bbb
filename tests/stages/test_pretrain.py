"""Pretraining: which documents a step reads, what of them is predicted, and resume bit for bit."""

import dataclasses

import jax
import numpy as np
import pytest

from r1jax.data import tinyworld, tokenizers
from r1jax.errors import UserError
from r1jax.learning.balance import BalanceConfig
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.models import presets
from r1jax.models.config import ModelConfig
from r1jax.runtime.checkpoint import load_model
from r1jax.runtime.metrics import read_metrics
from r1jax.stages import pretrain, sft
from tests.stages.conftest import MIXTURE

MINI = ModelConfig(
    vocab_size=640, d_model=32, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=48, tie_embeddings=True,
    max_positions=256)


@pytest.fixture
def stage(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, 'mixture', MIXTURE)
    monkeypatch.setitem(presets.PRESETS, 'mini', MINI)
    return pretrain.PretrainStage(
        model='mini', steps=5, documents_per_step=8, tokenizer_documents=1500, checkpoint_every=2,
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule='cosine', warmup_steps=1))


@pytest.mark.parametrize('model', ['mini', 'mixture'])
def test_a_run_that_is_interrupted_ends_bit_for_bit_as_one_that_is_not(stage, inputs, mixture, tmp_path, monkeypatch, model):
    stage, inputs = dataclasses.replace(stage, model=model), mixture if model == 'mixture' else inputs
    whole = pretrain.run(stage, inputs, tmp_path / 'whole')
    real = sft.apply_gradients

    def fail_at_step_4(state, *arguments, **keywords):
        if int(state.step) == 3:
            raise KeyboardInterrupt
        return real(state, *arguments, **keywords)

    monkeypatch.setattr(sft, 'apply_gradients', fail_at_step_4)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(stage, inputs, tmp_path / 'cut')
    monkeypatch.setattr(sft, 'apply_gradients', real)
    resumed = pretrain.run(stage, inputs, tmp_path / 'cut')
    results = [jax.tree.leaves(load_model(artifact.folder, inputs.training).params) for artifact in (whole, resumed)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[(m['step'], m['loss'], m['lr']) for m in read_metrics(tmp_path / name)] for name in ('whole', 'cut')]
    assert losses[0] == losses[1] and [step for step, _, _ in losses[0]] == [1, 2, 3, 4, 5]
    assert losses[0][-1][1] < losses[0][0][1]
    # The schedule ends with the stage, and its last step is kept.
    assert losses[0][-1][2] == pytest.approx(1e-3)
    assert sft.Checkpoints(tmp_path / 'whole' / 'checkpoints').latest() == 5


def test_each_step_reads_the_next_documents_between_bos_and_eos(stage, tmp_path):
    texts = (tinyworld.document_at(i) for i in range(1500))
    tokenizer = tokenizers.train_sentencepiece(texts, tmp_path / 'tokenizer.model', 640, tinyworld.SYMBOLS)
    seen = [sequence for step in (0, 1) for sequence in pretrain.documents(stage, tokenizer, 3, step)]
    assert len(seen) == 16
    for index, sequence in enumerate(seen):
        bos, *text, eos = sequence.tokens
        assert (bos, sequence.prompt_length) == (tokenizer.bos_id, 1)
        whole = tinyworld.document_at(index, seed=3)
        if len(sequence.tokens) < stage.row_length:
            assert eos == tokenizer.eos_id and tokenizer.decode(text) == whole
        else:
            assert whole.startswith(tokenizer.decode([*text, eos]).rstrip('\ufffd'))


def test_a_mixture_with_mtp_is_balanced_learns_from_both_losses_and_tells_of_it(stage, mixture, tmp_path):
    stage = dataclasses.replace(stage, model='mixture', balance=BalanceConfig(bias_rate=0.01))
    model = load_model(pretrain.run(stage, mixture, tmp_path).folder, mixture.training)
    # Five updates by .01 each, up or down, or not where a load was the mean to the token.
    for layers in (model.params.layers, model.params.mtp.layer):
        steps = np.asarray(layers.mlp.balance) / 0.01
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert 0 < np.abs(steps).max() < 5.5
    first, *_, last = read_metrics(tmp_path)
    assert first['mtp_loss'] > last['mtp_loss'] > 1
    assert first['load_imbalance/max'] >= first['load_imbalance/mean'] > 1 and first['balance_loss'] > 2
    assert 'mtp_loss' in first and first['loss'] > last['loss']


def test_without_its_loss_a_model_gets_no_mtp_and_what_is_not_there_takes_no_settings(stage, inputs):
    mixture = dataclasses.replace(stage, model='mixture')
    assert mixture.check(inputs.training, None) == MIXTURE
    assert dataclasses.replace(mixture, mtp_loss=0).check(inputs.training, None) == dataclasses.replace(MIXTURE, mtp=0)
    for change, sentence in (({'mtp_loss': 0.3}, 'no MTP module'), ({'balance': BalanceConfig()}, 'no experts')):
        with pytest.raises(UserError, match=sentence):
            dataclasses.replace(stage, **change).check(inputs.training, None)
