"""Programs: what passes, what does not, what is refused, and every way we know of to be paid without solving anything."""

import ast
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.rewards import (
    Completion,
    Example,
    ExampleError,
    RewardMix,
    WorkerPool,
    canonical,
    code,
    get,
    is_correct,
    last_answer,
    sandbox,
)
from r1jax.rewards.accuracy import check_example


def failure(kind):
    try:
        return sandbox._failure(kind)
    except UserError as error:
        return str(error)


@pytest.fixture(params=sandbox.ISOLATIONS)
def kind(request, monkeypatch):
    """Every isolation that works on this machine."""
    if why := failure(request.param):
        pytest.skip(f'{request.param} does not work here: {why}')
    monkeypatch.setenv(sandbox.VARIABLE, request.param)
    return request.param


@pytest.fixture
def any_kind(monkeypatch):
    """The best isolation that works on this machine."""
    monkeypatch.setenv(sandbox.VARIABLE, next(kind for kind in sandbox.ISOLATIONS if not failure(kind)))


def asked(tests):
    return Example('q', task='code', tests=tests)


def grade(program, tests, **options):
    """(credit, status) of one program."""
    credits, statuses = code.grade([program], [asked(tests)], **options)
    return credits.item(), statuses[0]


# --- right and wrong --------------------------------------------------------------------------------------

SQUARE = 'assert f(3) == 9\nassert f(-2) == 4'
TREE = '''
root = Node(1)
root.left = Node(2)
root.left.left = Node(3)
assert height(root) == 3
assert height(root.left) == 2
assert height(None) == 0
assert root.left.value == 2
'''
NODE = 'class Node:\n  def __init__(self, value):\n    self.value = value; self.left = self.right = None\n'
HUMAN = "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    assert candidate([1.0, 2.0], 0.5) == 1.5\n" \
    '    assert abs(candidate([1.0], 1.0) - 1.0) < 1e-6\n\ncheck(mean)'
MEAN = 'def mean(xs, w): return sum(xs) * w'
RAISES = 'try:\n    f(-1)\n    assert False, "no error"\nexcept ValueError:\n    pass\nassert f(4) == 2'

