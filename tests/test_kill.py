"""Runs that are killed outright, again and again, and started again with the same command, end as undisturbed ones."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from r1jax.runtime.checkpoint import load_model

ROOT = pathlib.Path(__file__).parents[1]
RL = {'steps': 8, 'prompts': 4, 'group': 4, 'checkpoint_every': 2, 'sampling.max_tokens': 32}
SFT = {'batch': 8, 'checkpoint_every': 2}
REWARD_MODEL = {'batch': 4, 'checkpoint_every': 2}
SHORT = {
    'experiments/tiny/r1_zero.py': {'r1_zero': RL},
    'experiments/tiny/r1.py': {
        'r1_zero': RL, 'reasoning_rl': RL, 'student_rl': RL | {'steps': 4},
        'all_scenario_rl': RL | {'steps': 6, 'final.steps': 4},
        # An untrained model's answers are seldom right: all that is finished will do.
        'cold_start_data': {'questions': 96, 'keep.correct': False, 'keep.format': False, 'keep.language': 0.0},
        'rejection': {'questions': 96, 'keep.correct': False, 'keep.format': False, 'keep.language': 0.0},
        'cold_start': SFT, 'sft': SFT, 'distill': SFT,
        'helpful_pairs': {'questions': 64, 'margin': 0.5, 'length_ratio': 9.0},
        'safety_labels': {'questions': 64, 'annotator.slip': 0.3},
        'helpful_rm': REWARD_MODEL, 'safety_rm': REWARD_MODEL,
    },
}
SUITES = {
    'experiments/tiny/r1_zero.py': ('main', 'main@1', 'longer'),
    'experiments/tiny/r1.py': ('main', 'main@1', 'helpful', 'harmful', 'benign'),
}
# Of a step's metrics, all but how long things took.
TIMED = ('time', 'seconds/', 'tokens_per_s/')


def start(experiment, workdir):
    flags = [f'--config.stages.{stage}.{key}={value}' for stage, settings in SHORT[experiment].items()
             for key, value in settings.items()]
    for suite in SUITES[experiment]:
        flags += [f'--config.evaluation.suites.{suite}.problems=8', f'--config.evaluation.suites.{suite}.samples=2']
    environment = os.environ | {'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(
        [sys.executable, '-m', 'r1jax', 'run', f'--config={experiment}', f'--workdir={workdir}', *flags],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def metrics(workdir):
    """Stage -> what it wrote of each step."""
    found = {}
    for path in sorted(workdir.glob('stages/*/metrics.jsonl')):
        found[path.parent.name] = [
            {key: value for key, value in json.loads(line).items() if not key.startswith(TIMED)}
            for line in path.read_text().splitlines()]
    return found


def weights(workdir):
    """Stage -> the leaves of the model that it left."""
    sharding = Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), TRAINING)
    models = {
        path.parent.parent.name: load_model(str(path.parent), sharding)
        for path in sorted(workdir.glob('stages/*/model/model.json'))}
    return {stage: [np.asarray(leaf) for leaf in jax.tree.leaves(model.params)] for stage, model in models.items()}


def tables(workdir):
    """Name -> the rows of every Parquet file: rollouts, data, samples."""
    return {str(path.relative_to(workdir)): pq.read_table(path).to_pylist() for path in sorted(workdir.rglob('*.parquet'))}


def written(workdir):
    """How much a run has written: steps and Parquet files."""
    steps = sum(path.read_bytes().count(b'\n') for path in workdir.glob('stages/*/metrics.jsonl'))
    # Checkpoints are not looked into: their folders vanish as they are finished.
    return steps + sum(1 for _ in workdir.glob('stages/*/*/*.parquet'))


def kill_when(process, workdir, amount, delay):
    """Ends a run outright `delay` seconds after it has written so much."""
    while written(workdir) < amount:
        assert process.poll() is None, f'ended with {process.returncode}: {process.stderr.read()}'
        time.sleep(0.05)
    time.sleep(delay)
    assert process.poll() is None, f'ended with {process.returncode}: {process.stderr.read()}'
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize('experiment, kills', [('experiments/tiny/r1_zero.py', 4), ('experiments/tiny/r1.py', 10)])
def test_sigkill_at_random_moments(tmp_path, experiment, kills):
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    process = start(experiment, whole)
    assert process.wait(1800) == 0, process.stderr.read()
    # What is written is counted, not seconds, because the later runs find their programs compiled. After the last step a
    # model is still to be evaluated, so that nine tenths leave time enough.
    moments, everything = random.Random(0), written(whole)
    for amount in sorted(moments.sample(range(1, everything * 9 // 10), kills)):
        process = start(experiment, cut)
        kill_when(process, cut, max(amount, written(cut) + 1), moments.uniform(0, 1))
    last = start(experiment, cut)
    assert last.wait(1800) == 0, last.stderr.read()

    assert repr(metrics(cut)) == repr(metrics(whole))  # by their text, in which NaN is NaN
    summaries = [json.loads((folder / 'summary.json').read_text())['stages'] for folder in (whole, cut)]
    assert summaries[0] == summaries[1]
    assert tables(cut) == tables(whole)
    found, expected = weights(cut), weights(whole)
    assert found.keys() == expected.keys()
    for stage, leaves in expected.items():
        assert all(np.array_equal(a, b) for a, b in zip(found[stage], leaves, strict=True)), stage
