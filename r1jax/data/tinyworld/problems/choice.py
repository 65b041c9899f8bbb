"""Multiple choice: unit conversions and small word problems, with near misses as the other options.

An option's letter stands behind it, '62 (G)', so that the solution finds it by looking up what follows the result.
All numbers stay within 0..99, as in arithmetic.

Content: (wording, person, thing, terms, options, place of the right one). The key is the expression alone, so
that neither the story nor the order of the options makes another problem.
"""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick, shuffled
from r1jax.data.tinyworld.problems import arithmetic
from r1jax.data.tinyworld.problems.arithmetic import Terms, near_miss, total_of
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.solutions import Pen
from r1jax.data.tinyworld.words import EN, LETTERS, NAMES, Pair

# (large unit, small unit, how many small ones make a large one, most large ones asked for)
UNITS = (
    (('m', '米'), ('dm', '分米'), 10, 8),
    (('cm', '厘米'), ('mm', '毫米'), 10, 8),
    (('days', '天'), ('hours', '小时'), 24, 3),
    (('weeks', '周'), ('days', '天'), 7, 9),
    (('years', '年'), ('months', '个月'), 12, 7),
    (('dozen', '打'), ('eggs', '个鸡蛋'), 12, 7),
)
THINGS: tuple[Pair, ...] = (('apples', '苹果'), ('eggs', '鸡蛋'), ('cups', '杯子'), ('balls', '球'))
STORIES: tuple[Pair, ...] = (
    ('{name} has {a} {thing} and buys {b}. how many now?', '{name}有{a}个{thing}，买{b}个。现在有几个？'),
    ('{name} has {a} {thing} and gives away {b}. how many are left?', '{name}有{a}个{thing}，送出{b}个。还剩几个？'),
    ('{name} has {a} {thing}, buys {b} and gives away {c}. how many are left?',
     '{name}有{a}个{thing}，买{b}个，送出{c}个。还剩几个？'),
    ('{name} has {a} boxes of {b} {thing}. how many {thing}?', '{name}有{a}盒{thing}，每盒{b}个。有几个？'),
    ('{name} has {a} boxes of {b} {thing} and gives away {c}. how many are left?',
     '{name}有{a}盒{thing}，每盒{b}个，送出{c}个。还剩几个？'),
    ('{name} has {a} {thing} and buys {b} boxes of {c}. how many now?',
     '{name}有{a}个{thing}，买{b}盒，每盒{c}个。现在有几个？'),
    ('{name} has {a} yuan and buys {b} {thing} at {c} yuan. how much is left?',
     '{name}有{a}元，买{b}个{thing}，每个{c}元。还剩多少元？'),
)
ONE_STEP = 0.3
MONEY = 6


def draw_unit(rng: Random, difficulty: int) -> tuple:
    unit = between(rng, 0, len(UNITS) - 1)
    _, _, size, most = UNITS[unit]
    terms = [(1, (between(rng, 2, most), size))]
    if not chance(rng, ONE_STEP):
        terms.append((1, (between(rng, 2, size - 1),)))
    return unit, 0, 0, tuple(terms), *_options(rng, tuple(terms), difficulty)


def draw_quantity(rng: Random, difficulty: int) -> tuple:
    story = pick(rng, (0, 1, 3)) if chance(rng, ONE_STEP) else pick(rng, (2, 4, 5, 6))
    a, b = between(rng, 2, 9), between(rng, 2, 9)
    if story in (0, 1):
        start, after = between(rng, 2, 97), between(rng, 2, 97)
        low, high = min(start, after), max(start, after + 2)
        terms = ((1, (low,)), (1, (high - low,))) if story == 0 else ((1, (high,)), (-1, (high - low,)))
    elif story == 2:
        start = between(rng, 2, 90)
        bought = between(rng, 2, 99 - start)
        terms = ((1, (start,)), (1, (bought,)), (-1, (between(rng, 2, start + bought),)))
    elif story == 3:
        terms = ((1, (a, b)),)
    elif story == 4:
        terms = ((1, (a, b)), (-1, (between(rng, 2, a * b),)))
    elif story == 5:
        terms = ((1, (between(rng, 2, 99 - a * b),)), (1, (a, b)))
    else:
        terms = ((1, (between(rng, a * b, 99),)), (-1, (a, b)))
    return story, between(rng, 0, len(NAMES) - 1), between(rng, 0, len(THINGS) - 1), terms, *_options(
        rng, terms, difficulty)


def _options(rng: Random, terms: Terms, count: int) -> tuple[tuple[str, ...], int]:
    """`count` different numbers in random order, and the place of the right one among them.

    The distractors are the value before the last step and near misses of the result.
    """
    right = total_of(terms)
    wrong = {total_of(terms[:-1])} if len(terms) > 1 else set()
    wrong.discard(right)
    while len(wrong) < count - 1:
        wrong.add(near_miss(rng, right))
    options = shuffled(rng, (right, *sorted(wrong)))
    return tuple([str(option) for option in options]), options.index(right)


def key(content: tuple) -> str:
    return arithmetic.key(content[3])


def ask_unit(content: tuple, rng: Random, language: int) -> str:
    unit, _, _, terms, options, _ = content
    large, small = UNITS[unit][0][language], UNITS[unit][1][language]
    more = terms[1][1][0] if len(terms) > 1 else 0
    if language == EN:
        said = f'{terms[0][1][0]} {large}' + (f' and {more} {small}' if more else '')
        return f'{said} is how many {small}?{listed(options)}'
    said = f'{terms[0][1][0]}{large}' + (f'{more}{small}' if more else '')
    return f"{said}是多少{small}？{listed(options)}"


def ask_quantity(content: tuple, rng: Random, language: int) -> str:
    story, person, thing, terms, options, _ = content
    numbers = [number for _, factors in terms for number in factors]
    said = STORIES[story][language].format(
        name=NAMES[person][language], thing=THINGS[thing][language], **dict(zip('abc', numbers, strict=False)))
    return said + listed(options)


def listed(options: tuple[str, ...]) -> str:
    return ''.join([f' {option} ({letter})' for letter, option in zip(LETTERS, options, strict=False)])


def solve(content: tuple, pen: Pen) -> Pair:
    options = content[4]
    value = str(arithmetic.reduce(content[3], pen))
    if value in options:
        letter = LETTERS[options.index(value)]
    else:  # only after a slip that was not noticed
        letter = pick(pen.rng, LETTERS[:len(options)])
        pen.write((f'{value} is not there', f'没有{value}'))
        pen.write((f'i guess ({letter})', f'我猜({letter})'))
        return letter, letter
    letter = pen.work(
        lambda letter: f'{value} ({letter})', letter,
        lambda rng: (pick(rng, LETTERS[:len(options)].replace(letter, '')),))
    return letter, letter


def miss(content: tuple, rng: Random) -> Pair:
    options, right = content[4:]
    letter = pick(rng, LETTERS[:len(options)].replace(LETTERS[right], ''))
    return letter, letter


def options_of(content: tuple) -> tuple[str, ...]:
    return content[4]


KINDS = {
    'unit': Kind(0.4, draw_unit, key, ask_unit, solve, miss, options=options_of),
    'quantity': Kind(0.6, draw_quantity, key, ask_quantity, solve, miss, options=options_of),
}
