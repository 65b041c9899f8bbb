"""token_logprobs against jax.nn.log_softmax and autodiff: values, gradients, memory, precision, sharding."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from r1jax.learning import likelihood

B, T, D, V = 4, 10, 16, 48
TEMPERATURE = 0.7


def inputs(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 5)
    hidden = (0.5 * jax.random.normal(keys[0], (B, T, D))).astype(dtype)
    head = jax.random.normal(keys[1], (D, V)).astype(dtype)
    targets = jax.random.randint(keys[2], (B, T), 0, V)
    weights = jax.random.normal(keys[3], (2, B, T))
    return hidden, head, targets, weights


def reference(hidden, head, targets, temperature):
    logits = jnp.dot(hidden.astype(jnp.float32), head.astype(jnp.float32), precision='highest')
    log_p = jax.nn.log_softmax(logits / temperature)
    logp = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return logp, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def scalar(function, weights):
    """A loss that pulls on the log-probs and on the entropies, each position by a weight of its own."""

    def loss(hidden, head, targets):
        logp, entropy = function(hidden, head, targets)
        return jnp.sum(logp * weights[0]) + jnp.sum(entropy * weights[1])

    return loss


def chunked(chunk_size, temperature=TEMPERATURE):
    return lambda *xs: likelihood.token_logprobs(*xs, temperature=temperature, chunk_size=chunk_size)


@pytest.mark.parametrize('chunk_size', [None, 1, 3, 5, 10, 64])
def test_values_and_gradients(chunk_size):
    hidden, head, targets, weights = inputs()
    expected = reference(hidden, head, targets, TEMPERATURE)
    got = jax.jit(chunked(chunk_size))(hidden, head, targets)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == (B, T) and a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-5)

    plain = scalar(lambda *xs: reference(*xs, TEMPERATURE), weights)
    expected = jax.grad(plain, argnums=(0, 1))(hidden, head, targets)
    got = jax.jit(jax.grad(scalar(chunked(chunk_size), weights), argnums=(0, 1)))(hidden, head, targets)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('part', [0, 1])
def test_each_output_has_its_own_gradient(part):
    hidden, head, targets, weights = inputs()

    def only(function):
        return lambda h: jnp.sum(function(h, head, targets)[part] * weights[part])

    expected = jax.grad(only(lambda *xs: reference(*xs, TEMPERATURE)))(hidden)
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(jax.grad(only(chunked(4)))(hidden), expected, rtol=1e-5, atol=1e-5)


def test_default_chunk_is_the_largest_allowed(monkeypatch):
    """T = 10 under a limit of 4 positions: three chunks, made equal (4, 4, 2 positions and 2 of padding)."""
    hidden, head, targets, _ = inputs()

    def scan_lengths():
        text = str(jax.make_jaxpr(chunked(None))(hidden, head, targets))
        return [int(n) for n in re.findall(r'\blength=(\d+)', text)]

    assert scan_lengths() == []
    monkeypatch.setattr(likelihood, 'CHUNK_ELEMENTS', B * V * 4)
    assert scan_lengths() == [3]
    monkeypatch.setattr(likelihood, 'CHUNK_ELEMENTS', 1)
    assert scan_lengths() == [10]


def test_temperature_is_the_samplers():
    """The ratio to a sampler that divides its logits by the temperature is 1, and else it is not."""
    hidden, head, targets, _ = inputs()
    logits = jnp.dot(hidden, head, precision='highest')
    sampler = jnp.take_along_axis(jax.nn.log_softmax(logits / 0.5), targets[..., None], -1)[..., 0]
    with_temperature = chunked(4, temperature=0.5)(hidden, head, targets)[0]
    without = chunked(4, temperature=1.0)(hidden, head, targets)[0]
    np.testing.assert_allclose(jnp.exp(with_temperature - sampler), 1.0, atol=1e-4)
    assert float(jnp.abs(jnp.exp(without - sampler) - 1.0).max()) > 0.5


def test_extreme_logits_stay_finite():
    hidden, head, targets, weights = inputs()
    loss = jax.value_and_grad(scalar(chunked(4), weights), argnums=(0, 1))
    for leaf in jax.tree.leaves(loss(1e4 * hidden, head, targets)):
        assert np.isfinite(leaf).all()


def test_bfloat16_operands_make_float32_logits():
    hidden, head, targets, weights = inputs(jnp.bfloat16)
    got = jax.jit(chunked(3))(hidden, head, targets)
    for a, b in zip(got, reference(hidden, head, targets, TEMPERATURE), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-4)

    wide = [x.astype(jnp.float32) for x in (hidden, head)]
    plain = scalar(lambda *xs: reference(*xs, TEMPERATURE), weights)
    expected = jax.grad(plain, argnums=(0, 1))(*wide, targets)
    got = jax.jit(jax.grad(scalar(chunked(3), weights), argnums=(0, 1)))(hidden, head, targets)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        error = np.linalg.norm(a.astype(jnp.float32) - b) / np.linalg.norm(b)
        assert error < 1e-2


def test_the_heads_gradient_accumulates_in_float32():
    """Over 1024 chunks of 1/2 a bfloat16 sum would stop at 128, where 1/2 is half of its last bit."""
    hidden = jnp.ones((1, 1024, 1), jnp.bfloat16)
    head = jnp.zeros((1, 2), jnp.bfloat16)
    targets = jnp.zeros((1, 1024), jnp.int32)
    got = jax.grad(lambda w: likelihood.token_logprobs(hidden, w, targets, chunk_size=1)[0].sum())(head)
    np.testing.assert_array_equal(got.astype(jnp.float32), [[512.0, -512.0]])


def sizes(jaxpr):
    """The number of elements of every array that any equation makes, inner jaxprs included."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.size for v in eqn.outvars)
        for param in eqn.params.values():
            for inner in param if isinstance(param, (tuple, list)) else (param,):
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from sizes(inner)


