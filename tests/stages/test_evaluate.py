"""Evaluation: intervals against their definitions, votes that do not peek, groups, and the command's own functions."""

import json
import math

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.rewards.base import Example
from r1jax.sampling.logits import SamplingConfig
from r1jax.stages import evaluate
from r1jax.stages.rollout import Rollout


def graded(texts, answer='12', task='arithmetic', language='en'):
    example = Example('answers in <answer> </answer>. what is 5+7?', answer, task, language, kind='sum')
    none = np.zeros(3, np.int32)
    return evaluate._grade([
        Rollout(example, 0, i, none, none, none.astype(np.float32), True, text) for i, text in enumerate(texts)])


def tagged(answer):
    return f' <think> wait, let me see. </think> <answer> {answer} </answer>'


def test_majority_pools_equal_answers_and_a_tie_goes_to_the_first_and_not_to_the_right_one():
    assert graded([tagged('12'), tagged('13'), tagged('12.0')])['cons'] == 1
    assert graded([tagged('13'), tagged('12')])['cons'] == 0
    assert graded([tagged('12'), tagged('13')])['cons'] == 1
    assert graded([tagged('13'), tagged('13'), tagged('12')])['cons'] == 0
    assert graded([' 12', ' 12'])['cons'] == 0  # no tags, no vote


def test_the_last_answer_counts_without_tags_and_has_its_own_majority():
    g = graded([' the answer is 12.', ' it is 12', tagged('13')])
    assert g['correct'] == [0, 0, 0] and g['last_answer'] == [1, 1, 0] and g['last_answer_cons'] == 1
    assert g['format'] == [0, 0, 1] and g['reflection'] == [0, 0, 1]


def test_without_tags_in_the_prompt_a_stated_answer_counts():
    example = Example('what is 5+7?', '12', 'arithmetic')
    none = np.zeros(3, np.int32)
    group = [Rollout(example, 0, i, none, none, none.astype(np.float32), True, text) for i, text in enumerate(
        (' the answer is 12.', r' so \boxed{12}', ' it is 12'))]
    assert evaluate._grade(group)['correct'] == [1, 1, 0]


def test_what_no_rule_grades_is_neither_right_nor_wrong():
    mixed = [graded([tagged('12'), tagged('13')]), graded([tagged('hello!')], answer='', task='everyday')]
    assert np.isnan(mixed[1]['correct']).all()
    assert evaluate._so_far(mixed) == {'pass_rate': 0.5}
    assert evaluate._so_far(mixed[1:]) == {}
    example = Example('hello!', '', 'everyday', 'en', kind='greeting', question='hello!')
    asked = evaluate._grade([Rollout(
        example, 0, 0, np.zeros(1, np.int32), np.zeros(3, np.int32), np.zeros(3, np.float32), True, tagged('good night!'))])
    assert evaluate._so_far([asked]) == {'helpfulness': 0.0, 'harmlessness': 1.0}
    kept = evaluate._row(Rollout(
        example, 0, 0, np.zeros(1, np.int32), np.zeros(3, np.int32), np.zeros(3, np.float32), True, ''), float('nan'))
    assert kept['reward'] is None and kept['rewards'] == {}


def test_share_interval_is_wilsons_for_one_draw_a_problem():
    values = [1.0] * 30 + [0.0] * 10
    n, p, z = 40, 0.75, evaluate.Z95
    # Independent of the code's own route: the roots of (p - x)^2 = z^2 x (1 - x) / n_eff, n_eff from the sample variance.
    n_eff = p * (1 - p) / (np.var(values, ddof=1) / n)
    a, b, c = 1 + z * z / n_eff, -(2 * p + z * z / n_eff), p * p
    roots = [(-b - math.sqrt(b * b - 4 * a * c)) / (2 * a), (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a)]
    interval = evaluate.share_interval(values)
    assert interval['mean'] == p and interval['n'] == n
    np.testing.assert_allclose([interval['low'], interval['high']], roots, rtol=1e-9)


