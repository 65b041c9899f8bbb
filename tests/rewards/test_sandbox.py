"""Real sandboxes: what a program can reach, what it leaves behind, and what becomes of its server."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from r1jax.errors import UserError
from r1jax.rewards import sandbox, sandbox_inside
from r1jax.rewards.sandbox import Job, Limits, Sandbox

WALLS = ('bwrap', 'userns')  # those that keep more from a program than resources


def opened(kind):
    if why := sandbox._failure(kind):
        pytest.skip(f'{kind} does not work here: {why}')
    return Sandbox(1, kind=kind)


@pytest.fixture(scope='module', params=sandbox.ISOLATIONS)
def box(request):
    """A sandbox of every isolation that works on this machine."""
    with opened(request.param) as box:
        yield box


@pytest.fixture(scope='module', params=WALLS)
def walled(request):
    with opened(request.param) as box:
        yield box


# What leads to Python in /tmp, where the environment of these tests is installed below it. Programs write LEADING for it.
LEADING = sorted({target.split('/')[2] for _, target in sandbox._visible()[0] if target.startswith('/tmp/')})


def output(box, program, status='ended', **more):
    run, = box.run([Job(textwrap.dedent(program).replace('LEADING', repr(LEADING)), **more)])
    assert run.status == status, run
    return run.output.decode()


def alive(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def within(seconds, condition):
    deadline = time.perf_counter() + seconds
    while not condition() and time.perf_counter() < deadline:
        time.sleep(0.02)
    return condition()


def descendants(pid):
    """Processes that `pid` started, and those that they did."""
    children = {}
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            parent = int(path.read_text().rpartition(')')[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, set()).add(int(path.parent.name))
    found, new = set(), {pid}
    while new:
        new = set().union(*(children.get(number, set()) for number in new)) - found
        found |= new
    return found


def started(before):
    """What this process has started since then and what lives."""
    return {pid for pid in descendants(os.getpid()) - before if alive(pid)}


# --- what a program reaches ---------------------------------------------------------------------------------


def test_a_program_reads_and_writes(box):
    assert output(box, 'print(input()[::-1])', stdin='abc') == 'cba\n'
    assert output(box, 'import sys; print(__name__); print("x", file=sys.stderr)') == '__main__\n'
    runs = box.run([Job(f'print({n})') for n in range(20)])
    assert [run.output for run in runs] == [b'%d\n' % n for n in range(20)]


def test_a_program_sees_nothing_of_this_machines_files(walled, tmp_path):
    secret = tmp_path / 'secret'
    secret.write_text('x')
    paths = [str(secret), str(pathlib.Path.home() / '.bashrc'), __file__, sandbox.__file__, '/etc/passwd', '/etc/hostname',
             '/proc/self/status', '/proc/1/environ', '/sys', '/var', '/dev/shm', '/run', '/usr/bin/env']
    seen = output(walled, f'''
        import os
        print([path for path in {paths!r} if os.path.exists(path)],
              [name for name in os.listdir('/tmp') if name not in LEADING], os.getcwd())
        print(sorted(set(os.environ) - {{'PWD', 'LC_CTYPE'}}))''').split('\n')
    assert seen[0] == '[] [] /tmp'
    assert seen[1] == str(sorted(sandbox._environment()))


@pytest.mark.parametrize('kind', WALLS)
def test_python_may_be_installed_below_tmp(kind, monkeypatch, tmp_path):
    """An environment in /tmp is mounted there, in the folder that is otherwise the program's own."""
    (tmp_path / 'text').write_text('found')
    mounts, links = sandbox._visible()
    inside = ('/tmp/environment/lib', str(tmp_path))
    monkeypatch.setattr(sandbox, '_visible', lambda: ([*mounts, inside[::-1]], links))
    with opened(kind) as box:
        for _ in range(2):
            run, = box.run([Job(
                "import os\nmine = 'mine', 'environment/mine'\n"
                "print(open('/tmp/environment/lib/text').read(), *map(os.path.exists, mine))\n"
                "[open(path, 'w').close() for path in mine]\nopen('/tmp/environment/lib/text', 'w')")])
            assert run.status == 'error' and run.output == b'found False False\n'
        assert box.restarts == 0
        # Whoever moves what leads there gets a new server, and spoils nothing for others.
        box.run([Job("import os\nos.rename('/tmp/environment', '/tmp/elsewhere')")])
        run, = box.run([Job("print(open('/tmp/environment/lib/text').read())")])
        assert run.output == b'found\n' and box.restarts == 1
    assert (tmp_path / 'text').read_text() == 'found'


