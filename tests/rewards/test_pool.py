"""Real worker processes that hang, crash and run out of memory; each costs its own item and nothing else."""

import multiprocessing
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from r1jax.errors import UserError
from r1jax.rewards import WorkerPool

FUNCTIONS = '''
import ctypes, os, signal, subprocess, sys, threading, time

def act(item):
    """Does what the item says."""
    kind, value = item if isinstance(item, tuple) else (item, None)
    if kind == 'sleep':
        time.sleep(value)
    elif kind == 'spin':
        while True:
            pass
    elif kind == 'stubborn':  # ignores every signal that can be ignored
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(0.01)
    elif kind == 'exit':
        os._exit(value)
    elif kind == 'sys.exit':
        sys.exit(value)
    elif kind == 'abort':
        os.abort()
    elif kind == 'segfault':
        ctypes.string_at(0)
    elif kind == 'memory':
        block = bytearray(2 << 30)
    elif kind == 'raise':
        raise ValueError('no good')
    elif kind == 'odd error':
        raise type('Odd', (Exception,), {})('odd')
    elif kind == 'unpicklable':
        return lambda: 0
    elif kind == 'breaks when it arrives':
        return Broken()
    elif kind == 'print':
        print('noise ' * 10_000, flush=True)
    elif kind == 'child':
        child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)
        open(value, 'w').write(str(child.pid))
        time.sleep(60)
    elif kind == 'parts':
        from r1jax.rewards import worker
        for seconds in value:
            worker.restart_clock()
            time.sleep(seconds)
    elif kind == 'echo':
        return value
    return kind, os.getpid()

class Broken:
    def __reduce__(self):
        return int, ('x',)

def heavy(item):
    return [name for name in ('jax', 'jaxlib', 'tensorflow', 'torch', 'transformers') if name in sys.modules]

def on_main_thread(item):
    return threading.current_thread() is threading.main_thread()
'''


@pytest.fixture(scope='module', autouse=True)
def functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp('functions')
    (folder / 'r1jax_test_functions.py').write_text(FUNCTIONS)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


ACT = 'r1jax_test_functions:act'


def alive(pid):
    """Whether a process runs; one that has ended but whose new parent is slow to reap it does not."""
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def exists(pid):
    """Whether there is such a process, be it a zombie."""
    return pathlib.Path(f'/proc/{pid}').exists()


def all_end(pids, within_s=5.0):
    pids = list(pids)
    deadline = time.perf_counter() + within_s
    while any(map(alive, pids)) and time.perf_counter() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


def test_results_in_order_from_several_workers():
    with WorkerPool(2, timeout_s=20) as pool:
        outcomes = pool.map('operator:neg', range(50))
        assert [outcome.value for outcome in outcomes] == [-n for n in range(50)]
        assert set(statuses(outcomes)) == {'ok'}
        seen = {outcome.value[1] for outcome in pool.map(ACT, [('sleep', 0.05)] * 8)}
        assert seen == set(pool.pids) and len(seen) == 2
        assert (pool.timeouts, pool.crashes) == (0, 0)
        assert pool.map(os.path.basename, ['a/b'])[0].value == 'b'  # a function as well as a name


def test_failures_cost_only_their_item():
    kinds = ['ok', 'spin', 'ok', 'stubborn', ('exit', 3), 'ok', ('exit', 0), ('sys.exit', 0), 'abort',
    'segfault', 'memory', 'raise', 'ok']
    expected = ['ok', 'timeout', 'ok', 'timeout', 'crash', 'ok', 'crash', 'crash', 'crash', 'crash', 'crash',
    'error', 'ok']
    with WorkerPool(2, timeout_s=0.5, memory_gb=1.5) as pool:
        outcomes = pool.map(ACT, kinds)
        assert statuses(outcomes) == expected
        assert (pool.timeouts, pool.crashes) == (2, 6)
        assert isinstance(outcomes[11].value, ValueError) and str(outcomes[11].value) == 'no good'
        assert "raise ValueError('no good')" in outcomes[11].value.__notes__[0]  # where it happened
        assert outcomes[1].value is None