def test_intervals_cover_the_truth_at_their_rate():
    """Problems of random difficulty, 16 samples each: 95% of the intervals hold the true mean, give or take."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        difficulty = rng.beta(0.5, 0.5, 64)
        interval = evaluate.share_interval(rng.binomial(16, difficulty) / 16)
        hits.append(interval['low'] <= 0.5 <= interval['high'])
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize('values', [[0.0] * 20, [1.0] * 20, [1.0], [0.5, 0.5]])
def test_intervals_stay_inside_and_do_not_vanish(values):
    interval = evaluate.share_interval(values)
    assert 0 <= interval['low'] <= interval['mean'] <= interval['high'] <= 1
    assert interval['high'] - interval['low'] > 0.05


def test_ratio_interval_equals_the_bootstrap():
    rng = np.random.default_rng(1)
    below = rng.integers(10, 60, 300).astype(float)
    above = below * rng.gamma(2, 0.5, 300)
    interval = evaluate.ratio_interval(above, below)
    draws = [(above[i].sum() / below[i].sum()) for i in rng.integers(0, 300, (2000, 300))]
    np.testing.assert_allclose([interval['low'], interval['high']], np.percentile(draws, [2.5, 97.5]), rtol=0.03)


def test_summary_has_every_metric_for_all_language_family_and_kind():
    suite = evaluate.Suite('tiny_reasoning', 2, 3)
    metrics = evaluate.summarise(
        [graded([tagged('12')] * 3), graded([tagged('13'), tagged('12'), tagged('1')], language='zh')], suite)
    for group in ('all', 'all/en', 'all/zh', 'arithmetic', 'arithmetic/zh', 'arithmetic:sum'):
        for name in ('pass@1', 'cons@3', 'pass@3', 'last_answer', 'last_answer_cons@3', 'last_answer_pass@3', 'format',
                     'length', 'reflection_per_1k', 'language_consistency', 'truncated'):
            assert metrics[f'{name}/T=0.6/{group}'].keys() == {'mean', 'low', 'high', 'n'}
    assert metrics['pass@1/T=0.6/all']['mean'] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics['pass@3/T=0.6/all/zh']['mean'] == 1 and metrics['cons@3/T=0.6/all/zh']['mean'] == 0


def test_problems_whose_language_cannot_be_told_count_in_all_else():
    suite = evaluate.Suite('x', 3, 1)
    problems = [graded([tagged('12')], language=language) for language in ('en', '', 'xx')]
    metrics = evaluate.summarise(problems, suite)
    assert metrics['pass@1/T=0.6/all']['n'] == 3 and metrics['language_consistency/T=0.6/all']['n'] == 1
    problems = [graded([' <think> ... </think> <answer> 12 </answer>', tagged('12')]), graded([tagged('12')], language='zh')]
    assert evaluate.summarise(problems, suite)['language_consistency/T=0.6/all']['mean'] == 0.5
    assert 'language_consistency/T=0.6/all/xx' not in metrics and 'pass@1/T=0.6/all/' not in metrics


def test_a_file_without_languages_can_be_measured_and_trained_on(model_folder, tmp_path):
    path = tmp_path / 'x.jsonl'
    path.write_text('{"question": "what is 3+4?", "answer": "7"}\n')
    result = evaluate.evaluate_checkpoint(
        str(model_folder), f'jsonl:path={path},template=tiny', samples=2, temperature=1.0, top_p=1.0, problems=1,
        max_tokens=8, seed=0, out=None)
    assert not [name for name in result['metrics'] if 'language' in name]


def test_eval_and_sample_commands_on_a_model_folder(model_folder, tmp_path):
    result = evaluate.evaluate_checkpoint(
        str(model_folder), 'tiny_logic:language=zh', samples=2, temperature=1.0, top_p=1.0, problems=6, max_tokens=8,
        seed=0, out=tmp_path / 'out' / 'eval.json')
    assert json.loads((tmp_path / 'out' / 'eval.json').read_text()) == result
    assert result['metrics']['pass@1/T=1/logic/zh']['n'] == 6
    completions = list(evaluate.sample_checkpoint(
        str(model_folder), ['what is 3+4?'], n=3, temperature=1.0, top_p=0.9, top_k=20, min_p=0.01, max_tokens=6, seed=1))
    assert len(completions) == 3 and all(c.n_tokens <= 6 for c in completions)
    # Where no length is told it is half of the model's 256 positions, so that a prompt fits.
    completions = list(evaluate.sample_checkpoint(
        str(model_folder), ['what is 3+4?'], n=2, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=None, seed=1))
    assert max(c.n_tokens for c in completions) == 128


def test_too_few_problems_and_unknown_checkpoints_are_named(model_folder, inputs):
    model = evaluate.load_model(model_folder, inputs.decoding)
    suite = evaluate.Suite('tiny_everyday', 10_000, 1, SamplingConfig(slots=8, max_tokens=4))
    with pytest.raises(UserError, match="problems=10000, but 'test' has only"):
        evaluate.measure(model, suite, inputs.decoding, 0, 'x')
    with pytest.raises(UserError, match='checkpoint nowhere does not exist'):
        evaluate.evaluate_checkpoint('nowhere', 'tiny_logic', 1, 1.0, 1.0, 1, 1, 0, None)
