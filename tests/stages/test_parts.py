"""Who asks the judge of what becomes a part, and how large a part is."""

import jax
import pytest

from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.rewards.chat import JudgeConfig
from r1jax.stages import parts


@pytest.fixture(scope='module')
def sharding():
    return Sharding(make_mesh(MeshConfig(), jax.devices()[:1]), DECODING)


def test_an_endpoint_is_asked_by_the_leader_alone_and_a_checkpoint_by_all(sharding, monkeypatch):
    opened = []
    monkeypatch.setattr(
        parts, 'open_chat', lambda config, sharding: opened.append(config.model) or (lambda prompts: prompts))
    endpoint = JudgeConfig('http://127.0.0.1:9/v1', name='judge')
    checkpoint = JudgeConfig('package:tiny_base')
    assert parts.open_judge(endpoint, sharding)(['a', 'b']) == ['a', 'b']
    monkeypatch.setattr(parts, 'is_leader', lambda: False)
    assert parts.open_judge(endpoint, sharding)(['a', 'b']) == ['', '']
    assert parts.open_judge(checkpoint, sharding)(['a', 'b']) == ['a', 'b']
    assert opened == [endpoint.model, checkpoint.model]


@pytest.mark.parametrize('slots, samples, questions', [(128, 4, 512), (128, 1, 2048), (8, 1000, 1)])
def test_a_part_keeps_the_slots_full(slots, samples, questions):
    assert parts.portion(slots, samples) == questions
