"""Mathematical answers: a table of pairs in both directions, what is no answer, bounds, and real gold answers."""

import itertools
import json
import pathlib
import random
import threading
import time
from fractions import Fraction

import pytest

from r1jax.rewards.equivalence import equal, form_text, read

TABLE = pathlib.Path(__file__).with_name('math_pairs.txt')


def table() -> list[tuple[str, str, str, str]]:
    """(category, relation, first, second) of all pairs of the table."""
    pairs, category = [], ''
    for line in TABLE.read_text(encoding='utf-8').splitlines():
        line = line.strip()
        if line.startswith('[') and line.endswith(']') and '=' not in line:
            category = line[1:-1]
        elif line and not line.startswith('#'):
            (relation,) = {mark for mark in ('==', '!=', '<-', '!-') if f' {mark} ' in line}
            answers = line.split(f' {relation} ')
            pairs += [(category, relation, *pair) for pair in itertools.combinations(answers, 2)]
    return pairs


PAIRS = table()


@pytest.mark.parametrize('category', dict.fromkeys(pair[0] for pair in PAIRS))
def test_pairs(category):
    wrong = []
    for found, relation, first, second in PAIRS:
        if found == category:
            verdicts = equal(first, second), equal(second, first)
            expected = {'==': (True, True), '!=': (False, False), '<-': (True, False), '!-': (False, verdicts[1])}[relation]
            if verdicts != expected:
                wrong.append((relation, first, second, verdicts))
    assert not wrong, '\n'.join(map(str, wrong))


def test_the_table_is_large():
    assert len({(first, second) for _, _, first, second in PAIRS}) > 1200
    assert len({category for category, *_ in PAIRS}) >= 30


# Where equality is an equivalence, for votes: no units, names or percentages, whose absence differs from nothing.
POOLED = (
    'integers', 'thousands', 'fractions', 'mixed numbers', 'scientific notation', 'roots', 'pi and e', 'polynomials',
    'complex numbers', 'times and dates', 'ratios', 'matrices', 'words')


@pytest.mark.parametrize('category', POOLED)
def test_equal_answers_share_their_text_and_others_do_not(category):
    for found, relation, first, second in PAIRS:
        if found == category and relation in ('==',
        '!=') and '=' not in first + second and ('!' in relation or '|' not in first):
            one, other = form_text(first), form_text(second)
            if relation == '==':
                assert one == other is not None, (first, second, one, other)
            else:
                assert one != other or one is None, (first, second, one, other)


@pytest.mark.parametrize('text', [
    '', ' ', '?', '...', '-', '$$', r'\boxed{}', 'nan', 'NaN', 'inf', '-inf', 'null', 'n/a', '1/0', r'\frac{1}{0}', r'\frac',
    r'\frac{1}{x-x}', r'\tan 90^\circ', '0^{-1}', r'\ln 0', '{', '}', '(1, 2', '1, 2)', r'\sqrt{2', '{' * 4000, '(' * 300,
    'a' * 400,
    '9' * 501, 'so I think that it must be that the one that comes first is the one that we want',
    '1, ' * 100, '(1,,2)', '(1,2]]', r'\{1,2)', '\x00', '\n',
])
def test_no_answer(text):
    assert read(text) is None and form_text(text) is None
    assert not equal(text, text) and not equal('81', text) and not equal(text, '81')


@pytest.mark.parametrize('text', [
    '9^{9^{9^{9}}}', '10^{10^{10}}', '(10^9)!', '10^{99999}', '2^{2^{2^{2^{2^{2}}}}}', r'\log_{1}{2}', r'e^{e^{e^{e^{10}}}}',
])
def test_what_is_out_of_bounds_equals_itself_alone(text):
    other = text.replace('9', '8').replace('2', '3').replace('10', '11')
    assert not equal(text, '81') and not equal('0', text) and other != text and not equal(text, other)


SPAM = [
    '(' * 250 + 'x' + ')' * 249, r'\sqrt{' * 28 + 'x' + '}' * 28, r'\frac{1}{' * 28 + 'x' + '}' * 28, '|' * 400 + 'x',
    '1/' * 200 + '1',
    '((x+y)^{100}+1)^{100}', '(x+1)^{1000}', '1000!^{1000!}', '+'.join(f'{c}!' for c in 'abcdfghjklmnopqrstuvwxyz'),
    '+'.join([r'\binom{x}{y}'] * 38), r'\{' + ','.join(rf'\sqrt{{{i}}}' for i in range(2, 45)) + r'\}', '!' * 400,
    '5' + '!' * 20,
    r'\cup'.join(['(1,2)'] * 40), r'1\pm' * 100 + '1', r'\begin{pmatrix}' + '&'.join('1' * 60) + r'\end{pmatrix}',
    'sin' * 160 + 'x',
    'a ' * 249, '1 ' * 249, '1,234,' * 80, '5 ' + 'cm ' * 160, '\\' * 499, r'\text{' * 80 + '}' * 80, '$' * 499,
    '5' + '万' * 400,
    '²' * 300, '5' + '°' * 400, '5 ' + '/m' * 200, '1 2/3 ' * 80, '{,}' * 160, "x" + "'" * 400, 'x' + '^x' * 200,
    'x=' * 200 + '1',
    '<'.join('x' * 100), '0.1' + r'\overline{' + '3' * 450 + '}', 'f(' * 100 + 'x' + ')' * 100, r'\begin{cases}' * 20,
    'x' * 100_000,
    '1' + ' 000' * 120, 'xy' * 99, 'x/' * 99 + 'x', 'x' + '-x' * 99, 'x!' * 99, '5' + '!' * 150, r'\frac' * 80 + '12',
    'x^2' * 60, '-' * 499, '.'.join('1' * 240), '1' + ':11' * 150, 'May ' * 120, r'\in'.join('x' * 120),
]


