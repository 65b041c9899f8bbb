"""The GRPO stage on a tiny random model: resume bit for bit, step-0 invariants, sampling of mixed groups, options."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from r1jax.data.tasks import open_task
from r1jax.errors import UserError
from r1jax.learning.balance import BalanceConfig
from r1jax.learning.grpo import GRPOLoss
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.step import init_state
from r1jax.models.config import Execution
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.rewards.base import RewardOutput, register
from r1jax.runtime.checkpoint import load_model, read_config
from r1jax.runtime.metrics import read_metrics
from r1jax.runtime.rollouts import as_rows, read_rollouts
from r1jax.sampling.engine import Completion
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages import grpo
from r1jax.stages.base import Inputs
from r1jax.stages.rollout import Rollout, sample


@register('length_parity')
def length_parity(completions, examples):
    """A reward with variance even for a random model: whether the text has an even number of characters."""
    return [float(len(c.text) % 2 == 0) for c in completions]


STAGE = grpo.GRPOStage(
    task='tiny_reasoning', steps=4, prompts=4, group=4, rewards='length_parity=1',
    optimizer=OptimizerConfig(learning_rate=1e-2, schedule='cosine', warmup_steps=1, total_steps=8),
    sampling=SamplingConfig(slots=8, max_tokens=12), loss=GRPOLoss(kl_coef=0.01), minibatches=2, row_length=192,
    micro_rows=4, checkpoint_every=2, reference_every=2)
NOT_EXACT = ('time', 'seconds/', 'tokens_per_s/')


def exact(metrics):
    return [{k: v for k, v in line.items() if not k.startswith(NOT_EXACT)} for line in metrics]


def params(artifact, inputs):
    return jax.tree.map(np.asarray, load_model(artifact.folder, inputs.training).params)


def start(stage, inputs):
    """The model, its training state, and a reference of its own, as `grpo.run` begins with them."""
    base = load_model(inputs.model, inputs.training)
    state = init_state(base.params, base.cfg, stage.optimizer, inputs.training)
    return base, state, jax.tree.map(lambda x: x.copy(), state.params)


def test_a_run_that_is_interrupted_ends_bit_for_bit_as_one_that_is_not(inputs, tmp_path, monkeypatch):
    whole = grpo.run(STAGE, inputs, tmp_path / 'whole')
    real = grpo.write_rollouts

    def fail_at_step_4(path, rows):
        if '000004' in path.name:
            raise KeyboardInterrupt
        return real(path, rows)

    monkeypatch.setattr(grpo, 'write_rollouts', fail_at_step_4)
    with pytest.raises(KeyboardInterrupt):
        grpo.run(STAGE, inputs, tmp_path / 'cut')
    assert [m['step'] for m in read_metrics(tmp_path / 'cut')] == [1, 2, 3, 4]
    monkeypatch.setattr(grpo, 'write_rollouts', real)
    resumed = grpo.run(STAGE, inputs, tmp_path / 'cut')
    # The sampler has the policy's newest parameters, and the old log-probabilities are the policy's, at every step.
    assert all(m['logp_diff/max'] < 1e-3 for m in read_metrics(tmp_path / 'whole'))
    assert exact(read_metrics(tmp_path / 'cut')) == exact(read_metrics(tmp_path / 'whole'))
    for a, b in zip(jax.tree.leaves(params(whole, inputs)), jax.tree.leaves(params(resumed, inputs)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_rollouts(tmp_path / 'cut' / 'rollouts').equals(read_rollouts(tmp_path / 'whole' / 'rollouts'))


def test_the_first_step_has_ratio_1_kl_0_and_sampler_and_trainer_agree_and_every_metric_is_there(inputs, tmp_path):
    stage = dataclasses.replace(STAGE, steps=2, minibatches=1, optimizer=OptimizerConfig(learning_rate=1e-2))
    grpo.run(stage, inputs, tmp_path)
    first, second = read_metrics(tmp_path)
    assert first['ratio/mean'] == pytest.approx(1, abs=1e-6) and first['ratio/max'] == pytest.approx(1, abs=1e-5)
    assert first['kl_ref'] == pytest.approx(0, abs=1e-6) and second['kl_ref'] > 1e-6
    assert first['logp_diff/max'] < 1e-4
    for name in (
            'reward/mean', 'reward/std', 'reward/length_parity', 'pass_rate', 'groups/zero_variance',
            'groups/resampled', 'length/mean', 'length/min', 'length/max', 'truncated', 'format_rate',
            'language_consistency', 'reflection_per_1k', 'entropy', 'clip/low', 'clip/high', 'grad_norm', 'lr',
            'logp_diff/mean', 'tokens_per_s/sampling', 'tokens_per_s/training', 'seconds/sampling', 'seconds/rewards',
            'seconds/scoring', 'seconds/update', 'seconds/step', 'rewards/timeouts', 'rewards/crashes',
            'length/finished_mean'):
        assert name in first, name
    assert first['entropy'] > 1


@pytest.mark.parametrize('minibatches', [1, 2])
def test_at_another_temperature_sampler_trainer_and_reference_still_agree(inputs, tmp_path, minibatches):
    """With one minibatch the trainer's log-probabilities are those of the update, with more they are scored before."""
    stage = dataclasses.replace(
        STAGE, steps=1, minibatches=minibatches, sampling=dataclasses.replace(STAGE.sampling, temperature=0.5),
        loss=GRPOLoss(kl_coef=0.01, temperature=0.5), optimizer=OptimizerConfig(learning_rate=0.0))
    grpo.run(stage, inputs, tmp_path)
    (m,) = read_metrics(tmp_path)
    assert m['logp_diff/max'] < 1e-4 and m['kl_ref'] == pytest.approx(0, abs=1e-6)
    assert m['ratio/max'] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('kl_in', ['loss', 'reward'])
