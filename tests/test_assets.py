"""The shipped base model is the one whose figures lie beside it, and small enough to ship."""

import json

import jax
import pytest

from experiments.tiny import suites
from r1jax.config import from_dict
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.runtime.checkpoint import ASSETS, load_model
from r1jax.stages import evaluate

FOLDER = ASSETS / 'tiny_base'


def test_the_shipped_model_is_small():
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 8e6


def test_the_shipped_weights_still_give_the_figures_beside_them():
    wanted = json.loads((FOLDER / 'evaluation.json').read_text())['check']
    sharding = Sharding(make_mesh(MeshConfig(data=2), jax.devices()[:2]), DECODING)
    evaluation = from_dict(evaluate.Evaluation, suites.check(), 'check')
    found = evaluate.evaluate(load_model('package:tiny_base', sharding), evaluation, sharding, 0, 'check')
    # The noise is the same, so on the same arithmetic the figures are equal; another CPU may flip a token here and there.
    for name in ('pass@1', 'last_answer', 'format'):
        assert found[f'{name}/T=1/all']['mean'] == pytest.approx(wanted[f'{name}/T=1/all']['mean'], abs=0.02), name
    assert found['length/T=1/all']['mean'] == pytest.approx(wanted['length/T=1/all']['mean'], rel=0.05)
