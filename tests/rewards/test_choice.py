"""Multiple choice: which answers name one option."""

import json
import time

import pytest

from r1jax.rewards import Example, ExampleError, is_correct
from r1jax.rewards.choice import LETTERS, parse_choice

OPTIONS = ('12', '81', '83', '18')
WORDS = ('a dog', 'the cat', 'both of them', 'none')
HEDGES = ('A', 'B', 'A and B', 'all of the above', 'not B', 'A is correct')


@pytest.mark.parametrize('text', [
    'B', 'b', '(B)', '(b)', ' B ', 'B.', 'B)', '(B).', 'B:', 'B。', '[B]', '【B】', '（Ｂ）', 'Ｂ', '[b]',
    '(B) 81', 'B. 81', 'B) 81', 'B: 81', 'B, 81', 'B、81', 'B - 81', 'B – 81', '[B] 81',
    'B 81', '(B) 81.0', '(B) $81', '(B)81', 'b) 81', '81', '81.0', '81.', '$81', '８１', '(B)\n81',
])
def test_names_b(text):
    assert parse_choice(text, OPTIONS) == 'B'


@pytest.mark.parametrize('text', [
    '**B**', '**(B)**', '*B*', '__B__', '`B`', '"B"', "'B'", '“B”', '「B」', '**81**',
    '**B. 81**', '$B$', '\\(B\\)',
    '\\[B\\]', '\\boxed{B}', '\\boxed{(B)}', '\\boxed{B}.', '$\\boxed{B}$', '\\text{B}', '\\boxed{\\text{B}}',
    '\\boxed{\\mathrm{B}}',
    '**B** 81', '\\textbf{(B)}~81', '\\boxed{\\textbf{(B) }81}', '\\boxed{81}', '$81$', '**\\boxed{B}**', '{B}',
])
def test_layout_around_an_answer(text):
    assert parse_choice(text, OPTIONS) == 'B'


@pytest.mark.parametrize('text', [
    '**Answer:** B', '**Final answer**: (B)', '### Answer: B', 'Answer - B', 'B option', 'Letra B',
    'Option B', 'option (b)', 'Option B: 81', 'choice B', 'answer: B', 'Answer: (B)', 'Answer: **B**', '**Answer: B**',
    'answer = B', 'Answer B', 'the answer is B', 'The answer is B.', 'The answer is (B) 81.', 'the answer is 81',
    'The final answer is: B', 'The correct option is B', 'So the answer is option B', 'Therefore, the answer is (B).',
    'The best answer must be B', 'I choose B', 'B is correct', 'B is the correct answer.', 'Option B is correct!',
    'La respuesta es B', 'La respuesta correcta es la B', 'La réponse est B', 'Die Antwort ist B', 'La risposta è B.',
    'A resposta é B', 'A resposta é a B', 'Het antwoord is B', 'Ответ: B', 'Правильный ответ — B', 'Odpowiedź: B',
    'Cevap: B', 'Đáp án là B', 'Jawabannya adalah B', 'Jibu ni B', '选B', '选择B', '故选：B', '应选Ｂ。', '答案是B',
    '答案：B',
    '答案为B。', '正确答案是B', '所以答案是B', '因此，答案是B', 'B选项', '选项B', '答案是B选项', 'B是正确答案',
    '答えはB', '正解はBです',
    '정답은 B', '정답: B', 'الإجابة هي B', 'सही उत्तर B है', 'উত্তর: B', 'คำตอบคือ B', '答案是81',
])
def test_words_that_announce_an_answer(text):
    assert parse_choice(text, OPTIONS) == 'B'


@pytest.mark.parametrize('text', [
    '', ' ', '.', 'A or B', 'B or A', 'A and B', 'A, B', 'A B', 'AB', '(A)(B)', 'ABCD', 'A/B', 'B?', 'B 12', '(B) 12',
    '(A) 81', '81 (A)', 'A (81)', 'B (81) or', '81 (B) or 12', '12 or 81 (B)', '(A) 12 (B)', '(A) (B)', '(B) 81 or 12',
    'B or 81', 'it is B', '81 or 83', '12, 81', 'B, C',
    '(A) 12 (B) 81 (C) 83 (D) 18', 'E', '(E)', 'Z', 'I', 'I think', '82', '8', '1', '811', '12 81', '-81', 'B -81', 'B B',
    '(B) (B)', 'B1', 'option', 'answer', 'The answer is', 'Answers B', 'optional', '(B', 'B because 81',
    'B, because A is not',
    'not A', 'not B', 'Not (B)', 'B is wrong', 'B is not correct', 'option B is wrong', 'neither A nor B', 'either B',
    'everything but B', 'maybe B', 'I think B', 'B (not A)', 'the answer is A or B', 'the answer is not B', 'answer: A, B',
    'answer B C', 'Option A or B', '"A" or "B"', "'A' and 'B'", '**A** or **B**', '**A** **B**', '$A$ or $B$',
    '\\boxed{A}\\boxed{B}', '\\boxed{A} or \\boxed{B}', '\\boxed{A, B}', '"B', '{B', 'La respuesta no es B',
    '答案不是B', '不选B', '选项B错误', 'B选项不对', '选A或B', '答案是A和B', 'AB选项', 'all of the above', 'The',
    'В',  # a Cyrillic letter, the third of its alphabet
])
def test_names_nothing(text):
    assert parse_choice(text, OPTIONS) is None


