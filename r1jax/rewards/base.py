"""What a reward function is: its inputs and output, and the registry of names.

A reward takes B completions and their B examples and returns B numbers:

    @register('brevity')
    def brevity(completions, examples, *, limit=100):      # keyword-only arguments are the reward's options
        return [float(c.n_tokens <= limit) for c in completions]

Nothing here knows of devices, tokenizers or sampling: a reward sees decoded text and a token count.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from r1jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Example:
    """One problem as the reward functions see it.

    prompt: what the model was given. question: the same without a template around it. answer: the gold answer. response: a
    demonstration to fine-tune on, '' where there is none; no reward reads it. task: routes the accuracy reward
    ('arithmetic', 'math', 'choice', 'code', ...). language: ISO 639-1 code of the language to reason in. tests: of a
    program, Python asserts, one a line or one an item, or cases of {stdin, stdout}. options: the texts of a multiple-choice
    question.
    """

    prompt: str
    answer: str = ''
    task: str = ''
    language: str = ''
    tests: str | list = ''
    kind: str = ''
    difficulty: int = 0
    id: str = ''
    options: tuple[str, ...] = ()
    question: str = ''
    response: str = ''


@dataclasses.dataclass(frozen=True)
class Completion:
    """One response: `text` is decoded without EOS and begins right after the prompt.

    n_tokens counts EOS. finished says that EOS was sampled (False: truncated). key names the draw, see
    `sample_key`; only rewards that need randomness read it.
    """

    text: str
    n_tokens: int = 0
    finished: bool = True
    key: int = 0


@dataclasses.dataclass(frozen=True)
class RewardOutput:
    """values: float32 [B]. info: further metrics, each float32 [B], NaN where one says nothing of a completion."""

    values: np.ndarray
    info: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


Reward = Callable[[Sequence[Completion], Sequence[Example]], RewardOutput]


class ExampleError(UserError, ValueError):
    """The example itself cannot be scored: no gold answer, or one that does not parse. Never a payment."""

    def __init__(self, problem: str, example: Example | None = None):
        """`problem` goes on after the example's name: its id, or else the end of its prompt."""
        if example is not None:
            name = example.id or example.prompt[-60:]
            problem = f'example {name!r} (task {example.task!r}) {problem}'
        super().__init__(problem)


def tests_to_text(tests: str | list) -> str:
    """Returns the tests of an example in one text: asserts one a line, cases of input and output as JSON."""
    if isinstance(tests, str):
        return tests
    is_source = all(isinstance(test, str) for test in tests)
    return '\n'.join(tests) if is_source else json.dumps(tests, ensure_ascii=False)


def tests_from_text(text: str) -> str | list:
    """Returns tests as an example has them, from what `tests_to_text` made of them."""
    return json.loads(text) if text.startswith('[{"') else text