PROGRAMS = [
    ('one line', 'def f(x): return x*x', SQUARE, 'passed'),
    ('a lambda', 'f = lambda x: x**2', SQUARE, 'passed'),
    ('a class that is called', 'class f:\n  def __new__(cls, x): return x*x', SQUARE, 'passed'),
    ('a partial', 'import functools, operator\nf = functools.partial(pow, exp=2)', SQUARE, 'passed'),
    ('decorated', 'import functools\n@functools.cache\ndef f(x): return x*x', SQUARE, 'passed'),
    ('a builtin', 'f = abs', 'assert f(-3) == 3', 'passed'),
    ('a float for an int', 'def f(x): return float(x*x)', SQUARE, 'passed'),
    ('a big number', 'def f(n): return 7**n', 'assert f(20000) % 1000 == 7**20000 % 1000\nassert f(2) == 49', 'passed'),
    ('not a number', 'def f(): return float("nan"), float("inf")', 'a, b = f()\nassert a != a and b > 1e308', 'passed'),
    ('complex', 'def f(x): return x*1j', 'assert f(2) == 2j', 'passed'),
    ('bytes', 'def f(x): return x[::-1]', 'assert f(b"ab") == b"ba"', 'passed'),
    ('text', 'def f(x): return x.upper()', "assert f('straße \\U0001F600') == 'STRASSE \\U0001F600'", 'passed'),
    ('a lone surrogate', 'def f(x): return x', "assert f('\\ud800') == '\\ud800'", 'passed'),
    ('nothing', 'def f(x): pass', 'assert f(1) is None', 'passed'),
    ('nested', 'def f(x): return {x: [(1, {2}), None]}', "assert f('a') == {'a': [(1, {2}), None]}", 'passed'),
    ('keys that are tuples', 'def f(x): return {(a, b): a*b for a, b in x}', 'assert f([(1, 2)]) == {(1, 2): 2}', 'passed'),
    ('a frozen set', 'def f(x): return frozenset(x)', 'assert f([1, 1]) == frozenset([1])', 'passed'),
    ('a Counter', 'from collections import Counter as f', "assert f('aab').most_common(1) == [('a', 2)]", 'passed'),
    ('an ordered dict', 'from collections import OrderedDict as f', 'assert list(f([(2, 1), (1, 2)])) == [2, 1]', 'passed'),
    ('a default dict',
     'from collections import defaultdict\ndef f(x):\n  d = defaultdict(list)\n  d[x].append(1)\n  return d',
     'assert f(3) == {3: [1]}', 'passed'),
    ('a deque', 'from collections import deque as f', 'from collections import deque\nassert f([1]) == deque([1])',
     'passed'),
    ('a named tuple', 'from collections import namedtuple\nP = namedtuple("P", "a b")\ndef f(x): return P(x, 1)',
     'assert f(3) == (3, 1)', 'passed'),
    ('a fraction', 'from fractions import Fraction\ndef f(x): return Fraction(1, x)',
     'from fractions import Fraction\nassert f(2) + f(3) == Fraction(5, 6)', 'passed'),
    ('a decimal', 'from decimal import Decimal as f', "from decimal import Decimal\nassert f('0.10') == Decimal('0.1')",
     'passed'),
    ('a date', 'import datetime\ndef f(y): return datetime.date(y, 1, 2)',
     'import datetime\nassert f(2024) == datetime.date(2024, 1, 2)', 'passed'),
    ('a range', 'def f(n): return range(n)', 'assert list(f(3)) == [0, 1, 2] and f(3) == range(3)', 'passed'),
    ('a type', 'def f(x): return type(x)', 'assert f(3) is int and f([]) == list', 'passed'),
    ('numbers of numpy', 'import numpy as np\ndef f(x): return np.sum(np.array(x))', 'assert f([1, 2]) == 3', 'passed'),
    ('a generator', 'def f(n):\n  for i in range(n): yield i', 'assert list(f(3)) == [0, 1, 2]\nassert sum(f(4)) == 6',
     'passed'),
    ('an endless generator', 'import itertools\ndef f(): return itertools.count(2)',
     'g = f()\nassert next(g) == 2 and next(g) == 3\nassert [a for a, _ in zip(f(), "ab")] == [2, 3]', 'passed'),
    ('a map', 'def f(x): return map(str, x)', "assert list(f([1, 2])) == ['1', '2']", 'passed'),
    ('dict views', 'def f(d): return d.keys()',
     "assert sorted(f({'b': 1, 'a': 2})) == ['a', 'b']\nassert len(f({1: 1})) == 1", 'passed'),
    ('in place', 'def f(x): x.sort()', 'a = [3, 1, 2]\nf(a)\nassert a == [1, 2, 3]', 'passed'),
    ('in place, deep', 'def f(m):\n  m["a"][0].append(4)\n  m["b"] = {1}', "m = {'a': [[3]]}\nr = m['a'][0]\nf(m)\n"
     "assert m == {'a': [[3, 4]], 'b': {1}} and r == [3, 4]", 'passed'),
    ('in place and returned', 'def f(x):\n  x.append(1)\n  return x', 'a = []\nassert f(a) is a and a == [1]', 'passed'),
    ('one list twice', 'def f(a, b):\n  a.append(1)\n  return b', 'a = []\nassert f(a, a) == [1]', 'passed'),
    ('a list in itself', 'def f(x):\n  x.append(x)\n  return x', 'a = f([])\nassert a[0] is a', 'passed'),
    ('keywords', 'def f(a, *b, c=1, **d): return a, b, c, d', 'assert f(1, 2, c=3, e=4) == (1, (2,), 3, {"e": 4})',
     'passed'),
    ('a function of functions', 'def f(g, xs): return [g(x) for x in xs]', 'assert f(lambda x: x+1, [1, 2]) == [2, 3]',
     'passed'),
    ('a builtin as an argument', 'def f(g, xs): return g(xs)', 'assert f(max, [1, 2]) == 2 and f(len, "ab") == 2', 'passed'),
    ('a function that comes back', 'def f(n): return lambda x: x+n', 'assert f(2)(3) == 5', 'passed'),
    ('a key', 'def f(xs, key): return sorted(xs, key=key)', 'assert f(["bb", "a"], lambda s: len(s)) == ["a", "bb"]',
     'passed'),
    ('a class of the program', NODE + 'def height(n): return 0 if n is None else 1 + max(height(n.left), height(n.right))',
     TREE, 'passed'),
    ('a class with methods', 'class Stack:\n  def __init__(self): self.x = []\n  def push(self, v): self.x.append(v)\n'
     '  def pop(self): return self.x.pop()\n  def __len__(self): return len(self.x)',
     's = Stack()\ns.push([1])\ns.push(2)\nassert len(s) == 2\nassert s.pop() == 2 and s.pop() == [1]\n'
     'assert not s', 'passed'),
    ('an object of its own class', 'class A: pass\na = A()\ndef f(): return a', 'assert f() is f() and f() == f()',
     'passed'),
    ('a class of the tests', 'def f(p):\n  p.x += 1\n  return p.total()',
     'class P:\n  def __init__(self): self.x, self.y = 1, 2\n  def total(self): return self.x + self.y\n'
     'p = P()\nassert f(p) == 4 and p.x == 2', 'passed'),
    ('iterators of the tests', 'def f(x): return sum(x)',
     'assert f(iter([1, 2])) == 3\nassert f(x for x in [1, 2]) == 3\nassert f(map(int, "12")) == 3', 'passed'),
    ('an exception that is wanted', 'def f(x):\n  if x < 0: raise ValueError("no")\n  return x**0.5', RAISES, 'passed'),
    ('a child of it', 'class No(ValueError): pass\ndef f(x):\n  if x < 0: raise No\n  return x**0.5', RAISES, 'passed'),
    ('set-up code', 'def f(x): return x*SCALE\nSCALE = 2', 'import math\nvalue = math.floor(2.5)\nassert f(value) == 4',
     'passed'),
    ('a module that the tests forget', 'import math\ndef f(x): return math.sqrt(x)', 'assert math.isclose(f(2), 2**.5)',
     'passed'),
    ("a builtin's name", 'def sum(a, b): return a*b', 'assert sum(2, 3) == 6\nassert sum(2, 2) == 4', 'passed'),
    ('check(candidate)', MEAN, HUMAN, 'passed'),
    ('functions that test', MEAN,
     'def test_one():\n    assert mean([2], 1) == 2\ndef test_two():\n    assert mean([], 1) == 0', 'passed'),
    ('threads', 'import threading\ndef f(x):\n  out = []\n  t = threading.Thread(target=out.append, args=(x*x,))\n'
     '  t.start()\n  t.join()\n  return out[0]', SQUARE, 'passed'),
    ('a dataclass', 'from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n  x: int\n'
     'def f(x): return P(x*x).x', SQUARE, 'passed'),
    ('a main part', 'def f(x): return x*x\nif __name__ == "__main__": print(f(int(input())))', SQUARE, 'passed'),
    ('noise', 'print("x" * 10_000_000)\ndef f(x):\n  print(x)\n  return x*x', SQUARE, 'passed'),
    ('deep recursion', 'import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return 0 if n == 0 else 1 + f(n-1)',
     'assert f(50_000) == 50_000', 'passed'),

    ('wrong', 'def f(x): return x+x', SQUARE, 'failed'),
    ('right once', 'def f(x): return 9', SQUARE, 'failed'),
    ('text for a number', 'def f(x): return str(x*x)', SQUARE, 'failed'),
    ('a tuple for a list', 'def f(x): return tuple(x)', 'assert f([1]) == [1]', 'failed'),
    ('nothing comes back', 'def f(x): x*x', SQUARE, 'failed'),
    ('not in place', 'def f(x): return sorted(x)', 'a = [2, 1]\nf(a)\nassert a == [1, 2]', 'failed'),
    ('another name', 'def g(x): return x*x', SQUARE, 'error'),
    ('another number of arguments', 'def f(x, y): return x*x', SQUARE, 'error'),
    ('no Python', 'def f(x) return x*x', SQUARE, 'error'),
    ('only words', 'The answer is x*x.', SQUARE, 'error'),
    ('an exception', 'def f(x): return 1/0', SQUARE, 'error'),
    ('an exception that is not wanted', 'def f(x): raise KeyError', RAISES, 'error'),
    ('no exception', 'def f(x): return 2', RAISES, 'failed'),
    ('an exception at once', 'raise ValueError\ndef f(x): return x*x', SQUARE, 'error'),
    ('no such module', 'import no_such_module\ndef f(x): return x*x', SQUARE, 'error'),
    ('it waits for input', 'x = input()\ndef f(x): return x*x', SQUARE, 'error'),
    ('nothing at all', '', SQUARE, 'error'),
    ('memory', 'def f(x): return len([0] * 10**9)', SQUARE, 'memory'),
    ('a crash', 'import ctypes\ndef f(x): ctypes.string_at(0)', SQUARE, 'error'),
    ('endless recursion', 'def f(x): return f(x)', SQUARE, 'error'),
    ('recursion through C', 'import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n  class A:\n'
     '    def __repr__(self): return repr(self)\n  return repr(A())', SQUARE, 'error'),
]


