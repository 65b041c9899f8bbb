"""What a compiled program moves, read from its text: bytes between memory and cores, and what goes over the interconnect.

The compiler's own cost analysis counts the body of a loop once, and a model of scanned layers is little else than loops.
Here each instruction counts as often as the loops around it turn.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {'pred': 8, 'token': 0}  # all other types say it themselves: bf16, s32, f8e4m3fn
_SHAPE = re.compile(r'([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (.*)$')
# Not every '}' ends a computation: what describes a kernel runs over several lines.
_END = re.compile(r'\}(, |$)')
_NAME = re.compile(r'%([\w.-]+)')
_CALLED = re.compile(
    r'\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(?:\{([^}]*)\}|(%?[\w.-]+))')
COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'ragged-all-to-all', 'collective-permute')
# These name, choose or order values and move none; what a loop or a call moves, its computation does.
_FREE = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call', 'after-all',
    'partition-id', 'replica-id', 'opt-barrier', 'add-dependency', 'async-update', 'domain'}
_SLICES = {'dynamic-slice', 'slice', 'gather'}
# Which operand holds what is written into the first one.
_UPDATES = {'dynamic-update-slice': 1, 'scatter': 2}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
        inside: what stands in its parentheses: operands, a constant's value or a parameter's number.
        shapes: (bytes, whether they lie in HBM) of each array that it makes.
        attributes: all that stands behind the parentheses.
    """

    name: str
    opcode: str
    inside: str
    shapes: tuple[tuple[float, bool], ...]
    attributes: str

    @property
    def operands(self) -> list[str]:
        """The instructions whose results it takes."""
        return _NAME.findall(self.inside)

    @property
    def called(self) -> tuple[str, ...]:
        """The computations that it names."""
        return tuple(
            name.strip().lstrip('%') for several, one in _CALLED.findall(self.attributes)
            for name in (several or one).split(','))


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective as the program runs it.

    Attributes:
        kind: one of `COLLECTIVES`.
        bytes: what one device puts in.
        devices: those that take part with device 0, as places in the program's order of devices.
        times: how often it is run.
    """

    kind: str
    bytes: float
    devices: tuple[int, ...]
    times: float


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one run of a program moves, on one device."""

    hbm_bytes: float
    collectives: tuple[Collective, ...]


def traffic(text: str) -> Traffic:
    """Reads the text of a compiled and scheduled module."""
    computations, entry = parse(text)
    moved, collectives = 0.0, []

    def walk(name: str, times: float, fused: bool) -> None:
        nonlocal moved
        instructions = {i.name: i for i in computations[name]}
        for i in computations[name]:
            kind = i.opcode.removesuffix('-start')
            if kind in COLLECTIVES:
                # The TPU's name for a sum of which each device keeps its part.
                kind = 'reduce-scatter' if name.startswith('all-reduce-scatter') else kind
                collectives.append(Collective(
                    kind, sum(_bytes(instructions[o], hbm_only=False) for o in i.operands if o in instructions),
                    _group(i.attributes), times))
            if not fused and i.opcode not in _FREE and not i.opcode.endswith('-done'):
                moved += times * _moves(i, instructions, computations)
            turns = _turns(i, computations) if i.opcode == 'while' else 1
            for called in i.called:
                if called in computations:
                    walk(called, times * turns, fused or i.opcode not in ('while', 'conditional', 'call'))

    walk(entry, 1.0, False)
    return Traffic(moved, tuple(collectives))


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns the instructions of each computation, and the name of the first one to run."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = '', None
    for line in text.splitlines():
        if current is None:
            if line.endswith('{') and ' -> ' in line and not line.startswith(' '):
                name = line.removeprefix('ENTRY ').lstrip('%').split(' ', 1)[0]
                current = computations[name] = []
                entry = name if line.startswith('ENTRY ') else entry
        elif _END.match(line):
            current = None
        elif found := _INSTRUCTION.match(line):
            current.append(_instruction(*found.groups()))
    return computations, entry


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
    shapes, rest = rest[:end], rest[end:].strip()
    opcode, _, _ = rest.partition('(')
    close = _closing(rest, len(opcode))
    return Instruction(
        name, opcode, rest[len(opcode) + 1:close], tuple(map(_shape, _SHAPE.findall(shapes))), rest[close + 1:])


