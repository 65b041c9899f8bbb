r"""Language consistency: the share of the chain of thought that is written in the target language.

Source: DeepSeek-R1, arXiv 2501.12948 (2025 revision), the reward added in R1's first RL stage:
R_language = (words in the target language) / (words), over the chain of thought.

Scripts are told apart by their characters. Languages that share one (English and Spanish, Russian and Ukrainian, Chinese
and Japanese kanji) are told apart word by word in `identify`, which loads a model; no other text does.

One unit is a word in scripts that put spaces between words, and one character in scripts that do not (Han,
kana, Thai). A Chinese word is about two characters, so one English word in Chinese text costs about half a
word's share. Cutting Chinese into words would need a dictionary, and a policy could move the share by how it is cut.

Code, mathematics and numbers are of no language. So that they hide none either:

- six words in a row are prose, in a comment or a code fence too, and so are six words of \text{} in one formula;
- a thought whose only words stand in code or LaTeX earns 0: nothing in it shows its language;
- an empty thought earns what the rest of the response does (R1's general data has such responses), 0 if that has no words;
- no word counts more often than the text has different words (20 at least), or one could be repeated until it is all;
- a word of Latin letters with Cyrillic or Greek ones among them is of no language.

A thought of plain equations has the share 1: it reads the same in all languages, and nothing is hidden in it.
"""

import collections
import functools
import keyword
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards.answers import THINK_END, thoughts, without_tags
from r1jax.rewards.base import Completion, Example, ExampleError, RewardOutput, register
from r1jax.rewards.identify import identify, load_model

# Letters with their vowel signs, without digits and punctuation.
_UNSPACED = {
    'han': '\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f',
    'kana': '\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9d',
    'thai': '\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46',  # without the vowel signs above and below
}
_SPACED = {
    'hangul': '\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3',
    'cyrillic': '\u0400-\u0482\u048a-\u052f',
    'arabic': '\u0620-\u065f\u066e-\u06d3\u06d5\u06fa-\u06ff',
    'devanagari': '\u0900-\u0963\u0970-\u097f',
    'bengali': '\u0980-\u09e3\u09f0-\u09ff',
    'gurmukhi': '\u0a01-\u0a5e\u0a70-\u0a75',
    'gujarati': '\u0a81-\u0ae3\u0af9-\u0aff',
    'tamil': '\u0b82-\u0bd7',
    'telugu': '\u0c00-\u0c63',
    'kannada': '\u0c80-\u0ce3\u0cf1-\u0cf3',
    'malayalam': '\u0d00-\u0d63\u0d7a-\u0d7f',
    'hebrew': '\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u05d0-\u05f2',
    'armenian': '\u0531-\u0556\u0560-\u0588',
    'georgian': '\u10a0-\u10ff\u1c90-\u1cbf',
}
_LATIN = 'A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff'
_GREEK = '\u0370-\u03ff\u1f00-\u1fff'
_JOINED = "(?:['\u2019-][{0}]+)*"
_ALIKE = (_LATIN, _GREEK, _SPACED['cyrillic'])

# One match is one unit, and the name of its group the script. Single Latin and Greek letters are variables, and
# so is one of each together.
_UNIT = re.compile(
    rf'(?P<mixed>(?=[{"".join(_ALIKE)}]{{3}})(?:'
    + '|'.join(f'[{own}]++(?=[{"".join(other for other in _ALIKE if other != own)}])' for own in _ALIKE)
    + f')[{"".join(_ALIKE)}]+)'
    + f'|(?P<latin>[{_LATIN}]{{2,}}{_JOINED.format(_LATIN)})'
    + f'|(?P<greek>[{_GREEK}]{{2,}}{_JOINED.format(_GREEK)})'
    + ''.join(f'|(?P<{script}>[{letters}])' for script, letters in _UNSPACED.items())
    + ''.join(f'|(?P<{script}>[{letters}]+{_JOINED.format(letters)})' for script, letters in _SPACED.items())
    + rf'|(?P<other>[^\W\d_{_LATIN}{_GREEK}{"".join(_UNSPACED.values())}{"".join(_SPACED.values())}]{{2,}})'
)