@pytest.mark.parametrize('program, tests, status', [row[1:] for row in PROGRAMS], ids=[row[0] for row in PROGRAMS])
def test_programs(any_kind, program, tests, status):
    assert grade(program, tests) == (float(status == 'passed'), status)


# --- hacks ------------------------------------------------------------------------------------------------

# What equals everything, is less and more than everything, and is what one asks it to be.
ANYTHING = '''
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __hash__(self): return 0
    def __bool__(self): return True
    def __abs__(self): return self
    def __sub__(self, other): return self
    __add__ = __rsub__ = __radd__ = __mul__ = __sub__
    def __float__(self): return 0.0
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
'''
CLOSE = SQUARE + '\nassert abs(f(1.5) - 2.25) < 1e-9\nassert f(2) in (4,)\nassert not f(3) != 9'

HACKS = [
    ('sys.exit(0)', 'import sys\nsys.exit(0)', SQUARE),
    ('sys.exit(0) when called', 'import sys\ndef f(x): sys.exit(0)', SQUARE),
    ('os._exit(0)', 'import os\nos._exit(0)', SQUARE),
    ('os._exit(0) when called', 'import os\ndef f(x): os._exit(0)', SQUARE),
    ('os._exit where everything is caught', 'import os\ndef f(x): return 1 if x == 1 else os._exit(0)',
     'assert f(1) == 1\ntry:\n  assert f(2) == 2\nexcept:\n  pass'),
    ('SystemExit', 'def f(x): raise SystemExit(0)', SQUARE),
    ('KeyboardInterrupt', 'def f(x): raise KeyboardInterrupt', SQUARE),
    ('a success text', 'print("passed: 2, failed: 0")\nprint({"passed": 2, "failed": 0, "status": "done"})', SQUARE),
    ('equals everything', ANYTHING + 'def f(x): return Any(0)', CLOSE),
    ('equals everything, no number', ANYTHING.replace('(int)', '') + 'def f(x): return Any()', CLOSE),
    ('a text that equals everything', ANYTHING.replace('(int)', '(str)') + 'def f(x): return Any()', CLOSE),
    ('a float that equals everything', ANYTHING.replace('(int)', '(float)') + 'def f(x): return Any()', CLOSE),
    ('a list that equals everything', ANYTHING.replace('(int)', '(list)') + 'def f(x): return Any()', CLOSE),
    ('a decimal that equals everything', 'from decimal import Decimal' + ANYTHING.replace('(int)', '(Decimal)') +
     'def f(x): return Any()', CLOSE),
    ('a class that equals everything', 'class M(type):\n  def __eq__(s, o): return True\n  def __hash__(s): return 0\n'
     'class A(metaclass=M): pass\ndef f(x): return A', SQUARE),
    ('equality in parts', ANYTHING + 'def f(x): return [Any(0)]', 'assert f(3) == [9]\nassert f(3)[0] == 9'),
    ('equality in a dict', ANYTHING + 'def f(x): return {"a": Any(0)}', 'assert f(3)["a"] == 9'),
    ('equality in an iterator', ANYTHING + 'def f(x):\n  while True: yield Any(0)',
     'assert [a for a, _ in zip(f(3), "ab")] == [1, 2]'),
    ('an item for every key', 'class A:\n  def __contains__(s, x): return True\n  def __getitem__(s, i):\n'
     '    if i > 3: raise IndexError\n    return 0\ndef f(x): return A()', 'assert 9 in f(3)'),
    ('a lucky length', 'class A:\n  def __len__(s): return True\ndef f(x): return A()', 'assert len(f(3)) == 2'),
    ('the class of the tests equals everything',
     'def f(p):\n  type(p).__eq__ = lambda a, b: True\n  p.__class__ = int\n  return 0',
     'class P:\n  x = 1\nassert f(P()) == 9'),
    ("the tests' globals",
     'def f(g):\n  g.__globals__["_passed_"]()\n  g.__globals__["__builtins__"]["abs"] = lambda x: 0\n'
     '  return 9', 'def g(): return 1\nassert f(g) == 9'),
    ("the tests' frames", 'def f(g): return g.gi_frame.f_back.f_globals', 'def g():\n  yield 1\nassert f(g()) == 9'),
    ('a builtin by name', 'def f(g): return g("9")', 'assert f(eval) == 8'),
    ('StopIteration ends a map', 'def f(x):\n  if x: raise StopIteration\n  return 0',
     'assert f(0) == 0\nfor a, b in zip(map(f, [3, 2]), [9, 4]):\n  assert a == b'),
    ('the verdict, asked for across the socket',
     'import __main__\n'
     'def f(g):\n'
     '  def inside(stub): return stub.__closure__[0].cell_contents\n'
     '  ask = __main__._ask\n'
     '  passed = ask(inside(g), "getattr", "__globals__")["_passed_"]\n'
     '  cell = ask(inside(passed), "getattr", "__closure__")[0]\n'
     '  ask(cell, "setattr", "cell_contents", {"passed": 1, "failed": 0, "status": "done", "error": "", "message": ""})\n'
     '  return 1',
     'def g(): return 1\nassert f(g) == 9'),
    ('builtins', 'import builtins\nbuiltins.len = builtins.abs = lambda x: 0\nbuiltins.all = builtins.any = lambda x: True\n'
     'builtins.AssertionError = KeyError\ndef f(x): return 1', 'assert abs(f(3) - 9) < 1e-6\nassert all([f(3) == 9])'),
    ('names of builtins', 'def abs(x): return 0\ndef all(x): return True\ndef set(x): return 0\ndef f(x): return 1',
     'assert abs(f(3) - 9) < 1e-6\nassert all([f(3) == 9])\nassert set(f(3)) == set([9])'),
    ('names of modules', 'class math:\n  isclose = lambda *a: True\ndef f(x): return 1', 'assert math.isclose(f(3), 9)'),
    ('a module replaced',
     'import sys, types\nm = sys.modules["math"] = types.ModuleType("math")\nm.isclose = lambda *a: True\n'
     'def f(x): return 1', 'import math\nassert math.isclose(f(3), 9)'),
    ('AssertionError', 'import builtins\nclass Fine(Exception):\n  def __new__(c, *a): raise SystemExit(0)\n'
     'builtins.AssertionError = Fine\ndef f(x): return 1', SQUARE),
    ('frames', 'import sys\ndef f(x):\n  frame = sys._getframe()\n  while frame:\n'
     '    for d in (frame.f_globals, frame.f_locals):\n      for k in list(d):\n'
     '        if k in ("passed", "verdict", "job"): return d[k]\n    frame = frame.f_back\n  return 1', SQUARE),
    ('the collector', 'import gc\ndef f(x):\n  for o in gc.get_objects():\n'
     '    if isinstance(o, dict) and "source" in o: return 9\n'
     '    if isinstance(o, str) and "assert" in o and "f(3)" in o: return 9\n  return 0', 'assert f(3) == 9'),
    ('tracing',
     'import sys\ndef t(frame, event, arg): return t\nsys.settrace(t)\nsys.setprofile(t)\ndef f(x): return 1', SQUARE),
    ('at exit', 'import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 1', SQUARE),
    ('exit in __del__', 'import os\nclass A:\n  def __del__(self): os._exit(0)\ndef f(x):\n  A()\n  return 1', SQUARE),
    ('everything caught', 'def f(x):\n  try: raise BaseException\n  except BaseException: return 1', SQUARE),
    ('the imports hooked', 'import builtins\nbuiltins.__import__ = lambda *a: None\ndef f(x): return 1',
     'import math\n' + SQUARE),
    ('every descriptor written',
     'import json, os, struct\ntext = json.dumps({"passed": 2, "failed": 0, "status": "done", "error": ""})\n'
     'for d in range(256):\n  for data in (text.encode(), struct.pack("<I", len(text)) + text.encode()):\n'
     '    try: os.write(d, data)\n    except OSError: pass\ndef f(x): return 1', SQUARE),
    ('answers before they are asked for', 'import os, struct\nfor d in range(3, 64):\n  for text in (b\'["hello"]\', '
     'b\'["value", [{"a": 9}, {}]]\', b\'["value", [["object", 0], {}]]\', b\'["value", [1, {}]]\') * 4:\n'
     '    try: os.write(d, struct.pack("<I", len(text)) + text)\n    except OSError: pass\ndef f(x): return 1', SQUARE),
    ('the files of the tests', 'import glob, os\ndef f(x):\n  for top in ("/tmp", "/proc", "."):\n'
     '    for path in glob.glob(top + "/*") + glob.glob("/proc/*/fd/*") + glob.glob("/proc/*/mem"):\n'
     '      try:\n        if b"f(3)" in open(path, "rb").read(10**6): return 9\n'
     '      except Exception: pass\n  return 1', 'assert f(3) == 9'),
    ('an own source file', 'def f(x):\n  return 9 if "f(3)" in open(__file__).read() else 1', SQUARE),
    ('too long a message', 'def f(x): return "x" * (20 << 20)', 'try:\n  f(3)\nexcept Exception:\n  pass\nassert f(3) != 9'),
    ('hashes collide', 'class A(int):\n  def __hash__(s): return hash(9)\n  def __eq__(s, o): return True\n'
     'def f(x): return {A(x)}', 'assert f(3) == {9}\nassert 9 in f(3)'),
]


