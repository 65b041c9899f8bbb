"""The accuracy reward by task: what pays, what does not, what is refused outright, and known hacks."""

import itertools

import pytest

from r1jax.errors import UserError
from r1jax.rewards import Completion, Example, ExampleError, canonical, get, is_correct
from r1jax.rewards.accuracy import TASKS, UNGRADED, answer_form, check_example

SUM = Example('what is 37+58-14?', '81', 'arithmetic', id='sum')
CHOICE = Example('37+58-14? (A) 12 (B) 81', 'B', 'choice', id='choice', options=('12', '81'))
CODE = Example('write f(x)', 'def f(x): return x+7', 'function', id='code',
tests='assert f(1) == 8\nassert f(5) == 12')
PI = Example('half a turn?', 'pi/2', 'math', id='pi')


def score(text, example, **options):
    return get('accuracy', **options)([Completion(text)], [example]).values.item()


def tagged(answer):
    return f'<think> some thought </think> <answer> {answer} </answer>'


@pytest.mark.parametrize('task, gold, answer', [
    ('arithmetic', '81', '81'), ('arithmetic', '81', '+81'), ('arithmetic', '81', '81.0'),
    ('arithmetic', '81', '８１'),
    ('arithmetic', '81', '81.'), ('arithmetic', '1234', '1,234'), ('arithmetic', '1,234', '1234'),
    ('arithmetic', '-3', '−3'),
    ('arithmetic', '0.5', '1/2'), ('math', r'\dfrac{\pi}{2}', 'pi/2'), ('math', 'pi/2', r'\dfrac{\pi}{2}'),
    ('math', '81', r'\boxed{81}'),
    ('math', r'\frac{1}{2}', '0.5'), ('choice', 'B', '(B)'), ('choice', '(B)', 'b'), ('choice', 'b', 'B.'),
    ('logic', 'kim', ' Kim. '), ('logic', 'Kim', 'kim'), ('logic', '阿云', '阿云。'), ('logic', '2', '2.0'),
    ('logic', '2', '２'), ('logic', 'none', 'None'),
    ('exact', 'New York', 'new  york'), ('exact', 'ｙｅｓ', 'Yes!'), ('exact', '007', '7'),
    ('translation', 'the red friend dances', 'The red friend dances.'),
    ('translation', '老师睡觉', '老师睡觉。'),
])
def test_right_both_ways(task, gold, answer):
    assert score(tagged(answer), Example('q', gold, task)) == 1
    assert score(tagged(gold), Example('q', answer, task)) == 1


@pytest.mark.parametrize('task, gold, answer', [
    ('arithmetic', '81', '18'), ('arithmetic', '81', '8'), ('arithmetic', '8', '81'),
    ('arithmetic', '81', '-81'), ('arithmetic', '0.333', '1/3'),
    ('math', 'pi/2', 'pi'), ('math', 'pi/2', '1/2'), ('choice', 'B', 'C'),
    ('choice', 'A', '(B)'),
    ('logic', 'kim', 'kimono'), ('logic', 'kim', 'jim'), ('logic', '阿云', '阿明'),
    ('exact', 'york', 'new york'),
    ('translation', 'the bird', 'bird'),
])
def test_wrong_both_ways(task, gold, answer):
    assert score(tagged(answer), Example('q', gold, task)) == 0
    assert score(tagged(gold), Example('q', answer, task)) == 0


def test_an_answer_may_be_more_exact_than_a_decimal_gold_answer_and_not_less():
    assert score(tagged(r'\pi'), Example('q', '3.14159', 'math')) == 1
    assert score(tagged('3.14159'), Example('q', r'\pi', 'math')) == 0
    assert score(tagged('3.14159265'), Example('q', '3.14159', 'arithmetic')) == 0


@pytest.mark.parametrize('gold, answer', [
    ('5', '答案是5元。'), ('5', '所以答案是５个'), ('5 km', 'la réponse est 5 km'), ('5',
    'La respuesta final es 5 manzanas.'),
    ('0.5', r'The final answer is $\frac{1}{2}$.'), ('x=5', r'so \boxed{5}'), ('2', 'Answer: 2'),
    (r'\{1,2\}', r'\boxed{1} and \boxed{2}'), (r'2\sqrt{2}', r'\boxed{\sqrt{8}\text{ cm}}'),
    ('15:30', 'The answer is 3:30 p.m.'),
])
def test_answers_of_mathematics_in_prose(gold, answer):
    example = Example('q', gold, 'math')
    assert score(tagged(answer), example) == 1 and score('<think>so</think>' + answer, example) == 1
    assert score(tagged(answer), Example('q', '7', 'math')) == 0


