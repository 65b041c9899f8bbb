"""The kernels of TPUs and GPUs against plain jax: interpreted, or on another backend of the same function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.models import attention, experts, kernels
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding


@pytest.fixture
def tpu(monkeypatch):
    """All devices pretend to be a TPU's, whose kernels are interpreted."""
    monkeypatch.setattr(Sharding, 'platform', 'tpu')
    for product in ('gmm', 'tgmm'):
        monkeypatch.setattr(kernels, product, functools.partial(getattr(kernels, product), interpret=True))
    monkeypatch.setattr(
        kernels.splash, 'make_splash_mha', functools.partial(kernels.splash.make_splash_mha, interpret=True))


@pytest.fixture
def gpu(monkeypatch):
    """All devices pretend to be GPUs; cuDNN's attention is computed by XLA."""
    monkeypatch.setattr(Sharding, 'platform', 'gpu')
    attend = jax.nn.dot_product_attention

    def by_xla(*args, implementation, **kwargs):
        assert implementation == 'cudnn'
        return attend(*args, **kwargs, implementation='xla')

    monkeypatch.setattr(jax.nn, 'dot_product_attention', by_xla)


def attention_inputs(dtype, T, B=4, H=4, N=2, K=24, V=16):
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (jax.random.normal(key, (B, T, heads, width)).astype(dtype)
               for key, heads, width in zip(keys, (H, N, N), (K, K, V), strict=False))
    # Two sequences and padding, each row cut elsewhere, and a row without padding.
    ends = np.array([[100, 190], [1, 129], [128, 160], [199, T]])[:, :, None]
    segments = 1 + (np.arange(T) >= ends).sum(1)
    return q, k, v, jnp.where(segments == 3, 0, segments), jax.random.normal(keys[3], (B, T, H, V))


def value_and_gradients(attend, q, k, v, segments, pull):
    """Of the tokens that are no padding: what padding attends to is nobody's business."""
    pull = jnp.where((segments > 0)[..., None, None], pull, 0)

    def loss(q, k, v):
        mixed = attend(q, k, v, segments).astype(jnp.float32)
        return (mixed * pull).sum(), jnp.where((segments > 0)[..., None, None], mixed, 0)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)


@pytest.mark.parametrize('mesh', [MeshConfig(data=4, tensor=2), MeshConfig(data=2, fsdp=1, expert=2, tensor=2)])
@pytest.mark.parametrize('platform, dtype, worst', [('tpu', jnp.float32, 2e-5), ('gpu', jnp.bfloat16, 3e-2)])
@pytest.mark.parametrize('T', [256, 200])
def test_attention_kernels_are_attention(request, mesh, platform, dtype, worst, T):
    request.getfixturevalue(platform)
    inputs = attention_inputs(dtype, T)
    sharding = Sharding(make_mesh(mesh), TRAINING)
    by_kernel = functools.partial(attention.self_attention, scale=0.3, sharding=sharding)
    plain = functools.partial(attention.self_attention, scale=0.3, sharding=None)
    # An output and a gradient; the scale of what is compared is about 1.
    (_, got), got_gradients = value_and_gradients(by_kernel, *inputs)
    (_, wanted), wanted_gradients = value_and_gradients(plain, *inputs)
    np.testing.assert_allclose(got, wanted, atol=worst)
    for a, b in zip(got_gradients, wanted_gradients, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), atol=worst * float(jnp.abs(b).max()))


def test_the_kernels_are_what_runs_where_they_can(tpu):
    sharding = Sharding(make_mesh(MeshConfig(data=8)), TRAINING)

    x = jax.ShapeDtypeStruct((8, 128, 2, 16), jnp.float32)
    attend = functools.partial(attention.self_attention, scale=1.0, sharding=sharding)
    assert 'pallas_call' in str(jax.make_jaxpr(attend)(x, x, x, jax.ShapeDtypeStruct((8, 128), jnp.int32)))
    w, sizes = jnp.ones((2, 128, 128)), jnp.array([100, 20])
    products = (str(jax.make_jaxpr(lambda x: kernels.grouped_product(x, w, sizes, 'tpu'))(jnp.ones((R, 128))))
                for R in (128, 120))
    assert ['pallas_call' in text for text in products] == [True, False]