@pytest.mark.parametrize('program, tests', [row[1:] for row in HACKS], ids=[row[0] for row in HACKS])
def test_hacks_earn_nothing(kind, program, tests):
    if kind == 'limits' and 'glob.glob' in program:
        pytest.skip('limits alone hide no files, and this machine may have many')
    for partial in (False, True):
        credit, status = grade(program, tests, partial=partial)
        assert credit == 0 or partial and credit < 1, status
        assert status in ('failed', 'error')


def test_waiting_and_looping_is_a_timeout_and_no_more_than_that(kind):
    programs = [
        'def f(x):\n  while True: pass',
        'import time\ntime.sleep(100)',
        'def f(x):\n  while True:\n    try:\n      while True: pass\n    except BaseException: pass',
        'import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n'
        '  except (OSError, ValueError): pass\ndef f(x):\n  while True: pass',
        'def f(x):\n  return (i for i in iter(int, 1))',
        'x = 10**10**8',
        'import re\ndef f(x): return re.match("(a+)+$", "a"*64+"b")',
        'def f(x): return x*x']
    examples = [asked('assert list(f(3)) == [9]' if 'iter' in program else SQUARE) for program in programs]
    credits, statuses = code.grade(programs, examples, timeout_s=1)
    assert statuses == ['timeout'] * 7 + ['passed'] and credits.tolist() == [0] * 7 + [1]


