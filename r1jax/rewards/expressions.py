r"""Mathematical expressions, plain or LaTeX: a small grammar, and the values by which expressions are compared.

    parse('\frac{\sqrt2}{2}'), parse('1/sqrt(2)')     ->  trees whose values are the same
    parse('(x+1)^2'), parse('x^2+2x+1')               ->  the same values at every point

Two expressions are equal where they have the same values at fixed points (Schwartz, J. ACM 27, 1980, and Zippel, 1979, for
polynomials), computed with 60 digits. So nothing is simplified, which has no bound in time, and nothing is evaluated as
Python. Sums, integrals, limits and derivatives are no part of the grammar: they are work still to be done.
"""

import dataclasses
import functools
import hashlib
import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

MAX_TOKENS = 200
MAX_DEPTH = 30
# Larger exponents, logarithms of values, and arguments of factorials are no answers anybody could check.
MAX_POWER, MAX_FACTORIAL, MAX_BITS = 100_000, 1000, 4096

DIGITS = 60
# What is left of a sum whose terms cancel, and how near values of equal expressions are.
_CANCELLED, _SAME = Fraction(1, 10**45), Fraction(1, 10**30)
POINTS = 6

FUNCTIONS = (
    'arcsinh', 'arccosh', 'arctanh', 'arcsin', 'arccos', 'arctan', 'sinh', 'cosh', 'tanh', 'asin', 'acos', 'atan', 'sqrt',
    'sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'exp', 'log', 'ln', 'lg')
GREEK = (
    'alpha', 'beta', 'gamma', 'delta', 'epsilon', 'varepsilon', 'zeta', 'theta', 'vartheta', 'iota', 'kappa', 'lambda', 'mu',
    'nu', 'xi', 'rho', 'sigma', 'tau', 'phi', 'varphi', 'chi', 'psi', 'omega', 'Gamma', 'Delta', 'Theta', 'Lambda', 'Xi',
    'Pi', 'Sigma', 'Phi', 'Psi', 'Omega', 'eta', 'ell', 'hbar')
# What is written over letters makes another name of them.
DECORATIONS = ('overline', 'overrightarrow', 'vec', 'hat', 'bar', 'tilde', 'widehat', 'angle', 'triangle', 'mathbf',
'mathbb')

_WORDS = '|'.join((*FUNCTIONS, 'pi', *(name for name in GREEK if len(name) > 2 and name.islower())))
_TOKEN = re.compile(
    r'\\([A-Za-z]+)'
    # 1e5, 1.2e-3 and 1e-05 are numbers; 2e-1 is Euler's number twice, less one.
    r'|((?:\d+\.?(?=[eE](?:\d|[-+]0\d))|\d*\.\d+(?=[eE]))[eE][-+]?\d{1,3}(?!\d)|\d+(?:\.\d*)?|\.\d+)'
    rf'|({_WORDS})|([A-Z]{{2,}}|[A-Za-z])|(\*\*|[-+*/^_(){{}}\[\]|!%°\'])|(\s+)|(.)', re.DOTALL)
_COMMANDS = {'cdot': '*', 'times': '*', 'ast': '*', 'div': '/', 'lvert': '|', 'rvert': '|', 'vert': '|', 'degree': '°'}
_INVERSE = {'sin': 'arcsin', 'cos': 'arccos', 'tan': 'arctan', 'sinh': 'arcsinh', 'cosh': 'arccosh', 'tanh': 'arctanh'}
_SHORT = {'asin': 'arcsin', 'acos': 'arccos', 'atan': 'arctan'}
_FRACTIONS = frozenset({'frac', 'dfrac', 'tfrac', 'cfrac'})
_CLOSING = {'(': ')', '[': ']', '{': '}', '\\lfloor': '\\rfloor', '\\lceil': '\\rceil'}


class Refused(ValueError):
    """The text is no expression of the grammar, or its value is out of bounds."""


class NoValue(Refused):
    """The text is an expression that has no value at all: 1/0."""


class Undefined(ValueError):
    """The expression has no real value at a point."""


# ('num', Fraction), ('sym', name), ('i',), ('e',), ('pi',), ('add', ...), ('mul', ...), ('neg', a), ('div', a, b),
# ('pow', a, b), ('root', a, n), ('mixed', whole, part) and (function, argument, ...).
Tree = tuple


def parse(text: str) -> Tree:
    """Returns the tree of an expression, with spacing commands and \\left, \\right, \\text taken away; raises Refused."""
    tokens = _tokens(text)
    parser = _Parser(tokens)
    tree = parser.sum(0)
    if parser.place < len(tokens):
        raise Refused(f'{tokens[parser.place]!r} has no place there')
    return tree


def _tokens(text: str) -> list[str]:
    """Names of commands keep their backslash, numbers and letters stand for themselves, spaces are ' '."""
    tokens = []
    for match in _TOKEN.finditer(text):
        command, number, word, letter, mark, space, other = match.groups()
        if other is not None:
            raise Refused(f'{other!r} is no part of an expression')
        if command:
            word = command if command in FUNCTIONS or command in GREEK or command == 'pi' else None
            tokens.append('\\' + word if word else _COMMANDS.get(command, '\\' + command))
        elif word:
            tokens.append('\\' + word)
        elif mark == '**':
            tokens.append('^')
        elif space:
            tokens.append(' ')
        else:
            tokens.append(number or letter or mark)
        if len(tokens) > MAX_TOKENS:
            raise Refused('it is too long')
    return [token for i, token in enumerate(tokens) if token != ' ' or _between_numbers(tokens, i)]


def _between_numbers(tokens: list[str], i: int) -> bool:
    """Spaces say something between two numbers alone: '3 1/2' is a mixed number, '8 1' nothing."""
    return 0 < i < len(tokens) - 1 and tokens[i - 1][0].isdigit() and tokens[i + 1][0].isdigit()


class _Parser:
    """Recursive descent. place: of the next token; depth bounds the recursion; bars: how many | wait for their other one."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.place = self.bars = 0

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ''

    def take(self, expected: str = '') -> str:
        token = self.next
        if not token or (expected and token != expected):
            raise Refused(f'{expected or "something"!r} is missing')
        self.place += 1
        return token

    def sum(self, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise Refused('it is too deep')
        terms = [self.signed(depth)]
        while self.next in ('+', '-'):
            terms.append(self.signed(depth))
        return terms[0] if len(terms) == 1 else ('add', *terms)

    def signed(self, depth: int) -> Tree:
        sign = self.take() if self.next in ('+', '-') else '+'
        if self.next in ('+', '-'):
            raise Refused('two signs')
        term = self.product(depth)
        return ('neg', term) if sign == '-' else term

    def product(self, depth: int) -> Tree:
        value, divided = self.power(depth), False
        while True:
            token = self.next
            if token in ('*', '/'):
                self.take()
                factor = self.factor_with_sign(depth)
                value, divided = (_times(value, factor), False) if token == '*' else (('div', value, factor), True)
            elif token == ' ':
                value = self.mixed(value)
            elif self.begins_factor(token):
                if divided:
                    raise Refused('a product after a slash reads two ways')
                if token[0].isdigit() or token[0] == '.':
                    raise Refused('a number stands behind a factor')
                factor = self.power(depth)
                part = factor[1] if factor[0] == 'percent' else factor
                if _whole(value) and part[0] == 'div' and _whole(part[1]) and _whole(part[2]):
                    if part[1][1] >= part[2][1]:
                        raise Refused('the fraction of a mixed number is no proper one')
                    mixed = ('mixed', value, part)
                    value = mixed if part is factor else ('percent', mixed)
                else:
                    value = _times(value, factor)
            else:
                return value

    def mixed(self, value: Tree) -> Tree:
        """The rest of '3 1/2', from the space on."""
        self.take(' ')
        above, below = self.take(), (self.take('/'), self.take())[1]
        if not (_whole(value) and above.isdigit() and below.isdigit() and 0 < int(above) < int(below)):
            raise Refused('two numbers side by side')
        return ('mixed', value, ('div', ('num', Fraction(above)), ('num', Fraction(below))))

    def factor_with_sign(self, depth: int) -> Tree:
        if self.next in ('-', '+'):
            return ('neg', self.power(depth)) if self.take() == '-' else self.power(depth)
        return self.power(depth)

    def begins_factor(self, token: str) -> bool:
        if token == '|':
            return not self.bars
        return bool(token) and (token[0].isalnum() or token in ('(', '[', '{', '.') or (
            token[0] == '\\' and token not in ('\\rfloor', '\\rceil')))

    def power(self, depth: int) -> Tree:
        value = self.postfix(self.atom(depth))
        while self.next == '^':
            self.take()
            if self.degrees():
                value = ('mul', value, ('degree',))
                continue
            exponent = self.exponent(depth)
            if self.next == '^':
                raise Refused('a tower of powers without braces')
            value = self.postfix(('pow', value, exponent))
        return value

    def degrees(self) -> bool:
        """Whether \\circ or {\\circ} stands here, which is then taken."""
        for mark in (['\\circ'], ['{', '\\circ', '}']):
            if self.tokens[self.place:self.place + len(mark)] == mark:
                self.place += len(mark)
                return True
        return False

    def exponent(self, depth: int) -> Tree:
        sign = self.take() if self.next in ('-', '+') else '+'
        exponent = self.atom(depth)
        return ('neg', exponent) if sign == '-' else exponent

    def postfix(self, value: Tree) -> Tree:
        for _ in range(3):
            if self.next not in ('!', '°', '%'):
                break
            mark = self.take()
            value = ('factorial', value) if mark == '!' else ('mul', value, ('degree',)) if mark == '°' else ('percent',
            value)
        return value

    def atom(self, depth: int) -> Tree:
        token = self.take()
        if token[0].isdigit() or token[0] == '.':
            return self.number(token)
        if token in ('(', '[', '{'):
            value = self.sum(depth + 1)
            self.take(_CLOSING[token])
            return value
        if token == '|':
            self.bars += 1
            value = self.sum(depth + 1)
            self.take('|')
            self.bars -= 1
            return ('abs', value)
        if token.isalpha():
            return self.name(token)
        name = token[1:]
        if token[0] != '\\':
            raise Refused(f'{token!r} has no place there')
        if name in FUNCTIONS:
            return self.function(_SHORT.get(name, name), depth)
        if name == 'pi':
            return ('pi',)
        if name in GREEK:
            return self.name(name)
        if name in _FRACTIONS:
            return ('div', self.argument(depth), self.argument(depth))
        if name in ('binom', 'dbinom', 'tbinom'):
            return ('binomial', self.argument(depth), self.argument(depth))
        if name in ('lfloor', 'lceil'):
            value = self.sum(depth + 1)
            self.take(_CLOSING[token])
            return ('floor' if name == 'lfloor' else 'ceiling', value)
        if name in DECORATIONS:
            return self.name(f'{name} {self.raw()}')
        raise Refused(f'{token!r} is no part of an expression')

    def argument(self, depth: int) -> Tree:
        """What a command takes: a group in braces, or one digit or letter, of which a number may leave some behind."""
        token = self.next
        if token.isdigit() and len(token) > 1:
            self.tokens[self.place] = token[1:]
            return ('num', Fraction(token[0]))
        if token == '{' or token.isalnum() or token in ('\\pi', *_FRACTIONS) or token[1:] in GREEK:
            return self.atom(depth)
        raise Refused('a command lacks what it is about')

    def number(self, token: str) -> Tree:
        value = Fraction(token.rstrip('.') if token != '.' else '0')
        if self.next == '\\overline' and '.' in token:  # 0.1\overline{6}
            self.take()
            repeated = self.raw()
            if not repeated.isdigit():
                raise Refused('digits repeat, nothing else')
            places = len(token.partition('.')[2])
            value += Fraction(int(repeated), (10**len(repeated) - 1) * 10**places)
        return ('num', value)

    def name(self, name: str) -> Tree:
        plain = name
        if self.next == '_':
            self.take()
            name += '_' + self.raw()
        while self.next == "'":
            name += self.take()
        if name in ('e', 'i'):
            return (name,)
        if plain in ('f', 'g', 'h') and self.next == '(':
            name += self.raw()
        return ('sym', name)

    def raw(self) -> str:
        """The text of the next token or group, without its braces."""
        if self.next not in ('{', '('):
            return self.take()
        opening, start, depth = self.next, self.place, 0
        while True:
            token = self.take()
            depth += (token == opening) - (token == _CLOSING[opening])
            if not depth:
                inside = self.tokens[start + 1:self.place - 1]
                return ''.join(inside) if opening == '{' else f'({"".join(inside)})'

    def function(self, name: str, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise Refused('it is too deep')
        if name == 'sqrt':
            index = Fraction(2)
            if self.next == '[':
                self.take()
                degree = self.sum(depth + 1)
                self.take(']')
                return ('root', self.argument(depth), degree)
            grouped = self.next in ('(', '{')
            return ('root', self.atom(depth) if grouped else self.argument(depth), ('num', index))
        base: Tree | None = None
        if name == 'log' and self.next == '_':
            self.take()
            base = self.argument(depth)
        exponent: Tree | None = None
        if self.next == '^':
            self.take()
            exponent = self.exponent(depth)
            if exponent == ('neg', ('num', Fraction(1))):
                if name not in _INVERSE:
                    raise Refused(f'the inverse of {name}')
                name, exponent = _INVERSE[name], None
        if self.next == ' ':  # \\log_2 8
            self.take()
        argument = self.function_argument(depth)
        if name in ('log', 'lg'):
            value = ('log', argument, base or ('num', Fraction(10)))
        elif name == 'exp':
            value = ('pow', ('e',), argument)
        else:
            value = (name, argument)
        return ('pow', value, exponent) if exponent else value

    def function_argument(self, depth: int) -> Tree:
        """A group alone; else the factors that follow without a sign, up to the next function: \\sin 2x \\cos x."""
        if self.next in ('(', '{', '['):
            return self.atom(depth + 1)
        if self.next[1:] in FUNCTIONS and self.next != '\\sqrt':
            return self.function(self.take()[1:], depth + 1)
        value = self.power(depth + 1)
        while self.begins_factor(self.next) and not self.next[0].isdigit() and (
                self.next == '\\sqrt' or self.next[1:] not in FUNCTIONS):
            value = _times(value, self.power(depth + 1))
        return value


def _times(value: Tree, factor: Tree) -> Tree:
    """A product, flat where it goes on: recursion must not get deep."""
    return (*value, factor) if value[0] == 'mul' else ('mul', value, factor)


def _whole(tree: Tree) -> bool:
    return tree[0] == 'num' and tree[1].denominator == 1


def symbols(tree: Tree) -> frozenset[str]:
    """Returns the names in a tree."""
    if tree[0] == 'sym':
        return frozenset({tree[1]})
    return frozenset().union(*(symbols(part) for part in tree[1:] if isinstance(part, tuple)))


def numeral(tree: Tree) -> Fraction | None:
    r"""Returns the number that a tree writes out, or None where something is left to be worked out.

    Written out are integers, decimals, fractions that are no whole numbers, mixed numbers, percentages and powers of ten
    times a number (1.2\cdot10^3); '84/2', '6*7', '2^{10}', '\sqrt{16}' and '5!' are not.
    """
    match tree:
        case ('num', value):
            return value
        case ('neg', ('neg', _)):
            return None
        case ('neg', inner):
            value = numeral(inner)
            return None if value is None else -value
        case ('percent', inner):
            value = numeral(inner)
            return None if value is None else value / 100
        case ('mixed', (_, whole), (_, (_, above), (_, below))):
            return whole + above / below
        case ('div', above, below):
            top, bottom = _signed_number(above), _signed_number(below)
            if top is None or not bottom or (top / bottom).denominator == 1:
                return None
            return top / bottom
        case ('pow', ('num', ten), exponent) if ten == 10:
            power = _signed_number(exponent)
            if power is None or power.denominator != 1 or abs(power) > 300:
                return None
            return ten**int(power)
        case ('mul', ('num', value), ('pow', ('num', ten), _) as power) if ten == 10:
            scale = numeral(power)
            return None if scale is None else value * scale
    return None


def _signed_number(tree: Tree) -> Fraction | None:
    if tree[0] == 'neg' and tree[1][0] == 'num':
        return -tree[1][1]
    return tree[1] if tree[0] == 'num' else None


def is_written_out(tree: Tree, values: 'Values') -> bool:
    """Whether a tree says its value, where that is one rational or Gaussian rational number of few digits.

    What has such a value is a question until it is written as a number, '6*7+x-x' too. Numbers beyond 15 digits may stay
    powers.
    """
    if numeral(tree) is not None or any(not isinstance(value, Fraction | tuple) or value != values[0] for value in values):
        return True
    parts = values[0] if isinstance(values[0], tuple) else (values[0], Fraction(0))
    if any(max(abs(part.numerator), part.denominator) >= 10**15 for part in parts):
        return True
    return bool(parts[1]) and _is_complex_numeral(tree)


def _is_complex_numeral(tree: Tree) -> bool:
    """a+bi, with numerals a and b, or that over a number."""
    match tree:
        case ('i',):
            return True
        case ('neg', inner):
            return _is_complex_numeral(inner)
        case ('mul', factor, ('i',)) | ('mul', ('i',), factor):
            return numeral(factor) is not None
        case ('div', above, below):
            return numeral(below) is not None and _is_complex_numeral(above)
        case ('add', first, second):
            return (numeral(first) is not None and _is_complex_numeral(second)) or (
                numeral(second) is not None and _is_complex_numeral(first))
    return False


# The value of an expression at a point: exact, where it is a rational number or a pair of them (real, imaginary), or else a
# complex number of 60 digits; None where it has no real value.
Value = Any
Values = tuple[Value, ...]


@functools.cache
def _context():
    import mpmath  # takes a tenth of a second, and only answers that are no plain numbers need it

    context = mpmath.MPContext()
    context.dps = DIGITS
    return context


def values_of(tree: Tree) -> Values:
    """Returns the value of a tree without names, or its values at POINTS points; raises Refused for values out of bounds.

    At half of the points all names are positive, and at the rest some. Where a tree without i has no real value there, None
    stands for it; a constant may always be complex, so that \\sqrt{-4} is 2i.
    """
    if (number := numeral(tree)) is not None:
        return (number,)
    names = sorted(symbols(tree))
    has_i = _mentions_i(tree)
    context = _context()
    values = []
    for point in range(POINTS if names else 1):
        places = {name: _coordinate(name, point) for name in names}
        evaluate = _Evaluator(context, places, real=bool(names) and not has_i)
        try:
            values.append(_settled(context, evaluate(tree)))
        except Undefined:
            values.append(None)
        except ZeroDivisionError as error:
            raise NoValue(str(error)) from error
        except (ValueError, ArithmeticError) as error:
            raise Refused(str(error)) from error
    if all(value is None for value in values):
        raise NoValue('it has no value anywhere')
    return tuple(values)


def same_values(first: Values, second: Values) -> bool:
    """Whether two expressions agree wherever both are defined, and that is at two points at least (one for constants)."""
    if len(first) != len(second):
        first, second = (values * POINTS if len(values) == 1 else values for values in (first, second))
    shared = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return len(shared) >= min(2, len(first)) and all(close(a, b) for a, b in shared)


def close(a: Value, b: Value) -> bool:
    """Whether two values are the same: exactly where both are exact, else to 30 digits."""
    if not _inexact(a) and not _inexact(b):
        return a == b
    context = _context()
    a, b = _number(context, a), _number(context, b)
    return abs(a - b) <= _number(context, _SAME) * max(abs(a), abs(b))


def real_value(values: Values) -> Fraction | None:
    """Returns the value of a constant as a fraction, rounded to 60 digits where it is not exact; None if it is not real."""
    if len(values) != 1 or isinstance(values[0], tuple):
        return None
    if isinstance(values[0], Fraction):
        return values[0]
    return None if values[0].imag else _fraction(values[0].real)


def constant_ratio(first: Values, second: Values) -> Any:
    """Returns the one real number by which the first values are the second multiplied, or None where there is none."""
    context = _context()
    if len(first) != len(second):
        return None
    shared = [
        (_number(context, a), _number(context, b)) for a, b in zip(first, second,
        strict=True) if a is not None and b is not None]
    if len(shared) < 3 or not all(a and b for a, b in shared):
        return None
    ratios = [a / b for a, b in shared]
    if not all(close(ratio, ratios[0]) for ratio in ratios):
        return None
    ratio = context.mpc(ratios[0])
    return None if abs(ratio.imag) > _number(context, _SAME) * abs(ratio) else ratio.real


def quotient(first: Value, second: Value) -> Value:
    """Returns one value divided by another; None where either is None or the second is 0."""
    if first is None or second is None or not second:
        return None
    context = _context()
    return _number(context, first) / _number(context, second)


def value_text(value: Value) -> str:
    """Returns a value in a spelling that equal values share, but for one in 10^30 that lies on the edge of two."""
    if value is None:
        return '?'
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, tuple):
        return f'{value[0]}+{value[1]}i'
    context = _context()
    return '{}+{}i'.format(*(context.nstr(part, 25) for part in (value.real, value.imag)))


def _inexact(value: Value) -> bool:
    return not isinstance(value, Fraction | tuple)


def _number(context: Any, value: Value) -> Any:
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    if isinstance(value, tuple):
        return context.mpc(_number(context, value[0]), _number(context, value[1]))
    return value


def _fraction(number: Any) -> Fraction:
    sign, mantissa, exponent, _ = number._mpf_
    if abs(exponent) > 4 * MAX_BITS:
        raise Refused('its value is out of bounds')
    return Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent


def _settled(context: Any, value: Value) -> Value:
    """Makes exact what is a rational number of few digits to 45 places, so that \\log_2 8 is known to be 3."""
    if isinstance(value, Fraction):
        return value
    value = context.mpc(value)
    parts = []
    for part in (value.real, value.imag):
        if not context.isfinite(part):
            raise Refused('its value is out of bounds')
        if part and not -100 < context.mag(part) < 200:
            return value
        exact = _fraction(part) if part else Fraction(0)
        near = exact.limit_denominator(10**6)
        if abs(exact - near) > _CANCELLED * max(1, abs(near)):
            return value
        parts.append(near)
    return (parts[0], parts[1]) if parts[1] else parts[0]


@functools.lru_cache(maxsize=4096)
def _coordinate(name: str, point: int) -> Any:
    """The value of a name at a point, which depends on nothing else: between 1/4 and 9/4, negative at some points."""
    digest = hashlib.blake2b(f'{name}\0{point}'.encode(), digest_size=8).digest()
    size = Fraction(1, 4) + Fraction(int.from_bytes(digest[:7], 'big'), 2**55)
    return _number(_context(), -size if 2 * point >= POINTS and digest[7] & 1 else size)


def _mentions_i(tree: Tree) -> bool:
    return tree[0] == 'i' or any(_mentions_i(part) for part in tree[1:] if isinstance(part, tuple))


@dataclasses.dataclass(frozen=True)
class _Evaluator:
    """Works out a tree: rational numbers exactly while they are small, all else as real or complex numbers.

    real: a value that is not real is Undefined.
    """

    context: Any
    places: dict[str, Any]
    real: bool

    def __call__(self, tree: Tree) -> Any:
        kind, *parts = tree
        match kind:
            case 'num':
                return parts[0]
            case 'sym':
                return self.places[parts[0]]
            case 'pi':
                return +self.context.pi
            case 'e':
                return +self.context.e
            case 'i':
                return self.context.mpc(0, 1)
            case 'degree':
                return self.context.pi / 180
            case 'add':
                return self.add([self(part) for part in parts])
            case 'mixed':
                return self(parts[0]) + self(parts[1])
        values = [self(part) for part in parts]
        match kind:
            case 'neg':
                return -values[0]
            case 'percent':
                return values[0] / 100
            case 'mul':
                return functools.reduce(lambda a, b: self.bounded(self.both([a, b], operator.mul)), values)
            case 'div':
                if not values[1]:
                    raise ZeroDivisionError('division by zero')
                return self.bounded(self.both(values, operator.truediv))
            case 'pow':
                return self.power(*values)
            case 'root':
                if not values[1]:
                    raise ZeroDivisionError('the zeroth root')
                return self.power(values[0], 1 / values[1])
            case 'factorial' | 'binomial':
                return self.count(kind, values)
            case 'abs':
                return abs(values[0])
            case 'floor' | 'ceiling':
                value = values[0] if isinstance(values[0], Fraction) else _settled(self.context, values[0])
                if not isinstance(value, Fraction):
                    value = _fraction(self.real_number(value))
                return Fraction(math.floor(value) if kind == 'floor' else math.ceil(value))
        return self.function(kind, values)

    def both(self, values: list, operation: Callable) -> Any:
        """An operation on exact numbers, or on numbers where one of them is not exact."""
        if all(isinstance(value, Fraction) for value in values):
            return operation(*values)
        return operation(*(_number(self.context, value) for value in values))

    def add(self, terms: list) -> Any:
        if all(isinstance(term, Fraction) for term in terms):
            return self.bounded(sum(terms, Fraction(0)))
        numbers = [_number(self.context, term) for term in terms]
        total = self.context.fsum(numbers)
        # What cancels leaves an error of rounding, which must not become a divisor.
        cancelled = abs(total) <= _number(self.context, _CANCELLED) * max(map(abs, numbers))
        return Fraction(0) if cancelled else total

    def bounded(self, value: Any) -> Any:
        if isinstance(value, Fraction) and max(abs(value.numerator), value.denominator).bit_length() > MAX_BITS:
            return _number(self.context, value)
        return value

    def power(self, base: Any, exponent: Any) -> Any:
        if not base:
            if isinstance(exponent, Fraction) and exponent > 0:
                return Fraction(0)
            raise ZeroDivisionError('a power of zero')
        if not isinstance(exponent, Fraction):
            exponent = _settled(self.context, exponent)
        if isinstance(exponent, tuple):
            exponent = _number(self.context, exponent)
        size = abs(self.context.log(abs(_number(self.context, base)), 2))
        if abs(_number(self.context, exponent)) * max(size, 1) > MAX_POWER:
            raise Refused('the power is out of bounds')
        if isinstance(exponent, Fraction):
            if exponent.denominator == 1 and isinstance(base, Fraction):
                if max(abs(base.numerator), base.denominator).bit_length() * abs(exponent) <= MAX_BITS:
                    return base ** int(exponent)
            elif exponent.denominator % 2 and self.is_negative(base):  # the real root, as \sqrt[3]{-8} = -2
                root = self.power(-base, exponent)
                return -root if exponent.numerator % 2 else root
        base, exponent = _number(self.context, base), _number(self.context, exponent)
        if isinstance(base, self.context.mpf) and isinstance(exponent, self.context.mpf):
            if base < 0 and not self.context.isint(exponent) and self.real:
                raise Undefined
        return self.context.power(base, exponent)

    def is_negative(self, value: Any) -> bool:
        return isinstance(value, Fraction | self.context.mpf) and value < 0

    def count(self, kind: str, values: list) -> Any:
        numbers = [_number(self.context, value) for value in values]
        if any(abs(number) > MAX_FACTORIAL for number in numbers):
            raise Refused('the factorial is out of bounds')
        if kind == 'factorial':
            whole = isinstance(values[0], Fraction) and values[0].denominator == 1 and values[0] >= 0
            return self.bounded(Fraction(math.factorial(int(values[0])))) if whole else self.context.gamma(numbers[0] + 1)
        whole = all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in values)
        return Fraction(math.comb(*map(int, values))) if whole else self.context.binomial(*numbers)

    def real_number(self, value: Any) -> Any:
        value = self.context.mpc(_number(self.context, value))
        if value.imag:
            raise Undefined
        return value.real

    def function(self, name: str, values: list) -> Any:
        number = _number(self.context, values[0])
        if abs(number) > MAX_POWER:
            raise Refused('an argument is out of bounds')
        if name in ('ln', 'log'):
            if not number:
                raise ZeroDivisionError('the logarithm of zero')
            if self.real and self.is_negative(number):
                raise Undefined
            if name == 'ln':
                return self.context.log(number)
            base = _number(self.context, values[1])
            if not base or base == 1 or (self.real and self.is_negative(base)):
                raise Undefined
            return self.context.log(number) / self.context.log(base)
        functions = {
            'arcsin': 'asin', 'arccos': 'acos', 'arctan': 'atan', 'arcsinh': 'asinh', 'arccosh': 'acosh',
            'arctanh': 'atanh'}
        result = getattr(self.context, functions.get(name, name))(number)
        if self.real and isinstance(result, self.context.mpc) and result.imag:
            raise Undefined
        # \tan 90° and its like are huge where they have no value.
        if abs(result) > 10**40:
            raise ZeroDivisionError(f'{name} has no value there')
        # \cos 90° is what is left of rounding.
        return Fraction(0) if abs(result) < _number(self.context, _CANCELLED) else result


def tree_text(tree: Tree) -> str:
    """Returns a tree as text, the same for sums and products in any order."""
    kind, *parts = tree
    texts = [tree_text(part) if isinstance(part, tuple) else str(part) for part in parts]
    if kind in ('add', 'mul'):
        texts = sorted(text for part, text in zip(_flat(tree), map(tree_text, _flat(tree)), strict=True))
    return f'{kind}({",".join(texts)})' if texts else kind


def _flat(tree: Tree) -> list[Tree]:
    """The terms of a sum of sums, the factors of a product of products."""
    flat = []
    for part in tree[1:]:
        flat += _flat(part) if part[0] == tree[0] else [part]
    return flat