def test_the_timeout_counts_run_time_and_not_queue_time():
    with WorkerPool(1, timeout_s=0.6) as pool:
        assert statuses(pool.map(ACT, [('sleep', 0.15)] * 8)) == ['ok'] * 8
        assert pool.timeouts == 0


def test_a_function_may_restart_its_clock_for_each_of_its_parts():
    with WorkerPool(1, timeout_s=0.5) as pool:
        items = [('parts', [0.3] * 4), ('parts', [0.1, 60]), ('parts', [0.3] * 2), ('sleep', 0.9)]
        assert statuses(pool.map(ACT, items)) == ['ok', 'timeout', 'ok', 'timeout'] and pool.timeouts == 2


def test_preparation_comes_before_the_clock():
    with WorkerPool(1, timeout_s=0.4) as pool:
        slow = [('sleep', 0.6)]
        assert statuses(pool.map('operator:not_', slow, prepare=ACT)) == ['ok'] and pool.timeouts == 0
        assert statuses(pool.map(ACT, slow, prepare='operator:not_')) == ['timeout']
        assert statuses(pool.map('operator:not_', ['raise', 'ok'], prepare=ACT)) == ['error', 'ok']


def test_a_timeout_ends_in_time_and_kills_the_process():
    with WorkerPool(1, timeout_s=0.3) as pool:
        pool.map(ACT, ['ok'])
        before, start = pool.pids, time.perf_counter()
        assert statuses(pool.map(ACT, ['stubborn'])) == ['timeout']
        assert 0.3 <= time.perf_counter() - start < 2.0
        assert pool.pids != before and not exists(before[0])


def test_children_of_a_worker_die_with_it(tmp_path):
    with WorkerPool(1, timeout_s=0.5) as pool:
        assert statuses(pool.map(ACT, [('child', str(tmp_path / 'pid'))])) == ['timeout']
    assert all_end([int((tmp_path / 'pid').read_text())])


def test_works_off_the_main_thread_and_from_several_threads():
    results = {}
    with WorkerPool(2, timeout_s=0.5) as pool:
        def work(name):
            results[name] = statuses(pool.map(ACT, ['ok', 'spin' if name == 1 else 'ok', 'ok']))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
        [thread.start() for thread in threads]
        [thread.join(20) for thread in threads]
        assert pool.map('r1jax_test_functions:on_main_thread',
        [0])[0].value  # so a verifier's own signal.alarm works there
    assert results == {0: ['ok'] * 3, 1: ['ok', 'timeout', 'ok'], 2: ['ok'] * 3}


def test_a_worker_killed_while_idle_costs_nothing():
    with WorkerPool(1, timeout_s=20) as pool:
        pool.map(ACT, ['ok'])
        os.kill(pool.pids[0], 9)
        assert statuses(pool.map(ACT, ['ok', 'ok'])) == ['ok', 'ok'] and pool.crashes == 0


def test_odd_results(capfd):
    with WorkerPool(1, timeout_s=20) as pool:
        outcomes = pool.map(ACT, ['unpicklable', 'odd error', 'print', ('echo', b'x' * 5_000_000)])
        assert statuses(outcomes) == ['error', 'error', 'ok', 'ok']
        assert isinstance(outcomes[1].value, RuntimeError) and str(outcomes[1].value) == 'Odd: odd'
        assert len(outcomes[3].value) == 5_000_000
        assert 'noise' not in capfd.readouterr().out  # what workers print goes to standard error
        for name in ('no_such_module:f', 'operator:no_such_function'):
            assert statuses(pool.map(name, [1])) == ['error']
        assert statuses(pool.map(ACT, ['ok'])) == ['ok']


def test_what_goes_wrong_on_this_side_costs_its_item_and_not_the_pool(monkeypatch):
    with WorkerPool(1, timeout_s=20) as pool:
        assert statuses(pool.map(ACT, ['breaks when it arrives', 'ok'])) == ['error', 'ok']
        blocker = pool.submit(ACT, ('sleep', 0.5))
        cancelled = pool.submit(ACT, 'ok')
        assert cancelled.cancel()
        assert blocker.result().status == 'ok' and statuses(pool.map(ACT, ['ok'])) == ['ok']

        def no_memory(*arguments):
            raise OSError('cannot allocate memory')

        with monkeypatch.context() as patched:
            patched.setattr(WorkerPool, '_replace', no_memory)
            assert statuses(pool.map(ACT, [('exit', 1)])) == ['error']
        assert statuses(pool.map(ACT, ['ok'])) == ['ok']


