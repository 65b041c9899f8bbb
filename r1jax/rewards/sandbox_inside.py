"""What runs inside the sandbox: a warm server that forks the processes of one program after the other.

Standard library only, and one file, because the sandbox sees nothing else of r1jax. For tests of Python two processes
are forked, connected by a socket: one loads the program and answers calls, one runs the tests and writes the verdict.
They share no memory and no file, and what crosses is plain data (`Wire`). The server itself never reads a program or a
test, so neither is in the memory that it hands on: files come as descriptors.
"""

import builtins
import collections
import ctypes
import datetime
import decimal
import errno
import fractions
import functools
import gc
import importlib
import json
import operator
import os
import platform
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
import types

# Imported once, so that programs find them at once.
PRELOADED = (
    'abc', 'array', 'bisect', 'cmath', 'collections.abc', 'copy', 'dataclasses', 'enum', 'functools', 'hashlib', 'heapq',
    'io', 'itertools', 'math', 'queue', 'random', 're', 'statistics', 'string', 'textwrap', 'threading', 'typing')
# A message between program and tests that is longer ends their conversation.
MAX_MESSAGE_BYTES = 16 << 20

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

# System calls that no program needs, by their numbers on x86_64 and aarch64 (None: not there).
_REFUSED = {
    'fork': (57, None), 'vfork': (58, None), 'kill': (62, 129), 'tkill': (200, 130), 'tgkill': (234, 131),
    'rt_sigqueueinfo': (129, 138), 'rt_tgsigqueueinfo': (297, 240), 'pidfd_send_signal': (424, 424),
    'ptrace': (101, 117), 'process_vm_readv': (310, 270), 'process_vm_writev': (311, 271), 'pidfd_getfd': (438, 438),
    'socket': (41, 198), 'memfd_create': (319, 279), 'shmget': (29, 194), 'msgget': (68, 186), 'semget': (64, 190),
    'mq_open': (240, 180), 'unshare': (272, 97), 'setns': (308, 268), 'mount': (165, 40), 'umount2': (166, 39),
    'pivot_root': (155, 41), 'chroot': (161, 51), 'bpf': (321, 280), 'perf_event_open': (298, 241),
    'userfaultfd': (323, 282), 'io_uring_setup': (425, 425), 'add_key': (248, 217), 'request_key': (249, 218),
    'keyctl': (250, 219), 'setpriority': (141, 140), 'sched_setscheduler': (144, 119), 'sched_setparam': (142, 118),
    'sched_setattr': (314, 274), 'sched_setaffinity': (203, 122), 'ioprio_set': (251, 30), 'migrate_pages': (256, 238),
    'move_pages': (279, 239), 'process_madvise': (440, 440), 'pidfd_open': (434, 434), 'memfd_secret': (447, 447),
}
_CLONE, _CLONE3, _PRLIMIT = (56, 220), 435, (302, 261)
_ARCHITECTURES = {'x86_64': (0, 0xC000003E), 'aarch64': (1, 0xC00000B7)}


# --- what crosses -------------------------------------------------------------------------------------------

