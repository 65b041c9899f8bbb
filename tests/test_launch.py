"""The launch scripts, in a copy of the checkout, with a stand-in for Python that notes how it is called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob('launch/*.sh'), ROOT / '.ci' / 'run'])

# `python -m venv DIR` makes an environment whose python is this stand-in again; other calls are only noted.
# A call that contains $FAILS fails, one that contains $LASTS takes a second.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
if [ -n "${FAILS:-}" ] && [[ "$*" == *"$FAILS"* ]]; then exit 1; fi
if [ -n "${LASTS:-}" ] && [[ "$*" == *"$LASTS"* ]]; then sleep 1; fi
if [ "$1 $2" = '-m venv' ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; touch "$3/pyvenv.cfg"; fi
"""


class Machine:
    """A checkout and a PATH with little else than the stand-in."""

    def __init__(self, tmp_path: Path):
        self.root, self.tmp, self.calls = tmp_path / 'a checkout', tmp_path, tmp_path / 'calls'
        shutil.copytree(ROOT / 'launch', self.root / 'launch')
        for name in ('setup.py', 'constraints.txt'):
            shutil.copy(ROOT / name, self.root / name)
        (self.root / 'experiments/tiny').mkdir(parents=True)
        (self.root / 'experiments/tiny/r1_zero.py').write_text('def get_config(arg):\n    pass\n')
        (self.root / 'experiments/common.py').write_text('def helper():\n    pass\n')
        self.bin = tmp_path / 'bin'
        self.bin.mkdir()
        tools = 'bash basename cat cksum cp dirname env flock grep ls mkdir nproc sed sleep sort touch tr'
        for tool in tools.split():
            if path := shutil.which(tool):
                (self.bin / tool).symlink_to(path)
        self.python = self.bin / 'python3'
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def start(self, script: str, *args: str, **env: str) -> subprocess.Popen:
        env = {'PATH': str(self.bin), 'HOME': str(self.tmp / 'home'), 'CALLS': str(self.calls), **env}
        return subprocess.Popen(
            ['bash', str(self.root / script), *args], env=env, cwd=self.tmp, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, script: str, *args: str, **env: str) -> subprocess.CompletedProcess:
        self.calls.write_text('')
        process = self.start(script, *args, **env)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def called(self, what: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if what in line]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script):
    subprocess.run(['bash', '-n', str(script)], check=True)
    assert script.read_text().startswith('#!/usr/bin/env bash\n') == (script.name != 'environment.sh')


def test_claims_run_in_a_folder_of_their_own_unless_told_another(machine):
    assert machine.run('launch/claims.sh', '--seeds=2').returncode == 0
    assert machine.called('-m experiments') == [
        f'-m experiments.tiny.claims --workdir={machine.root}/runs/tiny-claims --seeds=2']
    assert machine.run('launch/claims.sh', '--workdir', 'other', '--table').returncode == 0
    assert machine.called('-m experiments') == ['-m experiments.tiny.claims --workdir other --table']


def test_first_call_installs_and_runs(machine):
    done = machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py', '--config.seed=1')
    assert done.returncode == 0, done.stderr
    root = machine.root
    assert machine.called('-m venv') == [f'-m venv {root}/.venv']
    install, = machine.called('pip install')
    assert f'--editable {root}[data]' in install and f'--constraint {root}/constraints.txt' in install
    assert machine.called('-m r1jax') == [
        f'-m r1jax run --config={root}/experiments/tiny/r1_zero.py --workdir={root}/runs/tiny-r1_zero '
        '--config.seed=1']


def test_second_call_installs_nothing_until_a_requirement_changes(machine):
    machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py')
    done = machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py')
    assert (done.returncode, done.stdout) == (0, '')
    assert len(machine.calls.read_text().splitlines()) == len(machine.called('-m r1jax')) == 1

    (machine.root / 'constraints.txt').write_text('jax==0.11.0\n')
    machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py')
    assert machine.called('pip install') and not machine.called('-m venv')


def test_extras_are_recorded_one_by_one(machine):
    machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py')
    machine.run('launch/test.sh')
    assert '[data,test]' in machine.called('pip install')[0]
    machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py')
    assert not machine.called('pip install')


def test_failed_installation_is_tried_again(machine):
    done = machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py', FAILS='pip install')
    assert done.returncode == 1 and 'pip could not install it' in done.stderr
    assert not machine.called('-m r1jax')
    machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py')
    assert machine.called('pip install') and machine.called('-m r1jax')


@pytest.mark.skipif(not shutil.which('flock'), reason='this system has no flock')
def test_runs_that_start_side_by_side_install_once(machine):
    arms = [machine.start('launch/local.sh', f'experiments/tiny/r1_zero.py:seed={i}', LASTS='pip install')
            for i in range(3)]
    assert [arm.wait(timeout=60) for arm in arms] == [0, 0, 0]
    assert len(machine.called('pip install')) == 1 and len(machine.called('-m r1jax')) == 3


