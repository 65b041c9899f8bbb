"""The answer inside a response: the tags of R1-Zero's template, and the plain form of words.

Template and tags: DeepSeek-R1, arXiv 2501.12948, table 1: `<think> ... </think> <answer> ... </answer>`.
Everything here is linear in the length of the text, whatever a policy under training writes.
"""

import re
import unicodedata
from typing import Literal, get_args

THINK, THINK_END = '<think>', '</think>'
ANSWER, ANSWER_END = '<answer>', '</answer>'
# What is read of a response.
Reads = Literal['summary', 'response']
READS = get_args(Reads)

# An answer longer than this is not the answer of any rule-graded task; it keeps the graders fast on spam.
MAX_ANSWER_CHARS = 4000

_TAG = re.compile(r'</?(?:think|answer)>')
_ANSWER_TAG = re.compile(r'</?answer>')
_DIGIT = re.compile(r'\d')
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_PLAIN = _FULL_WIDTH | {0x3000: ' ', 0x2212: '-', 0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}


def extract_answer(text: str, prefilled: bool = False) -> str | None:
    """Returns the final answer of a response, stripped of spaces, or None where there is none.

    That is the content of the last well-formed `<answer>...</answer>` after the last `</think>`. An answer
    tag inside an answer makes both malformed. A response whose thought stays open has no answer; one without
    any think tag may have one, unless the template wrote `<think>` already (`prefilled`).
    """
    _, closed, tail = text.rpartition(THINK_END)
    if THINK in tail or (prefilled and not closed):
        return None
    found, depth, nested, start = None, 0, False, 0
    for tag in _ANSWER_TAG.finditer(tail):
        if tag[0] == ANSWER:
            depth, nested, start = depth + 1, depth > 0, tag.end()
        elif depth:
            depth -= 1
            if depth == 0 and not nested:
                found = tail[start : tag.start()].strip()
    return found


def thoughts(text: str) -> str:
    """Returns the chain of thought: what stands between the think tags; the whole text where there are none.

    A missing opening tag (written by the template) begins at the start, a missing closing tag (truncated)
    ends at the end.
    """
    before, opened, after = text.partition(THINK)
    return (after if opened else before).partition(THINK_END)[0]


def text_read(response: str, reads: Reads) -> str:
    """What is read of a response: all of it, or the summary, which is what follows the last </think>.

    A response without the tag is all summary. That is what general data without thoughts need; a thought that was cut before
    its end is read as well, so keep such responses from being paid for by other means (their format, masking).
    """
    return response.rpartition(THINK_END)[2] if reads == 'summary' else response


def without_tags(text: str) -> str:
    """Returns the text with every think and answer tag replaced by a line break."""
    return _TAG.sub('\n', text)


def plain_characters(text: str) -> str:
    """Returns the text with full-width forms, digits of any script, minus signs and curly quotes as ASCII.

    Narrower than Unicode's NFKC on purpose: that one turns 3² into 32.
    """
    if text.isascii():
        return text
    return _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text.translate(_PLAIN))


def plain_text(text: str) -> str:
    """Returns the form in which words are compared: no case, outer quotes or final punctuation."""
    words = ' '.join(plain_characters(unicodedata.normalize('NFC', text)).casefold().split())
    return words.rstrip(' .!?,;:。、…"\'」』*`').lstrip(' "\'「『*`')