def test_a_program_writes_nowhere_but_in_its_own_folder(walled):
    assert output(walled, '''
        import os, sys
        prefix = [] if sys.prefix.startswith('/tmp/') else [sys.prefix]
        for top in ('/', '/usr', '/usr/lib', '/etc', '/dev', *prefix, os.path.dirname(os.__file__)):
            try:
                open(top + '/r1jax-test', 'w')
                print('wrote to', top)
            except OSError:
                pass
        for path in ('/sandbox.py', os.__file__):
            for act in (lambda: open(path, 'a'), lambda: os.unlink(path), lambda: os.chmod(path, 0o777)):
                try:
                    act()
                    print('changed', path)
                except OSError:
                    pass
        open('mine', 'w').write('x')
        open('/tmp/mine too', 'w').write('x')
        print(sorted(set(os.listdir('/tmp')) - set(LEADING)))''') == "['mine', 'mine too']\n"


def test_a_program_has_no_network(walled):
    assert output(walled, '''
        import socket
        addresses = (socket.AF_INET, ('127.0.0.1', 1)), (socket.AF_INET, ('1.1.1.1', 53)), (socket.AF_UNIX, '/x')
        for family, address in addresses:
            try:
                socket.socket(family).connect(address)
                print('connected')
            except PermissionError:
                print('refused')''') == 'refused\n' * 3


CALLS = '''
import ctypes, os, resource, signal, sys
c = ctypes.CDLL(None, use_errno=True)
def tried(act):
    try:
        result = act()
    except OSError as error:
        return error.errno
    return ctypes.get_errno() if result == -1 else 0
if tried(os.fork) != 1:
    print('no filter')  # and nothing of what follows, which would hit this machine
    os._exit(0)
print([tried(act) for act in (
    lambda: os.kill(os.getppid(), 9), lambda: os.kill(-1, 9), lambda: os.killpg(0, 9),
    lambda: c.ptrace(16, os.getppid(), 0, 0),
    lambda: c.unshare(0x10000000), lambda: c.mount(b'x', b'/tmp', b'tmpfs', 0, None), lambda: os.chroot('/tmp'),
    lambda: os.memfd_create('x'), lambda: c.shmget(0, 4096, 0o1600), lambda: c.socket(1, 1, 0),
    lambda: c.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0), lambda: os.setpriority(0, os.getppid(), 19),
    lambda: resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0)))])
resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))
try:
    resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))
    print('raised')
except ValueError:
    pass
'''


def test_the_kernel_refuses_what_no_program_needs(box):
    said = output(box, CALLS)
    if said.startswith('no filter'):
        pytest.skip('this machine takes no seccomp filters')
    assert said == str([1] * 13) + '\n'  # EPERM, and so the server and this process are alive
    assert box.restarts == 0 and output(box, 'print(1)') == '1\n'


def test_memory_time_output_and_files_are_limited(box):
    assert output(box, 'x = bytearray(10**9)', 'memory') == ''
    assert output(box, '''
        x = []
        while True: x.append('x' * 10**6)''', 'memory') == ''
    assert output(box, 'while True: pass', 'timeout', limits=Limits(cpu_s=1)) == ''
    assert output(box, 'import time; print(1, flush=True); time.sleep(9)', 'timeout', limits=Limits(wall_s=0.3)) == '1\n'
    assert len(output(box, 'while True: print("x" * 1000)', 'output')) <= Limits().output_bytes
    assert output(box, '''
        try:
            for n in range(1000): open(str(n), 'w').__class__; globals()[f'f{n}'] = open(str(n))
        except OSError as error:
            print(error.errno)''') == '24\n'
    assert output(box, 'open("x", "wb").write(bytes(100 << 20))', 'output') == ''
    assert output(box, '''
        import threading, time
        try:
            for n in range(10_000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            print('no more')''') == 'no more\n'


def test_a_folder_of_its_own_is_empty_again_for_the_next_program(box):
    fill = '''
        import os
        os.makedirs('a/b'); os.symlink('/', 'link'); os.mkfifo('fifo')
        os.chmod('a/b', 0); os.chmod('a', 0)
        for n in range(50):
            open(str(n), 'wb').write(bytes(1000))
        print(len(set(os.listdir('.')) - set(LEADING)))'''
    for _ in range(2):
        assert output(box, fill) == '53\n'
    assert output(box, 'import os; print(set(os.listdir(".")) - set(LEADING))') == 'set()\n'
    assert pathlib.Path('/usr').exists()