@pytest.mark.parametrize('text, letter', [
    ('A', 'A'), ('a dog', 'A'), ('A dog', 'A'), ('(A) a dog', 'A'), ('A. a dog', 'A'), ('The cat.', 'B'),
    ('the  cat', 'B'), ('none', 'D'), ('**The cat**', 'B'), ('The answer is the cat.', 'B'), ('\\text{the cat}', 'B'),
    ('(D) none', 'D'), ('a', 'A'), ('a cat', None), ('(B) a dog', None), ('a dog or the cat', None),
    ('dog', None), ('not the cat', None), ('the cat is wrong', None),
    ('the cat the cat', None), ('both', None), ('La respuesta es the cat', 'B'),
])
def test_options_in_words(text, letter):
    assert parse_choice(text, WORDS) == letter


@pytest.mark.parametrize('text, letter', [
    ('A and B', 'C'), ('(C) A and B', 'C'), ('all of the above', 'D'), ('All of the above.', 'D'), ('not B', 'E'),
    ('The answer is A and B', 'C'), ('A, B', None), ('A or B', None), ('B', 'B'), ('(E) not B', 'E'), ('(B) not B', None),
    ('C is correct', 'C'), ('A is correct', 'F'), ('(A) is correct', 'A'), ('A and B is correct', None),
])
def test_options_that_read_like_hedges(text, letter):
    assert parse_choice(text, HEDGES) == letter


@pytest.mark.parametrize('text, letter', [
    ('cat', 'A'), ('cat food', 'B'), ('food', 'C'), ('(A) cat food', None), ('(B) cat', None), ('cat food food', None),
    ('no cat', None),
])
def test_options_that_hold_each_other(text, letter):
    assert parse_choice(text, ('cat', 'cat food', 'food', 'cats')) == letter


@pytest.mark.parametrize('text, letter', [
    ('B', 'B'), ('(b)', 'B'), ('B.', 'B'), ('the answer is B', 'B'), ('\\boxed{B}', 'B'), ('B is correct', 'B'),
    ('(B) 81', None), ('81', None), ('A or B', None), ('', None), ('K', 'K'), ('the answer is not B', None),
    ('Answers', None), ('options', None),
])
def test_without_options_only_labels_count(text, letter):
    assert parse_choice(text) == letter


def test_options_that_carry_their_label():
    options = ('A)12', 'B)81', '(C) 83')
    assert parse_choice('81', options) == 'B'
    assert parse_choice('B)81', options) == 'B'
    assert parse_choice('(C) 83', options) == 'C'


def test_equal_options_are_not_named_by_their_text():
    assert parse_choice('81', ('81', '81.0')) is None
    assert parse_choice('(B) 81', ('81', '81.0')) == 'B'


def test_numbers_are_compared_by_value():
    options = ('1/2', '0.25', '$1,000', '10%')
    for text, letter in (
            ('0.5', 'A'), ('50%', 'A'), ('25%', 'B'), ('1000.0', 'C'), ('0.1', 'D'), ('(D) 1/10', 'D'), ('100', None)):
        assert parse_choice(text, options) == letter


def test_option_texts_that_are_letters():
    assert parse_choice('y', ('x', 'y')) == 'B'
    assert parse_choice('B', ('B', 'A')) == 'B'  # a label before a text
    assert parse_choice('g(b)', ('f(a)', 'f(b)', 'g(b)')) == 'C'
    assert parse_choice('a dog', ('dog', 'a dog')) is None  # A, dog, or the text of B


@pytest.mark.parametrize('count', [4, 5, 10, 26])
def test_every_option_is_named_by_label_and_by_text_and_no_other_is(count):
    options = tuple(str(100 + i) for i in range(count))
    for i, letter in enumerate(LETTERS[:count]):
        for text in (letter, letter.lower(), f'({letter}) {options[i]}', options[i], f'the answer is {letter}'):
            assert parse_choice(text, options) == letter
    for letter in LETTERS[count:]:
        assert parse_choice(letter, options) is None


@pytest.mark.parametrize('gold', ['E', 'B or C', '84', '', '81.0', '(A) 18'])
def test_a_gold_answer_that_names_no_option_is_an_error(gold):
    example = Example('q', gold, 'choice', id='p7', options=('12', '81', '81', '18'))
    with pytest.raises(ExampleError, match="'p7'.*cannot be graded"):
        is_correct('B', example)


def test_a_gold_answer_may_be_a_letter_or_a_text():
    for gold in ('B', '(b)', '81', 'B) 81'):
        example = Example('q', gold, 'choice', options=OPTIONS)
        assert is_correct('\\boxed{B}', example) and is_correct('81', example)
        assert not is_correct('C', example) and not is_correct('83', example) and not is_correct('B or C', example)


def test_real_questions(shared):
    rows = [json.loads(line) for line in (shared / 'data/mcq/aqua_rat.jsonl').open()]
    assert len(rows) > 200
    for row in rows:
        options, gold = tuple(row['choices']), row['answer']
        example = Example('q', gold, 'choice', options=options)
        for letter, option in zip(LETTERS, options, strict=False):
            for text in (letter, option, f'The answer is ({letter}) {option[2:]}'):
                assert is_correct(text, example) == (letter == gold) or options.count(option) > 1
            bare = [other[2:] for other in options]
            assert parse_choice(option[2:], options) == (letter if bare.count(option[2:]) == 1 else None)


@pytest.mark.parametrize('spam', [
    'B' + ' ' * 100_000 + '81', '"' * 4000, '**' * 2000, '{' * 2000 + '}' * 2000, 'the answer is ' * 285, '选' * 4000,
    '\\boxed{' * 500, '(' * 4000, 'A ' * 2000,
])
def test_spam_names_nothing_and_is_fast(spam):
    start = time.process_time()
    assert parse_choice(spam, OPTIONS) is None
    assert time.process_time() - start < 20
