"""Graders of reasoning-gym: gold answers are right, hacks are not, nothing that a policy writes is run or hangs."""

import dataclasses
import functools
import json
import pathlib
import sys
import time

import numpy as np
import pytest

from r1jax.data import gym as generators
from r1jax.errors import UserError
from r1jax.rewards import (
    Completion,
    Example,
    ExampleError,
    RewardMix,
    WorkerPool,
    canonical,
    get,
    gym,
    is_correct,
    last_answer,
)
from r1jax.rewards.accuracy import check_example

GENERATORS = list(generators.LEVELS)


@functools.cache
def example_of(generator, seed=0, level=None):
    """The first usable problem from a seed on, drawn in this process."""
    rows = (generators.draw((generator, level, (), number)) for number in range(seed, seed + 30))
    return Example(prompt='', **next(row for row in rows if row is not None))


def made(kind, gold, question='', **metadata):
    return Example(prompt='', question=question, answer=gold, task=gym.TASK, kind=kind, tests=gym.pack(None, {}, metadata))


def hacks(question, gold, marker):
    """Answers that are right in no problem but by accident, for which some scorers pay, run code or hang."""
    numbers = ' '.join(map(str, range(900)))
    return [
        None, '', ' ', 'x', '?', 'None', 'null', 'nan', '-inf', '[]', '{}', '[[]]', '""', 'correct', 'the right answer',
        question, numbers, ', '.join('ABCDEFGHIJ'), f'[{numbers.replace(" ", ", ")}]', 'Yes, No', 'True False',
        gold + gold + 'x', f'not {gold} but something else' if len(gold) > 3 else 'x', '1e999999999', '1E-999999999/3',
        'A+999999999', 'U999999999', '9**9**9**9', 'factorial(99999999)', '(' * 3000 + ')' * 3000, '[' * 3900, '{"a":' * 700,
        '-' * 3000 + '1', '9' * 3999, json.dumps({'a': [{'b': i} for i in range(300)]}), '¬' * 3000 + 'P',
        '\0', 'x' * 100_000,
        f"__import__('os').system('touch {marker}')", f"open('{marker}', 'w')", f"[open('{marker}', 'w').write('x')]",
        f"Symbol.__init__.__globals__['sys'].modules['os'].system('touch {marker}')", 'exit()', '[exit()]']


# Where an answer of the list above is right or may be: grids and moves are read over what stands around them.
ACCIDENTS = {
    'kakurasu': 'x', 'knights_knaves': 'x', 'polynomial_equations': '""', 'quantum_lock': 'x', 'sokoban': 'x', 'survo': 'x'}


@pytest.mark.parametrize('generator', GENERATORS)
def test_gold_answers_are_right_and_hacks_are_not(generator, tmp_path, capfd):
    example = example_of(generator)
    check_example(example)
    assert example.answer or generator in ('boxnet', 'rush_hour')
    assert is_correct(example.answer, example) == bool(example.answer)
    assert is_correct(f'\n {example.answer} ', example) == bool(example.answer)
    marker = tmp_path / 'ran'
    for hack in hacks(example.question, example.answer, marker):
        if generator in ACCIDENTS and hack and (hack == ACCIDENTS[generator] or example.answer in hack):
            continue
        start = time.process_time()
        assert gym.grade(hack, example) < 1, hack
        assert time.process_time() - start < 5, hack[:50]
        assert not marker.exists(), hack
    assert capfd.readouterr().out == ''


# Whose problems have several right answers, some of them those of others.
SEVERAL = ('graph_color', 'jugs', 'n_queens', 'propositional_logic', 'quantum_lock')


@pytest.mark.slow
@pytest.mark.parametrize('generator', GENERATORS)
def test_gold_answers_of_many_problems_are_right_and_those_of_others_are_not(generator):
    examples = [example_of(generator, seed=100 * i) for i in range(1, 21)]
    for example, other in zip(examples, examples[1:] + examples[:1], strict=True):
        check_example(example)
        if example.answer:
            assert gym.grade(example.answer, example) == 1
        if len(example.answer) > 12 and len(other.answer) > 12 and generator not in SEVERAL:
            assert gym.grade(other.answer, example) < 1


