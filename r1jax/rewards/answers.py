"""The answer inside a response: the tags of R1-Zero's template, and the plain form of words.

Template and tags: DeepSeek-R1, arXiv 2501.12948, table 1: `<think> ... </think> <answer> ... </answer>`.
Everything here is linear in the length of the text, whatever a policy under training writes.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
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

_BRACE = re.compile(r'\\[{}]|\\(?:boxed|fbox) ?\{|\\boxed +(?=[^\s{])|[{}]')
_BARE = re.compile(r'[^\s$]+')
# What may stand between two boxes of one answer: marks, a word that joins, the name of the next part.
_JOINT = re.compile(r'[\W_]*(?:(?:and|or|et|ou|y|o|和|或|与|quad)[\W_]*)*(?:[A-Za-z](?:_?\d)?\s*=[\W_]*)?')
_STATED = re.compile(
    r'(?:\b(?:final answer|answer|réponse(?: finale)?|respuesta(?: final)?)(?:\s+(?:is|est|es)\b\s*:?|\s*[:：])'
    r'|答案(?:是|为|[:：]))[\s*]*', re.IGNORECASE)
_LEAD = re.compile(
    r'\W*(?:(?:so|thus|hence|therefore|donc|por lo tanto|así que)\W+|(?:所以|因此)\W*)?(?:(?:the|my|our|la)\s+)?',
    re.IGNORECASE)
_SENTENCE = re.compile(r'[.!?](?=\s|$)|。|\n')
_HASHES = re.compile(r'^#### *(\S.*)$', re.MULTILINE)


def extract_answer(text: str, prefilled: bool = False, tagged: bool = False) -> str | None:
    r"""Returns the final answer of a response, stripped of spaces, or None where there is none.

    Only what follows the last `</think>` is read. A response whose thought stays open has no answer; one without any think
    tag may have one, unless the template wrote `<think>` already (`prefilled`).

    - `<answer>...</answer>`, see `tagged_answer`. Of the content the boxes count if it has any, else what follows 'the
      answer is' at its beginning, else all of it. Boxes around it that hold something else make it no answer.
    - With `tagged`, because the prompt asked for the tags, nothing else is read. Where it did not, and no answer tag stands
      there, the answer is, in this order: the boxes (\boxed{}, \fbox{}, '\boxed 5'); the rest of the sentence after the
      last 'the answer is', 'answer:', 'la réponse est', 'la respuesta es' or '答案是'; the last line that begins with
      '####'. After a thought there may not be two such sentences, or lines, that differ.

    Several boxes are the parts of one answer, 'a, b', however far they stand from each other; so listing all options is an
    answer of all of them. Without think tags the whole text is a thought, too, which may correct itself: of its boxes those
    count that stand side by side at its end.
    """
    tail = after_thought(text, prefilled)
    if tail is None:
        return None
    if tagged or _ANSWER_TAG.search(tail):
        block = tagged_answer(text, prefilled)
        answer = None if block is None else _content(block)
        around = tail.partition(ANSWER)[0] + ' ' + tail.rpartition(ANSWER_END)[2]
        outside = [] if tagged else boxes_of(around)
        return None if outside and _joined(_last_cluster(around, outside)) != answer else answer
    thought = THINK_END in text
    if boxes := boxes_of(tail):
        return _joined(boxes if thought else _last_cluster(tail, boxes))
    # Cut where no answer is that long, or many of them would take a long time.
    stated = [_sentence(tail[match.end():match.end() + MAX_ANSWER_CHARS + 1]) for match in _STATED.finditer(tail)]
    found = stated or [line.strip() for line in _HASHES.findall(tail)]
    return (found[-1] or None) if found and not (thought and len(set(found)) > 1) else None


def tagged_answer(text: str, prefilled: bool = False) -> str | None:
    """Returns what stands in the answer tags that follow the last thought, or None.

    There may be several of them with the same content, and not with others, after an earlier thought neither: a policy that
    names two answers has none. An answer tag inside an answer makes both malformed.
    """
    tail = after_thought(text, prefilled)
    if tail is None or not _answer_blocks(tail):
        return None
    blocks = _answer_blocks(text.partition(THINK_END)[2] if THINK_END in text else tail)
    return blocks.pop() if len(blocks) == 1 else None


def after_thought(text: str, prefilled: bool = False) -> str | None:
    """Returns what follows the last `</think>`, the whole text without think tags, or None if a thought stays open."""
    _, closed, tail = text.rpartition(THINK_END)
    return None if THINK in tail or (prefilled and not closed) else tail


def asks_for_tags(prompt: str) -> bool:
    """Whether a prompt asks for an answer in answer tags, because it shows one; `extract_answer` is told (`tagged`)."""
    return ANSWER in prompt


@dataclasses.dataclass(frozen=True)
class Box:
    """One box of a text: where it starts and ends, and what stands in it, without boxes around that."""

    start: int
    end: int
    content: str


def boxes_of(text: str) -> list[Box]:
    r"""Returns the \boxed{...} and \fbox{...} of a text that close, but those within another one, and each '\boxed 5'."""
    if 'box' not in text:
        return []
    unclosed: list[re.Match] = []
    found: list[tuple[int, int, slice]] = []
    for brace in _BRACE.finditer(text):
        if brace[0] in ('\\{', '\\}'):
            continue
        if brace[0].endswith(' '):
            bare = _BARE.match(text, brace.end())
            shown = len(bare[0].rstrip('.,;。，'))
            found.append((brace.start(), bare.end(), slice(bare.start(), bare.start() + shown)))
        elif brace[0] != '}':
            unclosed.append(brace)
        elif unclosed and (opening := unclosed.pop())[0] != '{':
            inside = slice(opening.end(), brace.start())
            n_before = len(found)
            while found and found[-1][0] > opening.start():
                start, end, within = found.pop()
            if len(found) == n_before - 1 and not (text[inside.start:start] + text[end:inside.stop]).strip():
                inside = within  # a box of nothing but a box
            found.append((opening.start(), brace.end(), inside))
    return [Box(start, end, text[inside].strip()) for start, end, inside in found]


def unbox(text: str) -> str:
    r"""Returns what stands in \boxed{...} if that is the whole text, else the text."""
    while text.startswith('\\boxed{') and text.endswith('}') and balanced(text[7:-1]):
        text = text[7:-1].strip()
    return text


def balanced(text: str) -> bool:
    """Whether each brace of a text has its other one."""
    depth = 0
    for character in text:
        depth += {'{': 1, '}': -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def _answer_blocks(text: str) -> set[str]:
    """The different contents of well-formed answer tags."""
    blocks, depth, nested, start = set(), 0, False, 0
    for tag in _ANSWER_TAG.finditer(text):
        if tag[0] == ANSWER:
            depth, nested, start = depth + 1, depth > 0, tag.end()
        elif depth:
            depth -= 1
            if depth == 0 and not nested:
                blocks.add(text[start:tag.start()].strip())
    return blocks


def _content(text: str) -> str:
    """The answer in the content of answer tags."""
    if boxes := boxes_of(text):
        return _joined(boxes)
    stated = _STATED.match(text, _LEAD.match(text).end())
    return _sentence(text[stated.end():]) if stated else text


def _joined(boxes: Sequence[Box]) -> str:
    return ', '.join(dict.fromkeys(box.content for box in boxes))


def _last_cluster(text: str, boxes: Sequence[Box]) -> Sequence[Box]:
    first = len(boxes) - 1
    while first and _JOINT.fullmatch(text, boxes[first - 1].end, boxes[first].start):
        first -= 1
    return boxes[first:]


def _sentence(text: str) -> str:
    """The beginning of a text up to the end of its sentence, without the marks of emphasis around it."""
    end = _SENTENCE.search(text)
    return (text[:end.start()] if end else text).strip().strip('*').strip()


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
