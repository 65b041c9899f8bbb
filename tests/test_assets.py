"""The shipped models are those whose figures lie beside them, and small enough to ship."""

import json

import jax
import pytest

from experiments.tiny import suites
from r1jax.config import from_dict
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.runtime.checkpoint import ASSETS, load_model
from r1jax.stages import evaluate

SHIPPED = ('tiny_base', 'tiny_student')


@pytest.mark.parametrize('name', SHIPPED)
def test_the_shipped_model_is_small(name):
    assert sum(p.stat().st_size for p in (ASSETS / name).iterdir()) < 8e6


def test_the_student_is_smaller_of_another_family_and_reads_other_tokens():
    sharding = Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), DECODING)
    base, student = [load_model(f'package:{name}', sharding) for name in SHIPPED]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(model.params)) for model in (base, student)]
    assert sizes[1] < sizes[0] / 2
    assert student.cfg.qkv_bias and not base.cfg.qkv_bias
    assert len(student.tokenizer.encode('what is 37+58-14?')) > len(base.tokenizer.encode('what is 37+58-14?'))


@pytest.mark.parametrize('name', SHIPPED)
def test_the_shipped_weights_still_give_the_figures_beside_them(name):
    wanted = json.loads((ASSETS / name / 'evaluation.json').read_text())['check']
    sharding = Sharding(make_mesh(MeshConfig(data=2), jax.devices()[:2]), DECODING)
    evaluation = from_dict(evaluate.Evaluation, suites.check(), 'check')
    found = evaluate.evaluate(load_model(f'package:{name}', sharding), evaluation, sharding, 0, 'check')
    # The noise is the same, so on the same arithmetic the figures are equal; another CPU may flip a token here and there.
    for figure in ('pass@1', 'last_answer', 'format'):
        assert found[f'{figure}/T=1/all']['mean'] == pytest.approx(wanted[f'{figure}/T=1/all']['mean'], abs=0.02), figure
    assert found['length/T=1/all']['mean'] == pytest.approx(wanted['length/T=1/all']['mean'], rel=0.05)