# --- rules, on examples written here --------------------------------------------------------------------------

HALTS = made('game_of_life_halting', 'True')
ENDLESS = made('game_of_life_halting', 'False')
BOARD = made('game_of_life', '[[0, 1], [1, 0]]')
STORED = made('codeio', '{"sum": 1.0, "odd": [true, null]}')
TWENTY_FOUR = made('puzzle24', '8*(5*1 - 2)', numbers=[5, 1, 2, 8])
COUNTDOWN = made('countdown', '49*(85 - 1)/14 - 42 - 73', numbers=[73, 85, 1, 42, 14, 49], target=179)
FLIPS = made('coin_flip', '0.003173828125')
TINY = made('coin_flip', '0.00003')
SORTED = made('number_sorting', "['-94.2', '30.0', '30.41']")
ROOTS = made('polynomial_equations', '-0.04, 0.0')
DOUBLE = made('polynomial_equations', '0.3333, 2.5')
ROOTLESS = made('polynomial_equations', '""')
WORD = made('figlet_font', 'STRAWBERRIES')
INSECTS = made('gsm_symbolic', '-279')
QUOTIENT = made('decimal_arithmetic', '0.000748031496')
LARGEST = made('number_format', '5.002', candidates=[5.0, 5.002, 5.001], solution=5.002)
SIMPLE = made('fraction_simplification', r'$\frac{131}{319}$', simplified_numerator=131, simplified_denominator=319)
MATRIX = made('spiral_matrix', '1 2 3 4')
QUEENS = made('n_queens', '_ Q\nQ _', valid_answers=['_ Q\nQ _', 'Q _\n_ Q'])
BITS = made('bitwise_arithmetic', '0xff')
SENTENCE = made('letter_jumble', 'was then')
WORDS = made('word_sorting', 'Ann, bob, cid')
PRODUCT = made('polynomial_multiplication', '6*x**2*y - 3*x')
POWERS = made('simple_integration', '7*X**9 - 2*X**6 + C', integrand='63*X**8 - 12*X**5', variable='X')
PARTS = made('intermediate_integration', 'x*log(x) - x + C', integrand='log(x)', variable='x')
TANGENT = made('intermediate_integration', '-log(cos(x)) + C', integrand='tan(x)', variable='x')
LOGIC = made('propositional_logic', 'Q', premises=['(P → Q)', 'P'], variables=['P', 'Q'], example_answer='Q')
CHAIN = made(
    'propositional_logic', '(P → R)', premises=['(P → Q)', '(Q → R)'], variables=['P', 'Q', 'R'], example_answer='P')


