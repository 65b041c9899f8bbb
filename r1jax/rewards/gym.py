"""Answers to the problems of reasoning-gym, graded by its own scorers where they can be trusted and by rules here where not.

Source: reasoning-gym (Stojanovski et al., arXiv 2505.24760), whose datasets score an answer in [0, 1]. As rewards for a
policy under training some of those scores are wrong, dangerous or without end (version 0.1.25):

- run what they are given, by `eval` or sympy's `parse_expr`: binary_matrix, spiral_matrix, string_insertion, n_queens,
  simple_integration, intermediate_integration, polynomial_multiplication, puzzle24, countdown;
- pay wrong answers in full: game_of_life_halting (anything at all), puzzle24 (any four numbers that make 24, and 24.9),
  coin_flip ('0', or another beginning of the number), number_sorting (NaN for each number; each wrong by 1),
  complex_arithmetic ('nan'), polynomial_equations (no number where there is no solution), figlet_font (ten right letters and
  any more), letter_jumble, word_sorting and fraction_simplification (the answer and more after it), intermediate_integration
  (the question inside `Integral`), propositional_logic (a premise), game_of_life (a larger board), gsm_symbolic (the first
  of many numbers, without its sign), decimal_arithmetic (0 for what is below .001; twelve digits are asked for),
  number_format (from level 2 on any candidate);
- do not end, or late: coin_flip ('1e999999999'), puzzle24 and countdown ('9**9**9**9'), rush_hour ('A+999999999'),
  rubiks_cube ('U999999999'), codeio (2 s for a JSON list of 300 objects).

Those have their rules in `_RULES` and `_SHAPES`; nothing that a policy writes is run. All other scores are the package's;
what it pays for trying (.01 to .1 for any text, shares for parts) is credit below 1, which accuracy drops unless it is told
`partial`.

The metadata that a scorer reads travels in `Example.tests`, see `pack`; `Example.kind` names the generator.
"""

import ast
import cmath
import contextlib
import dataclasses
import decimal
import enum
import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from r1jax.errors import UserError, nearest
from r1jax.rewards.answers import MAX_ANSWER_CHARS
from r1jax.rewards.base import Example, ExampleError
from r1jax.rewards.math import parse_number

TASK = 'reasoning_gym'
NOT_INSTALLED = "problems of reasoning-gym need that package, which is not installed here: pip install 'r1jax[gym]'"


def grade(answer: str | None, example: Example) -> float:
    """Returns what an answer (not a whole response) is worth: 1 if right, else the credit for parts of it, in [0, 1).

    No answer, and an empty one, is worth 0, and so is one that a scorer fails on. Raises ExampleError for an example that is
    not one of reasoning-gym, or whose own answer is wrong, and UserError without the package.
    """
    key = example.kind, example.tests if isinstance(example.tests, str) else '', example.answer, example.question
    problem = _problem(*key)
    if problem:
        raise ExampleError(problem, example)
    return _grade((answer or '').strip(), *key)


@functools.lru_cache(maxsize=1024)
def _problem(kind: str, tests: str, gold: str, question: str) -> str | None:
    """Returns what is wrong with an example, or None; so that what comes of a broken one is never a mere 0."""
    try:
        level, config, metadata = unpack(tests)
        if kind not in _RULES:
            dataset(kind, level, config)
    except (TypeError, ValueError, KeyError) as error:
        return f'has no metadata of reasoning-gym, or none of its generators ({type(error).__name__}: {error})'
    if not gold:
        return None if _WITHOUT_GOLD.get(kind) in metadata else f'has no gold answer, or is broken (generator {kind!r})'
    return None if _grade(gold.strip(), kind, tests, gold, question) == 1 else f'has a gold answer that is wrong: {gold!r}'


