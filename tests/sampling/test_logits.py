"""Filters against a sort, the draw against the cumulative distribution, log-probabilities of what was drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.sampling.logits import BLOCK, SamplingConfig, draw, filter_probs, sample

SIZES = [7, BLOCK, 300]


def filtered(p_V, top_k=0, top_p=1.0, min_p=0.0):
    """The filters by sorting, one row."""
    p_V = p_V.copy()
    if top_k:
        p_V[p_V < np.sort(p_V)[::-1][min(top_k, len(p_V)) - 1]] = 0
    if top_p < 1:
        order = np.argsort(-p_V, kind='stable')
        n = np.searchsorted(np.cumsum(p_V[order]), top_p * p_V.sum()) + 1
        p_V[p_V < p_V[order[n - 1]]] = 0
    if min_p:
        p_V[p_V < min_p * p_V.max()] = 0
    return p_V


@pytest.mark.parametrize('change', [
    {'top_k': 1}, {'top_k': 7}, {'top_k': 5000}, {'top_p': 0.9}, {'top_p': 0.05}, {'min_p': 0.1},
    {'top_k': 50, 'top_p': 0.8, 'min_p': 0.05}], ids=str)
def test_filters_are_those_of_a_sort(change):
    p_SV = np.exp(3 * np.random.default_rng(0).normal(size=(8, 300))).astype(np.float32)
    p_SV /= p_SV.max(-1, keepdims=True)
    got_SV = np.asarray(filter_probs(jnp.asarray(p_SV), SamplingConfig(**change)))
    for p_V, got_V in zip(p_SV, got_SV, strict=True):
        np.testing.assert_array_equal(got_V, filtered(p_V, **change))


@pytest.mark.parametrize('V', SIZES)
def test_the_draw_inverts_the_cumulative_distribution(V):
    weights_V = np.random.default_rng(1).random(V).astype(np.float32)
    weights_V[::3] = 0
    n = 20_000
    uniform_S = jnp.asarray((np.arange(n) + 0.5) / n, jnp.float32)
    tokens_S = np.asarray(jax.jit(draw)(jnp.broadcast_to(weights_V, (n, V)), uniform_S))
    assert (np.diff(tokens_S) >= 0).all() and (weights_V[tokens_S] > 0).all()
    np.testing.assert_allclose(np.bincount(tokens_S, minlength=V) / n, weights_V / weights_V.sum(), atol=2 / n)


def test_a_token_without_weight_is_never_drawn():
    """A running sum that is added up in blocks can rise by rounding where nothing was added: aim at every such place."""
    V, S = 152_064, 16
    rng = np.random.default_rng(0)
    weights_SV = np.zeros((S, V), np.float32)
    for s in range(S):
        weights_SV[s, rng.choice(V, 20, replace=False)] = np.exp(2 * rng.normal(size=20))
    mass_Sb = jnp.asarray(weights_SV).reshape(S, -1, BLOCK).sum(-1)
    upto_Sb = np.asarray(jnp.cumsum(mass_Sb, -1))
    empty_rise_Sb = (np.asarray(mass_Sb)[:, 1:] == 0) & (np.diff(upto_Sb) > 0)
    aimed = 0
    for turn in range(8):
        uniform_S = np.full(S, 1 - 2**-24, np.float32)
        for s in range(S):
            rises = np.flatnonzero(empty_rise_Sb[s])
            if turn < len(rises):
                uniform_S[s] = upto_Sb[s, rises[turn]] / upto_Sb[s, -1]
                aimed += 1
        for near_S in (uniform_S, np.nextafter(uniform_S, np.float32(0)), np.nextafter(uniform_S, np.float32(1))):
            near_S = np.minimum(near_S, np.float32(1 - 2**-24))
            tokens_S = np.asarray(jax.jit(draw)(jnp.asarray(weights_SV), jnp.asarray(near_S)))
            assert (weights_SV[np.arange(S), tokens_S] > 0).all()
    assert aimed > 10


@pytest.mark.parametrize('V', SIZES)
def test_logprobs_are_those_of_the_filtered_distribution(V):
    logits_SV = 2 * np.random.default_rng(2).normal(size=(64, V)).astype(np.float32)
    config = SamplingConfig(temperature=0.6, top_p=0.8)
    tokens_S, logp_S = jax.jit(sample, static_argnums=2)(
        jnp.asarray(logits_SV), jax.random.uniform(jax.random.key(0), (64,)), config)
    for logits_V, token, logp in zip(logits_SV, tokens_S, logp_S, strict=True):
        p_V = filtered(np.exp((logits_V - logits_V.max()) / 0.6), top_p=0.8)
        np.testing.assert_allclose(logp, np.log(p_V[token] / p_V.sum()), atol=1e-4)


@pytest.mark.parametrize('change, sentence', [
    ({'slots': 0}, 'slots=0 must be positive'), ({'temperature': -1.0}, 'temperature=-1.0'),
    ({'top_p': 0.0}, 'above 0'), ({'min_p': 1.0}, 'below 1'), ({'top_k': -1}, 'top_k=-1'),
    ({'max_tokens': 0}, 'max_tokens=0'), ({'chunk': 0}, 'chunk=0')])
def test_settings_out_of_range_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        SamplingConfig(**change)
