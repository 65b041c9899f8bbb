"""The form every kind of problem has: small functions over its content, a tuple that is in no language."""

import dataclasses
from collections.abc import Callable
from random import Random

from r1jax.data.tinyworld.solutions import Pen
from r1jax.data.tinyworld.words import Pair


def _nothing(content: tuple) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """How problems of one kind are drawn, identified, asked and solved.

    weight: share of this kind within its family.
    draw(rng, difficulty): the content, with the surface choices that the solution needs (the order of facts).
    key(content): the canonical content, 'STEM' or 'STEM|REST'. The split hashes the stem, so problems that
        begin alike lie on one side, from the length of a stem on.
    ask(content, rng, language): the question, in one of several wordings.
    solve(content, pen): writes the steps with the pen; the result (English, Chinese), in short form.
    miss(content, rng): a plausible wrong result of the same type.
    full(result): the answer for a result in short form.
    options(content): the options of a choice question, as strings.
    tests(content): Python source of asserts over the answer.
    """

    weight: float
    draw: Callable[[Random, int], tuple]
    key: Callable[[tuple], str]
    ask: Callable[[tuple, Random, int], str]
    solve: Callable[[tuple, Pen], Pair]
    miss: Callable[[tuple, Random], Pair]
    full: Callable[[str], str] = str
    options: Callable[[tuple], tuple[str, ...]] = _nothing
    tests: Callable[[tuple], str] = lambda content: ''
