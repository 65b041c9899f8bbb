"""A stored completion gives back what the reward functions saw of it."""

import numpy as np
import pytest

from r1jax.rewards.base import Example
from r1jax.runtime.rollouts import as_rows, read_rollouts, write_rollouts
from r1jax.stages.rollout import Rollout, read_row, row

CASES = [{'stdin': '1 2\n', 'stdout': '3\n'}, {'stdin': '', 'stdout': '{"'}]


@pytest.mark.parametrize('tests, back', [
    ('', ''), ('assert f(2) == 6', 'assert f(2) == 6'), ('[] == f()', '[] == f()'),
    (['assert f(2) == 6', 'assert f(0) == 0'], 'assert f(2) == 6\nassert f(0) == 0'), (CASES, CASES)],
    ids=['none', 'text', 'a text that begins like a list', 'list of asserts', 'cases'])
def test_what_the_rewards_saw_comes_back_from_a_stored_row(tmp_path, tests, back):
    example = Example(
        prompt='Sum? <think>', answer='3', task='code', language='en', tests=tests, kind='function', difficulty=2, id='7',
        options=('3', 'a\nb'), question='Sum?')
    rollout = Rollout(
        example, 2**40, 5, np.arange(3, dtype=np.int32), np.arange(4, dtype=np.int32), np.zeros(4, np.float32), False, '3')
    path = write_rollouts(tmp_path / 'a.parquet', [row(rollout, 9, reward=1.0, components={}, advantage=None)])
    completion, read = read_row(as_rows(read_rollouts(path))[0])
    assert completion == rollout.for_rewards(9)
    assert read == Example(**{**vars(example), 'tests': back})
