"""The problems of the tiny world, by family and kind, and how to draw one."""

import dataclasses
from random import Random

from r1jax.data.tinyworld.draws import between, chance, generator, weighted
from r1jax.data.tinyworld.problems import (
    arithmetic,
    choice,
    code,
    everyday,
    knowledge,
    logic,
    safety,
    translation,
)
from r1jax.data.tinyworld.problems.kind import Kind
from r1jax.data.tinyworld.problems.split import SPLITS, split_of
from r1jax.data.tinyworld.solutions import Pen, Step, clean
from r1jax.data.tinyworld.words import LANGUAGES, Pair
from r1jax.errors import UserError, nearest

KINDS: dict[str, dict[str, Kind]] = {
    'arithmetic': arithmetic.KINDS,
    'logic': logic.KINDS,
    'choice': choice.KINDS,
    'code': code.KINDS,
    'translation': translation.KINDS,
    'everyday': everyday.KINDS,
    'knowledge': knowledge.KINDS,
    'safety': safety.KINDS,
}
FAMILIES = tuple(KINDS)
REASONING = ('arithmetic', 'logic', 'choice', 'code')

DIFFICULTY: dict[str, tuple[int, int]] = {
    'arithmetic': (3, 6),  # numbers in the expression
    'logic': (3, 5),  # people
    'choice': (4, 8),  # options
    'code': (1, 3),  # operations
    'translation': (2, 4),  # content words
    'everyday': (1, 3),  # sentences
    'knowledge': (1, 3),  # sentences
    'safety': (1, 3),  # sentences
}
LIMITS: dict[str, tuple[int, int]] = {
    'arithmetic': (2, 40),
    'logic': (2, 8),
    'choice': (2, 12),
    'code': (1, 20),
    'translation': (2, 6),
    'everyday': (1, 6),
    'knowledge': (1, 6),
    'safety': (1, 6),
}
CHINESE = 0.4  # share of Chinese problems where no language is asked for
ATTEMPTS = 2000

_WEIGHTS = {family: [(name, kind.weight) for name, kind in kinds.items()] for family, kinds in KINDS.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One problem: what is asked, the one right answer, and the content from which both were made.

    answer: exactly what the answer tags should hold; '' for everyday talk, knowledge and safety, which can be answered
        well in more than one way (`preferences` tells how well).
    key: canonical content, the same for both languages, all wordings and all orders of facts and options; the
        split hashes the part before '|' (see `Kind.key`).
    options: the options of a choice question in order, else ().
    tests: Python source of asserts that run after the answer of a code problem, else ''.
    content: what the functions of its `Kind` read.
    """

    family: str
    kind: str
    language: str
    difficulty: int
    question: str
    answer: str
    key: str
    options: tuple[str, ...] = ()
    tests: str = ''
    content: tuple = dataclasses.field(default=(), repr=False)

    @property
    def split(self) -> str:
        return split_of(self.key)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The worked solution without a slip, one local operation a step."""
        return clean(self._kind.solve, self.content)[0]

    @property
    def _kind(self) -> Kind:
        return KINDS[self.family][self.kind]

    def solve(self, pen: Pen) -> Pair:
        """Writes the steps with `pen`; returns their result (English, Chinese), in short form."""
        return self._kind.solve(self.content, pen)

    def miss(self, rng: Random) -> Pair:
        """A plausible wrong result (English, Chinese) of the right type, in short form."""
        return self._kind.miss(self.content, rng)

    def full(self, result: str) -> str:
        """The answer that belongs to a result in short form ('x*3' -> 'def f(x): return x*3')."""
        return self._kind.full(result)


def make_problem(
    family: str, rng: Random, *, language: str | None = None, difficulty: int | tuple[int, int] | None = None,
    kind: str | None = None, split: str | None = None,
) -> Problem:
    """Draws one problem.

    Args:
        family: one of FAMILIES.
        rng: the source of every choice; only its `random` method is used.
        language: 'en' or 'zh'; by default one of the two, at random.
        difficulty: a number, or a range (low, high) to draw from; by default DIFFICULTY[family].
        kind: a kind of the family; by default one at random, by weight.
        split: 'train' or 'test' draws until the problem is on that side; by default any.

    Raises:
        UserError: an unknown name, a difficulty outside LIMITS[family], or a split without such problems.
    """
    low, high = _check(family, language, difficulty, kind, split)
    kinds = KINDS[family]
    name = kind or weighted(rng, _WEIGHTS[family])
    chosen = kinds[name]
    level = between(rng, low, high)
    for _ in range(ATTEMPTS):
        content = chosen.draw(rng, level)
        key = chosen.key(content)
        if split is None or split_of(key) == split:
            break
    else:
        raise UserError(f"no '{split}' problem of kind '{name}' has difficulty {level}: take another")
    if language is None:
        language = LANGUAGES[chance(rng, CHINESE)]
    index = LANGUAGES.index(language)
    question = chosen.ask(content, rng, index)
    answer = chosen.full(clean(chosen.solve, content)[1][index])
    options, tests = chosen.options(content), chosen.tests(content)
    return Problem(family, name, language, level, question, answer, key, options, tests, content)


def problem_at(
    family: str, split: str, index: int, *, seed: int = 0, language: str | None = None,
    difficulty: int | tuple[int, int] | None = None, kind: str | None = None,
) -> Problem:
    """Problem number `index` of a split: the same one in every process, in any order of access.

    The arguments are those of `make_problem`. Another seed, language, difficulty or kind is another sequence.
    """
    if isinstance(difficulty, (list, tuple)):
        difficulty = tuple(difficulty)
    rng = generator('problem', family, split, int(index), int(seed), language, difficulty, kind)
    return make_problem(family, rng, language=language, difficulty=difficulty, kind=kind, split=split)


def _check(
    family: str, language: str | None, difficulty: int | tuple[int, int] | None, kind: str | None,
    split: str | None,
) -> tuple[int, int]:
    """The range of difficulties; raises UserError for what `make_problem` does not know."""
    if family not in KINDS:
        raise UserError(f"unknown tiny-world family '{family}'" + nearest(family, FAMILIES))
    if kind is not None and kind not in KINDS[family]:
        raise UserError(f"unknown kind '{kind}' of the family '{family}'" + nearest(kind, KINDS[family]))
    if language is not None and language not in LANGUAGES:
        raise UserError(f"unknown tiny-world language '{language}'" + nearest(language, LANGUAGES))
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown tiny-world split '{split}'" + nearest(split, SPLITS))
    if difficulty is None:
        return DIFFICULTY[family]
    low, high = (difficulty, difficulty) if isinstance(difficulty, int) else difficulty
    least, most = LIMITS[family]
    if not least <= low <= high <= most:
        raise UserError(
            f"difficulty {difficulty} of the family '{family}' is not a number or range in {least}..{most}")
    return low, high