def test_the_samplers_log_probabilities_do_as_well_as_the_trainers(inputs, tmp_path, monkeypatch, kl_in):
    loss = GRPOLoss(kl_coef=0.1, kl_in=kl_in, temperature=0.5)
    stage = dataclasses.replace(
        STAGE, steps=1, minibatches=2, sampling=dataclasses.replace(STAGE.sampling, temperature=0.5), loss=loss,
        optimizer=OptimizerConfig(learning_rate=1e-3))
    scored = []
    real = grpo.score
    monkeypatch.setattr(grpo, 'score', lambda *a, **k: scored.append(1) or real(*a, **k))
    found, passes = [], []
    for source in ('trainer', 'sampler'):
        grpo.run(dataclasses.replace(stage, old_logprobs=source), inputs, tmp_path / source)
        found.append(read_metrics(tmp_path / source)[0])
        passes.append(len(scored))
    assert passes[1] - passes[0] == passes[0] / 2  # the reference's pass is left
    assert found[0]['grad_norm'] > 0
    for name in ('loss', 'grad_norm', 'ratio/max', 'kl_ref', 'entropy'):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-3, abs=1e-5), name


def test_stopping_is_learnt_from(inputs):
    """The end-of-sequence token of a finished completion is a token like the others, and the only one in the loss here."""
    training = inputs.training
    stage = dataclasses.replace(
        STAGE, prompts=1, group=2, minibatches=1, loss=GRPOLoss(), mask_truncated=True,
        optimizer=OptimizerConfig(learning_rate=1e-2))
    base, state, reference = start(stage, inputs)

    class Stops:
        """An engine whose first sample stops at once, and whose second is cut."""

        def generate(self, requests, step):
            eos = base.tokenizer.eos_id
            for request in requests:
                yield Completion(request.id, 1, np.array([7, 8], np.int32), np.full(2, -6, np.float32), False)
                yield Completion(request.id, 0, np.array([eos], np.int32), np.full(1, -6, np.float32), True)

    rollouts = sample(Stops(), base.tokenizer, [next(open_task(STAGE.task, 'train'))], [0], 2, 1)
    assert [r.for_rewards(1).n_tokens for r in rollouts] == [1, 2] and rollouts[0].text == ''
    scored = grpo.Scored(rollouts, np.array([1.0, 0.0], np.float32), {})
    before, _ = grpo.prepare(stage, scored, state.params, reference, base.cfg, training, step=1)
    state, metrics = grpo.update(stage, stage.optimizer, state, before, base.cfg, training, 0, 1)
    after, _ = grpo.prepare(stage, scored, reference, state.params, base.cfg, training, step=1)
    assert metrics['grad_norm'] > 0
    assert after[0].per_token['ref_logp'][-1] > before[0].per_token['ref_logp'][-1] + 0.1


