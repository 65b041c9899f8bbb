"""Tiny functions: graded without running anything, whatever is written."""

import sys
import time

import pytest

from r1jax.rewards.functions import Refused, normal_form, parse_tests, passes

TESTS = 'assert f(0) == 4\nassert f(2) == 10\nassert f(5) == 19'


@pytest.mark.parametrize('answer', [
    'def f(x): return x*3+4',
    'def f(x): return 4+3*x',
    'def f(x):\n    return x * 3 + 4\n',
    '  def f(x): return (x+1)*3+1  ',
    '```python\ndef f(x): return x*3+4\n```',
    '```\ndef f(x):\n    return x*3+4\n```',
    '```py def f(x): return x*3+4```',
    'def f(n): return n*3+4',
    'def f(x): return x*3+4;  # done',
    'def f(x): return -(-x*3)+4',
    'def f(x): return x*3+4 if x >= 0 else 0',
    'def f(x): return x*3+2**3-4',
    'def f(x): return (x*6+8)//2',
    'def f(x): return x*3+4+x%1',
    'def f(x): return x*3+4+(x<0)',
    'def f(x): return 4 if x==0 else 10 if 1<x<=2 else 19',
])
def test_right(answer):
    assert passes(answer, TESTS)


@pytest.mark.parametrize('answer', [
    '', 'x*3+4', 'f', 'def f(x): return x*3', 'def f(x): return 10', 'def f(x): return', 'def f(x): pass',
    'def f(x):',
    'def g(x): return x*3+4', 'def f(): return 4', 'def f(x, y): return x*3+4', 'def f(x): return x*3+y',
    'lambda x: x*3+4', 'f = lambda x: x*3+4',
    'def f(x=0): return x*3+4', 'def f(*x): return 4', 'def f(**x): return 4', 'def f(x, /): return x*3+4',
    'def f(*, x): return 4',
    'def f(x, x): return x*3+4', 'def f(x: int): return x*3+4', 'def f(x) -> int: return x*3+4',
    'async def f(x): return x*3+4',
    '@f\ndef f(x): return x*3+4',
    'def f(x): return x*3+4\ndef f(x): return x', 'def f(x): return x*3+4\nprint(1)',
    'import os\ndef f(x): return x*3+4',
    'def f(x): y = x*3; return y+4', 'def f(x):\n  while True: pass\n  return x*3+4',
    'def f(x): return f(x)', 'def f(x): return int(x*3+4)',
    'def f(x): return __import__("os").system("true")',
    'def f(x): return (lambda: x*3+4)()', 'def f(x): return [x*3+4][0]', 'def f(x): return x.real*3+4',
    'def f(x): return (y:=x*3)+4',
    'def f(x): return x*3.0+4', 'def f(x): return x*6/2+4', 'def f(x): return "a"*x',
    'def f(x): return x*3+4 and x*3+4',
    'def f(x): return x//0', 'def f(x): return x%0', 'def f(x): return 2**-x',
    'def f(x): return x*3+4+9**9**9*0',
    'def f(x): return 9**9**9**9', 'def f(x): return 10**100000', 'def f(x): return (1<<99999)*0+x*3+4',
    'def f(x): return ' + '9' * 200,
    'def f(x): return x*3+4 # f\n1', 'the function is def f(x): return x*3+4', 'def f(x) return x*3+4',
    'def f(x): return x*3+4\x00', 'def f(x): return ' + '(' * 900 + 'x' + ')' * 900,
    'def f(x): return ' + '-' * 1900 + 'x',
    'def f(x): return ' + '+'.join(['x'] * 900), 'def f(x): return ' + ' ' * 3000 + 'x*3+4', '```python\n```',
    '```',
    'class f: pass', 'def f(x): yield x', 'def f(x): return await x', 'def f(x): return (*x,)',
    'def f(x): return f"{x}"', 'assert True',
])
def test_wrong_or_refused(answer):
    assert not passes(answer, TESTS)


def test_numbers_stay_small_in_time():
    start = time.process_time()
    square = 'def f(x): return ' + '*'.join(['x'] * 90)
    assert not passes(square, 'assert f(99999999) == 1')
    assert not passes('def f(x): return ((((x**9)**9)**9)**9)**9', 'assert f(99) == 1')
    assert time.process_time() - start < 10


def test_the_tests_of_an_answer_may_say_more_than_equality():
    assert passes('def g(a, b): return a-b',
    'assert g(3, 1) == 2\nassert g(1, 3) < 0\nassert g(1, 3) == -2\nassert -3 < g(0, 1) < 1')
    assert passes('def f(x): return x+1', 'assert f(f(1)) == 3')
    assert passes('def even(x): return x%2==0', 'assert even(2)\nassert even(3) == False')
    assert not passes('def even(x): return x%2==1', 'assert even(2)\nassert even(3) == False')


@pytest.mark.parametrize('tests', [
    '', '# nothing', 'f(2) == 10', 'assert f(2) == 10\nprint(1)', 'assert f([1]) == 1', 'assert f(1) == "a"',
    'assert 1 == 1',
    'assert f(1) == g(1)', 'assert f(x=1) == 1', 'assert x == 1', 'assert f(1) == 1.5', 'assert f(1',
    'import os\nassert f(1) == 1',
    'assert f.g(1) == 1', 'assert abs(f(1)) == 1', 'assert f(1) == 1 or True',
])
def test_tests_beyond_the_tiny_language_are_refused(tests):
    with pytest.raises(Refused):
        parse_tests(tests)
    with pytest.raises(Refused):
        passes('def f(x): return x', tests)


def test_nothing_is_run(monkeypatch):
    ran = []
    monkeypatch.setattr(sys, 'r1jax_ran', ran.append, raising=False)
    passes('def f(x): return __import__("sys").r1jax_ran(1)', TESTS)
    passes('def f(x): return x if __import__("sys").r1jax_ran(1) else x', TESTS)
    assert not ran


def test_equal_spellings_share_a_normal_form():
    forms = {normal_form(text) for text in (
        'def f(x): return x*3+4', 'def f(x):\n  return (x * 3) + 4',
        '```python\ndef f(x): return x*3+4\n```')}
    assert forms == {'def f(x): return x * 3 + 4'}
    assert normal_form('def f(x): return (x+4)*3') != normal_form('def f(x): return x+4*3')
    assert normal_form('x*3+4') is None