def _grade(answer: str, kind: str, tests: str, gold: str, question: str) -> float:
    if not answer or len(answer) > max(MAX_ANSWER_CHARS, 2 * len(gold)):
        return 0.0
    level, config, metadata = unpack(tests)
    try:
        if kind in _RULES:
            return float(_RULES[kind](answer, gold, metadata))
        if _lines(answer) == _lines(gold):
            answer = gold  # with whatever spaces its scorer counts
        elif kind in _SHAPES and not _SHAPES[kind].fullmatch(answer):
            return 0.0
        scorer = dataset(kind, level, config)
        # Some print what they find wrong, and some set the precision of decimal numbers.
        with contextlib.redirect_stdout(None), decimal.localcontext(decimal.Context()):
            score = float(scorer.score_answer(answer, {'question': question, 'answer': gold, 'metadata': metadata}))
    except Exception:  # whatever third parties raise at what a policy writes; `_problem` has tried the example itself
        return 0.0
    return score if 0 <= score <= 1 else 0.0  # beyond 1, or NaN, a formula has left its range: no answer is more than right


# --- what travels with an example ---------------------------------------------------------------------------


def pack(level: int | None, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Returns the JSON text in which an example carries what its scorer needs; TypeError for what has no such form.

    level: of the generator's curriculum, None for its defaults. config: fields set beside. Tuples and dicts with other keys
    than strings come back as such, which JSON alone would lose.
    """
    return json.dumps({'level': level, 'config': _plain(config), 'metadata': _plain(metadata)}, ensure_ascii=False)


def unpack(tests: str | list) -> tuple[int | None, dict[str, Any], dict[str, Any]]:
    """Returns (level, config, metadata) of `pack`, fresh objects; TypeError, ValueError or KeyError for another text."""
    packed = json.loads(tests)
    return packed['level'], _restored(packed['config']), _restored(packed['metadata'])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and not value.keys() & {'tuple', 'dict'}:
            return {key: _plain(item) for key, item in value.items()}
        return {'dict': [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {'tuple': [_plain(item) for item in value]}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if type(value).__module__ == 'numpy':
        return _plain(value.tolist())
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {'tuple'}:
        return tuple(_restored(value['tuple']))
    if value.keys() == {'dict'}:
        return {_restored(key): _restored(item) for key, item in value['dict']}
    return {key: _restored(item) for key, item in value.items()}


def dataset(generator: str, level: int | None, config: Mapping[str, Any]) -> Any:
    """Returns a dataset of reasoning-gym, the same object for the same arguments.

    Raises UserError without the package, for an unknown generator or field, and for settings that the generator refuses.
    """
    return _dataset(generator, level, json.dumps(_plain(config), sort_keys=True))


@functools.lru_cache(maxsize=256)
def _dataset(generator: str, level: int | None, config: str) -> Any:
    return make_dataset(generator, level, _restored(json.loads(config)), seed=0, size=1)


def load(examples: Iterable[Example]) -> None:
    """Imports the package and makes the datasets that score these examples, which takes seconds; the others are left alone.

    Whatever is wrong with an example is for `grade` to tell.
    """
    for example in examples:
        if example.task == TASK and example.kind not in _RULES:
            with contextlib.suppress(TypeError, ValueError, KeyError, UserError):
                dataset(example.kind, *unpack(example.tests)[:2])


def forget() -> None:
    """Drops the datasets that `dataset` keeps: one that has raised may be spoilt (word_ladder ends itself)."""
    _dataset.cache_clear()


def make_dataset(generator: str, level: int | None, config: Mapping[str, Any], *, seed: int, size: int) -> Any:
    """Returns a new dataset of `size` entries, of which entry i is drawn by seed + i; raises as `dataset` does."""
    try:
        import reasoning_gym  # noqa: F401  (its datasets register themselves)
        from reasoning_gym.factory import CURRICULA, DATASETS
    except ModuleNotFoundError as error:
        raise UserError(NOT_INSTALLED) from error
    if generator not in DATASETS:
        raise KeyError(generator)
    dataset_class, config_class = DATASETS[generator]
    known = {field.name for field in dataclasses.fields(config_class)} - {'seed', 'size'}
    for name in config:
        if name not in known:
            raise UserError(f'reasoning-gym: {generator} has no setting {name!r}{nearest(name, known)}')
    try:
        if level is None:
            settings = config_class(seed=seed, size=size)
        else:
            curriculum = CURRICULA[generator]()
            curriculum.set_global_level(level)
            settings = curriculum.generate_configuration({'seed': seed, 'size': size})
        typed = {
            name: type(old)(value) if isinstance(old := getattr(settings, name), enum.Enum) else value
            for name, value in config.items()}
        return dataset_class(dataclasses.replace(settings, **typed))
    except Exception as error:
        asked = ({} if level is None else {'difficulty': level}) | dict(config)
        shown = ', '.join(f'{name}={value}' for name, value in asked.items())
        raise UserError(f'reasoning-gym refuses {generator} with {shown}: {error or type(error).__name__}') from None


# --- rules --------------------------------------------------------------------------------------------------


class _Refused(ValueError):
    """The answer is no expression of the wanted kind."""


def _lines(text: str) -> str:
    """The text without spaces at its ends and at those of its lines."""
    return '\n'.join(line.rstrip() for line in text.strip().splitlines())


def _same_text(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    del metadata
    return _lines(answer) == _lines(gold)


def _same_word(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    del metadata
    return answer.casefold() == gold.strip().casefold()


def _same_number(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    del metadata
    return parse_number(answer) == parse_number(gold) is not None


def _same_json(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """The same JSON value, whatever its layout and the order of keys; 1.0 is 1, and true is not."""
    return _same_text(answer, gold, metadata) or _json_form(answer) == _json_form(gold)


def _json_form(text: str) -> str:
    def number(digits: str) -> int | float:
        value = float(digits)
        return int(value) if value.is_integer() else value

    return json.dumps(json.loads(text, parse_float=number), sort_keys=True)


def _same_list(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """Lists of numbers, or of texts that are numbers, in one order."""
    del metadata
    lists = [json.loads(text.replace("'", '"')) for text in (answer, gold)]
    numbers, wanted = ([parse_number(str(item)) for item in some] for some in lists)
    return None not in numbers and numbers == wanted


def _same_bits(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    del metadata
    return int(answer, 0) == int(gold, 0)


def _near(parts: int) -> Callable[[str, str, Mapping[str, Any]], bool]:
    """A fraction or a decimal, right to one in so many parts of it."""

    def right(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
        del metadata
        wanted = _number(gold)
        return abs(_number(answer) - wanted) <= abs(wanted) / parts

    return right


def _candidate(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """The number of the question that is nearest to the answer is the one asked for: some differ by .001."""
    del gold
    number, wanted = float(answer.replace(',', '')), metadata['solution']
    return abs(number - wanted) < 0.01 and wanted == min(metadata['candidates'], key=lambda other: abs(number - other))


def _words(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """Words between commas, in the order of the gold answer."""
    del metadata
    found, wanted = ([word.strip() for word in text.split(',')] for text in (answer, gold))
    return found == wanted


_FRACTION = re.compile(r'\$?\s*(?:\\d?frac\s*{\s*(\d+)\s*}\s*{\s*(\d+)\s*}|(\d+)\s*/\s*(\d+))\s*\$?')


def _simplified(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """One fraction, plain or in LaTeX, in its lowest terms."""
    del gold
    match = _FRACTION.fullmatch(answer)
    wanted = metadata['simplified_numerator'], metadata['simplified_denominator']
    return match is not None and tuple(int(digits) for digits in match.groups() if digits) == wanted


def _roots(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """All real solutions, to the last of four decimals (the question rounds in its own way); '""' where there is none."""
    del metadata
    if gold == NO_ROOTS:
        return answer == NO_ROOTS
    found, wanted = (sorted(_number(part) for part in text.split(',')) for text in (answer, gold))
    return len(found) == len(wanted) and all(abs(a - b) <= Fraction(1, 10_000) for a, b in zip(found, wanted, strict=True))


NO_ROOTS = '""'  # what the question wants written where an equation has no real solution


def _number(text: str) -> Fraction:
    number = parse_number(text)
    if number is None:
        raise _Refused(text)
    return number


def _queens(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    del gold
    return '\n'.join(' '.join(line.split()) for line in answer.splitlines()) in metadata['valid_answers']


def _makes(target: Callable[[Mapping[str, Any]], int]) -> Callable[[str, str, Mapping[str, Any]], bool]:
    """An expression of the four operations that uses each number of the question once, and is exactly the target."""

    def right(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
        del gold
        numbers: list[int] = []
        value = _arithmetic(_expression(answer), numbers)
        return sorted(numbers) == sorted(metadata['numbers']) and value == target(metadata)

    return right


def _expression(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode='eval').body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Refused(f'no expression: {error}') from None


_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def _arithmetic(node: ast.expr, numbers: list[int]) -> Fraction:
    match node:
        case ast.Constant(value=int() as value) if type(value) is int:
            numbers.append(value)
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_arithmetic(operand, numbers)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_arithmetic(left, numbers), _arithmetic(right, numbers))
    raise _Refused(f'{type(node).__name__} is no arithmetic')


# --- polynomials and integrals ---

Polynomial = dict[tuple[tuple[str, int], ...], Fraction]  # ((variable, power), ...) in alphabetical order -> coefficient


def _polynomial_product(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """A sum of monomials, which the question (a product of sums) is not."""
    del metadata
    return _polynomial(_expression(answer)) == _polynomial(_expression(gold))


def _polynomial(node: ast.expr) -> Polynomial:
    terms = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):  # a loop, for sums of hundreds of terms
        terms.append((_OPERATIONS[type(node.op)], _polynomial(node.right)))
        node = node.left
    total = _summand(node)
    for operation, term in reversed(terms):
        for powers, c in term.items():
            total[powers] = operation(total.get(powers, Fraction(0)), c)
    return {powers: c for powers, c in total.items() if c}


def _summand(node: ast.expr) -> Polynomial:
    match node:
        case ast.Constant(value=int() as value) if type(value) is int:
            return {(): Fraction(value)} if value else {}
        case ast.Name(id=name):
            return {((name, 1),): Fraction(1)}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return {powers: -c for powers, c in _polynomial(operand).items()}
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _monomials(_polynomial(left), _polynomial(right))
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)) if 0 <= power <= 64:
            product: Polynomial = {(): Fraction(1)}
            for _ in range(power):
                product = _monomials(product, _polynomial(left))
            return product
    raise _Refused(f'{type(node).__name__} is no part of a sum of monomials')


def _monomials(left: Polynomial, right: Polynomial) -> Polynomial:
    if len(left) > 1 or len(right) > 1:
        raise _Refused('a product of sums is left')
    product: Polynomial = {}
    for (a, c), (b, d) in itertools.product(left.items(), right.items()):
        powers: dict[str, int] = {}
        for name, power in (*a, *b):
            powers[name] = powers.get(name, 0) + power
        product[tuple(sorted(powers.items()))] = c * d
    return product


# Where derivatives are compared: on both sides of 0 and of 1, where the functions of the questions change their branches.
_POINTS = (-2.3, -1.21, -0.83, -0.37, 0.17, 0.43, 0.71, 1.13, 1.87, 2.9)
_CLOSE = 1e-8

_FUNCTIONS: dict[str, tuple[Callable[[complex], complex], Callable[[complex], complex]]] = {
    'sin': (cmath.sin, cmath.cos),
    'cos': (cmath.cos, lambda z: -cmath.sin(z)),
    'tan': (cmath.tan, lambda z: 1 / cmath.cos(z) ** 2),
    'cot': (lambda z: 1 / cmath.tan(z), lambda z: -1 / cmath.sin(z) ** 2),
    'sec': (lambda z: 1 / cmath.cos(z), lambda z: cmath.sin(z) / cmath.cos(z) ** 2),
    'csc': (lambda z: 1 / cmath.sin(z), lambda z: -cmath.cos(z) / cmath.sin(z) ** 2),
    'exp': (cmath.exp, cmath.exp),
    'log': (cmath.log, lambda z: 1 / z),
    'ln': (cmath.log, lambda z: 1 / z),
    'sqrt': (cmath.sqrt, lambda z: 0.5 / cmath.sqrt(z)),
    'asin': (cmath.asin, lambda z: 1 / cmath.sqrt(1 - z * z)),
    'acos': (cmath.acos, lambda z: -1 / cmath.sqrt(1 - z * z)),
    'atan': (cmath.atan, lambda z: 1 / (1 + z * z)),
    'sinh': (cmath.sinh, cmath.cosh),
    'cosh': (cmath.cosh, cmath.sinh),
    'tanh': (cmath.tanh, lambda z: 1 / cmath.cosh(z) ** 2),
    # On the real line only; there it is analytic but at 0.
    'Abs': (lambda z: z if z.real >= 0 else -z, lambda z: 1.0 if z.real >= 0 else -1.0),
}
# Any constant will do for C, but not 0: C*x is no constant.
_CONSTANTS = {'C': 0.739, 'pi': math.pi, 'E': math.e}


def _antiderivative(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """Whether the derivative is the integrand, in numbers, at all points where those of the gold answer agree."""
    variable = metadata['variable']
    tree, right, integrand = (_expression(text) for text in (answer, gold, metadata['integrand']))
    compared = 0
    for x in _POINTS:
        try:
            wanted = _derivative(integrand, variable, x)[0]
            usable = _agree(_derivative(right, variable, x)[1], wanted)
        except (ArithmeticError, ValueError):
            usable = False
        if usable:
            if not _agree(_derivative(tree, variable, x)[1], wanted):
                return False
            compared += 1
    return compared >= len(_POINTS) // 2


def _agree(a: complex, b: complex) -> bool:
    return abs(a - b) <= _CLOSE * max(1, abs(a), abs(b))


def _derivative(node: ast.expr, variable: str, x: float) -> tuple[complex, complex]:
    """Returns (value, derivative) at x: forward differentiation, so nothing is ever simplified, which might not end.

    Raises _Refused for what is no elementary expression of the variable, ArithmeticError or ValueError where it has no
    value.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if type(value) is not bool:
            return complex(value), 0j
        case ast.Name(id=name) if name == variable:
            return complex(x), 1 + 0j
        case ast.Name(id=name) if name in _CONSTANTS:
            return complex(_CONSTANTS[name]), 0j
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value, slope = _derivative(operand, variable, x)
            return -value, -slope
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            value, slope = _derivative(argument, variable, x)
            function, derivative = _FUNCTIONS[name]
            return function(value), derivative(value) * slope
        case ast.BinOp(left=left, op=op, right=right):
            a, da = _derivative(left, variable, x)
            b, db = _derivative(right, variable, x)
            match op:
                case ast.Add():
                    return a + b, da + db
                case ast.Sub():
                    return a - b, da - db
                case ast.Mult():
                    return a * b, da * b + a * db
                case ast.Div():
                    return a / b, (da - a / b * db) / b
                case ast.Pow():
                    slope = (b * a ** (b - 1) * da if da else 0j) + (a**b * cmath.log(a) * db if db else 0j)
                    return a**b, slope
    raise _Refused(f'{type(node).__name__} is no part of an elementary function')


# --- propositions ---

_PRECEDENCE = ('↔', '→', '∨', '∧')
_TOKEN = re.compile(r'\s*([A-Z]|[↔→∨∧¬()])')


def _conclusion(answer: str, gold: str, metadata: Mapping[str, Any]) -> bool:
    """Whether the answer follows from all premises, from no single one of them, and is not just some of them together.

    So neither a tautology nor a premise, as it is or weakened, is a conclusion; premises that contradict each other have
    none.
    """
    del gold
    return _concludes(metadata['variables'], tuple(metadata['premises']))(answer)


def find_conclusion(metadata: Mapping[str, Any]) -> str | None:
    """Returns a conclusion that `grade` finds right: the package's, or one of two variables at most; None if none is."""
    concludes = _concludes(metadata['variables'], tuple(metadata['premises']))
    literals = [sign + name for name in metadata['variables'] for sign in ('', '¬')]
    pairs = (f'({a} {operator} {b})' for a, b in itertools.combinations(literals, 2) for operator in _PRECEDENCE)
    return next((text for text in itertools.chain([metadata['example_answer']], literals, pairs) if concludes(text)), None)


def _concludes(names: list[str], texts: tuple[str, ...]) -> Callable[[str], bool]:
    everything = (1 << 2 ** len(names)) - 1
    truths = {name: sum(1 << i for i in range(2 ** len(names)) if i >> place & 1) for place, name in enumerate(names)}
    premises = [_proposition(text, truths, everything) for text in texts]
    joined = {everything}
    for premise in premises:
        joined |= {some & premise for some in joined}
    together = functools.reduce(lambda a, b: a & b, premises, everything)

    def concludes(text: str) -> bool:
        cases = _proposition(text, truths, everything)
        return bool(together) and not together & ~cases and cases not in joined and all(p & ~cases for p in premises)

    return concludes


def _proposition(text: str, truths: Mapping[str, int], everything: int) -> int:
    """Returns the cases in which a proposition is true, a bit for each. ¬ binds strongest, then ∧, ∨, →, ↔, from the left.
    """
    tokens, end = [], 0
    for token in iter(lambda: _TOKEN.match(text, end), None):
        tokens.append(token[1])
        end = token.end()
    if text[end:].strip():
        raise _Refused(f'no proposition: {text[end:]!r}')
    tokens.append('')

    def operand() -> int:
        token = tokens.pop(0)
        if token == '¬':
            return everything & ~operand()
        if token == '(':
            value = binary(0)
            if tokens.pop(0) != ')':
                raise _Refused('a parenthesis stays open')
            return value
        if token not in truths:
            raise _Refused(f'{token!r} is no variable of the question')
        return truths[token]

    def binary(level: int) -> int:
        if level == len(_PRECEDENCE):
            return operand()
        left = binary(level + 1)
        while tokens[0] == _PRECEDENCE[level]:
            operator = tokens.pop(0)
            right = binary(level + 1)
            left = {'↔': everything & ~(left ^ right), '→': everything & ~left | right, '∨': left | right,
                    '∧': left & right}[operator]
        return left

    value = binary(0)
    if tokens != ['']:
        raise _Refused('more than one proposition')
    return value


# All or nothing, in place of the package's scorers: (answer, gold answer, metadata) -> whether it is right.
_RULES: dict[str, Callable[[str, str, Mapping[str, Any]], bool]] = {
    'binary_matrix': _same_text,
    'bitwise_arithmetic': _same_bits,
    'codeio': _same_json,
    'coin_flip': _near(1000),
    'countdown': _makes(lambda metadata: metadata['target']),
    'decimal_arithmetic': _near(10**6),
    'figlet_font': _same_word,
    'fraction_simplification': _simplified,
    'game_of_life': _same_json,
    'game_of_life_halting': _same_word,
    'gsm_symbolic': _same_number,
    'intermediate_integration': _antiderivative,
    'letter_jumble': _same_word,
    'n_queens': _queens,
    'number_format': _candidate,
    'number_sorting': _same_list,
    'polynomial_equations': _roots,
    'polynomial_multiplication': _polynomial_product,
    'propositional_logic': _conclusion,
    'puzzle24': _makes(lambda metadata: 24),
    'simple_integration': _antiderivative,
    'spiral_matrix': _same_text,
    'string_insertion': _same_text,
    'word_sorting': _words,
}

# The generators that give no solution, and what their scorers read of the metadata.
_WITHOUT_GOLD = {'boxnet': 'initial_state', 'rush_hour': 'board_config'}

# What an answer must look like before the package's scorer sees it.
_SHAPES = {
    'complex_arithmetic': re.compile(r'[-+\d.()ij\s]+'),
    # No numbers of two digits or more, which both take for a number of moves.
    'rubiks_cube': re.compile(r'(?:\D|\d(?!\d))+'),
    'rush_hour': re.compile(r'(?:\D|\d(?!\d))+'),
    # One duration: the first number would do for days, whatever follows it.
    'time_intervals': re.compile(r'\d+|(?:-?\d+ days?)?,? ?(?:\d+:\d+(?::\d+(?:\.\d+)?)?)?'),
}
