"""Short questions of fact, how many of one unit make another: each has one right answer, which cannot be guessed.

Content: (fact, wording, remarks, the speaker's name), as numbers. Difficulty is the number of sentences, where each
beyond the first is a remark of `everyday`. A fact that was never told cannot be known, so what is held out is a fact in
one wording with these remarks, never the fact itself.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from r1jax.data.tinyworld.draws import between, pick
from r1jax.data.tinyworld.problems.everyday import draw_remarks, no_answer, no_miss, with_remarks
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.words import BARE, EN, NAMES, Pair


class Fact(NamedTuple):
    """One of the large unit is `number` of the small ones."""

    large: Pair
    small: Pair
    number: int


# The base has read of several of them what these are of one ('3 weeks is 21 days').
FACTS: dict[str, tuple[Fact, ...]] = {'units': (
    Fact(('day', '天'), ('hours', '小时'), 24),
    Fact(('week', '周'), ('days', '天'), 7),
    Fact(('year', '年'), ('months', '个月'), 12),
    Fact(('m', '米'), ('dm', '分米'), 10),
    Fact(('cm', '厘米'), ('mm', '毫米'), 10),
    Fact(('dozen', '打'), ('eggs', '个鸡蛋'), 12),
)}
# {0} is the large unit, {1} the small one, {2} how many.
WORDINGS: tuple[Pair, ...] = (
    ('how many {1} are in one {0}?', '一{0}有几{1}？'), ('one {0} is how many {1}?', '一{0}是多少{1}？'),
)
STATEMENTS: tuple[Pair, ...] = (
    ('one {0} is {2} {1}.', '一{0}是{2}{1}。'), ('there are {2} {1} in one {0}.', '一{0}里有{2}{1}。'),
)
THOUGHTS: dict[str, Pair] = {'units': ('the user asks how many. i know it.', '用户问有多少。我会答。')}


def contents(kind: str) -> Iterator[tuple]:
    """Every content of a kind without remarks."""
    return ((fact, wording, (), 0) for fact in range(len(FACTS[kind])) for wording in range(len(WORDINGS)))


def topic(kind: str, content: tuple, language: int) -> str:
    """The question of fact, without the remarks."""
    fact = FACTS[kind][content[0]]
    return WORDINGS[content[1]][language].format(fact.large[language], fact.small[language])


def replies(kind: str, content: tuple, language: int) -> tuple[str, ...]:
    """Every sentence that states the fact."""
    fact = FACTS[kind][content[0]]
    return _stated(fact, fact.number, language)


def wrong(kind: str, content: tuple, rng: Random, language: int) -> str:
    """A sentence that states the number of another fact instead."""
    fact = FACTS[kind][content[0]]
    others = [other.number for other in FACTS[kind] if other.number != fact.number]
    return pick(rng, _stated(fact, pick(rng, others), language))


def _stated(fact: Fact, number: int, language: int) -> tuple[str, ...]:
    said = [statement[language].format(fact.large[language], fact.small[language], number) for statement in STATEMENTS]
    return (*said, BARE[language].format(number))


def _kind(name: str) -> Kind:

    def draw(rng: Random, difficulty: int) -> tuple:
        remarks = draw_remarks(rng, difficulty)
        fact, wording = between(rng, 0, len(FACTS[name]) - 1), between(rng, 0, len(WORDINGS) - 1)
        return fact, wording, remarks, between(rng, 0, len(NAMES) - 1)

    def key(content: tuple) -> str:
        return ','.join([f'knowledge:{name}:{topic(name, content, EN)}', *map(str, sorted(content[2]))])

    def ask(content: tuple, rng: Random, language: int) -> str:
        return with_remarks(topic(name, content, language), content, language)

    return Kind(1.0, draw, key, ask, no_answer, no_miss)


KINDS = {name: _kind(name) for name in FACTS}
