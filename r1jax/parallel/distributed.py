"""Several hosts as one: joining them, and the few places where they must wait for or hear from each other.

Every host runs the same program on the same numbers: all read the same prompts, keep the same books, and take the same
decisions. Only arrays on the mesh are divided, and what costs time on a host, the rewards. Only one host, the leader,
prints and writes (each its own shards of a checkpoint), so all need the same file system.
"""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from r1jax.errors import UserError

VARIABLE = 'R1JAX_HOSTS'


def start() -> None:
    """Joins the other hosts if the variable R1JAX_HOSTS says that there are some; must come before jax is first used.

    'auto' leaves finding them to jax (Cloud TPU, Slurm, Open MPI, Kubernetes); 'ADDRESS:PORT,INDEX,COUNT' says that
    this is host INDEX (from 0) of COUNT and that host 0 listens at ADDRESS:PORT.

    Raises:
        UserError: the variable is neither, or there is nothing that 'auto' can find.
    """
    value = os.environ.get(VARIABLE, '')
    if not value:
        return
    # Where the devices are CPUs their collectives need a transport between processes.
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    if value == 'auto':
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{VARIABLE}='auto': jax finds no hosts to join ({error})") from error
        return
    address, *rest = value.split(',')
    if ':' not in address or len(rest) != 2 or not all(text.isdecimal() for text in rest):
        raise UserError(f"{VARIABLE}='{value}' is neither 'auto' nor ADDRESS:PORT,INDEX,COUNT, as in 10.0.0.1:7000,0,4")
    index, count = map(int, rest)
    if index >= count:
        raise UserError(f"{VARIABLE}='{value}': INDEX must be one of 0..{count - 1}")
    jax.distributed.initialize(address, num_processes=count, process_id=index)


def is_leader() -> bool:
    """Whether this is the host that prints and writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all hosts have come to the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def share(n: int) -> slice:
    """Which of n pieces of work are this host's."""
    each = -(-n // jax.process_count())
    return slice(min(n, jax.process_index() * each), min(n, (jax.process_index() + 1) * each))


def gather(mine: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Joins what each host made of its `share(n)`: arrays of n rows in order, the same on every host."""
    if jax.process_count() == 1:
        return mine
    each = -(-n // jax.process_count())
    padded = {name: np.pad(x, [(0, each - len(x))] + [(0, 0)] * (x.ndim - 1)) for name, x in mine.items()}
    return {name: np.asarray(x)[:n] for name, x in multihost_utils.process_allgather(padded, tiled=True).items()}
