"""Lists of facts that take one step: the operations that worked solutions are made of.

Operations on two numbers are not held out, in whatever problem they stand. Held-out chains of people and unit
conversions are never listed.
"""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick, sample, shuffled, weighted
from r1jax.data.tinyworld.problems import arithmetic, code, logic, translation
from r1jax.data.tinyworld.problems.choice import UNITS
from r1jax.data.tinyworld.problems.split import split_of
from r1jax.data.tinyworld.words import EN, LETTERS, NAMES, ZH, Pair, join

TOPICS = (
    ('sums', 0.4), ('products', 0.1), ('units', 0.08), ('options', 0.12), ('order', 0.12), ('truth', 0.08),
    ('code', 0.04), ('words', 0.06),
)
# How many to a list at most: of people only one, because the next one would say other things of the same people.
MOST = {'order': 1, 'truth': 1, 'options': 3}
WORDS = (
    translation.ADJECTIVES, translation.NOUNS, translation.VERBS, translation.PLACES, translation.TIMES,
    NAMES)


def facts(rng: Random, language: int, count: int, characters: int) -> str:
    """A list of up to `count` facts of one topic, of up to about `characters` characters."""
    topic = weighted(rng, TOPICS)
    fact = _FACTS[topic]
    lines, length = [], 0
    for _ in range(MOST.get(topic, count)):
        line = fact(rng)[language]
        length += len(line) + 1
        if length > characters:
            break
        lines.append((line, language))
    return join(lines)


def _same(text: str) -> Pair:
    return text + '.', text + '。'


def _sum(rng: Random) -> Pair:
    before = between(rng, 0, 99)
    after = between(rng, 0, 99)
    left = f'{before}+{after - before}' if after >= before else f'{before}-{before - after}'
    return _same(f'{left}={after}')


def _product(rng: Random) -> Pair:
    a, b = between(rng, 2, 9), between(rng, 2, 9)
    return _same(f'{a}*{b}={a * b}')


def _unit(rng: Random) -> Pair:
    while True:
        large, small, size, most = pick(rng, UNITS)
        many = between(rng, 2, most)
        if split_of(arithmetic.key(((1, (many, size)),))) == 'train':
            break
    if chance(rng, 0.3):
        more = between(rng, 2, size - 1)
        return _same(f'{many * size}+{more}={many * size + more}')
    return (
        f'{many} {large[0]} is {many * size} {small[0]}. {many}*{size}={many * size}.',
        f'{many}{large[1]}是{many * size}{small[1]}。{many}*{size}={many * size}。')


def _options(rng: Random) -> Pair:
    """Numbers and their letters, and some of them looked up in another order."""
    numbers = sample(rng, range(100), between(rng, 4, 8))
    pairs = [f'{number} ({letter})' for number, letter in zip(numbers, LETTERS, strict=False)]
    asked = sample(rng, pairs, between(rng, 2, len(pairs)))
    listed = ' '.join(pairs)
    return f'{listed}: ' + '. '.join(asked) + '.', f'{listed}：' + '。'.join(asked) + '。'


def _order(rng: Random) -> Pair:
    """Comparisons, and their links in another order; the last person has nobody beyond."""
    relation, asked = between(rng, 0, len(logic.RELATIONS) - 1), pick(rng, (logic.MOST, logic.LEAST))
    length = between(rng, 3, 5)
    while True:
        path = sample(rng, logic.PEOPLE, length)
        if split_of(logic.order_key((relation, path, (), asked))) == 'train':
            break
    pairs = list(zip(path, (*path[1:], None), strict=True))
    told = shuffled(rng, pairs[:-1])
    links = [logic.link(*pair, asked) for pair in shuffled(rng, pairs)]
    en = [logic.compare(*pair, relation, asked, EN) for pair in told] + [f'{link[EN]}.' for link in links]
    zh = [logic.compare(*pair, relation, asked, ZH) for pair in told] + [f'{link[ZH]}。' for link in links]
    return ' '.join(en), ''.join(zh)


def _truth(rng: Random) -> Pair:
    """A person who is known, a sentence about them, and what follows for the one who says it."""
    speaker, person = sample(rng, logic.PEOPLE, 2)
    lies, accused = chance(rng, 0.5), chance(rng, 0.5)
    true = lies == accused
    sentences = (
        logic.verdict(person, lies), logic.statement(speaker, person, accused), logic.judged(person, accused, true),
        logic.verdict(speaker, not true))
    return '. '.join([en for en, _ in sentences]) + '.', '。'.join([zh for _, zh in sentences]) + '。'


def _code(rng: Random) -> Pair:
    sign, constant = pick(rng, '+-*'), between(rng, 2, 9)
    return tuple(
        f'{code.FIRST[language][sign].format(constant)}{mark}x{sign}{constant}{stop}'
        for language, mark, stop in ((EN, ': ', '.'), (ZH, '：', '。')))


def _word(rng: Random) -> Pair:
    en, zh = pick(rng, pick(rng, WORDS))
    return f'{en}: {zh}.', f'{zh}：{en}。'


_FACTS = {
    'sums': _sum,
    'products': _product,
    'units': _unit,
    'options': _options,
    'order': _order,
    'truth': _truth,
    'code': _code,
    'words': _word,
}
