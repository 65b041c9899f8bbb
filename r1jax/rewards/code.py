"""Programs in Python, graded by running them against the example's tests in a sandbox.

Tests are one of:

    asserts     a text, or a list of texts, such as MBPP's; also whole programs that assert: HumanEval's `check(candidate)`
                with its call, functions `test_...` without arguments, set-up code before them
    cases       a list of {stdin, stdout} (or {input, output}), or its JSON, or {inputs, outputs} as in APPS and TACO

The process that runs asserts is not the one that runs the program: names which the tests take from the program are called
across a socket, and plain data comes back (`sandbox_inside.Wire`). So nothing the program does to its own interpreter (other
builtins, frames, objects that equal everything, an early exit) reaches the asserts: it sees the arguments of the calls, and
never what is expected. That a program is a table of the answers to inputs that its prompt showed, no sandbox can tell.

Compared with running both in one process: an object of a class of the program's equals only itself for the tests, and is
not ordered or added to anything; its attributes, items, methods and iteration work. An exception of a class of the program's
is the nearest one of Python's own.
"""

import ast
import atexit
import builtins
import contextlib
import dataclasses
import functools
import json
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

import numpy as np

from r1jax.errors import UserError
from r1jax.rewards import worker
from r1jax.rewards.base import Example, ExampleError
from r1jax.rewards.sandbox import Job, Limits, Run, Sandbox, isolation

# All cases of one program together may take this many times what one may.
CASES_TIMES = 5
MAX_PROGRAM_CHARS = 100_000
# How often a pool is told, in seconds, that programs are still running within their limits.
CLOCK_S = 0.2
# Printed numbers with a decimal point may differ by this much, absolutely or relatively, as in most contests' checkers.
TOLERANCE = 1e-6

# What a program comes to. 'failed': a test told it wrong. 'error': an exception, an exit, a crash. 'output': too much of it.
STATUSES = ('passed', 'failed', 'error', 'timeout', 'memory', 'output', 'no code')

_FENCE = re.compile(r'^([ \t]*)(`{3,}|~{3,})[ \t]*([A-Za-z0-9_+-]*)[^`\n]*$', re.MULTILINE)
_PYTHON = frozenset({'', 'py', 'python', 'python3'})
_DECIMAL = re.compile(r'[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?', re.ASCII)
_PASSED, _FAILED = '_passed_', '_failed_'


# --- programs ---------------------------------------------------------------------------------------------


def last_block(text: str) -> str | None:
    """Returns the last closed fenced block that is Python or of no language, without indentation; None if there is none."""
    found, opening = None, None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[2].startswith(opening[2]) and not fence[3]:
            if opening[3].lower() in _PYTHON:
                found = textwrap.dedent(text[opening.end() + 1:fence.start()])
            opening = None
    return found


def program_of(answer: str) -> str | None:
    """Returns the program of an answer: its last fenced block, the whole of an answer without fences, or None."""
    program = last_block(answer)
    if program is None and not _FENCE.search(answer):
        program = answer
    return program if program and program.strip() and len(program) <= MAX_PROGRAM_CHARS else None


# --- tests ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Asserts:
    """Tests as one program. names: what it takes from the program under test. modules: what it takes from the standard
    library without importing it. total: its asserts that say something."""

    source: str
    names: tuple[str, ...]
    modules: tuple[str, ...]
    total: int


@dataclasses.dataclass(frozen=True)
class Cases:
    """What a program reads and what it has to write, case by case."""

    pairs: tuple[tuple[str, str], ...]


def read_tests(tests: str | list, partial: bool = False) -> Asserts | Cases:
    """Returns tests of any of the forms above; ValueError, which goes on after 'tests that', for what is none of them.

    partial: asserts outside `try` go on after a failure, so that they can be counted.
    """
    if isinstance(tests, str) and tests.lstrip()[:1] in ('[', '{'):
        try:
            tests = json.loads(tests)
        except ValueError:
            pass  # Python may begin so, too
    if isinstance(tests, dict):
        tests = _columns(tests)
    if isinstance(tests, list) and all(isinstance(test, str) for test in tests):
        tests = '\n'.join(tests)
    return _read_asserts(tests, partial) if isinstance(tests, str) else Cases(tuple(map(_read_case, tests)))


def check(example: Example) -> None:
    """Raises ExampleError unless the example's tests can be read, and UserError where no sandbox works."""
    _read(example, partial=False)
    isolation()


def with_a_test(question: str, tests: str) -> str:
    """Returns the question, with the first assert below it where it names nothing of what asserts take from a program.

    Nobody could answer it otherwise: MBPP's questions leave the name of the function to its tests.
    """
    try:
        asserts = _read_text(tests)
    except ValueError:
        return question  # `check` tells
    if isinstance(asserts, Cases) or any(re.search(rf'\b{name}\b', question) for name in asserts.names):
        return question
    shown = next((node for node in ast.parse(tests).body if isinstance(node, ast.Assert)), None)
    return f'{question}\n\nYour code should pass this test:\n\n{ast.unparse(shown)}' if shown else question