def _closing(text: str, start: int) -> int:
    """Returns where the parenthesis that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == '(') - (text[i] == ')')
        if depth == 0:
            return i
    raise ValueError(f'parentheses do not close: {text[start:start + 80]}')


def _shape(found: tuple[str, str, str]) -> tuple[float, bool]:
    kind, dimensions, layout = found
    bits = _BITS.get(kind)
    if bits is None:
        digits = re.search(r'\d+', kind)
        bits = int(digits.group()) if digits else 0
    elements = math.prod(int(n) for n in dimensions.split(',') if n)
    # S(1) and above is memory on the chip.
    return elements * bits / 8, not re.search(r'S\([1-9]', layout)


def _bytes(instruction: Instruction, hbm_only: bool = True) -> float:
    return sum(size for size, in_hbm in instruction.shapes if in_hbm or not hbm_only)


def _moves(i: Instruction, beside: dict[str, Instruction], computations: dict[str, list[Instruction]]) -> float:
    """Bytes that an instruction reads from HBM and writes to it."""
    inputs = [_bytes(beside[o]) if o in beside else 0.0 for o in i.operands]
    out = _bytes(i)
    if i.opcode in _SLICES:
        return 2 * out
    if i.opcode in _UPDATES:
        return 2 * inputs[_UPDATES[i.opcode]]
    if i.opcode.endswith('-start'):
        # What they return holds the operands beside the result.
        return out
    if i.opcode != 'fusion':
        return sum(inputs) + out
    body = computations[i.called[0]]
    parameters = {int(p.inside): p for p in body if p.opcode == 'parameter'}
    read = [_read(parameters[n], body, computations) if n in parameters else None for n in range(len(inputs))]
    total = sum(size if part is None else min(size, part.bytes) for size, part in zip(inputs, read, strict=True))
    # Written in place: what lies around the update is not touched.
    updated = sum(size for size, part in zip(inputs, read, strict=True) if part and part.in_place)
    return total + max(0.0, out - updated)


@dataclasses.dataclass(frozen=True)
class _Read:
    """What a fusion reads of an input of which it does not need all, or what it writes there."""

    bytes: float
    in_place: bool


def _read(value: Instruction, body: list[Instruction], computations: dict[str, list[Instruction]]) -> _Read | None:
    """Returns what is read of a value within a fusion; None is all of it."""
    inner = {x.name: x for x in body}
    parts = []
    for user in body:
        if value.name not in user.operands:
            continue
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            parts.append(_Read(_bytes(user, hbm_only=False), in_place=False))
        elif user.opcode in _UPDATES and first:
            update = inner[user.operands[_UPDATES[user.opcode]]]
            parts.append(_Read(_bytes(update, hbm_only=False), in_place=True))
        elif user.opcode == 'bitcast':
            parts.append(_read(user, body, computations))
        elif user.opcode == 'fusion':
            nested = computations[user.called[0]]
            parts += [_read(p, nested, computations) for p in nested
                      if p.opcode == 'parameter' and user.operands[int(p.inside)] == value.name]
        else:
            parts.append(None)
    if not parts or None in parts:
        return None
    return _Read(sum(part.bytes for part in parts), any(part.in_place for part in parts))


def _turns(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """How often a loop turns, where the compiler says it or it counts to a constant; 1 where neither is so."""
    if said := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(said.group(1))
    condition = re.search(r'condition=%?([\w.-]+)', loop.attributes).group(1)
    constants = {
        i.name: int(i.inside) for i in computations[condition]
        if i.opcode == 'constant' and i.inside.lstrip('-').isdigit()}
    for i in computations[condition]:
        if i.opcode == 'compare' and 'direction=LT' in i.attributes:
            for operand in i.operands:
                if operand in constants:
                    return constants[operand]
    return 1


def _group(attributes: str) -> tuple[int, ...]:
    """The devices that share a collective with device 0."""
    pairs = re.search(r'source_target_pairs=\{\{(\d+),(\d+)\}', attributes)
    if pairs:
        return tuple(map(int, pairs.groups()))
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^ ]*)\))? \{([^}]*)\}", attributes):
        return _of_mesh(*mesh.groups())
    if groups := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
        return tuple(map(int, groups.group(1).split(',')))
    if iota := re.search(r'replica_groups=\[\d+,(\d+)\]<=([^ ]*?),? ', attributes + ' '):
        return _iota(iota.group(2))[:int(iota.group(1))]
    return ()


@functools.cache
def _of_mesh(axes: str, order: str | None, group: str) -> tuple[int, ...]:
    """The devices of "'a'=4,'b'=2" that differ from the first along the named axes; "'a':(2)2" are the last 2 of 4 there.

    Args:
        order: in which order the devices are laid out in that mesh, as `_iota` reads it; None is their own.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", axes)}
    names, shape, strides = list(sizes), [], []
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", group):
        inner = math.prod(sizes[other] for other in names[names.index(name) + 1:])
        whole, before, size = sizes[name], int(before or 1), int(size or sizes[name])
        shape.append(size)
        strides.append(inner * (whole // (before * size)))
    laid_out = _iota(order) if order else range(math.prod(sizes.values()))
    return tuple(laid_out[place] for place in _places(shape, strides, math.prod(shape)))


@functools.cache
def _iota(said: str) -> tuple[int, ...]:
    """The devices in the order of '[dimensions]T(order)': those of an array of these dimensions, transposed so."""
    dimensions, order = re.match(r'\[([\d,]+)\](?:T\(([\d,]+)\))?', said).groups()
    shape = [int(n) for n in dimensions.split(',')]
    order = [int(n) for n in order.split(',')] if order else list(range(len(shape)))
    strides = [math.prod(shape[i + 1:]) for i in range(len(shape))]
    return tuple(_places([shape[i] for i in order], [strides[i] for i in order], math.prod(shape)))


def _places(shape: list[int], strides: list[int], n: int) -> Iterator[int]:
    """The first n places of an array of this shape and these strides, last dimension first."""
    for place in range(n):
        index = 0
        for size, stride in zip(reversed(shape), reversed(strides), strict=True):
            place, digit = divmod(place, size)
            index += digit * stride
        yield index
