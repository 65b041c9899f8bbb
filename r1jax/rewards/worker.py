"""The inside of a worker process: what `pool.WorkerPool` starts. It imports nothing heavy."""

import importlib
import io
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

# What a call may print; the rest is dropped, or a verifier could fill the log of a run within its time.
PRINTED_CHARS = 10_000

_connection: Connection | None = None
_life_s = 0.0


class _Printed(io.TextIOBase):
    """Standard output and error of verifiers: the beginning of what each call prints goes to the parent's standard error."""

    left = 0

    def write(self, text: str) -> int:
        if _Printed.left > 0:
            sys.__stderr__.write(text[:_Printed.left])
            sys.__stderr__.flush()
        _Printed.left -= len(text)
        return len(text)


def serve(descriptor: int, memory: int, life_s: float) -> None:
    """Answers requests (function, preparing function or '', pickled item) on a socket until it closes.

    Every request gets two answers: None when the function is about to run, so that the parent's clock leaves
    imports and preparation out, then (status, value); in between None again whenever the clock starts anew. More than
    `memory` bytes of address space end the process: what is left of it cannot be trusted. A request that takes more
    than `life_s` seconds, preparation included, which only a dead parent allows, ends it too.
    """
    global _connection, _life_s
    connection = _connection = Connection(descriptor)
    _life_s = life_s
    # What a verifier prints is no part of the parent's output; only Python's own printing is shown at all.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = sys.stderr = _Printed()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard == resource.RLIM_INFINITY or memory < hard:
        resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    while True:
        try:
            name, prepare, payload = connection.recv()
        except EOFError:
            return
        failure, function, item = None, None, None
        _Printed.left = PRINTED_CHARS
        signal.setitimer(signal.ITIMER_REAL, life_s)
        try:
            function, item = _load(name), pickle.loads(payload)
            if prepare:
                _load(prepare)(item)
        except Exception as error:
            failure = _portable(error)
        connection.send(None)
        connection.send_bytes(failure or _run(function, item))
        signal.setitimer(signal.ITIMER_REAL, 0)


def inside() -> bool:
    """Whether this process is a worker."""
    return _connection is not None


def restart_clock() -> None:
    """Gives the running call its whole time again: for functions that bound the time of each of their parts themselves.

    Does nothing outside a worker. To be called on the thread that the function runs on.
    """
    if _connection is not None:
        signal.setitimer(signal.ITIMER_REAL, _life_s)
        _connection.send(None)


def _run(function: Callable, item: object) -> bytes:
    try:
        return pickle.dumps(('ok', function(item)))
    except MemoryError:
        os._exit(1)
    except Exception as error:
        return _portable(error)


def _load(name: str) -> Callable:
    module, _, attribute = name.partition(':')
    return getattr(importlib.import_module(module), attribute)


def _portable(error: Exception) -> bytes:
    """Pickles an exception with its traceback; as a RuntimeError where its own type may not travel."""
    error.add_note('in a reward worker: ' + ''.join(traceback.format_exception(error)))
    try:
        answer = pickle.dumps(('error', error))
        pickle.loads(answer)
    except Exception:
        answer = b''
    if not answer or type(error).__module__.partition('.')[0] not in ('builtins', 'r1jax'):
        plain = RuntimeError(f'{type(error).__name__}: {error}')
        plain.add_note(error.__notes__[-1])
        answer = pickle.dumps(('error', plain))
    return answer
