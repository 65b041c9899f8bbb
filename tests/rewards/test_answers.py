"""Where the answer of a response stands, and the plain forms it is compared in."""

import time

import pytest

from r1jax.rewards.answers import extract_answer, plain_characters, plain_text, thoughts

T = '<think>some thought</think>'


@pytest.mark.parametrize('text, answer', [
    (f'{T}<answer>81</answer>', '81'),
    (f'{T}\n<answer>\n 81 \n</answer>\n', '81'),
    (f'{T}<answer>x < 3</answer>', 'x < 3'),
    (f'{T}<answer>a\nb</answer>', 'a\nb'),
    (f'{T}<answer>81</answer> and more', '81'),
    (f'{T}<answer></answer>', ''),
    ('<answer>81</answer>', '81'),  # no thought at all: right or wrong is another question than the format
    ('some thought</think><answer>81</answer>', '81'),  # the template wrote <think>
    (f'{T}<answer>80</answer><answer>81</answer>', '81'),  # the last one counts
    (f'{T}<answer>81</answer><answer>80</answer>', '80'),
    (f'{T}<answer>81</answer> wait <answer>', '81'),  # a stray opening tag after it
    (f'{T}</answer><answer>81</answer>', '81'),
    ('<think>a</think><answer>80</answer><think>b</think><answer>81</answer>', '81'),
])
def test_finds_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize('text', [
    '',
    '81',
    f'{T} 81',
    f'{T}<answer>81',
    f'{T}81</answer>',
    f'{T}<Answer>81</Answer>',
    f'{T}< answer >81</ answer >',
    '<answer>81</answer><think>some thought</think>',  # the answer before the thought
    '<think>so <answer>81</answer></think>',  # the answer inside the thought
    '<think>so <answer>81</answer>',  # a thought that never ends
    f'{T}<think><answer>81</answer>',
    f'{T}<answer><think>81</answer>',
    f'{T}<answer>81<answer></answer></answer>',  # nested
    f'{T}<answer><answer>81</answer></answer>',
    f'{T}<answer>so <answer>81</answer>',  # the outer one is never closed
    '<answer>81</think></answer>',
])
def test_finds_no_answer(text):
    assert extract_answer(text) is None


def test_prefilled_thought_that_stays_open_has_no_answer():
    assert extract_answer('<answer>81</answer>', prefilled=True) is None
    assert extract_answer('thought</think><answer>81</answer>', prefilled=True) == '81'


@pytest.mark.parametrize('text, thought', [
    ('<think>abc</think><answer>1</answer>', 'abc'),
    ('abc</think><answer>1</answer>', 'abc'),
    ('<think>abc', 'abc'),
    ('abc', 'abc'),
    ('before <think>abc</think> after', 'abc'),
    ('<think></think>abc', ''),
])
def test_thoughts(text, thought):
    assert thoughts(text) == thought


@pytest.mark.parametrize('text, plain', [
    ('８１', '81'), ('－８１．５', '-81.5'), ('−3', '-3'), ('（Ｂ）', '(B)'), ('٨١', '81'), ('८१', '81'),
    ('3²', '3²'), ('½', '½'), ('①', '①'), ('81', '81'), ('a\u3000b', 'a b'),
])
def test_plain_characters(text, plain):
    assert plain_characters(text) == plain


@pytest.mark.parametrize('text, plain', [
    (' Kim. ', 'kim'), ('KIM', 'kim'), ('the  red\nfriend', 'the red friend'), ('老师睡觉。', '老师睡觉'),
    ('“kim”', 'kim'),
    ('**kim**', 'kim'), ('Straße', 'strasse'), ('cafe\u0301', 'caf\u00e9'), ('kim!!', 'kim'), ('...', ''),
    ('', ''),
])
def test_plain_text(text, plain):
    assert plain_text(text) == plain


@pytest.mark.parametrize('spam', [
    '<answer>' * 20_000, '</answer>' * 20_000, '<answer>1</answer>' * 10_000, '<think>' * 20_000,
    '</think>' * 20_000,
    '<' * 100_000, '<answer></think>' * 10_000,
])
def test_tag_spam_takes_linear_time(spam):
    start = time.perf_counter()
    extract_answer(spam), thoughts(spam)
    assert time.perf_counter() - start < 1.0