def test_no_array_of_all_logits_forward_or_backward():
    b, t, d, v, chunk = 2, 64, 8, 512, 8
    hidden, head = jnp.ones((b, t, d)), jnp.ones((d, v))
    targets = jnp.zeros((b, t), jnp.int32)

    def step(size):
        def loss(h, w):
            logp, entropy = likelihood.token_logprobs(h, w, targets, chunk_size=size)
            return jnp.sum(logp) + jnp.sum(entropy)

        return jax.value_and_grad(loss, argnums=(0, 1))

    largest = max(sizes(jax.make_jaxpr(step(chunk))(hidden, head).jaxpr))
    assert largest == b * chunk * v
    whole = max(sizes(jax.make_jaxpr(step(t))(hidden, head).jaxpr))
    assert whole == b * t * v, 'the walk must be able to see the logits'
    memory = [jax.jit(step(size)).lower(hidden, head).compile().memory_analysis() for size in (chunk, t)]
    assert memory[0].temp_size_in_bytes < 4 * b * t * v < memory[1].temp_size_in_bytes


@pytest.mark.parametrize('chunk_size', [None, 4])
def test_sharded_equals_unsharded(chunk_size):
    mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
    rows = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
    columns = NamedSharding(mesh, PartitionSpec('fsdp', 'tensor'))
    hidden, head, targets, weights = inputs()
    loss = jax.value_and_grad(scalar(chunked(chunk_size), weights), argnums=(0, 1))
    expected = loss(hidden, head, targets)
    step = jax.jit(loss, in_shardings=(rows, columns, rows), out_shardings=(None, (rows, columns)))
    compiled = step.lower(hidden, head, targets).compile()
    got = step(hidden, head, targets)
    assert len(got[1][1].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, expected)

    # The vocabulary is split over two devices and stays split: no array anywhere has all of it.
    text = compiled.as_text()
    assert re.search(rf'f32\[[\d,]*\b{V // 2}\b', text)
    assert not re.search(rf'f32\[[\d,]*\b{V}\b', text)


def test_refuses_what_is_not_positive():
    hidden, head, targets, _ = inputs()
    with pytest.raises(ValueError, match='temperature'):
        likelihood.token_logprobs(hidden, head, targets, temperature=0.0)
    with pytest.raises(ValueError, match='chunk_size'):
        likelihood.token_logprobs(hidden, head, targets, chunk_size=0)


def test_sft_loss():
    logp = jnp.array([[-1.0, -2.0, jnp.nan], [-3.0, jnp.nan, jnp.nan]])
    weights = jnp.array([[0.25, 0.25, 0.0], [0.5, 0.0, 0.0]])
    (loss, sums), gradient = jax.value_and_grad(likelihood.sft_loss, has_aux=True)(logp, weights)
    assert float(loss) == 0.25 + 0.5 + 1.5
    assert float(sums['nll_sum']) == 6.0 and float(sums['token_count']) == 3.0
    np.testing.assert_array_equal(gradient, -weights)
