"""Every shipped experiment file, with every argument it names, parses into a checked experiment."""

import dataclasses
import io
import pathlib
import re

import pytest
from rich.console import Console

from r1jax.config import load_experiment, parse_experiment
from r1jax.dry_run import describe
from r1jax.errors import UserError
from r1jax.pipeline import STAGES
from r1jax.rewards.weights import parse_weights
from r1jax.stages.evaluate import Evaluation

TINY = pathlib.Path(__file__).parents[1] / 'experiments' / 'tiny'


def parse(spec, *overrides):
    config = load_experiment(str(TINY / spec), overrides)
    return parse_experiment(config, {kind: known.settings for kind, known in STAGES.items()}, Evaluation)


@pytest.mark.parametrize('arm, rewards', [
    ('zero', {'accuracy', 'format'}), ('format_only', {'format'}), ('random_reward', {'random'}),
    ('language', {'accuracy', 'format', 'language'})])
def test_the_arms_of_r1_zero_differ_in_their_rewards_alone(arm, rewards):
    experiment = parse(f'r1_zero.py:arm={arm}')
    stage = experiment.stages['r1_zero'].config
    assert set(parse_weights(stage.rewards)) == rewards
    plain = parse('r1_zero.py').stages['r1_zero'].config
    assert dataclasses.replace(stage, rewards=plain.rewards) == plain
    assert experiment.evaluation == parse('r1_zero.py').evaluation


def test_the_paper_protocol_is_what_r1_zero_is_measured_by():
    main = parse('r1_zero.py').evaluation.suites['main']
    assert (main.samples, main.sampling.temperature, main.sampling.top_p) == (16, 0.6, 0.95)
    assert main.problems >= 512 and main.split == 'test'


@pytest.mark.parametrize('world', ['reflective', 'plain'])
def test_pretraining_knows_both_worlds(world):
    assert parse(f'pretrain.py:world={world}').stages['pretrain'].config.recipe == world


def test_seeds_and_overrides_reach_the_experiment():
    experiment = parse('r1_zero.py:seed=2', ('stages.r1_zero.steps', '7'))
    assert experiment.seed == 2 and experiment.stages['r1_zero'].config.steps == 7


@pytest.mark.parametrize('spec, overrides, sentence', [
    ('r1_zero.py:arm=random', (), "no arm 'random'.*did you mean 'random_reward'"),
    ('r1_zero.py:sead=1', (), "did you mean 'seed'"),
    ('r1_zero.py', (('stages.r1_zero.step', '7'),), "did you mean 'steps'"),
    ('r1_zero.py', (('stages.r1_zero.loss.kl_estimator', 'k1'),), 'expected gradient'),
    ('r1_zero.py', (('stages.r1_zero.prompts', 'many'),), 'prompts'),
    ('r1_zeros.py', (), 'r1_zero.py'),
])
def test_what_is_wrong_is_named(spec, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        parse(spec, *overrides)


PAPER = TINY.parent


@pytest.mark.parametrize('spec', [
    'r1_zero.py', 'r1.py', *(f'distill.py:student={name}' for name in (
        'qwen_1_5b', 'qwen_7b', 'llama_8b', 'qwen_14b', 'qwen_32b', 'llama_70b'))])
def test_the_papers_experiments_are_described_by_a_dry_run_that_cites_and_writes_nothing(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    missing = describe(load_experiment(str(PAPER / spec)), Console(file=out, width=300, soft_wrap=True))
    text = out.getvalue()
    assert 'missing before it can run' in text and any('checkpoint' in sentence for sentence in missing)
    assert re.search(r'optimizer.learning_rate = \S+  \[\d+\]', text) and 'arXiv 2501.12948' in text
    assert list(tmp_path.iterdir()) == []


def test_the_figures_of_the_paper_are_in_its_experiments():
    zero = load_experiment(str(PAPER / 'r1_zero.py')).stages.r1_zero
    assert (zero.optimizer.learning_rate, zero.loss.kl_coef, zero.sampling.temperature) == (3e-6, 0.001, 1.0)
    assert (zero.prompts * zero.group, zero.minibatches, zero.steps * zero.minibatches) == (8192, 16, 10_400)
    assert (zero.sampling.max_tokens, zero.final.max_tokens, zero.reference_every * 16) == (32_768, 65_536, 400)
    r1 = load_experiment(str(PAPER / 'r1.py')).stages
    assert (r1.reasoning_rl.loss.clip_low, r1.reasoning_rl.loss.clip_high) == (10.0, 10.0)
    assert (r1.sft.epochs, r1.sft.batch, r1.sft.optimizer.learning_rate) == (2, 128, 5e-5)
    assert (r1.helpful_rm.batch, r1.helpful_rm.optimizer.learning_rate, r1.helpful_rm.epochs) == (256, 6e-6, 1)
    assert (r1.all_scenario_rl.sampling.temperature, r1.all_scenario_rl.final.steps * 16) == (0.7, 400)
    rates = {
        name: load_experiment(str(PAPER / f'distill.py:student={name}')).stages.distill.optimizer.learning_rate
        for name in ('qwen_1_5b', 'qwen_7b', 'llama_8b', 'qwen_14b', 'qwen_32b', 'llama_70b')}
    assert list(rates.values()) == [1e-4, 8e-5, 5e-5, 7e-5, 6e-5, 2e-5]


def test_the_stages_of_tiny_r1_are_the_papers_and_nothing_is_missing_for_them():
    out = io.StringIO()
    config = load_experiment(str(TINY / 'r1.py'), [('mesh.data', '2')])
    assert describe(config, Console(file=out, width=300)) == []
    for stage in ('r1_zero', 'cold_start', 'reasoning_rl', 'rejection', 'sft', 'helpful_rm', 'safety_rm', 'all_scenario_rl',
                  'distill'):
        assert f'. {stage}' in out.getvalue()


def test_a_source_must_name_a_setting():
    config = load_experiment(str(PAPER / 'r1_zero.py'))
    config.sources = (*config.sources, ('stages.r1_zero.step', 'somewhere'))
    with pytest.raises(UserError, match="there is no setting 'stages.r1_zero.step'"):
        describe(config)
