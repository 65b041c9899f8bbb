"""Operations counted in jaxprs against the arithmetic of the architecture."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from r1jax.learning import step
from r1jax.learning.grpo import GRPOLoss
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from r1jax.plan import flops
from tests.families import FAMILIES

B, T = 2, 16


def counted(function, cfg: ModelConfig, **static) -> float:
    sharding = Sharding(make_mesh(MeshConfig(data=1), jax.devices()[:1]), TRAINING)
    rows = {dtype: jax.ShapeDtypeStruct((B, T), dtype) for dtype in (jnp.int32, jnp.float32)}
    values = {name: rows[jnp.float32] for name in ('advantage', 'old_logp', 'ref_logp', 'sampler_logp')}
    batch = step.MicroBatch(*[rows[jnp.int32]] * 4, rows[jnp.float32], rows[jnp.float32], values)
    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), transformer.abstract(cfg))
    return flops.count(function, params, batch, cfg=cfg, sharding=sharding, **static)


def forward(cfg: ModelConfig) -> tuple[float, float, float, float]:
    """Operations of one forward pass: 2 an element of each matrix that a token meets, and the products of causal attention,
    half of which are masked. Of the layers, of the head, of the layers those of what comes last in a feed-forward, and those
    of experts that tokens are routed to.
    """
    shapes = jax.eval_shape(lambda: transformer.init(jax.random.key(0), cfg))
    met = last = experts = 0.0
    for stack in (shapes.layers, shapes.dense_layers):
        for path, leaf in jax.tree_util.tree_flatten_with_path(stack)[0]:
            name = jax.tree_util.keystr(path)
            if 'norm' in name or leaf.ndim < 3:
                continue
            routed = leaf.ndim == 4 and '.mlp.' in name
            share = leaf.size * (cfg.experts.per_token / cfg.experts.n if routed else 1)
            met, experts = met + share, experts + share * routed
            last += leaf.size if name.endswith('w_down') and not routed else 0
    width = cfg.head_dim + (cfg.latent.rope_dim if cfg.latent else 0) + (cfg.latent.v_dim if cfg.latent else cfg.head_dim)
    attention = cfg.n_layers * cfg.n_heads * width * T / 2
    of_head = cfg.d_model * cfg.vocab_size
    return tuple(2 * B * T * products for products in (met + attention, of_head, last, experts))


@pytest.mark.parametrize('family', ['llama', 'deepseek'])
def test_scoring_is_a_forward_pass(family):
    of_layers, of_head, *_ = forward(FAMILIES[family])
    assert counted(step.score, FAMILIES[family], temperature=1.0) == pytest.approx(of_layers + of_head, rel=1e-9)


@pytest.mark.parametrize('family', ['llama', 'deepseek'])
@pytest.mark.parametrize('remat', ['none', 'full'])
@pytest.mark.parametrize('scan', [False, True])
def test_gradients_are_three_passes_and_rematerialisation_adds_one(family, remat, scan):
    cfg = dataclasses.replace(FAMILIES[family], remat=remat, scan_layers=scan)
    of_layers, of_head, last, experts = forward(cfg)
    # The head's logits and the experts are computed once more in any case (of the latter the compiler leaves out the last
    # product, which the count does not know). What a layer returns is not needed again.
    wanted = 3 * of_layers + 4 * of_head + (of_layers - last if remat == 'full' else experts)
    assert counted(step.grpo_gradients, cfg, loss=GRPOLoss(kl_coef=0.001)) == pytest.approx(wanted, rel=1e-9)
