"""The command line: what reaches the handlers, what a mistake is told; --help loads nothing heavy."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from r1jax import __main__ as cli
from r1jax.errors import UserError
from r1jax.rewards.base import Completion

EXPERIMENT = """
from ml_collections import ConfigDict

def get_config(arg=''):
    return ConfigDict({'name': 'x', 'stages': {'r1_zero': {'kind': 'grpo', 'lr': 1e-3, 'arg': arg}}})
"""


@pytest.fixture
def experiment(tmp_path) -> Path:
    path = tmp_path / 'x.py'
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def calls(monkeypatch) -> list:
    """Stands in for the modules that the handlers import; collects what they are called with."""
    calls = []

    def run_experiment(config, workdir, **flags):
        calls.append((config, workdir, flags))
        return workdir / 'report.html'

    def evaluate_checkpoint(**flags):
        calls.append(flags)
        if flags['checkpoint'] == 'nowhere':
            raise UserError("there is no checkpoint in 'nowhere'")
        return {'pass@1': 0.5, 'language': '中文'}

    def sample_checkpoint(**flags):
        calls.append(flags)
        yield Completion('forty two', 3, True)
        yield Completion('forty', 2, False)

    def build_report(workdir):
        calls.append(workdir)
        return workdir / 'report.html'

    fakes = {
        'r1jax.pipeline': {'run_experiment': run_experiment},
        'r1jax.stages.evaluate': {
            'evaluate_checkpoint': evaluate_checkpoint, 'sample_checkpoint': sample_checkpoint},
        'r1jax.runtime.report': {'build_report': build_report},
    }
    for name, members in fakes.items():
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**members))
    return calls


def fails(capsys, *argv: str) -> str:
    """Runs a command line that must end with code 2 and say one line, on stderr alone; returns the line."""
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('r1jax: ') and err.count('\n') == 1
    return err


# ---- run ----


def test_run_applies_overrides_wherever_they_stand(calls, experiment, tmp_path, capsys):
    assert cli.main([
        'run', '--config.stages.r1_zero.lr=1e-5', f'--config={experiment}:some=arg', '--config.seed', '7',
        f'--workdir={tmp_path}/w', '--only=r1_zero', '--config.stages.r1_zero.note=a=b']) == 0
    (config, workdir, flags), = calls
    assert (config.stages.r1_zero.lr, config.seed, config.stages.r1_zero.note) == (1e-5, 7, 'a=b')
    assert (config.stages.r1_zero.arg, workdir) == ('some=arg', tmp_path / 'w')
    assert flags == {'only': 'r1_zero', 'start': None, 'rerun': []}
    assert capsys.readouterr().out.splitlines()[-1] == f'report: {tmp_path}/w/report.html'


def test_run_hands_on_where_to_start_and_what_to_run_again(calls, experiment, tmp_path):
    run = ['run', f'--config={experiment}', f'--workdir={tmp_path}/w']
    assert cli.main([*run, '--from=sft', '--rerun=a,b', '--rerun=c']) == 0
    assert calls[0][2] == {'only': None, 'start': 'sft', 'rerun': ['a', 'b', 'c']}


def test_only_and_from_exclude_each_other(calls, experiment, capsys):
    assert 'not allowed with argument' in fails(
        capsys, 'run', f'--config={experiment}', '--workdir=w', '--from=a', '--only=b')


@pytest.mark.parametrize('override, said', [
    ('--config.stages.r1_zer.lr=1', "did you mean 'r1_zero'?"),
    ('--config.sead=1', "did you mean 'seed'?"),
    ('--config.stages.r1_zero.lr=fast', "must be a number, got 'fast'"),
    ('--config.stages.r1_zero.lr', 'needs a key and a value'),
    ('--config.=3', 'needs a key and a value'),
])
def test_run_refuses_wrong_overrides_and_writes_nothing(calls, experiment, tmp_path, capsys, override, said):
    workdir = tmp_path / 'w'
    assert said in fails(capsys, 'run', f'--config={experiment}', f'--workdir={workdir}', override)
    assert not calls and not workdir.exists()


def test_run_splits_the_cpu_before_jax_starts(experiment, tmp_path):
    """In a process of its own, because jax cannot be started twice."""
    code = f"""