# Values without parts, by tag: type, what is written, and how it is read.
_PLAIN = {
    'complex': (complex, lambda value: [value.real, value.imag], lambda parts: complex(*parts)),
    'bytes': (bytes, lambda value: value.hex(), bytes.fromhex),
    'range': (range, lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
    'int': (int, hex, lambda text: int(text, 16)),
    'decimal': (decimal.Decimal, str, decimal.Decimal),
    'fraction': (
        fractions.Fraction, lambda value: [hex(value.numerator), hex(value.denominator)],
        lambda parts: fractions.Fraction(int(parts[0], 16), int(parts[1], 16))),
    'datetime': (datetime.datetime, lambda value: value.isoformat(), datetime.datetime.fromisoformat),
    'date': (datetime.date, lambda value: value.isoformat(), datetime.date.fromisoformat),
    'time': (datetime.time, lambda value: value.isoformat(), datetime.time.fromisoformat),
    'timedelta': (
        datetime.timedelta, lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: datetime.timedelta(*parts)),
}
_PLAIN_TAG = {kind: tag for tag, (kind, _, _) in _PLAIN.items()}
# Containers, by tag; a subclass (a named tuple, say) crosses as the first of these that it is.
_MUTABLE = {
    'list': list, 'Counter': collections.Counter, 'OrderedDict': collections.OrderedDict, 'dict': dict, 'set': set,
    'deque': collections.deque, 'bytearray': bytearray}
_FROZEN = {'tuple': tuple, 'frozenset': frozenset}
_CONTAINERS = _MUTABLE | _FROZEN
_CONTAINER_TAG = {kind: tag for tag, kind in _CONTAINERS.items()}
_TYPES = frozenset({
    'bool', 'int', 'float', 'complex', 'str', 'bytes', 'bytearray', 'list', 'tuple', 'set', 'frozenset', 'dict', 'range',
    'object', 'type'})
# An iterator's end has meaning to whoever iterates, so none may be raised from a call.
_NOT_RAISED = (StopIteration, StopAsyncIteration)


class Lost(BaseException):
    """The other process is gone, or what it sends is no message. No Exception, so that tests do not catch it by chance."""


class Slow(Lost):
    """The other process has not answered in time."""


class Wire:
    """Calls between two processes over a socket, of which neither trusts the other's memory.

    Numbers, texts, None, containers of them and a few types of the standard library cross as data of exactly these types,
    whatever was sent; containers keep their identity, and those among a call's arguments are brought up to date with what
    the call did to them. Functions cross as something to call, everything else as a `Handle`. `trusting` says that the
    other side may do as it likes with what it holds; else `_permit` says what it may.
    """

    def __init__(self, connection, namespace, trusting, deadline=None):
        self.connection, self.namespace, self.trusting, self.deadline = connection, namespace, trusting, deadline
        self.given, self.numbers, self.held = [], {}, {}
        self.lost = None  # the `Lost` that was raised, for tests may have caught it after all

    def ask(self, name, *arguments):
        """Has the other side do one of `_OPERATIONS`; returns its result, or raises its exception as one of Python's own."""
        containers = []
        self._send(['ask', name, self._encode(arguments, containers)])
        while True:
            message = self._receive()
            kind = message[0]
            if kind == 'ask':
                self.answer(message)
                continue
            try:
                if kind == 'value':
                    return self._decode(message[1], containers)[0]
                names, text = message[1:]
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
                raise self._lose('the other side sent no value') from None
            if kind == 'stop' and name == 'next':
                raise StopIteration
            raise _error(names, text)

    def answer(self, message):
        """Does what a message asks for, and answers with the result or the exception."""
        containers = []
        try:
            _, name, packed = message
            arguments = self._decode(packed, containers)[0]
            if not self.trusting:
                self._permit(name, arguments)
            result = self.namespace[arguments[0]] if name == 'look up' else _OPERATIONS[name](*arguments)
            reply = ['value', self._encode(result, containers)]
        except Lost:
            raise
        except BaseException as error:
            names = [kind.__name__ for kind in type(error).__mro__]
            stop = isinstance(error, StopIteration)
            try:
                text = str(error)[:1000]
            except Exception:
                text = ''
            del error
            reply = ['stop' if stop else 'error', names, text]
        self._send(reply)

    def _permit(self, name, arguments):
        """Raises TypeError unless the other side may do this: call, iterate and index what it was given.

        It may also ask for attributes of instances of the tests' own classes, but for names with an underscore, which lead
        to frames and globals.
        """
        item = arguments[0]
        if not any(item is given for given in self.given):
            raise TypeError('this is nothing that was given')
        own = type(item).__module__ == 'tests' and name in ('getattr', 'setattr') and arguments[1][:1] != '_'
        if name not in ('call', 'iter', 'next', 'len', 'getitem') and not own:
            raise TypeError('this is not for the program to ask')

    def _lose(self, why, kind=Lost):
        self.lost = kind(why)
        return self.lost

    def serve(self):
        """Answers until the other side is gone."""
        while True:
            message = self._receive()
            if message[0] != 'ask':
                raise self._lose('not a question')
            self.answer(message)

    def hello(self, *said):
        self._send(['hello', *said])

    def hear(self):
        """Returns what the other side said in its `hello`: None, or (names, text) of the exception that it ended with."""
        message = self._receive()
        if message[0] != 'hello':
            raise self._lose('no hello')
        return message[1:] or None

    def _send(self, message):
        try:
            data = json.dumps(message).encode()
            if len(data) > MAX_MESSAGE_BYTES:
                raise self._lose('too long')
            self._patience()
            self.connection.sendall(struct.pack('<I', len(data)) + data)
        except TimeoutError:
            raise self._lose('too slow', Slow) from None
        except (OSError, RecursionError) as error:
            raise self._lose(str(error)) from None

    def _receive(self):
        try:
            size, = struct.unpack('<I', self._exactly(4))
            if size > MAX_MESSAGE_BYTES:
                raise self._lose('too long')
            message = json.loads(self._exactly(size))
        except TimeoutError:
            raise self._lose('too slow', Slow) from None
        except (OSError, ValueError, RecursionError) as error:
            raise self._lose(str(error)) from None
        if not isinstance(message, list) or not message:
            raise self._lose('not a message')
        return message

    def _exactly(self, size):
        data = bytearray()
        while len(data) < size:
            self._patience()
            piece = self.connection.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise self._lose('closed')
            data += piece
        return bytes(data)

    def _patience(self):
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError('too slow')
            self.connection.settimeout(left)

    def _encode(self, value, containers):
        """Returns [value, parts of its containers by number]; `containers`, by number, are those known to both."""
        numbers = {id(container): number for number, container in enumerate(containers) if container is not None}
        waiting = [number for number, container in enumerate(containers) if type(container) in _MUTABLE.values()]

        def pack(item):
            kind = type(item)
            if item is None or kind in (bool, str, float):
                return item
            if kind is int:
                return item if -2**60 < item < 2**60 else ['int', hex(item)]
            if kind not in _CONTAINER_TAG and kind not in _PLAIN_TAG:
                kind = next((base for base in kind.__mro__ if base in _BASES), kind)
                if kind in (int, str, float):
                    return pack(kind.__add__(item, kind()))
                if kind.__module__ == 'numpy' and getattr(item, 'shape', None) == ():
                    return pack(item.item())
            if kind in _PLAIN_TAG:
                return [_PLAIN_TAG[kind], _PLAIN[_PLAIN_TAG[kind]][1](item)]
            if kind not in _CONTAINER_TAG:
                return self._give(item)
            if id(item) not in numbers:
                numbers[id(item)] = len(containers)
                waiting.append(len(containers))
                containers.append(item)
            return ['container', numbers[id(item)]]

        first, parts = pack(value), {}
        while waiting:
            number = waiting.pop()
            item = containers[number]
            tag = next(tag for tag, kind in _CONTAINERS.items() if isinstance(item, kind))
            if tag == 'bytearray':
                packed = item.hex()
            elif isinstance(item, dict):
                packed = [[pack(key), pack(part)] for key, part in dict.items(item)]
            else:
                packed = [pack(part) for part in _CONTAINERS[tag].__iter__(item)]
            parts[number] = [tag, packed]
        return [first, parts]

    def _decode(self, packed, containers):
        """Returns (value,); containers of known numbers get what they hold now, and new ones join them."""
        first, parts = packed
        parts = {int(number): part for number, part in parts.items()}
        made = dict(enumerate(containers))
        for number, (tag, _) in parts.items():
            if tag in _MUTABLE and number not in made:
                made[number] = _MUTABLE[tag]()

        def unpack(item):
            if not isinstance(item, list):
                return item
            tag, *rest = item
            if tag == 'container':
                number = rest[0]
                if number not in made:
                    tag, inner = parts[number]
                    made[number] = _FROZEN[tag](map(unpack, inner))
                return made[number]
            return _PLAIN[tag][2](rest[0]) if tag in _PLAIN else self._take(tag, rest[0])

        for number, (tag, inner) in parts.items():
            if tag not in _MUTABLE:
                continue
            target = made[number]
            if not isinstance(target, _MUTABLE[tag]):
                continue
            if tag == 'bytearray':
                target[:] = bytes.fromhex(inner)
            elif isinstance(target, dict):
                pairs = [(unpack(key), unpack(part)) for key, part in inner]
                target.clear()
                for key, part in pairs:
                    target[key] = part
            else:
                new = [unpack(part) for part in inner]
                target.clear()
                (target.update if tag == 'set' else target.extend)(new)
        value = unpack(first)
        for number in sorted(parts):
            unpack(['container', number])
        containers[:] = [made.get(number) for number in range(max(made, default=-1) + 1)]
        return value,

    def _give(self, item):
        """What stands for an object of this side: the other's own handle, a type by name, or a number to come back with."""
        if type(item) is Handle:
            return ['yours', object.__getattribute__(item, '_number')]
        if isinstance(item, types.FunctionType) and item in _STUBS:
            return ['yours', _STUBS[item]]
        named = type if self.trusting else type | types.BuiltinFunctionType  # the tests take no function by its name
        if isinstance(item, named) and getattr(builtins, item.__name__, None) is item:
            return ['builtin', item.__name__]
        if id(item) not in self.numbers:
            self.numbers[id(item)] = len(self.given)
            self.given.append(item)  # kept, so that no other object gets its id
        return ['function' if isinstance(item, types.FunctionType | types.MethodType) else 'object', self.numbers[id(item)]]

    def _take(self, tag, value):
        if tag == 'yours':
            return self.given[value]
        if tag == 'builtin':
            if not self.trusting and value not in _TYPES:  # a program may hand out types, but not exec
                raise ValueError('not a type')
            return getattr(builtins, value)
        if tag not in ('function', 'object') or not isinstance(value, int):
            raise ValueError('not a value')
        if value not in self.held:
            handle = self.held[value] = Handle(self, value)
            if tag == 'function' and self.trusting:  # programs look at what they are given: it should be a function

                def stub(*arguments, **keywords):
                    return handle(*arguments, **keywords)

                self.held[value] = stub
                _STUBS[stub] = value
        return self.held[value]


_BASES = frozenset({int, str, float, *_PLAIN_TAG, *_CONTAINER_TAG})
_STUBS = {}  # functions that stand for one of the other side's, and its number


class Handle:
    """An object of the other process. It equals itself and nothing else, and is neither compared nor reckoned with."""

    __slots__ = ('_wire', '_number')

    def __init__(self, wire, number):
        object.__setattr__(self, '_wire', wire)
        object.__setattr__(self, '_number', number)

    def __getattribute__(self, name):
        if name[:2] == name[-2:] == '__':
            return object.__getattribute__(self, name)
        return _ask(self, 'getattr', name)

    def __setattr__(self, name, value):
        _ask(self, 'setattr', name, value)

    def __call__(self, *arguments, **keywords):
        return _ask(self, 'call', arguments, keywords)

    def __getitem__(self, key):
        return _ask(self, 'getitem', key)

    def __setitem__(self, key, value):
        _ask(self, 'setitem', key, value)

    def __delitem__(self, key):
        _ask(self, 'delitem', key)

    def __iter__(self):
        return _ask(self, 'iter')

    def __next__(self):
        return _ask(self, 'next')

    def __len__(self):
        return _data(_ask(self, 'len'), int)

    def __bool__(self):
        return _data(_ask(self, 'bool'), bool)

    def __str__(self):
        return _data(_ask(self, 'str'), str)

    def __repr__(self):
        return _data(_ask(self, 'repr'), str)

    def __instancecheck__(self, item):
        return _data(_ask(self, 'isinstance', item), bool)


def _ask(handle, name, *arguments):
    return object.__getattribute__(handle, '_wire').ask(name, handle, *arguments)


def _data(value, kind):
    if type(value) is not kind:
        raise TypeError(f'not of type {kind.__name__}')
    return value


_OPERATIONS = {
    'call': lambda function, arguments, keywords: function(*arguments, **keywords),
    'getattr': getattr, 'setattr': setattr, 'getitem': operator.getitem, 'setitem': operator.setitem,
    'delitem': operator.delitem, 'iter': iter, 'next': next, 'len': len, 'bool': bool, 'str': str, 'repr': repr,
    'isinstance': lambda kind, item: isinstance(item, kind),
}


def _error(names, text):
    """Returns the exception of the first of these names that Python itself knows, with the text as its message."""
    for name in names:
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED):
            try:
                return kind(text)
            except TypeError:  # UnicodeDecodeError wants more
                continue
    return RuntimeError(text)