@pytest.mark.parametrize('example, right, wrong', [
    (HALTS, ['True', 'true'], ['False', 'yes', 'x', 'True or False']),
    (ENDLESS, ['False'], ['True', 'x', '0']),
    (BOARD, ['[[0,1],[1,0]]'], ['[[0, 1, 0], [1, 0, 0]]', '[[0, 1], [1, 0], [0, 0]]', '[[0, 1], [1, 1]]', '0 1 1 0']),
    (STORED, ['{"odd":[true,null],"sum":1}', '{"sum": 1.0, "odd": [true, null]}'],
     ['{"sum": true, "odd": [1, null]}', '{"sum": 1}', '{"sum": 1, "odd": [null, true]}', '[]',
      'so {"sum": 1.0, "odd": [true, null]}']),
    (TWENTY_FOUR, ['8*(5*1 - 2)', '(5-2)*8/1', '(5 - 2)*(8*1)'],
     ['24', '8*3', '6*4*1*1', '5*8*1-2*8', '8*(5*1-2)+0', '8*(5-2)', '5+1+2+8', '8*(5*1-2)*1', '24+0*5*1*2*8', '8*5//1-2',
      '8**1+5']),
    (COUNTDOWN, ['49*(85 - 1)/14 - 42 - 73', '(85-1)*49/14-(42+73)'],
     ['179', '73+85+1+42+14+49', '49*(85 - 1)/14 - 42 - 73 + 0', '73*85/1/42/14/0', '179 # 73 85 1 42 14 49']),
    (FLIPS, ['0.003173828125', '13/4096', '0.003174', '0.3173828125%'], ['0', '0.', '0.0', '0.003', '0.0031', '1', 'nan']),
    (TINY, ['0.00003', '3/100000'], ['0', '0.0', '0.0001', '1e-5']),
    (SORTED, ["['-94.2', '30.0', '30.41']", '[-94.2, 30, 30.41]', '["-94.20", "30", "30.410"]'],
     ["['-94.2', '30.41', '30.0']", '[NaN, NaN, NaN]', '[-94.2, 30, 30.42]', '[-93.5, 30.2, 30.4]', '[-94.2, 30.0]',
      '[-94.2, 30, 30.41, 31]', '[]', '-94.2, 30, 30.41']),
    (ROOTS, ['-0.04, 0.0', '0, -0.0400', '-0.04,0'],
     ['', '""', '-0.04', '0.0', '-0.04, 0.0, 1', '-0.04, x', '0.04, 0.0', 'nan, nan']),
    (DOUBLE, ['0.3333, 2.5', '2.5, 0.3334', '0.3333333, 2.5'], ['0.33, 2.5', '0.3333, 0.3333', '2.5, 2.5']),
    (ROOTLESS, ['""'], ['', 'x', 'none', '0', '1.0']),
    (WORD, ['STRAWBERRIES', 'strawberries'], ['STRAWBERRI', 'STRAWBERRIESXYZ', 'STRAWBERRYES', 'x']),
    (INSECTS, ['-279', '-279.0'], ['279', '-279 or 5', '-279 5 6', '5', '']),
    (QUOTIENT, ['0.000748031496', '0.00074803150'], ['0', '0.0007', '0.001', '0.000749']),
    (LARGEST, ['5.002', '5.0020'], ['5.001', '5.0', '5', 'nan', '5.0, 5.002']),
    (SIMPLE, [r'$\frac{131}{319}$', '131/319', r'\dfrac{131}{319}', '131 / 319'],
     [r'$\frac{12445}{30305}$', '131/319 or 1/2', r'\frac{131}{319} \frac{1}{2}', '319/131', '131', '262/638']),
    (MATRIX, ['1 2 3 4', '1 2 3 4\n'], ['[1, 2, 3, 4]', '1 2 3', '1 2 3 4 5', '4 3 2 1']),
    (QUEENS, ['_ Q\nQ _', 'Q _\n_ Q', '_  Q\nQ _ '], ['Q Q\nQ Q', "[['_','Q'],['Q','_']]", '_ Q', '_ Q Q _']),
    (BITS, ['0xff', '255', '0xFF', '0b11111111'], ['0xfe', 'ff', '0xff or 0xfe', '-0xff', '0x1ff']),
    (SENTENCE, ['was then', 'Was then'], ['was then x', 'was then or then was', 'was']),
    (WORDS, ['Ann, bob, cid', 'Ann,bob,cid'],
     ['Ann, bob, cid, Ann, bob, cid', 'bob, Ann, cid', 'Ann, bob', 'ann, bob, cid']),
    (PRODUCT, ['6*x**2*y - 3*x', '-3*x + 6*y*x*x', '6*x**2*y - 4*x + x', '--6*x**2*y-3*x'],
     ['3*x*(2*x*y - 1)', '6*x**2*y', '6*x**2*y - 3*y', '6*x^2*y - 3*x', 'x', '6*x**2*y - 3*x + z - 1', '6*x**99999*y']),
    (POWERS, ['7*X**9 - 2*X**6 + C', '7*X**9 - 2*X**6', 'X**6*(7*X**3 - 2) + 5', '-2*X**6 + 7*X**9 + C + pi'],
     ['Integral(63*X**8 - 12*X**5, X)', '63*X**8 - 12*X**5', '7*X**9', '7*x**9 - 2*x**6 + C', '7*X**9 - 2.01*X**6', 'C', '0',
      'integrate(63*X**8 - 12*X**5, X)', '7*X**9 - 2*X**6 + C*X']),
    (PARTS, ['x*log(x) - x + C', 'x*(log(x) - 1)', 'x*log(x)-x+C', 'x*log(2*x) - x - x*log(2)', 'log(x**x) - x'],
     ['log(x)', 'x*log(x)', 'x*log(x) + x', 'Integral(log(x), x)', '1/x', 'log(x)**2/2', 'x*log(x) - x + y']),
    (TANGENT, ['-log(cos(x)) + C', 'log(sec(x))', '-log(Abs(cos(x)))', '-log(cos(x)**2)/2'],
     ['log(cos(x))', 'tan(x)', 'sec(x)**2']),
    (LOGIC, ['Q', '(P ∧ ¬¬Q) ∨ Q'],
     ['P', '(P → Q)', '¬P ∨ Q', 'P ∨ ¬P', 'P ∨ Q', 'P ∧ Q', 'P ∧ (P → Q)', '¬Q', 'R', 'Q ∧', '(Q', 'Q Q']),
    (CHAIN, ['P → R', '(P → R)', '¬R → ¬P', '¬P ∨ R'],
     ['P → Q', 'R', 'R → P', 'P → P', '(P → Q) ∧ (Q → R)', 'P → Q ∨ R', 'P → R ∨ S']),
])
def test_rules(example, right, wrong):
    check_example(example)
    assert [answer for answer in right if not is_correct(answer, example)] == []
    assert [answer for answer in wrong if is_correct(answer, example)] == []


