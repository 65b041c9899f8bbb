"""Meshes and the table from logical axes to mesh axes: what they refuse, and with which words."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from r1jax.errors import UserError
from r1jax.parallel.mesh import AXES, MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, TRAINING, Sharding


def test_one_axis_may_take_what_is_left():
    mesh = make_mesh(MeshConfig(data=-1, fsdp=2, tensor=2))
    assert dict(mesh.shape) == {'data': 2, 'fsdp': 2, 'expert': 1, 'tensor': 2}
    assert mesh.axis_names == AXES
    # Explicit axes, jax's new default, would put shardings into the types of arrays.
    assert all(t == AxisType.Auto for t in mesh.axis_types)


@pytest.mark.parametrize('config, sentence', [
    (MeshConfig(data=3), 'data=3, fsdp=1, expert=1, tensor=1 does not lay out 8 device'),
    (MeshConfig(data=-1, fsdp=3), 'does not lay out 8 device'),
    (MeshConfig(data=-1, fsdp=-1), 'at most one -1'),
    (MeshConfig(data=0), 'must be positive'),
])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(config, sentence):
    with pytest.raises(UserError, match=sentence):
        make_mesh(config)


def test_the_gradient_of_a_moved_value_lies_where_the_value_came_from():
    sharding = Sharding(make_mesh(MeshConfig(data=1, fsdp=4, tensor=2)), TRAINING)
    x, w = np.random.default_rng(0).normal(size=(8, 16)), np.random.default_rng(1).normal(size=(16, 6))
    placed = jax.device_put(w, sharding.named(('embed', 'ffw'), w.shape, 'w'))
    seen = []

    def product(w, x):
        w = sharding.move(w, ('embed', 'ffw'), (None, 'ffw'))
        jax.debug.inspect_array_sharding(w, callback=seen.append)
        return jax.numpy.square(x @ w).sum()

    got = jax.jit(jax.grad(product))(placed, sharding.place_rows(x))
    assert got.sharding.is_equivalent_to(placed.sharding, 2)
    assert all(where.is_equivalent_to(sharding.named((None, 'ffw'), w.shape, 'w'), 2) for where in seen) and seen
    np.testing.assert_allclose(got, 2 * x.T @ (x @ w), rtol=1e-4)


def test_specs_follow_the_table_and_decoding_keeps_weights_whole_over_fsdp():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    axes = ('layers', 'embed', 'heads', None)
    assert Sharding(mesh, TRAINING).spec(axes) == PartitionSpec(None, 'fsdp', 'tensor', None)
    assert Sharding(mesh, DECODING).spec(axes) == PartitionSpec(None, None, 'tensor', None)
    assert Sharding(mesh, TRAINING).spec(('batch', None)) == PartitionSpec(('data', 'fsdp', 'expert'), None)
    assert Sharding(mesh, TRAINING).ways('batch') == 4


def test_two_dimensions_on_one_mesh_axis_are_a_collision():
    with pytest.raises(ValueError, match='two dimensions on one mesh axis'):
        Sharding(make_mesh(MeshConfig()), TRAINING).spec(('heads', 'ffw'))


def test_rows_are_placed_over_data_and_fsdp_or_refused():
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=4)), TRAINING)
    placed = sharding.place_rows({'x': np.arange(16).reshape(16, 1)})['x']
    assert {s.data.shape for s in placed.addressable_shards} == {(2, 1)}
    with pytest.raises(UserError, match="its 'batch' dimension of 12 is not divisible by 8, the size of mesh data x fsdp"):
        sharding.place_rows(np.zeros((12, 3)))


def test_shardings_are_static_arguments():
    mesh = make_mesh(MeshConfig())
    assert hash(Sharding(mesh, TRAINING)) == hash(Sharding(mesh, TRAINING))
    assert Sharding(mesh, TRAINING) != Sharding(mesh, DECODING)
    assert Sharding(make_mesh(MeshConfig(data=1), jax.devices()[:1]), TRAINING).ways('batch') == 1
