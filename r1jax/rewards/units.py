"""Units around a number, in one spelling: '5 cm', '5 centimetres', '12 km/h', '$5', '5 apples', '12元'.

Units are compared and never converted: 5 m and 500 cm are different answers.
"""

import re

_KNOWN = {
    'mm': 'millimeter millimetre 毫米', 'cm': 'centimeter centimetre 厘米', 'dm': 'decimeter decimetre 分米',
    'm': 'meter metre mètre metro 米', 'km': 'kilometer kilometre 千米 公里', 'in': 'inch inches 英寸',
    'ft': 'foot feet 英尺', 'yd': 'yard', 'mi': 'mile 英里', 'mg': 'milligram 毫克', 'g': 'gram gm 克',
    'kg': 'kilogram kilo 千克 公斤', 't': 'tonne ton 吨', 'lb': 'pound lbs', 'oz': 'ounce',
    'ml': 'milliliter millilitre 毫升',
    'l': 'liter litre 升', 'gal': 'gallon', 's': 'second sec 秒 秒钟', 'min': 'minute 分钟', 'h': 'hour hr hrs 小时',
    'day': 'jour día 天', 'week': 'wk 周 星期', 'month': '个月', 'year': 'yr yrs 年 岁', 'degree': 'deg 度',
    'rad': 'radian 弧度',
    'dollar': 'usd us$ ¤ 美元', 'cent': '¢', 'euro': 'eur € 欧元', 'sterling': 'gbp £ 英镑', 'yen': 'jpy 日元',
    'yuan': 'rmb cny ¥ 元 块 块钱', 'rupee': 'inr rs rs. ₹', 'mi/h': 'mph', 'km/h': 'kmh kph kmph', '%': 'percent pct',
    'n': 'newton', 'j': 'joule', 'w': 'watt', 'v': 'volt', 'a': 'ampere amp', 'hz': 'hertz', 'ohm': '', 'acre': '',
    'unit': ''}
_SPELLINGS = {spelling: name for name, others in _KNOWN.items() for spelling in (name, *others.split())}
# Of letters, which are names as often, these alone are units behind a space.
_LETTERS = frozenset('mgshl')
_SCALES = {
    'hundred': 10**2, 'thousand': 10**3, 'million': 10**6, 'billion': 10**9, 'trillion': 10**12, 'dozen': 12,
    '百': 10**2, '千': 10**3, '万': 10**4, '亿': 10**8}
_POWERS = {'square': '^2', 'sq': '^2', 'squared': '^2', 'cubic': '^3', 'cu': '^3', 'cubed': '^3'}
# Words after a number that make no unit of it.
_STOP = frozenset((
    'or and not is are to than then if but no nor plus minus times mod modulo divided by over out from the a an it that '
    'this which was were be would could should maybe perhaps half quarter third one two three four five six seven eight '
    'nine ten squared cubed factorial root negative e pi sin cos tan cot sec csc log ln lg exp sqrt choose').split())

_NUMBER = r'(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?'
_FRACTION = r'\\[dtc]?frac ?(?:\{[^{}]*\}|\d) ?(?:\{[^{}]*\}|\d)'
_POWER = r' ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?[-+]?\d+ ?\}|[-+]?\d+)'
_NUMERAL = (
    rf'[-+]? ?(?:{_NUMBER} ?{_FRACTION}|{_NUMBER} \d+ ?/ ?\d+|{_FRACTION}|{_NUMBER} ?/ ?{_NUMBER}|{_NUMBER}(?:{_POWER})?)')
_QUANTITY = re.compile(rf'({_NUMERAL})( ?)(.+)', re.DOTALL)
_DEGREES = r'(?:°|\^ ?\{? ?\\circ ?\}?)'
_ANGLE = re.compile(rf'(.+?) ?{_DEGREES} ?([CF]?)')
_BASE = re.compile(r'(\d+) ?_ ?(?:\{ ?(\d+) ?\}|(\d))')
_BEFORE = re.compile(r'([-+]?) ?(us\$|¤|€|£|¥|₹|rs\.?|usd|eur|gbp|rmb) ?([-+]?.+)', re.IGNORECASE)
_AFTER = re.compile(
    r'(.+?[\d)}\]!A-Za-z]) ((?:(?:square|sq|cubic|cu) )?[A-Za-z]{2,}(?: squared| cubed| ?\^ ?(?:\{ ?\d ?\}|\d))?'
    r'(?: ?/ ?[A-Za-z]+)?)')
_RAISED = re.compile(r' ?\^ ?(?:\{ ?(\d) ?\}|(\d))')


