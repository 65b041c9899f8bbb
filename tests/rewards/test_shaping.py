"""The overlong penalty against DAPO's equation, repetition, and the coin of the control arm."""

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.rewards import Completion, Example, get, sample_key
from r1jax.rewards.shaping import repetition


def test_overlong_is_equation_13_in_tokens():
    lengths = [1, 79, 80, 81, 90, 99, 100, 101, 500]
    completions = [Completion('x' * 10_000, n) for n in lengths]  # characters do not matter
    values = get('overlong', max_length=100, cache=20)(completions, [Example('q')] * len(lengths)).values
    np.testing.assert_allclose(values, [0, 0, 0, -0.05, -0.5, -0.95, -1, -1, -1], atol=1e-6)


@pytest.mark.parametrize('options',
[{'max_length': 10, 'cache': 0}, {'max_length': 10, 'cache': 11}, {'max_length': 10}, {}])
def test_overlong_options_are_checked_before_use(options):
    with pytest.raises(UserError, match='overlong'):
        get('overlong', **options)


def test_the_cosine_reward_goes_along_half_a_cosine_from_short_to_long():
    right, wrong = '<think>so</think> <answer>4</answer>', '<think>so</think> <answer>5</answer>'
    example = Example('2+2=?', answer='4', task='arithmetic')
    options = {'correct_short': 2.0, 'correct_long': 1.0, 'wrong_short': -10.0, 'wrong_long': 0.0, 'exceeded': -10.0}
    cosine = get('cosine', max_length=100, **options)
    for text, at_0, at_100 in ((right, 2.0, 1.0), (wrong, -10.0, 0.0)):
        lengths = np.array([1, 25, 50, 99])
        values = cosine([Completion(text, int(n)) for n in lengths], [example] * 4).values
        # The paper's CosFn(t, T, a, b) = a + (b - a) (1 + cos(t pi / T)) / 2, which is b at 0 and a at T.
        np.testing.assert_allclose(values, at_100 + (at_0 - at_100) * (1 + np.cos(lengths * np.pi / 100)) / 2, atol=1e-5)
    cut = [Completion(right, 100), Completion(right, 5, finished=False), Completion(wrong, 300)]
    np.testing.assert_array_equal(cosine(cut, [example] * 3).values, -10)
    np.testing.assert_array_equal(cosine([Completion('hello', 3)], [Example('hi', task='everyday')]).values, 0)


@pytest.mark.parametrize('options, sentence', [
    ({'max_length': 0}, 'max_length of at least 1'),
    ({'max_length': 9, 'wrong_short': 0.0}, 'wrong_short <= wrong_long'),
    ({'max_length': 9, 'exceeded': 0.75}, 'exceeded <= correct_long')])
def test_the_cosine_rewards_values_keep_their_order(options, sentence):
    with pytest.raises(UserError, match=sentence):
        get('cosine', **options)


@pytest.mark.parametrize('name, options', [('overlong', {'max_length': 9, 'cache': 3}), ('cosine', {'max_length': 9})])
def test_rewards_of_length_want_to_know_it(name, options):
    with pytest.raises(UserError, match='needs the number of tokens'):
        get(name, **options)([Completion('4')], [Example('q', answer='4', task='arithmetic')])


def test_repetition_is_the_share_of_runs_that_were_said_before():
    words = [f'w{chr(97 + i)}' for i in range(10)]
    assert repetition(' '.join(words), 8) == 0 and repetition('a b', 8) == 0
    assert repetition(' '.join(words * 2), 8) == pytest.approx(3 / 13)
    assert repetition('好' * 20, 8) == pytest.approx(12 / 13)
    # a b c a b c a: (a b c) (b c a) (c a b), then two of them again
    assert repetition('a b c a b c a', 3) == pytest.approx(2 / 5)


def test_the_repetition_penalty_reads_what_it_is_told_to():
    texts = [' <think> a b a b a b </think> <answer> c d </answer>',
             ' <think> a b </think> stay warm! stay warm! stay warm!',
             'one two three']
    completions, examples = [Completion(text) for text in texts], [Example('q')] * 3
    whole = get('repetition', n=2)(completions, examples).values
    assert whole[0] < 0 and whole[1] < 0 and whole[2] == 0
    summary = get('repetition', n=3, reads='summary')(completions, examples).values
    # stay warm ! stay warm ! stay warm !: 7 runs, of which 3 are new
    np.testing.assert_allclose(summary, [0, -4 / 7, 0], atol=1e-6)


@pytest.mark.parametrize('options, sentence', [
    ({'n': 0}, 'whole number n of at least 1, not 0'), ({'n': 2.5}, 'whole number n of at least 1, not 2.5'),
    ({'reads': 'sumary'}, "not 'sumary'.*summary")])
def test_repetition_options_are_checked(options, sentence):
    with pytest.raises(UserError, match=sentence):
        get('repetition', **options)


def draws(seed=0, step=0, text='x', prompts=500, samples=8):
    examples = [Example('q', id=f'p{p}') for p in range(prompts) for _ in range(samples)]
    completions = [Completion(text,
    key=sample_key(step, f'p{p}', s)) for p in range(prompts) for s in range(samples)]
    return get('random', seed=seed)(completions, examples).values


def test_random_is_a_fair_coin():
    values = draws()
    assert set(values) == {0.0, 1.0}
    assert abs(values.mean() - 0.5) < 0.03  # 4000 draws: about 4 standard deviations
    groups = values.reshape(500, 8).mean(1)
    assert groups.var() == pytest.approx(0.25 / 8, rel=0.3)  # samples of a prompt are independent


def test_random_reads_the_key_and_not_the_text():
    np.testing.assert_array_equal(draws(text='x'), draws(text='<think>a</think><answer>b</answer>'))
    for other in (draws(seed=1), draws(step=1)):
        assert 0.45 < (draws() == other).mean() < 0.55


def test_random_does_not_depend_on_the_batch():
    examples = [Example('q', id='p')] * 6
    completions = [Completion('x', key=sample_key(0, 'p', s)) for s in range(6)]
    reward = get('random')
    whole = reward(completions, examples).values
    halves = [reward(completions[i : i + 3], examples[:3]).values for i in (0, 3)]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    np.testing.assert_array_equal(whole[::-1], reward(completions[::-1], examples).values)


def test_random_refuses_one_coin_for_two_draws():
    with pytest.raises(ValueError, match='key'):
        get('random')([Completion('a'), Completion('b')], [Example('q', id='p')] * 2)


def test_sample_key():
    keys = {sample_key(step, prompt, s) for step in range(20) for prompt in range(20) for s in range(20)}
    assert len(keys) == 8000 and max(keys) < 2**63 and min(keys) >= 0
    assert sample_key(1, 23, 4) != sample_key(12, 3, 4)
    assert sample_key(3, 'p1', 2) == sample_key(3, 'p1', 2)