# --- the processes of a program ---------------------------------------------------------------------------


def run_script(program_file, limits):
    """Runs a program as `__main__`; its standard streams are set up already."""
    module = sys.modules['__main__'] = types.ModuleType('__main__')
    exec(compile(_read_file(program_file), 'program.py', 'exec'), module.__dict__)


def run_library(program_file, connection, limits):
    """Loads a program as a module and answers the calls of the tests."""
    module = sys.modules['program'] = types.ModuleType('program')
    wire = Wire(connection, module.__dict__, trusting=True)
    try:
        exec(compile(_read_file(program_file), 'program.py', 'exec'), module.__dict__)
    except BaseException as error:
        said = [kind.__name__ for kind in type(error).__mro__], str(error)[:1000]
        wire.hello(*said)
        return
    wire.hello()
    wire.serve()


def run_tests(job_file, verdict_file, connection, limits):
    """Runs tests against the program at the other end, and writes {passed, failed, status, message} as JSON.

    The job, JSON, has the source of the tests, which calls `_passed_` and `_failed_` itself, the names that it takes from
    the program, and modules that it takes from the standard library. status: 'done' (they ran to their end), 'raised' (an
    exception ended them), 'not loaded' (the program raised one), 'lost' (the program's process ended) or 'slow'.
    """
    job = json.loads(_read_file(job_file))
    verdict = {'passed': 0, 'failed': 0, 'status': 'lost', 'error': '', 'message': ''}

    def passed():
        verdict['passed'] += 1

    def failed(error):
        verdict['failed'] += 1
        told(error)

    def told(error):
        verdict['error'] = verdict['error'] or type(error).__name__
        verdict['message'] = verdict['message'] or str(error)[:200]

    wire = Wire(connection, {}, trusting=False, deadline=time.monotonic() + limits['wall_s'])
    try:
        raised = wire.hear()
        if raised:
            verdict['status'] = 'not loaded'
            told(_error(*raised))
        else:
            module = sys.modules['tests'] = types.ModuleType('tests')
            scope = module.__dict__
            for name in job['modules']:
                scope[name] = importlib.import_module(name)
            for name in job['names']:
                try:
                    scope[name] = wire.ask('look up', name)
                except KeyError:
                    continue
            scope |= {'_passed_': passed, '_failed_': failed}
            exec(compile(job['source'], 'tests.py', 'exec'), scope)
            verdict['status'] = 'done'
    except BaseException as error:
        if verdict['status'] == 'lost':
            verdict['status'] = 'raised'
        told(error)
    if wire.lost is not None:
        verdict['status'] = 'slow' if isinstance(wire.lost, Slow) else 'lost'
    os.lseek(verdict_file, 0, os.SEEK_SET)
    os.write(verdict_file, json.dumps(verdict).encode())