def test_the_size_of_micro_batches_changes_nothing(inputs, tmp_path):
    """The rollouts fill more than two rows and fewer than eight: several micro-batches, or one that is padded."""
    found = []
    for micro_rows in (2, 8):
        stage = dataclasses.replace(STAGE, steps=1, minibatches=1, loss=GRPOLoss(), micro_rows=micro_rows)
        grpo.run(stage, inputs, tmp_path / str(micro_rows))
        found.append(read_metrics(tmp_path / str(micro_rows))[0])
    assert found[0]['grad_norm'] > 0
    for name in ('loss', 'grad_norm', 'entropy', 'logp_diff/mean', 'kl_ref'):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4, abs=1e-6), name


def test_each_pass_uses_every_group_once_and_raises_what_the_advantages_praise(inputs, monkeypatch):
    stage = dataclasses.replace(STAGE, inner_epochs=2, optimizer=OptimizerConfig(learning_rate=1e-3), loss=GRPOLoss())
    training = inputs.training
    base, state, reference = start(stage, inputs)
    rng = np.random.default_rng(0)

    def rollout(i):
        tokens = rng.integers(4, 640, 8).astype(np.int32)
        return Rollout(None, i // 4, i % 4, np.array([1, 5, 6], np.int32), tokens, np.zeros(8, np.float32), True, '')

    scored = grpo.Scored([rollout(i) for i in range(16)], rng.random(16).astype(np.float32), {})
    before, advantages = grpo.prepare(stage, scored, state.params, reference, base.cfg, training, step=1)
    packs = []
    real = grpo.pack
    monkeypatch.setattr(grpo, 'pack', lambda s, n: packs.append([x.tokens.tobytes() for x in s]) or real(s, n))
    state, _ = grpo.update(stage, stage.optimizer, state, before, base.cfg, training, 0, 1)
    everything = sorted(s.tokens.tobytes() for s in before)
    assert len(packs) == 4 and all(sorted(packs[i] + packs[i + 1]) == everything for i in (0, 2))
    assert packs[:2] != packs[2:]  # dealt anew
    after, _ = grpo.prepare(stage, scored, state.params, reference, base.cfg, training, step=1)
    gains = [y.per_token['old_logp'].mean() - x.per_token['old_logp'].mean() for x, y in zip(before, after, strict=True)]
    assert np.corrcoef(advantages, gains)[0, 1] > 0.5


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_mixture_is_balanced_and_its_mtp_left_alone_and_the_sampler_routes_as_training_does(mixture, tmp_path, dtype):
    stage = dataclasses.replace(
        STAGE, steps=3, minibatches=1, balance=BalanceConfig(bias_rate=0.02),
        optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.5))
    artifact = grpo.run(stage, dataclasses.replace(mixture, execution=Execution(dtype)), tmp_path)
    before, after = (load_model(folder, mixture.training).params for folder in (mixture.model, artifact.folder))
    jax.tree.map(np.testing.assert_array_equal, before.mtp, after.mtp)
    # Three updates: an odd number of steps up or down does not come to nothing.
    steps = np.asarray(after.layers.mlp.balance) / 0.02
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    assert 0 < np.abs(steps).max() < 3.5
    for line in read_metrics(tmp_path):
        assert line['load_imbalance/max'] >= 1 and line['balance_loss'] > 0.9
        assert line['logp_diff/mean'] < (1e-4 if dtype == 'float32' else 0.03)


