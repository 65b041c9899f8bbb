"""One table from the names of array dimensions to mesh axes; two tables, in fact: one to train and one to decode."""

import dataclasses
import functools
import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from r1jax.errors import UserError

Rules = tuple[tuple[str, tuple[str, ...]], ...]

# Training: weights are split over fsdp (ZeRO-3: gathered layer by layer as they are needed) and over tensor.
TRAINING: Rules = (
    ('batch', ('data', 'fsdp', 'expert')),
    ('time', ('tensor',)),
    ('layers', ()),
    ('embed', ('fsdp',)),
    ('norm', ()),
    ('heads', ('tensor',)),
    ('kv_heads', ('tensor',)),
    ('ffw', ('tensor',)),
    ('experts', ('expert',)),
    ('vocab', ('tensor',)),
)

# Decoding reads every weight once a token, so gathering them over fsdp would cost more than it saves: whole over data
# and fsdp, split over tensor. Experts are never gathered, tokens come to them, so they are split over fsdp as well.
_DECODING = {'time': (), 'embed': (), 'experts': ('fsdp', 'expert')}
DECODING: Rules = tuple((name, _DECODING.get(name, axes)) for name, axes in TRAINING)


def put(tree, shardings):
    """Puts arrays on the mesh: those of one host, where all hosts hold the same, and those that lie on a mesh already.

    `jax.device_put` alone would do it, but compare the former between the hosts each time.
    """

    def one(x, sharding):
        if sharding.is_fully_addressable or isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree, shardings)


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh and the rules for it; hashable, so that jitted functions take it as a static argument."""

    mesh: Mesh
    rules: Rules

    def with_axes(self, **changed: tuple[str, ...]) -> 'Sharding':
        """Returns the same mesh with other rules for the named logical axes."""
        return Sharding(self.mesh, tuple((name, changed.get(name, axes)) for name, axes in self.rules))

    def _mesh_axes(self, axes: tuple[str | None, ...]) -> list[tuple[str, ...]]:
        table = dict(self.rules)
        return [table[axis] if axis is not None else () for axis in axes]

    def spec(self, axes: tuple[str | None, ...]) -> PartitionSpec:
        """Returns the PartitionSpec of an array with these logical axes. Raises ValueError if two share a mesh axis."""
        parts = self._mesh_axes(axes)
        used = [m for part in parts for m in part]
        if len(used) != len(set(used)):
            raise ValueError(f'logical axes {axes} put two dimensions on one mesh axis: {parts}')
        return PartitionSpec(*[part if part else None for part in parts])

    def named(self, axes: tuple[str | None, ...], shape: tuple[int, ...], what: str) -> NamedSharding:
        """Returns the NamedSharding of an array. Raises UserError, naming `what`, if the mesh does not divide it."""
        for axis, size, part in zip(axes, shape, self._mesh_axes(axes), strict=True):
            ways = math.prod(self.mesh.shape[m] for m in part)
            if size % ways:
                raise UserError(
                    f"{what}: its '{axis}' dimension of {size} is not divisible by {ways}, the size of mesh "
                    f"{' x '.join(part)}")
        return NamedSharding(self.mesh, self.spec(axes))

    def constrain(self, x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        """Pins a value inside a jitted function, and its cotangent to the same place."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, self.spec(axes)))

    def move(self, x: jax.Array, origin: tuple[str | None, ...], axes: tuple[str | None, ...]) -> jax.Array:
        """Pins a value inside a jitted function, and its cotangent to where the value came from.

        So what is gathered on the way there is summed and scattered on the way back, and the other way round. Without it
        the cotangent's place is the compiler's choice, which may be to sum it whole on every device.
        """
        return _move(self, origin, axes, x)

    def constrain_rows(self, tree):
        """Pins a pytree inside a jitted function, its leading dimension split as a batch is."""
        return jax.tree.map(lambda x: self.constrain(x, ('batch',) + (None,) * (x.ndim - 1)), tree)

    def constrain_replicated(self, tree):
        """Pins a pytree inside a jitted function, whole on every device: every host can then read it."""
        return jax.tree.map(lambda x: self.constrain(x, (None,) * x.ndim), tree)

    def place_rows(self, tree):
        """Puts a pytree of host arrays on the mesh, their leading dimension split as a batch is.

        Raises:
            UserError: if the mesh does not divide the number of rows.
        """
        return put(tree, jax.tree.map(
            lambda x: self.named(('batch',) + (None,) * (x.ndim - 1), np.shape(x), 'batch'), tree))

    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def check_batch(self, name: str, size: int) -> None:
        """Raises UserError if the mesh does not divide `size` rows."""
        ways = self.ways('batch')
        if size % ways:
            nearest = max(1, round(size / ways)) * ways
            raise UserError(
                f'{name}={size} is not divisible by {ways}, the size of mesh data x fsdp x expert '
                f'(the nearest that is: {nearest})')

    @property
    def platform(self) -> str:
        """What the mesh's devices are: 'cpu', 'gpu' or 'tpu'."""
        return self.mesh.devices.flat[0].platform

    def ways(self, axis: str) -> int:
        """Over how many devices a dimension of this name is split."""
        return math.prod(self.mesh.shape[m] for m in dict(self.rules)[axis])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _move(sharding: Sharding, origin: tuple[str | None, ...], axes: tuple[str | None, ...], x: jax.Array) -> jax.Array:
    return sharding.constrain(x, axes)


_move.defvjp(
    lambda sharding, origin, axes, x: (_move(sharding, origin, axes, x), None),
    # By way of where the value is: a sum over devices that is wanted in pieces is otherwise computed piece by piece, each
    # time from all activations, as in `models.transformer.in_use`.
    lambda sharding, origin, axes, _, d_x: (sharding.constrain(sharding.constrain(d_x, axes), origin),))
