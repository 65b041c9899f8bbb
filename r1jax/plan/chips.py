"""What is known of each TPU generation, for one of jax's devices.

Peaks are those of the vendor's pages (cloud.google.com/tpu/docs: v5e, v5p, v6e, tpu7x). A link's bandwidth is that of one
direction: interconnect bandwidth of a chip, divided by its links and by two directions. A chip of tpu7x is two devices,
which share its memory, its links and its peaks.
"""

import dataclasses

from r1jax.errors import UserError, nearest

GB, GIB = 1e9, 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device of a TPU.

    Attributes:
        hbm: bytes of memory, as many as the compiler leaves to programs.
        flops: bfloat16 operations a second.
        bandwidth: bytes a second between memory and cores.
        link: bytes a second that one link to a neighbour carries in one direction.
    """

    hbm: float
    flops: float
    bandwidth: float
    link: float


# By the name that topologies begin with.
CHIPS = {
    'v5e': Chip(hbm=15.75 * GIB, flops=197e12, bandwidth=819 * GB, link=45 * GB),
    'v5p': Chip(hbm=95.74 * GIB, flops=459e12, bandwidth=2765 * GB, link=90 * GB),
    'v6e': Chip(hbm=31.25 * GIB, flops=918e12, bandwidth=1640 * GB, link=90 * GB),
    'tpu7x': Chip(hbm=94.75 * GIB, flops=1153.5e12, bandwidth=3690 * GB, link=50 * GB),
}


def chip(topology: str) -> Chip:
    """Returns the device of a topology like 'v5p:8x8x8'. Raises UserError for another generation."""
    name = topology.partition(':')[0]
    if name not in CHIPS:
        raise UserError(f"topology '{topology}': there is no TPU '{name}' here{nearest(name, CHIPS)}")
    return CHIPS[name]
