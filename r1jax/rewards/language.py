"""Language consistency: the share of the chain of thought that is written in the target language.

Source: DeepSeek-R1, arXiv 2501.12948 (2025 revision), the reward added in R1's first RL stage:
R_language = (words in the target language) / (words), over the chain of thought.

Languages are told apart by script. A language in Latin letters other than English would be confused with
English, the language models most often slip into, so asking for one raises UserError instead of paying for
the confusion; languages that share another script (Chinese and Japanese kanji, Russian and Ukrainian) are not
told apart either.

One unit is a word in scripts that put spaces between words, and one character in scripts that do not (Han,
kana, Thai). A Chinese word is about two characters, so one English word in Chinese text costs about half a
word's share.
"""

import re
from collections.abc import Sequence

import numpy as np

from r1jax.errors import UserError, nearest
from r1jax.rewards.answers import thoughts, without_tags
from r1jax.rewards.base import Completion, Example, ExampleError, RewardOutput, register

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
    'telugu': '\u0c00-\u0c63',
}
_LATIN = 'A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff'
_JOINED = "(?:['\u2019-][{0}]+)*"

# One match is one unit, and the name of its group the script. Single Latin and Greek letters are variables.
_UNIT = re.compile(
    f'(?P<latin>[{_LATIN}]{{2,}}{_JOINED.format(_LATIN)})'
    + ''.join(f'|(?P<{script}>[{letters}])' for script, letters in _UNSPACED.items())
    + ''.join(f'|(?P<{script}>[{letters}]+{_JOINED.format(letters)})' for script, letters in _SPACED.items())
    + rf'|(?P<other>[^\W\d_{_LATIN}{"".join(_UNSPACED.values())}{"".join(_SPACED.values())}]{{2,}})'
)

_SCRIPTS = {
    'en': {'latin'},
    'zh': {'han'},
    'ja': {'han', 'kana'},
    'ko': {'hangul'},
    'ru': {'cyrillic'},
    'ar': {'arabic'},
    'th': {'thai'},
    'hi': {'devanagari'},
    'bn': {'bengali'},
    'te': {'telugu'},
}
_LIKE_ENGLISH = frozenset('cs da de es fi fr hu id it nl no pl pt ro sv sw tr vi'.split())

# What is not prose: code (fenced, inline, or the head of a function), mathematics between its delimiters. The
# bounds keep unclosed ones cheap.
_QUOTED = re.compile(
    r'```.{0,20000}?```|`[^`\n]{0,1000}`|\$\$.{0,2000}?\$\$|\\\(.{0,2000}?\\\)|\\\[.{0,2000}?\\\]'
    r'|\$(?=\S)[^$\n]{0,1000}(?<=\S)\$(?!\d)'
    r'|(?<![A-Za-z0-9_])def [A-Za-z_]\w{0,50}\([^()]{0,200}\)\s*:(?:\s*return)?',
    re.DOTALL,
)
# A run of ASCII with one of these in it is an equation, a LaTeX command, a path or a label, and no word.
_RUN = re.compile(r"""[^\s,;:!?"\x80-\U0010ffff]+""")
_NOT_PROSE = re.compile(r'[=+*/^_\\<>|\d]')


def language_consistency(text: str, language: str) -> float:
    """Returns the share, in [0, 1], of the units of a response's chain of thought that are in `language`.

    The chain of thought is what stands between the think tags, or the whole text where there are none.
    Numbers, equations, code, LaTeX, tags, punctuation and single-letter variables are left out; names are
    counted as written. Without a single unit the share is 1: nothing is in the wrong language.

    Raises UserError for a language that is unknown, or that script does not tell from English.
    """
    scripts = _scripts(language)
    text = _QUOTED.sub(' ', without_tags(thoughts(text)))
    text = _RUN.sub(lambda run: ' ' if _NOT_PROSE.search(run[0]) else run[0], text)
    found = [unit.lastgroup for unit in _UNIT.finditer(text)]
    return sum(script in scripts for script in found) / len(found) if found else 1.0


def language_metric(text: str, language: str) -> float:
    """`language_consistency`, or NaN where it cannot be told: no language is known, or script does not show it."""
    return language_consistency(text, language) if _code(language) in _SCRIPTS else float('nan')


@register('language')
def language_reward(completions: Sequence[Completion], examples: Sequence[Example]) -> RewardOutput:
    """`language_consistency` with each example's language; an example without one raises ExampleError."""
    shares = []
    for completion, example in zip(completions, examples, strict=True):
        if not example.language:
            raise ExampleError("has no language, which the reward 'language' needs", example)
        shares.append(language_consistency(completion.text, example.language))
    return RewardOutput(np.array(shares, np.float32))


def _code(language: str) -> str:
    return re.split('[-_]', language.lower())[0]


def _scripts(language: str) -> set[str]:
    code = _code(language)
    if code in _LIKE_ENGLISH:
        raise UserError(f"the language '{language}' cannot be told from English yet{nearest('', _SCRIPTS)}")
    if code not in _SCRIPTS:
        raise UserError(f"there is no language '{language}'{nearest(code, _SCRIPTS)}")
    return _SCRIPTS[code]
