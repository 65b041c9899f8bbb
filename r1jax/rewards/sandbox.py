"""Runs programs nobody has read: a warm server in a sandbox forks each of them, and what they may do is next to nothing.

    with Sandbox(slots=2) as sandbox:
        runs = sandbox.run([Job('print(input()[::-1])', stdin='abc')])     # [Run('ended', b'cba\n')]

How a program is kept in (`isolation`), the first that works here or what R1JAX_SANDBOX names:

    bwrap     namespaces made by bubblewrap: no network, no other process, a file system that holds Python, read-only, and
              an empty /tmp in memory
    userns    the same namespaces, made by hand
    limits    resource limits alone, and the system calls that Linux can refuse: for programs that mean no harm, because the
              user's files and processes, the grader's too, are in reach. It has to be asked for.

Everywhere: limits of time, memory, output and files; no capabilities; no new processes, signals, sockets or tracing
(seccomp, where the kernel has it). A slot runs one program at a time in namespaces of its own, and all that is left of it
is killed and wiped before the next one, so programs know nothing of each other. What a program says is its output, or
answers to calls: the verdict is reached in another process (`sandbox_inside`) or here. A server that dies is replaced, and
its program run once more.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import queue
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from r1jax.errors import UserError, nearest
from r1jax.rewards import sandbox_inside

# Which isolation to use; the first two are tried in this order where it is not set.
VARIABLE = 'R1JAX_SANDBOX'
ISOLATIONS = ('bwrap', 'userns', 'limits')

START_LIMIT_S = 60.0  # generous, because a machine may be busy
GRACE_S = 3.0  # what a server may take beyond a program's own time, to end and to wipe
TMP_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use: seconds of CPU and on the wall, address space, bytes of each file and of output, threads.

    A busy machine shows on the wall, so that is the wider limit, for programs that sleep.
    """

    cpu_s: int = 6
    wall_s: float = 12.0
    memory_bytes: int = 512 << 20
    output_bytes: int = 1 << 20
    processes: int = 64


@dataclasses.dataclass(frozen=True)
class Job:
    """A program, and either what it reads from standard input or the tests that call it (see `sandbox_inside.run_tests`)."""

    program: str
    stdin: str = ''
    tests: dict | None = None
    limits: Limits = Limits()


@dataclasses.dataclass(frozen=True)
class Run:
    """What became of a job.

    status: 'ended', 'error' (a script's exception, exit code or crash), 'timeout', 'memory', 'output', or 'lost': its server
    died twice. output: what a script wrote, up to the limit. verdict: of tests, {passed, failed, status, error, message};
    None where they came to none. wall_s: what it took.
    """

    status: str
    output: bytes = b''
    verdict: dict | None = None
    wall_s: float = 0.0


class Sandbox:
    """`slots` servers, each in a sandbox of its own, that run programs side by side. A context manager.

    Usable from any thread. Raises UserError where no isolation works, see `isolation`; so do jobs for which no server starts
    any more.
    """

    def __init__(self, slots: int = 1, kind: str | None = None):
        self.kind = kind or isolation()
        self.restarts = 0
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._closed = False
        # A sandbox dies with the thread that started it, so each slot has a thread that lives as long as it.
        self._threads = [threading.Thread(target=self._look_after, name=f'sandbox-{n}', daemon=True) for n in range(slots)]
        for thread in self._threads:
            thread.start()

    def run(self, jobs: Sequence[Job]) -> list[Run]:
        """Runs jobs on all slots and waits; what became of them stands in their order."""
        return [future.result() for future in [self.submit(job) for job in jobs]]

    def submit(self, job: Job) -> Future:
        """Queues one job; the future gives its Run. RuntimeError on a closed sandbox."""
        if self._closed:
            raise RuntimeError('the sandbox is closed')
        future: Future = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Ends the servers, after the programs that they run, and waits for them. Safe to repeat."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> 'Sandbox':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _look_after(self) -> None:
        """The thread of one slot."""
        server = None
        try:
            while (item := self._jobs.get()) is not None:
                job, future = item
                try:
                    run = None
                    for _ in range(2):
                        server = server or _Server(self.kind)
                        with contextlib.suppress(_Gone):
                            run = server.run(job)
                            break
                        server.close()
                        server = None
                        self.restarts += 1
                    future.set_result(run or Run('lost'))
                except _Gone as error:
                    future.set_exception(UserError(f'a sandbox does not start any more ({self.kind}: {error})'))
                except Exception as error:
                    future.set_exception(error)
        finally:
            if server is not None:
                server.close()


