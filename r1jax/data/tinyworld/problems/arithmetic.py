"""Arithmetic: sums and differences whose running totals stay in 0..99, some with one product of two digits.

Content: terms (sign, factors), such as ((1, (12,)), (1, (7, 8)), (-1, (9,))) for 12+7*8-9. The word problems
and unit conversions of `choice` are terms too, are solved here, and share the keys, so that no held-out
expression shows up in another dress.
"""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.solutions import Pen
from r1jax.data.tinyworld.words import Pair

Terms = tuple[tuple[int, tuple[int, ...]], ...]

STEM_NUMBERS = 3
SLIPS = (1, -1, 10, -10, 2, -2)
QUESTIONS = (
    ('what is {}?', 'compute {}.', 'find {}.', 'how much is {}?'),
    ('{}等于多少？', '{}是多少？', '计算{}。', '求{}。'),
)


def expression(terms: Terms) -> str:
    text = ''.join([('+' if sign > 0 else '-') + '*'.join(map(str, factors)) for sign, factors in terms])
    return text.removeprefix('+')


def key(terms: Terms) -> str:
    """'expression:37+58-14|+6': the stem ends with the term that holds the third number."""
    stem = numbers = 0
    while stem < len(terms) and numbers < STEM_NUMBERS:
        numbers += len(terms[stem][1])
        stem += 1
    text = 'expression:' + expression(terms[:stem])
    return text if stem == len(terms) else text + '|' + expression(terms[stem:])


def draw_sum(rng: Random, difficulty: int) -> Terms:
    total = between(rng, 1, 99)
    terms = [(1, (total,))]
    for _ in range(difficulty - 1):
        terms.append(_next_term(rng, total))
        total += terms[-1][0] * terms[-1][1][0]
    return tuple(terms)


def draw_product(rng: Random, difficulty: int) -> Terms:
    """`difficulty` numbers, two of which are the factors of one product, anywhere in the expression."""
    where = between(rng, 0, difficulty - 2)
    total, terms = 0, []
    for index in range(difficulty - 1):
        if index == where:
            term = _product_term(rng, total, first=index == 0)
        elif index == 0:
            term = (1, (between(rng, 1, 99),))
        else:
            term = _next_term(rng, total)
        terms.append(term)
        value = term[1][0] if len(term[1]) == 1 else term[1][0] * term[1][1]
        total += term[0] * value
    return tuple(terms)


def _next_term(rng: Random, total: int) -> tuple[int, tuple[int]]:
    after = between(rng, 0, 98)
    if after >= total:  # every total but the present one, which would need the term 0
        after += 1
    return (1, (after - total,)) if after > total else (-1, (total - after,))


def _product_term(rng: Random, total: int, first: bool) -> tuple[int, tuple[int, int]]:
    while True:
        factors = between(rng, 2, 9), between(rng, 2, 9)
        sign = 1 if first or chance(rng, 0.5) else -1
        if 0 <= total + sign * factors[0] * factors[1] <= 99:
            return sign, factors


def ask(terms: Terms, rng: Random, language: int) -> str:
    return pick(rng, QUESTIONS[language]).format(expression(terms))


def total_of(terms: Terms) -> int:
    total = 0
    for sign, factors in terms:
        total += sign * (factors[0] if len(factors) == 1 else factors[0] * factors[1])
    return total


def reduce(terms: Terms, pen: Pen) -> int:
    """Writes the products, then the running totals from left to right; returns the last total as written."""
    signs = [sign for sign, _ in terms]
    values = [factors[0] if len(factors) == 1 else factors[0] * factors[1] for _, factors in terms]
    for index, (_, factors) in enumerate(terms):
        if len(factors) == 2:
            left = f'{factors[0]}*{factors[1]}='
            values[index] = pen.work(
                lambda value, left=left: left + str(value), values[index],
                lambda rng, index=index: _mistake(rng, signs, values, index, values[index], signs[index]))
    total = values[0]
    for index in range(1, len(terms)):
        left = f"{total}{'+' if signs[index] > 0 else '-'}{values[index]}="
        after = total + signs[index] * values[index]
        total = pen.work(
            lambda value, left=left: left + str(value), after,
            lambda rng, index=index, after=after: _mistake(rng, signs, values, index, after, 1, after))
    return total


def _mistake(
    rng: Random, signs: list[int], values: list[int], index: int, right: int, sign: int,
    total: int | None = None,
) -> tuple[int] | None:
    """A near miss of `right` that keeps it and all later totals within 0..99 (0..999 where they are longer).

    sign: how a change of `right` enters the totals; total: the running total after term `index`, where known.
    """
    if total is None:
        total = sum([s * v for s, v in zip(signs[:index + 1], values[:index + 1], strict=True)])
    totals = [total]
    for s, v in zip(signs[index + 1:], values[index + 1:], strict=True):
        totals.append(totals[-1] + s * v)
    ceiling = 99 if max(totals) <= 99 else 999
    fitting = [
        slip for slip in SLIPS
        if right + slip >= 0 and 0 <= min(totals) + sign * slip and max(totals) + sign * slip <= ceiling
    ]
    return (right + pick(rng, fitting),) if fitting else None


def solve(terms: Terms, pen: Pen) -> Pair:
    text = str(reduce(terms, pen))
    return text, text


def near_miss(rng: Random, value: int, ceiling: int = 99) -> int:
    """A number close to `value`, other than it, within 0..ceiling."""
    while True:
        wrong = value + pick(rng, SLIPS) * pick(rng, (1, 1, 1, 2, 3, 4, 5))
        if 0 <= wrong <= ceiling:
            return wrong


def miss(terms: Terms, rng: Random) -> Pair:
    text = str(near_miss(rng, total_of(terms)))
    return text, text


KINDS = {
    'sum': Kind(0.7, draw_sum, key, ask, solve, miss),
    'product': Kind(0.3, draw_product, key, ask, solve, miss),
}