def test_long_sums_are_read():
    text = ' + '.join(f'{i}*x**{i % 60}*y**{i // 60}' for i in range(1, 1500))
    check_example(made('polynomial_multiplication', text))
    assert gym._polynomial(gym._expression('x + y - x - y + 0')) == {}


def test_implications_go_to_the_left_and_not_binds_strongest_as_in_the_package():
    from reasoning_gym.logic.propositional_logic import Expression

    names = ['P', 'Q', 'R']
    truths = {name: sum(1 << i for i in range(8) if i >> place & 1) for place, name in enumerate(names)}
    for text in ('P → Q → R', '¬P ∧ Q', '¬P ∨ Q ∧ R', 'P ↔ Q → R', '(P ↔ Q) ∨ ¬(R ∧ P)', '¬¬P → ¬(Q ↔ R)', 'P ↔ Q ↔ R'):
        theirs = Expression.from_string(text.replace(' ', ''))
        cases = sum(1 << i for i in range(8) if theirs.evaluate({n: bool(i >> p & 1) for p, n in enumerate(names)}))
        assert gym._proposition(text, truths, 255) == cases, text


def test_a_conclusion_is_found_where_there_is_one():
    def found(*premises):
        return gym.find_conclusion({'premises': list(premises), 'variables': ['P', 'Q'], 'example_answer': 'P'})

    assert found('(P → Q)', 'P') == 'Q'
    assert found('P', '¬P') is None and found('P', 'P') is None