@pytest.mark.parametrize('text', SPAM, ids=lambda text: text[:15])
def test_no_answer_takes_long(text):
    start = time.process_time()
    equal(text, text + ' '), equal('x', text)
    assert time.process_time() - start < 20


PIECES = (
    r'\frac { } {1} ( ) [ ] , x y 2 3 10 + - * / ^ ^{2} \sqrt \sqrt{2} \pi i e sin \log _ ! | % \infty \cup = < \le \in \pm '
    r'cm and or \text{a} 0.5 ° 5 元 \begin{cases} \end{cases} \\ & : $ \{ \} \binom \circ km/h pm May \boxed{ 1,000 Friday'
).split() + [' ']


def test_random_texts_raise_nothing_and_are_symmetric():
    rng, before, n_read = random.Random(0), '1', 0
    for _ in range(4000):
        text = ''.join(rng.choices(PIECES, k=rng.randint(1, 20)))
        if read(text) is not None:
            n_read += 1
            assert equal(text, text), text
        assert not equal(text, before) or '.' in text + before or equal(before, text), (text, before)
        before = text
    assert n_read > 500


@pytest.mark.parametrize('code', [
    '__import__("os").system("touch FILE")', r'\text{__import__("os").system("touch FILE")}', 'open("FILE", "w")',
    r'\operatorname{exec}(open("FILE","w"))', 'x = __import__("os").system("touch FILE")', '(lambda: open("FILE", "w"))()',
    r'\frac{__import__("os").mkdir("FILE")}{1}', 'f(__import__("os").system("touch FILE"))',
])
def test_no_answer_is_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    read(code), equal(code, '81'), equal('81', code), equal(code, code + ' ')
    assert not list(tmp_path.iterdir())


def test_other_threads_may_compare():
    found = []
    thread = threading.Thread(target=lambda: found.append(equal(r'\frac{\sqrt2}{2}', r'\frac{1}{\sqrt2}')))
    thread.start()
    thread.join()
    assert found == [True]


def test_expressions_that_sympy_makes_equal_are_equal():
    """Random expressions in several of sympy's forms against each other, and against one that differs by a small change."""
    sympy = pytest.importorskip('sympy')
    rng = random.Random(0)
    x, y = sympy.symbols('x y')
    atoms = [x, y, x + 1, y - 2, x * y, sympy.sqrt(x + 3), sympy.sin(x), sympy.exp(y), sympy.Rational(2, 3), sympy.pi, x**2,
    1 / (y + 5)]

    def draw(depth):
        if not depth:
            return rng.choice(atoms)
        first, second = draw(depth - 1), draw(depth - 1)
        return rng.choice([first + second, first * second, first - 2 * second, first**2])

    n_same = n_other = 0
    for _ in range(60):
        expression = draw(2)
        if not expression.free_symbols:
            continue
        spellings = {sympy.latex(form) for form in (
            expression, sympy.expand(expression), sympy.factor(expression), sympy.together(expression))}
        other = sympy.latex(sympy.expand(expression + rng.choice([1, x, -y, sympy.Rational(1, 100)])))
        for first, second in itertools.combinations(sorted(spellings), 2):
            assert equal(first, second), (first, second)
            n_same += 1
        for spelling in spellings:
            assert not equal(spelling, other) and not equal(other, spelling), (spelling, other)
            n_other += 1
    assert n_same > 60 and n_other > 100


@pytest.mark.parametrize('name', ['gsm8k_test', 'gsm8k_train', 'svamp', 'cmath_zh'])
def test_real_gold_answers_equal_themselves_and_not_the_next(shared, name):
    with (shared / 'data' / 'math' / f'{name}.jsonl').open(encoding='utf-8') as file:
        golds = [json.loads(line)['answer'] for line in file]
    assert len(golds) >= 600
    for gold, following in itertools.pairwise(golds):
        assert equal(gold, gold) and equal(gold, f'${gold}$') and equal(gold, rf'\boxed{{{gold}}}'), gold
        if Fraction(gold.strip('%')) != Fraction(following.strip('%')):
            assert not equal(gold, following) and not equal(following, gold), (gold, following)
