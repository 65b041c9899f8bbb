"""Tiny functions, `def f(x): return x*3+4`, graded against asserts without running anything.

The answer and the asserts are read with `ast` and worked out by a small interpreter that knows integers,
arithmetic, comparisons and if-expressions, with bounded size, so that no answer can hang, crash or reach
anything. The tiny world's programs are such functions (task 'function'), so that its experiments run where no sandbox
can; all other programs are `code.py`'s.
"""

import ast
import dataclasses
import functools
import operator
import re

MAX_SOURCE_CHARS = 2000
MAX_NODES = 300
MAX_BITS = 256

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_UNARY = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_FENCED = re.compile(r'```(?:python|py)?[ \t]*\n?(.*?)```', re.DOTALL)


class Refused(ValueError):
    """The source is outside the tiny language, or its value outside the bounds."""


@dataclasses.dataclass(frozen=True)
class Function:
    """One function: its name, the names of its arguments, and the expression it returns."""

    name: str
    arguments: tuple[str, ...]
    body: ast.expr


def parse_function(source: str) -> Function:
    """Parses a single `def NAME(ARGUMENTS): return EXPRESSION`, in a code fence or not; raises Refused."""
    if fenced := _FENCED.fullmatch(source.strip()):
        source = fenced[1]
    statements = _parse(source)
    if len(statements) != 1 or not isinstance(statements[0], ast.FunctionDef):
        raise Refused('not a single function definition')
    function = statements[0]
    arguments = tuple(argument.arg for argument in function.args.args)
    plain = ast.arguments(posonlyargs=[], args=function.args.args, kwonlyargs=[], kw_defaults=[], defaults=[])
    if (
        ast.dump(function.args) != ast.dump(plain)
        or any(argument.annotation for argument in function.args.args)
        or len(set(arguments)) != len(arguments)
        or function.decorator_list
        or function.returns
    ):
        raise Refused('a function of plain arguments is wanted')
    match function.body:
        case [ast.Return(value=ast.expr() as body)]:
            _check(body, names=arguments, calls=False)
            return Function(function.name, arguments, body)
    raise Refused('the body must be one return of a value')


@functools.lru_cache(maxsize=4096)
def parse_tests(tests: str) -> tuple[tuple[ast.expr, ...], str]:
    """Parses asserts such as `assert f(2) == 10`; returns (their conditions, the one function they call).

    Raises Refused for no assert, for anything but asserts, for a condition outside the tiny language (which
    only adds calls), or for calls of more than one function.
    """
    statements = _parse(tests)
    conditions = tuple(statement.test for statement in statements if isinstance(statement, ast.Assert))
    if not conditions or len(conditions) != len(statements):
        raise Refused('the tests must be asserts and nothing else')
    called = set().union(*(_check(condition, names=(), calls=True) for condition in conditions))
    if len(called) != 1:
        raise Refused('the tests must call one function')
    return conditions, called.pop()


def passes(answer: str, tests: str) -> bool:
    """Whether `answer` is a tiny function that every assert of `tests` holds for; Refused for bad tests."""
    conditions, name = parse_tests(tests)
    try:
        function = parse_function(answer)
        return function.name == name and all(_evaluate(condition, {}, function) for condition in conditions)
    except Refused:
        return False


def normal_form(answer: str) -> str | None:
    """Returns the function in one spelling (spaces, parentheses, fences aside); None if it is not tiny."""
    try:
        function = parse_function(answer)
    except Refused:
        return None
    return f'def {function.name}({", ".join(function.arguments)}): return {ast.unparse(function.body)}'


def _parse(source: str) -> list[ast.stmt]:
    if len(source) > MAX_SOURCE_CHARS:
        raise Refused('too long')
    try:
        return ast.parse(source.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f'not Python: {error}') from None


def _check(expression: ast.expr, names: tuple[str, ...], calls: bool) -> set[str]:
    """Raises Refused unless every node belongs to the tiny language; returns the functions called."""
    called: set[str] = set()
    functions: set[int] = set()
    for count, node in enumerate(ast.walk(expression)):  # parents come before their children
        if count >= MAX_NODES:
            raise Refused('too many parts')
        match node:
            case ast.Constant(value=bool() | int()):
                _bounded(node.value)
            case ast.Name(id=name) if id(node) in functions or name in names:
                pass
            case ast.Call(func=ast.Name(id=name), keywords=[]) if calls:
                called.add(name)
                functions.add(id(node.func))
            case ast.BinOp() if type(node.op) in _BINARY:
                pass
            case ast.UnaryOp() if type(node.op) in _UNARY:
                pass
            case ast.Compare() if all(type(op) in _COMPARISONS for op in node.ops):
                pass
            case ast.IfExp() | ast.operator() | ast.unaryop() | ast.cmpop() | ast.expr_context():
                pass
            case _:
                raise Refused(f'{type(node).__name__} is not part of the tiny language')
    return called


def _evaluate(node: ast.expr, values: dict[str, int], function: Function | None) -> int:
    """Works out a checked expression; `function` is what calls call. The nodes bound the time."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return values[node.id]
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_evaluate(node.operand, values, function))
        case ast.BinOp():
            left, right = _evaluate(node.left, values, function), _evaluate(node.right, values, function)
            if isinstance(node.op, ast.Pow) and (right < 0 or left.bit_length() * right > MAX_BITS):
                raise Refused('the power is not a small integer')
            if isinstance(node.op, ast.FloorDiv | ast.Mod) and right == 0:
                raise Refused('division by zero')
            return _bounded(_BINARY[type(node.op)](left, right))
        case ast.Compare():
            left = _evaluate(node.left, values, function)
            for comparison, comparator in zip(node.ops, node.comparators, strict=True):
                right = _evaluate(comparator, values, function)
                if not _COMPARISONS[type(comparison)](left, right):
                    return False
                left = right
            return True
        case ast.IfExp():
            chosen = node.body if _evaluate(node.test, values, function) else node.orelse
            return _evaluate(chosen, values, function)
        case ast.Call():
            arguments = [_evaluate(argument, values, function) for argument in node.args]
            if len(arguments) != len(function.arguments):
                raise Refused('another number of arguments')
            return _evaluate(function.body, dict(zip(function.arguments, arguments, strict=True)), None)
    raise Refused(f'{type(node).__name__} has no value')


def _bounded(value: int) -> int:
    if value.bit_length() > MAX_BITS:
        raise Refused('the number is too big')
    return value