@pytest.mark.parametrize('kind, hack, example', [
    ('game_of_life_halting', 'x', HALTS), ('puzzle24', '6*4*1*1', TWENTY_FOUR), ('coin_flip', '0', FLIPS),
    ('number_sorting', '[NaN, NaN, NaN]', SORTED), ('number_format', '5.001', LARGEST),
    ('intermediate_integration', 'Integral(log(x), x)', PARTS), ('propositional_logic', '(P → Q)', LOGIC),
    ('fraction_simplification', r'\frac{131}{319} or \frac{1}{2}', SIMPLE), ('game_of_life', '[[0, 1, 1], [1, 0]]', BOARD),
    ('word_sorting', 'Ann, bob, cid, x', WORDS), ('polynomial_equations', 'none', ROOTLESS),
    ('figlet_font', 'STRAWBERRIxx', WORD),
    ('complex_arithmetic', 'nan', made('complex_arithmetic', '3 + 4i', result=[3.0, 4.0])),
    ('letter_jumble', 'was then x', SENTENCE),
    ('gsm_symbolic', '279 or 5', made('gsm_symbolic', '279')), ('decimal_arithmetic', '0', QUOTIENT)])
def test_the_packages_own_scorers_still_pay_for_what_the_rules_are_there_for(kind, hack, example):
    metadata = gym.unpack(example.tests)[2] | {'direction': 'ascending', 'sorted_words': ['Ann', 'bob', 'cid']}
    scorer = gym.dataset(kind, None, {'max_value': 10} if kind == 'puzzle24' else {})
    assert scorer.score_answer(hack, {'answer': example.answer, 'metadata': metadata}) == 1
    assert gym.grade(hack, example) == 0


def test_code_in_an_answer_runs_in_the_package_and_not_here(tmp_path):
    marker = tmp_path / 'ran'
    scorer = gym.dataset('spiral_matrix', None, {})
    scorer.score_answer(f"open('{marker}', 'w')", {'answer': '1 2', 'metadata': {}})
    assert marker.exists()  # so the test of hacks can fail
    marker.unlink()
    gym.grade(f"open('{marker}', 'w')", made('spiral_matrix', '1 2'))
    assert not marker.exists()


# --- examples that cannot be graded ---------------------------------------------------------------------------


@pytest.mark.parametrize('change, reason', [
    (dict(tests=''), 'no metadata'), (dict(tests=['assert x']), 'no metadata'), (dict(tests='{"level": 1}'), 'no metadata'),
    (dict(kind='chain_sums'), 'none of its generators'), (dict(kind=''), 'none of its generators'),
    (dict(answer=''), 'no gold answer'), (dict(answer='x'), 'gold answer that is wrong'),
    (dict(tests=gym.pack(None, {}, {})), 'gold answer that is wrong')])
def test_a_broken_example_is_never_a_mere_zero(change, reason):
    example = dataclasses.replace(example_of('tower_of_hanoi'), id='stored/7')
    with pytest.raises(ExampleError, match=rf"stored/7.*{reason}") as error:
        gym.grade('x', dataclasses.replace(example, **change))
    assert '\n' not in str(error.value)
    with pytest.raises(ExampleError):
        check_example(dataclasses.replace(example, **change))


def test_a_problem_without_a_solution_needs_its_board():
    example = example_of('rush_hour')
    assert gym.grade('A+1', example) < 1
    with pytest.raises(ExampleError, match='broken'):
        gym.grade('A+1', dataclasses.replace(example, tests=gym.pack(None, {}, {})))


def test_a_car_that_gets_out_is_right():
    board = 'oooooo' * 2 + 'ooAAoo' + 'oooooo' * 3
    example = made('rush_hour', '', board_config=board)
    assert is_correct('A+2', example) and is_correct('A+1 A+1', example)
    assert not is_correct('A+1', example) and not is_correct('A+20', example)


def test_a_box_that_is_lifted_is_right():
    state = {'0.5_0.5': ['box_red'], '0.5_1.5': ['target_red']}
    example = made('boxnet', '', initial_state=state)
    steps = [{'Agent[0.5, 0.5]': 'move(box_red, square[0.5, 1.5])'}, {'Agent[0.5, 1.5]': 'move(box_red, target_red)'}]
    for _ in range(2):  # a scorer that changes its board must not spoil the next answer
        assert is_correct(json.dumps(steps), example)
        assert not is_correct(json.dumps(steps[1:]), example) and not is_correct(json.dumps(steps[:1]), example)


