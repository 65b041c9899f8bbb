"""AdamW against torch's, Muon on stacked layers against one matrix at a time, schedules, and what decays."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from optax import contrib

from r1jax.errors import UserError
from r1jax.learning.optimizer import OptimizerConfig, decay_mask, make_optimizer, make_schedule
from r1jax.models import transformer
from r1jax.models.config import ModelConfig


@struct.dataclass
class Layers:
    attn_norm: jax.Array
    wq: jax.Array
    wo: jax.Array
    w_down: jax.Array
    bq: jax.Array | None = None


@struct.dataclass
class Params:
    embed_VD: jax.Array
    layers: Layers
    final_norm_D: jax.Array
    head_DV: jax.Array | None = None


def make_params(seed=0):
    shapes = Params(
        (11, 8), Layers((3, 8), (3, 8, 2, 4), (3, 2, 4, 8), (3, 12, 8), (3, 2, 4)), (8,), (8, 11)
    )
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def run(config, params, steps=6):
    optimizer, _ = make_optimizer(config)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step in range(steps):
        updates, state = update(make_params(step + 1), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adamw_is_torchs():
    torch = pytest.importorskip('torch')
    config = OptimizerConfig(
        3e-2, 'cosine', 2, total_steps=6, b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.3, clip_norm=2.0
    )
    params = make_params()
    flat, tree = jax.tree_util.tree_flatten_with_path(params)
    tensors = {jax.tree_util.keystr(path): torch.tensor(np.array(x), requires_grad=True) for path, x in flat}
    still = ('.embed_VD', '.layers.attn_norm', '.layers.bq', '.final_norm_D')
    groups = [
        {'params': [x for name, x in tensors.items() if name not in still], 'weight_decay': 0.3},
        {'params': [tensors[name] for name in still], 'weight_decay': 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-2, betas=(0.8, 0.9), eps=1e-6)
    for step in range(6):
        for tensor, gradient in zip(tensors.values(), jax.tree.leaves(make_params(step + 1)), strict=True):
            tensor.grad = torch.tensor(np.array(gradient))
        norm = torch.nn.utils.clip_grad_norm_(tensors.values(), 2.0)
        assert norm > 2.0
        for group in optimizer.param_groups:
            group['lr'] = float(make_schedule(config)(step))
        optimizer.step()
    got = run(config, params)
    assert jax.tree.structure(got) == tree
    for x, (name, tensor) in zip(jax.tree.leaves(got), tensors.items(), strict=True):
        np.testing.assert_allclose(x, tensor.detach().numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


def test_no_clipping_when_there_is_no_norm():
    params = make_params()
    without, high, low = (run(OptimizerConfig(1e-2, eps=1.0, clip_norm=c), params) for c in (None, 1e6, 1e-3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), without, high)
    far, near = (float(jnp.abs(x.head_DV - params.head_DV).max()) for x in (high, low))
    assert near < 1e-2 * far


def model(**changes):
    settings = dict(vocab_size=16, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=12)
    return jax.eval_shape(lambda: transformer.init(jax.random.key(0), ModelConfig(**settings, **changes)))


@pytest.mark.parametrize('changes', [{}, {'qkv_bias': True, 'tie_embeddings': True}])
def test_what_decays_in_the_model(changes):
    params = model(**changes)
    flat = jax.tree_util.tree_flatten_with_path(decay_mask(params))[0]
    decayed = {path[-1].name for path, yes in flat if yes}
    matrices = {'wq', 'wk', 'wv', 'wo', 'w_gate', 'w_up', 'w_down'}
    assert decayed == (matrices if changes else matrices | {'head_DV'})


def test_muon_takes_every_matrix_of_the_model():
    params = model(qkv_bias=True)
    state = jax.eval_shape(make_optimizer(OptimizerConfig(1e-2, name='muon', clip_norm=None))[0].init, params)
    momentum = state.inner_states['muon'].inner_state[0].mu
    taken = {path[-1].name for path, _ in jax.tree_util.tree_flatten_with_path(momentum)[0]}
    assert taken == {'wq', 'wk', 'wv', 'wo', 'w_gate', 'w_up', 'w_down'}


def test_muon_treats_stacked_layers_as_separate_matrices():
    """Each layer's [in, out] matrix moves as optax's Muon moves it alone; other leaves as under Adam."""
    config = OptimizerConfig(2e-2, 'linear', total_steps=6, weight_decay=0.1, clip_norm=None, name='muon')
    params = make_params()
    got = run(config, params)

    def alone(optimizer, select):
        selected = select(params)
        state = optimizer.init(selected)
        update = jax.jit(optimizer.update)
        for step in range(6):
            updates, state = update(select(make_params(step + 1)), state, selected)
            selected = optax.apply_updates(selected, updates)
        return selected

    def matrices(tree):
        names = (('wq', 8), ('wo', 8), ('w_down', 12))
        return [getattr(tree.layers, n)[layer].reshape(d, -1) for n, d in names for layer in range(3)]

    def others(tree):
        return (tree.embed_VD, tree.layers.attn_norm, tree.layers.bq, tree.final_norm_D, tree.head_DV)

    muon = contrib.muon(make_schedule(config), weight_decay=0.1, consistent_rms=0.2, eps=config.eps)
    adam = optax.nadamw(make_schedule(config), config.b1, config.b2, config.eps, weight_decay=0.0)
    for optimizer, select in ((muon, matrices), (adam, others)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            select(got),
            alone(optimizer, select),
        )
    assert float(jnp.abs(got.layers.wq - params.layers.wq).min(axis=(1, 2, 3)).min()) > 0


def test_muon_updates_are_nearly_orthogonal():
    optimizer, _ = make_optimizer(OptimizerConfig(1.0, name='muon', clip_norm=None))
    params = make_params()
    updates, _ = jax.jit(optimizer.update)(make_params(1), optimizer.init(params), params)
    for layer in range(3):
        singular = np.linalg.svd(updates.layers.wq[layer].reshape(8, 8), compute_uv=False)
        np.testing.assert_array_less(singular / (0.2 * math.sqrt(8)), 1.3)
        np.testing.assert_array_less(0.3, singular / (0.2 * math.sqrt(8)))


def rates(steps, *args, **kwargs):
    schedule = make_schedule(OptimizerConfig(*args, **kwargs))
    return np.array([schedule(step) for step in range(steps)])


def test_constant_schedule_with_warm_up():
    np.testing.assert_allclose(rates(6, 2.0, warmup_steps=4), [0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(rates(3, 2.0), 2.0)


def test_linear_schedule_ends_at_its_end():
    got = rates(8, 1.0, 'linear', warmup_steps=2, total_steps=7, end_ratio=0.2)
    np.testing.assert_allclose(got, [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2], rtol=1e-6)


def test_cosine_schedule_is_r1s_sft():
    """5e-5 -> 5e-6 (arXiv 2501.12948): half-way the mean of both, flat at either end, falling throughout."""
    got = rates(101, 5e-5, 'cosine', total_steps=101, end_ratio=0.1)
    np.testing.assert_allclose(got[[0, 50, 100]], [5e-5, 2.75e-5, 5e-6], rtol=1e-5)
    np.testing.assert_allclose(got[25], 5e-6 + 4.5e-5 * 0.5 * (1 + math.cos(math.pi / 4)), rtol=1e-5)
    assert (np.diff(got) < 0).all()
    assert float(make_schedule(OptimizerConfig(5e-5, 'cosine', total_steps=101))(500)) == pytest.approx(5e-6)


def test_first_update_moves():
    """A warm-up from exactly 0 would waste the first batch."""
    params = make_params()
    moved = run(OptimizerConfig(1e-2, warmup_steps=10), params, steps=1)
    np.testing.assert_allclose(jnp.abs(moved.head_DV - params.head_DV), 1e-3, rtol=1e-2)


@pytest.mark.parametrize(
    'setting, message',
    [
        ({'schedule': 'cosin', 'total_steps': 9}, "did you mean 'cosine'"),
        ({'name': 'adam'}, "did you mean 'adamw'"),
        ({'learning_rate': -1.0}, 'learning_rate must be 0 or more'),
        ({'weight_decay': -1.0}, 'weight_decay must be 0 or more'),
        ({'clip_norm': 0.0}, 'clip_norm must be positive'),
        ({'schedule': 'linear', 'total_steps': 5, 'warmup_steps': 5}, 'got 5 and 5'),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**{'learning_rate': 1e-3, **setting})


def test_a_schedule_without_an_end_takes_the_updates_of_the_stage():
    config = OptimizerConfig(1e-3, 'cosine', warmup_steps=2)
    assert config.over(10).total_steps == 10 and config.over(10).over(20).total_steps == 10
    with pytest.raises(UserError, match='needs total_steps greater than warmup_steps, got 2 and 2'):
        config.over(2)
    with pytest.raises(ValueError, match='call OptimizerConfig.over first'):
        make_schedule(config)
