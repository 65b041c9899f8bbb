"""token_logprobs against jax.nn.log_softmax and autodiff: values, gradients, memory, precision, sharding."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.learning import likelihood
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding

B, T, D, V = 4, 10, 16, 48
TEMPERATURE = 0.7


def inputs(dtype=jnp.float32, V=V):
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


def in_blocks(blocks, temperature=TEMPERATURE):
    return lambda *xs: likelihood.token_logprobs(*xs, temperature=temperature, blocks=blocks)


# 47 is prime, so that its last block is padded.
@pytest.mark.parametrize('blocks, vocabulary', [(None, V), (1, V), (3, V), (5, V), (48, V), (64, V), (4, 47), (47, 47)])
def test_values_and_gradients(blocks, vocabulary):
    hidden, head, targets, weights = inputs(V=vocabulary)
    expected = reference(hidden, head, targets, TEMPERATURE)
    got = jax.jit(in_blocks(blocks))(hidden, head, targets)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == (B, T) and a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-5)

    plain = scalar(lambda *xs: reference(*xs, TEMPERATURE), weights)
    expected = jax.grad(plain, argnums=(0, 1))(hidden, head, targets)
    got = jax.jit(jax.grad(scalar(in_blocks(blocks), weights), argnums=(0, 1)))(hidden, head, targets)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('part', [0, 1])
def test_each_output_has_its_own_gradient(part):
    hidden, head, targets, weights = inputs()

    def only(function):
        return lambda h: jnp.sum(function(h, head, targets)[part] * weights[part])

    expected = jax.grad(only(lambda *xs: reference(*xs, TEMPERATURE)))(hidden)
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(jax.grad(only(in_blocks(4)))(hidden), expected, rtol=1e-5, atol=1e-5)


def test_the_default_is_the_fewest_blocks_allowed_that_divide_the_vocabulary(monkeypatch):
    hidden, head, targets, _ = inputs()

    def blocks():
        """One more than the loop over blocks is long: the first is outside."""
        text = str(jax.make_jaxpr(in_blocks(None))(hidden, head, targets))
        return [int(n) + 1 for n in re.findall(r'\blength=(\d+)', text)]

    assert blocks() == []
    monkeypatch.setattr(likelihood, 'BLOCK_ELEMENTS', B * T * 16)
    assert blocks() == [3]
    monkeypatch.setattr(likelihood, 'BLOCK_ELEMENTS', B * T * 11)
    assert blocks() == [6], 'five of 10 would do and do not divide 48'
    monkeypatch.setattr(likelihood, 'BLOCK_ELEMENTS', 1)
    assert blocks() == [48]


def test_temperature_is_the_samplers():
    """The ratio to a sampler that divides its logits by the temperature is 1, and else it is not."""
    hidden, head, targets, _ = inputs()
    logits = jnp.dot(hidden, head, precision='highest')
    sampler = jnp.take_along_axis(jax.nn.log_softmax(logits / 0.5), targets[..., None], -1)[..., 0]
    with_temperature = in_blocks(4, temperature=0.5)(hidden, head, targets)[0]
    without = in_blocks(4, temperature=1.0)(hidden, head, targets)[0]
    np.testing.assert_allclose(jnp.exp(with_temperature - sampler), 1.0, atol=1e-4)
    assert float(jnp.abs(jnp.exp(without - sampler) - 1.0).max()) > 0.5


def test_extreme_logits_stay_finite():
    hidden, head, targets, weights = inputs()
    loss = jax.value_and_grad(scalar(in_blocks(4), weights), argnums=(0, 1))
    for leaf in jax.tree.leaves(loss(1e4 * hidden, head, targets)):
        assert np.isfinite(leaf).all()


def test_bfloat16_operands_make_float32_logits():
    hidden, head, targets, weights = inputs(jnp.bfloat16)
    got = jax.jit(in_blocks(3))(hidden, head, targets)
    for a, b in zip(got, reference(hidden, head, targets, TEMPERATURE), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=1e-4)

    wide = [x.astype(jnp.float32) for x in (hidden, head)]
    plain = scalar(lambda *xs: reference(*xs, TEMPERATURE), weights)
    expected = jax.grad(plain, argnums=(0, 1))(*wide, targets)
    got = jax.jit(jax.grad(scalar(in_blocks(3), weights), argnums=(0, 1)))(hidden, head, targets)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == jnp.bfloat16
        error = np.linalg.norm(a.astype(jnp.float32) - b) / np.linalg.norm(b)
        assert error < 1e-2


def test_the_gradient_of_hidden_states_accumulates_in_float32():
    """1,024 blocks add 1/2 each: a bfloat16 sum would stop at 128, where 1/2 is half of its last bit."""
    hidden, targets = jnp.zeros((1, 1, 1), jnp.bfloat16), jnp.zeros((1, 1), jnp.int32)
    head = jnp.full((1, 1024), -512.0, jnp.bfloat16).at[0, 0].set(0)
    got = jax.grad(lambda h: likelihood.token_logprobs(h, head, targets, blocks=1024)[0].sum())(hidden)
    assert float(got[0, 0, 0]) == pytest.approx(512, rel=0.01)


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
    b, t, d, v, blocks = 2, 64, 8, 512, 8
    hidden, head = jnp.ones((b, t, d)), jnp.ones((d, v))
    targets = jnp.zeros((b, t), jnp.int32)

    def step(blocks):
        def loss(h, w):
            logp, entropy = likelihood.token_logprobs(h, w, targets, blocks=blocks)
            return jnp.sum(logp) + jnp.sum(entropy)

        return jax.value_and_grad(loss, argnums=(0, 1))

    largest = max(sizes(jax.make_jaxpr(step(blocks))(hidden, head).jaxpr))
    assert largest == b * t * v // blocks
    whole = max(sizes(jax.make_jaxpr(step(1))(hidden, head).jaxpr))
    assert whole == b * t * v, 'the walk must be able to see the logits'
    memory = [jax.jit(step(n)).lower(hidden, head).compile().memory_analysis() for n in (blocks, 1)]
    assert memory[0].temp_size_in_bytes < 4 * b * t * v < memory[1].temp_size_in_bytes


@pytest.mark.parametrize('blocks', [None, 4])
def test_sharded_equals_unsharded(blocks):
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), TRAINING)
    hidden, head, targets, weights = inputs()
    expected = jax.value_and_grad(scalar(in_blocks(blocks), weights), argnums=(0, 1))(hidden, head, targets)

    def sharded(*xs):
        return likelihood.token_logprobs(*xs, temperature=TEMPERATURE, blocks=blocks, sharding=sharding)

    rows, columns = (
        sharding.named(axes, x.shape, '') for axes, x in ((('batch', None, None), hidden), (('embed', 'vocab'), head)))
    step = jax.jit(
        jax.value_and_grad(scalar(sharded, weights), argnums=(0, 1)),
        in_shardings=(rows, columns, sharding.named(('batch', None), targets.shape, '')),
        out_shardings=(None, (rows, columns)))
    got = step(hidden, head, targets)
    assert len(got[1][1].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, expected)

    # Rows are split over four devices and the vocabulary over two, and both stay so: no device has all of either.
    text = step.lower(hidden, head, targets).compile().as_text()
    here = V // 2 // (blocks or 1)
    assert re.search(rf'f32\[{B // 4},{T},(1,)?{here}\b', text)
    assert not re.search(rf'f32\[[\d,]*\b{V}\b', text) and not re.search(rf'f32\[{B},{T},(1,)?{here}\b', text)


def test_refuses_what_is_not_positive():
    hidden, head, targets, _ = inputs()
    with pytest.raises(ValueError, match='temperature'):
        likelihood.token_logprobs(hidden, head, targets, temperature=0.0)
    with pytest.raises(ValueError, match='blocks'):
        likelihood.token_logprobs(hidden, head, targets, blocks=0)


def test_sft_loss():
    logp = jnp.array([[-1.0, -2.0, jnp.nan], [-3.0, jnp.nan, jnp.nan]])
    weights = jnp.array([[0.25, 0.25, 0.0], [0.5, 0.0, 0.0]])
    (loss, sums), gradient = jax.value_and_grad(likelihood.sft_loss, has_aux=True)(logp, weights)
    assert float(loss) == 0.25 + 0.5 + 1.5
    assert float(sums['nll_sum']) == 6.0 and float(sums['token_count']) == 3.0
    np.testing.assert_array_equal(gradient, -weights)
