"""Code: one-line functions of x, built by one operation after another.

Content: operations (sign, constant), such as (('*', 3), ('+', 4)) for x*3+4.
"""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.solutions import Pen, clean
from r1jax.data.tinyworld.words import Pair

STEM_OPERATIONS = 2
PROBES = (0, 1, 5, 12)
QUESTIONS = (
    ('write f(x): {}.', 'define f(x): {}.', 'a function f(x): {}.'),
    ('写f(x)：{}。', '定义f(x)：{}。', '函数f(x)：{}。'),
)
FIRST = (
    {'+': 'add {} to x', '-': 'subtract {} from x', '*': 'multiply x by {}'},
    {'+': 'x加{}', '-': 'x减{}', '*': 'x乘以{}'},
)
LATER = (
    {'+': ', then add {}', '-': ', then subtract {}', '*': ', then multiply by {}'},
    {'+': '，再加{}', '-': '，再减{}', '*': '，再乘以{}'},
)


def draw(rng: Random, difficulty: int) -> tuple:
    return tuple([(pick(rng, '+-*'), between(rng, 2, 9)) for _ in range(difficulty)])


def key(content: tuple) -> str:
    texts = [f'{sign}{constant}' for sign, constant in content]
    stem = 'code:' + ''.join(texts[:STEM_OPERATIONS])
    return stem + '|' + ''.join(texts[STEM_OPERATIONS:]) if len(texts) > STEM_OPERATIONS else stem


def ask(content: tuple, rng: Random, language: int) -> str:
    told = ''.join([
        (LATER if place else FIRST)[language][sign].format(constant)
        for place, (sign, constant) in enumerate(content)
    ])
    return pick(rng, QUESTIONS[language]).format(told)


def solve(content: tuple, pen: Pen) -> Pair:
    text, loose = 'x', False  # loose: the last operation was + or -, so a product needs parentheses

    def apply(sign: str, constant: int) -> str:
        return f'({text}){sign}{constant}' if loose and sign == '*' else f'{text}{sign}{constant}'

    def mistake(rng: Random) -> tuple[str]:
        if loose and sign == '*' and chance(rng, 0.5):
            return (f'{text}{sign}{constant}',)
        return (apply(sign, _other(rng, constant)),)

    for sign, constant in content:
        text, loose = pen.work(str, apply(sign, constant), mistake), sign != '*'
    return text, text


def _other(rng: Random, constant: int) -> int:
    return pick(rng, [wrong for wrong in (constant - 1, constant + 1) if 2 <= wrong <= 9])


def miss(content: tuple, rng: Random) -> Pair:
    place = between(rng, 0, len(content) - 1)
    sign, constant = content[place]
    changed = (*content[:place], (sign, _other(rng, constant)), *content[place + 1:])
    return clean(solve, changed)[1]


def full(expression: str) -> str:
    return f'def f(x): return {expression}'


def tests(content: tuple) -> str:
    lines = []
    for probe in PROBES:
        value = probe
        for sign, constant in content:
            value = value + constant if sign == '+' else value - constant if sign == '-' else value * constant
        lines.append(f'assert f({probe}) == {value}')
    return '\n'.join(lines)


KINDS = {'function': Kind(1.0, draw, key, ask, solve, miss, full, tests=tests)}