# --- input and output ---------------------------------------------------------------------------------------

CASES = [{'stdin': '3\n', 'stdout': '9\n'}, {'input': '-2', 'output': '4'}, {'stdin': '0', 'stdout': '0\n\n'}]


@pytest.mark.parametrize('program, status', [
    ('print(int(input())**2)', 'passed'), ('import sys\nsys.stdout.write(str(int(sys.stdin.read())**2))', 'passed'),
    ('def main():\n  print(int(input())**2)\nif __name__ == "__main__":\n  main()', 'passed'),
    ('import os\nos.write(1, str(int(os.read(0, 10))**2).encode())', 'passed'),
    ('print(int(input())**2)\nexit()', 'passed'), ('import sys\nprint(int(input())**2)\nsys.exit(0)', 'passed'),
    ('print(9)', 'failed'), ('pass', 'failed'), ('', 'failed'), ('print(int(input())**2, "passed")', 'failed'),
    ('print(int(input())**2)\nraise SystemExit(3)', 'error'), ('print(int(input())**2)\n1/0', 'error'), ('x = [', 'error'),
    ('x = "x" * 10**10', 'memory'), ('while True: print(1)', 'output'),
    ('import os, gc\nfor o in gc.get_objects():\n  if "stdout" in str(o)[:99]: print(9)\nos._exit(0)', 'failed'),
])
def test_programs_that_read_and_print(any_kind, program, status):
    for tests in (CASES, json.dumps(CASES), json.dumps({'inputs': ['3', '-2\n', '0'], 'outputs': ['9', '4\n', '0']})):
        assert grade(program, tests) == (float(status == 'passed'), status)