def _read_file(descriptor):
    with os.fdopen(descriptor, 'rb') as file:
        return file.read().decode()


def _confine(limits, isolation):
    """Limits this process for good."""
    for name, value in (
            ('RLIMIT_CPU', limits['cpu_s']), ('RLIMIT_AS', limits['memory_bytes']), ('RLIMIT_FSIZE', limits['output_bytes']),
            ('RLIMIT_NOFILE', 64), ('RLIMIT_CORE', 0), ('RLIMIT_NPROC', limits['processes'])):
        if isolation == 'limits' and name == 'RLIMIT_NPROC':  # it counts all processes of the user
            continue
        hard = value + (name == 'RLIMIT_CPU')  # SIGXCPU tells why it ended; who ignores that is killed a second later
        try:
            resource.setrlimit(getattr(resource, name), (value, hard))
        except (ValueError, OSError):  # macOS has no limit of address space
            pass
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; so a program with too much output ends
    if sys.platform == 'linux':
        drop_capabilities()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        refuse_system_calls()


def refuse_system_calls():
    """Has the kernel refuse new processes, signals to others, sockets and the like, where it knows seccomp filters.

    In namespaces that is a second wall. Threads stay possible, and limits of the process itself.
    """
    code = _filter()
    if code:
        buffer = ctypes.create_string_buffer(code, len(code))
        program = _Filter(len(code) // 8, ctypes.addressof(buffer))
        _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program))


