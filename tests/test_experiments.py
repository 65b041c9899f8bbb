"""Every shipped experiment file, with every argument it names, parses into a checked experiment."""

import dataclasses
import pathlib

import pytest

from r1jax.config import load_experiment, parse_experiment
from r1jax.errors import UserError
from r1jax.pipeline import STAGES
from r1jax.rewards.base import parse_weights
from r1jax.stages.evaluate import Evaluation

TINY = pathlib.Path(__file__).parents[1] / 'experiments' / 'tiny'


def parse(spec, *overrides):
    config = load_experiment(str(TINY / spec), overrides)
    return parse_experiment(config, {kind: known.settings for kind, known in STAGES.items()}, Evaluation)


@pytest.mark.parametrize('arm, rewards', [
    ('zero', {'accuracy', 'format'}), ('format_only', {'format'}), ('random_reward', {'random'})])
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