def test_a_full_tmp_is_empty_again_for_the_next_program(walled):
    fill = '''
        n = 0
        try:
            while True:
                with open(str(n), 'wb', buffering=0) as file: n += file.write(bytes(1 << 20)) > 0
        except OSError as error:
            print(n, error.errno)'''
    first, second = (output(walled, fill, limits=Limits(output_bytes=2 << 20)) for _ in range(2))
    assert first == second and 30 < int(first.split()[0]) <= 64 and first.split()[1] == '28'  # ENOSPC


def test_a_deep_folder_costs_the_server_and_no_verdict(walled):
    before = walled.restarts
    assert output(walled, '''
        import os
        for n in range(3000):
            os.mkdir('d'); os.chdir('d')
        print('deep')''') in ('deep\n', '')
    assert output(walled, 'import os; print(set(os.listdir("/tmp")) - set(LEADING))') == 'set()\n'
    assert walled.restarts <= before + 2


def test_threads_do_not_outlive_their_program(box):
    assert output(box, '''
        import os, threading, time
        def write():
            while True: open('/tmp/r1jax-test-thread', 'w').close()
        threading.Thread(target=write, daemon=True).start()
        time.sleep(0.05)''') == ''
    pathlib.Path('/tmp/r1jax-test-thread').unlink(missing_ok=True)
    assert 'r1jax-test-thread' not in output(box, 'import os, time; time.sleep(0.1); print(os.listdir("/tmp"))')


def test_processes_are_killed_even_without_a_filter_of_system_calls(monkeypatch, tmp_path):
    """The namespace is the first wall: with the second one taken down, forks, daemons and kill(-1) reach nobody else."""
    source = pathlib.Path(sandbox_inside.__file__).read_text()
    bare = tmp_path / 'sandbox_inside.py'
    bare.write_text(source.replace('        refuse_system_calls()\n', ''))
    assert bare.read_text() != source
    monkeypatch.setattr(sandbox_inside, '__file__', str(bare))
    for kind in WALLS:
        if sandbox._failure(kind):
            continue
        with Sandbox(1, kind=kind) as box:
            assert output(box, '''
                import os, signal, time
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
                        while True: open('/tmp/daemon', 'w').close()
                    os._exit(0)
                time.sleep(0.1)
                print(set(os.listdir('/tmp')) - set(LEADING))''') == "{'daemon'}\n"
            assert output(
                box, 'import os, time; time.sleep(0.1); print(set(os.listdir("/tmp")) - set(LEADING))') == 'set()\n'
            bomb = 'import os\nwhile True:\n  try: os.fork()\n  except OSError: pass'
            run, = box.run([Job(bomb, limits=Limits(wall_s=0.5))])
            assert run.status in ('timeout', 'error')
            run, = box.run([Job('import os\nos.kill(1, 9); os.kill(1, 19); os.kill(-1, 9)')])
            assert run.status in ('error', 'ended')
            assert output(box, 'import os; print(os.getppid())') == '1\n'
            assert output(box, '''
                import ctypes, os
                c = ctypes.CDLL(None, use_errno=True)
                print(c.ptrace(16, 1, 0, 0), ctypes.get_errno())''') == '-1 1\n'
            assert box.restarts == 0


# --- servers --------------------------------------------------------------------------------------------------


def test_slots_run_programs_side_by_side(box):
    with Sandbox(3, kind=box.kind) as wide:
        wide.run([Job('1')] * 3)
        start = time.perf_counter()
        runs = wide.run([Job('import time; time.sleep(0.4)')] * 3)
        assert time.perf_counter() - start < 1.1 and {run.status for run in runs} == {'ended'}


def test_a_killed_server_is_replaced_and_its_program_run_again(box):
    with Sandbox(1, kind=box.kind) as mine:
        before = descendants(os.getpid())
        mine.run([Job('1')])
        future = mine.submit(Job('import time; time.sleep(0.5); print(1)'))
        time.sleep(0.2)
        os.kill(min(started(before)), signal.SIGKILL)
        assert future.result(20).output == b'1\n' and mine.restarts == 1
        os.kill(min(started(before)), signal.SIGKILL)
        assert mine.run([Job('print(2)')])[0].output == b'2\n' and mine.restarts == 2


def test_a_program_that_takes_its_server_along_twice_is_lost_and_no_hang(box, monkeypatch):
    monkeypatch.setattr(sandbox._Server, '_receive', lambda self, timeout_s: b'ready' if timeout_s > 50 else _raise())
    with Sandbox(1, kind=box.kind) as mine:
        assert mine.run([Job('1')])[0].status == 'lost' and mine.restarts == 2