# Each states 81 or has it within reach, and none commits to it.
@pytest.mark.parametrize('answer', [
    '81 81', '81;81', '81=81', '80+1', '81 is wrong, 80', 'x', '81+0x', '81+x-x', r'81\cdot 1', '81^1', '|81|', r'81 \pm 0',
    '[81,81]', '80=81', '8{1}', '{8}1', '8_1', r'9\cdot 9', '80 to 81', '162/2', '81 (or 80)', r'\ne 81', 'x>81', r'\ge 81',
    '-(-81)',
    r'\ln e^{81}', r'\sqrt{81}^2', '-81i^2', r'81 \mod 100', r'81 \cup 80', 'all', '*', '81?', '81, 80, 79',
    r'\sum_{k=1}^{81} 1',
])
def test_hacks_of_mathematics_do_not_pay(answer):
    assert score(tagged(answer), Example('what is 37+58-14?', '81', 'math')) == 0


EXAMPLES = [
    SUM, CHOICE, CODE, PI, Example('who? kim or jim', 'kim', 'logic', id='who'),
    Example('capital?', 'Paris', 'exact', id='exact'),
    Example('in chinese: the teacher sleeps', '老师睡觉', 'translation', id='translation'),
]


@pytest.mark.parametrize('example', EXAMPLES, ids=lambda example: example.id)
def test_the_gold_answer_pays_only_in_its_place(example):
    gold = example.answer
    assert score(tagged(gold), example) == 1
    for text in (
        '', ' ', gold, tagged(''), tagged(' '), f'<think>{gold}</think>',
        f'<think>{gold}</think><answer></answer>',
        f'<answer>{gold}</answer><think>{gold}</think>',  # the answer before the thought
        f'<think><answer>{gold}</answer></think>', f'<think><answer>{gold}</answer>',
        tagged(f'<answer>{gold}</answer>'), tagged(f'<think>{gold}'),
        tagged(f'{gold} or {gold}'), tagged(f'{gold} {gold}'), tagged(f'it is {gold}'), tagged(f'{gold}\nno'),
        tagged(gold) + tagged('something else'), tagged(gold) + '<answer>12</answer>',
        tagged('<answer>' * 100 + gold), tagged(gold * 3000),
        tagged(example.prompt), tagged(example.prompt + gold),
    ):
        assert score(text, example) == 0, text


@pytest.mark.parametrize('example, answer', [
    (SUM, '37+58-14'), (SUM, '37+58-14=81'), (SUM, '80 or 81'), (SUM, '80, 81, 82'), (SUM, '0-100'),
    (SUM, '81/1'), (SUM, '162/2'), (SUM, '9*9'),
    (SUM, '8 1'), (SUM, '{81}'), (SUM, '[80, 81]'), (SUM, '81' * 60),
    (SUM, ' '.join(str(n) for n in range(100))), (SUM, '81?82'),
    (CHOICE, 'A or B'), (CHOICE, 'A B'), (CHOICE, 'AB'), (CHOICE, '(A) (B)'), (CHOICE, '(A) 12 (B) 81'),
    (CHOICE, '(A) 81'), (CHOICE, '(B) 12'),
    (CHOICE, '12 81'), (CHOICE, 'B or'), (CHOICE, 'C'),
    (PI, r'\frac{\pi}{2} or \pi'), (PI, r'\boxed{\pi}\boxed{\pi/2}'), (PI, '3.14159/2'), (PI, 'pi/2 pi'),
    (PI, '2pi/2'),
    (CODE, 'x+7'), (CODE, 'def f(x): return 8'), (CODE, 'assert f(1) == 8'),
    (CODE, 'def f(x): return x+7\ndef f(x): return x+6'),
    (CODE, 'class A:\n def __eq__(self, other): return True\ndef f(x): return A()'),
    (CODE, 'def f(x): exit(0)'),
    (Example('who?', 'kim', 'logic'), 'kim or jim'), (Example('who?', 'kim', 'logic'), 'kim, jim'),
    (Example('who?', 'kim', 'logic'), 'not kim'),
])
def test_hacks_do_not_pay(example, answer):
    assert score(tagged(answer), example) == 0


@pytest.mark.parametrize('example', [
    Example('q', '', 'arithmetic', id='bad'), Example('q', 'eighty', 'arithmetic', id='bad'),
    Example('q', '84/2', 'arithmetic', id='bad'),
    Example('q', r'\frac{1}{0}', 'math', id='bad'), Example('q', '', 'math', id='bad'),
    Example('q', '?', 'math', id='bad'), Example('q', r'\sqrt{2', 'math', id='bad'), Example('q', 'nan', 'math', id='bad'),
    Example('q', 'word ' * 30, 'math', id='bad'),
    Example('q', 'E', 'choice', id='bad', options=('1', '2')),
    Example('q', 'A or B', 'choice', id='bad'), Example('q', '', 'choice', id='bad'),
    Example('q', '', 'logic', id='bad'),
    Example('q', '...', 'exact', id='bad'), Example('q', ' ', 'translation', id='bad'),
    Example('q', 'f', 'function', id='bad'),
    Example('q', 'f', 'function', id='bad', tests='print(1)'),
    Example('q', 'f', 'function', id='bad', tests=[{'stdin': '1', 'stdout': '2'}]),
    Example('q', 'f', 'function', id='bad', tests=['assert f(1) == 2', 'import os']),
    Example('q', '81', 'arithmetics', id='bad'),
    Example('q', '81', '', id='bad'),
])
@pytest.mark.parametrize('text', ['', '81', tagged('81'), tagged(''), tagged('eighty')])
def test_an_example_that_cannot_be_graded_is_an_error_and_never_a_payment(example, text):
    for call in (lambda: score(text, example), lambda: check_example(example),
    lambda: is_correct('', example)):
        with pytest.raises(ValueError, match="'bad'"):
            call()


