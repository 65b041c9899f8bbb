"""The benchmarks run; what they measure is nobody's assertion."""

import os
import pathlib
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).parents[1] / 'experiments' / 'bench'


@pytest.mark.parametrize('name, flags, figure', [
    ('train_step.py', ['--rows=2', '--length=32'], 'tokens/s'), ('decode.py', ['--slots=4', '--length=32'], 'tokens/s'),
    ('math_reward.py', ['--answers=50', '--processes=1'], 'answers/s'),
    ('code_reward.py', ['--slots=1,2', '--programs=4'], 'programs/s')])
def test_a_benchmark_prints_its_table(name, flags, figure):
    environment = os.environ | {'XLA_FLAGS': '', 'PYTHONPATH': str(BENCH.parents[1]), 'R1JAX_SANDBOX': 'limits'}
    done = subprocess.run(
        [sys.executable, str(BENCH / name), '--rounds=1', *flags], capture_output=True, text=True, env=environment,
        timeout=300)
    assert done.returncode == 0, done.stderr
    assert figure in done.stdout
