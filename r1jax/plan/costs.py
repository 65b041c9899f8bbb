"""Compiles a program for a topology and says what one run of it costs a device."""

import collections
import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping

import jax
from jax.sharding import Mesh

from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import AXES, MeshConfig, make_mesh
from r1jax.parallel.rules import Sharding
from r1jax.plan import flops, hlo
from r1jax.plan.chips import Chip
from r1jax.plan.programs import Program

# Where layers are added by a rule, two models of so many layers of the last kind are compiled.
FEW, MORE = 2, 4


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one unit of a program costs one device; sums and multiples of costs are costs.

    Attributes:
        flops: operations of matrix products, as a device's share of all.
        hbm_bytes: between memory and cores.
        collectives: (kind, bytes one device puts in, seconds at best) by kind and number of devices, added up.
        temporary: bytes of temporaries at their peak.
        results: bytes of results that do not reuse arguments.
        code: bytes of the program itself.
    """

    flops: float
    hbm_bytes: float
    collectives: Mapping[tuple[str, int], tuple[float, float, float]]  # -> times, bytes, seconds
    temporary: float
    results: float
    code: float

    def __add__(self, other: 'Costs') -> 'Costs':
        kinds = self.collectives.keys() | other.collectives.keys()
        none = (0.0, 0.0, 0.0)
        return Costs(
            collectives={
                kind: tuple(a + b for a, b in zip(
                    self.collectives.get(kind, none), other.collectives.get(kind, none), strict=True)) for kind in kinds},
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)
               if f.name != 'collectives'})

    def __mul__(self, factor: float) -> 'Costs':
        return Costs(
            collectives={kind: tuple(factor * x for x in sums) for kind, sums in self.collectives.items()},
            **{f.name: factor * getattr(self, f.name) for f in dataclasses.fields(self) if f.name != 'collectives'})

    @property
    def seconds_of_collectives(self) -> float:
        return sum(seconds for _, _, seconds in self.collectives.values())


class TooLarge(Exception):
    """A program does not fit into a device's memory.

    Attributes:
        used: bytes that it would take, as far as the compiler came.
    """

    def __init__(self, used: float):
        super().__init__(f'{used / 2**30:.1f} GiB')
        self.used = used


def measure(make: Callable[[ModelConfig], Program], cfg: ModelConfig, mesh: Mesh, chip: Chip) -> tuple[Costs, float]:
    """Returns what one unit of a program costs, and the seconds that it took to compile.

    Decoding, whose layers are always unrolled, would take minutes with many of them: two models of few layers are compiled,
    and the rest is added per layer.

    Raises:
        TooLarge: the compiler found no way to fit it into memory.
    """
    begun = time.perf_counter()
    first = cfg.experts.dense_layers if cfg.experts else 0
    if not make(cfg).by_layers or cfg.n_layers <= first + MORE:
        found = _of_program(make(cfg), mesh, chip)
    else:
        few, more = (
            _of_program(make(dataclasses.replace(cfg, n_layers=first + n)), mesh, chip) for n in (FEW, MORE))
        found = few + (more + few * -1) * ((cfg.n_layers - first - FEW) / (MORE - FEW))
    return found, time.perf_counter() - begun


def _of_program(program: Program, mesh: Mesh, chip: Chip) -> Costs:
    lowered = program.function.lower(*program.args, **program.static)
    try:
        with _uncached():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        used = re.search(r'\(([\d.]+)([KMGT]?)\) exceeds|Used ([\d.]+)([KMGT]?) of', str(error))
        size, unit = (group for group in used.groups() if group is not None) if used else (chip.hbm, '')
        raise TooLarge(float(size) * 2 ** (10 * ' KMGT'.index(unit or ' '))) from error
    memory = compiled.memory_analysis()
    moved = hlo.traffic(compiled.runtime_executable().hlo_modules()[0].to_string())
    devices = list(mesh.devices.flat)
    collectives: dict[tuple[str, int], tuple[float, float, float]] = collections.defaultdict(lambda: (0.0, 0.0, 0.0))
    for c in moved.collectives:
        ways = max(1, len(c.devices))
        seconds = _seconds(c, [devices[i] for i in c.devices], chip)
        before = collectives[c.kind, ways]
        collectives[c.kind, ways] = tuple(
            a + c.times * b / program.units for a, b in zip(before, (1.0, c.bytes, seconds), strict=True))
    return Costs(
        flops=_flops(program) / mesh.size / program.units,
        hbm_bytes=moved.hbm_bytes / program.units,
        collectives=dict(collectives),
        temporary=memory.temp_size_in_bytes,
        results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes)


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Leaves jax's cache of programs alone: what is compiled for devices that are not there cannot be read back."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    try:
        yield
    finally:
        jax.config.update('jax_enable_compilation_cache', before)


def _flops(program: Program) -> float:
    """Counted in what the program is on one device of the host, where no kernel hides its products."""
    alone = make_mesh(MeshConfig(**dict.fromkeys(AXES, 1)), jax.devices('cpu')[:1])
    args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), program.args)
    sharding: Sharding = program.static['sharding']
    return flops.count(program.function, *args, **program.static | {'sharding': Sharding(alone, sharding.rules)})


def _seconds(collective: hlo.Collective, devices: list, chip: Chip) -> float:
    """The least time of a collective on rings of links, both directions of which carry a half.

    Along each axis of the torus in which its devices differ there is such a ring.
    """
    n = len(devices)
    if n < 2:
        return 0.0
    axes = sum(len({device.coords[axis] for device in devices}) > 1 for axis in range(len(devices[0].coords)))
    ring = 2 * chip.link * max(1, axes)
    around = (n - 1) / n
    return collective.bytes * {
        'all-gather': n * around / ring,
        'reduce-scatter': around / ring,
        'all-reduce': 2 * around / ring,
        # Each byte goes a quarter of the way around, on average.
        'all-to-all': n / 4 * around / ring / 2,
        'ragged-all-to-all': n / 4 * around / ring / 2,
        'collective-permute': 1 / chip.link,
    }[collective.kind]