def test_the_error_is_the_users_and_says_what_is_near():
    with pytest.raises(UserError, match="did you mean 'arithmetic'"):
        check_example(Example('q', '81', 'arithmetics', id='bad'))
    with pytest.raises(ExampleError, match='the end of it'):  # without an id the prompt names it
        check_example(Example('a prompt and the end of it', '', 'exact'))


def test_tests_of_a_function_as_a_list():
    example = Example('q', '', 'function', tests=['assert f(1) == 8', 'assert f(5) == 12'])
    assert score(tagged('def f(x): return x+7'), example) == 1
    assert score(tagged('def f(x): return x*8'), example) == 0


@pytest.mark.parametrize('task', ['everyday', 'knowledge', 'safety', 'general'])
def test_general_requests_are_ungraded(task):
    output = get('accuracy')([Completion(tagged('hello'))] * 2, [Example('hi', '', task), SUM])
    assert output.values.tolist() == [0, 0] and output.info['ungraded'].tolist() == [1, 0]
    check_example(Example('hi', '', task))


@pytest.mark.parametrize('task, gold, answer, unparseable', [
    ('math', '81', '81', 0), ('math', '81', '80', 0), ('math', '81', 'it is 81', 0), ('math', '81', '?', 1),
    ('math', '81', '', 1), ('math', '81', r'\frac{1}{0}', 1), ('math', '81', 'so ' * 40, 1), ('arithmetic', '81', 'eighty',
    1),
    ('arithmetic', '81', '80', 0), ('choice', 'B', 'A or B', 1), ('choice', 'B', 'A', 0), ('logic', 'kim', 'jim', 0),
    ('everyday', '', '?', 0),
])
def test_answers_that_cannot_be_read_are_counted(task, gold, answer, unparseable):
    output = get('accuracy')([Completion(tagged(answer))], [Example('q', gold, task)])
    assert output.info['unparseable'].tolist() == [unparseable]


def test_a_response_without_an_answer_is_unparseable():
    examples = [SUM, Example('hi', '', 'general')]
    assert get('accuracy')([Completion('81')] * 2, examples).info['unparseable'].tolist() == [1, 0]


def test_where_the_prompt_asks_for_tags_nothing_else_is_an_answer():
    text, asked = r'so \boxed{81}', Example('... <answer> answer here </answer>. what is 37+58-14?', '81', 'math')
    assert score(text, SUM) == 1 and score(text, asked) == 0 and score(tagged(text), asked) == 1
    assert score(tagged('80') + '<answer> 81 </answer>', asked) == 0
    assert score(r'\boxed{A} \boxed{B}', CHOICE) == 0 and score(r'\boxed{B}', CHOICE) == 1


def test_prefilled_template():
    assert score('so </think> <answer>81</answer>', SUM, prefilled=True) == 1
    assert score('<answer>81</answer>', SUM, prefilled=True) == 0
    assert score('<answer>81</answer>', SUM) == 1  # right, though without the format


def test_votes_of_equal_answers_pool():
    assert len({canonical(text, 'arithmetic') for text in ('81', '+81', '81.0', '８１', '81.')}) == 1
    assert len({canonical(text, 'math') for text in ('pi/2', r'\dfrac{\pi}{2}', r'\boxed{0.5\pi}')}) == 1
    assert {canonical(text, 'choice', ('12', '81')) for text in ('B', '(b)', '81', '(B) 81')} == {'B'}
    assert {canonical(text, 'logic') for text in ('kim', 'Kim.', ' KIM ')} == {'kim'}
    assert len({canonical(text, 'function') for text in ('def f(x): return x+7',
    'def f(x):\n  return (x + 7)')}) == 1
    assert len({canonical(text, 'arithmetic') for text in ('81', '80', '81 or 80', '', 'none')}) == 5
    assert canonical('Not A Number', 'arithmetic') == 'not a number'
    with pytest.raises(UserError, match='task'):
        canonical('81', 'sums')


def test_a_vote_is_right_exactly_when_its_form_is_gold():
    answers = ['81', '81.0', '81 or 82', '', 'B', '(B)', '0.5', '1/2', 'pi/2', r'\frac{\pi}{2}', 'kim',
    'Kim.', '162/2', '50%']
    for task, (gold, answer) in itertools.product(sorted(TASKS - {'code', 'function', 'reasoning_gym'} - UNGRADED),
    itertools.product(answers, answers)):
        if answer_form(gold, task) is None:
            continue
        example = Example('q', gold, task)
        assert is_correct(answer, example) == (canonical(answer, task) == canonical(gold, task)), (task, gold,
        answer)
        if answer_form(answer, task) is not None:
            assert is_correct(answer, example) == is_correct(gold, Example('q', answer, task))