def isolation() -> str:
    """Returns which of ISOLATIONS is used: what R1JAX_SANDBOX says, or else the first of bwrap and userns that works.

    Raises UserError, with what to install, where neither does or the one asked for does not, and for an unknown name.
    """
    wanted = os.environ.get(VARIABLE, '')
    if wanted and wanted not in ISOLATIONS:
        raise UserError(f"{VARIABLE}='{wanted}' is no sandbox{nearest(wanted, ISOLATIONS)}")
    failures = []
    for kind in (wanted,) if wanted else ISOLATIONS[:2]:
        failure = _failure(kind)
        if not failure:
            return kind
        failures.append(f'{kind}: {failure}')
    raise UserError(
        f"running programs needs a sandbox, and none works here ({'; '.join(failures)}): install bubblewrap (Debian, "
        f'Ubuntu: apt install bubblewrap), or set {VARIABLE}=limits to run them with resource limits alone, where they can '
        'read your files')


@functools.lru_cache
def _failure(kind: str) -> str:
    """Returns why a program cannot be run with this isolation, '' if it can; found out by running one."""
    if kind == 'bwrap' and not shutil.which('bwrap'):
        return 'not installed'
    if kind != 'limits' and sys.platform != 'linux':
        return 'only on Linux'
    try:
        server = _Server(kind)
    except _Gone as error:
        return str(error)
    try:
        run = server.run(Job('print(1)', limits=Limits(wall_s=START_LIMIT_S)))
        return '' if run.output == b'1\n' else f'a program that prints 1 came to {run.status}'
    except _Gone as error:
        return str(error)
    finally:
        server.close()


class _Gone(Exception):
    """The server is dead, or does not answer."""


class _Server:
    """One slot: the process of a server, and the socket to it. Raises _Gone if it does not start."""

    def __init__(self, kind: str):
        self.folder = tempfile.mkdtemp(prefix='r1jax-sandbox-') if kind == 'limits' else None
        self.control, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as complaints:
            self.process = subprocess.Popen(
                _command(kind), stdin=theirs, stdout=subprocess.DEVNULL, stderr=complaints, env=_environment(),
                cwd=self.folder or '/', start_new_session=True)
            theirs.close()
            try:
                if self._receive(START_LIMIT_S) != b'ready':
                    raise _Gone('does not start')
            except _Gone as error:
                self.close()
                complaints.seek(0)
                lines = complaints.read().decode(errors='replace').split('\n')
                raise _Gone(next((line for line in reversed(lines) if line.strip()), str(error))[:200]) from None

    def run(self, job: Job) -> Run:
        """Runs one job; _Gone if the server dies over it, which no program should be able to bring about."""
        start = time.perf_counter()
        return dataclasses.replace(self._run(job), wall_s=time.perf_counter() - start)

    def _run(self, job: Job) -> Run:
        limits = job.limits
        role = 'script' if job.tests is None else 'tests'
        with contextlib.ExitStack() as stack:
            second = job.stdin if job.tests is None else json.dumps(job.tests)
            files = [stack.enter_context(_file(text)) for text in (job.program, second, '')]
            order = json.dumps({'role': role, 'limits': dataclasses.asdict(limits)}).encode()
            try:
                socket.send_fds(self.control, [order], [file.fileno() for file in files])
            except OSError as error:
                raise _Gone(str(error)) from None
            ended, late = json.loads(self._receive(limits.wall_s + GRACE_S))
            files[2].seek(0)
            written = files[2].read(limits.output_bytes + 1)
        killed, code, _ = ended[0]
        spent = any(number == signal.SIGXCPU or seconds >= limits.cpu_s for number, _, seconds in ended)
        if job.tests is not None:
            try:
                verdict = json.loads(written)
            except ValueError:  # the tests were killed: out of time, or by what they were sent
                verdict = None
            slow = late or spent or verdict is not None and verdict['status'] == 'slow'
            if slow and not (verdict and verdict['status'] in ('done', 'raised', 'not loaded')):
                return Run('timeout', verdict=verdict)
            return Run('ended', verdict=verdict)
        if late or spent and killed:
            return Run('timeout', written)
        if killed == signal.SIGXFSZ or len(written) >= limits.output_bytes:
            return Run('output', written)
        if code == sandbox_inside.MEMORY_EXIT:
            return Run('memory', written)
        return Run('error' if killed or code else 'ended', written)

    def close(self) -> None:
        """Kills the server, and with it its namespaces and all in them; reaps it."""
        self.control.close()
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.folder:
            for command in (['chmod', '-R', 'u+rwx'], ['rm', '-rf']):  # whatever a program made, however deep
                subprocess.run([*command, self.folder], stderr=subprocess.DEVNULL)

    def _receive(self, timeout_s: float) -> bytes:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        data = b''
        try:
            if poll.poll(timeout_s * 1000):
                data = self.control.recv(4096)
        except OSError as error:
            raise _Gone(str(error)) from None
        if not data:
            raise _Gone('it has ended or does not answer')
        return data


