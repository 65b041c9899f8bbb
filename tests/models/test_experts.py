"""Routing against loops written from the paper, and experts on any mesh against a dense oracle, gradients included."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.models import experts, transformer
from r1jax.models.config import Experts
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from tests.families import FAMILIES

EXPERTS = Experts(n=16, per_token=4, d_ff=24, groups=4, groups_per_token=2, scale=2.5)
SEGMENTS = np.ones((8, 6), np.int32)
MESHES = {
    'expert=8': MeshConfig(data=1, expert=8),
    'data=2 expert=4': MeshConfig(data=2, expert=4),
    'fsdp=2 expert=2 tensor=2': MeshConfig(data=1, fsdp=2, expert=2, tensor=2),
}


def routed(x_D, router_DE, balance_E, e: Experts):
    """One token, written from arXiv 2412.19437, eq. 12-16: {expert: weight}."""
    scores = 1 / (1 + np.exp(-(x_D @ router_DE)))
    biased = scores + balance_E
    size = e.n // e.groups
    group_scores = [sum(sorted(biased[g * size:(g + 1) * size])[-2:]) for g in range(e.groups)]
    best = sorted(range(e.groups), key=lambda g: -group_scores[g])[:e.groups_per_token]
    allowed = [i for g in best for i in range(g * size, (g + 1) * size)]
    chosen = sorted(allowed, key=lambda i: -biased[i])[:e.per_token]
    total = sum(scores[i] for i in chosen)
    return {i: e.scale * scores[i] / total for i in chosen}


@pytest.mark.parametrize('change', [{}, {'groups_per_token': 4}, {'groups': 1, 'groups_per_token': 1}], ids=str)
@pytest.mark.parametrize('shift', [0, -3, 3])
def test_routing_is_the_papers_also_where_all_biased_scores_are_negative(change, shift):
    e = dataclasses.replace(EXPERTS, **change)
    rng = np.random.default_rng(0)
    x, router = rng.normal(size=(2, 30, 12)), rng.normal(size=(12, e.n))
    balance = rng.normal(size=e.n) * 0.3 + shift
    weights, chosen, scores = experts.route(jnp.float32(x), jnp.float32(router), jnp.float32(balance), e)
    assert scores.shape == (2, 30, e.n)
    for b, t in np.ndindex(2, 30):
        wanted = routed(x[b, t], router, balance, e)
        got = dict(zip(chosen[b, t].tolist(), weights[b, t].tolist(), strict=True))
        assert got.keys() == wanted.keys()
        np.testing.assert_allclose([got[i] for i in wanted], list(wanted.values()), rtol=1e-5)


def dense(h_BTD, w, e: Experts):
    """Every expert works on every token; those that were not chosen weigh nothing."""
    weights, chosen, _ = experts.route(h_BTD, w.router, w.balance, e)
    weight_BTE = (jax.nn.one_hot(chosen, e.n) * weights[..., None]).sum(-2)
    hidden = jax.nn.silu(jnp.einsum('btd,edf->btef', h_BTD, w.w_gate)) * jnp.einsum('btd,edf->btef', h_BTD, w.w_up)
    routed = jnp.einsum('btef,efd,bte->btd', hidden, w.w_down, weight_BTE)
    shared = w.shared
    return routed + (jax.nn.silu(h_BTD @ shared.w_gate) * (h_BTD @ shared.w_up)) @ shared.w_down


@pytest.fixture(scope='module')
def layer():
    cfg = dataclasses.replace(FAMILIES['deepseek'], experts=EXPERTS)
    params = transformer.init(jax.random.key(0), cfg)
    w = jax.tree.map(lambda x: x[0], params.layers.mlp)
    balance = 0.1 * jax.random.normal(jax.random.key(1), w.balance.shape)
    return cfg, w.replace(balance=balance), jax.random.normal(jax.random.key(2), (8, 6, cfg.d_model))


def test_sorted_groups_equal_the_dense_oracle_and_every_token_is_counted(layer):
    cfg, w, h_BTD = layer
    out, load, _ = jax.jit(experts.mixture, static_argnums=(3, 4))(h_BTD, w, SEGMENTS, cfg, None)
    np.testing.assert_allclose(out, dense(h_BTD, w, EXPERTS), atol=1e-5)
    assert load.sum() == h_BTD.shape[0] * h_BTD.shape[1] * EXPERTS.per_token


@pytest.mark.parametrize('name', MESHES)
def test_experts_on_a_mesh_equal_the_dense_oracle_with_all_gradients(layer, name):
    cfg, w, h_BTD = layer
    sharding = Sharding(make_mesh(MESHES[name]), TRAINING)
    target = jax.random.normal(jax.random.key(3), h_BTD.shape)
    placed = jax.tree.map(
        lambda x, spec: jax.device_put(x, sharding.named(spec.axes[1:], x.shape, 'w')), w,
        experts.specs(cfg, 1, 1))
    rows = jax.device_put(h_BTD, sharding.named(('batch', None, None), h_BTD.shape, 'h'))

    @jax.jit
    def spread(h, w):
        out, load, _ = experts.mixture(h, w, SEGMENTS, cfg, sharding)
        return (out * target).sum(), (out, load)

    def oracle(h, w):
        out = dense(h, w, EXPERTS)
        return (out * target).sum(), (out, None)

    (_, (out, load)), grads = jax.value_and_grad(spread, argnums=(0, 1), has_aux=True)(rows, placed)
    (_, (wanted, _)), wanted_grads = jax.value_and_grad(oracle, argnums=(0, 1), has_aux=True)(h_BTD, w)
    np.testing.assert_allclose(out, wanted, atol=1e-5)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(grads)[0], jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    assert float(jnp.abs(wanted_grads[0]).max()) > 0.1  # of the activations, which have no other test
    np.testing.assert_array_equal(load, experts.mixture(h_BTD, w, SEGMENTS, cfg, None)[1])


def test_all_tokens_may_go_to_experts_of_one_device(layer):
    """Nothing is dropped, however uneven the load."""
    cfg, w, h_BTD = layer
    w = w.replace(balance=jnp.where(jnp.arange(16) < 4, 10.0, 0.0))
    sharding = Sharding(make_mesh(MESHES['data=2 expert=4']), TRAINING)
    out, load, _ = jax.jit(experts.mixture, static_argnums=(3, 4))(h_BTD, w, SEGMENTS, cfg, sharding)
    assert load[:4].sum() == load.sum()
    np.testing.assert_allclose(out, dense(h_BTD, w, EXPERTS), atol=1e-5)


def test_imbalance_is_the_papers_balance_loss_of_each_sequence():
    rng = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(-rng.normal(size=(2, 14, 16))))
    segments = np.array([[1] * 5 + [2] * 6 + [0] * 3, [1] * 14])
    got = np.asarray(experts.imbalance(jnp.float32(scores), jnp.asarray(segments), EXPERTS))
    for b, segment in ((0, 1), (0, 2), (1, 1)):
        s = scores[b][segments[b] == segment]
        chosen = [sorted(range(16), key=lambda e: -token[e])[:4] for token in s]
        f = [16 / (4 * len(s)) * sum(e in c for c in chosen) for e in range(16)]
        p = (s / s.sum(1, keepdims=True)).mean(0)
        np.testing.assert_allclose(got[b][segments[b] == segment].mean(), np.dot(f, p), rtol=1e-5)
    even = np.full((1, 8, 16), 0.5) + 0.01 * np.eye(16)[np.arange(32).reshape(8, 4) % 16].sum(1)
    np.testing.assert_allclose(experts.imbalance(jnp.float32(even), jnp.ones((1, 8), int), EXPERTS), 1, rtol=1e-5)


def test_padding_is_not_counted(layer):
    cfg, w, h_BTD = layer
    segments = np.where(np.arange(6) < 4, SEGMENTS, 0)
    load = experts.mixture(h_BTD, w, segments, cfg, None)[1]
    np.testing.assert_array_equal(load, experts.mixture(h_BTD[:, :4], w, SEGMENTS[:, :4], cfg, None)[1])


@pytest.mark.parametrize('change, sentence', [
    ({'groups': 3}, 'experts.n=16 must fall into groups=3'),
    ({'groups': 16}, 'groups=16 of two at least'),
    ({'groups_per_token': 5}, 'groups_per_token=5 must be 1 to groups=4'),
    ({'per_token': 9}, 'per_token=9 must be 1 to 8')])
def test_impossible_experts_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(EXPERTS, **change)


def test_the_router_learns_and_the_balance_has_no_gradient(layer):
    cfg, w, h_BTD = layer
    grads = jax.grad(lambda w: jnp.square(experts.mixture(h_BTD, w, SEGMENTS, cfg, None)[0]).sum())(w)
    assert float(jnp.abs(grads.router).max()) > 1e-3
    np.testing.assert_array_equal(grads.balance, 0)
