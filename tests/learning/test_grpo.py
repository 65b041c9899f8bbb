"""Advantages, KL estimators and every policy loss against slow loops written from the papers' equations."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r1jax.errors import UserError
from r1jax.learning import grpo, packing
from r1jax.learning.grpo import GRPOLoss
from r1jax.learning.packing import TokenSequence

VARIANTS = {
    'grpo': GRPOLoss(kl_coef=0.04),
    'r1': GRPOLoss(clip_low=10.0, clip_high=10.0, kl_coef=0.001),
    'dapo': GRPOLoss(clip_low=0.2, clip_high=0.28),
    'k2': GRPOLoss(kl_coef=0.1, kl_estimator='k2'),
    'kl in reward': GRPOLoss(kl_coef=0.1, kl_estimator='k1', kl_in='reward'),
    'dual clip': GRPOLoss(dual_clip=1.5),
    'gspo': GRPOLoss(ratio='gspo', clip_low=0.03, clip_high=0.04),
    'gspo dual clip': GRPOLoss(ratio='gspo', clip_low=0.03, clip_high=0.04, dual_clip=1.05, kl_coef=0.1),
    'cispo': GRPOLoss(ratio='cispo', clip_low=1.0, clip_high=0.3, kl_coef=0.1),
    'entropy': GRPOLoss(entropy_coef=0.01),
    'importance cap': GRPOLoss(importance_cap=1.1, kl_coef=0.1),
    'everything': GRPOLoss(
        0.1, 0.3, 1.6, kl_coef=0.05, entropy_coef=0.02, importance_cap=1.05, temperature=0.7
    ),
}


@pytest.fixture(scope='module')
def batch():
    """Twelve sequences in packed rows: log-probs near each other, ratios clipped on either side."""
    rng = np.random.default_rng(0)
    sequences = []
    for i in range(12):
        prompt, completion = int(rng.integers(1, 4)), int(rng.integers(1, 9))
        old = -2.0 * rng.random(completion)
        arrays = {
            'old': old,
            'logp': old + 0.4 * rng.normal(size=completion),
            'ref': old + 0.4 * rng.normal(size=completion),
            'sampler': old + 0.2 * rng.normal(size=completion),
            'entropy': rng.random(completion),
        }
        tokens = rng.integers(1, 20, prompt + completion)
        advantage = {'advantage': float(rng.normal())}
        sequences.append(TokenSequence(tokens, prompt, arrays, advantage, masked=i == 7))
    packed = packing.pack(sequences, 16)
    assert len(packed.tokens) < len(sequences)
    return sequences, packed


def arguments(packed, config):
    """The arrays of grpo_loss from a packed batch: (positional, keywords)."""
    v = packed.values
    positional = [jnp.asarray(x) for x in (v['logp'], v['old'], v['ref'], v['advantage'], packed.mask)]
    keywords = {'entropy_BT': v['entropy'], 'sampler_logp_BT': v['sampler'], 'segments_BT': packed.segments}
    return positional, {name: jnp.asarray(x) for name, x in keywords.items()}


def slow_loss(sequence, config):
    """-J of each token of one sequence, one number at a time."""
    p, A = sequence.per_token, sequence.per_sequence['advantage']
    length = len(p['logp'])
    losses = []
    for t in range(length):
        ratio = math.exp(p['logp'][t] - p['old'][t])
        if config.ratio == 'gspo':
            ratio = math.exp(sum(p['logp'][u] - p['old'][u] for u in range(length)) / length)
        clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
        if config.ratio == 'cispo':
            objective = clipped * A * p['logp'][t]
        else:
            objective = min(ratio * A, clipped * A)
            if config.dual_clip is not None and A < 0:
                objective = max(objective, config.dual_clip * A)
        if config.importance_cap is not None:
            objective *= min(math.exp(p['old'][t] - p['sampler'][t]), config.importance_cap)
        loss = -objective - config.entropy_coef * p['entropy'][t]
        if config.kl_in == 'loss':
            d = p['ref'][t] - p['logp'][t]
            loss += config.kl_coef * {'k2': d * d / 2, 'k3': math.exp(d) - d - 1}[config.kl_estimator]
        losses.append(loss)
    return losses


@pytest.mark.parametrize('name', VARIANTS)
def test_loss_is_its_equation(name, batch):
    sequences, packed = batch
    config = VARIANTS[name]
    positional, keywords = arguments(packed, config)
    loss, _ = jax.jit(lambda *xs, **kw: grpo.grpo_loss(*xs, config, **kw))(*positional, **keywords)
    assert loss.shape == packed.tokens.shape and loss.dtype == jnp.float32
    for values, sequence in zip(packing.unpack(loss, packed, sequences), sequences, strict=True):
        expected = np.zeros(len(values)) if sequence.masked else slow_loss(sequence, config)
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=1e-6)
    assert not np.asarray(loss)[packed.mask == 0].any()


def torch_objective(torch, sequences, config, logps, entropies):
    """The minibatch's loss, 'sequence' weights; GSPO by its sequence-level equation, not its token form."""
    total, n = 0.0, sum(not s.masked for s in sequences)
    for s, logp, entropy in zip(sequences, logps, entropies, strict=True):
        if s.masked:
            continue
        old, ref, sampler = (torch.tensor(s.per_token[k]) for k in ('old', 'ref', 'sampler'))
        A = s.per_sequence['advantage']
        ratio = (logp - old).exp()
        if config.ratio == 'gspo':
            ratio = (logp - old).mean().exp()
        clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        if config.ratio == 'cispo':
            objective = clipped.detach() * A * logp
        else:
            objective = torch.minimum(ratio * A, clipped * A)
            if config.dual_clip is not None and A < 0:
                objective = objective.clamp(min=config.dual_clip * A)
        if config.importance_cap is not None:
            objective = objective * (old - sampler).exp().clamp(max=config.importance_cap)
        loss = -objective.mean() - config.entropy_coef * entropy.mean()
        if config.kl_in == 'loss':
            d = ref - logp
            kl = d.square() / 2 if config.kl_estimator == 'k2' else d.exp() - d - 1
            loss = loss + config.kl_coef * kl.mean()
        total = total + loss / n
    return total


