"""Worked solutions: a pen that writes one local step after another, sometimes wrongly, and the text of it.

A kind of problem is solved by a function `solve(content, pen)`, which hands each step to the pen and goes on
from the value that the pen gives back. A pen that never slips writes the reference solution
(`Problem.steps`). A pen that slips writes a wrong value now and then; it either notices (and writes the step
again) or gives the wrong value back, so that the rest of the solution follows from it.
"""

from collections.abc import Callable
from random import Random
from typing import NamedTuple, TypeVar

from r1jax.data.tinyworld.draws import chance, weighted
from r1jax.data.tinyworld.words import NOTICES, ZH, Pair, join

V = TypeVar('V')


class Step(NamedTuple):
    """A step in both languages, no full stop; `slip` is '' (right), 'noticed' or 'carried' (wrong)."""

    en: str
    zh: str
    slip: str = ''


class Pen:
    """Writes steps; one that can go wrong does so with probability `slip`, noticed with that of `noticed`."""

    def __init__(self, rng: Random | None = None, slip: float = 0.0, noticed: float = 0.5):
        self.rng, self.slip, self.noticed = rng, slip, noticed
        self.steps: list[Step] = []
        self.chances = 0  # how many steps could have gone wrong: the denominator of the slip rate

    def write(self, texts: str | Pair) -> None:
        """Writes a step that is a mere copy, never wrong; a string reads the same in both languages."""
        en, zh = (texts, texts) if isinstance(texts, str) else texts
        self.steps.append(Step(en, zh))

    def work(
        self, show: Callable[[V], str | Pair], value: V, mistake: Callable[[Random], tuple[V] | None]
    ) -> V:
        """Writes the step `show(value)` and returns the value to go on from.

        `mistake(rng)` gives a plausible wrong value, wrapped in a tuple, or None where there is none.
        """
        self.chances += 1
        if self.slip and chance(self.rng, self.slip):
            wrong = mistake(self.rng)
            if wrong is not None:
                slip = 'noticed' if chance(self.rng, self.noticed) else 'carried'
                self.write(show(wrong[0]))
                self.steps[-1] = self.steps[-1]._replace(slip=slip)
                if slip == 'carried':
                    return wrong[0]
        self.write(show(value))
        return value


def write_out(
    steps: list[Step], language: int, rng: Random, *, lead: tuple[Pair, ...] = (),
    closing: Pair | None = None, switch: bool = False,
) -> str:
    """The text of `lead`, `steps` and `closing`; with `switch`, in the other language from half way on."""
    parts = [(pair[language], language) for pair in lead]
    half = (len(steps) + 1) // 2
    now = language
    for index, step in enumerate(steps):
        if switch and index == half:
            now = 1 - language
        parts.append((step.zh + '。' if now == ZH else step.en + '.', now))
        if step.slip == 'noticed':
            parts.append((weighted(rng, NOTICES)[now], now))
    if closing is not None:
        now = 1 - language if switch else language
        parts.append((closing[now], now))
    return join(parts)


def clean(solve: Callable[[tuple, Pen], Pair], content: tuple) -> tuple[tuple[Step, ...], Pair]:
    """The reference solution of `content`: its steps and its result (English, Chinese)."""
    pen = Pen()
    result = solve(content, pen)
    return tuple(pen.steps), result


