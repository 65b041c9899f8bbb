"""Two processes as two hosts: a whole run gives what one process with as many devices gives, and is written once."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.parallel import distributed
from r1jax.runtime.metrics import read_metrics
from r1jax.runtime.rollouts import as_rows, read_rollouts

REPOSITORY = pathlib.Path(__file__).parents[2]
# What the transport says as its ranks connect. Its threads write in pieces, so that lines are cut and mixed.
GLOO = re.compile(r'\[Gloo\]|Rank|is connected to|Expected number of connected peer ranks is :|peer ranks\.|\d+|\s')
EXPERIMENT = '''
import time

from ml_collections import ConfigDict
from r1jax.data.tokenizers import SentencePieceTokenizer
from r1jax.rewards.base import register

save = SentencePieceTokenizer.save

def save_slowly(tokenizer, folder):
    time.sleep(2)  # so that a host which does not wait for the one that writes finds half a model
    save(tokenizer, folder)

SentencePieceTokenizer.save = save_slowly

@register('length_parity')
def length_parity(completions, examples):
    return [float(len(c.text) % 2 == 0) for c in completions]

def get_config(arg=''):
    sampling = {'slots': 8, 'max_tokens': 12}
    suite = {'task': 'tiny_arithmetic', 'problems': 4, 'samples': 2, 'sampling': dict(sampling, temperature=0.6)}
    return ConfigDict({
        'name': 'hosts', 'seed': 3, 'base': arg, 'cpu_devices': 2, 'mesh': {'data': 2, 'fsdp': 2},
        'stages': {'rl': {
            'kind': 'grpo', 'task': 'tiny_reasoning', 'steps': 2, 'prompts': 3, 'group': 4, 'rewards': 'length_parity=1',
            'optimizer': {'learning_rate': 1e-2}, 'sampling': sampling, 'loss': {'kl_coef': 0.01}, 'row_length': 192,
            'micro_rows': 4}},
        'evaluation': {'suites': {'main': suite}}})
'''


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def start(experiment, model, workdir, hosts='', *more):
    environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | {
        'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(REPOSITORY), 'R1JAX_HOSTS': hosts}
    command = ['run', f'--config={experiment}:{model}', f'--workdir={workdir}', *more]
    return subprocess.Popen(
        [sys.executable, '-m', 'r1jax', *command], env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)


def finish(*processes):
    try:
        results = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, stderr) in zip(processes, results, strict=True):
        assert process.returncode == 0, stderr[-3000:]
    return [stdout for stdout, _ in results]


def test_two_hosts_give_what_one_gives_and_write_it_once(model_folder, tmp_path):
    experiment = tmp_path / 'hosts.py'
    experiment.write_text(EXPERIMENT)
    finish(start(experiment, model_folder, tmp_path / 'one', '', '--config.cpu_devices=4'))
    port = free_port()
    outputs = finish(*(
        start(experiment, model_folder, tmp_path / 'two', f'127.0.0.1:{port},{i},2') for i in range(2)))
    said = [[line for line in output.splitlines() if GLOO.sub('', line)] for output in outputs]
    assert said[0][-1].startswith('report: ') and said[1] == []
    one, two = (read_metrics(tmp_path / name / 'stages' / 'rl') for name in ('one', 'two'))
    assert [line['step'] for line in two] == [1, 2]
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if name == 'nonfinite':
                assert a[name] == b[name]
            elif not name.startswith(('time', 'seconds/', 'tokens_per_s/')) and a[name] is not None:
                np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-4, err_msg=name)
    written = [as_rows(read_rollouts(tmp_path / name / 'stages' / 'rl' / 'rollouts')) for name in ('one', 'two')]
    for field in ('prompt', 'completion', 'reward', 'rewards'):
        assert [row[field] for row in written[0]] == [row[field] for row in written[1]], field
    summaries = [json.loads((tmp_path / name / 'summary.json').read_text())['stages'] for name in ('one', 'two')]
    assert summaries[0].keys() == summaries[1].keys() == {'base', 'rl'}
    assert summaries[0]['base'] == summaries[1]['base']


@pytest.mark.parametrize('n', [0, 1, 5, 6])
def test_shares_cover_everything_once_and_are_even(n, monkeypatch):
    monkeypatch.setattr(distributed.jax, 'process_count', lambda: 3)
    covered = []
    for host in range(3):
        monkeypatch.setattr(distributed.jax, 'process_index', lambda host=host: host)
        covered.append(list(range(n))[distributed.share(n)])
    assert sum(covered, []) == list(range(n)) and max(map(len, covered)) == -(-n // 3)


@pytest.mark.parametrize('value', [
    '10.0.0.1,0,2', '10.0.0.1:7000', '10.0.0.1:7000,2,2', '10.0.0.1:7000,a,2', 'automatic', 'auto'])
def test_a_wrong_variable_is_told(value, monkeypatch):
    monkeypatch.setenv('R1JAX_HOSTS', value)
    with pytest.raises(UserError, match='R1JAX_HOSTS='):
        distributed.start()