def unit_before(text: str) -> tuple[str, str]:
    """Splits '¤5' or 'USD 5' into the number and its unit, which is '' where there is none."""
    match = _BEFORE.fullmatch(text)
    if not match or not re.search(r'\d', match[3]):
        return text, ''
    return match[1] + match[3], _SPELLINGS[match[2].lower()]


def unit_after(text: str) -> tuple[str, int, str, bool] | None:
    """Splits '5 cm' into ('5', 1, 'cm', False), or returns None where no unit stands behind a number.

    The second part is what a word like 'million' multiplies the number by. The last says that the unit is one letter, and so
    that the text may be a product. Behind a plain number any noun is a unit; behind an expression only the known ones are.
    """
    if (angle := _ANGLE.fullmatch(text)) and not re.search(rf'{_DEGREES}|sin|cos|tan|cot|sec|csc', angle[1]):
        return angle[1], 1, {'C': 'celsius', 'F': 'fahrenheit'}.get(angle[2], 'degree'), False
    if base := _BASE.fullmatch(text):
        return base[1], 1, f'base {base[2] or base[3]}', False
    if match := _QUANTITY.fullmatch(text):
        body, space, phrase = match.groups()
        scale, unit = _phrase(phrase, spaced=bool(space) or body.endswith('}'), known=False)
        if unit is not None:
            return body, scale, unit, unit in _LETTERS
    if match := _AFTER.fullmatch(text):
        scale, unit = _phrase(match[2], spaced=True, known=True)
        return None if unit is None else (match[1], scale, unit, False)
    return None


def _phrase(phrase: str, spaced: bool, known: bool) -> tuple[int, str | None]:
    """The factor and the unit that a phrase behind a number names; (1, None) where it is no unit."""
    phrase = phrase.strip().removesuffix('.').strip()
    if not phrase.isascii() and not re.search('[A-Za-z\\\\]', phrase):
        return _chinese(phrase)
    if re.search(r'[^A-Za-z0-9 /^{}.%\'-]', phrase) or phrase[:1] in '^/.-\'{}0123456789':
        return 1, None
    scale = 1
    first, _, rest = phrase.partition(' ')
    if first.lower() in _SCALES:
        scale, phrase = _SCALES[first.lower()], rest
        if not phrase:
            return scale, ''
    phrase = re.sub(r'\bper cent\b', 'percent', phrase.lower())
    sides = re.split(r' ?/ ?| per | an? (?=hour|day|minute|second|week|year|month)', phrase)
    names = [_name(side, spaced or len(sides) > 1, known) for side in sides]
    return (1, None) if None in names or len(names) > 2 else (scale, '/'.join(names))


def _name(text: str, spaced: bool, known: bool) -> str | None:
    """One side of a unit: 'square meters', 'cm^2', 'apples'."""
    power = ''
    if raised := _RAISED.search(text):
        power, text = '^' + (raised[1] or raised[2]), text[:raised.start()] + text[raised.end():]
    words = text.replace('.', '').split()
    for word, exponent in _POWERS.items():
        if word in words and len(words) > 1:
            words.remove(word)
            power = exponent
    if not 1 <= len(words) <= 4 or _STOP & set(words) or not all(re.fullmatch("[a-z][a-z'-]*", word) for word in words):
        return None
    singular = [_SPELLINGS.get(word) or _SPELLINGS.get(word.removesuffix('s')) for word in words]
    if len(words) == 1 and singular[0]:
        return singular[0] + power if len(words[0]) > 1 or (spaced and words[0] in _LETTERS) else None
    if known or len(''.join(words)) < 3 or (not spaced and len(words[0]) < 4):
        return None
    return ' '.join(name or _singular(word) for name, word in zip(singular, words, strict=True)) + power


def _singular(word: str) -> str:
    """One form for both numbers of a noun; not always the dictionary's."""
    if word.endswith('ies') and len(word) > 4:
        return word[:-3] + 'y'
    if word.endswith(('ches', 'shes', 'xes', 'sses', 'oes')):
        return word[:-2]
    return word if word.endswith('ss') else word.removesuffix('s')


def _chinese(phrase: str) -> tuple[int, str | None]:
    scale = 1
    if phrase[0] in _SCALES and phrase not in _SPELLINGS:
        scale, phrase = _SCALES[phrase[0]], phrase[1:]
    if not phrase:
        return scale, ''
    power = ''
    if phrase[:2] in ('平方', '立方') and phrase[2:] in _SPELLINGS:
        power, phrase = {'平方': '^2', '立方': '^3'}[phrase[:2]], phrase[2:]
    if len(phrase) > 6 or not re.fullmatch('[\u4e00-\u9fff/€£¥₹¢¤]+', phrase):
        return 1, None
    return scale, '/'.join(_SPELLINGS.get(side, side) for side in phrase.split('/')) + power
