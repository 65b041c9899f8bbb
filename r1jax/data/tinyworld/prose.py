"""Small stories and notes, in English and Chinese: people, weather, market and school."""

from random import Random

from r1jax.data.tinyworld.draws import between, chance, pick, sample
from r1jax.data.tinyworld.words import NAMES, Pair, join

PLACES: tuple[Pair, ...] = (
    ('the park', '公园'), ('the school', '学校'), ('the market', '市场'), ('the river', '河边'), ('the garden', '花园'),
    ('the city', '城里'),
)
THINGS: tuple[Pair, ...] = (
    ('apples', '苹果'), ('eggs', '鸡蛋'), ('cups', '杯子'), ('balls', '球'), ('books', '书'))
WEATHER: tuple[Pair, ...] = (('cold', '冷'), ('warm', '暖和'), ('hot', '热'), ('quiet', '安静'))
ANIMALS: tuple[Pair, ...] = (('cat', '猫'), ('dog', '狗'), ('bird', '鸟'), ('horse', '马'))

# A scene is told from its first sentence on; each later sentence is a choice of some.
SCENES: tuple[tuple[tuple[Pair, ...], ...], ...] = (
    (  # weather
        (('it is a {weather} day.', '今天很{weather}。'), ('the morning is {weather}.', '早上很{weather}。')),
        (('{a} is at {place} with a {animal}.', '{a}和一只{animal}在{place}。'),
         ('{a} reads a book by the window.', '{a}在窗边读书。')),
        (('the rain comes in summer, the snow in winter.', '夏天下雨，冬天下雪。'),
         ('at night it is quiet in {place}.', '晚上{place}很安静。')),
        (('{b} drinks hot tea.', '{b}喝热茶。'), ('{b} stays at home and rests.', '{b}在家休息。')),
    ),
    (  # market
        (('{a} goes to the market.', '{a}去市场。'), ('{a} and {b} are at the market.', '{a}和{b}在市场。')),
        (('{a} buys {n} {thing} for {b}.', '{a}给{b}买{n}个{thing}。'),
         ('the {thing} are good, {n} yuan each.', '{thing}很好，每个{n}元。')),
        (('{a} has no money left, but {b} helps.', '{a}没有钱了，但是{b}帮忙。'),
         ('{a} pays and says thank you.', '{a}给了钱，说谢谢。')),
        (('now {b} is happy.', '现在{b}很快乐。'), ('{a} walks home with {b}.', '{a}和{b}回家。')),
    ),
    (  # school
        (('{a} and {b} are at school.', '{a}和{b}在学校。'), ('{a} is a new teacher.', '{a}是新老师。')),
        (('{a} learns {n} new words every day.', '{a}每天学{n}个新词。'),
         ('the teacher asks {a}: what is the answer?', '老师问{a}：答案是什么？')),
        (('{b} made a mistake, but {a} helps.', '{b}算错了，但是{a}帮忙。'),
         ('{b} writes the numbers and {a} works them out.', '{b}写数，{a}算。')),
        (('the teacher says: good work!', '老师说：做得好！'), ('then {a} and {b} rest.', '然后{a}和{b}休息。')),
    ),
    (  # people
        (('{a} has a {animal}.', '{a}有一只{animal}。'), ('{a} is a friend of {b}.', '{a}是{b}的朋友。')),
        (('every day {a} runs to {place}.', '{a}每天跑到{place}。'), ('{b} is older than {a}.', '{b}比{a}大。')),
        (('the {animal} sleeps at home.', '{animal}在家睡觉。'),
         ('{b} sings and the {animal} dances.', '{b}唱歌，{animal}跳舞。')),
        (('{a} says: how are you, {b}?', '{a}说：{b}，你好吗？'), ('{b} says: i am well.', '{b}说：我很好。')),
    ),
)


def story(rng: Random, language: int) -> str:
    """One or two scenes about two people, of three or four sentences each."""
    sentences = []
    for _ in range(2 if chance(rng, 0.5) else 1):
        first, second = sample(rng, NAMES, 2)
        slots = {
            'a': first[language], 'b': second[language], 'n': between(rng, 2, 9),
            'place': pick(rng, PLACES)[language], 'thing': pick(rng, THINGS)[language],
            'weather': pick(rng, WEATHER)[language], 'animal': pick(rng, ANIMALS)[language],
        }
        scene = pick(rng, SCENES)
        if chance(rng, 0.5):
            scene = scene[:-1]
        sentences += [(pick(rng, choices)[language].format(**slots), language) for choices in scene]
    return join(sentences)
