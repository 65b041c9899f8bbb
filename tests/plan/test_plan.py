"""Plans with the TPU's own compiler, which needs no TPU: of small models in full, and of the loss at full size."""

import dataclasses
import importlib.util
import io
import json

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

pytest.importorskip('libtpu', reason='the TPU compiler is not installed')

from r1jax.__main__ import main  # noqa: E402
from r1jax.config import load_experiment  # noqa: E402
from r1jax.errors import UserError  # noqa: E402
from r1jax.learning.likelihood import token_logprobs  # noqa: E402
from r1jax.models.presets import preset  # noqa: E402
from r1jax.models.transformer import n_params  # noqa: E402
from r1jax.parallel.rules import TRAINING, Sharding  # noqa: E402
from r1jax.plan import costs, plan, report, subject  # noqa: E402
from r1jax.plan.chips import chip  # noqa: E402
from r1jax.plan.programs import programs  # noqa: E402

ZERO = 'experiments/tiny/r1_zero.py'
DISTILL = 'experiments/distill.py'
SMALL = [
    ('plan.topology', 'v5e:2x2'), ('mesh.data', '1'), ('mesh.fsdp', '2'), ('mesh.tensor', '2'),
    ('stages.r1_zero.row_length', '256'), ('stages.r1_zero.micro_rows', '2')]


def of_tiny(*overrides, model: str | None = None):
    return subject(load_experiment(ZERO, [*SMALL, *overrides]), None, None, model)


@pytest.fixture(scope='module')
def tiny():
    """The tiny run on four chips, and the programs planned for it."""
    what = of_tiny()
    return what, list(plan(what))