def sample_key(step: int, prompt_id: int | str, sample: int) -> int:
    """Returns 63 bits that name one draw of a run, the same in whatever batch, slot or host."""
    digest = hashlib.blake2b(f'{step}\0{prompt_id}\0{sample}'.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


# Modules made of users' files get names with this prefix, so that they hide nothing.
FILE_MODULE = 'r1jax_rewards_file_'

_REGISTRY: dict[str, Callable[..., Any]] = {}
_PREPARATIONS: dict[str, Callable[[Sequence[Example]], None] | None] = {}


def register(name: str, prepare: Callable[[Sequence[Example]], None] | None = None) -> Callable[[Callable], Callable]:
    """Makes a reward function known by `name`; the function itself comes back unchanged.

    Its first two arguments are completions and examples; keyword-only arguments are its options. Defining the
    same function again (a notebook cell run twice) replaces it; a second function under a name raises
    UserError.

    prepare: called with the examples by workers before their clock starts, for what is slow the first time: imports,
    models, sandboxes. It raises nothing that the reward would not.
    """

    def decorate(function: Callable) -> Callable:
        known = _REGISTRY.get(name)
        if known is not None and _origin(known) != _origin(function):
            raise UserError(f"the reward '{name}' is already registered by {'.'.join(_origin(known))}")
        _REGISTRY[name], _PREPARATIONS[name] = function, prepare
        return function

    return decorate


def prepare(name: str, examples: Sequence[Example]) -> None:
    """Does what the reward `name` wants to be done before a worker's clock starts, if anything."""
    if _PREPARATIONS.get(name) is not None:
        _PREPARATIONS[name](examples)


def names() -> list[str]:
    """Returns the registered rewards in alphabetical order."""
    return sorted(_REGISTRY)


def get(name: str, /, **options: Any) -> Reward:
    """Returns the reward `name` (registered, or 'file.py:function') with its options filled in.

    Raises UserError for an unknown name, an unknown or missing option, or a value the reward refuses.
    """
    function = find(name)
    known = option_names(function)
    for option in options:
        if option not in known:
            raise UserError(f"the reward '{name}' has no option '{option}'{nearest(option, known)}")
    missing = [option for option, required in known.items() if required and option not in options]
    if missing:
        raise UserError(f"the reward '{name}' needs the option '{missing[0]}'")
    reward = functools.partial(_as_output, name, functools.partial(function, **options))
    if options:
        try:
            reward([], [])  # a bad value shows here and not after the first rollout
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the reward '{name}' fails on an empty batch, which is how its options are checked: "
                f'{type(error).__name__}: {error}') from error
    return reward


def find(name: str) -> Callable:
    """Returns the bare function behind a registered name or 'file.py:function'."""
    path, separator, attribute = name.rpartition(':')
    if separator and path.endswith('.py'):
        file = pathlib.Path(path)
        if not file.is_file():
            raise UserError(f"the reward '{name}' names the file '{path}', which does not exist")
        module = _load_file(file.resolve(), file.stat().st_mtime_ns)
        function = getattr(module, attribute, None)
        if not callable(function):
            found = [key for key, value in vars(module).items() if inspect.isfunction(value)]
            raise UserError(f"the file '{path}' has no function '{attribute}'{nearest(attribute, found)}")
        return function
    if name not in _REGISTRY:
        raise UserError(f"there is no reward '{name}'{nearest(name, _REGISTRY)}")
    return _REGISTRY[name]


def option_names(function: Callable) -> dict[str, bool]:
    """Returns the options of a reward function: its keyword-only arguments; True where required."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}


def short_name(name: str) -> str:
    """Returns the name under which a reward is reported: 'brevity' for 'my_rewards.py:brevity'."""
    return name.rpartition(':')[2]


def _as_output(
    name: str, function: Callable, completions: Sequence[Completion], examples: Sequence[Example]
) -> RewardOutput:
    """Calls a reward and checks what it gives: one finite number a completion, plain lists allowed."""
    if len(completions) != len(examples):
        raise ValueError(f'{len(completions)} completions but {len(examples)} examples')
    output = function(completions, examples)
    if not isinstance(output, RewardOutput):
        output = RewardOutput(output)
    arrays = {'values': output.values, **output.info}
    must = f"the reward '{name}' must give one finite number a completion: its"
    for key, array in arrays.items():
        try:
            array = arrays[key] = np.asarray(array, np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f'{must} {key} are not numbers ({error})') from None
        if array.shape != (len(completions),):
            raise UserError(f'{must} {key} have the shape {array.shape} for {len(completions)} completions')
        told = np.isfinite(array) | (np.isnan(array) & (key != 'values'))
        if not told.all():
            first = int(np.flatnonzero(~told)[0])
            raise UserError(f'{must} {key} have {array[first]} for completion {first} of {len(completions)}')
    return RewardOutput(arrays.pop('values'), arrays)


def _origin(function: Callable) -> tuple[str, str]:
    return function.__module__, function.__qualname__


@functools.lru_cache(maxsize=32)
def _load_file(path: pathlib.Path, modified_ns: int) -> Any:
    """Runs a user's file as a module of its own; an edited file (another `modified_ns`) is run anew."""
    del modified_ns
    spec = importlib.util.spec_from_file_location(FILE_MODULE + path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses, for one, look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"the file '{path}' does not run: {type(error).__name__}: {error}") from error
    return module