class _Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]


@functools.cache
def _filter():
    """The filter as the kernel reads it, b'' for an architecture whose numbers are not known here."""
    if platform.machine() not in _ARCHITECTURES:
        return b''
    column, architecture = _ARCHITECTURES[platform.machine()]
    load, equal, greater, bits, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    thread = 0x10000  # CLONE_THREAD
    program = [
        (load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, refuse),  # another architecture has other numbers
        (load, 0, 0, 0), (greater, 0, 1, 0x40000000), (answer, 0, 0, refuse),  # and so has x32
        (equal, 0, 1, _CLONE3), (answer, 0, 0, unknown),  # its flags cannot be seen; the C library then calls clone
        (equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (bits, 0, 1, thread), (answer, 0, 0, allow), (answer, 0, 0, refuse),
        (equal, 0, 4, _PRLIMIT[column]), (load, 0, 0, 16), (equal, 0, 1, 0), (answer, 0, 0, allow), (answer, 0, 0, refuse)]
    for numbers in _REFUSED.values():
        if numbers[column] is not None:
            program += [(equal, 0, 1, numbers[column]), (answer, 0, 0, refuse)]
    program.append((answer, 0, 0, allow))
    return b''.join(struct.pack('HBBI', *line) for line in program)


def drop_capabilities():
    """Gives up every capability, those of root too; with no_new_privs there is no way back."""
    header, nothing = struct.pack('Ii', 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3
    ctypes.CDLL(None).capset(header, nothing)


def _prctl(option, *arguments):
    return ctypes.CDLL(None).prctl(option, *arguments, *[0] * (4 - len(arguments)))


# --- namespaces by hand ------------------------------------------------------------------------------------

_MS_RDONLY, _MS_NOSUID, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
# What os.statvfs tells of a mount -> what keeps it so in a new one; the kernel lets nobody drop these.
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_NAMESPACES = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user, mount, pid, net, ipc, uts
_MNT_DETACH = 2


def enter(mounts, links, tmp_bytes, command):
    """Becomes `command` as process 1 of new namespaces that see only these mounts and links, (source, target), read-only.

    Raises OSError where the kernel allows no user namespaces. What starts them waits for their end and dies with its parent.
    """
    c = ctypes.CDLL(None, use_errno=True)

    def must(result, what):
        if result < 0:
            raise OSError(ctypes.get_errno(), f'{os.strerror(ctypes.get_errno())} ({what})')

    def mount(source, target, kind=None, flags=0, data=None):
        texts = [text and text.encode() for text in (source, target, kind, data)]
        must(c.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]), f'mount {target}')

    user, group = os.geteuid(), os.getegid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    must(c.unshare(_NAMESPACES), 'unshare')
    for name, text in (('setgroups', 'deny'), ('uid_map', f'{user} {user} 1'), ('gid_map', f'{group} {group} 1')):
        with open(f'/proc/self/{name}', 'w') as file:
            file.write(text)
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    pivot_root = {'x86_64': 155, 'aarch64': 41}[platform.machine()]
    mount(None, '/', None, _MS_REC | _MS_PRIVATE)
    mount('tmpfs', '/tmp', 'tmpfs', _MS_NOSUID)
    for folder in ('/tmp/new', '/tmp/old'):
        os.mkdir(folder)
    must(c.syscall(pivot_root, b'/tmp', b'/tmp/old'), 'pivot_root')
    os.chdir('/')
    mount('/new', '/new', None, _MS_BIND)
    os.mkdir('/new/tmp')  # first, because Python itself may be installed below /tmp
    mount('tmpfs', '/new/tmp', 'tmpfs', _MS_NOSUID, f'size={tmp_bytes},mode=1777')
    for source, target in mounts:
        source, target = '/old' + source, '/new' + target
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, 'a'):
                pass
        mount(source, target, None, _MS_BIND | _MS_REC)
        if '/dev/' not in target[:9]:
            flags = os.statvfs(target).f_flag
            kept = sum(flag for told, flag in _KEPT.items() if flags & told)
            mount(None, target, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | kept)
    for source, target in links:
        os.symlink(source, '/new' + target)
    os.mkdir('/new/.old')
    must(c.syscall(pivot_root, b'/new', b'/new/.old'), 'pivot_root')
    os.chdir('/tmp')
    must(c.umount2(b'/.old', _MNT_DETACH), 'umount')
    os.rmdir('/.old')
    mount(None, '/', None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # what changes a process's rights takes this from it
    os.execv(command[0], command)


# --- the server -------------------------------------------------------------------------------------------


def main(isolation):
    """Serves jobs that come over the socket at descriptor 0, until it closes.

    A job is a line of JSON, {'role': 'script' or 'tests', 'limits': {...}}, with descriptors: program, input and output of a
    script; program, job and verdict of tests. The answer: [[signal or 0, exit code, CPU seconds] for each process, program
    first], and whether time ran out.
    """
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    for name in PRELOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    if sys.platform == 'linux':
        _prctl(_PR_SET_DUMPABLE, 0)  # no program can trace the server, nor what is forked from it
    _filter()
    gc.collect()
    gc.freeze()
    folder, device = os.getcwd(), os.stat('.').st_dev
    kept = _folders(folder, device)
    control.sendall(b'ready')
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 8)
        if not message:
            return
        job = json.loads(message)
        answer = _run(job, descriptors, isolation, control, woken)
        if answer is None:
            return
        control.sendall(json.dumps(answer).encode())
        _wipe(folder, device, kept)