def _file(text: str):
    file = tempfile.TemporaryFile()
    file.write(text.encode(errors='surrogatepass'))
    file.seek(0)
    return file


def _environment() -> dict[str, str]:
    """What programs find in the environment: nothing of the user's. A fixed seed of hashes gives sets one order."""
    return {
        'PATH': '/usr/bin:/bin', 'HOME': '/tmp', 'LANG': 'C.UTF-8', 'PYTHONHASHSEED': '0', 'OMP_NUM_THREADS': '1',
        'OPENBLAS_NUM_THREADS': '1', 'MALLOC_ARENA_MAX': '2'}


def _command(kind: str) -> list[str]:
    inside = str(pathlib.Path(sandbox_inside.__file__).resolve())
    python = [sys.executable, '-s', '-P', '-B']
    if kind == 'limits':
        return [*python, inside, kind]
    mounts, links = _visible()
    mounts.append((inside, '/sandbox.py'))
    server = [*python, '/sandbox.py', kind]
    if kind == 'userns':
        return [*python, inside, 'enter', json.dumps([mounts, links, TMP_BYTES, server])]
    command = [
        'bwrap', '--unshare-all', '--as-pid-1', '--die-with-parent', '--cap-drop', 'ALL', '--hostname', 'sandbox',
        '--perms', '1777', '--size', str(TMP_BYTES), '--tmpfs', '/tmp']
    for source, target in mounts:
        command += ['--dev-bind' if source.startswith('/dev/') else '--ro-bind', source, target]
    for source, target in links:
        command += ['--symlink', source, target]
    return [*command, '--remount-ro', '/', '--chdir', '/tmp', '--', *server]


def _visible() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Returns what a program sees of the file system, (source, target): mounts, and links. Python and what it loads."""
    mounts, links = [], []
    for folder in ('/lib', '/lib32', '/lib64'):
        if os.path.islink(folder):
            links.append((os.readlink(folder), folder))
        elif os.path.isdir(folder):
            mounts.append((folder, folder))
    base, here = pathlib.Path(sys.base_prefix), pathlib.Path(sys.prefix)
    for path in dict.fromkeys((
            '/usr/lib', '/usr/lib32', '/usr/lib64', '/etc/ld.so.cache', '/usr/share/zoneinfo', '/nix/store', base / 'lib',
            base / 'lib64', here / 'lib', here / 'lib64', here / 'pyvenv.cfg', pathlib.Path(sys.executable).resolve(),
            sys.executable, '/dev/null', '/dev/zero', '/dev/random', '/dev/urandom')):
        if os.path.exists(path):
            mounts.append((os.path.realpath(path), str(path)))
    return mounts, links
