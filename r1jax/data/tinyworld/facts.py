"""Lists of facts that take one step: the operations that worked solutions are made of. None is held out."""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick, sample, weighted
from r1jax.data.tinyworld.problems import code, logic, translation
from r1jax.data.tinyworld.problems.choice import UNITS
from r1jax.data.tinyworld.words import EN, NAMES, ZH, Pair, join

TOPICS = (
    ('sums', 0.5), ('products', 0.12), ('units', 0.08), ('order', 0.1), ('truth', 0.08), ('code', 0.05),
    ('words', 0.07),
)
WORDS = (
    translation.ADJECTIVES, translation.NOUNS, translation.VERBS, translation.PLACES, translation.TIMES,
    NAMES)


def facts(rng: Random, language: int, count: int, characters: int) -> str:
    """A list of up to `count` facts of one topic, of up to about `characters` characters."""
    fact = _FACTS[weighted(rng, TOPICS)]
    lines, length = [], 0
    for _ in range(count):
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
    large, small, size, most = pick(rng, UNITS)
    many = between(rng, 2, most)
    if chance(rng, 0.3):
        more = between(rng, 2, 99)
        return _same(f'{many * size}+{more}={many * size + more}')
    return (
        f'{many} {large[0]} is {many * size} {small[0]}. {many}*{size}={many * size}.',
        f'{many}{large[1]}是{many * size}{small[1]}。{many}*{size}={many * size}。')


def _order(rng: Random) -> Pair:
    """A comparison and its link, or two links and the third that follows."""
    first, second, third = sample(rng, logic.PEOPLE, 3)
    if chance(rng, 0.3):
        links = [logic.link(first, second), logic.link(second, third), logic.link(first, third)]
        en, zh = zip(*links)
        return f'{en[0]}. {en[1]}. so {en[2]}.', f'{zh[0]}。{zh[1]}。所以{zh[2]}。'
    words, inverted = pick(rng, logic.RELATIONS), chance(rng, 0.5)
    link = logic.link(second, first) if inverted else logic.link(first, second)
    said = tuple(logic.compare(first, second, words[language][inverted], language) for language in (EN, ZH))
    return f'{said[0]} {link[0]}.', f'{said[1]}{link[1]}。'


def _truth(rng: Random) -> Pair:
    """One sentence about a person, and what follows for the one who says it."""
    speaker, person = sample(rng, logic.PEOPLE, 2)
    lies, accused = chance(rng, 0.5), chance(rng, 0.5)
    known, said = logic.verdict(person, lies), logic.statement(speaker, person, accused)
    true = lies == accused
    then = logic.verdict(speaker, not true)
    return (
        f"{known[0]}. {said[0]}: {'true' if true else 'false'}. {then[0]}.",
        f"{known[1]}。{said[1]}：{'真' if true else '假'}。{then[1]}。")


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
    'order': _order,
    'truth': _truth,
    'code': _code,
    'words': _word,
}
