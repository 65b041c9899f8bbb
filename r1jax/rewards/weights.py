"""What a user writes about rewards: weights, and how rewards are put together.

    'accuracy=1,format=0.5'                          the sum of 1 * accuracy and 0.5 * format
    'accuracy*format + 0.5*language'                 accuracy counts where the format is right
    reward('accuracy') * reward('format') + 0.5 * reward('language')          the same in Python

The names of users' files ('my_rewards.py:brevity') can have none of , + * and = in them.
"""

import math
import re
from collections.abc import Iterator, Mapping

from r1jax.errors import UserError, nearest
from r1jax.rewards.base import find, names, short_name

# A plus sign between terms, and not that of 1e+3, =+1 or *+1.
_BETWEEN = re.compile(r',|(?<![\d.][eE])(?<![=*])\+')


class Weights(Mapping[str, float]):
    """A sum of weighted products of rewards: each term, a name or names joined by '*', with its weight.

    + and * with another one or with a number give a new one. A weight of 0 is kept: such rewards are computed and reported,
    but do not count.

    names: the rewards in it, each once, in the order in which they are written.
    """

    def __init__(self, terms: Mapping[tuple[str, ...], float]):
        self._terms = dict(terms)
        self.names = tuple(dict.fromkeys(name for factors in self._terms for name in factors))

    def __getitem__(self, term: str) -> float:
        return self._terms[tuple(term.split('*'))]

    def __iter__(self) -> Iterator[str]:
        return map('*'.join, self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __add__(self, other: 'Weights') -> 'Weights':
        if not isinstance(other, Weights):
            return NotImplemented
        return _checked([*self._terms.items(), *other._terms.items()])

    def __mul__(self, other: 'Weights | float') -> 'Weights':
        theirs = other._terms if isinstance(other, Weights) else {(): float(other)}
        return _checked([(a + b, x * y) for a, x in self._terms.items() for b, y in theirs.items()])

    __rmul__ = __mul__

    def __str__(self) -> str:
        return ','.join(f'{term}={weight:g}' for term, weight in self.items())

    def __repr__(self) -> str:
        return f'Weights({str(self)!r})'


def reward(name: str) -> Weights:
    """Returns the reward `name` with the weight 1, to be put together with others. Raises UserError if there is none."""
    return _checked([((name,), 1.0)])


def parse_weights(weights: str | Mapping[str, float]) -> Weights:
    """Parses 'accuracy=1,format=0.5', 'accuracy*format + 0.5*language', or a mapping of such terms to their weights.

    Terms stand between commas or plus signs, factors between asterisks; a term without a number has the weight 1.

    Raises UserError for nothing at all, an unknown name, a weight that is not a finite number, or a term given twice.
    """
    if isinstance(weights, Weights):
        return weights
    if isinstance(weights, str):
        pairs = [part.rpartition('=') if '=' in part else (part, '=', '1')
                 for part in (part.strip() for part in _BETWEEN.split(weights)) if part]
        pairs = [(term, weight.strip()) for term, _, weight in pairs]
    else:
        pairs = list(weights.items())
    if not pairs:
        raise UserError(f"no rewards are named: write say 'accuracy=1,format=0.5'{nearest('', names())}")
    terms = []
    for term, weight in pairs:
        factors = [factor.strip() for factor in term.split('*')]
        value = _number(weight, term.strip())
        for factor in [factor for factor in factors if _is_number(factor)]:
            value *= _number(factor, term.strip())
        rewards = tuple(factor for factor in factors if not _is_number(factor))
        if not rewards:
            raise UserError(f"'{term.strip()}' names no reward: write say 'accuracy=1'")
        if sorted(rewards) in [sorted(before) for before, _ in terms]:
            raise UserError(f"the reward '{'*'.join(map(short_name, rewards))}' is given twice")
        terms.append((rewards, value))
    return _checked(terms)


def _checked(terms: list[tuple[tuple[str, ...], float]]) -> Weights:
    """Adds up equal terms. Raises UserError for unknown rewards, and for two that would be reported under one name."""
    total: dict[tuple[str, ...], float] = {}
    known = {}
    for factors, weight in terms:
        for name in factors:
            find(name)
            if known.setdefault(short_name(name), name) != name:
                raise UserError(f"the reward '{short_name(name)}' is given twice")
        same = next((before for before in total if sorted(before) == sorted(factors)), factors)
        total[same] = total.get(same, 0.0) + weight
        if not math.isfinite(total[same]):
            raise UserError(f"the weight of the reward '{'*'.join(factors)}' must be finite, not {total[same]}")
    return Weights(total)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(value: object, term: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"the weight of the reward '{term}' is not a number: {value!r}") from None