@pytest.mark.parametrize('name', VARIANTS)
def test_gradient_is_torch_autograds(name, batch):
    torch = pytest.importorskip('torch')
    sequences, packed = batch
    config = VARIANTS[name]
    positional, keywords = arguments(packed, config)
    weights = packing.loss_weights(packed.mask, packed.sequence, 'sequence')

    def total(logp, entropy):
        loss, _ = grpo.grpo_loss(logp, *positional[1:], config, **{**keywords, 'entropy_BT': entropy})
        return jnp.sum(weights * loss)

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(positional[0], keywords['entropy_BT'])
    names = ('logp', 'entropy')
    leaves = [[torch.tensor(s.per_token[k], requires_grad=True) for s in sequences] for k in names]
    expected = torch_objective(torch, sequences, config, *leaves)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    for gradient, tensors in zip(gradients, leaves, strict=True):
        for got, tensor in zip(packing.unpack(gradient, packed, sequences), tensors, strict=True):
            wanted = np.zeros(len(got)) if tensor.grad is None else tensor.grad.numpy()
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-7)
        assert not np.asarray(gradient)[packed.mask == 0].any()


@pytest.mark.parametrize('name', ['grpo', 'dual clip', 'gspo', 'cispo'])
def test_data_clips_some_tokens_and_not_others(name, batch):
    """The comparisons above are worth something only if the batch reaches both sides of every clip."""
    _, packed = batch
    config = VARIANTS[name]
    positional, keywords = arguments(packed, config)
    _, d = grpo.grpo_loss(*positional, config, **keywords)
    assert 0 < d['clip_high_sum'] < d['token_count']
    if name != 'cispo':
        assert 0 < d['clip_low_sum'] < d['token_count']
    if config.dual_clip:
        unbounded, _ = grpo.grpo_loss(*positional, dataclasses.replace(config, dual_clip=None), **keywords)
        bounded, _ = grpo.grpo_loss(*positional, config, **keywords)
        assert (unbounded > bounded).any()


