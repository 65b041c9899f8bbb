"""Logic: who comes first in a chain of comparisons, and how many people lie in a chain of accusations.

'order' is solved by a walk: from the first fact upwards (or downwards), one link at a time, until nobody is
beyond. The last link then holds both the first and the second. 'truth' is solved from the one known person
along the chain of statements, with a running count of the liars. Every step is thus one look-up in the facts.
"""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick, sample, shuffled
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.solutions import Pen
from r1jax.data.tinyworld.words import EN, NAMES, NOBODY, Pair

PEOPLE = tuple(range(len(NAMES)))
STEM_PEOPLE = 3

# (more, less, most, least, second) by relation and language
RELATIONS = (
    (('taller', 'shorter', 'tallest', 'shortest', 'second tallest'), ('高', '矮', '最高', '最矮', '第二高')),
    (('older', 'younger', 'oldest', 'youngest', 'second oldest'), ('大', '小', '最大', '最小', '第二大')),
    (('faster', 'slower', 'fastest', 'slowest', 'second fastest'), ('快', '慢', '最快', '最慢', '第二快')),
)
MOST, LEAST, SECOND = 2, 3, 4
INVERTED = 0.35


def draw_order(rng: Random, difficulty: int) -> tuple:
    """(relation, chain from the greatest down, facts (place in the chain, inverted) as told, asked)"""
    chain = sample(rng, PEOPLE, difficulty)
    facts = shuffled(rng, [(place, chance(rng, INVERTED)) for place in range(difficulty - 1)])
    asked = pick(rng, (MOST, LEAST, SECOND) if difficulty >= 4 else (MOST, LEAST))
    return between(rng, 0, len(RELATIONS) - 1), chain, facts, asked


def order_key(content: tuple) -> str:
    return _key('order', [str(person) for person in content[1]])


def _key(name: str, elements: list[str]) -> str:
    stem = f'{name}:' + ','.join(elements[:STEM_PEOPLE])
    return stem + '|' + ','.join(elements[STEM_PEOPLE:]) if len(elements) > STEM_PEOPLE else stem


def ask_order(content: tuple, rng: Random, language: int) -> str:
    relation, chain, facts, asked = content
    words = RELATIONS[relation][language]
    told = []
    for place, inverted in facts:
        first, second = chain[place + 1 - (not inverted)], chain[place + (not inverted)]
        told.append(compare(first, second, words[inverted], language))
    if language == EN:
        return ' '.join(told) + f' who is {words[asked]}?'
    return ''.join(told) + f'谁{words[asked]}？'


def compare(first: int, second: int, word: str, language: int) -> str:
    """'tom is taller than ann.' in the language."""
    first, second = NAMES[first][language], NAMES[second][language]
    return f'{first} is {word} than {second}.' if language == EN else f'{first}比{second}{word}。'


def link(more: int | None, less: int | None) -> Pair:
    """'tom>ann' in both languages; None is nobody."""
    more, less = (NOBODY if person is None else NAMES[person] for person in (more, less))
    return f'{more[0]}>{less[0]}', f'{more[1]}>{less[1]}'


def solve_order(content: tuple, pen: Pen) -> Pair:
    _, chain, facts, asked = content
    upwards = asked != LEAST
    path = chain[::-1] if upwards else chain
    following = dict(zip(path, path[1:]))
    place = facts[0][0]
    behind, ahead = (chain[place + 1], chain[place]) if upwards else (chain[place], chain[place + 1])

    def show(person: int | None) -> Pair:
        return link(person, ahead) if upwards else link(ahead, person)

    def mistake(rng: Random) -> tuple[int | None]:
        """A walk goes wrong by stopping too early, or by going on where nobody is beyond."""
        return (None if right is not None else pick(rng, [person for person in chain if person != ahead]),)

    pen.write(link(ahead, behind) if upwards else link(behind, ahead))
    while True:
        right = following.get(ahead)
        found = pen.work(show, right, mistake)
        if found is None:
            break
        behind, ahead = ahead, found
        if right is None:
            pen.write(show(None))
            break
    return NAMES[behind if asked == SECOND else ahead]


def miss_order(content: tuple, rng: Random) -> Pair:
    _, chain, _, asked = content
    right = chain[{MOST: 0, LEAST: -1, SECOND: 1}[asked]]
    return NAMES[pick(rng, [person for person in chain if person != right])]


def draw_truth(rng: Random, difficulty: int) -> tuple:
    """(people, whether each is said to lie, the order in which the sentences are told)

    The first person's word is a fact; every other person speaks about the one before.
    """
    people = sample(rng, PEOPLE, difficulty)
    accused = tuple([chance(rng, 0.5) for _ in people])
    return people, accused, shuffled(rng, range(difficulty))


def truth_key(content: tuple) -> str:
    people, accused, _ = content
    return _key('truth', [f"{person}{'-' if lies else '+'}" for person, lies in zip(people, accused)])


def verdict(person: int, lies: bool) -> Pair:
    en, zh = NAMES[person]
    return (f'{en} lies', f'{zh}说谎') if lies else (f'{en} tells the truth', f'{zh}说真话')


def statement(speaker: int, person: int, lies: bool) -> Pair:
    en, zh = verdict(person, lies)
    return f'{NAMES[speaker][0]} says {en}', f'{NAMES[speaker][1]}说{zh}'


def ask_truth(content: tuple, rng: Random, language: int) -> str:
    people, accused, order = content
    told = [
        statement(people[place], people[place - 1], accused[place])[language] if place
        else verdict(people[0], accused[0])[language]
        for place in order
    ]
    return '. '.join(told) + '. how many lie?' if language == EN else '。'.join(told) + '。几个人说谎？'


def liars(content: tuple) -> int:
    people, accused, _ = content
    lies, count = accused[0], int(accused[0])
    for said in accused[1:]:
        lies = said != lies  # whoever accuses an honest person, or vouches for a liar, lies
        count += lies
    return count


def solve_truth(content: tuple, pen: Pen) -> Pair:
    people, accused, _ = content
    lies, count = accused[0], int(accused[0])

    def tell(person: int) -> None:
        en, zh = verdict(person, lies)
        pen.write((f'{en}: {count}', f'{zh}：{count}'))

    tell(people[0])
    for place in range(1, len(people)):
        en, zh = statement(people[place], people[place - 1], accused[place])
        right = accused[place] == lies
        true = pen.work(
            lambda true: (f"{en}: {'true' if true else 'false'}", f"{zh}：{'真' if true else '假'}"),
            right, lambda rng: (not right,))
        lies = not true
        count += lies
        tell(people[place])
    return str(count), str(count)


def miss_truth(content: tuple, rng: Random) -> Pair:
    right = liars(content)
    text = str(pick(rng, [count for count in range(len(content[0]) + 1) if count != right]))
    return text, text


KINDS = {
    'order': Kind(0.5, draw_order, order_key, ask_order, solve_order, miss_order),
    'truth': Kind(0.5, draw_truth, truth_key, ask_truth, solve_truth, miss_truth),
}