@pytest.mark.parametrize('sizes', [[40, 0, 130, 60], [0, 0, 0, 0], [256, 0, 0, 0], [1, 1, 1, 1]])
def test_the_grouped_product_is_ragged_dot_in_its_groups(tpu, sizes):
    keys = jax.random.split(jax.random.key(1), 3)
    x, w = jax.random.normal(keys[0], (256, 256)) / 8, jax.random.normal(keys[1], (4, 256, 384)) / 8
    pull, sizes = jax.random.normal(keys[2], (256, 384)), jnp.array(sizes, jnp.int32)

    def gradients(platform):
        y, back = jax.vjp(lambda x, w: kernels.grouped_product(x, w, sizes, platform), x, w)
        d_x, d_w = back(pull)
        return y[:int(sizes.sum())], d_x[:int(sizes.sum())], d_w

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradients('tpu'), gradients(None))


@pytest.mark.parametrize('share', [0.0, 0.2, 0.9])
@pytest.mark.parametrize('tokens', [100, 256, 300])
def test_rows_are_added_up_to_tokens_whatever_stands_in_others(tpu, share, tokens):
    rng = np.random.default_rng(0)
    R, A, D = 1024, 3, 128
    here = rng.random((tokens, A)) < share
    row = rng.permutation(R)[:tokens * A].reshape(tokens, A)
    y = rng.normal(size=(R, D)).astype(np.float32)
    wanted = np.where(here[..., None], y[row], 0).sum(1)
    y[np.setdiff1d(np.arange(R), row[here])] = np.nan
    for platform in ('tpu', None):
        got = kernels.sum_of_rows(jnp.array(y), jnp.array(row), jnp.array(here), platform)
        np.testing.assert_allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize('limit', [1, 65_536, 10**9])
@pytest.mark.parametrize('platform', ['tpu', 'cpu'])
@pytest.mark.parametrize('uneven', [False, True])
def test_experts_on_a_mesh_in_chunks_and_blocks_are_the_experts_in_one_piece(request, monkeypatch, platform, limit, uneven):
    if platform == 'tpu':
        request.getfixturevalue('tpu')
    chosen, got, wanted = in_pieces(
        monkeypatch, limit, MeshConfig(data=1, fsdp=2, expert=2, tensor=2), room=1, uneven=uneven)
    if limit == 10**9:
        # One chunk: 32 tokens of each of two devices, whose 256 pairs come to one of them in blocks of 128 rows.
        pairs = (chosen.reshape(2, 64, 4) < 4).sum((1, 2))
        assert (pairs > 128).all() == uneven
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max())), got, wanted)


def test_what_fills_up_a_chunk_takes_no_room_of_tokens(monkeypatch):
    """Each device has one expert, and of a token no more than one pair: there is room for that in one block."""
    _, got, wanted = in_pieces(monkeypatch, 1, MeshConfig(data=1, expert=8), room=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max())), got, wanted)


def in_pieces(monkeypatch, limit, mesh, room, uneven=False):
    """Which experts tokens chose, and the loss and gradients of experts on a mesh in pieces and on one device in one."""
    B, T, D, E, A, F = 8, 16, 128, 8, 4, 256
    keys = jax.random.split(jax.random.key(2), 6)
    h, pull = (jax.random.normal(key, (B, T, D)) for key in keys[:2])
    # The first four, of eight experts, are those of one of two devices.
    favour = 0.9 * (jnp.arange(E) < 4) if uneven else 0.0
    chosen = jnp.argsort(jax.random.uniform(keys[2], (B, T, E)) - favour, axis=-1)[..., :A]
    weights = jax.random.uniform(keys[3], (B, T, A))
    mixture = experts.Mixture(
        None, None, *(jax.random.normal(key, shape) / 4 for key, shape in zip(
            jax.random.split(keys[4], 3), ((E, D, F), (E, D, F), (E, F, D)), strict=True)), None)

    def gradients(sharding):
        def loss(h, weights, mixture):
            return (experts.spread(h, chosen, weights, mixture, sharding) * pull).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(h, weights, mixture)

    wanted = gradients(None)
    monkeypatch.setattr(experts, 'BLOCK_ELEMENTS', limit)
    monkeypatch.setattr(experts, 'ROOM', room)
    return chosen, gradients(Sharding(make_mesh(mesh), TRAINING)), wanted