def test_one_sequence_per_row_needs_no_segments():
    config = VARIANTS['gspo']
    rng = np.random.default_rng(1)
    logp, old = -rng.random((3, 5)), -rng.random((3, 5))
    advantages = np.broadcast_to(rng.normal(size=(3, 1)), (3, 5))
    mask = np.array([[0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0]], np.float32)
    loss, d = grpo.grpo_loss(jnp.asarray(logp), jnp.asarray(old), None, jnp.asarray(advantages), mask, config)
    for row in range(3):
        kept = mask[row] > 0
        s = math.exp((logp - old)[row][kept].mean())
        A = advantages[row, 0]
        expected = -min(s * A, min(max(s, 0.97), 1.04) * A)
        np.testing.assert_allclose(loss[row], np.where(kept, expected, 0.0), rtol=1e-5)
    assert float(d['kl_sum']) == 0.0


@pytest.mark.parametrize('name', VARIANTS)
def test_step_zero_invariants(name, batch):
    """With the policy that sampled, its own reference: every ratio is 1 and the KL is 0, to the last bit."""
    _, packed = batch
    config = VARIANTS[name]
    positional, keywords = arguments(packed, config)
    logp = positional[1]
    keywords['sampler_logp_BT'] = logp

    config = dataclasses.replace(config, entropy_coef=0.0)

    def total(x):
        loss, d = grpo.grpo_loss(x, logp, logp, *positional[3:], config, **keywords)
        return loss.sum(), (loss, d)

    gradient, (loss, d) = jax.grad(total, has_aux=True)(logp)
    assert float(d['ratio_sum']) == float(d['token_count']) == packed.mask.sum()
    assert float(d['ratio_max']) == 1.0
    for key in ('kl_sum', 'clip_low_sum', 'clip_high_sum', 'logp_diff_sum', 'logp_diff_max'):
        assert float(d[key]) == 0.0, key
    # The first step is plain policy gradient: d loss / d logp = -A, whatever the variant.
    np.testing.assert_allclose(gradient, -positional[3] * packed.mask, rtol=1e-6)
    if config.ratio != 'cispo':
        np.testing.assert_array_equal(loss, -positional[3] * packed.mask)


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('garbage', [np.nan, -np.inf])
def test_masked_positions_do_not_exist(name, garbage, batch):
    _, packed = batch
    config = VARIANTS[name]
    positional, keywords = arguments(packed, config)
    weights = packing.loss_weights(packed.mask, packed.sequence, 'sequence')

    def run(positional, keywords):
        def total(logp, entropy):
            loss, d = grpo.grpo_loss(logp, *positional[1:], config, **{**keywords, 'entropy_BT': entropy})
            return jnp.sum(loss * weights), (loss, d)

        return jax.grad(total, argnums=(0, 1), has_aux=True)(positional[0], keywords['entropy_BT'])

    def spoil(x):
        return jnp.where(packed.mask > 0, x, garbage)

    clean = run(positional, keywords)
    spoiled_keywords = {k: x if k == 'segments_BT' else spoil(x) for k, x in keywords.items()}
    spoiled = run([*map(spoil, positional[:4]), positional[4]], spoiled_keywords)
    jax.tree.map(np.testing.assert_array_equal, spoiled, clean)
    for array in jax.tree.leaves(spoiled):
        assert np.isfinite(array).all()
    for array in (*spoiled[0], spoiled[1][0]):
        assert not np.asarray(array)[packed.mask == 0].any()