def test_noise_differs_from_step_to_step(inputs, tmp_path):
    """With learning rate 0 and the same prompts only the step tells two rollouts apart."""
    stage = dataclasses.replace(STAGE, steps=2, optimizer=OptimizerConfig(learning_rate=0.0))
    grpo.run(stage, inputs, tmp_path)
    rows = read_rollouts(tmp_path / 'rollouts').to_pylist()
    first, second = ([r['completion'] for r in rows if r['step'] == s] for s in (1, 2))
    assert len(set(first) & set(second)) < len(first) / 2


def test_the_reference_is_the_start_of_this_run_and_moves_when_told(inputs, tmp_path):
    still = dataclasses.replace(STAGE, reference_every=0)
    grpo.run(still, inputs, tmp_path / 'still')
    grpo.run(dataclasses.replace(STAGE, reference_every=1), inputs, tmp_path / 'moving')
    kl_still = [m['kl_ref'] for m in read_metrics(tmp_path / 'still')]
    kl_moving = [m['kl_ref'] for m in read_metrics(tmp_path / 'moving')]
    # After the first step the moving reference is one update behind, the still one is ever further away.
    assert kl_still[0] == kl_moving[0]
    assert kl_moving[3] < 0.7 * kl_still[3]


def test_zero_variance_groups_are_counted_and_resampled(inputs, tmp_path):
    @register('always_one')
    def always_one(completions, examples):
        return [1.0 for _ in completions]

    constant = dataclasses.replace(STAGE, steps=1, rewards='always_one=1', resample_rounds=2, loss=GRPOLoss())
    grpo.run(constant, inputs, tmp_path / 'constant')
    (m,) = read_metrics(tmp_path / 'constant')
    assert m['groups/zero_variance'] == 1 and m['groups/resampled'] == 2 * STAGE.prompts
    assert m['grad_norm'] == 0

    mixed = dataclasses.replace(STAGE, steps=1, group=2, resample_rounds=8)
    grpo.run(mixed, inputs, tmp_path / 'mixed')
    (m,) = read_metrics(tmp_path / 'mixed')
    assert m['groups/resampled'] > 0
    rows = read_rollouts(tmp_path / 'mixed' / 'rollouts').to_pylist()
    assert len(rows) == mixed.prompts * 2
    for i in range(0, len(rows), 2):
        assert rows[i]['prompt_id'] == rows[i + 1]['prompt_id'] and rows[i]['reward'] != rows[i + 1]['reward']


OPTIONS = {
    'gspo': {'loss': GRPOLoss(ratio='gspo')},
    'cispo': {'loss': GRPOLoss(ratio='cispo')},
    'clip_low': {'loss': GRPOLoss(clip_low=1e-3)},
    'clip_high': {'loss': GRPOLoss(clip_high=1e-3)},
    'dual_clip': {'loss': GRPOLoss(dual_clip=1.001)},
    'kl in the loss': {'loss': GRPOLoss(kl_coef=5.0)},
    'kl in the reward': {'loss': GRPOLoss(kl_coef=5.0, kl_in='reward')},
    'entropy': {'loss': GRPOLoss(entropy_coef=0.1)},
    'importance_cap': {'loss': GRPOLoss(importance_cap=0.5)},
    'no std': {'advantage_std': False},
    'minibatches': {'minibatches': 4},
    'inner epochs': {'inner_epochs': 2},
}