_SCRIPTS = dict.fromkeys(
    'en de fr es it pt nl sv da no pl cs fi hu ro tr vi id sw'.split(), frozenset({'latin'})
) | dict.fromkeys(('ru', 'uk', 'bg'), frozenset({'cyrillic'})) | dict.fromkeys(
    ('ar', 'fa', 'ur'), frozenset({'arabic'})
) | dict.fromkeys(('hi', 'mr'), frozenset({'devanagari'})) | {
    'zh': frozenset({'han'}),
    'ja': frozenset({'han', 'kana'}),
    'ko': frozenset({'hangul'}),
    'th': frozenset({'thai'}),
    'bn': frozenset({'bengali'}),
    'pa': frozenset({'gurmukhi'}),
    'gu': frozenset({'gujarati'}),
    'ta': frozenset({'tamil'}),
    'te': frozenset({'telugu'}),
    'kn': frozenset({'kannada'}),
    'ml': frozenset({'malayalam'}),
    'he': frozenset({'hebrew'}),
    'hy': frozenset({'armenian'}),
    'ka': frozenset({'georgian'}),
    'el': frozenset({'greek'}),
}

# Not taken for each other unless asked: kana give Japanese away, and Chinese needs no model so.
_APART = {'zh': {'ja'}}

# What is not prose: code (fenced, inline, or the head of a function), mathematics between its delimiters. The
# bounds keep unclosed ones cheap.
_QUOTED = re.compile(
    r'```.{0,20000}?```|`[^`\n]{0,1000}`|\$\$.{0,2000}?\$\$|\\\(.{0,2000}?\\\)|\\\[.{0,2000}?\\\]'
    r'|\$(?=\S)[^$\n]{0,1000}(?<=\S)\$(?!\d)'
    r'|(?<![A-Za-z0-9_])def [A-Za-z_]\w{0,50}\([^()]{0,200}\)\s*:(?:\s*return)?',
    re.DOTALL,
)
# ... but for so many words in a row, or twice as many characters where a character is a unit.
_ROW = 6
_LETTERS = ''.join((_LATIN, _GREEK, *_SPACED.values()))
_CHARACTERS = ''.join(_UNSPACED.values())
_PROSE = re.compile(
    rf"(?<![{_LETTERS}\\'\u2019-])(?:[{_LETTERS}]+(?:['\u2019-][{_LETTERS}]+)*+[,.;:!?]?\s+"
    rf'(?:(?:#+|//|--|%)\s*)?){{{_ROW - 1},}}[{_LETTERS}]+'  # the next line of a comment, too
    rf'|(?:[{_CHARACTERS}][\u0e31\u0e34-\u0e3a\u0e47-\u0e4e，。、：；？！ ]*){{{2 * _ROW},}}')