def test_a_batch_of_padding_alone_is_zero():
    zeros = jnp.zeros((2, 3))
    loss, d = grpo.grpo_loss(zeros, zeros, zeros, zeros, zeros, GRPOLoss(), entropy_BT=zeros)
    assert not loss.any() and all(float(x) == 0 for x in d.values())
    assert all(math.isfinite(x) for x in grpo.mean_diagnostics(d).values())


@pytest.mark.parametrize('name', VARIANTS)
def test_far_away_policies_stay_finite(name):
    """exp(200) overflows; a clipped token must then have gradient 0, not inf * 0."""
    config = VARIANTS[name]
    far, near = jnp.array([[-200.0, -0.1, -0.1]]), jnp.array([[-0.1, -200.0, -0.1]])
    mask = jnp.ones((1, 3))
    for advantage in (-1.0, 1.0):

        def total(logp):
            loss, d = grpo.grpo_loss(
                logp, near, near, advantage * mask, mask, config, entropy_BT=mask, sampler_logp_BT=near
            )
            return loss.sum(), d

        (value, d), gradient = jax.value_and_grad(total, has_aux=True)(far)
        for x in (value, gradient, *d.values()):
            assert np.isfinite(x).all()


@pytest.mark.parametrize('name', ['everything', 'gspo'])
def test_diagnostics(name, batch):
    sequences, packed = batch
    config = VARIANTS[name]
    positional, keywords = arguments(packed, config)
    _, d = grpo.grpo_loss(*positional, config, **keywords)
    kept = [s for s in sequences if not s.masked]

    def every(name):
        return np.concatenate([s.per_token[name] for s in kept])

    log_ratio = every('logp') - every('old')
    if name == 'gspo':
        each = [s.per_token['logp'] - s.per_token['old'] for s in kept]
        log_ratio = np.concatenate([np.full_like(x, x.mean()) for x in each])
    ratio = np.exp(log_ratio)
    advantage = np.concatenate([np.full(len(s.per_token['old']), s.per_sequence['advantage']) for s in kept])
    difference = every('ref') - every('logp')
    expected = {
        'token_count': len(ratio),
        'ratio_sum': ratio.sum(),
        'ratio_max': ratio.max(),
        'clip_low_sum': ((ratio < 1 - config.clip_low) & (advantage < 0)).sum(),
        'clip_high_sum': ((ratio > 1 + config.clip_high) & (advantage > 0)).sum(),
        'kl_sum': (np.exp(difference) - difference - 1).sum(),
        'entropy_sum': every('entropy').sum(),
        'logp_diff_sum': np.abs(every('old') - every('sampler')).sum(),
        'logp_diff_max': np.abs(every('old') - every('sampler')).max(),
    }
    assert d.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(d[key], value, rtol=1e-5, err_msg=key)

    metrics = grpo.mean_diagnostics(d)
    means = {
        'ratio/mean': 'ratio_sum', 'clip/low': 'clip_low_sum', 'clip/high': 'clip_high_sum', 'kl_ref': 'kl_sum',
        'entropy': 'entropy_sum', 'logp_diff/mean': 'logp_diff_sum'}
    maxima = {'ratio/max': 'ratio_max', 'logp_diff/max': 'logp_diff_max'}
    assert metrics.keys() == means.keys() | maxima.keys()
    for key, of in means.items():
        np.testing.assert_allclose(metrics[key], expected[of] / len(ratio), rtol=1e-5, err_msg=key)
    for key, of in maxima.items():
        np.testing.assert_allclose(metrics[key], expected[of], rtol=1e-5, err_msg=key)


