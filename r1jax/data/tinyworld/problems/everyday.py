"""Everyday talk: greetings, questions about the assistant, advice, thanks, requests; no one answer is right.

Content: (which of the kind's sentences, remarks around it, the speaker's name). Difficulty is the number of
sentences: each beyond the first is a remark that a good reply takes up.
"""

from collections.abc import Iterator
from random import Random

from r1jax.data.tinyworld.draws import between, pick, sample
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.solutions import Pen
from r1jax.data.tinyworld.words import EN, NAMES, Pair

# (what the user says, possible replies)
Talk = tuple[tuple[Pair, tuple[Pair, ...]], ...]

_HELLO = (
    ('hello! how can i help you?', '你好！我能帮你什么？'),
    ('hello! it is good to see you.', '你好！很高兴见到你。'),
)
GREETINGS: Talk = (
    (('hello!', '你好！'), _HELLO),
    (('good morning!', '早上好！'), (('good morning! how can i help you?', '早上好！我能帮你什么？'),)),
    (('good night!', '晚上好！'), (('good night! rest well.', '晚上好！好好休息。'),)),
    (('how are you today?', '你今天好吗？'), (('i am well. how can i help you?', '我很好。我能帮你什么？'),)),
    (('hello, how is the work?', '你好，工作好吗？'), (('the work is good. thank you!', '工作很好。谢谢你！'),)),
    (('hello, can we talk?', '你好，可以说话吗？'), _HELLO),
)
_SELF = (
    ('i am a small assistant. i can help with numbers and words.', '我是一个小助手。我能帮你算数和写字。'),
    ('i am an assistant, a program that reads and writes.', '我是助手，是会读会写的程序。'),
)
SELF: Talk = (
    (('who are you?', '你是谁？'), _SELF),
    (('what are you?', '你是什么？'), _SELF),
    (('what can you do?', '你会做什么？'),
     (('i can work with numbers, compare people and write small functions.', '我会算数，会比大小，会写小函数。'),)),
    (('can you sleep?', '你会睡觉吗？'), (('no, i am a program. i do not sleep.', '不会，我是程序，不用睡觉。'),)),
    (('do you have a name?', '你有名字吗？'), (('no, i am only an assistant.', '没有，我只是一个助手。'),)),
    (('are you a child?', '你是孩子吗？'), (('no, i am a program.', '不是，我是程序。'),)),
)
ADVICE: Talk = (
    (('how can i sleep well?', '我怎么睡得好？'),
     (('read a good book and go to bed early.', '读一本好书，早一点睡。'), ('drink no tea at night.', '晚上不喝茶。'))),
    (('how can i learn new words?', '我怎么学新词？'),
     (('read every day and write each word two times.', '每天读书，每个词写两次。'),)),
    (('how can i stay warm?', '我怎么保暖？'), (('drink hot tea and stay at home.', '喝热茶，在家休息。'),)),
    (('how can i save money?', '我怎么省钱？'), (('buy only what you need.', '只买要用的东西。'),)),
    (('how can i make a friend?', '我怎么交朋友？'), (('say hello and help when you can.', '先说你好，能帮就帮。'),)),
    (('how can i run faster?', '我怎么跑得快？'), (('run a little every day and rest well.', '每天跑一点，好好休息。'),)),
)
_WELCOME = (('you are welcome!', '不用谢！'), ('you are welcome! come again.', '不用谢！再来。'))
THANKS: Talk = (
    (('thank you!', '谢谢你！'), _WELCOME),
    (('thank you for the help!', '谢谢你的帮助！'), _WELCOME),
    (('that was a good answer, thank you.', '这个答案很好，谢谢。'), _WELCOME),
    (('thank you, i can do it now.', '谢谢，我现在会了。'), (('good work! you are welcome.', '做得好！不用谢。'),)),
    (('thank you, good night.', '谢谢，晚安。'), (('you are welcome, good night!', '不用谢，晚安！'),)),
    (('thank you for the good advice!', '谢谢你的好主意！'), _WELCOME),
)
REQUESTS: Talk = (
    (('write a line about rain.', '写一句雨。'), (('the rain sings in the garden at night.', '晚上，雨在花园唱歌。'),)),
    (('write a line about snow.', '写一句雪。'), (('white snow rests on the quiet city.', '白色的雪在安静的城里休息。'),)),
    (('write a line about tea.', '写一句茶。'), (('a cup of hot tea makes the day warm.', '一杯热茶，一天都暖。'),)),
    (('write a line about a cat.', '写一句猫。'), (('the cat sleeps by the warm window.', '猫在暖暖的窗边睡觉。'),)),
    (('write a line about books.', '写一句书。'), (('a good book is a quiet friend.', '好书是安静的朋友。'),)),
    (('write a line about the river.', '写一句河。'), (('the river runs and never rests.', '河水跑，不休息。'),)),
)
REMARKS: tuple[tuple[Pair, Pair], ...] = (
    (('i am {name}.', '我是{name}。'), ('it is good to see you, {name}.', '很高兴见到你，{name}。')),
    (('it is cold today.', '今天很冷。'), ('stay warm!', '注意保暖！')),
    (('i work every day.', '我每天工作。'), ('have a rest today!', '今天休息一下！')),
    (('i am at school.', '我在学校。'), ('have a good day at school!', '在学校开心！')),
    (('i have little time.', '我时间不多。'), ('take it step by step.', '一步一步来。')),
    (('it is my first day.', '今天是我第一天。'), ('have a good first day!', '第一天开心！')),
)
THOUGHTS: dict[str, Pair] = {
    'greeting': ('the user says hello. i say hello.', '用户说你好。我说你好。'),
    'self': ('the user asks about me. i say what i am.', '用户问我是谁。我说我是什么。'),
    'advice': ('the user needs advice. i give some.', '用户要主意。我给一个。'),
    'thanks': ('the user says thank you.', '用户说谢谢。'),
    'request': ('the user needs a line. i write one.', '用户要一句话。我写一句。'),
}
TALKS = {'greeting': GREETINGS, 'self': SELF, 'advice': ADVICE, 'thanks': THANKS, 'request': REQUESTS}


