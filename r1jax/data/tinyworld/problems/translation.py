"""Translation of short sentences: 'the red cat sleeps at home' and '红色的猫在家睡觉', in both directions.

Content: (adjectives, noun, verb, place or None, time or None), as numbers into the lists below. The steps are
the words one by one, in the order of the sentence that is asked for.
"""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick, sample
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.solutions import Pen
from r1jax.data.tinyworld.words import EN, Pair

ADJECTIVES: tuple[Pair, ...] = (
    ('red', '红色的'), ('white', '白色的'), ('black', '黑色的'), ('big', '大的'), ('small', '小的'), ('old', '老的'),
    ('happy', '快乐的'), ('quiet', '安静的'), ('good', '好的'), ('new', '新的'),
)
NOUNS: tuple[Pair, ...] = (
    ('cat', '猫'), ('dog', '狗'), ('bird', '鸟'), ('horse', '马'), ('child', '孩子'), ('teacher', '老师'),
    ('doctor', '医生'), ('friend', '朋友'),
)
VERBS: tuple[Pair, ...] = (
    ('sleeps', '睡觉'), ('runs', '跑步'), ('sings', '唱歌'), ('eats', '吃饭'), ('swims', '游泳'), ('works', '工作'),
    ('dances', '跳舞'), ('rests', '休息'),
)
PLACES: tuple[Pair, ...] = (
    ('at home', '在家'), ('at school', '在学校'), ('in the park', '在公园'), ('in the garden', '在花园'),
    ('by the river', '在河边'), ('in the city', '在城里'),
)
TIMES: tuple[Pair, ...] = (
    ('today', '今天'), ('every day', '每天'), ('at night', '晚上'), ('in summer', '夏天'), ('in winter', '冬天'),
)
QUESTIONS = (
    ('translate to chinese: {}', 'in chinese: {}'),
    ('翻译成英文：{}', '用英文说：{}'),
)


def draw(rng: Random, difficulty: int) -> tuple:
    """A noun and a verb, then by difficulty an adjective, a place or a time, the other, an adjective."""
    adjectives = sample(rng, range(len(ADJECTIVES)), min(max(difficulty - 2, 0), 1) + (difficulty > 5))
    noun, verb = between(rng, 0, len(NOUNS) - 1), between(rng, 0, len(VERBS) - 1)
    place, time = between(rng, 0, len(PLACES) - 1), between(rng, 0, len(TIMES) - 1)
    if difficulty < 5 and chance(rng, 0.5) or difficulty < 4:
        place = None
    if difficulty < 5 and place is not None or difficulty < 4:
        time = None
    return adjectives, noun, verb, place, time


def key(content: tuple) -> str:
    adjectives, noun, verb, place, time = content
    words = [ADJECTIVES[adjective][EN] for adjective in adjectives]
    stem = 'translation:' + ','.join([*words[-1:], NOUNS[noun][EN], VERBS[verb][EN]])
    rest = words[:-1]
    if place is not None:
        rest.append(PLACES[place][EN])
    if time is not None:
        rest.append(TIMES[time][EN])
    return stem + '|' + ','.join(rest) if rest else stem


def words_of(content: tuple) -> tuple[list[Pair], list[Pair]]:
    """The words in English order and in Chinese order."""
    adjectives, noun, verb, place, time = content
    who = [ADJECTIVES[adjective] for adjective in adjectives] + [NOUNS[noun]]
    where = [PLACES[place]] if place is not None else []
    when = [TIMES[time]] if time is not None else []
    return who + [VERBS[verb]] + where + when, when + who + where + [VERBS[verb]]


def sentence(content: tuple) -> Pair:
    english, chinese = words_of(content)
    return 'the ' + ' '.join([word[0] for word in english]), ''.join([word[1] for word in chinese])


def ask(content: tuple, rng: Random, language: int) -> str:
    return pick(rng, QUESTIONS[language]).format(sentence(content)[language])


def solve(content: tuple, pen: Pen) -> Pair:
    """The pair is by language of the question: Chinese for an English question, English for a Chinese one."""
    english, chinese = words_of(content)
    for en, zh in zip(chinese, english, strict=True):
        pen.write((f'{en[0]}: {en[1]}', f'{zh[1]}：{zh[0]}'))
    return sentence(content)[::-1]


def miss(content: tuple, rng: Random) -> Pair:
    adjectives, noun, verb, place, time = content
    other = pick(rng, [index for index in range(len(VERBS)) if index != verb])
    return sentence((adjectives, noun, other, place, time))[::-1]


KINDS = {'sentence': Kind(1.0, draw, key, ask, solve, miss)}