def test_diagnostics_of_micro_batches_add_up(batch):
    _, packed = batch
    config = VARIANTS['everything']

    def diagnostics(rows):
        positional, keywords = arguments(jax.tree.map(lambda x: x[rows], packed), config)
        return grpo.grpo_loss(*positional, config, **keywords)[1]

    whole = diagnostics(slice(None))
    parts = [diagnostics(slice(row, row + 1)) for row in range(len(packed.tokens))]
    merged = parts[0]
    for part in parts[1:]:
        merged = grpo.merge_diagnostics(merged, part)
    assert merged.keys() == whole.keys()
    for key in whole:
        np.testing.assert_allclose(merged[key], whole[key], rtol=1e-6, err_msg=key)
    assert merged['ratio_max'] > 1


def test_missing_arrays_are_named():
    x = jnp.zeros((1, 2))
    for config, name in (
        (GRPOLoss(kl_coef=0.1), 'ref_logp_BT'),
        (GRPOLoss(entropy_coef=0.1), 'entropy_BT'),
        (GRPOLoss(importance_cap=2.0), 'sampler_logp_BT'),
    ):
        with pytest.raises(ValueError, match=name):
            grpo.grpo_loss(x, x, None, x, x, config)


@pytest.mark.parametrize(
    'setting, message',
    [
        ({'kl_estimator': 'k1'}, 'expected gradient of .* is zero'),
        ({'kl_estimator': 'k1', 'kl_coef': 0.1}, "take 'k3' or 'k2', or kl_in='reward'"),
        ({'ratio': 'gpso'}, "did you mean 'gspo'"),
        ({'kl_estimator': 'k4'}, "kl_estimator cannot be 'k4'"),
        ({'kl_in': 'lose'}, "did you mean 'loss'"),
        ({'clip_low': -0.1}, 'clip_low must be 0 or more'),
        ({'clip_high': float('nan')}, 'clip_high must be 0 or more'),
        ({'entropy_coef': -1.0}, 'entropy_coef must be 0 or more'),
        ({'dual_clip': 1.0}, 'dual_clip must be greater than 1'),
        ({'dual_clip': 3.0, 'ratio': 'cispo'}, "no meaning with ratio='cispo'"),
        ({'importance_cap': 0.0}, 'importance_cap must be positive'),
        ({'temperature': 0.0}, 'temperature must be positive'),
    ],
)
def test_contradictions_are_refused_with_a_reason(setting, message):
    with pytest.raises(UserError, match=message):
        GRPOLoss(**setting)


def test_config_is_static_under_jit():
    assert hash(GRPOLoss()) == hash(GRPOLoss())
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRPOLoss().clip_low = 1.0


def test_why_k1_is_refused():
    """On policy, over all outcomes: k1's expected gradient is 0, k2's is that of the KL, k3's is not 0."""
    theta, ref = jax.random.normal(jax.random.key(0), (2, 6))
    p = jax.nn.softmax(theta)

    def expected_gradient(estimator):
        def penalty(theta):
            each = grpo.kl_penalty(jax.nn.log_softmax(theta), jax.nn.log_softmax(ref), estimator)
            return jnp.sum(p * each)  # p is a constant: the samples were drawn before

        return jax.grad(penalty)(theta)

    def divergence(theta):
        return jnp.sum(jax.nn.softmax(theta) * (jax.nn.log_softmax(theta) - jax.nn.log_softmax(ref)))

    true = jax.grad(divergence)(theta)
    assert float(jnp.abs(true).max()) > 0.05
    np.testing.assert_allclose(expected_gradient('k1'), 0.0, atol=1e-6)
    np.testing.assert_allclose(expected_gradient('k2'), true, rtol=1e-4, atol=1e-6)
    assert float(jnp.dot(expected_gradient('k3'), true)) > 0.5 * float(jnp.dot(true, true))