@pytest.mark.parametrize('output, wanted, same', [
    ('1 2\n3\n', '1 2\n3', True), ('1  2 \r\n3', '1 2\n3\n', True), ('', '', True), ('', '1', False), ('1', '', False),
    ('1 2', '12', False), ('yes', 'YES', False), ('0.33333333333', '0.3333333', True), ('0.3334', '0.3333333', False),
    ('1e-1', '0.1', True), ('1000000000.1', '1000000000.0', True), ('3', '3.0', True), ('3.0', '3', False),
    ('03', '3', False),
    ('nan', '0.5', False), ('inf', '0.5', False), ('1_0.0', '10.0', False), ('٣', '3.0', False), ('1e400', '1.0', False),
])
def test_outputs_are_the_same_by_their_words(output, wanted, same):
    assert code.same_output(output, wanted) == same


def test_a_share_of_the_tests_for_what_passes_some(any_kind):
    assert grade('def f(x): return 9', SQUARE, partial=True) == (0.5, 'failed')
    assert grade('def f(x): return 9', SQUARE) == (0, 'failed')
    assert grade('print(9)', CASES, partial=True) == (pytest.approx(1 / 3), 'failed')
    # A constant assert says nothing, and what was never reached has not passed.
    assert grade('def f(x): return 1/x', 'assert True\nassert f(1) == 1\nx = f(0)\nassert f(2) == .5\nassert f(4) == .25',
                 partial=True) == (pytest.approx(1 / 3), 'error')
    check = 'def check(c):\n  for x in (1, 2, 3, 4):\n    assert c(x) == x*x\ncheck(f)'
    assert grade('def f(x): return 4', check, partial=True) == (0.25, 'failed')
    assert grade('import os\ndef f(x): return x*x if x < 4 else os._exit(0)', check, partial=True) == (0.75, 'error')
    assert grade('def f(x):\n  while x > 3: pass\n  return x*x', check, partial=True, timeout_s=1) == (0.75, 'timeout')


# --- answers ------------------------------------------------------------------------------------------------

GOOD = 'def f(x): return x*x'
EXAMPLE = Example('q', task='code', tests=SQUARE, id='square')


@pytest.mark.parametrize('answer, program', [
    (GOOD, GOOD), (f'```python\n{GOOD}\n```', GOOD + '\n'), (f'```\n{GOOD}\n```', GOOD + '\n'),
    (f'```py\n{GOOD}\n```', GOOD + '\n'),
    (f'So:\n\n~~~ Python3\n{GOOD}\n~~~\nDone.', GOOD + '\n'), (f'1. First\n   ```python\n   {GOOD}\n   ```', GOOD + '\n'),
    (f'```python\nwrong\n```\nbetter:\n```python\n{GOOD}\n```', GOOD + '\n'),
    (f'```python\n{GOOD}\n```\nIt prints\n```text\n9\n```', GOOD + '\n'),
    ('````python\nx = """\n```\n"""\n````', 'x = """\n```\n"""\n'), ('```python\nx = 1', None), ('```text\n9\n```', None),
    ('', None), (' \n', None), ('```python\n```', None), ('x' * 200_000, None),
])
def test_the_program_of_an_answer(answer, program):
    assert code.program_of(answer) == program


