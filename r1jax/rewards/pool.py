"""Worker processes that can be killed: a verifier that hangs or crashes costs one item, not the run.

    with WorkerPool(n_workers=4, timeout_s=5) as pool:
        outcomes = pool.map('operator:neg', [1, 2, 3])

Each worker is a fresh interpreter behind a socket, not a fork (the parent runs JAX's threads) and not a
`multiprocessing` child (which would import the parent's main module, and JAX with it). One thread of the
parent looks after each worker, so everything here works from any thread. Signals are not what stops a worker:
`signal.alarm` works on main threads only and cannot interrupt C code, SIGKILL can.
"""

import contextlib
import dataclasses
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from multiprocessing import Pipe
from typing import Any

from r1jax.errors import UserError

# A function of a module's top level, itself or as 'module:name'.
Named = str | Callable[[Any], Any]

# Interpreter start and imports, which do not count as run time; generous, because a machine may be busy.
START_LIMIT_S = 120.0

_BOOTSTRAP = (
    'import sys; sys.path[:] = {path!r}; '
    'from r1jax.rewards.worker import serve; serve({descriptor}, {memory}, {life})'
)
# One thread each; and hashes of strings by one seed, so that sets of them have one order in all workers and runs.
_ENVIRONMENT = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'JAX_PLATFORMS': 'cpu', 'PYTHONHASHSEED': '0'}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one item.

    status: 'ok' (value is the result), 'error' (value is the exception the function raised), 'timeout' or
    'crash' (value is None; the worker was killed or died, and another has taken its place).
    """

    status: str
    value: Any = None


class WorkerPool:
    """Runs functions in `n_workers` processes, each call for at most `timeout_s` seconds of its own run time.

    A function that bounds the time of its parts itself may begin anew with each (`worker.restart_clock`).

    memory_gb: the address space of a worker, in GiB; a call that wants more is a crash.
    timeouts, crashes: how many calls ended so. A context manager; `close` kills what still runs.
    """

    def __init__(self, n_workers: int, timeout_s: float, memory_gb: float = 8.0):
        if n_workers < 1 or timeout_s <= 0 or memory_gb <= 0:
            raise UserError(
                f'a worker pool needs at least 1 worker, a timeout and memory, not {n_workers} workers, '
                f'{timeout_s} s and {memory_gb} GiB'
            )
        self.n_workers = n_workers
        self.timeouts = self.crashes = 0
        self._limits = timeout_s, int(memory_gb * 2**30)
        self._lock = threading.Lock()
        self._closed = False
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._workers: list[_Worker] = [_Worker(*self._limits) for _ in range(n_workers)]
        self._threads = [
            threading.Thread(target=self._look_after, args=(place,), name=f'rewards-{place}', daemon=True)
            for place in range(n_workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Named, item: Any, prepare: Named | None = None) -> Future:
        """Queues one call; the future gives an Outcome.

        prepare: called with the item before the clock starts, the place for slow imports. Items and results
        travel by pickle. Raises UserError for a function that a worker could not import, RuntimeError on a
        closed pool.
        """
        names = _importable(function), _importable(prepare) if prepare else ''
        job = _Job(*names, pickle.dumps(item), Future())
        with self._lock:
            if self._closed:
                raise RuntimeError('the worker pool is closed')
            self._jobs.put(job)
        return job.future

    def map(self, function: Named, items: Iterable[Any], prepare: Named | None = None) -> list[Outcome]:
        """Calls `function` on every item, as `submit` does, and waits; outcomes stand in the items' order."""
        futures = [self.submit(function, item, prepare) for item in items]
        return [future.result() for future in futures]

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers as of now."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """Kills the workers and waits for them; unfinished calls raise RuntimeError. Safe to repeat."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for worker in self._workers:
                worker.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> 'WorkerPool':
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _look_after(self, place: int) -> None:
        """The thread of one worker: takes jobs in turn, and replaces the worker when it has died."""
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                outcome = None if self._closed else self._call(place, job)
            except Exception as error:  # no new process can be started, or a result does not unpickle here
                outcome = Outcome('error', error)
            if self._closed and (outcome is None or outcome.status != 'ok'):
                job.future.set_exception(RuntimeError('the worker pool was closed before this call ended'))
                continue
            with self._lock:
                self.timeouts += outcome.status == 'timeout'
                self.crashes += outcome.status == 'crash'
            job.future.set_result(outcome)

    def _call(self, place: int, job: '_Job') -> Outcome:
        """One call. A worker that dies before it begins (killed while idle, say) is replaced once."""
        for _ in range(2):
            try:
                self._workers[place].begin(job)
            except _Gone:
                self._replace(place)
                continue
            try:
                return self._workers[place].finish()
            except _Gone as gone:
                self._replace(place)
                return Outcome(str(gone))
        return Outcome('error', RuntimeError('reward workers do not start: standard error has the reason'))

    def _replace(self, place: int) -> None:
        with self._lock:
            self._workers[place].close()
            if not self._closed:
                self._workers[place] = _Worker(*self._limits)


@dataclasses.dataclass(frozen=True)
class _Job:
    function: str
    prepare: str
    payload: bytes
    future: Future


class _Gone(Exception):
    """The worker is lost: 'timeout' or 'crash'."""


class _Worker:
    """One process and the socket to it."""

    def __init__(self, timeout_s: float, memory: int):
        self.timeout_s = timeout_s
        self.connection, theirs = Pipe()
        # If the parent is killed, an idle worker sees its socket close; a hanging one is ended by this alarm.
        life = START_LIMIT_S + 2 * timeout_s
        source = _BOOTSTRAP.format(path=sys.path, descriptor=theirs.fileno(), memory=memory, life=life)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, '-c', source],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | _ENVIRONMENT,
                start_new_session=True,  # so that a verifier's own children die with it
            )

    def begin(self, job: _Job) -> None:
        """Hands the job over and waits until everything is imported and prepared and the function starts."""
        with self._crashing():
            self.connection.send((job.function, job.prepare, job.payload))
            if not self.connection.poll(START_LIMIT_S):
                raise _Gone('timeout')
            self.connection.recv()

    def finish(self) -> Outcome:
        """Waits for the result, for at most the run time allowed since the function or a part of it began."""
        with self._crashing():
            while self.connection.poll(self.timeout_s):
                answer = self.connection.recv()
                if answer is not None:
                    return Outcome(*answer)
            raise _Gone('timeout')

    def kill(self) -> None:
        """Ends the process and its children; harmless once it is reaped, when its number may be another's."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills the process and reaps it."""
        self.kill()
        self.process.wait()
        self.connection.close()

    @staticmethod
    @contextlib.contextmanager
    def _crashing():
        """A socket that closes under the call means that the worker died."""
        try:
            yield
        except (EOFError, OSError):
            raise _Gone('crash') from None


def _importable(function: str | Callable) -> str:
    if isinstance(function, str):
        return function
    module, name = function.__module__, function.__qualname__
    if module == '__main__' or not name.isidentifier():
        raise UserError(f"a worker process cannot import '{module}.{name}': put the function into a module")
    return f'{module}:{name}'