def test_kl_estimators_are_unbiased_and_zero_on_the_reference():
    """k1 and k3 have the KL as their expectation; k3 is never negative, also where d is close to 0."""
    logp, ref = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (2, 50)))
    kl = jnp.sum(jnp.exp(logp) * (logp - ref))
    for estimator in ('k1', 'k3'):
        expected = jnp.sum(jnp.exp(logp) * grpo.kl_penalty(logp, ref, estimator))
        np.testing.assert_allclose(expected, kl, rtol=1e-4)
    small = jnp.array([-1e-3, -1e-4, -1e-5, 0.0, 1e-5, 1e-4, 1e-3])
    got = grpo.kl_penalty(jnp.zeros(7), small, 'k3')
    assert (got >= 0).all()
    np.testing.assert_allclose(got, np.square(small) / 2, rtol=1e-2, atol=1e-11)
    for estimator in grpo.KL_ESTIMATORS:
        assert not grpo.kl_penalty(logp, logp, estimator).any()
    with pytest.raises(ValueError, match='k4'):
        grpo.kl_penalty(logp, ref, 'k4')


@pytest.mark.parametrize(
    'estimator, kl', [('k1', lambda d: -d), ('k2', lambda d: d * d / 2), ('k3', lambda d: math.exp(d) - d - 1)])
def test_kl_shaped_rewards(estimator, kl):
    logp, ref = [np.array([-1.0, -2.0]), np.array([-3.0])], [np.array([-1.5, -1.8]), np.array([-3.0])]
    got = grpo.kl_shaped_rewards(np.array([1.0, 0.25]), logp, ref, 0.5, estimator)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, [1.0 - 0.5 * (kl(-0.5) + kl(0.2)), 0.25], rtol=1e-6)


@pytest.mark.parametrize('normalize_std', [True, False])
def test_advantages_are_the_equation(normalize_std):
    rewards = np.random.default_rng(0).normal(size=24)
    got = grpo.group_advantages(rewards, 8, normalize_std=normalize_std)
    assert got.shape == (24,) and got.dtype == np.float32
    for group in range(3):
        r = rewards[8 * group : 8 * group + 8]
        mean = sum(r) / 8
        std = math.sqrt(sum((x - mean) ** 2 for x in r) / 8) if normalize_std else 1.0
        np.testing.assert_allclose(got[8 * group : 8 * group + 8], (r - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('group', [2, 4, 16, 64])
def test_advantages_have_unit_mean_square_whatever_the_group_size(group):
    rewards = np.arange(group) < group // 2
    got = grpo.group_advantages(rewards.astype(np.float32), group)
    np.testing.assert_allclose(np.square(got).mean(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(got.sum(), 0.0, atol=1e-4)


NOISY = [0.1 + 0.2, 0.3, 0.1 + 0.1 + 0.1, np.float32(0.1) + np.float32(0.2)]


@pytest.mark.parametrize('normalize_std', [True, False])
@pytest.mark.parametrize(
    'constant', [[1.0] * 4, [0.0] * 4, NOISY, [1000.0 * x for x in NOISY], [-x for x in NOISY]], ids=str
)
def test_constant_groups_have_no_advantage(constant, normalize_std):
    """Also where a constant reward is a sum of floats that comes out differently in its last bit."""
    rewards = np.array([*constant, 0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(grpo.zero_variance_groups(rewards, 4), [True, False])
    got = grpo.group_advantages(rewards, 4, normalize_std=normalize_std)
    assert not got[:4].any() and got[4:].all()


def test_small_but_real_differences_count():
    rewards = np.array([0.5, 0.5001, 0.5, 0.5])
    assert not grpo.zero_variance_groups(rewards, 4).any()
    np.testing.assert_allclose(grpo.group_advantages(rewards, 4)[1], math.sqrt(3), rtol=0.05)


def test_advantages_refuse_what_is_no_group():
    with pytest.raises(ValueError, match='groups of 4'):
        grpo.group_advantages(np.zeros(6), 4)
    with pytest.raises(ValueError, match='finite'):
        grpo.zero_variance_groups(np.array([0.0, np.nan]), 2)
    assert grpo.group_advantages(np.array([3.0, 4.0]), 1).tolist() == [0.0, 0.0]