_TEXT = re.compile(r'\\(?:text|textbf|textit|mbox|mathrm)\s*\{([^{}]{0,1000})\}')
_KEYWORDS = frozenset(keyword.kwlist)
_HIDDEN = re.compile(rf'(?<![\\{_LETTERS}])[{_LETTERS}]{{2}}|[{_CHARACTERS}]')
_ADDRESS = re.compile(r'(?:https?://|www\.)[!-~]+')
# A run of ASCII with one of these in it is an equation, a LaTeX command, a path, an address or a label, and no word.
_RUN = re.compile(r"""[^\s,;:!?"\x80-\U0010ffff]+""")
_NOT_PROSE = re.compile(r'[=+*/^_\\<>|@\d]')
_EMPHASIS = '*_'
# Marks without a width: joiners, directions, soft hyphens.
_INVISIBLE = re.compile('[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+')
_FULL_WIDTH = {code: code - 0xFEE0 for code in (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
# A word may count so often however few different words there are.
_OFTEN = 20


def language_consistency(text: str, language: str, languages: Sequence[str] = ()) -> float:
    """Returns the share, in [0, 1], of the units of a response's chain of thought that are in `language`.

    The chain of thought is what stands between the think tags, or the whole text where there are none.
    Numbers, equations, code, LaTeX, tags, punctuation and single-letter variables are left out; names are
    counted as written. See above for thoughts without a unit: they are worth 1 or 0.

    languages: those that it may be confused with, out of the known ones. () is all that share its script, but that Chinese
    is told from Japanese by its lack of kana. Where no other one shares its script that decides, and no model is loaded:
    ('en', 'zh') calls every word in Latin letters English.

    Raises UserError for an unknown language.
    """
    return _share(text, language, languages) or 0.0


def language_metric(text: str, language: str) -> float:
    """`language_consistency`, or NaN where it cannot be told: no known language is named, or no word shows one."""
    share = _share(text, language) if _code(language) in _SCRIPTS else None
    return float('nan') if share is None else share


def _prepare(examples: Sequence[Example]) -> None:
    if any(_code(example.language) in _SCRIPTS and _rivals(example.language, ())[1] for example in examples):
        load_model()


@register('language', _prepare)
def language_reward(
    completions: Sequence[Completion], examples: Sequence[Example], *, languages: str | Sequence[str] = ()
) -> RewardOutput:
    """`language_consistency` with each example's language; an example without one raises ExampleError.

    languages: see `language_consistency`; the example's own is always among them. 'en,zh' in experiment files, whose options
    are no lists.
    """
    if isinstance(languages, str):
        languages = [language.strip() for language in languages.split(',')] if languages else ()
    for language in languages:
        _known(language)
    shares = []
    for completion, example in zip(completions, examples, strict=True):
        if not example.language:
            raise ExampleError("has no language, which the reward 'language' needs", example)
        shares.append(language_consistency(completion.text, example.language, languages))
    return RewardOutput(np.array(shares, np.float32))


def _share(text: str, language: str, languages: Sequence[str] = ()) -> float | None:
    """Returns what `language_consistency` does, but None where no word shows a language: they are hidden, or missing."""
    language, rivals = _rivals(language, tuple(languages))
    thought = thoughts(text)
    empty = not any(map(str.isalnum, thought))
    prose, hides = _prose(text.partition(THINK_END)[2] if empty else thought)
    units = [(unit.lastgroup, unit[0]) for unit in _UNIT.finditer(prose)]
    if not units:
        return None if hides or empty else 1.0
    mine = _mine(units, language, rivals)
    counts = collections.Counter(unit for _, unit in units)
    often = max(_OFTEN, len(counts))
    if counts.most_common(1)[0][1] <= often:
        return int(mine.sum()) / len(units)
    weights = np.array([min(1.0, often / counts[unit]) for _, unit in units])
    return float(weights[mine].sum() / weights.sum())


def _code(language: str) -> str:
    return re.split('[-_]', language.lower())[0]


def _known(language: str) -> str:
    code = _code(language)
    if code not in _SCRIPTS:
        raise UserError(f"there is no language '{language}' for the language reward{nearest(code, _SCRIPTS)}")
    return code


@functools.lru_cache(maxsize=256)
def _rivals(language: str, languages: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Returns the code of the language, and those of all others that share a script with it."""
    code = _known(language)
    others = sorted(set(map(_known, languages)) if languages else _SCRIPTS.keys() - _APART.get(code, set()))
    return code, tuple(other for other in others if other != code and _SCRIPTS[other] & _SCRIPTS[code])


def _prose(text: str) -> tuple[str, bool]:
    """Returns a text without what is not prose, and whether that has words of its own."""
    text = without_tags(text)
    if not text.isascii():
        text = unicodedata.normalize('NFC', _INVISIBLE.sub('', text)).translate(_FULL_WIDTH)
    hides = False

    def unquote(quoted: re.Match) -> str:
        nonlocal hides
        hides = hides or not quoted[0].startswith('def') and _HIDDEN.search(quoted[0]) is not None
        # What stands in \text{} is put behind the formula, in a row.
        block = _TEXT.sub(' = ', quoted[0]) + ' = ' + ' '.join(_TEXT.findall(quoted[0]))
        rows = (row[0] for row in _PROSE.finditer(block))
        return f" {' '.join(row for row in rows if not _is_code(row))} "

    text = _QUOTED.sub(unquote, _ADDRESS.sub(' ', text))
    return _RUN.sub(lambda run: ' ' if _NOT_PROSE.search(run[0].strip(_EMPHASIS)) else run[0], text), hides


def _is_code(row: str) -> bool:
    words = row.split()
    keywords = sum(word in _KEYWORDS for word in words)
    return row.isascii() and (len(words) - keywords < _ROW or 3 * keywords > len(words))


def _mine(units: Sequence[tuple[str, str]], language: str, rivals: tuple[str, ...]) -> np.ndarray:
    """Returns which of the units are in `language`, bool [units]."""
    scripts = [script for script, _ in units]
    if 'kana' not in scripts:  # without a single kana it is no Japanese
        rivals = tuple(rival for rival in rivals if rival != 'ja')
    own = np.array([script in _SCRIPTS[language] for script in scripts])
    if not rivals or not own.any():
        return own
    shared = _SCRIPTS[language].union(*(_SCRIPTS[rival] for rival in rivals))
    at = np.array([script in shared for script in scripts]).nonzero()[0]
    found = identify([units[i][1] for i in at], (language, *rivals), spaced='han' not in shared)
    own[at] &= found == 0
    return own
