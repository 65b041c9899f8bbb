"""Numbers and simple LaTeX: what equals what, in both directions, and what is no answer at all."""

import itertools
import time

import pytest

from r1jax.rewards.math import parse_math, parse_number

EQUAL_NUMBERS = [
    ['81', '+81', '81.0', '81.', ' 81 ', '８１', '081', '81.00', '81。', '$81', '８１．０', '٨١'],
    ['-14', '−14', '－14', '-14.0', '- 14', '－１４'],
    ['1234', '1,234', '1,234.0', '１，２３４', '1234.'],
    ['1234567', '1,234,567'],
    ['0', '-0', '+0', '0.0', '00', '0.'],
    ['1/2', '0.5', '.5', '2/4', '50%', '１／２', '0.50', '1 / 2', '5/10.', '0.5/1'],
    ['-1/3', '-2/6'],
    ['7/2', '3.5', '+3.5'],
]
EQUAL_MATH = [
    [r'pi/2', r'\pi/2', r'\frac{\pi}{2}', r'\dfrac{\pi}{2}', r'\tfrac{\pi}{2}', r'\frac{1}{2}\pi',
    r'$\frac{\pi}{2}$',
     r'\boxed{\dfrac{\pi}{2}}', 'π/2', r'0.5\pi', r'\frac12\pi', r'1/2*pi', r'2\pi/4',
     r'\(\frac{\pi}{2}\)', r'\frac{ \pi }{ 2 }', r'\frac{\pi}{2}.'],
    [r'2\pi', '2pi', '2*pi', r'2 \pi', r'2\cdot\pi', '2π', r'+2\pi', r'\boxed{2\pi}', r'2\,\pi'],
    ['pi', r'\pi', 'π', '1pi', r'1.0\pi'],
    [r'-\pi', '-pi', r'-1\pi', '−π'],
    [r'\pi^2', 'pi^2', r'\pi^{2}'],
    [r'\frac{3}{4}', r'\dfrac{3}{4}', '3/4', '0.75', r'\frac{6}{8}', r'\frac34', r'75\%',
    r'\boxed{\frac{3}{4}}'],
    [r'-\frac{1}{3}', r'\frac{-1}{3}', r'\frac{1}{-3}', '-1/3'],
    ['81', r'\boxed{81}', '$81$', r'\boxed{\boxed{81}}', r'\(81\)', r'81.0', r'\$81'],
    ['1234', '1,234', r'1{,}234', r'1,\!234'],
    [r'\frac{1}{2\pi}', r'1/(2\pi)', '0.5/pi'],
]


@pytest.mark.parametrize('group', EQUAL_NUMBERS)
def test_equal_numbers(group):
    values = {text: parse_number(text) for text in group}
    assert None not in values.values() and len(set(values.values())) == 1, values


@pytest.mark.parametrize('group', EQUAL_MATH + EQUAL_NUMBERS)
def test_equal_math(group):
    forms = {text: parse_math(text) for text in group}
    assert None not in forms.values() and len(set(forms.values())) == 1, forms


@pytest.mark.parametrize('groups, parse',
[(EQUAL_NUMBERS, parse_number), (EQUAL_MATH + EQUAL_NUMBERS, parse_math)])
def test_different_values_have_different_forms(groups, parse):
    values = [{parse(text) for text in group} for group in groups]
    for first, second in itertools.combinations(values, 2):
        assert first == second or not first & second


@pytest.mark.parametrize('text', [
    '', ' ', '.', ',', '-', '+', '%', '/', 'eighty-one', '37+58-14', '6*7', '9^2', '3²', '½', '84/2', '81/1',
    '1/0', '0/0',
    '0/5', '81 or 82', '81, 82', '81 82', '1,23', '12,34', '1,2345', ',123', '1..2', '1.2.3', '+-81', '--81',
    '1e5', '1e999999999',
    'inf', 'nan', '0x51', '8_1', '81!', '=81', 'x=81', '81 apples', '(81)', '81a', '１２/', '1/2/3', '-', '½',
    '81\n82', '1/2%',
    '9' * 101,
])
def test_no_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize('text', [
    '', '37+58-14', '6*7', r'6\cdot 7', r'6 \times 7', '2pi+1', r'\pi+\pi', r'\frac{84}{2}', r'\frac{0}{5}',
    r'\frac{1}{0}',
    r'\frac{1}{0\pi}', r'\frac{1}{}', r'\frac{}{2}', r'\sqrt{2}', r'3\frac{1}{2}', '1/2pi', '*pi', '2*',
    'pie', 'pi2',
    r'\pi\pi', '81 82', '8 1', r'\boxed{1}\boxed{2}', r'\boxed{81', r'81 \text{ or } 82', '(1,2)', '[0,1]',
    'x', 'e', r'\frac',
    r'8\ 1', r'8\;1', r'8\:1', '8$1', r'8\$1', r'\(8\)\(1\)', r'\[8\]1',
    'pi or 2', '-', r'2^{10}', '{', '}' * 50, '\\' * 50, '9' * 101, '2 3pi', '3*pi*4',
])
def test_no_math(text):
    assert parse_math(text) is None


def test_plain_numbers_have_one_form_in_both():
    for text in ('81', '-3.5', '1/2', '50%', '1,234'):
        assert parse_math(text) == str(parse_number(text))


def test_exact_not_near():
    assert parse_number('0.333') != parse_number('1/3')
    assert parse_number('81.0000000000000000001') != parse_number('81')
    assert parse_number(str(2**60)) != parse_number(str(2**60 + 1))  # equal as floats


@pytest.mark.parametrize('text', [
    '(' * 50_000, r'\frac{' * 10_000, r'\boxed{' * 5_000, '1/' * 50_000, '1,' * 50_000, '9' * 100_000,
    'pi*' * 30_000, '-' * 99,
    ' ' * 99_000 + '1', r'\frac{1}{2}' * 9, '1' + ',111' * 24, '{' * 99,
])
def test_spam_is_fast(text):
    start = time.process_time()
    parse_number(text), parse_math(text)
    assert time.process_time() - start < 10