import sys, types, jax
def run_experiment(config, workdir, **flags):
    print(jax.device_count())
    return workdir
sys.modules['r1jax.pipeline'] = types.SimpleNamespace(run_experiment=run_experiment)
from r1jax.__main__ import main
sys.exit(main(['run', '--config={experiment}', '--workdir={tmp_path}', '--config.cpu_devices=3']))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split('\n')[0]) == (0, '3'), done.stderr


def test_interrupt_tells_how_to_go_on(monkeypatch, experiment, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, 'r1jax.pipeline', types.SimpleNamespace(run_experiment=interrupt))
    assert cli.main(['run', f'--config={experiment}', '--workdir=w']) == 130
    assert 'the same command goes on from the last checkpoint' in capsys.readouterr().err


def test_faults_of_the_program_are_not_hidden(monkeypatch, experiment):
    def fault(*_, **__):
        raise RuntimeError('a bug')

    monkeypatch.setitem(sys.modules, 'r1jax.pipeline', types.SimpleNamespace(run_experiment=fault))
    with pytest.raises(RuntimeError):
        cli.main(['run', f'--config={experiment}', '--workdir=w'])


# ---- eval, sample, report, tasks ----


def test_eval_hands_its_flags_on_and_prints_json(calls, capsys):
    assert cli.main(['eval', '--checkpoint=c', '--task=t', '--samples=4', '--temperature=1', '--out=e']) == 0
    assert calls == [{
        'checkpoint': 'c', 'task': 't', 'samples': 4, 'temperature': 1.0, 'top_p': 0.95, 'problems': 512,
        'max_tokens': None, 'seed': 0, 'out': Path('e')}]
    out = capsys.readouterr().out
    assert json.loads(out) == {'pass@1': 0.5, 'language': '中文'} and '中文' in out


def test_missing_checkpoint_passes_through(calls, capsys):
    said = fails(capsys, 'eval', '--checkpoint=nowhere', '--task=x')
    assert said == "r1jax: there is no checkpoint in 'nowhere'\n"


def test_sample_prints_completions(calls, capsys):
    assert cli.main(['sample', '--checkpoint=c', '--prompt=6*7?', '--n=2', '--top_k=5', '--min_p=0.1']) == 0
    assert calls == [{
        'checkpoint': 'c', 'prompts': ['6*7?'], 'n': 2, 'temperature': 0.6, 'top_p': 0.95, 'top_k': 5,
        'min_p': 0.1, 'max_tokens': None, 'seed': 0}]
    assert capsys.readouterr().out == (
        '--- 1 of 2: 3 tokens\nforty two\n--- 2 of 2: 2 tokens, cut at --max_tokens\nforty\n')


def test_sample_wraps_the_prompt_in_a_template(calls, capsys):
    assert cli.main(['sample', '--checkpoint=c', '--prompt=6*7?', '--template=r1_zero']) == 0
    prompt, = calls[0]['prompts']
    assert prompt.endswith('User: 6*7?. Assistant:') and '<think>' in prompt
    capsys.readouterr()
    assert "did you mean 'r1_zero'?" in fails(
        capsys, 'sample', '--checkpoint=c', '--prompt=x', '--template=r1_zer')


def test_report(calls, tmp_path, capsys):
    assert cli.main(['report', f'--workdir={tmp_path}']) == 0
    assert calls == [tmp_path] and capsys.readouterr().out == f'report: {tmp_path}/report.html\n'
    assert 'there is no run in' in fails(capsys, 'report', f'--workdir={tmp_path}/none')


