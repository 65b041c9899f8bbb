"""Multiple choice: which answers name one option."""

import pytest

from r1jax.rewards.choice import parse_choice

OPTIONS = ('12', '81', '83', '18')
WORDS = ('a dog', 'the cat', 'both of them', 'none')


@pytest.mark.parametrize('text', [
    'B', 'b', '(B)', '(b)', ' B ', 'B.', 'B)', '(B).', 'B:', '（Ｂ）', 'Ｂ',
    '(B) 81', 'B. 81', 'B) 81', 'B: 81',
    'B 81', '(B) 81.0',
    '(B)81', 'b) 81', '81', '81.0', '81.', '８１', '(B)\n81',
])
def test_names_b(text):
    assert parse_choice(text, OPTIONS) == 'B'


@pytest.mark.parametrize('text', [
    '', ' ', '.', 'A or B', 'B or A', 'A, B', 'A B', 'AB', '(A)(B)', 'ABCD', 'A/B', 'not A', 'B 12', '(B) 12',
    '(A) 81', '(B) 81 or 12',
    '(A) 12 (B) 81 (C) 83 (D) 18', 'E', '(E)', 'Z', '82', '8', '1', '12 81', 'the answer is B', 'B B',
    '(B) (B)', '((B))', 'B1', 'option',
    '(B', 'B because 81',
])
def test_names_nothing(text):
    assert parse_choice(text, OPTIONS) is None


@pytest.mark.parametrize('text, letter', [
    ('A', 'A'), ('a dog', 'A'), ('A dog', 'A'), ('(A) a dog', 'A'), ('A. a dog', 'A'), ('The cat.', 'B'),
    ('the  cat', 'B'), ('none', 'D'),
    ('(D) none', 'D'), ('a', 'A'), ('a cat', None), ('(B) a dog', None), ('a dog or the cat', None),
    ('dog', None),
    ('the cat the cat', None), ('both', None),
])
def test_options_in_words(text, letter):
    assert parse_choice(text, WORDS) == letter


@pytest.mark.parametrize('text, letter', [
    ('B', 'B'), ('(b)', 'B'), ('B.', 'B'), ('(B) 81', None), ('81', None), ('A or B', None), ('', None),
    ('K', 'K'),
])
def test_without_options_only_bare_labels_count(text, letter):
    assert parse_choice(text) == letter


def test_options_that_carry_their_label():
    options = ('A)12', 'B)81', '(C) 83')
    assert parse_choice('81', options) == 'B'
    assert parse_choice('B)81', options) == 'B'
    assert parse_choice('(C) 83', options) == 'C'


def test_equal_options_are_not_named_by_their_text():
    assert parse_choice('81', ('81', '81.0')) is None
    assert parse_choice('(B) 81', ('81', '81.0')) == 'B'


def test_option_texts_that_are_letters():
    assert parse_choice('y', ('x', 'y')) == 'B'
    assert parse_choice('B', ('B', 'A')) == 'B'  # a label before a text


def test_spam_names_nothing():
    assert parse_choice('B' + ' ' * 100_000 + '81', OPTIONS) is None