def _run(job, descriptors, isolation, control, woken):
    limits, pids = job['limits'], []

    def start(function, *arguments, streams=()):
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            pids.append(pid)
            return
        try:
            keep = {*streams, *(item if isinstance(item, int) else item.fileno() for item in arguments)}
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for stream, descriptor in enumerate(streams):
                os.dup2(descriptor, stream)
            last = 2
            for descriptor in sorted(keep - {*streams}) + [1 << 12]:
                os.closerange(last + 1, descriptor)
                last = descriptor
            _confine(limits, isolation)
            function(*arguments, limits)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else bool(error.code)
        except MemoryError:
            code = MEMORY_EXIT
        except BaseException:
            code = 1
        _flush()
        os._exit(code & 255)

    if job['role'] == 'script':
        program, given, written = descriptors
        start(run_script, program, streams=(given, written))
    else:
        program, tests, verdict = descriptors
        ours, theirs = socket.socketpair()
        start(run_library, program, theirs)
        theirs.close()
        start(run_tests, tests, verdict, ours)
        ours.close()
    for descriptor in descriptors:
        os.close(descriptor)

    ended, late = {}, False
    # Tests watch the clock themselves, and have a moment to tell how far they came.
    deadline = time.monotonic() + limits['wall_s'] + (0.2 if job['role'] == 'tests' else 0)
    poll = select.poll()
    for descriptor in (control, woken):
        poll.register(descriptor, select.POLLIN)
    while pids[-1] not in ended:
        left = deadline - time.monotonic()
        if left <= 0:
            late = True
            break
        for descriptor, _ in poll.poll(left * 1000 + 1):
            if descriptor != woken:  # nothing is sent while a job runs: the other end is closed
                _end(pids, ended, isolation)
                return None
        _reap(ended)
        try:
            os.read(woken, 4096)
        except BlockingIOError:
            pass
    _end(pids, ended, isolation)
    return [[ended.get(pid, [signal.SIGKILL, 0, 0.0]) for pid in pids], late]