@pytest.fixture(scope='module')
def unchanged(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('unchanged')
    inputs = Inputs('rl', 3, make_mesh(MeshConfig(data=2), jax.devices()[:2]), str(model_folder))
    stage = dataclasses.replace(STAGE, steps=2, loss=GRPOLoss(), optimizer=OptimizerConfig(learning_rate=1e-2))
    return stage, params(grpo.run(stage, inputs, folder), inputs)


@pytest.mark.parametrize('name', OPTIONS)
def test_every_option_by_itself_reaches_the_update(unchanged, inputs, tmp_path, monkeypatch, name):
    base, without = unchanged
    stage = dataclasses.replace(base, **OPTIONS[name])
    updates = []
    real = grpo.apply_gradients
    monkeypatch.setattr(grpo, 'apply_gradients', lambda *a, **k: updates.append(1) or real(*a, **k))
    artifact = grpo.run(stage, inputs, tmp_path)
    assert all(np.isfinite(m['loss']) and m['grad_norm'] > 0 for m in read_metrics(tmp_path))
    assert len(updates) == stage.steps * stage.minibatches * stage.inner_epochs
    changes = [np.abs(a - b).max() for a, b in zip(
        jax.tree.leaves(without), jax.tree.leaves(params(artifact, inputs)), strict=True)]
    assert max(changes) > 1e-5


@pytest.mark.parametrize('normalize', ['sequence', 'token', 'constant'])
def test_the_loss_is_normalised_as_asked_for(inputs, tmp_path, monkeypatch, normalize):
    asked = []
    real = grpo.loss_weights
    monkeypatch.setattr(grpo, 'loss_weights', lambda m, s, *more: asked.append(more) or real(m, s, *more))
    grpo.run(dataclasses.replace(STAGE, steps=1, normalize=normalize), inputs, tmp_path)
    assert asked == [(normalize, STAGE.sampling.max_tokens)] * STAGE.minibatches


def test_in_bfloat16_parameters_stay_float32_and_the_sampler_agrees_with_the_trainer_as_far_as_it_can(inputs, tmp_path):
    stage = dataclasses.replace(STAGE, steps=2)
    artifact = grpo.run(stage, dataclasses.replace(inputs, execution=Execution('bfloat16')), tmp_path)
    model = load_model(artifact.folder, inputs.training)
    assert model.cfg.dtype == 'bfloat16' and {x.dtype.name for x in jax.tree.leaves(model.params)} == {'float32'}
    first, _ = read_metrics(tmp_path)
    assert 1e-5 < first['logp_diff/mean'] < 0.02
    changed = [np.asarray(x) for x in jax.tree.leaves(model.params)]
    assert any((x != x.astype(jax.numpy.bfloat16).astype(np.float32)).any() for x in changed)  # the master weights


def test_overlong_punishment_is_paid_in_tokens(inputs, tmp_path):
    """Completions of 12 tokens: half way through a cache of 8 that ends at 16, whatever their characters."""
    stage = dataclasses.replace(
        STAGE, steps=1, rewards='overlong=2', reward_options={'overlong': {'max_length': 16, 'cache': 8}})
    grpo.run(stage, inputs, tmp_path)
    rows = read_rollouts(tmp_path / 'rollouts').to_pylist()
    full = [r for r in rows if r['n_tokens'] == 12]
    assert full and all(dict(r['rewards'])['overlong'] == -0.5 and r['reward'] == -1 for r in full)


def test_rewards_in_worker_processes_are_those_of_this_process(inputs, tmp_path):
    stage = dataclasses.replace(STAGE, steps=1, rewards='accuracy=1,format=1,language=1')
    grpo.run(stage, inputs, tmp_path / 'here')
    grpo.run(dataclasses.replace(stage, reward_workers=1), inputs, tmp_path / 'workers')
    # As dictionaries: the order of the components differs, their values may not.
    here, workers = (as_rows(read_rollouts(tmp_path / name / 'rollouts')) for name in ('here', 'workers'))
    assert here == workers


def test_masked_truncated_completions_give_no_gradient(inputs, tmp_path):
    """A random model never stops within 3 tokens, so nothing is left to learn from, and nothing is NaN."""
    sampling = SamplingConfig(slots=8, max_tokens=3)
    stage = dataclasses.replace(STAGE, steps=1, sampling=sampling, loss=GRPOLoss())
    grpo.run(stage, inputs, tmp_path / 'kept')
    grpo.run(dataclasses.replace(stage, mask_truncated=True), inputs, tmp_path / 'masked')
    (kept,), (masked,) = read_metrics(tmp_path / 'kept'), read_metrics(tmp_path / 'masked')
    assert kept['truncated'] == masked['truncated'] == 1
    assert kept['grad_norm'] > 0 and masked['grad_norm'] == 0
    assert masked['nonfinite'] == ['length/finished_mean']  # the mean length of none


def test_settings_that_contradict_each_other_are_refused():
    for change, sentence in (
            ({'sampling': SamplingConfig(temperature=0.6)}, 'must be sampling.temperature=0.6'),
            ({'sampling': SamplingConfig(top_p=0.9)}, 'must stay off in training'),
            ({'minibatches': 3}, 'prompts=4 is not divisible by minibatches=3'),
            ({'old_logprobs': 'samplr'}, "old_logprobs='samplr' is unknown.*sampler"),
            ({'old_logprobs': 'sampler', 'loss': GRPOLoss(importance_cap=2.0)}, 'leaves nothing for loss.importance_cap'),
            ({'group': 1}, 'group=1 must be at least 2')):
        with pytest.raises(UserError, match=sentence):
            dataclasses.replace(STAGE, **change)


@pytest.mark.parametrize('change, sentence', [
    ({'rewards': 'overlong=1'}, "'overlong' needs the option"),
    ({'rewards': 'overlong=1', 'reward_options': {'overlong': {'max_lenght': 16, 'cache': 8}}}, "did you mean 'max_length'"),
    ({'task': 'tiny_logik'}, "did you mean 'tiny_logic'"),
    ({'sampling': SamplingConfig(slots=7)}, 'sampling.slots=7'),
])
def test_what_would_fail_later_is_refused_before_anything_runs(inputs, change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(STAGE, **change).check(inputs.training, read_config(inputs.model))


def test_a_gold_answer_that_cannot_be_graded_is_refused_unless_accuracy_is_not_asked_for(inputs, tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"question": "a", "answer": "1"}\n{"question": "b", "answer": "\\\\sqrt{2"}\n')
    for task in ('math', 'mine'):
        stage = dataclasses.replace(STAGE, task=f'jsonl:path={path},template=tiny,task={task}')
        if task == 'mine':
            stage.check(inputs.training, read_config(inputs.model))
        with pytest.raises(UserError, match='cannot be graded|without an accuracy rule'):
            stage = dataclasses.replace(stage, rewards='length_parity=1,accuracy=1')
            stage.check(inputs.training, read_config(inputs.model))


def test_a_file_without_languages_can_be_trained_on(inputs, tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"question": "what is 3+4?", "answer": "7"}\n')
    stage = dataclasses.replace(STAGE, steps=1, task=f'jsonl:path={path},template=tiny')
    grpo.run(stage, inputs, tmp_path)
    (metrics,) = read_metrics(tmp_path)
    assert 'language_consistency' in metrics['nonfinite'] and metrics['pass_rate'] == 0


def test_a_row_too_short_for_a_completion_is_refused(inputs, tmp_path):
    with pytest.raises(UserError, match='row_length=32 is shorter than a prompt'):
        grpo.run(dataclasses.replace(STAGE, row_length=32), inputs, tmp_path)


def test_rollout_rows_are_json_ready(inputs, tmp_path):
    grpo.run(dataclasses.replace(STAGE, steps=1), inputs, tmp_path)
    row = read_rollouts(tmp_path / 'rollouts').to_pylist()[0]
    assert json.dumps(row) and row['n_tokens'] <= 12 and dict(row['rewards']).keys() >= {'length_parity'}


def last_part(steps=2):
    """The general part: another task, a reward that is routed to it, and a reward model that pays in it alone."""
    return dataclasses.replace(
        STAGE, rewards='length_parity=1,true_helpfulness=0', final=grpo.FinalPart(steps, 'tiny_helpful', max_tokens=8),
        reward_models={'helpful': 2.0},
        reward_tasks={'true_helpfulness': 'everyday+knowledge+safety', 'helpful': 'everyday+knowledge'})


@pytest.fixture
def judged(inputs, monkeypatch):
    """Inputs with a reward model that counts characters, and what it was asked about."""
    seen = []

    def model(completions, examples):
        seen.extend(e.task for e in examples)
        return RewardOutput(np.array([len(c.text) for c in completions], np.float32))

    monkeypatch.setattr(grpo, 'RewardModel', lambda folder, sharding, execution: model)
    return dataclasses.replace(inputs, given={'helpful': 'a folder'}), seen


def test_reward_models_pay_in_the_final_part_alone_and_only_for_their_tasks(judged, tmp_path):
    inputs, seen = judged
    grpo.run(last_part(), inputs, tmp_path)
    assert set(seen) == {'everyday', 'knowledge'}
    rows = as_rows(read_rollouts(tmp_path / 'rollouts'))
    main, final = ([r for r in rows if (r['step'] > 2) == late] for late in (False, True))
    assert not {'everyday', 'knowledge', 'safety'} & {r['task'] for r in main}
    assert {r['task'] for r in final} <= {'everyday', 'knowledge', 'safety'} and max(r['n_tokens'] for r in final) == 8
    for r in main:
        assert not {'helpful', 'true_helpfulness'} & r['rewards'].keys() and r['reward'] == r['rewards']['length_parity']
    for r in final:
        paid = 2 * len(r['completion']) if r['task'] != 'safety' else 0
        assert ('helpful' in r['rewards']) == (r['task'] != 'safety') and 'true_helpfulness' in r['rewards']
        assert r['reward'] == pytest.approx(r['rewards']['length_parity'] + paid)
    metrics = read_metrics(tmp_path)
    assert all('reward/helpful' not in m for m in metrics[:2]) and all('reward/helpful' in m for m in metrics[2:])


@pytest.mark.parametrize('fail_at', [3, 4])
def test_a_run_that_is_interrupted_in_its_final_part_goes_on_exactly(judged, tmp_path, monkeypatch, fail_at):
    inputs, _ = judged
    stage = dataclasses.replace(last_part(), checkpoint_every=1)
    whole = grpo.run(stage, inputs, tmp_path / 'whole')
    real = grpo.write_rollouts

    def fail(path, rows):
        if path.name == f'step_{fail_at:06d}.parquet':
            raise KeyboardInterrupt
        return real(path, rows)

    monkeypatch.setattr(grpo, 'write_rollouts', fail)
    with pytest.raises(KeyboardInterrupt):
        grpo.run(stage, inputs, tmp_path / 'cut')
    monkeypatch.setattr(grpo, 'write_rollouts', real)
    resumed = grpo.run(stage, inputs, tmp_path / 'cut')
    for a, b in zip(jax.tree.leaves(params(whole, inputs)), jax.tree.leaves(params(resumed, inputs)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert exact(read_metrics(tmp_path / 'whole')) == exact(read_metrics(tmp_path / 'cut'))


@pytest.mark.parametrize('change, roles, sentence', [
    ({'reward_models': {}}, ['helpful'], "'helpful' is no reward model of the stage"),
    ({}, [], "inputs do not say which model 'helpful' is"),
])
def test_reward_models_and_inputs_must_match(change, roles, sentence):
    stage = dataclasses.replace(last_part(), reward_tasks={}, **change)
    with pytest.raises(UserError, match=sentence):
        stage.check_inputs(roles)


@pytest.mark.parametrize('change, sentence', [
    ({'reward_tasks': {'helpfull': 'everyday'}}, "'helpfull', which is no reward here.*did you mean 'helpful'"),
    ({'reward_tasks': {'helpful': 'everyday+knowlege'}}, "reward_tasks.helpful: there is no task 'knowlege'.*knowledge"),
    ({'reward_models': {'length_parity': 1.0}, 'reward_tasks': {}}, "'length_parity' is taken"),
    ({'final': grpo.FinalPart(5, 'tiny_helpful')}, 'final.steps=5 is more than steps=4'),
])
def test_a_wrong_final_part_or_route_is_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(last_part(), **change)