def _raise():
    raise sandbox._Gone('gone')


def test_close_leaves_no_process_no_folder_and_no_zombie(box, monkeypatch):
    opened_servers = []
    start = sandbox._Server.__init__
    monkeypatch.setattr(sandbox._Server, '__init__', lambda self, kind: opened_servers.append(self) or start(self, kind))
    before = descendants(os.getpid())
    mine = Sandbox(2, kind=box.kind)
    mine.run([Job('1')] * 4)
    mine_now = descendants(os.getpid()) - before
    folders = [server.folder for server in opened_servers if server.folder]
    assert len(mine_now) >= 2 and bool(folders) == (box.kind == 'limits')
    mine.close()
    mine.close()
    assert within(5, lambda: not any(pathlib.Path(f'/proc/{pid}').exists() for pid in mine_now))  # not even as zombies
    assert not any(map(os.path.exists, folders))
    with pytest.raises(RuntimeError, match='closed'):
        mine.run([Job('1')])


@pytest.mark.parametrize('end', ['os.kill(os.getpid(), signal.SIGKILL)', 'sys.exit(0)', 'os._exit(3)'])
def test_a_program_that_ends_or_is_killed_leaves_no_server(box, end):
    source = textwrap.dedent(f'''
        import os, signal, sys, time; sys.path[:] = {sys.path!r}
        from r1jax.rewards.sandbox import Job, Sandbox
        box = Sandbox(2, kind={box.kind!r})
        box.run([Job('1')] * 4)
        box.submit(Job('while True: pass'))
        time.sleep(0.2)
        print('running', flush=True)
        sys.stdin.readline()
        {end}
    ''')
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, '-c', source], **pipes) as process:
        assert process.stdout.readline() == 'running\n'
        pids = descendants(process.pid)
        assert len(pids) >= 3
        process.communicate('\n', timeout=60)
    assert within(10, lambda: not any(map(alive, pids)))


def test_programs_know_nothing_of_those_before_them(box):
    assert output(box, '''
        import builtins, collections, os, sys
        builtins.len = collections.Counter = None
        sys.modules['math'] = None
        os.environ['x'] = 'y'
        secret = 'the program before'
        os.umask(0o777)''') == ''
    assert output(box, '''
        import collections, gc, math, os, sys
        print(len('ab'), collections.Counter('a'), math.pi > 3, 'x' in os.environ, os.umask(0))
        words = ' '.join(['program', 'before'])
        print([o for o in gc.get_objects() if words in str(o)[:1000]])''') == "2 Counter({'a': 1}) True False 18\n[]\n"


# --- which isolation --------------------------------------------------------------------------------------------


def test_the_isolation_is_the_first_that_works_or_the_one_asked_for(monkeypatch):
    working = {'bwrap': '', 'userns': '', 'limits': ''}
    monkeypatch.setattr(sandbox, '_failure', working.get)
    monkeypatch.delenv(sandbox.VARIABLE, raising=False)
    assert sandbox.isolation() == 'bwrap'
    working['bwrap'] = 'not installed'
    assert sandbox.isolation() == 'userns'
    working['userns'] = 'Operation not permitted (unshare)'
    with pytest.raises(UserError, match=r"\(bwrap: not installed; userns: Operation not permitted .*apt install bubblewrap"):
        sandbox.isolation()
    monkeypatch.setenv(sandbox.VARIABLE, 'limits')
    assert sandbox.isolation() == 'limits'
    monkeypatch.setenv(sandbox.VARIABLE, 'bwrap')
    with pytest.raises(UserError, match='bwrap: not installed'):
        sandbox.isolation()
    monkeypatch.setenv(sandbox.VARIABLE, 'limit')
    with pytest.raises(UserError, match="did you mean 'limits'"):
        sandbox.isolation()


def test_what_does_not_start_is_told_in_its_own_words_and_never_a_zero(monkeypatch):
    monkeypatch.setattr(sandbox, '_command', lambda kind: ['sh', '-c', 'echo first >&2; echo no such namespace >&2'])
    with pytest.raises(sandbox._Gone, match='^no such namespace$'):
        sandbox._Server('userns')
    with Sandbox(1, kind='userns') as box:
        for _ in range(2):
            with pytest.raises(UserError, match='does not start any more .userns: no such namespace'):
                box.run([Job('1')])
