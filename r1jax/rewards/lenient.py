"""The last answer of a response, tags or not: what a model knows before it has learnt where to put it.

Not a reward. It is reported beside the strict accuracy, to tell a gain in knowledge from a gain in format.
"""

import re

from r1jax.rewards.answers import boxes_of, plain_characters, plain_text, without_tags
from r1jax.rewards.base import Example
from r1jax.rewards.choice import LETTERS, parse_choice
from r1jax.rewards.code import last_block
from r1jax.rewards.math import parse_math, parse_number

_NUMBER = re.compile(r'(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?')
_VALUE = re.compile(r'\d|pi|π')  # without one of these a piece is no value
_OPERAND = re.compile(r'(?:[\d)\]]|(?<![A-Za-z])[A-Za-z])\s*-$')
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+(?:['-][^\W_]+)*")
_LETTER = re.compile(r'\(([A-Za-z])\)|(?<![A-Za-z])([A-Z])(?![A-Za-z\d\'])')
_ARTICLE = re.compile(r'[AI] +[a-z]')
_FUNCTION = re.compile(r'(?<![A-Za-z0-9_])def [ -~]{1,200}?:\s*return [ -~]{1,2000}')
_SENTENCES = re.compile(r'(?<=[.!?])\s+|(?<=[。！？])')


def last_answer(text: str, example: Example) -> str | None:
    r"""Returns the last thing in `text` that could answer the example, or None.

    By task: the last number (for math also the last \boxed{} or LaTeX value), the last option letter, the
    last function or (for code) fenced block, the last sentence of a translation; elsewhere the last number,
    or as many last words as the gold answer has. For a gold answer that is a capitalised name, the last name
    of those the prompt gives.
    """
    text = without_tags(text)
    if example.task == 'arithmetic':
        return _last_number(text)
    if example.task == 'math':
        return _last_value(text)
    if example.task == 'choice':
        return _last_letter(text, example)
    if example.task == 'code':
        return last_block(text)
    if example.task == 'function':
        functions = _FUNCTION.findall(text)
        return functions[-1].rstrip(' .`') if functions else None
    if example.task == 'translation':
        return _last_line(text)
    if parse_number(example.answer) is not None:
        return _last_number(text)
    return _last_words(text, example)


def _last_number(text: str) -> str | None:
    text = plain_characters(text)
    matches = list(_NUMBER.finditer(text))
    if not matches:
        return None
    match = matches[-1]
    number, before = match[0], text[: match.start()]
    if '/' in number and parse_number(number) is None:
        number = number.rpartition('/')[2]
    # A minus is a sign only where no operand stands before it: -14 in 'is -14', but 14 in '58-14' and 'x-14'.
    if before.endswith('-') and not _OPERAND.search(before[-20:]):
        number = '-' + number
    return number


def _last_value(text: str) -> str | None:
    if boxes := boxes_of(text):
        return boxes[-1].content
    for piece in reversed(text.replace('=', ' ').split()):
        if _VALUE.search(piece) and parse_math(piece) is not None:
            return piece
        if _NUMBER.search(plain_characters(piece)):
            break
    return _last_number(text)


def _last_letter(text: str, example: Example) -> str | None:
    text = plain_characters(text)
    known = LETTERS[: len(example.options) or len(LETTERS)]
    found = None
    for match in _LETTER.finditer(text):
        letter = (match[1] or match[2]).upper()
        if letter in known and not _ARTICLE.match(text, match.start()):
            found = letter
    return found or parse_choice(_last_line(text) or '', example.options)


def _last_line(text: str) -> str | None:
    """Returns the last sentence of the last line that says anything."""
    for line in reversed(text.splitlines()):
        sentences = [sentence for sentence in _SENTENCES.split(line) if plain_text(sentence)]
        if sentences:
            return sentences[-1]
    return None


def _last_words(text: str, example: Example) -> str | None:
    gold = _WORD.findall(plain_characters(example.answer))
    if len(gold) == 1 and gold[0].istitle() and not gold[0].isupper():
        names = {word for word in _WORD.findall(example.prompt) if word.istitle()} | {gold[0]}
        said = [word for word in _WORD.findall(text) if word in names]
        return said[-1] if said else None
    text = plain_characters(text)
    words = list(_WORD.finditer(text))
    if not gold or len(words) < len(gold):
        return None
    return text[words[-len(gold)].start() : words[-1].end()]