def _flush():
    """Writes out what a program printed; it may have replaced or closed its streams."""
    for stream in (sys.stdout, sys.__stdout__):
        try:
            stream.flush()
        except BaseException:
            pass


MEMORY_EXIT = 77


def _reap(ended, options=os.WNOHANG):
    while True:
        try:
            pid, status, usage = os.wait4(-1, options)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        ended[pid] = [max(-code, 0), max(code, 0), usage.ru_utime + usage.ru_stime]


def _end(pids, ended, isolation):
    """Kills and reaps all that a job started: in a namespace everything but the server itself."""
    if isolation != 'limits':
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for pid in pids:
        if pid not in ended:
            try:
                os.killpg(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                try:
                    os.kill(pid, signal.SIGKILL)  # it has not made its group yet
                except ProcessLookupError:
                    pass
    _reap(ended, 0)


def _folders(folder, device):
    """All folders below one that are on its device: at first they lead to mounts, where Python is installed below /tmp."""
    found = set()
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == device:
            found |= {entry.path} | _folders(entry.path, device)
    return found


def _wipe(folder, device, kept):
    """Empties the folder that programs write to, but for mounts and the folders `kept` that lead to them.

    What cannot be removed ends the server, and another is started.
    """
    for entry in os.scandir(folder):
        if entry.path in kept:
            _wipe(entry.path, device, kept)
        elif entry.stat(follow_symlinks=False).st_dev == device:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


if __name__ == '__main__':
    if sys.argv[1] == 'enter':
        enter(*json.loads(sys.argv[2]))
    main(sys.argv[1])