def _read(example: Example, partial: bool) -> Asserts | Cases:
    try:
        tests = example.tests
        if isinstance(tests, str):
            return _read_text(tests, partial)
        return read_tests(tests, partial)
    except ValueError as error:
        raise ExampleError(f'has tests that {error}', example) from None


_read_text = functools.lru_cache(maxsize=1024)(read_tests)


def _columns(tests: dict) -> list:
    given, wanted = tests.get('inputs'), tests.get('outputs')
    if tests.get('fn_name'):
        raise ValueError(f"call a function by the field fn_name ({tests['fn_name']!r}): write them as asserts")
    if not isinstance(given, list) or not isinstance(wanted, list) or len(given) != len(wanted):
        raise ValueError('are an object without as many inputs as outputs')
    return [{'stdin': stdin, 'stdout': stdout} for stdin, stdout in zip(given, wanted, strict=True)]


def _read_case(case: object) -> tuple[str, str]:
    if not isinstance(case, dict):
        raise ValueError('are neither all texts nor all {stdin, stdout}')
    texts = []
    for names in (('stdin', 'input'), ('stdout', 'output')):
        text = next((case[name] for name in names if name in case), None)
        if isinstance(text, list) and all(isinstance(line, str) for line in text):
            text = '\n'.join(text)
        if not isinstance(text, str):
            raise ValueError(
                f"have a case without a text under '{names[0]}' (it has {', '.join(map(str, case)) or 'nothing'})")
        texts.append(text)
    return texts[0], texts[1]


def _read_asserts(source: str, partial: bool) -> Asserts:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of escapes that are none, which Python tells on the terminal
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'are not Python ({error})') from None
    nodes = list(ast.walk(tree))
    total = sum(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in nodes)
    if not total:
        raise ValueError('have no assert that says anything')
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if 'check' in defined and 'check' not in called:
        raise ValueError('define check(candidate) and never call it: add check(NAME) with the name of the function')
    for name, function in defined.items():
        if name.startswith('test') and name not in called and ast.dump(function.args) == ast.dump(_NO_ARGUMENTS):
            tree.body.append(ast.parse(f'{name}()').body[0])
    names, modules = _taken(tree)
    tree = ast.fix_missing_locations(_Counting(partial).visit(tree))
    return Asserts(ast.unparse(tree), names, modules, total)


_NO_ARGUMENTS = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])