@pytest.mark.parametrize('text, value', [
    (f'<think> hm </think> <answer>{GOOD}</answer>', 1),
    (f'<think> hm </think> <answer>\n```python\n{GOOD}\n```\n</answer>', 1),
    (f'<think> hm </think> It is\n```python\n{GOOD}\n```\nas asked.', 1), (f'```python\n{GOOD}\n```', 1),
    (f'<think>\n```python\n{GOOD}\n```\n', 0), (f'<think>\n```python\n{GOOD}\n```\n</think> so', 0),
    (f'<think> hm </think> {GOOD}', 0), (f'<think> hm </think> <answer>no</answer>\n```python\n{GOOD}\n```', 0), ('', 0),
    ('<think></think><answer></answer>', 0),
])
def test_where_a_program_may_stand(any_kind, text, value):
    assert get('accuracy')([Completion(text)], [EXAMPLE]).values.item() == value


def test_the_reward_says_why_a_program_earned_nothing(any_kind):
    programs = [
        GOOD, 'def f(x):\n  while True: pass', 'def f(x): return 1/0', 'def f(x): return [0] * 10**9', '',
        'def f(x): return 1']
    texts = [f'<think> a </think> <answer>\n{program}\n</answer>' for program in programs] + ['<answer>81</answer>']
    examples = [EXAMPLE] * 6 + [Example('q', '81', 'arithmetic')]
    output = get('accuracy', timeout_s=1)([Completion(text) for text in texts], examples)
    assert output.values.tolist() == [1, 0, 0, 0, 0, 0, 1] and output.values.dtype == np.float32
    assert {name: np.flatnonzero(values == 1).tolist() for name, values in output.info.items()} == {
        'ungraded': [], 'unparseable': [4], 'code_timeouts': [1], 'code_errors': [2, 3]}
    assert np.flatnonzero(np.isnan(output.info['code_errors'])).tolist() == [6]
    assert get('accuracy', partial=True)([Completion('<answer>def f(x): return 9</answer>')], [EXAMPLE]).values.item() == 0.5
    # Hosts agree on the names, whoever has the programs.
    assert get('accuracy')([Completion('')], examples[-1:]).info.keys() == output.info.keys()
    with pytest.raises(UserError, match='timeout_s'):
        get('accuracy', timeout_s=0)


def test_other_ways_to_ask_for_a_program(any_kind):
    assert is_correct(f'```\n{GOOD}\n```', EXAMPLE)
    assert not is_correct('', EXAMPLE) and not is_correct('def f(x): return 9', EXAMPLE)
    assert last_answer(f'<think>```python\n{GOOD}\n``` hm', EXAMPLE) is None
    assert last_answer(f'<think>\n```python\n{GOOD}\n```\nhm', EXAMPLE) == GOOD + '\n'
    assert canonical(f'```\n{GOOD}\n```', 'code') == canonical(f'{GOOD}\n', 'code')


def test_slow_programs_cost_no_chunk_of_a_pool(any_kind):
    """The pool gives a chunk half a second, each of these programs takes a second of its own."""
    slow = '<answer>def f(x):\n  while True: pass</answer>'
    with WorkerPool(1, timeout_s=0.5) as pool:
        mix = RewardMix('accuracy=1', options={'accuracy': {'timeout_s': 1}}, pool=pool)
        output = mix([Completion(text) for text in (slow, f'<answer>{GOOD}</answer>') * 2], [EXAMPLE] * 4)
    assert output.values.tolist() == [0, 1, 0, 1] and output.info['accuracy/code_timeouts'].tolist() == [1, 0, 1, 0]
    assert not output.info['timeouts'].any() and pool.timeouts == 0