@pytest.mark.parametrize('where', ['while it runs', 'while it is prepared'])
def test_a_worker_whose_parent_is_dead_ends_by_itself(where):
    ours, theirs = multiprocessing.Pipe()
    source = (
        f'import sys; sys.path[:] = {sys.path!r}; '
        f'from r1jax.rewards.worker import serve; serve({theirs.fileno()}, 2**34, 0.5)')
    process = subprocess.Popen([sys.executable, '-c', source], pass_fds=[theirs.fileno()])
    calls = ('time:sleep', 'builtins:bool')  # the function, and what is called before it
    ours.send((*(calls if where == 'while it runs' else calls[::-1]), pickle.dumps(60)))
    assert process.wait(60) == -signal.SIGALRM


def test_a_killed_program_leaves_no_hanging_worker():
    """Killed outright, it cannot end the call that hangs; and it had no time to."""
    source = textwrap.dedent(f'''
        import os, signal, sys, time; sys.path[:] = {sys.path!r}
        from r1jax.rewards import pool
        pool.START_LIMIT_S = 2
        workers = pool.WorkerPool(1, timeout_s=2)
        workers.map('operator:neg', [1])
        workers.submit('time:sleep', 60)
        time.sleep(0.5)
        print(*workers.pids, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    ''')
    run = subprocess.run([sys.executable, '-c', source], stdout=subprocess.PIPE, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL and all_end(map(int, run.stdout.split()), within_s=30)


def test_functions_that_a_worker_cannot_import_are_refused():
    with WorkerPool(1, timeout_s=1) as pool:
        with pytest.raises(UserError, match='cannot import'):
            pool.map(lambda item: item, [1])
        local = type('Local', (), {'__module__': '__main__', '__qualname__': 'f'})
        with pytest.raises(UserError, match='__main__.f'):
            pool.map(local, [1])


def test_workers_import_nothing_heavy_and_not_the_main_module(tmp_path):
    script = tmp_path / 'main.py'
    script.write_text(textwrap.dedent(f'''
        import sys
        sys.path[:0] = {sys.path!r}
        import jax
        print('main module')
        jax.numpy.zeros(3).block_until_ready()
        from r1jax.rewards import WorkerPool
        with WorkerPool(1, timeout_s=20) as pool:
            print(pool.map('r1jax_test_functions:heavy', [0])[0])
    '''))  # no `if __name__ == '__main__'`, as in a notebook
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == ['main module', "Outcome(status='ok', value=[])"], run.stderr
    assert not run.stderr.strip()


def test_close_leaves_no_process_and_fails_what_had_not_ended():
    pool = WorkerPool(2, timeout_s=30)
    pool.map(ACT, ['ok'] * 4)
    futures = [pool.submit(ACT, ('sleep', 30)) for _ in range(4)]
    time.sleep(0.2)
    pids, start = pool.pids, time.perf_counter()
    pool.close()
    assert time.perf_counter() - start < 2.0 and not any(map(exists, pids))
    for future in futures:
        with pytest.raises(RuntimeError, match='closed'):
            future.result(1)
    with pytest.raises(RuntimeError, match='closed'):
        pool.submit(ACT, 'ok')
    pool.close()


def test_an_unclosed_pool_does_not_keep_the_program_or_its_workers():
    source = textwrap.dedent(f'''
        import sys; sys.path[:] = {sys.path!r}
        from r1jax.rewards import WorkerPool
        pool = WorkerPool(2, timeout_s=20)
        pool.map('operator:neg', [1, 2, 3])
        print(*pool.pids)
    ''')
    run = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True, timeout=30)
    assert run.returncode == 0 and not run.stderr.strip(), run.stderr
    assert all_end(map(int, run.stdout.split()))


@pytest.mark.parametrize('arguments', [(0, 1), (1, 0), (1, -1), (1, 1, 0)])
def test_bad_sizes(arguments):
    with pytest.raises(UserError, match='worker pool needs'):
        WorkerPool(*arguments)
