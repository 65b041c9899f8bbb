"""Multiple choice: which one option an answer names."""

import re

from r1jax.rewards.answers import MAX_ANSWER_CHARS, plain_characters, plain_text
from r1jax.rewards.math import parse_number

LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'

# '(B) 81', 'B. 81', 'B) 81', 'B 81', 'b': a letter that stands alone, then what follows it.
_LABELLED = re.compile(r'(?:\(([A-Za-z])\)|([A-Za-z])(?![A-Za-z\d])\)?)[.:,]?\s*(.*)', re.DOTALL)


def parse_choice(text: str, options: tuple[str, ...] = ()) -> str | None:
    """Returns the capital letter of the single option that `text` names, else None.

    A bare label ('B', '(b)', 'B.') names its option. A label with text counts only if the text is that
    option's ('(B) 81'), so a hedge ('A or B') or a list names nothing. The exact text of one option alone
    counts too. With `options` unknown only bare labels count.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    text = plain_characters(text).strip()
    texts = [_comparable(_unlabelled(option, LETTERS[i])) for i, option in enumerate(options[: len(LETTERS)])]
    match = _LABELLED.fullmatch(text)
    if match:
        letter, rest = (match[1] or match[2]).upper(), match[3].strip()
        position = LETTERS.index(letter)
        if not rest and (not options or position < len(texts)):
            return letter
        if rest and position < len(texts) and _comparable(rest) == texts[position]:
            return letter
    wanted = _comparable(text)
    if wanted and texts.count(wanted) == 1:
        return LETTERS[texts.index(wanted)]
    return None


def _unlabelled(option: str, letter: str) -> str:
    """Returns an option without the label some data sets write into it ('A)21', '(B) 3')."""
    return re.sub(rf'^\s*(?:\({letter}\)|{letter}[).:])\s*', '', plain_characters(option))


def _comparable(text: str) -> str:
    number = parse_number(text)
    return plain_text(text) if number is None else str(number)
