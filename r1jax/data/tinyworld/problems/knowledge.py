"""Short questions of fact: units, opposites, the calendar; each has one right fact, which cannot be guessed.

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

# As in old rhymes, 'big stands against small': 大对小.
_PAIRS: tuple[tuple[Pair, Pair], ...] = (
    (('big', '大'), ('small', '小')), (('cold', '冷'), ('hot', '热')),
)
OPPOSITES = Table(
    asks=(
        ('what is the opposite of {0}?', '{0}对什么？'), ('the opposite of {0} is what?', '{0}和什么对？'),
    ),
    says=(
        ('the opposite of {0} is {fact}.', '{0}对{fact}。'),
        ('{0} is the opposite of {fact}.', '{0}和{fact}对。'),
    ),
    facts=tuple([((a,), b) for pair in _PAIRS for a, b in (pair, pair[::-1])]),
)

SEASONS = Table(
    asks=(
        ('is month {0} in summer or in winter?', '{0}月是夏天还是冬天？'),
        ('month {0} is in summer or in winter?', '{0}月在夏天还是在冬天？'),
    ),
    says=(('month {0} is in {fact}.', '{0}月在{fact}。'), ('it is in {fact}.', '{0}月是{fact}。')),
    facts=tuple([
        ((_number(month),), season)
        for months, season in (((7, 8), ('summer', '夏天')), ((1, 2), ('winter', '冬天'))) for month in months]),
)

THOUGHTS: dict[str, Pair] = {
    'units': ('the user asks how many. i know it.', '用户问有多少。我会答。'),
    'opposites': ('the user asks for the opposite. i say it.', '用户问什么对什么。我会答。'),
    'calendar': ('the user asks about a month. i know it.', '用户问一个月。我会答。'),
}
FACTS: dict[str, tuple[Fact, ...]] = {
    kind: tuple([Fact(table, *fact) for fact in table.facts])
    for kind, table in (('units', UNITS), ('opposites', OPPOSITES), ('calendar', SEASONS))
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