def test_tasks_lists_what_can_be_named(monkeypatch, capsys):
    tasks = types.SimpleNamespace(names=lambda: ['tiny_b', 'tiny_a'])
    monkeypatch.setitem(sys.modules, 'r1jax.data.tasks', tasks)
    monkeypatch.setattr('r1jax.data.tasks', tasks, raising=False)
    assert cli.main(['tasks']) == 0
    out = capsys.readouterr().out
    # Other tests may have registered rewards of their own.
    assert out.startswith('tasks and mixtures:\n  tiny_a\n  tiny_b\nrewards:\n  accuracy\n') and '\n  format\n' in out
    assert '\nmodels:\n' in out and '\n  tiny\n' in out


# ---- mistakes ----


@pytest.mark.parametrize('argv, said', [
    ([], 'no command given (known: run, eval, sample, import, export, plan, score, audit, tasks, report; see r1jax --help)'),
    (['rnu'], "unknown command 'rnu' (did you mean 'run'?)"),
    (['--verison'], "unknown flag '--verison' of r1jax"),
    (['run', '--cnfig=x'], "'--cnfig' of r1jax run (did you mean '--config'?)"),
    (['run', '--config=x', '--work=w'], "'--work' of r1jax run (did you mean '--workdir'?)"),
    (['run', '--config=x.py'], 'arguments are required: --workdir (see r1jax run --help)'),
    (['run', '--config=x.py', '--workdir=w', 'more'], 'unrecognized arguments: more'),
    (['eval', '--config.seed=1'], "unknown flag '--config.seed' of r1jax eval"),
    (['eval', '--checkpoint=c', '--task=t', '--samples=many'], "--samples: invalid integer value: 'many'"),
    (['eval', '--checkpoint=c', '--task=t', '--samples=0'], '--samples: must be at least 1, got 0'),
    (['eval', '--checkpoint=c', '--task=t', '--top_p=2'], '--top_p: must be at least 0 and at most 1, got 2'),
    (['eval', '--checkpoint=c', '--task=t', '--temperature=nan'], 'must be at least 0, got nan'),
    (['import', '--out=o'], 'arguments are required: --from (see r1jax import --help)'),
    (['export', '--checkpoint=c', '--out=o', '--dtype=int8'], "--dtype: invalid choice: 'int8'"),
    (['export', '--checkpoint=c', '--out=o', '--shard_gb=0'], '--shard_gb: must be at least 1e-05, got 0'),
    (['run', '--config=no/such/file.py', '--workdir=w'], "there is no experiment file 'no/such/file.py'"),
])
def test_mistakes(calls, capsys, monkeypatch, tmp_path, argv, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, *argv)
    assert not calls and not list(tmp_path.iterdir())


# ---- as a process ----


def test_help_explains_each_command_without_loading_jax():
    code = """
import contextlib, sys
from r1jax.__main__ import main
for command in ([], ['run'], ['eval'], ['sample'], ['tasks'], ['report']):
    with contextlib.suppress(SystemExit):
        main([*command, '--help'])
heavy = ('jax', 'numpy', 'tensorflow', 'ml_collections')
print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.stderr == '\n'  # none of them
    for command in ('run', 'eval', 'sample', 'tasks', 'report'):
        assert f'Example:\n  python -m r1jax {command}' in done.stdout


def test_module_exits_with_the_code():
    done = subprocess.run([sys.executable, '-m', 'r1jax', 'rnu'], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "r1jax: unknown command 'rnu' (did you mean 'run'?)\n")


def test_reader_that_stops_early_gets_no_traceback(tmp_path):
    done = subprocess.run(
        ['bash', '-c', f'{sys.executable} -c "{PRINTER}" 2> {tmp_path}/err | head -n 1'],
        capture_output=True, text=True, timeout=60)
    assert done.stdout == 'tasks and mixtures:\n' and (tmp_path / 'err').read_text() == ''


PRINTER = """
import sys, types
sys.modules['r1jax.data.tasks'] = types.SimpleNamespace(names=lambda: ['task' * 100] * 10000)
from r1jax.__main__ import main
sys.exit(main(['tasks']))
"""
