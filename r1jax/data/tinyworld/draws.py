"""Random draws that give the same values on every platform and Python version.

Only `random.Random.random` and integer seeding are promised to stay the same between Python versions
(`choice`, `shuffle` and `randint` are not), so every draw of the tiny world is made here, from those two.
"""

import hashlib
from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar('T')


def generator(*parts: object) -> Random:
    """A generator seeded by a hash of `parts` (strings, numbers, None, tuples of them)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return Random(int.from_bytes(digest, 'big'))


def chance(rng: Random, probability: float) -> bool:
    return rng.random() < probability


def between(rng: Random, low: int, high: int) -> int:
    """A whole number, uniform over low..high, both included."""
    return low + int(rng.random() * (high - low + 1))


def pick(rng: Random, items: Sequence[T]) -> T:
    return items[int(rng.random() * len(items))]


def weighted(rng: Random, table: Sequence[tuple[T, float]]) -> T:
    """One name of a table of (name, weight); the weights need not add up to one."""
    left = rng.random() * sum([weight for _, weight in table])
    for name, weight in table:
        left -= weight
        if left < 0:
            return name
    return table[-1][0]


def shuffled(rng: Random, items: Sequence[T]) -> tuple[T, ...]:
    """All of `items` in a uniformly random order (Fisher and Yates)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return tuple(order)


def sample(rng: Random, items: Sequence[T], count: int) -> tuple[T, ...]:
    """`count` different members of `items`, in random order."""
    pool = list(items)
    return tuple([pool.pop(int(rng.random() * len(pool))) for _ in range(count)])
