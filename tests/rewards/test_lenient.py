"""The last answer, tags or not."""

import time

import pytest

from r1jax.rewards import Example, is_correct, last_answer


def last_answer_correct(text, example):
    answer = last_answer(text, example)
    return answer is not None and is_correct(answer, example)


SUM = Example('what is 37+58-14?', '81', 'arithmetic')
NEGATIVE = Example('what is 44-58?', '-14', 'arithmetic')
PI = Example('half a turn?', r'\dfrac{\pi}{2}', 'math')
CHOICE = Example('which? (A) 12 (B) 81 (C) 83', 'B', 'choice', options=('12', '81', '83'))
WORDS = Example('which? (A) a dog (B) the cat', 'B', 'choice', options=('a dog', 'the cat'))
WHO = Example('kim is taller than bob. who is tallest?', 'kim', 'logic')
WHO_ZH = Example('阿云比阿明高。谁最高？', '阿云', 'logic')
NAME = Example('Ann is taller than Bob. Who is tallest?', 'Ann', 'logic')
COUNT = Example('how many lie?', '2', 'logic')
CODE = Example('write f(x): add 7 to x.', 'def f(x): return x+7', 'function',
tests='assert f(1) == 8\nassert f(5) == 12')
TO_EN = Example('翻译成英文：红色的朋友跳舞', 'the red friend dances', 'translation')
TO_ZH = Example('in chinese: the teacher sleeps', '老师睡觉', 'translation')


@pytest.mark.parametrize('example, text', [
    (SUM, '81'), (SUM, ' the answer is 81.'), (SUM, '37+58=95. 95-14=81.'),
    (SUM, '<think>80</think><answer>81</answer>'),
    (SUM, '<answer>80</answer> no: 81'), (SUM, '<think>it is 81</think>'), (SUM, '所以答案是８１。'),
    (SUM, '81.0'), (SUM, 'is 81, ok'),
    (SUM, '95-14=81</think>'), (SUM, 'so 162/81'), (SUM, '81 apples'),
    (Example('', '1234', 'arithmetic'), 'it is 1,234.'),
    (NEGATIVE, '44-58=-14'), (NEGATIVE, 'it is -14.'), (NEGATIVE, '-14'), (NEGATIVE, '(-14)'),
    (NEGATIVE, '是−14。'),
    (Example('', '14', 'arithmetic'), '58-14'), (Example('', '14', 'arithmetic'), 'x -14'),
    (Example('', '1/2', 'arithmetic'), 'so 1/2'),
    (PI, r'so \boxed{\frac{\pi}{2}}'), (PI, r'it is $\frac{\pi}{2}$.'), (PI, 'x = pi/2'), (PI, 'x=pi/2'),
    (PI, r'\boxed{1} and \boxed{\pi/2} of 3'), (Example('', '81', 'math'), 'The answer is 81 cm'),
    (CHOICE, 'B'), (CHOICE, '81 is (B). so the answer is B.'), (CHOICE, 'A or B'),
    (CHOICE, '(A) no. (B) yes'), (CHOICE, '答案是B。'),
    (CHOICE, 'it is (b).'), (CHOICE, '<answer>B</answer>'), (CHOICE, 'so\n81'),
    (CHOICE, 'B. A check shows it'), (WORDS, 'the cat'),
    (WHO, 'kim'), (WHO, 'so the answer is kim.'), (WHO, '<think>bob</think><answer>Kim</answer>'),
    (WHO_ZH, '所以答案是阿云。'),
    (WHO_ZH, '阿明</think>阿云'), (NAME, 'Bob? No: Ann is the tallest.'), (NAME, 'Ann! So it is her.'),
    (COUNT, 'so 2 lie'), (COUNT, '3. 2'),
    (CODE, 'def f(x): return x+7'), (CODE, '所以答案是def f(x): return x+7'),
    (CODE, 'def f(x): return x+6\nno.\ndef f(x):\n  return x+7'),
    (CODE, '```python\ndef f(x):\n    return x+7\n```'), (CODE, '<answer> def f(x): return x+7 </answer>'),
    (CODE, 'so def f(x): return x+7.'), (CODE, 'def f(x): return x+7`'),
    (TO_EN, 'the red friend dances'), (TO_EN, '<think>红色的：red。</think> The red friend dances.'),
    (TO_EN, 'hm. the red friend dances\n\n'),
    (TO_ZH, '好。老师睡觉。'),
])
def test_right(example, text):
    assert last_answer_correct(text, example), last_answer(text, example)


@pytest.mark.parametrize('example, text', [
    (SUM, ''), (SUM, 'eighty-one'), (SUM, '81 or 82'), (SUM, 'what is 37+58-14?'),
    (SUM, '<answer>81</answer> wait 80'), (SUM, '-81'),
    (SUM, '8 1'), (SUM, '=-81'), (SUM, '181'), (SUM, '81/82'), (SUM, '81.5'),
    (NEGATIVE, '14'), (NEGATIVE, '58-14'), (NEGATIVE, '44 -14'), (PI, 'pi'), (PI, '2'), (PI, ''),
    (PI, r'\boxed{\pi/2} or \boxed{\pi}'),
    (CHOICE, ''), (CHOICE, 'B or C'), (CHOICE, '83'), (CHOICE, 'Because'), (CHOICE, 'F'),
    (CHOICE, 'B, no: A'),
    (WHO, ''), (WHO, 'kim or bob'), (WHO, 'kimono'), (WHO_ZH, '阿云不是，是阿明'), (WHO_ZH, '云'),
    (NAME, 'Ann is taller than Bob'), (NAME, 'Bob'),
    (NAME, ''), (COUNT, '2 or 3'), (COUNT, 'two'),
    (CODE, 'x+7'), (CODE, 'def f(x): return x+7, then def f(x): return x+6'), (CODE, ''),
    (CODE, 'def f(x): return x+7 or so'),
    (TO_EN, ''), (TO_EN, 'the red friend dances. no.'), (TO_EN, 'the friend dances'), (TO_ZH, '睡觉'),
    (Example('hello', '', 'everyday'), 'hello'),
])
def test_wrong(example, text):
    assert not last_answer_correct(text, example), last_answer(text, example)


@pytest.mark.parametrize('spam',
['1' * 50_000, '1,' * 25_000, '-' * 50_000, 'A ' * 25_000, '(A' * 25_000, 'def f(x): return ' * 3_000,
                                  '. ' * 25_000, '\\boxed{' * 8_000, 'def ' * 15_000, 'x-' * 25_000,
                                  '\n' * 50_000, '1/' * 25_000])
def test_spam_is_fast(spam):
    start = time.process_time()
    for example in (SUM, PI, CHOICE, WHO, CODE, TO_EN):
        last_answer_correct(spam, example)
    assert time.process_time() - start < 30