def test_a_plan_has_the_programs_of_the_stage_and_what_lies_in_memory_meanwhile(tiny):
    what, planned = tiny
    assert [program.name for program in planned] == ['gradients', 'update', 'scoring', 'decode']
    gradients, _, _, decode = planned
    # Float32, over fsdp x tensor = 4 devices but for norms; gradients of a sum, a micro-batch and the one before.
    assert gradients.memory['weights'] == pytest.approx(4 * n_params(what.cfg) / 4, rel=0.01)
    assert gradients.memory['gradients'] == 3 * gradients.memory['weights']
    # Keys and values of 4 layers, half of the slots (fsdp) and one of two heads (tensor) on a device; heads as wide as a
    # TPU's registers, and room for one chunk more than a row holds.
    assert decode.memory['cache'] == 2 * 4 * (what.settings.sampling.slots // 2) * 320 * 128 * 4
    assert all(program.fits and program.bound in ('compute', 'memory', 'interconnect') for program in planned)
    # Its temporaries fit into the memory on the chip; the program itself does not.
    assert gradients.memory['program'] > 0


# Shapes at which nothing fits into the memory on the chip, where few layers would stay and many not.
LARGE = {
    'llama3.1-8b': {'n_layers': 8},
    'deepseek-v3': {'n_layers': 9, 'mtp': 0, 'experts': dataclasses.replace(preset('deepseek-v3').experts, n=32)}}


@pytest.mark.parametrize('model', ['llama3.1-8b', pytest.param('deepseek-v3', marks=pytest.mark.slow)])
def test_layers_that_are_added_by_a_rule_cost_what_they_cost(monkeypatch, model):
    what = of_tiny(
        ('plan.topology', 'v5p:2x2x1'), ('mesh.tensor', '1'), ('mesh.expert', '2'), ('dtype', 'bfloat16'),
        ('stages.r1_zero.micro_rows', '4'), ('stages.r1_zero.row_length', '4096'), model=model)
    cfg = dataclasses.replace(what.cfg, **LARGE[model])
    (make,) = (make for make in programs(what.settings, cfg, what.mesh) if make(cfg).name == 'decode')
    assert make(cfg).by_layers
    by_rule, _ = costs.measure(make, cfg, what.mesh, chip(what.topology))
    monkeypatch.setattr(costs, 'MORE', cfg.n_layers)
    whole, _ = costs.measure(make, cfg, what.mesh, chip(what.topology))
    assert by_rule.flops == pytest.approx(whole.flops, rel=1e-9)
    assert by_rule.hbm_bytes == pytest.approx(whole.hbm_bytes, rel=0.03)
    assert by_rule.temporary == pytest.approx(whole.temporary, rel=0.1, abs=2**26)
    assert by_rule.seconds_of_collectives == pytest.approx(whole.seconds_of_collectives, rel=0.03)


def test_what_does_not_fit_is_told_with_what_helps(tmp_path, capsys):
    flags = [f'--config={DISTILL}:student=qwen_1_5b', '--topology=v5e:2x2', '--config.mesh.data=4', '--config.mesh.fsdp=1',
             '--config.stages.distill.micro_rows=8', '--config.stages.distill.row_length=8192', '--config.remat=dots',
             f'--out={tmp_path / "plan.json"}']
    with pytest.raises(SystemExit) as ended:
        main(['plan', *flags])
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert 'gradients does not fit' in told and 'more fsdp (now 1) and less data (now 4)' in told
    assert "remat='full'" in told and 'micro_rows=4 instead of 8' in told
    written = json.loads((tmp_path / 'plan.json').read_text())
    assert not written['fits'] and written['advice'] and written['mesh'] == {'data': 4, 'fsdp': 1, 'expert': 1, 'tensor': 1}
    assert not written['programs']['gradients']['fits'] and written['programs']['update']['memory_total'] > 16 * 2**30


def test_the_table_and_json_say_the_same(tiny, tmp_path):
    what, planned = tiny
    out = io.StringIO()
    assert report.show(what, planned, tmp_path / 'plan.json', Console(file=out, width=120))
    written = json.loads((tmp_path / 'plan.json').read_text())
    assert written['fits'] and set(written['programs']) == {'gradients', 'update', 'scoring', 'decode'}
    of_gradients = written['programs']['gradients']
    assert f"{of_gradients['flops'] / 1e12:,.4g}" in out.getvalue()
    assert sum(of_gradients['memory'].values()) == of_gradients['memory_total']
    assert {c['kind'] for c in of_gradients['collectives']} <= {
        'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute'}


@pytest.mark.parametrize('flags, sentence', [
    (['--topology=v9:2x2'], "there is no TPU 'v9' here.*v5p"),
    (['--topology=v5e:three'], "topology 'v5e:three'"),
    (['--topology=v5e:4x4'], r'does not lay out 16 device\(s\)'),
    (['--stage=r1_zer'], "no such stage.*did you mean 'r1_zero'"),
    (['--model=tiny-qwen4'], "no model named 'tiny-qwen4'.*did you mean 'tiny-qwen3'"),
    (['--config.stages.r1_zero.micro_rows=3'], 'micro_rows=3 is not divisible by 2'),
])
def test_what_is_wrong_is_told_in_a_sentence(flags, sentence):
    config = load_experiment(ZERO, [*SMALL, *(f.removeprefix('--config.').split('=') for f in flags if '.stages' in f)])
    said = dict(f.removeprefix('--').split('=') for f in flags if '.stages' not in f)
    with pytest.raises(UserError, match=sentence):
        list(plan(subject(config, said.get('stage'), said.get('topology'), said.get('model'))))


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'r1jax\[tpu\]'"):
        of_tiny()


def test_a_stage_of_pretraining_starts_from_its_preset():
    what = subject(load_experiment('experiments/tiny/pretrain.py', [
        ('plan.topology', 'v5e:2x2'), ('mesh.data', '4'), ('stages.pretrain.micro_rows', '4')]), None, None, None)
    assert n_params(what.cfg) == n_params(preset('tiny'))
    assert [(program.name, program.fits) for program in plan(what)] == [('gradients', True), ('update', True)]


def test_weights_are_gathered_and_not_multiplied_by_piece_after_piece():
    """Rings of permutations between the devices of fsdp are how XLA would do the latter (`transformer.in_use`)."""
    what = subject(load_experiment(f'{DISTILL}:student=qwen_32b', [
        ('plan.topology', 'v5p:2x2x2'), ('mesh.fsdp', '8'), ('mesh.tensor', '1'), ('stages.distill.micro_rows', '8'),
        ('stages.distill.row_length', '4096')]), None, None, None)
    cfg = dataclasses.replace(what.cfg, n_layers=2, vocab_size=1024)
    gradients = next(programs(what.settings, cfg, what.mesh))
    found, _ = costs.measure(gradients, cfg, what.mesh, chip(what.topology))
    assert {kind for kind, _ in found.collectives} <= {'all-gather', 'all-reduce', 'reduce-scatter'}


@pytest.mark.parametrize('model', ['qwen2.5-math-1.5b', 'qwen2.5-32b'])
def test_the_log_prob_pass_takes_less_than_a_gigabyte_for_the_loss(model):
    """32,768 tokens a device, 152,000 words: all logits would be 20 GB."""
    what = subject(load_experiment(f'{DISTILL}:student=qwen_32b', [
        ('plan.topology', 'v5p:2x2x2'), ('mesh.fsdp', '8'), ('mesh.tensor', '1')]), None, None, model)
    sharding = Sharding(what.mesh, TRAINING)

    def placed(shape, dtype, *axes):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.named(axes, shape, ''))

    B, T, D, V = 8, 32_768, what.cfg.d_model, what.cfg.vocab_size
    assert V > 150_000
    args = (placed((B, T, D), jnp.bfloat16, 'batch', None, None), placed((D, V), jnp.bfloat16, 'embed', 'vocab'),
            placed((B, T), jnp.int32, 'batch', None))
    compiled = jax.jit(lambda *xs: token_logprobs(*xs, sharding=sharding)).lower(*args).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1e9


@pytest.mark.slow
@pytest.mark.parametrize('spec, stage', [
    *((f'experiments/r1_zero.py:size={size}', 'r1_zero') for size in ('671b', '70b', '32b')),
    *((f'experiments/r1.py:size={size}', stage) for size in ('671b', '70b', '32b') for stage in (
        'cold_start', 'reasoning_rl', 'rejection', 'helpful_rm', 'all_scenario_rl')),
    *((f'{DISTILL}:student={student}', 'distill') for student in (
        'qwen_1_5b', 'qwen_7b', 'llama_8b', 'qwen_14b', 'qwen_32b', 'llama_70b'))])
def test_the_experiments_at_the_papers_scale_fit(spec, stage):
    for program in plan(subject(load_experiment(spec), stage, None, None)):
        assert program.fits, (program.name, program.memory)
