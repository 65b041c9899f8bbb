r"""When two mathematical answers are the same: quantities, lists, sets, tuples, intervals, matrices, relations, words.

`equal(gold, answer)` reads both into forms and compares them; `form_text` is the form's spelling, under which votes pool.

Nothing is calculated that a policy should calculate. An answer whose value is a rational number has to write it out: '6*7',
'84/2', '2^{10}', '\sqrt{16}' and '\sin^2x+\cos^2x' are questions, equal to nothing but themselves, so copying the question
does not pay; scientific notation and powers of ten are numbers. Of expressions that no number writes out ('\sqrt{2}/2',
'(x+1)^2', '2^{100}') any spelling will do.

    (1,2)  a pair, or an open interval where the other answer is one      [1,2)  an interval
    1, 2   in any order, as {1,2}; in this order beside (1,2) or [1,2]     2:30   a time; 3:4 a ratio, not worked out
    x = 5  is 5, and not y = 5                                             5 cm   is 5, and neither 5 m nor 50 mm
    1/2x   reads two ways, and so equals itself alone                      1,234  a number, but two in (1,234)

Equations and inequalities are the same where one is a constant times the other. Expressions are read by `expressions`,
units by `units`; sums, products, integrals and limits by math-verify's parser, and never worked out. That library's own
verdicts are no base for a reward: they work out what is asked, round at six digits, and depend on which answer is the gold
one (`python experiments/bench/math_reward.py --math-verify` counts them).
"""

import dataclasses
import functools
import re
from collections.abc import Sequence
from fractions import Fraction

from r1jax.rewards import expressions
from r1jax.rewards.answers import balanced, plain_characters, plain_text, unbox
from r1jax.rewards.expressions import NoValue, Refused, Tree, Values
from r1jax.rewards.math import parse_math
from r1jax.rewards.units import unit_after, unit_before