# --- what travels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('value', [
    {'a': (1, (2, 'x')), 'b': [(1,), []]}, {'edges': {(0, 1): {2: 'x'}}}, {'tuple': 1}, {'dict': {'tuple': ()}},
    {1: 2, '1': 3}, {'float': 0.1, 'none': None, 'true': True}, {'zh': '阿云'}])
def test_metadata_comes_back_as_it_was(value):
    level, config, metadata = gym.unpack(gym.pack(3, {'pair': (1, 2)}, value))
    assert (level, config) == (3, {'pair': (1, 2)}) and repr(metadata) == repr(value)


def test_numpy_numbers_travel_and_other_objects_do_not():
    assert gym.unpack(gym.pack(None, {}, {'n': np.int64(3), 'm': np.eye(2)}))[2] == {'n': 3, 'm': [[1.0, 0.0], [0.0, 1.0]]}
    with pytest.raises(TypeError):
        gym.pack(None, {}, {'x': pathlib.Path('x')})


# --- as a reward ----------------------------------------------------------------------------------------------


def test_the_reward_pays_in_full_or_if_told_so_in_part():
    example = example_of('sudoku')
    rows = example.answer.split('\n')
    changed = '\n'.join([rows[1], *rows[1:]])
    texts = [f'<think>.</think> <answer>{answer}</answer>' for answer in (example.answer, changed, '', 'x')]
    completions, examples = [Completion(text) for text in [*texts, 'no answer']], [example] * 5
    assert get('accuracy')(completions, examples).values.tolist() == [1, 0, 0, 0, 0]
    partial = get('accuracy', partial=True)(completions, examples).values
    assert partial[0] == 1 and 0.5 < partial[1] < 1 and partial[2:].tolist() == [0, 0, 0]


def test_scores_outside_their_range_are_no_credit(monkeypatch):
    class Odd:
        def score_answer(self, answer, entry):
            return {'gold': 1.0, 'nan': float('nan'), 'more': 1.0000001, 'minus': -0.5, 'none': None, 'half': 0.5}[answer]

    monkeypatch.setattr(gym, 'dataset', lambda *settings: Odd())
    example = made('knights_knaves', 'gold', question='of range')
    grades = [gym.grade(text, example) for text in ('gold', 'nan', 'more', 'minus', 'none', 'half', 'other')]
    assert grades == [1, 0, 0, 0, 0, 0.5, 0]


def test_a_pool_gives_what_this_process_gives():
    examples = [example_of(name) for name in ('chain_sum', 'arc_agi', 'word_ladder', 'puzzle24')]
    completions = [Completion(f'<think></think><answer>{e.answer}</answer>') for e in examples]
    with WorkerPool(1, timeout_s=3) as pool:  # seconds that importing the package and its words would use up
        output = RewardMix('accuracy=1', pool=pool)(completions, examples)
    assert output.values.tolist() == [1, 1, 1, 1] and not output.info['timeouts'].any()


def test_votes_are_for_texts_and_lenient_answers_do_not_fail():
    assert canonical(' 1  2\n3 ', gym.TASK) == canonical('1 2 3', gym.TASK) == '1 2 3'
    for generator in GENERATORS[::10]:
        example = example_of(generator)
        last_answer('I think that it is 7. ' + example.answer, example)


def test_without_the_package_the_reason_is_told(monkeypatch):
    example = example_of('tower_of_hanoi', seed=7)
    gym.forget()
    gym._problem.cache_clear()
    monkeypatch.setitem(sys.modules, 'reasoning_gym', None)
    with pytest.raises(UserError, match='not installed here'):
        gym.grade('x', example)
    assert is_correct('True', HALTS)  # a rule needs no package