def test_environment_and_runs_may_lie_elsewhere(machine):
    done = machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py', R1JAX_VENV='env', R1JAX_RUNS='/r')
    assert done.returncode == 0, done.stderr
    assert machine.called('-m venv') == [f'-m venv {machine.tmp}/env']
    assert '--workdir=/r/tiny-r1_zero' in machine.called('-m r1jax')[0]
    assert not (machine.root / '.venv').exists()


@pytest.mark.parametrize('args, said', [
    (['experiments/tiny/r1_zero.py:arm=random_reward,seed=2'],
     '--config={root}/experiments/tiny/r1_zero.py:arm=random_reward,seed=2 '
     '--workdir={root}/runs/tiny-r1_zero-arm-random_reward-seed-2'),
    (['mine.py'], '--config=mine.py --workdir={root}/runs/mine'),
    (['mine.py', '--workdir=w'], '--config=mine.py --workdir=w'),
    (['mine.py', '--workdir', 'w'], '--config=mine.py --workdir w'),
])
def test_arguments(machine, args, said):
    (machine.tmp / 'mine.py').write_text('def get_config(arg):\n    pass\n')
    machine.run('launch/local.sh', *args)
    assert machine.called('-m r1jax') == ['-m r1jax run ' + said.format(root=machine.root)]


def test_missing_experiment_is_told_before_anything_is_made(machine):
    done = machine.run('launch/local.sh', 'experiments/tiny/r1_zer.py')
    assert done.returncode == 2 and not machine.called('') and not (machine.root / '.venv').exists()
    assert done.stderr == ("local.sh: there is no experiment file 'experiments/tiny/r1_zer.py'; "
                           'bash launch/local.sh --help lists them\n')


def test_help_lists_experiments(machine):
    done = machine.run('launch/local.sh', '--help')
    assert done.returncode == 0 and 'bash launch/local.sh EXPERIMENT.py' in done.stdout
    assert done.stdout.endswith('Experiments:\n  experiments/tiny/r1_zero.py\n')  # and not common.py
    assert machine.run('launch/local.sh').returncode == 2


def test_no_fitting_python(machine):
    for fault in ({'FAILS': 'ensurepip'}, {}):  # too old or without pip; none at all
        done = machine.run('launch/local.sh', 'experiments/tiny/r1_zero.py', **fault)
        assert done.returncode == 2 and done.stderr.count('\n') == 1
        assert 'no Python 3.11, 3.12 or 3.13 with venv and pip is on the PATH' in done.stderr
        assert not (machine.root / '.venv').exists()
        machine.python.unlink(missing_ok=True)


def test_folder_that_is_no_environment_is_left_alone(machine):
    (machine.tmp / 'thesis').mkdir()
    (machine.tmp / 'thesis' / 'chapter.tex').touch()
    done = machine.run('launch/test.sh', R1JAX_VENV='thesis')
    assert done.returncode == 2 and 'thesis exists and is no virtual environment' in done.stderr
    assert os.listdir(machine.tmp / 'thesis') == ['chapter.tex']


def test_tests_leave_out_slow_ones_unless_asked(machine):
    done = machine.run('launch/test.sh', 'tests/rewards', '-m', 'slow')
    assert done.returncode == 0, done.stderr
    call, = machine.called('-m pytest')
    assert '-m not slow tests/rewards -m slow' in call and '-n ' in call


@pytest.mark.parametrize('user, sudo, wanted', [
    (0, True, ['install']), (0, False, ['install']), (1000, True, ['install']), (1000, False, [])])
def test_tests_install_bubblewrap_where_they_may(machine, user, sudo, wanted):
    def stand_in(name, text):
        (machine.bin / name).write_text(f'#!/usr/bin/env bash\n{text}\n')
        (machine.bin / name).chmod(0o755)

    stand_in('id', f'echo {user}')
    stand_in('apt-get', 'echo "apt-get $1 ${@: -1}" >> "$CALLS"; exit "${APT:-0}"')
    if sudo:
        stand_in('sudo', '[ "$1" = -n ] && shift; "$@"')
        (machine.bin / 'true').symlink_to(shutil.which('true'))
    assert machine.run('launch/test.sh').returncode == 0
    assert machine.called('apt-get') == [f'apt-get {word} bubblewrap' for word in wanted] and machine.called('-m pytest')
    assert machine.run('launch/test.sh', APT='1').returncode == 0  # no packages to be had: on without it
    assert machine.called('-m pytest')
    stand_in('bwrap', '')
    machine.run('launch/test.sh')
    assert not machine.called('apt-get')


def test_ci_runs_the_test_command(machine):
    shutil.copytree(ROOT / '.ci', machine.root / '.ci')
    machine.run('.ci/run', CI='true')
    assert len(machine.called('-m pytest')) == 1
    assert machine.run('.ci/run', FAILS='-m pytest').returncode == 1


def test_compiled_programs_are_kept(machine):
    machine.python.write_text(PYTHON.replace('echo "$*"', 'echo "$JAX_COMPILATION_CACHE_DIR $*"'))
    machine.run('launch/test.sh')
    assert machine.called('-m pytest')[0].startswith(f'{machine.tmp}/home/.cache/r1jax/jax -m pytest')
    machine.run('launch/test.sh', JAX_COMPILATION_CACHE_DIR='/mine')
    assert machine.called('-m pytest')[0].startswith('/mine -m pytest')
