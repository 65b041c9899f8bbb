"""A run that is killed outright, again and again, and started again with the same command, ends as an undisturbed one."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXACT = ('reward/mean', 'pass_rate', 'length/mean', 'entropy', 'kl_ref', 'grad_norm', 'loss', 'ratio/max')
SMALL = [
    '--config.stages.r1_zero.steps=8', '--config.stages.r1_zero.prompts=4', '--config.stages.r1_zero.group=4',
    '--config.stages.r1_zero.checkpoint_every=2', '--config.stages.r1_zero.sampling.max_tokens=32',
    '--config.evaluation.suites.main.problems=16', '--config.evaluation.suites.main.samples=2',
    '--config.evaluation.suites.main@1.problems=16', '--config.evaluation.suites.longer.problems=16']


def start(workdir):
    environment = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(
        [sys.executable, '-m', 'r1jax', 'run', '--config=experiments/tiny/r1_zero.py', f'--workdir={workdir}', *SMALL],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def metrics(workdir):
    lines = (workdir / 'stages' / 'r1_zero' / 'metrics.jsonl').read_text().splitlines()
    return [{k: m[k] for k in ('step', *EXACT)} for m in map(json.loads, lines)]


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path):
    began = time.monotonic()
    whole = start(tmp_path / 'whole')
    assert whole.wait(900) == 0, whole.stderr.read()
    usual = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(4):
        process = start(tmp_path / 'cut')
        try:
            process.wait(usual * moments.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    last = start(tmp_path / 'cut')
    assert last.wait(900) == 0, last.stderr.read()
    assert metrics(tmp_path / 'cut') == metrics(tmp_path / 'whole')
    summaries = [json.loads((tmp_path / name / 'summary.json').read_text())['stages'] for name in ('whole', 'cut')]
    assert summaries[0] == summaries[1]
