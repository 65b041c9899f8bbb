r"""Numbers and simple LaTeX in one exact form, so that equal answers are equal text.

    '81', '+81.0', '８１', '81.'             ->  '81'
    '0.5', '2/4', '\frac{1}{2}', '50%'      ->  '1/2'
    'pi/2', '\dfrac{\pi}{2}', '0.5\pi'      ->  '1/2*pi'

Nothing is calculated: '37+58-14' and '6*7' are questions, not answers, and '84/2' is a division somebody
still has to do, so that copying the question into the answer never pays. Values are exact fractions, so
equality is symmetric and 0.333 is not 1/3. Roots, sums, variables, sets and intervals are `equivalence`'s.
"""

import re
from fractions import Fraction

from r1jax.rewards.answers import plain_characters, unbox

MAX_NUMBER_CHARS = 100

_DECIMAL = r'(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)'
_NUMBER = re.compile(rf'([+-]?) ?({_DECIMAL})(?: ?/ ?({_DECIMAL}))? ?(%?)')

_PI = r'pi(?:\^\{?(\d)\}?)?'
_MONOMIAL = re.compile(rf'(-?)({_DECIMAL})?\*?(?:{_PI})?')
# (A)/(B), as \frac is rewritten, may be followed by pi. So may A/2 by *pi, but '1/2pi' reads two ways.
_QUOTIENT = re.compile(r'([+-]?)\(([^()]+)\)/\(([^()]+)\)(?:\*?(pi))?')
_SLASHED = re.compile(rf'([+-]?)([^()/]+)/(?:({_DECIMAL}|pi)|\(([^()]+)\))(?:\*(pi))?')
_FRAC = re.compile(r'\\[dt]?frac ?(?:\{([^{}]*)\}|(\d)) ?(?:\{([^{}]*)\}|(\d))')
_LAYOUT = re.compile(r'\\(?:left|right|displaystyle)(?![A-Za-z])|\\[;: ()\[\]]|\\?\$')
_THIN = re.compile(r'\\[!,]')  # thin spaces, which group the digits of one number: 1\,000
_TWO_NUMBERS = re.compile(r'[\d.,)] +[\d.,(]')


def parse_number(text: str) -> Fraction | None:
    """Returns the one number that `text` is, or None: an integer, a decimal, a fraction or a percentage.

    Allowed around it: spaces, a sign, thousands commas in their places, '$', a final full stop. A fraction
    that is a whole number is refused as an unfinished division.
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    if text.isascii() and text.isdigit():
        return Fraction(int(text))
    text = plain_characters(text).strip().strip('$').removesuffix('。').strip()
    if '/' in text or '%' in text:
        text = text.removesuffix('.')
    match = _NUMBER.fullmatch(text)
    if not match:
        return None
    sign, numerator, denominator, percent = match.groups()
    value = _decimal(numerator)
    if denominator is not None:
        if not _decimal(denominator) or percent:
            return None
        value /= _decimal(denominator)
        if value.denominator == 1:
            return None
    return (-value if sign == '-' else value) / (100 if percent else 1)


def parse_math(text: str) -> str | None:
    r"""Returns the exact form of a number, or of a number times a power of pi, plain or in LaTeX; else None.

    Understands \frac, \dfrac, \tfrac, \boxed{}, \pi and π, \%, $...$, \(...\) and spacing commands.
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = _LAYOUT.sub(' ', _THIN.sub('', plain_characters(text))).strip()
    text = unbox(text.removesuffix('.').removesuffix('。').strip())
    text = re.sub(r'^([-+])\s+', r'\1', text)  # the sign of -$5
    number = parse_number(text.replace('\\%', '%').replace('{,}', ','))
    if number is not None:
        return str(number)
    text = re.sub(r'\\(?:cdot|times)(?![A-Za-z])|×', '*', text)
    text = re.sub(r'\\pi(?![A-Za-z])|π', 'pi', text)
    text = _FRAC.sub(lambda m: f'({m[1] or m[2] or ""})/({m[3] or m[4] or ""})', text)
    if _TWO_NUMBERS.search(text):
        return None
    value = _quotient(re.sub(r'\s', '', text))
    if value is None:
        return None
    coefficient, power = value
    if not power and coefficient.denominator == 1:
        return None  # the plain integers have returned above: this one is an unfinished division
    if not power or not coefficient:
        return str(coefficient)
    return f'{coefficient}*pi' if power == 1 else f'{coefficient}*pi^{power}'


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(',', '').rstrip('.'))


def _monomial(text: str) -> tuple[Fraction, int] | None:
    """Parses '3', '-2pi', '2*pi^2' into (coefficient, power of pi)."""
    match = _MONOMIAL.fullmatch(text)
    if not match or not text.strip('-') or text.endswith('*') or text.startswith(('*', '-*')):
        return None
    sign, number, power = match.groups()
    coefficient = _decimal(number) if number else Fraction(1)
    return (-coefficient if sign else coefficient), (int(power or 1) if 'pi' in text else 0)


def _quotient(text: str) -> tuple[Fraction, int] | None:
    """Parses a monomial or the quotient of two into (coefficient, power of pi)."""
    if match := _QUOTIENT.fullmatch(text):
        sign, above, below, tail = match.groups()
    elif match := _SLASHED.fullmatch(text):
        sign, above, below, tail = match[1], match[2], match[3] or match[4], match[5]
    else:
        sign, above, below, tail = '', text.removeprefix('+'), '1', None
    top, bottom = _monomial(above), _monomial(below)
    if top is None or bottom is None or not bottom[0]:
        return None
    value = top[0] / bottom[0]
    return (-value if sign == '-' else value), top[1] - bottom[1] + bool(tail)