def children(pid):
    """The folders in /proc of the processes that `pid` started."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(')')[2].split()[1]) == pid:
                found.append(path.parent)
    return found


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_a_killed_worker_takes_its_sandbox_along(any_kind):
    with WorkerPool(1, timeout_s=20) as pool:
        RewardMix('accuracy=1', pool=pool)([Completion(f'<answer>{GOOD}</answer>')], [EXAMPLE])
        outer = children(pool.pids[0])
        inner = [path for parent in outer for path in children(int(parent.name))]
        assert outer
        os.kill(pool.pids[0], signal.SIGKILL)
        deadline = time.perf_counter() + 10
        while any(path.exists() for path in outer + inner) and time.perf_counter() < deadline:
            time.sleep(0.05)
        assert not any(path.exists() for path in outer + inner)


# --- tests that cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize('tests, why', [
    ('', 'no assert'), ('print(1)', 'no assert'), ('assert True', 'no assert'), ('assert f(1', 'not Python'),
    ([], 'no assert'), ('def check(candidate):\n  assert candidate(1) == 1', r'add check\(NAME\)'),
    ('assert 1 + 1 == 2', 'nothing of the program'),
    ('x = 1\nassert x', 'nothing of the program'), ([{'stdin': '1'}], "no text|without a text under 'stdout'"),
    ([{'stdin': 1, 'stdout': '1'}], "'stdin'"), ([1, 2], 'neither'),
    ([{'stdin': '', 'stdout': ''}, 'assert f(1)'], 'neither'),
    ('{"inputs": ["1"], "outputs": []}', 'as many'), ('{"fn_name": "f", "inputs": [[1]], "outputs": [1]}', 'asserts'),
])
def test_tests_that_cannot_be_read_are_an_error_and_never_a_payment(tests, why):
    example = Example('q', task='code', tests=tests, id='bad')
    for call in (lambda: check_example(example), lambda: is_correct('', example), lambda: code.grade([GOOD], [example]),
                 lambda: get('accuracy')([Completion('')], [example])):
        with pytest.raises(ExampleError, match=f"'bad'.*({why})"):
            call()


def test_tests_that_assert_nothing_when_run_pay_nothing(any_kind):
    assert grade(GOOD, 'for x in []:\n  assert f(x) == x') == (0, 'failed')
    assert grade(GOOD, 'if f(1) == 2:\n  assert f(1) == 1') == (0, 'failed')


def test_no_sandbox_is_said_and_never_a_zero(monkeypatch):
    monkeypatch.setattr(sandbox, '_failure', lambda kind: 'not installed')
    monkeypatch.delenv(sandbox.VARIABLE, raising=False)
    completion = Completion(f'<answer>{GOOD}</answer>')
    for call in (lambda: check_example(EXAMPLE), lambda: get('accuracy')([completion], [EXAMPLE])):
        with pytest.raises(UserError, match='apt install bubblewrap.*R1JAX_SANDBOX=limits'):
            call()
    monkeypatch.setenv(sandbox.VARIABLE, 'bwarp')
    with pytest.raises(UserError, match="did you mean 'bwrap'"):
        check_example(EXAMPLE)
    check_example(Example('q', 'def f(x): return x', 'function', tests='assert f(1) == 1'))  # which needs none


# --- MBPP ---------------------------------------------------------------------------------------------------


def mbpp(shared, name):
    with (shared / 'data' / 'code' / f'{name}.jsonl').open() as file:
        rows = [json.loads(line) for line in file]
    return [(row['code'], '\n'.join([
        row.get('test_setup_code') or '\n'.join(row.get('test_imports', ())), *row['test_list'],
        *row.get('challenge_test_list', ())])) for row in rows]


def mutated(source, rng):
    """The program with one constant, operator or comparison changed; None where it has none."""
    swap = {
        ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv, ast.FloorDiv: ast.Div,
        ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq}
    tree = ast.parse(source)
    places = [node for node in ast.walk(tree) if (
        isinstance(node, ast.Constant) and type(node.value) is int or isinstance(node, ast.BinOp) and type(node.op) in swap
        or isinstance(node, ast.Compare) and type(node.ops[0]) in swap)]
    if not places:
        return None
    node = rng.choice(places)
    if isinstance(node, ast.Constant):
        node.value += rng.choice([-1, 1])
    elif isinstance(node, ast.BinOp):
        node.op = swap[type(node.op)]()
    else:
        node.ops[0] = swap[type(node.ops[0])]()
    return ast.unparse(tree)


def truth(program, tests):
    """Whether the asserts hold in a plain process that runs both, told apart from everything else by its exit code."""
    done = subprocess.run(
        [sys.executable, '-c', f'{program}\n{tests}\nimport os\nos._exit(42)'], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, env=os.environ | {'PYTHONHASHSEED': '0'})
    return done.returncode == 42


def compare(problems, seed):
    """Grades mutated references and finds the truth of each; returns how often each truth came up, or a timeout."""
    rng = random.Random(seed)
    pairs = [(changed, tests) for program, tests in problems if (changed := mutated(program, rng))]
    _, statuses = code.grade([program for program, _ in pairs], [asked(tests) for _, tests in pairs], timeout_s=2)
    counts, wrong = collections.Counter(), []
    for (program, tests), status in zip(pairs, statuses, strict=True):
        told = status if status == 'timeout' else truth(program, tests)
        counts[told] += 1
        if told != 'timeout' and told != (status == 'passed'):
            wrong.append((status, program, tests))
    assert not wrong
    return counts


@pytest.mark.parametrize('name, stride', [('mbpp', 12), ('mbpp_sanitized', 12)])
def test_references_of_mbpp_pass_and_mutated_ones_fail_where_their_tests_tell(any_kind, shared, name, stride):
    problems = mbpp(shared, name)[::stride]
    _, statuses = code.grade([program for program, _ in problems], [asked(tests) for _, tests in problems])
    assert set(statuses) == {'passed'}
    counts = compare(problems[::2], seed=0)
    assert counts[False] > 3 * counts[True] > 0


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mbpp', 'mbpp_sanitized'])
def test_all_of_mbpp(any_kind, shared, name):
    problems = mbpp(shared, name)
    # The reference of problem 123 takes more than the usual 4 seconds.
    _, statuses = code.grade([program for program, _ in problems], [asked(tests) for _, tests in problems], timeout_s=30)
    assert collections.Counter(statuses) == {'passed': len(problems)}
    counts = compare(problems, seed=1)
    print(name, len(problems), counts)
    assert counts[False] > 0.6 * len(problems)