def contents(kind: str) -> Iterator[tuple]:
    """Every content of a kind without remarks."""
    return ((which, (), 0) for which in range(len(TALKS[kind])))


def topic(kind: str, content: tuple, language: int) -> str:
    """What the user says beside the remarks."""
    return TALKS[kind][content[0]][0][language]


def replies(kind: str, content: tuple, language: int) -> tuple[str, ...]:
    """Every good reply to the topic."""
    return tuple([pair[language] for pair in TALKS[kind][content[0]][1]])


def reply(kind: str, content: tuple, rng: Random, language: int) -> str:
    """A reply to what is said, then to each remark."""
    return together([pick(rng, replies(kind, content, language)), *take_ups(content, language)], language)


# --- remarks: the last two parts of a content, here and in the other families of general requests: which, and whose name


def draw_remarks(rng: Random, difficulty: int) -> tuple[int, ...]:
    return sample(rng, range(len(REMARKS)), difficulty - 1)


def with_remarks(topic: str, content: tuple, language: int) -> str:
    """The question: the remarks in their order, then the topic."""
    *_, remarks, name = content
    return together([*(remark_pair(remark, name, language)[0] for remark in remarks), topic], language)


def take_ups(content: tuple, language: int) -> list[str]:
    """What a good reply says to each remark."""
    *_, remarks, name = content
    return [remark_pair(remark, name, language)[1] for remark in remarks]


def remark_pair(remark: int, name: int, language: int) -> tuple[str, str]:
    """(a remark, what takes it up), in one language."""
    said, answered = [pair[language].replace('{name}', NAMES[name][language]) for pair in REMARKS[remark]]
    return said, answered


def together(sentences: list[str], language: int) -> str:
    return (' ' if language == EN else '').join(sentences)


def _kind(name: str) -> Kind:
    talk = TALKS[name]

    def draw(rng: Random, difficulty: int) -> tuple:
        remarks = draw_remarks(rng, difficulty)
        return between(rng, 0, len(talk) - 1), remarks, between(rng, 0, len(NAMES) - 1)

    def key(content: tuple) -> str:
        which, remarks, _ = content
        return ','.join([f'daily:{name}:{talk[which][0][EN]}', *map(str, sorted(remarks))])

    def ask(content: tuple, rng: Random, language: int) -> str:
        return with_remarks(topic(name, content, language), content, language)

    return Kind(1.0, draw, key, ask, no_answer, no_miss)


def no_answer(content: tuple, pen: Pen) -> Pair:
    return '', ''


def no_miss(content: tuple, rng: Random) -> Pair:
    return '', ''


KINDS = {name: _kind(name) for name in TALKS}
