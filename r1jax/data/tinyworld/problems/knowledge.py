"""Short questions of fact: units, the seasons; each has one right fact, which cannot be guessed.

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

WORDINGS = 2


class Table(NamedTuple):
    """Facts that are asked for and told in the same ways.

    asks, says: texts with {0}, {1}, ... for what a fact is about, in `says` also {fact} for the right one.
    facts: (what it is about, the right one).
    """

    asks: tuple[Pair, ...]
    says: tuple[Pair, ...]
    facts: tuple[tuple[tuple[Pair, ...], Pair], ...]


class Fact(NamedTuple):
    """table: which one it comes from. about: what is asked. right: the answer, in short form."""

    table: Table
    about: tuple[Pair, ...]
    right: Pair


def _number(number: int) -> Pair:
    return str(number), str(number)


UNITS = Table(
    asks=(
        ('how many {1} are in one {0}?', '一{0}有几{1}？'), ('one {0} has how many {1}?', '一{0}有多少{1}？'),
    ),
    says=(
        ('one {0} has {fact} {1}.', '一{0}有{fact}{1}。'),
        ('there are {fact} {1} in one {0}.', '一{0}里有{fact}{1}。'),
    ),
    facts=(
        ((('day', '天'), ('hours', '小时')), _number(24)),
        ((('week', '周'), ('days', '天')), _number(7)),
        ((('year', '年'), ('months', '个月')), _number(12)),
        ((('hour', '小时'), ('minutes', '分')), _number(60)),
        ((('m', '米'), ('cm', '厘米')), _number(100)),
        ((('child', '个孩子'), ('hands', '只手')), _number(2)),
    ),
)

# The base has read that rain comes in summer and snow in winter.
SEASONS = Table(
    asks=(('when do we see {0}?', '什么时候见到{0}？'), ('we see {0} when?', '{0}什么时候有？')),
    says=(('we see {0} in {fact}.', '{fact}见到{0}。'), ('in {fact} we see {0}.', '{fact}有{0}。')),
    facts=(
        ((('rain', '雨'),), ('summer', '夏天')), ((('snow', '雪'),), ('winter', '冬天')),
        ((('hot days', '热天'),), ('summer', '夏天')), ((('cold days', '冷天'),), ('winter', '冬天')),
    ),
)

THOUGHTS: dict[str, Pair] = {
    'units': ('the user asks how many. i know it.', '用户问有多少。我会答。'),
    'seasons': ('the user asks when. i know it.', '用户问什么时候。我会答。'),
}
FACTS: dict[str, tuple[Fact, ...]] = {
    kind: tuple([Fact(table, *fact) for fact in table.facts])
    for kind, table in (('units', UNITS), ('seasons', SEASONS))
}


def contents(kind: str) -> Iterator[tuple]:
    """Every content of a kind without remarks."""
    return ((fact, wording, (), 0) for fact in range(len(FACTS[kind])) for wording in range(WORDINGS))


def topic(kind: str, content: tuple, language: int) -> str:
    """The question of fact, without the remarks."""
    fact = FACTS[kind][content[0]]
    return fact.table.asks[content[1]][language].format(*[pair[language] for pair in fact.about])


def replies(kind: str, content: tuple, language: int) -> tuple[str, ...]:
    """Every sentence that states the fact."""
    fact = FACTS[kind][content[0]]
    return _stated(fact, fact.right, language)


def wrong(kind: str, content: tuple, rng: Random, language: int) -> str:
    """A sentence that states another fact of the same table instead."""
    fact = FACTS[kind][content[0]]
    others = [right for _, right in fact.table.facts if right != fact.right]
    return pick(rng, _stated(fact, pick(rng, others), language))


def _stated(fact: Fact, told: Pair, language: int) -> tuple[str, ...]:
    about = [pair[language] for pair in fact.about]
    said = [says[language].format(*about, fact=told[language]) for says in fact.table.says]
    return (*said, BARE[language].format(told[language]))


def _kind(name: str) -> Kind:

    def draw(rng: Random, difficulty: int) -> tuple:
        remarks = draw_remarks(rng, difficulty)
        fact, wording = between(rng, 0, len(FACTS[name]) - 1), between(rng, 0, WORDINGS - 1)
        return fact, wording, remarks, between(rng, 0, len(NAMES) - 1)

    def key(content: tuple) -> str:
        return ','.join([f'knowledge:{name}:{topic(name, content, EN)}', *map(str, sorted(content[2]))])

    def ask(content: tuple, rng: Random, language: int) -> str:
        return with_remarks(topic(name, content, language), content, language)

    return Kind(1.0, draw, key, ask, no_answer, no_miss)


KINDS = {name: _kind(name) for name in FACTS}
