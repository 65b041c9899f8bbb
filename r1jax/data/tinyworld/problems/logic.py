"""Logic: who comes first in a chain of comparisons, and how many people lie in a chain of accusations.

Both are solved by a walk in which every step is one look-up of what *follows* a name in the question, which is
the first thing that a small transformer learns to do (an induction head, arXiv 2209.11895). The comparisons are
told in the direction in which the walk goes, in any order; the walk begins with the first of them and ends where
nobody is beyond. Of the accusations the first is a known fact, and each names the accused before the speaker.
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
MORE, LESS, MOST, LEAST, SECOND = range(5)


def draw_order(rng: Random, difficulty: int) -> tuple:
    """(relation, people in the direction of the walk, order in which the links are told, asked)"""
    asked = pick(rng, (MOST, LEAST, SECOND) if difficulty >= 4 else (MOST, LEAST))
    told = shuffled(rng, range(difficulty - 1))
    return between(rng, 0, len(RELATIONS) - 1), sample(rng, PEOPLE, difficulty), told, asked


def order_key(content: tuple) -> str:
    """The chain from the greatest down, whichever way it is told."""
    _, path, _, asked = content
    return _key('order', [str(person) for person in (path if asked == LEAST else path[::-1])])


def _key(name: str, elements: list[str]) -> str:
    stem = f'{name}:' + ','.join(elements[:STEM_PEOPLE])
    return stem + '|' + ','.join(elements[STEM_PEOPLE:]) if len(elements) > STEM_PEOPLE else stem


def ask_order(content: tuple, rng: Random, language: int) -> str:
    relation, path, told, asked = content
    facts = [compare(path[place], path[place + 1], relation, asked, language) for place in told]
    superlative = RELATIONS[relation][language][asked]
    if language == EN:
        return ' '.join(facts) + f' who is {superlative}?'
    return ''.join(facts) + f'谁{superlative}？'


def compare(first: int, second: int, relation: int, asked: int, language: int) -> str:
    """'tom is taller than ann.' where the walk goes down (to the least), 'ann is shorter than tom.' where up."""
    word = RELATIONS[relation][language][MORE if asked == LEAST else LESS]
    first, second = NAMES[first][language], NAMES[second][language]
    return f'{first} is {word} than {second}.' if language == EN else f'{first}比{second}{word}。'


def link(first: int, second: int | None, asked: int) -> Pair:
    """'tom > ann' where the walk goes down, 'ann < tom' where up, in both languages; None is nobody."""
    sign = '>' if asked == LEAST else '<'
    first, second = NAMES[first], NOBODY if second is None else NAMES[second]
    return f'{first[0]} {sign} {second[0]}', f'{first[1]}{sign}{second[1]}'


def solve_order(content: tuple, pen: Pen) -> Pair:
    _, path, told, asked = content
    following = dict(zip(path, path[1:], strict=False))
    behind, ahead = path[told[0]], path[told[0] + 1]
    pen.write(link(behind, ahead, asked))
    while True:
        right = following.get(ahead)

        def mistake(rng: Random) -> tuple[int | None]:
            """A walk goes wrong by stopping too early, or by going on where nobody is beyond."""
            return (None if right is not None else pick(rng, [person for person in path if person != ahead]),)

        found = pen.work(lambda person: link(ahead, person, asked), right, mistake)
        if found is None:
            break
        behind, ahead = ahead, found
        if right is None:
            pen.write(link(ahead, None, asked))
            break
    return NAMES[behind if asked == SECOND else ahead]


def miss_order(content: tuple, rng: Random) -> Pair:
    _, path, _, asked = content
    right = path[-2 if asked == SECOND else -1]
    return NAMES[pick(rng, [person for person in path if person != right])]


def draw_truth(rng: Random, difficulty: int) -> tuple:
    """(people, whether each is said to lie): the first's word is a fact, each other speaks about the one before."""
    return sample(rng, PEOPLE, difficulty), tuple([chance(rng, 0.5) for _ in range(difficulty)])


def truth_key(content: tuple) -> str:
    return _key('truth', [f"{person}{'-' if lies else '+'}" for person, lies in zip(*content, strict=True)])


def verdict(person: int, lies: bool) -> Pair:
    en, zh = NAMES[person]
    return (f'{en} lies', f'{zh}说谎') if lies else (f'{en} is honest', f'{zh}诚实')


def statement(speaker: int, person: int, lies: bool) -> Pair:
    en, zh = verdict(person, lies)
    return f'{en}, says {NAMES[speaker][0]}', f'{zh}，{NAMES[speaker][1]}说'


def ask_truth(content: tuple, rng: Random, language: int) -> str:
    people, accused = content
    told = [verdict(people[0], accused[0])[language]] + [
        statement(people[place], people[place - 1], accused[place])[language] for place in range(1, len(people))]
    return '. '.join(told) + '. how many lie?' if language == EN else '。'.join(told) + '。几个人说谎？'


def liars(content: tuple) -> int:
    _, accused = content
    lies, count = accused[0], int(accused[0])
    for said in accused[1:]:
        lies = said != lies  # whoever accuses an honest person, or vouches for a liar, lies
        count += lies
    return count


def judged(person: int, accused: bool, true: bool) -> Pair:
    """'kim lies: false': what is said of a person, and whether that is so."""
    en, zh = verdict(person, accused)
    return f"{en}: {'true' if true else 'false'}", f"{zh}：{'真' if true else '假'}"


def solve_truth(content: tuple, pen: Pen) -> Pair:
    people, accused = content
    lies, count = accused[0], int(accused[0])

    def tell(person: int) -> None:
        en, zh = verdict(person, lies)
        pen.write((f'{en}: {count}', f'{zh}：{count}'))

    tell(people[0])
    for place in range(1, len(people)):
        right = accused[place] == lies
        true = pen.work(
            lambda true: judged(people[place - 1], accused[place], true), right, lambda rng: (not right,))
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