def _taken(tree: ast.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names that tests use without binding them, sorted: those of the program, those of standard modules.

    A builtin is Python's own, for a program must not give the tests another `abs`. Only where the tests take nothing else
    from it is the innermost builtin that the first assert calls the program's: MBPP asks for a function called sum.
    """
    bound, loaded, modules = set(), set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loaded.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str() as name):
                bound.add(name)
            case ast.alias(name=name, asname=other):
                bound.add(other or name.partition('.')[0])
            case ast.Attribute(value=ast.Name(id=name)) if name in sys.stdlib_module_names:
                modules.add(name)
    free = loaded - bound - set(dir(builtins)) - {'__name__'}
    names = free - modules
    if not names:
        first = next(node for node in ast.walk(tree) if isinstance(node, ast.Assert))
        names = {call.func.id for call in ast.walk(first) if _innermost(call) and call.func.id not in bound}
    if not names:
        raise ValueError('call nothing of the program')
    return tuple(sorted(names)), tuple(sorted(free & modules))


def _innermost(call: ast.AST) -> bool:
    return (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            and sum(isinstance(part, ast.Call) for part in ast.walk(call)) == 1)


class _Counting(ast.NodeTransformer):
    """Has every assert that says something report that it held, and in part also that it did not."""

    def __init__(self, partial: bool):
        self.partial = partial

    def visit_Assert(self, node: ast.Assert) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Constant):
            return node
        passed = ast.parse(f'{_PASSED}()').body[0]
        if not self.partial:
            return [node, passed]
        failed = ast.parse(f'try: pass\nexcept Exception as {_FAILED}error_: {_FAILED}({_FAILED}error_)').body[0]
        failed.body, failed.orelse = [node], [passed]
        return failed

    def visit_Try(self, node: ast.Try) -> ast.AST:
        # An assert may be there to be caught.
        outside, self.partial = self.partial, False
        self.generic_visit(node)
        self.partial = outside
        return node


# --- grading ----------------------------------------------------------------------------------------------


def grade(
    programs: Sequence[str | None], examples: Sequence[Example], *, partial: bool = False,
    timeout_s: int = Limits.cpu_s
) -> tuple[np.ndarray, list[str]]:
    """Runs each program against its example's tests, side by side.

    Returns credits, float32 [B], and what each program came to, one of STATUSES. A credit is 1 if all tests pass, else 0;
    with `partial` the share of asserts or cases that do. timeout_s: what a program, or each of its cases, may take of CPU;
    twice that on the wall. Raises ExampleError for tests that cannot be read, before any
    program is run, and UserError where no sandbox works.
    """
    tests = [_read(example, partial) for example in examples]
    limits = Limits(cpu_s=timeout_s, wall_s=2.0 * timeout_s)
    credits_B, statuses = np.zeros(len(programs), np.float32), ['no code'] * len(programs)
    trials = {
        index: (_try_asserts if isinstance(tests[index], Asserts) else _try_cases)(
            program, tests[index], partial, limits)
        for index, program in enumerate(programs) if program is not None}
    if not trials:
        return credits_B, statuses
    sandbox = _sandbox(isolation())
    running = {sandbox.submit(next(trial)): index for index, trial in trials.items()}
    while running:
        done, _ = wait(running, CLOCK_S, FIRST_COMPLETED)
        for future in done:
            index = running.pop(future)
            try:
                running[sandbox.submit(trials[index].send(future.result()))] = index
            except StopIteration as end:
                credits_B[index], statuses[index] = end.value
        # The limits bound each program's time, whatever it does: many slow ones are no reason to kill the grader.
        worker.restart_clock()
    return credits_B, statuses


Trial = Generator[Job, Run, tuple[float, str]]


def _try_asserts(program: str, tests: Asserts, partial: bool, limits: Limits) -> Trial:
    """Yields the one job of a program with asserts; returns its credit and status."""
    job = {'source': tests.source, 'names': tests.names, 'modules': tests.modules}
    run = yield Job(program, tests=job, limits=limits)
    verdict = run.verdict or {'passed': 0, 'failed': 0, 'status': 'lost', 'error': ''}
    passed, failed = verdict['passed'], verdict['failed']
    if run.status == 'ended' and verdict['status'] == 'done' and passed and not failed:
        return 1.0, 'passed'
    # In a loop an assert counts each time. Where something ended the tests early, what they had not reached has failed.
    tried = passed + failed if verdict['status'] == 'done' else max(tests.total, passed + failed + 1)
    credit = passed / tried if partial and tried else 0.0
    if run.status == 'timeout':
        return credit, 'timeout'
    if verdict['error'] == 'MemoryError':
        return credit, 'memory'
    told_wrong = failed or verdict['error'] == 'AssertionError' or verdict['status'] == 'done'
    return credit, 'failed' if told_wrong and verdict['status'] in ('done', 'raised') else 'error'


def _try_cases(program: str, tests: Cases, partial: bool, limits: Limits) -> Trial:
    """Yields a job for each case, up to the first that fails unless `partial`; a timeout is the last in any case."""
    right, status, spent = 0, 'passed', 0.0
    for stdin, stdout in tests.pairs:
        if spent > CASES_TIMES * limits.wall_s:
            status = 'timeout'
            break
        run = yield Job(program, stdin=stdin, limits=limits)
        spent += run.wall_s
        now = _status_of(run, stdout)
        right += now == 'passed'
        status = now if status == 'passed' else status
        if now == 'timeout' or now != 'passed' and not partial:
            break
    if status == 'passed':
        return 1.0, status
    return right / len(tests.pairs) if partial else 0.0, status


def _status_of(run: Run, stdout: str) -> str:
    if run.status != 'ended':
        return 'error' if run.status == 'lost' else run.status
    return 'passed' if same_output(run.output.decode(errors='replace'), stdout) else 'failed'


def same_output(output: str, wanted: str) -> bool:
    """Whether two outputs have the same words, whatever the space between them; numbers that are wanted with a decimal point
    may differ by TOLERANCE.
    """
    words, wanted_words = output.split(), wanted.split()
    return len(words) == len(wanted_words) and all(map(_same_word, words, wanted_words))


def _same_word(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    if '.' not in wanted or not (_DECIMAL.fullmatch(word) and _DECIMAL.fullmatch(wanted)):
        return False
    return abs(float(word) - float(wanted)) <= TOLERANCE * max(1.0, abs(float(wanted)))


def warm_up(examples: Sequence[Example]) -> None:
    """Starts the sandbox if there are programs to run, so that `grade` need not; what is wrong with it `grade` will tell."""
    if any(example.task == 'code' for example in examples):
        with contextlib.suppress(UserError):
            _sandbox(isolation())


@functools.lru_cache
def _sandbox(kind: str) -> Sandbox:
    """The sandbox of this process, kept warm; workers beside each other have one slot each."""
    slots = 1 if worker.inside() else os.cpu_count() or 1
    sandbox = Sandbox(slots, kind)
    atexit.register(sandbox.close)
    sandbox.run([Job('')] * slots)
    return sandbox
