"""The format reward: the paper's structure and nothing else, and templates that write <think> themselves."""

import pytest

from r1jax.rewards import Completion, Example, get, has_format

GOOD = '<think>thought</think><answer>81</answer>'


@pytest.mark.parametrize('text', [
    GOOD,
    ' <think> thought </think> <answer> 81 </answer>',
    '\n<think>\nthought\n</think>\n\n<answer>\n81\n</answer>\n',
    '<think>a < b > c </b></think><answer>x<3</answer>',
    '<think>.</think><answer>?</answer>',
    '<think>想</think><answer>八十一</answer>',
])
def test_has_it(text):
    assert has_format(text)


BAD = [
    '', ' ', '81', 'thought 81',
    'thought</think><answer>81</answer>',
    '<think>thought<answer>81</answer>',
    '<think>thought</think>81</answer>',
    '<think>thought</think><answer>81',
    '<think>thought</think>81',
    '<think>thought',
    '<answer>81</answer>',
    '<think></think><answer>81</answer>',
    '<think> \n </think><answer>81</answer>',
    '<think>thought</think><answer></answer>',
    '<think>thought</think><answer> </answer>',
    'so <think>thought</think><answer>81</answer>',
    '<think>thought</think>so<answer>81</answer>',
    '<think>thought</think><answer>81</answer>.',
    '<answer>81</answer><think>thought</think>',
    '</think>thought<think><answer>81</answer>',
    '<think>thought</think></answer>81<answer>',
    '<think>thought<answer>81</answer></think>',
    '<think>thought<answer>81</think></answer>',
    '<think><think>thought</think><answer>81</answer>',
    '<think><think>thought</think></think><answer>81</answer>',
    '<think>thought</think></think><answer>81</answer>',
    '<think>thought</think><answer><answer>81</answer></answer>',
    GOOD + GOOD,
    GOOD + '<answer>82</answer>',
    '<think>a</think><think>b</think><answer>81</answer>',
    '<think>say <answer>80</answer> first</think><answer>81</answer>',
    '<Think>thought</Think><Answer>81</Answer>',
    '< think>thought</think><answer>81</answer>',
    '<think>thought<think><answer>81<answer>',
    '<think>' * 50 + '</think>' * 50 + '<answer>' * 50 + '</answer>' * 50,
    '<think>thought</think><answer>81</answer>\x00',
]


@pytest.mark.parametrize('text', BAD)
def test_has_it_not(text):
    assert not has_format(text)


@pytest.mark.parametrize('text',
['thought</think><answer>81</answer>', '\nthought\n</think>\n<answer>\n81\n</answer>\n'])
def test_prefilled(text):
    assert has_format(text, prefilled=True) and not has_format(text)


@pytest.mark.parametrize('text',
[GOOD, '</think><answer>81</answer>', '<answer>81</answer>', 'thought', 'thought</think>81'])
def test_prefilled_bad(text):
    assert not has_format(text, prefilled=True)


@pytest.mark.parametrize('text, prefilled', [
    ('<think></think><answer>81</answer>', False),
    (' <think> </think> <answer> 81 </answer>', False),
    ('</think><answer>81</answer>', True),
    (' \n</think> <answer>81</answer>', True),
])
def test_a_thought_may_be_blank_where_that_is_allowed(text, prefilled):
    assert has_format(text, prefilled=prefilled, blank_thought=True)
    assert not has_format(text, prefilled=prefilled)


@pytest.mark.parametrize('text', [
    text for text in BAD if text not in ('<think></think><answer>81</answer>', '<think> \n </think><answer>81</answer>')])
def test_nothing_else_changes_where_a_thought_may_be_blank(text):
    assert not has_format(text, blank_thought=True)


def test_truncated_never_has_it():
    assert not has_format(GOOD, finished=False) and not has_format(GOOD, finished=False, blank_thought=True)


def test_reward():
    completions = [Completion(GOOD), Completion(GOOD, finished=False), Completion('81'),
    Completion('a</think><answer>1</answer>')]
    examples = [Example('q')] * 4
    assert get('format')(completions, examples).values.tolist() == [1, 0, 0, 0]
    assert get('format', prefilled=True)(completions, examples).values.tolist() == [0, 0, 0, 1]


def test_the_reward_allows_a_blank_thought_where_no_rule_can_grade():
    blank = Completion(' <think> </think> <answer> hello! </answer>')
    tasks = ('everyday', 'knowledge', 'safety', 'general', 'translation', 'arithmetic', 'math', '')
    examples = [Example('q', task=task) for task in tasks]
    assert get('format')([blank] * 8, examples).values.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