MAX_CHARS = 500
MAX_NESTING = 20
MAX_PARTS = 60
# Words are an answer, an essay is none.
MAX_WORDS, MAX_WORD_CHARS = 12, 100


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A number or an expression, with its values (`expressions.values_of`).

    unit: in one spelling, '' without one. decimals: how many digits a decimal shows behind its point, 0 for all else.
    percent: it was written as one. product: another reading, of '5 m' as 5 times m.
    """

    values: Values
    tree: Tree
    unit: str = ''
    decimals: int = 0
    percent: bool = False
    product: 'Leaf | None' = None


@dataclasses.dataclass(frozen=True)
class Written:
    """What is compared as it is written: words, times, dates, unfinished calculations, LaTeX beyond the grammar."""

    text: str


@dataclasses.dataclass(frozen=True)
class Items:
    """kind: 'list' (parts side by side), 'set', 'tuple', 'ratio', 'row' of a matrix, 'matrix', 'cases'."""

    kind: str
    parts: tuple


@dataclasses.dataclass(frozen=True)
class Span:
    """One interval. low, high: a Leaf, or None for infinity."""

    low: Leaf | None
    high: Leaf | None
    closed_low: bool
    closed_high: bool


@dataclasses.dataclass(frozen=True)
class Intervals:
    """A union of intervals in rising order; of a name where it was written as inequalities."""

    spans: tuple[Span, ...]
    name: str = ''


@dataclasses.dataclass(frozen=True)
class Named:
    """name = value."""

    name: str
    value: object


@dataclasses.dataclass(frozen=True)
class Relation:
    """A relation that names nothing: left - right, compared with 0. sign: '=', '<', '<=' or '!='."""

    sign: str
    difference: Tree
    values: Values


Form = Leaf | Written | Items | Intervals | Named | Relation

EMPTY, NOWHERE, INFINITY, BELOW = map(Written, ('the empty set', 'does not exist', 'infinity', 'minus infinity'))
_ALL = Intervals((Span(None, None, False, False),))
_SPOKEN = {
    **dict.fromkeys((
        'no solution', 'no solutions', 'no real solution', 'no real solutions', 'there is no solution', 'empty set',
        'the empty set', r'\emptyset', r'\varnothing', '{}', r'\{\}', r'\{ \}', '无解', '空集', 'sin solución',
        'aucune solution'), EMPTY),
    **dict.fromkeys(('dne', 'does not exist', 'undefined', 'not defined', '不存在', "n'existe pas", 'no existe'), NOWHERE),
    **dict.fromkeys((r'\infty', r'+\infty', 'infinity', '+infinity', '无穷大'), INFINITY),
    **dict.fromkeys((r'-\infty', '-infinity', 'negative infinity'), BELOW),
    **dict.fromkeys((r'\mathbb{r}', 'all real numbers', 'all reals', '全体实数'), _ALL),
}
_SAID = re.compile(r'[^\W_]|\\[a-z]|\{\}|❴ ?❵')
# What a program prints for no number at all is no answer.
_NOTHING = frozenset({'nan', 'inf', '-inf', '+inf', 'null', 'n/a'})


def equal(gold: str, answer: str) -> bool:
    r"""Whether an answer is the gold answer. False where either cannot be read.

    Symmetric but for one rule: where the gold answer is a decimal with at least two digits behind its point and three that
    count, an answer that rounds to it is right: \pi and 3.14159 are 3.14, and 0.333 is not 1/3, nor 0.254 what 0.25 is.

    What is not written (a unit, a name before '=') differs from nothing, so equality is no equivalence: 5 is 5 cm and 5 m,
    which differ. A percentage is its value or its number: 50% is 1/2 and 50, which differ.
    """
    first, second = parse_math(gold), parse_math(answer)
    if first is not None and first == second:
        return True
    gold_form, answer_form = read(gold), read(answer)
    return gold_form is not None and answer_form is not None and _equal(gold_form, answer_form)


@functools.lru_cache(maxsize=8192)
def form_text(answer: str) -> str | None:
    """Returns one spelling of an answer, which answers written in other ways share, or None if it cannot be read."""
    form = read(answer)
    return None if form is None else _text(form)


@functools.lru_cache(maxsize=8192)
def read(text: str) -> Form | None:
    """Returns the form of an answer; None for what is no answer of mathematics: blank, unbalanced, 1/0, an essay."""
    if len(text) > MAX_CHARS:
        return None
    plain = _plain(text)
    if plain.casefold() in _NOTHING or not _SAID.search(plain) or len(_LONG_WORD.findall(plain)) > MAX_WORDS:
        return None
    if _nesting(plain) is None:
        return None
    try:
        return _read(plain)
    except Refused:
        return None


# Notation

_UNICODE = {
    'π': r'\pi ', '√': r'\sqrt ', '∞': r'\infty ', '∪': r'\cup ', '∩': r'\cap ', '∅': r'\emptyset ', '×': r'\times ',
    '·': r'\cdot ', '⋅': r'\cdot ', '∙': r'\cdot ', '÷': r'\div ', '≤': r'\le ', '≥': r'\ge ', '≠': r'\ne ',
    '≈': r'\approx ',
    '∈': r'\in ', '±': r'\pm ', '∓': r'\mp ', '½': r'\frac{1}{2}', '⅓': r'\frac{1}{3}', '⅔': r'\frac{2}{3}',
    '¼': r'\frac{1}{4}', '¾': r'\frac{3}{4}', 'ℝ': r'\mathbb{R}', '–': '-', '—': '-', '′': "'", '、': ',', '\u00a0': ' ',
    '\u2009': ' ', '\u202f': ' ', '\u200b': '', '∠': r'\angle ', '△': r'\triangle ', 'º': '°', '∣': '|',
    **{chr(code): f'\\{name} ' for code, name in zip(
        range(0x3B1, 0x3CA), (
            'alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi o pi rho varsigma sigma tau upsilon '
            'phi chi psi omega').split(), strict=True)}}
_TRANSLATED = str.maketrans(_UNICODE)
_RAISED = re.compile('([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]+)')
_LOWERED = re.compile('([₀₁₂₃₄₅₆₇₈₉]+)')
_LEVEL = str.maketrans('⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ⁻⁺₀₁₂₃₄₅₆₇₈₉', '0123456789n-+0123456789')
# Thin spaces group the digits of one number.
_THIN = re.compile(r'\\!|(?<=\d)\\,(?=\d{3})|(?<=\d)\{,\}(?=\d{3})')
_SPACES = re.compile(
    r'\\(?:displaystyle|textstyle|limits|quad|qquad|rm|bf|it|left|right|[bB]ig{1,2}[lrm]?)(?![A-Za-z])\.?|\\[;:, ()]|'
    r'\\\[|\\\]|~|\s+')
_WRITTEN = re.compile(
    r'\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf|tt|cal)|mbox|hbox|operatorname\*?|boldsymbol|bm) ?\{([^{}]*)\}')
_SETS = {r'\{': '❴', r'\}': '❵', r'\lbrace': '❴', r'\rbrace': '❵', r'\langle': '(', r'\rangle': ')', r'\lbrack': '[',
r'\rbrack': ']'}
_SET = re.compile(r'\\[{}]|\\[lr](?:brace|brack|angle)(?![A-Za-z])')
_DOLLAR, _ROW = '¤', '⏎'
_OPENING, _CLOSING = '([{❴', ')]}❵'
_COMMAS = re.compile(r'(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])')
_BLANKS = re.compile(r'(?<![\d.,/] )(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d/]| [\d/])')
_POINTS = re.compile(r'(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d+(?![\d,.])|(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d,.])')


def _plain(text: str) -> str:
    """LaTeX of few commands: no layout, one spelling of each sign, numbers without separators of thousands."""
    text = plain_characters(text)
    # A line break of a matrix is no '\\ ' of spacing; elsewhere it is a backslash that was escaped twice.
    text = text.replace('\\\\', _ROW) if r'\begin' in text else re.sub(r'\\\\(?=[A-Za-z])', r'\\', text)
    text = _RAISED.sub(lambda run: f'^{{{run[1].translate(_LEVEL)}}}', text)
    text = _LOWERED.sub(lambda run: f'_{{{run[1].translate(_LEVEL)}}}', text).translate(_TRANSLATED)
    text = unbox(text.strip().strip('`*').strip().removesuffix('.').removesuffix('。').strip())
    text = text.replace('\\$', _DOLLAR).replace('\\%', '%').replace('\\degree', '°').replace('{:}', ':')
    if text.count('$') == 1:
        text = text.replace('$', _DOLLAR)
    text = _SPACES.sub(' ', _THIN.sub('', text.replace('$', ' ')))
    for _ in range(3):
        text = _WRITTEN.sub(r' \1 ', text)
    text = _SET.sub(lambda mark: _SETS[mark[0]], text)
    text = ' '.join(text.split()).strip().removesuffix('.').removesuffix('。').rstrip(' ,;')
    if not any(mark in text for mark in '([❴') and not text.startswith('{'):
        text = _POINTS.sub(lambda number: number[0].replace('.', '').replace(',', '.'), text)
        text = _COMMAS.sub(lambda number: number[0].replace(',', ''), text)
    return _BLANKS.sub(lambda number: number[0].replace(' ', ''), text)


def _nesting(text: str) -> int | None:
    """How deep brackets of any kind lie in each other; None where braces are not balanced, or too deep."""
    depth = deepest = 0
    for character in text:
        if character in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif character in _CLOSING:
            depth -= 1
            if depth < 0:
                return None
    return None if depth or deepest > MAX_NESTING or not balanced(text) else deepest


def _outside(text: str) -> str:
    """The text with all that stands in brackets, and the brackets, as NUL, for searches outside of them."""
    depth, shown = 0, []
    for character in text:
        depth += character in _OPENING
        shown.append('\0' if depth else character)
        depth -= character in _CLOSING
    return ''.join(shown)


def _split(text: str, pattern: re.Pattern) -> tuple[list[str], list[str]]:
    """Splits where the pattern matches outside of brackets; returns the parts and what was between them."""
    parts, between, start = [], [], 0
    for match in pattern.finditer(_outside(text)):
        parts.append(text[start:match.start()].strip())
        between.append(match[0].strip())
        start = match.end()
    return [*parts, text[start:].strip()], between


# Reading

_ENVIRONMENT = re.compile(
    r'(?:(?P<name>[^=]{1,60}?) ?= ?)?\\begin ?\{(?P<kind>[A-Za-z]*matrix|array|cases|dcases)\}(?: ?\{[lcr| ]*\})?'
    r'(?P<inside>.*)\\end ?\{(?P=kind)\}')
_BREAK, _CELL = re.compile(_ROW), re.compile('&')
_SEPARATOR = re.compile(r'[,;，；]|(?<![A-Za-z\\])(?:and|or|et|ou)(?![A-Za-z])|或者?|和')
_UNION = re.compile(r'\\cup(?![A-Za-z])')
_RELATION = re.compile(
    r'<=|>=|!=|=|<|>|\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt|neq|ne|approx|in)(?![A-Za-z])')
_SIGNS = {
    '>=': '>=', '<=': '<=', '!=': '!=', '=': '=', '<': '<', '>': '>', 'leqslant': '<=', 'geqslant': '>=', 'leq': '<=',
    'geq': '>=',
    'le': '<=', 'ge': '>=', 'lt': '<', 'gt': '>', 'neq': '!=', 'ne': '!=', 'approx': '=', 'in': 'in'}
_ABOUT = re.compile(r'^(?:\\approx|approximately|about|约为?|大约|environ|aproximadamente)(?![A-Za-z]) *|^= *')
_COLON = re.compile(r'\d+(?:\.\d+)?(?: ?: ?\d+(?:\.\d+)?)+')
_TO = re.compile(r'(\d+) to (\d+)')
_TIME = re.compile(r'(\d{1,2})(?: ?: ?([0-5]\d))?(?: ?: ?([0-5]\d))? ?(a\.? ?m\.?|p\.? ?m\.?)?', re.IGNORECASE)
_MONTHS = {
    name[:length]: number for number, name in enumerate((
        'january', 'february', 'march', 'april', 'may', 'june', 'july', 'august', 'september', 'october', 'november',
        'december'), 1) for length in (3, len(name))}
_DATES = (
    re.compile(r'(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})'),
    re.compile(r'(?:(?P<y>\d{4}) ?年 ?)?(?P<m>\d{1,2}) ?月 ?(?P<d>\d{1,2}) ?[日号]'),
    re.compile(r'(?P<name>[a-z]{3,9})\.? (?P<d>\d{1,2})(?:st|nd|rd|th)?(?:,? (?P<y>\d{4}))?', re.IGNORECASE),
    re.compile(r'(?:the )?(?P<d>\d{1,2})(?:st|nd|rd|th)?(?: of)? (?P<name>[a-z]{3,9})\.?(?:,? (?P<y>\d{4}))?',
    re.IGNORECASE))


def _read(text: str, listed: bool = True) -> Form:
    """The form of a text in plain notation; raises Refused. listed: commas outside of brackets part it."""
    text = _ABOUT.sub('', text)
    spoken = text.replace('❴', r'\{').replace('❵', r'\}').casefold()
    if spoken in _SPOKEN:
        return _SPOKEN[spoken]
    if not text:
        raise Refused('nothing is there')
    if (form := _calendar(text)) is not None:
        return form
    if environment := _ENVIRONMENT.fullmatch(text):
        form = _environment(environment['kind'], environment['inside'])
        return form if environment['name'] is None else Named(re.sub(r'\s', '', environment['name']), form)
    if listed:
        parts, between = _split(text, _SEPARATOR)
        if between:
            # '3, 4, and 5' has a comma before its word.
            return _listed([part for part in parts if part], between)
    parts, signs = _split(text, _RELATION)
    if signs:
        return _related(text, parts, [_SIGNS[sign.lstrip('\\')] for sign in signs])
    parts, _ = _split(text, _UNION)
    if len(parts) > 1:
        spans = [span for part in parts for span in _spans(_read(part, listed=False))]
        return _union(spans)
    if (form := _bracketed(text)) is not None:
        return form
    if r'\pm' in text or r'\mp' in text:
        signed = [
            text.replace(r'\pm', sign).replace(r'\mp', other) for sign, other in (('+', '-'), ('-', '+'))]
        return Items('list', tuple(_read(part, listed=False) for part in signed))
    return _single(text)


def _listed(parts: Sequence[str], between: Sequence[str]) -> Form:
    if not 1 <= len(parts) <= MAX_PARTS:
        raise Refused('too many parts')
    forms = []
    for part in parts:
        form = _read(part, listed=False)
        forms += form.parts if isinstance(form, Items) and form.kind == 'list' else [form]
    if len(forms) == 1:
        return forms[0]
    if all(isinstance(form, Intervals) and form.name for form in forms) and len({form.name for form in forms}) == 1:
        if {'or', '或', '或者', 'ou'} & set(between):
            return dataclasses.replace(_union([span for form in forms for span in form.spans]), name=forms[0].name)
        if {'and', '和', 'et'} & set(between) and all(len(form.spans) == 1 for form in forms):
            return _both(forms)
    return Items('list', tuple(forms))


def _calendar(text: str) -> Form | None:
    """Times of day and dates; a time without minutes needs am or pm."""
    if (time := _TIME.fullmatch(text)) and (time[2] or time[4]):
        hour, minute, second, half = int(time[1]), time[2] or '00', time[3] or '00', (time[4] or '')[:1].lower()
        if hour < 24 and (not half or 1 <= hour <= 12):
            hour = hour % 12 + 12 * (half == 'p') if half else hour
            return Written(f'time {hour}:{minute}:{second}')
    for pattern in _DATES:
        if date := pattern.fullmatch(text):
            found = date.groupdict()
            month = _MONTHS.get(found['name'].lower()) if 'name' in found else int(found['m'])
            if month and month <= 12 and 1 <= int(found['d']) <= 31:
                return Written(f'date {found["y"] or "?"}-{month}-{int(found["d"])}')
    return None


def _environment(name: str, inside: str) -> Form:
    rows = [row for row in _split(inside, _BREAK)[0] if row]
    if not rows or len(rows) > MAX_PARTS or r'\begin' in inside:
        raise Refused('a matrix without rows, or within another')
    if name in ('vmatrix', 'Vmatrix'):
        raise Refused('a determinant still to be worked out')
    if name.endswith('cases'):
        parts = []
        for row in rows:
            cells = [cell.strip(' ,;') for cell in _split(row, _CELL)[0]]
            value, condition = (cells[0], ' '.join(cells[1:])) if len(cells) > 1 else (row.partition(',')[0],
            row.partition(',')[2])
            condition = re.sub(r'^(?:if|for|when|当) *', '', condition.strip())
            if condition.casefold() in ('otherwise', 'else', ''):
                condition = 'otherwise'
            parts.append(Items('row', (_read(value.strip(), listed=False), _read(condition))))
        return Items('cases', tuple(parts))
    cells = [[_read(cell, listed=False) for cell in _split(row, _CELL)[0]] for row in rows]
    if len({len(row) for row in cells}) > 1 or sum(map(len, cells)) > MAX_PARTS:
        raise Refused('rows of several lengths')
    return Items('matrix', tuple(Items('row', tuple(row)) for row in cells))


_INDEX = r'(?: ?_ ?(?:\w|\{[^{}]*\}))?'
_NAME = re.compile(
    rf'(?:m ?(?=\\angle))?(?:\\(?:{"|".join(expressions.DECORATIONS)}) ?)?\{{?[A-Za-z]{{1,3}}\'*\}}?(?: ?\^ ?\{{ ?-1 ?\}})?'
    rf'{_INDEX}\'*(?: ?\( ?[A-Za-z\d]+(?: ?, ?[A-Za-z\d]+)* ?\))?'
    rf'|\\(?:{"|".join(expressions.GREEK)}){_INDEX}|[A-Za-z][A-Za-z ]{{2,40}}|[\u4e00-\u9fff]{{1,10}}')
_APPLIED = re.compile(rf'(?<![A-Za-z])(?:{"|".join(expressions.FUNCTIONS)})[a-z]?(?![A-Za-z])')


def _name(text: str) -> str | None:
    """The name that a text is ('x', 'f(x)', 'x_{1}', 'Area', '\\angle ABC'), in one spelling; None for all else."""
    if not _NAME.fullmatch(text) or _APPLIED.search(text):
        return None
    return re.sub(r'[\s{}]|^m ?(?=\\)', '', text)


def _related(text: str, parts: Sequence[str], signs: Sequence[str]) -> Form:
    if set(signs) == {'='}:
        name = _name(parts[0])
        if name is not None and parts[-1]:
            value = _read(parts[-1], listed=False)
            if not (isinstance(value, Leaf) and name in expressions.symbols(value.tree)):
                return _named(name, value)
        if len(parts) == 2 and (name := _name(parts[1])) is not None and parts[0]:
            value = _read(parts[0], listed=False)
            if not (isinstance(value, Leaf) and name in expressions.symbols(value.tree)):
                return _named(name, value)
        if len(parts) == 2 and (names := _bracketed(parts[0])) is not None:  # (x, y) = (1, 2)
            values = _bracketed(parts[1])
            if isinstance(names, Items) and isinstance(values, Items) and names.kind == values.kind == 'tuple':
                return Named(re.sub(r'\s', '', parts[0]), values)
    if signs == ['in']:
        return _named(re.sub(r'[\s{}]', '', parts[0]), _read(parts[1], listed=False))
    if 'in' in signs or not all(parts):
        raise Refused('a relation without both its sides')
    if not {'=', '!='} & set(signs) and (form := _inequalities(parts, signs)) is not None:
        return form
    if len(parts) != 2:
        return _as_written(text)
    left, right = (expressions.parse(part) for part in parts)
    sign = signs[0]
    if sign in ('>', '>='):
        left, right, sign = right, left, sign.replace('>', '<')
    difference = ('add', left, ('neg', right))
    if not expressions.symbols(difference):
        return _as_written(text)
    return Relation(sign, difference, expressions.values_of(difference))


def _named(name: str, value: Form) -> Form:
    """x = \\pm 3 is x = 3 or x = -3."""
    if isinstance(value, Items) and value.kind == 'list':
        return Items('list', tuple(Named(name, part) for part in value.parts))
    return Named(name, value)


def _inequalities(parts: Sequence[str], signs: Sequence[str]) -> Intervals | None:
    """x > 5, 5 < x, 1 <= x < 2: a name between constants."""
    if len({sign[0] for sign in signs}) > 1 or len(parts) > 3:
        return None
    if signs[0][0] == '>':
        parts, signs = parts[::-1], [sign.replace('>', '<') for sign in signs[::-1]]
    place = 1 if len(parts) == 3 else 0 if _name(parts[0]) else 1
    name = _name(parts[place])
    if name is None:
        return None
    low = _end(parts[place - 1]) if place else None
    high = _end(parts[place + 1]) if place + 1 < len(parts) else None
    if any(end is not None and expressions.symbols(end.tree) for end in (low, high)):
        return None
    span = Span(low, high, bool(place) and signs[0] == '<=', place + 1 < len(parts) and signs[-1] == '<=')
    return Intervals((span,), name) if _rising(span) else None


def _end(text: str) -> Leaf | None:
    """An end of an interval; None for either infinity."""
    form = _read(text, listed=False)
    if form in (INFINITY, BELOW):
        return None
    if not isinstance(form, Leaf):
        raise Refused('an interval without a number at its end')
    return form


def _rising(span: Span) -> bool:
    low, high = (end and expressions.real_value(end.values) for end in (span.low, span.high))
    return low is None or high is None or low < high or (low == high and span.closed_low and span.closed_high)


def _spans(form: Form) -> tuple[Span, ...]:
    """What a part of a union is: intervals, a pair in round brackets, or single points."""
    if isinstance(form, Intervals):
        return form.spans
    if isinstance(form, Items) and form.kind == 'tuple' and (span := _open_span(form)) is not None:
        return (span,)
    if isinstance(form, Items) and form.kind == 'set' and all(isinstance(part, Leaf) for part in form.parts):
        return tuple(Span(part, part, True, True) for part in form.parts)
    if form == EMPTY:
        return ()
    raise Refused('a union of other things than intervals')


def _open_span(pair: Items) -> Span | None:
    """The open interval that a pair in round brackets may be."""
    if len(pair.parts) != 2 or not all(isinstance(part, Leaf) or part in (INFINITY, BELOW) for part in pair.parts):
        return None
    low, high = pair.parts
    if low == INFINITY or high == BELOW:
        return None
    span = Span(*(part if isinstance(part, Leaf) else None for part in pair.parts), False, False)
    return span if _rising(span) else None


def _ends(span: Span) -> tuple[Fraction | None, Fraction | None]:
    return tuple(end and expressions.real_value(end.values) for end in (span.low, span.high))


def _union(spans: Sequence[Span]) -> Intervals:
    """Puts intervals into rising order and joins those that touch; leaves them be where an end is no real number."""
    if any(end is not None and expressions.real_value(end.values) is None for span in spans for end in (span.low,
    span.high)):
        return Intervals(tuple(spans))
    joined: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.low is not None, _ends(s)[0] or Fraction(0), not s.closed_low)):
        last = joined[-1] if joined else None
        if last is not None and (last.high is None or span.low is None or _ends(span)[0] < _ends(last)[1] or (
                _ends(span)[0] == _ends(last)[1] and (span.closed_low or last.closed_high))):
            if last.high is not None and (span.high is None or _ends(span)[1] > _ends(last)[1] or (
                    _ends(span)[1] == _ends(last)[1] and span.closed_high)):
                joined[-1] = dataclasses.replace(last, high=span.high, closed_high=span.closed_high)
        else:
            joined.append(span)
    return Intervals(tuple(joined))


def _both(forms: Sequence[Intervals]) -> Intervals:
    """x > 1 and x < 2: one interval of each, which share one."""
    spans = [form.spans[0] for form in forms]
    lows = [span for span in spans if span.low is not None]
    highs = [span for span in spans if span.high is not None]
    low = max(lows, key=lambda s: (_ends(s)[0], not s.closed_low)) if lows else None
    high = min(highs, key=lambda s: (_ends(s)[1], s.closed_high)) if highs else None
    span = Span(low and low.low, high and high.high, bool(low and low.closed_low), bool(high and high.closed_high))
    if not _rising(span):
        raise Refused('nothing is in both')
    return Intervals((span,), forms[0].name)


def _bracketed(text: str) -> Form | None:
    """What is in one pair of brackets: an interval, a tuple, a set, or one thing; None where the text is not in one pair."""
    if len(text) < 2 or text[0] not in _OPENING or text[-1] not in _CLOSING:
        return None
    depth = 0
    for place, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if not depth and place < len(text) - 1:
            return None
    opening, closing, inside = text[0], text[-1], text[1:-1].strip()
    parts, _ = _split(inside, _SEPARATOR)
    if len(parts) > MAX_PARTS or not all(parts):
        raise Refused('an empty place, or too many')
    if opening in '{❴' and closing in '}❵':
        if re.search(r'[:|]|\\mid', _outside(inside)):
            return _as_written(text)
        return Items('set', _distinct([_read(part, listed=False) for part in parts]))
    if opening in '{❴' or closing in '}❵':
        raise Refused('brackets of two kinds')
    if len(parts) == 1:
        if opening + closing not in ('()', '[]'):
            raise Refused('brackets of two kinds')
        return _read(inside, listed=False)
    forms = tuple(_read(part, listed=False) for part in parts)
    if opening + closing == '()':
        return Items('tuple', forms)
    if len(parts) == 2:
        span = Span(_end(parts[0]), _end(parts[1]), opening == '[', closing == ']')
        if _rising(span):
            return Intervals((span,))
    if opening + closing != '[]':
        raise Refused('brackets of two kinds')
    return Items('tuple', forms)


def _distinct(forms: Sequence[Form]) -> tuple[Form, ...]:
    distinct: list[Form] = []
    for form in forms:
        if not any(_equal(other, form) for other in distinct):
            distinct.append(form)
    return tuple(distinct)


_LONG_WORD = re.compile(r'(?<![A-Za-z\\])[A-Za-z]{2,}')
_DECIMAL = re.compile(r'[-+]? ?(\d*)\.(\d+)')
_LETTERS = re.compile(r"[A-Za-z][A-Za-z' -]*")
# Short runs of letters that are words and no products.
_SHORT_WORDS = frozenset(
    'ad ah am an as at be by do go he hi if in is it me my no of oh ok on or ox pm so to uh um un up us we ye'.split())
_VARIABLES = re.compile(r'abc|[b-df-hj-np-tv-z]{2,3}|[a-z]{2}')


def _single(text: str) -> Form:
    """One quantity, expression, ratio or phrase."""
    if match := _TO.fullmatch(text):
        return Items('ratio', tuple(_leaf(number) for number in match.groups()))
    if _COLON.fullmatch(text):
        return Items('ratio', tuple(_leaf(number.strip()) for number in text.split(':')))
    if _LETTERS.fullmatch(text) and _is_words(text):
        return _as_words(text)
    body, unit = unit_before(text)
    try:
        if not unit:
            with_unit = unit_after(body)
            if with_unit is not None:
                body, scale, unit, glued_letter = with_unit
                leaf = _leaf(body, unit, scale)
                if isinstance(leaf, Leaf) and glued_letter:
                    return dataclasses.replace(leaf, product=_product(text))
                return leaf
        return _leaf(body, unit)
    except NoValue:
        raise
    except Refused:
        return _as_written(text)


def _product(text: str) -> Leaf | None:
    """The reading of '5 m' as a product."""
    try:
        form = _leaf(text)
    except Refused:
        return None
    return form if isinstance(form, Leaf) else None


def _is_words(text: str) -> bool:
    runs = re.findall('[A-Za-z]+', text)
    return any(
        len(run) > 1 and run.lower() not in (*expressions.FUNCTIONS, *map(str.lower, expressions.GREEK), 'pi')
        and (run in _SHORT_WORDS or not _VARIABLES.fullmatch(run)) for run in runs
    ) and not any(run in expressions.FUNCTIONS for run in runs)


def _leaf(text: str, unit: str = '', scale: int = 1) -> Form:
    """A number or an expression; raises Refused."""
    text = text.strip()
    tree = expressions.parse(text)
    percent = unit == '%' or tree[0] == 'percent' or (tree[0] == 'neg' and tree[1][0] == 'percent')
    if unit == '%':
        tree, unit = ('percent', tree), ''
    if scale != 1:
        number = expressions.numeral(tree)
        if number is None:
            raise Refused('a word for a number stands behind no number')
        tree = ('num', number * scale)
    values = expressions.values_of(tree)
    if not expressions.is_written_out(tree, values):
        return Written(f'unfinished {expressions.tree_text(tree)} {unit}'.strip())
    decimal = _DECIMAL.fullmatch(text.rstrip('% '))
    shown = 0
    if decimal and scale == 1 and len(decimal[2]) >= 2 and len((decimal[1] + decimal[2]).lstrip('0')) >= 3:
        shown = len(decimal[2]) + 2 * percent
    return Leaf(values, tree, unit, shown, percent)


def _as_words(text: str) -> Written:
    words = plain_text(text.replace('\\', ' '))
    cjk = re.search('[\u3040-\u30ff\u3400-\u9fff]', words)
    if not words or len(words) > MAX_WORD_CHARS or (len(words.split()) > MAX_WORDS and not cjk):
        raise Refused('too many words')
    return Written(words)


_CALCULUS = re.compile(r'\\(?:sum|prod|int|lim)(?![A-Za-z])')
_COSTLY = re.compile(r'[-+]|\\[A-Za-z]+')


def _unevaluated(text: str) -> str | None:
    """A sum, product, integral or limit, as math-verify's parser reads it, so that its parts may stand in any order.

    Nothing of it is worked out. None for all else, and beyond bounds: the parser takes exponential time for brackets and
    integrals within each other, a second for 30 terms, and its names have no capitals.
    """
    if len(_CALCULUS.findall(text)) != 1 or len(text) > 60 or (_nesting(text) or 0) > 3 or len(_COSTLY.findall(text)) > 8:
        return None
    letters = set(re.findall(r'(?<![A-Za-z\\])[A-Za-z]', re.sub(r'\\[A-Za-z]+', ' ', text)))
    if len({letter.lower() for letter in letters}) < len(letters) or re.search(r'[^\x20-\x7e]', text):
        return None
    from latex2sympy2_extended import latex2sympy  # brings sympy, which takes half a second
    from sympy import srepr

    try:
        return srepr(latex2sympy(text, normalization_config=None))
    except Exception:  # whatever its parser raises, also plain Exception
        return None


def _as_written(text: str) -> Written:
    """Words in one spelling; LaTeX beyond the grammar without braces around one character, and spaces but between digits."""
    if (unevaluated := _unevaluated(text)) is not None:
        return Written(unevaluated)
    if '\\' not in text and re.search(r'[^\W\d_]{2}', text):
        return _as_words(text)
    if not re.search(r'\w', re.sub(r'\\[A-Za-z]+', '', text)):
        raise Refused('commands alone')
    return Written(re.sub(r'\{(\w)\}', r'\1', re.sub(r'(?<!\d) | (?!\d)', '', text)))


# Comparing


def _equal(gold: Form, answer: Form) -> bool:
    if isinstance(gold, Items) and isinstance(answer, Items):
        return _equal_items(gold, answer)
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _equal_named(gold, answer)
    if isinstance(gold, Intervals) or isinstance(answer, Intervals):
        return _equal_intervals(gold, answer)
    for one, other in ((gold, answer), (answer, gold)):
        if isinstance(one, Items):  # of these, one is none
            return one.kind == 'set' and len(one.parts) == 1 and (
                _equal(one.parts[0], other) if one is gold else _equal(other, one.parts[0]))
    if type(gold) is not type(answer):
        return False
    if isinstance(gold, Leaf):
        return _equal_leaves(gold, answer)
    if isinstance(gold, Relation):
        return gold.sign == answer.sign and _proportional(gold, answer)
    return gold == answer


def _equal_leaves(gold: Leaf, answer: Leaf) -> bool:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if expressions.symbols(gold.tree) | expressions.symbols(answer.tree):
        for one, other in ((gold, answer), (answer, gold)):
            if one.product is not None and not other.unit:
                return expressions.same_values(one.product.values, other.values)
    if expressions.same_values(gold.values, answer.values):
        return True
    first, second = (expressions.real_value(leaf.values) for leaf in (gold, answer))
    if first is None or second is None:
        return False
    if gold.percent != answer.percent and expressions.close(*(
            100 * value if leaf.percent else value for value, leaf in ((first, gold), (second, answer)))):
        return True
    return bool(gold.decimals) and abs(first - second) <= Fraction(1, 2 * 10**gold.decimals)


def _equal_items(gold: Items, answer: Items) -> bool:
    kinds = {gold.kind, answer.kind}
    if len(kinds) > 1 and kinds not in ({'list', 'set'}, {'list', 'tuple'}):
        return False
    if len(gold.parts) != len(answer.parts):
        return False
    if kinds <= {'list', 'set'} or kinds == {'cases'}:
        left = list(answer.parts)
        for part in gold.parts:
            found = next((i for i, other in enumerate(left) if _equal(part, other)), None)
            if found is None:
                return False
            left.pop(found)
        return True
    return all(map(_equal, gold.parts, answer.parts))


def _equal_named(gold: Form, answer: Form) -> bool:
    if isinstance(gold, Named) and isinstance(answer, Named):
        return gold.name == answer.name and _equal(gold.value, answer.value)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        first, second = (_as_relation(form) for form in (gold, answer))
        return first is not None and second is not None and _equal(first, second)
    for one, other in ((gold, answer), (answer, gold)):
        if isinstance(one, Named) and isinstance(other, Intervals) and other.name and one.name != other.name:
            return False
    return _equal(*(form.value if isinstance(form, Named) else form for form in (gold, answer)))


def _as_relation(form: Form) -> Relation | None:
    """y = 2x + 1 as y - (2x + 1) = 0."""
    if isinstance(form, Relation):
        return form
    if not isinstance(form.value, Leaf):
        return None
    try:
        difference = ('add', expressions.parse(form.name), ('neg', form.value.tree))
        return Relation('=', difference, expressions.values_of(difference))
    except Refused:
        return None


def _proportional(gold: Relation, answer: Relation) -> bool:
    """Whether one difference is a constant times the other; a positive one, for inequalities."""
    if expressions.symbols(gold.difference) != expressions.symbols(answer.difference):
        return False
    ratio = expressions.constant_ratio(gold.values, answer.values)
    return ratio is not None and (ratio > 0 or gold.sign in ('=', '!='))


def _equal_intervals(gold: Form, answer: Form) -> bool:
    if isinstance(gold, Intervals) and isinstance(answer, Intervals):
        if gold.name and answer.name and gold.name != answer.name:
            return False
        return len(gold.spans) == len(answer.spans) and all(map(_equal_spans, gold.spans, answer.spans))
    if not isinstance(gold, Items) and not isinstance(answer, Items):
        return False
    items, intervals = (gold, answer) if isinstance(gold, Items) else (answer, gold)
    if items.kind == 'list':  # 1, 2 for [1, 2]
        span = intervals.spans[0] if len(intervals.spans) == 1 and not intervals.name else None
        if span is None or not (span.closed_low and span.closed_high) or len(items.parts) != 2:
            return False
        pair = Items('tuple', (span.low, span.high))
        return _equal_items(items, pair) if items is gold else _equal_items(pair, items)
    span = _open_span(items) if items.kind == 'tuple' else None
    if span is None:
        return False
    other = Intervals((span,))
    return _equal_intervals(other, intervals) if items is gold else _equal_intervals(intervals, other)


def _equal_spans(gold: Span, answer: Span) -> bool:
    if (gold.closed_low, gold.closed_high) != (answer.closed_low, answer.closed_high):
        return False
    return all(
        (one is None) == (other is None) and (one is None or _equal_leaves(one, other))
        for one, other in ((gold.low, answer.low), (gold.high, answer.high)))


def _text(form: Form | None) -> str:
    match form:
        case None:
            return '∞'
        case Leaf():
            values = ', '.join(expressions.value_text(value) for value in form.values)
            return f'{values} {form.unit}'.strip()
        case Written():
            return form.text
        case Items():
            parts = [_text(part) for part in form.parts]
            kind = 'set' if form.kind == 'list' else form.kind
            return f'{kind}({"; ".join(sorted(parts) if form.kind in ("list", "set", "cases") else parts)})'
        case Intervals():
            return ' ∪ '.join(
                f'{"(["[span.closed_low]}{_text(span.low)}; {_text(span.high)}{")]"[span.closed_high]}'
                for span in form.spans)
        case Named():
            return _text(form.value)
        case Relation():
            # What a relation is multiplied by does not matter: its first value becomes 1.
            first = next(value for value in form.values if value is not None)
            scaled = (expressions.quotient(value, first) for value in form.values)
            return f'{form.sign} {", ".join(expressions.value_text(value) for value in scaled)}'
