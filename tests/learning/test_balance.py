"""Balancing experts and learning to predict the second token, against loops from the paper, however a minibatch is cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.learning import balance
from r1jax.learning.balance import BalanceConfig, balance_metrics, balance_shares
from r1jax.learning.grpo import GRPOLoss
from r1jax.learning.optimizer import OptimizerConfig
from r1jax.learning.packing import TokenSequence, loss_weights, pack
from r1jax.learning.step import accumulate, apply_gradients, grpo_gradients, init_state, micro_batches, sft_gradients
from r1jax.models import experts, transformer
from r1jax.models.config import Experts, ModelConfig
from r1jax.models.mtp import predict_second
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding

CFG = ModelConfig(
    vocab_size=64, d_model=32, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=8, d_ff=64, max_positions=64, mtp=1,
    experts=Experts(n=8, per_token=2, d_ff=16, groups=4, groups_per_token=2, dense_layers=1))
ONE = Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), TRAINING)
MESHES = [MeshConfig(data=1, fsdp=8), MeshConfig(data=2, expert=4), MeshConfig(data=1, fsdp=2, expert=2, tensor=2)]
ALPHA, LAMBDA, GAMMA = 0.05, 0.3, 0.01


def sequences(n=20, vocab=64):
    rng = np.random.default_rng(0)
    lengths = [(int(rng.integers(1, 8)), int(rng.integers(1, 12))) for _ in range(n - 2)] + [(1, 1), (1, 2)]
    return [
        TokenSequence(rng.integers(0, vocab, prompt + completion).astype(np.int32), prompt,
                      per_sequence={'advantage': float(rng.normal())}) for prompt, completion in lengths]


def start(cfg=CFG):
    params = transformer.init(jax.random.key(0), cfg)
    biases = 0.05 * jax.random.normal(jax.random.key(1), params.layers.mlp.balance.shape)
    return params.replace(layers=params.layers.replace(mlp=params.layers.mlp.replace(balance=biases)))


def batches(rows, row_length, sharding=ONE, cfg=CFG, seqs=None):
    packed = pack(seqs or sequences(), row_length)
    weights = loss_weights(packed.mask, packed.sequence, 'token')
    return micro_batches(packed, weights, rows, sharding, balance_shares(packed, cfg))


def gradients(rows=8, row_length=32, sharding=ONE, cfg=CFG, params=None, alpha=ALPHA, mtp_loss=LAMBDA):
    placed = jax.device_put(params or start(cfg), transformer.shardings(cfg, sharding))
    return accumulate(
        sft_gradients, placed, batches(rows, row_length, sharding, cfg), cfg=cfg, sharding=sharding, balance_loss=alpha,
        mtp_loss=mtp_loss)


def assert_close(a, b, atol):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol, rtol=1e-5, err_msg=jax.tree_util.keystr(path))


def test_biases_move_by_gamma_towards_the_mean_load_and_not_at_all_where_they_are_there():
    load = np.array([[4, 4, 4, 4, 4, 4, 4, 4], [9, 7, 8, 8, 8, 8, 16, 0], [1, 0, 0, 0, 0, 0, 0, 0]], np.int32)
    params = start()
    moved = balance.rebalanced(params, jnp.asarray(load), GAMMA)
    before = np.concatenate([params.layers.mlp.balance, params.mtp.layer.mlp.balance])
    after = np.concatenate([moved.layers.mlp.balance, moved.mtp.layer.mlp.balance])
    for layer, e in np.ndindex(3, 8):
        mean = sum(load[layer].tolist()) / 8
        step = GAMMA if load[layer, e] < mean else -GAMMA if load[layer, e] > mean else 0
        np.testing.assert_allclose(after[layer, e], before[layer, e] + step, atol=1e-7)
    rest = [jax.tree.map(lambda x: x, p).replace(layers=None, mtp=None) for p in (params, moved)]
    jax.tree.map(np.testing.assert_array_equal, *rest)


@pytest.fixture(scope='module')
def whole():
    return gradients(rows=32, row_length=24)


def one_a_row():
    """Tokens and segments [B, T], every sequence in a row of its own, and positions."""
    seqs = sequences()
    T = max(len(s.tokens) for s in seqs)
    tokens, segments = np.zeros((2, len(seqs), T), np.int32)
    for b, s in enumerate(seqs):
        tokens[b, :len(s.tokens)], segments[b, :len(s.tokens)] = s.tokens, 1
    return tokens, segments, np.tile(np.arange(T, dtype=np.int32), (len(seqs), 1))


def test_the_balance_loss_is_the_papers_mean_over_sequences(monkeypatch, whole):
    """Written from arXiv 2412.19437, eq. 17-20."""
    layers = []
    real = experts.imbalance
    monkeypatch.setattr(experts, 'imbalance', lambda s, *more: layers.append(np.asarray(s, np.float64)) or real(s, *more))
    tokens, segments, positions = one_a_row()
    hidden = transformer.forward(start(), tokens, positions, segments, CFG).hidden_BTD
    predict_second(start(), hidden, np.roll(tokens, -1, axis=1), positions, segments, CFG)
    total = 0.0
    for layer, b in np.ndindex(3, len(tokens)):
        n = segments[b].sum()
        # In MTP's layer tokens weigh what they weigh elsewhere, and the last one, which none follows, is missing.
        T = n - 1 if layer == 2 else n
        scores = layers[layer][b, :T]
        chosen = [sorted(range(8), key=lambda e: -token[e])[:2] for token in scores]
        f = [8 / (2 * T) * sum(e in c for c in chosen) for e in range(8)]
        p = [sum(token[e] / sum(token) for token in scores) / T for e in range(8)]
        total += T / n * sum(x * y for x, y in zip(f, p, strict=True)) / len(tokens)
    np.testing.assert_allclose(whole[1]['balance_sum'], total, rtol=1e-5)


def test_its_gradient_flows_through_the_scores_and_not_through_the_counts(monkeypatch, whole):
    tokens, segments, positions = one_a_row()
    n_B = segments.sum(1)
    real = experts.imbalance

    @jax.jit
    @jax.grad
    def wanted(params):
        layers = []
        monkeypatch.setattr(experts, 'imbalance', lambda s, *more: layers.append(s) or real(s, *more))
        hidden = transformer.forward(params, tokens, positions, segments, CFG).hidden_BTD
        predict_second(params, hidden, np.roll(tokens, -1, axis=1), positions, segments, CFG)
        total = 0.0
        for layer, scores in enumerate(layers):
            T_B = n_B - (layer == 2)
            inside_BT1 = (np.arange(tokens.shape[1]) < T_B[:, None])[..., None]
            chosen = jax.nn.one_hot(jax.lax.top_k(scores, 2)[1], 8).sum(2)
            f_BE = jax.lax.stop_gradient((chosen * inside_BT1).sum(1) * 8 / (2 * T_B[:, None]))
            p_BE = (scores / scores.sum(-1, keepdims=True) * inside_BT1).sum(1) / T_B[:, None]
            total += ((f_BE * p_BE).sum(1) * T_B / n_B).mean()
        return total

    without, _ = gradients(rows=32, row_length=24, alpha=0.0)
    got = jax.tree.map(lambda a, b: (a - b) / ALPHA, whole[0], without)
    oracle = wanted(start())
    assert min(float(jnp.abs(x).max()) for x in (oracle.layers.mlp.router, oracle.mtp.layer.mlp.router)) > 1e-3
    assert_close(got, oracle, atol=2e-5)


def test_the_mtp_loss_is_that_of_each_sequence_by_itself(whole):
    """A token weighs in it what it weighs in the next-token loss (arXiv 2412.19437, eq. 24-25), also in packed rows."""
    seqs = sequences()
    tokens, segments, positions = one_a_row()
    n_tokens = sum(len(s.tokens) - s.prompt_length for s in seqs)
    # Token i of a completion is predicted from i - 1, and from i - 2 where there is such a token.
    places = [(b, i) for b, s in enumerate(seqs) for i in range(s.prompt_length, len(s.tokens))]
    b1, i1 = np.array(places).T
    b2, i2 = np.array([(b, i) for b, i in places if i >= 2]).T

    @jax.jit
    def loss(params):
        hidden = transformer.forward(params, tokens, positions, segments, CFG).hidden_BTD
        ahead = predict_second(params, hidden, np.roll(tokens, -1, axis=1), positions, segments, CFG).hidden_BTD
        logp, logp_ahead = (jax.nn.log_softmax(h @ transformer.head(params)) for h in (hidden, ahead))
        first, second = -logp[b1, i1 - 1, tokens[b1, i1]].sum(), -logp_ahead[b2, i2 - 2, tokens[b2, i2]].sum()
        return (first + LAMBDA * second) / n_tokens, (second, len(b2))

    (wanted, (second, count)), wanted_grads = jax.value_and_grad(loss, has_aux=True)(start())
    grads, sums = gradients(rows=4, row_length=40, alpha=0.0)
    np.testing.assert_allclose(sums['loss_sum'], wanted, rtol=1e-5)
    np.testing.assert_allclose(sums['mtp_nll_sum'], second, rtol=1e-5)
    assert sums['mtp_token_count'] == count
    assert float(jnp.abs(wanted_grads.mtp.join).max()) > 1e-3
    assert_close(grads, wanted_grads, atol=1e-6)


@pytest.mark.parametrize('rows, row_length', [(1, 24), (4, 24), (4, 64)])
def test_loads_losses_and_gradients_do_not_depend_on_how_a_minibatch_is_cut_and_packed(whole, rows, row_length):
    grads, sums = gradients(rows, row_length)
    np.testing.assert_array_equal(sums['load_LE'], whole[1]['load_LE'])
    n = sum(len(s.tokens) for s in sequences())
    assert sums['load_LE'].sum(-1).tolist() == [2 * n, 2 * n, 2 * (n - 20)]  # no padding, and of MTP no last token
    assert_close(sums, whole[1], atol=1e-5)
    assert_close(grads, whole[0], atol=2e-6)


def test_a_loop_over_layers_and_values_computed_again_give_the_same(whole):
    again = gradients(rows=32, row_length=24, cfg=dataclasses.replace(CFG, scan_layers=True, remat='full'))
    np.testing.assert_array_equal(again[1]['load_LE'], whole[1]['load_LE'])
    assert_close(again[1], whole[1], atol=1e-5)
    assert_close(again[0], whole[0], atol=2e-6)


def test_an_update_on_three_meshes_is_that_of_one_device():
    optimizer = OptimizerConfig(learning_rate=1e-3, weight_decay=0.1)
    found = []
    for mesh in (None, *MESHES):
        sharding = Sharding(make_mesh(mesh), TRAINING) if mesh else ONE
        grads, sums = gradients(sharding=sharding)
        state = init_state(start(), CFG, optimizer, sharding)
        state, _ = apply_gradients(
            state, grads, sums['load_LE'], optimizer=optimizer, cfg=CFG, sharding=sharding, bias_rate=GAMMA)
        found.append((sums, grads, state.params.layers.mlp.balance, state.params.mtp.layer.mlp.balance))
    assert float(jnp.abs(found[0][2] - start().layers.mlp.balance).max()) == pytest.approx(GAMMA, rel=1e-4)
    for other in found[1:]:
        for i in (2, 3):
            np.testing.assert_array_equal(found[0][i], other[i])
        np.testing.assert_array_equal(found[0][0]['load_LE'], other[0]['load_LE'])
        assert_close(found[0][0], other[0], atol=1e-4)
        assert_close(found[0][1], other[1], atol=1e-5)


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_nothing_but_gamma_moves_a_balance(name):
    """Neither weight decay nor what an optimizer remembers."""
    cfg = dataclasses.replace(CFG, n_layers=1, experts=dataclasses.replace(CFG.experts, dense_layers=0))
    optimizer = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, name=name)
    state, wanted = init_state(start(cfg), cfg, optimizer, ONE), np.asarray(start(cfg).layers.mlp.balance)
    wanted = np.concatenate([wanted, np.zeros((1, 8), np.float32)])
    for _ in range(3):
        grads, sums = gradients(cfg=cfg, params=state.params)
        load = np.asarray(sums['load_LE'])
        wanted = wanted + np.float32(GAMMA) * np.sign(load.mean(1, keepdims=True) - load).astype(np.float32)
        state, _ = apply_gradients(
            state, grads, sums['load_LE'], optimizer=optimizer, cfg=cfg, sharding=ONE, bias_rate=GAMMA)
    found = np.concatenate([state.params.layers.mlp.balance, state.params.mtp.layer.mlp.balance])
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    assert float(jnp.abs(state.params.layers.mlp.router - start(cfg).layers.mlp.router).max()) > 0.05


def test_skewed_routing_becomes_even_with_bias_updates_and_not_without():
    cfg = dataclasses.replace(CFG, mtp=0)
    params = transformer.init(jax.random.key(0), cfg)
    common = jax.random.normal(jax.random.key(2), (32,))
    router = params.layers.mlp.router.at[:, :, :2].add(0.02 * common[:, None])
    params = params.replace(
        embed_VD=params.embed_VD + 0.5 * common,
        layers=params.layers.replace(mlp=params.layers.mlp.replace(router=router)))
    optimizer = OptimizerConfig(learning_rate=1e-4)
    found = {}
    for rate in (0.0, 0.02):
        state = init_state(jax.tree.map(jnp.copy, params), cfg, optimizer, ONE)  # updates reuse its buffers
        figures = []
        for _ in range(40):
            grads, sums = accumulate(
                sft_gradients, state.params, batches(8, 48, cfg=cfg), cfg=cfg, sharding=ONE, balance_loss=0.0)
            state, _ = apply_gradients(
                state, grads, sums['load_LE'], optimizer=optimizer, cfg=cfg, sharding=ONE, bias_rate=rate)
            figures.append(balance_metrics(sums)['load_imbalance/max'])
        found[rate] = figures
    assert found[0.0][0] == found[0.02][0] > 2.5
    assert np.mean(found[0.0][-5:]) > 2.5
    assert np.mean(found[0.02][-5:]) < 1.7


def test_in_reinforcement_learning_the_balance_loss_is_added_and_told_apart():
    cfg = dataclasses.replace(CFG, mtp=0)
    params = start(cfg)

    def run(rows, alpha):
        return accumulate(
            grpo_gradients, params, batches(rows, 32, cfg=cfg), cfg=cfg, loss=GRPOLoss(), sharding=ONE, balance_loss=alpha)

    (grads, d), (cut, other), (without, same) = run(16, ALPHA), run(2, ALPHA), run(16, 0.0)
    assert_close(grads, cut, atol=2e-6)
    assert_close(d, other, atol=1e-4)
    assert float(d['loss_sum']) == float(same['loss_sum']) and float(d['balance_sum']) == float(same['balance_sum']) > 1
    assert float(jnp.abs(grads.layers.mlp.router - without.layers.mlp.router).max()) > 1e-5


def test_metrics_tell_the_worst_layer_and_the_mean_of_all():
    told = balance_metrics({'load_LE': jnp.array([[2, 2], [3, 1]]), 'balance_sum': jnp.float32(6)}, updates=3)
    assert told == {'balance_loss': 2, 'load_imbalance/mean': 1.25, 'load_imbalance/max': 1.5}
    assert balance_metrics({'loss_sum': jnp.float32(1)}) == {}


def test_settings_are_the_papers_for_a_model_that_has_what_they_are_for_and_refused_for_others():
    dense = dataclasses.replace(CFG, experts=None, mtp=0)
    assert balance.balance_of(None, CFG) == BalanceConfig(1e-3, 1e-4)
    assert balance.balance_of(None, dense) == BalanceConfig(0, 0)
    assert balance_shares(pack(sequences(), 32), dense) is None
    with pytest.raises(UserError, match='balance is set, and the model has no experts'):
        balance.balance_of(BalanceConfig(), dense)
    assert [balance.mtp_coefficient(given, CFG, 0.3) for given in (None, 0.0, 0.2)] == [0.3, 0, 0.2]
    assert [balance.mtp_coefficient(given, dense, 0.3) for given in (None, 0.0)] == [0, 0]
    with pytest.raises(UserError, match='mtp_loss=0.2, and the model has no MTP module'):
        balance.mtp_coefficient(0.2, dense, 0.3)
    for call, sentence in ((lambda: BalanceConfig(bias_rate=-1), 'bias_rate=-1 must be at least 0'),
                           (lambda: balance.mtp_coefficient(-0.1, CFG, 0.3), 'mtp_loss=-0.1 must be at least 0')):
        with pytest.raises(UserError, match=sentence):
            call()
