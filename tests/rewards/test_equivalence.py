"""Mathematical answers: a table of pairs in both directions, what is no answer, bounds, and real gold answers."""

import itertools
import json
import pathlib
import random
import threading
import time

import pytest

from r1jax.rewards.equivalence import equal, form_text, read

TABLE = pathlib.Path(__file__).with_name('math_pairs.txt')


def table() -> list[tuple[str, str, str, str]]:
    """(category, relation, first, second) of all pairs of the table."""
    pairs, category = [], ''
    for line in TABLE.read_text(encoding='utf-8').splitlines():
        line = line.strip()
        if line.startswith('[') and line.endswith(']') and '=' not in line:
            category = line[1:-1]
        elif line and not line.startswith('#'):
            (relation,) = {mark for mark in ('==', '!=', '<-', '!-') if f' {mark} ' in line}
            answers = line.split(f' {relation} ')
            pairs += [(category, relation, *pair) for pair in itertools.combinations(answers, 2)]
    return pairs


PAIRS = table()


@pytest.mark.parametrize('category', dict.fromkeys(pair[0] for pair in PAIRS))
def test_pairs(category):
    wrong = []
    for found, relation, first, second in PAIRS:
        if found == category:
            verdicts = equal(first, second), equal(second, first)
            expected = {'==': (True, True), '!=': (False, False), '<-': (True, False), '!-': (False, verdicts[1])}[relation]
            if verdicts != expected:
                wrong.append((relation, first, second, verdicts))
    assert not wrong, '\n'.join(map(str, wrong))
