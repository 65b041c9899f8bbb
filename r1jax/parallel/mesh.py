"""Device meshes with the axes data, fsdp, expert and tensor."""

import dataclasses
import math
import os

import jax
from jax.sharding import AxisType, Mesh

from r1jax.errors import UserError

AXES = ('data', 'fsdp', 'expert', 'tensor')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; at most one may be -1, which takes all that are left."""

    data: int = -1
    fsdp: int = 1
    expert: int = 1
    tensor: int = 1


def split_cpu(n: int) -> None:
    """Makes a CPU look like `n` devices; accelerators, and a CPU that stays whole (`n` = 1), are left as they are.

    jax allows that only before its first use in the process. Sets NPROC, the number of XLA's threads, unless the environment
    has it.
    """
    if n > 1:
        # XLA launches and runs the programs of all devices on one pool of threads, by default one a core. A device has at
        # most 32 programs in flight, and the launch of another waits on such a thread: if all are taken by launches that
        # wait and by collectives that wait for another device, nothing ever moves. Two a device are enough.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        os.environ.setdefault('NPROC', str(max(2 * n, cores)))
        jax.config.update('jax_num_cpu_devices', n)


def mesh_sizes(config: MeshConfig, n: int) -> tuple[int, ...]:
    """Returns the size of each of `AXES` for n devices.

    Raises:
        UserError: if the axes do not multiply to the number of devices, or one has nothing to split.
    """
    sizes = [getattr(config, axis) for axis in AXES]
    said = ', '.join(f'{axis}={size}' for axis, size in zip(AXES, sizes, strict=True))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f'mesh: {said} must be positive numbers, with at most one -1')
    fixed = math.prod(size for size in sizes if size != -1)
    if -1 in sizes and n % fixed == 0:
        sizes[sizes.index(-1)] = n // fixed
    if math.prod(sizes) != n:
        raise UserError(f'mesh: {said} does not lay out {n} device(s); the axes must multiply to that')
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Lays devices out as the config says; the compiler decides on collectives (axes of type Auto).

    Raises UserError as `mesh_sizes` does.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    # Auto by name: today's default of jax.make_mesh is Explicit, which puts shardings into array types.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)
