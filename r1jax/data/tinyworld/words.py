"""What the tiny world says in both languages: names, fixed phrases, the prompt, and words of reflection.

Every bilingual text is a pair (English, Chinese), indexed by `EN` or `ZH`. Chinese texts end in full-width
marks and are joined without spaces. People are the numbers 0..7, so that a puzzle is the same puzzle in both
languages.
"""

import re

LANGUAGES = ('en', 'zh')
EN, ZH = 0, 1
Pair = tuple[str, str]

HEADER = 'The assistant thinks in <think> </think> and answers in <answer> </answer>.'

NAMES: tuple[Pair, ...] = (
    ('ann', '阿红'), ('bob', '阿刚'), ('dan', '阿明'), ('eve', '阿丽'),
    ('jim', '阿军'), ('kim', '阿美'), ('sam', '阿华'), ('tom', '阿云'),
)

LETTERS = 'ABCDEFGHIJKL'  # of the options of a choice question

# What a tokenizer trained on this world should keep in one token: looking something up is learned several times faster
# where the thing looked for is a single token that is the same everywhere. (BPE would cut Chinese names anew with every
# neighbour, as in 阿刚说阿|华说真话; English names are words and need no help.)
SYMBOLS = (
    *(space + tag for space in (' ', '') for tag in ('<think>', '</think>', '<answer>', '</answer>')),
    *(f' ({letter})' for letter in LETTERS), ' <', ' >',
    *(zh for _, zh in NAMES),
)

GUESSES: tuple[tuple[Pair, float], ...] = (
    (('i guess {}.', '我猜{}。'), 0.7),
    (('maybe {}.', '可能是{}。'), 0.3),
)
WAITS: tuple[tuple[Pair, float], ...] = (
    (('wait, let me work it out.', '等等，我来算一下。'), 0.5),
    (('but let me check that.', '但是我来检查一下。'), 0.25),
    (('let me verify that.', '我来验证一下。'), 0.15),
    (('wait, let me retry.', '等等，重新算一下。'), 0.1),
)
NOTICES: tuple[tuple[Pair, float], ...] = (
    (('wait, that is wrong.', '等等，不对。'), 0.8),
    (('wait, that is a mistake.', '等等，有错误。'), 0.2),
)
CLOSING: Pair = ('so the answer is {}.', '所以答案是{}。')
BARE: Pair = ('the answer is {}.', '答案是{}。')
NOBODY: Pair = ('none', '无')

# The English ten are those that the R1 paper counts over training (arXiv 2501.12948, 2025 revision).
REFLECTION_WORDS: dict[str, tuple[str, ...]] = {
    'en': ('wait', 'mistake', 'however', 'but', 'retry', 'error', 'verify', 'wrong', 'evaluate', 'check'),
    'zh': ('等等', '等一下', '不对', '错误', '错了', '检查', '验证', '核对', '重新', '再算', '但是', '不过', '然而'),
}
_REFLECTION = re.compile(
    '(?<![a-z])(?:' + '|'.join(REFLECTION_WORDS['en']) + ')(?![a-z])|' + '|'.join(REFLECTION_WORDS['zh']),
    re.IGNORECASE,
)


def prompt(question: str) -> str:
    """What the model is given; a response follows it directly and begins with a space."""
    return f'{HEADER}\nUser: {question}\nAssistant:'


def count_reflection_words(text: str) -> int:
    """Counts `REFLECTION_WORDS`: English as whole words in any case, Chinese anywhere, none twice."""
    return len(_REFLECTION.findall(text))


def ended(text: str, language: int) -> str:
    """`text` with a full stop, where it does not end in a mark already."""
    return text if text[-1] in '.?!。？！' else text + '.。'[language]


def join(parts: list[tuple[str, int]]) -> str:
    """Joins (sentence, language) parts: no space between two Chinese sentences, one space elsewhere."""
    text, previous = '', EN
    for part, language in parts:
        if text and not (previous == language == ZH):
            text += ' '
        text += part
        previous = language
    return text
