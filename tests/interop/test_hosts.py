"""Two processes as two hosts: each reads its own experts and writes its own files, and nothing is lost between them."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.interop.folders import same_bits, tensors, write_deepseek
from tests.stages.test_distributed import finish, free_port

pytest.importorskip('torch')
pytest.importorskip('transformers')

REPOSITORY = pathlib.Path(__file__).parents[2]
PROGRAM = '''
import json, pathlib, sys
import safetensors.numpy
from r1jax.__main__ import main
from r1jax.interop.sources import SafetensorsSource

read, write, done = SafetensorsSource.read, safetensors.numpy.save_file, []
SafetensorsSource.read = lambda source, name: done.append(name) or read(source, name)
safetensors.numpy.save_file = lambda tensors, path, **more: done.append(path.name) or write(tensors, path, **more)
log, *command = sys.argv[1:]
code = main(command)
pathlib.Path(log).write_text(json.dumps(done))
sys.exit(code)
'''


def on_two_hosts(folder, *command):
    """Returns what each of two hosts with two devices read and wrote."""
    environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | {
        'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '2', 'PYTHONPATH': str(REPOSITORY)}
    port, logs = free_port(), [folder / f'{command[0]}-{host}.json' for host in range(2)]
    finish(*(
        subprocess.Popen(
            [sys.executable, '-c', PROGRAM, log, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment | {'R1JAX_HOSTS': f'127.0.0.1:{port},{host},2'})
        for host, log in enumerate(logs)))
    return [json.loads(log.read_text()) for log in logs]


def test_two_hosts_divide_the_experts_and_the_files(tmp_path):
    wanted = write_deepseek(tmp_path / 'in', float8=True)
    read = on_two_hosts(tmp_path, 'import', f'--from={tmp_path}/in', f'--out={tmp_path}/model')
    experts = [{name for name in names if '.experts.' in name} for names in read]
    assert {int(name.split('.')[5]) for name in experts[0]} == {0, 1, 2, 3}
    assert experts[0] | experts[1] == {name for name in wanted if '.experts.' in name} and not experts[0] & experts[1]
    written = on_two_hosts(
        tmp_path, 'export', f'--checkpoint={tmp_path}/model', f'--out={tmp_path}/out', '--shard_gb=0.00005')
    assert len(written[0]) > 1 and len(written[1]) > 1 and not set(written[0]) & set(written[1])
    after = tensors(tmp_path / 'out')
    assert after.keys() == wanted.keys()
    assert [name for name in wanted if not same_bits(wanted[name], after[name])] == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ['in', 'model', 'out']
