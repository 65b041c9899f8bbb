"""Reading a checkpoint takes the memory of one parameter, and of experts those alone that a host's devices hold."""

import dataclasses
import tracemalloc

import jax
import numpy as np
import pytest

from r1jax.interop import hf
from r1jax.interop.convert import spread
from r1jax.interop.sources import SafetensorsSource, Source
from r1jax.interop.tables import places
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from tests.families import FAMILIES

DENSE = ModelConfig(
    vocab_size=2048, d_model=256, n_layers=6, n_heads=8, n_kv_heads=8, head_dim=32, d_ff=512, tie_embeddings=True)
DEEPSEEK = dataclasses.replace(FAMILIES['deepseek'], mtp=1)


class Counting(Source):
    """Zeros of the right shapes; remembers what was read."""

    def __init__(self, cfg):
        self.where, self.names = 'nowhere', []
        specs = hf.by_path(transformer.abstract(cfg))
        self.shapes = {
            place.name: place.entry.shape([specs[place.stack + part].shape[len(place.index):] for part in place.entry.parts])
            for place in places(cfg)}
        self.dtypes = dict.fromkeys(self.shapes, np.dtype(np.float32))

    def read(self, name):
        self.names.append(name)
        return np.zeros(self.shapes[name], np.float32)


@pytest.mark.parametrize('sharding', ['training', 'spread'])
def test_no_more_than_one_parameter_is_in_memory_beside_those_on_devices(sharding):
    where = spread(DENSE) if sharding == 'spread' else transformer.shardings(
        DENSE, Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), TRAINING))
    source, largest = Counting(DENSE), max(4 * np.prod(spec.shape) for spec in jax.tree.leaves(transformer.abstract(DENSE)))
    whole = 4 * transformer.n_params(DENSE)
    hf.read_params(source, DENSE, where)  # what is compiled and imported on the way is in memory now
    tracemalloc.start()
    try:
        params = hf.read_params(source, DENSE, where)
        # A CPU may use NumPy's own memory as the device's: that is what is left.
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert transformer.n_params(DENSE) == sum(x.size for x in jax.tree.leaves(params))
    assert len(source.names) == 2 * len(source.shapes)
    tensor = max(4 * np.prod(shape) for shape in source.shapes.values())
    assert peak - left < largest + tensor < whole / 2
    assert peak > largest


@dataclasses.dataclass(frozen=True)
class OfHost:
    """A sharding as one host of several sees it, which holds these devices."""

    sharding: jax.sharding.NamedSharding
    devices: tuple

    def addressable_devices_indices_map(self, shape):
        return {d: index for d, index in self.sharding.devices_indices_map(shape).items() if d in self.devices}


@pytest.mark.parametrize('host', range(4))
@pytest.mark.parametrize('sharding', ['expert', 'spread'])
def test_a_host_reads_the_experts_of_its_own_devices_alone(host, sharding, monkeypatch):
    where = spread(DEEPSEEK) if sharding == 'spread' else transformer.shardings(
        DEEPSEEK, Sharding(make_mesh(MeshConfig(data=1, fsdp=2, expert=4)), TRAINING))
    devices = tuple(jax.devices()[2 * host:2 * host + 2])
    where = jax.tree.map(lambda one: OfHost(one, devices), where)
    monkeypatch.setattr(hf._Pieces, 'assemble', lambda pieces: sum(x.nbytes for x in pieces._buffers.values()))
    source = Counting(DEEPSEEK)
    held = hf.read_params(source, DEEPSEEK, where)
    # Eight devices: the experts fall into eight parts, or into four that each second host has as well.
    parts, part = (4, host) if sharding == 'spread' else (2, host % 2)
    each = DEEPSEEK.experts.n // parts
    read = {int(name.split('.')[5]) for name in source.names if '.experts.' in name}
    assert read == set(range(part * each, (part + 1) * each))
    # Of the parameters it holds no more than a quarter, but for what is cut over two devices or none.
    experts = held.layers.mlp.w_gate, held.layers.mlp.w_up, held.layers.mlp.w_down
    spec = transformer.abstract(DEEPSEEK).layers.mlp.w_gate
    assert experts == (np.prod(spec.shape),) * 3  # a quarter of the float32 bytes
    assert {name for name in source.shapes if '.experts.' not in name} <= set(source.names)


def test_a_tensor_is_not_read_before_it_is_its_turn(tmp_path, monkeypatch):
    params = transformer.init(jax.random.key(0), DEEPSEEK)
    hf.write(tmp_path, params, DEEPSEEK, eos=2, bos=1, shard_bytes=20_000)
    source = SafetensorsSource(tmp_path)
    fromfile, sizes = np.fromfile, []
    monkeypatch.setattr(np, 'fromfile', lambda *args, **more: sizes.append(args[2]) or fromfile(*args, **more))
    source.read('model.layers.1.mlp.experts.3.up_proj.weight')
    assert sizes == [4 * 24 * 32]


@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
@pytest.mark.parametrize('spec, most', [
    ((None, 'expert', 'fsdp'), 3), ((None, ('fsdp', 'expert')), 8), ((None, None, ('data', 'expert')), 1), ((), 1)])
def test_an_expert_is_taken_without_bringing_all_of_them_to_every_device(spec, most, dtype):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, expert=2))
    x = np.random.default_rng(0).normal(size=(3, 16, 8, 64)).astype(dtype)
    x[:, :, 0] = -0.0
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    array = jax.device_put(x, where)
    bits = f'uint{8 * x.dtype.itemsize}'
    for index in ((2, 11), (0, 0), (1, 15), (1,), ()):
        np.testing.assert_array_equal(hf.take(array, index, where), x.view(bits)[index])
    expert = x[0, 0].astype(np.float32).nbytes
    compiled = hf.take.lower(array, (2, 11), where).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= most * expert < x.nbytes / 2
    assert 'all-gather' not in compiled.as_text()
