"""A whole run in miniature, from pretraining to the report, and what a run's folder refuses."""

import dataclasses
import json

import pytest
from ml_collections import ConfigDict

from r1jax.errors import UserError
from r1jax.models import presets
from r1jax.models.config import Execution, ModelConfig
from r1jax.parallel.mesh import make_mesh
from r1jax.parallel.rules import DECODING, Sharding
from r1jax.pipeline import STAGES, plan, run_experiment
from r1jax.runtime.checkpoint import load_model
from r1jax.stages.base import Artifact
from r1jax.stages.evaluate import evaluate

MINI = ModelConfig(
    vocab_size=640, d_model=32, n_layers=1, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=48, tie_embeddings=True,
    max_positions=256)


@pytest.fixture(autouse=True)
def mini(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, 'mini', MINI)


def experiment(**changes) -> ConfigDict:
    config = ConfigDict({
        'name': 'mini', 'seed': 1, 'mesh': {'data': 2, 'fsdp': 2, 'tensor': 2}, 'stages': {}})
    config.stages.a_pretrain = ConfigDict({
        'kind': 'pretrain', 'model': 'mini', 'steps': 3, 'documents_per_step': 8, 'tokenizer_documents': 1500,
        'optimizer': {'learning_rate': 1e-2}})
    config.stages.b_rl = ConfigDict({
        'kind': 'grpo', 'task': 'tiny_reasoning', 'steps': 2, 'prompts': 4, 'group': 2, 'micro_rows': 4,
        'rewards': 'random=1',
        'sampling': {'slots': 8, 'max_tokens': 8}, 'optimizer': {'learning_rate': 1e-1}})
    config.evaluation = ConfigDict({'suites': {'main': {
        'task': 'tiny_reasoning', 'problems': 12, 'samples': 2,
        'sampling': {'slots': 8, 'max_tokens': 8, 'temperature': 0.6, 'top_p': 0.95}}}})
    for name in ('main@1', 'longer'):
        config.evaluation.suites[name] = ConfigDict({
            'task': 'tiny_reasoning', 'problems': 4, 'samples': 2, 'sampling': {'slots': 8, 'max_tokens': 8}})
    config.update(changes)
    return config


def test_an_experiment_runs_through_to_its_report_and_a_second_start_does_nothing(tmp_path):
    report = run_experiment(experiment(), tmp_path / 'run')
    assert report.exists()
    summary = json.loads((tmp_path / 'run' / 'summary.json').read_text())
    # The first stage makes its own base, so there is nothing to measure before it.
    assert list(summary['stages']) == ['a_pretrain', 'b_rl']
    figure = summary['stages']['b_rl']['pass@1/T=0.6/all']
    assert figure.keys() == {'mean', 'low', 'high', 'n'} and figure['n'] == 12
    assert {'pass@1/T=1/all', 'pass@1/T=1/longer/all'} <= summary['stages']['b_rl'].keys()
    # The figures of a stage are those of the model that it left.
    parsed = plan(experiment()).experiment
    decoding = Sharding(make_mesh(parsed.mesh), DECODING)
    for name in summary['stages']:
        model = load_model(tmp_path / 'run' / 'stages' / name, decoding)
        assert summary['stages'][name] == evaluate(model, parsed.evaluation, decoding, 1, name)
    assert summary['stages']['a_pretrain'] != summary['stages']['b_rl']
    manifest = json.loads((tmp_path / 'run' / 'manifest.json').read_text())
    assert manifest['experiment']['seed'] == 1
    stage = tmp_path / 'run' / 'stages' / 'b_rl'
    assert {'DONE', 'config.json', 'metrics.jsonl', 'tensorboard', 'rollouts', 'checkpoints', 'model', 'eval'} <= {
        p.name for p in stage.iterdir()}

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / 'run' / 'stages').rglob('*') if p.is_file()}
    run_experiment(experiment(), tmp_path / 'run')
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / 'run' / 'stages').rglob('*') if p.is_file()}

    # Another experiment, and a folder that is no run, are left as they are.
    with pytest.raises(UserError, match=r"holds another experiment \('mini', which differs in seed: 1 there, 2 here\)"):
        run_experiment(experiment(seed=2), tmp_path / 'run')
    assert json.loads((tmp_path / 'run' / 'manifest.json').read_text()) == manifest


def interrupt(monkeypatch):
    """From now on every stage is interrupted as soon as it begins."""
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('r1jax.pipeline.STAGES', {
        name: dataclasses.replace(kind, run=run) for name, kind in STAGES.items()})


def test_a_run_recorded_before_a_setting_existed_goes_on(tmp_path, monkeypatch):
    interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment(), tmp_path)
    path = tmp_path / 'manifest.json'
    manifest = json.loads(path.read_text())
    for name in ('dtype', 'scan_layers', 'remat'):
        del manifest['experiment'][name]
    del manifest['experiment']['stages']['b_rl']['mask_truncated']
    path.write_text(json.dumps(manifest | {'hash': 'of other defaults'}))
    with pytest.raises(KeyboardInterrupt):  # that is, it begins to train
        run_experiment(experiment(), tmp_path)


@pytest.mark.parametrize('change, execution', [
    ({}, Execution()),
    ({'dtype': 'bfloat16', 'scan_layers': True, 'remat': 'dots'}, Execution('bfloat16', True, 'dots'))])
def test_every_stage_is_told_how_models_are_run(tmp_path, monkeypatch, change, execution):
    told = []

    def run(stage, inputs, folder):
        told.append(inputs.execution)
        return Artifact(folder)

    monkeypatch.setattr('r1jax.pipeline.STAGES', {
        name: dataclasses.replace(kind, run=run) for name, kind in STAGES.items()})
    config = experiment(**change)
    del config['evaluation']
    run_experiment(config, tmp_path)
    assert told == [execution] * 2


def test_a_loop_over_layers_and_values_computed_again_change_no_run_beyond_rounding(tmp_path):
    norms = []
    for change in ({}, {'scan_layers': True, 'remat': 'full'}):
        folder = tmp_path / str(len(norms))
        run_experiment(experiment(**change), folder, only='a_pretrain')
        norms.append(metrics(folder, 'a_pretrain'))
    for (step, norm), (other_step, other) in zip(*norms, strict=True):
        assert step == other_step and norm == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize('workdir', ['file', 'file/sub'])
def test_a_workdir_that_cannot_be_one_is_told(tmp_path, workdir):
    (tmp_path / 'file').write_text('precious')
    with pytest.raises(UserError, match="cannot be a run's folder"):
        run_experiment(experiment(), tmp_path / workdir)
    assert (tmp_path / 'file').read_text() == 'precious'


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('precious')
    with pytest.raises(UserError, match='is not empty and holds no run'):
        run_experiment(experiment(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_a_run_killed_while_it_wrote_its_manifest_starts_again(tmp_path, monkeypatch):
    (tmp_path / '.manifest.json.tmp').write_text('{"exper')
    interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment(), tmp_path)
    assert (tmp_path / 'manifest.json').exists()


@pytest.mark.parametrize('change, sentence', [
    ({'base': 'nowhere'}, 'checkpoint nowhere does not exist'),
    ({'mesh': {'data': 3}}, 'does not lay out 8 device'),
    ({'mesh': {'data': 8, 'fsdp': 1, 'tensor': 1}}, r'micro_rows=4 is not divisible by 8.*nearest that is: 8'),
    ({'mesh': {'data': 2, 'fsdp': 1, 'tensor': 4}}, "'heads' dimension of 2 is not divisible by 4"),
    ({'mesh': {'data': 2, 'fsdp': 2, 'tensor': 1, 'expert': 2}}, 'micro_rows=4 is not divisible by 8'),
    ({'stages': {'a_pretrain': {'steps': 0}}}, 'steps=0 must be at least 1'),
    ({'stages': {'b_rl': {'checkpoint_every': 0}}}, 'checkpoint_every=0 must be at least 1'),
    ({'stages': {'b_rl': {'minibatches': 0}}}, 'minibatches=0 must be at least 1'),
    ({'stages': {'b_rl': {'resample_rounds': -1}}}, 'resample_rounds=-1 must be at least 0'),
    ({'stages': {'b_rl': {'sampling': {'max_tokens': 256}}}}, "max_tokens=256 leaves no room.*256 positions"),
    ({'stages': {'b_rl': {'rewards': 'overlong=1'}}}, "'overlong' needs the option"),
    ({'evaluation': {'suites': {'main': {'problems': 0}}}}, 'problems=0 must be at least 1'),
    ({'evaluation': {'suites': {'main': {'problems': 10**6}}}}, "suites.main: .*problems=1000000, but 'test' has only"),
    ({'evaluation': {'suites': {'main@2': {'task': 'tiny_logic'}}}}, "'main@2' would write its figures over"),
    ({'evaluation': {'suites': {'a/b': {'task': 'tiny_logic'}}}}, "'a/b' cannot name a suite"),
    ({'stages': {'base': {'kind': 'pretrain', 'model': 'mini', 'steps': 1, 'optimizer': {'learning_rate': 1.0}}}},
     "no stage may be named 'base'"),
    ({'stages': {'a_pretrain': {'balance': {'loss': 1e-4}}}}, 'a_pretrain: balance is set, and the model has no experts'),
    ({'stages': {'b_rl': {'balance': {'loss': 1e-4}}}}, 'b_rl: balance is set, and the model has no experts'),
    ({'stages': {'b_rl': {'balance': {'bais_rate': 1e-3}}}}, "'bais_rate' in stages.b_rl.balance.*did you mean 'bias_rate'"),
    ({'stages': {'a_pretrain': {'mtp_loss': 0.3}}}, 'a_pretrain: mtp_loss=0.3, and the model has no MTP module'),
    ({'stages': {'b_rl': {'task': 'tiny_reasonning'}}}, "did you mean 'tiny_reasoning'"),
    ({'stages': {'b_rl': {'rewards': 'acuracy=1'}}}, "did you mean 'accuracy'"),
])
def test_what_cannot_run_writes_nothing(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        run_experiment(experiment(**change), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_stage_by_stage_is_the_same_as_all_at_once(tmp_path):
    run_experiment(experiment(), tmp_path / 'whole')
    for name in ('a_pretrain', 'b_rl'):
        run_experiment(experiment(), tmp_path / 'parts', only=name)
    whole, parts = (json.loads((tmp_path / name / 'summary.json').read_text()) for name in ('whole', 'parts'))
    assert whole == parts


def test_only_and_from_need_what_the_stages_before_left(tmp_path):
    for flags in ({'only': 'rl'}, {'start': 'rl'}, {'rerun': ['rl']}):
        with pytest.raises(UserError, match="no such stage.*did you mean 'b_rl'"):
            run_experiment(experiment(), tmp_path / 'run', **flags)
    for flags in ({'only': 'b_rl'}, {'start': 'b_rl'}):
        with pytest.raises(UserError, match="'b_rl' needs what 'a_pretrain' makes, which is not done"):
            run_experiment(experiment(), tmp_path / 'run', **flags)


def metrics(workdir, stage):
    lines = (workdir / 'stages' / stage / 'metrics.jsonl').read_text().splitlines()
    return [(line['step'], line['grad_norm']) for line in map(json.loads, lines)]


def test_a_changed_stage_is_refused_until_told_and_takes_along_what_depends_on_it(tmp_path):
    run_experiment(experiment(), tmp_path)
    first = [metrics(tmp_path, name) for name in ('a_pretrain', 'b_rl')]
    manifest = (tmp_path / 'manifest.json').read_text()
    changed = experiment(stages={'a_pretrain': {'steps': 2}})
    sentence = r"'a_pretrain' was run with other.*steps: 3 there, 2 here.*and what depends on it \(b_rl\)"
    with pytest.raises(UserError, match=sentence):
        run_experiment(changed, tmp_path)
    with pytest.raises(UserError, match="'a_pretrain' was run with other"):  # naming another one does not do
        run_experiment(changed, tmp_path, rerun=['b_rl'])
    assert (tmp_path / 'manifest.json').read_text() == manifest
    assert [metrics(tmp_path, name) for name in ('a_pretrain', 'b_rl')] == first

    run_experiment(changed, tmp_path, rerun=['a_pretrain'])
    again = [metrics(tmp_path, name) for name in ('a_pretrain', 'b_rl')]
    assert [len(x) for x in again] == [2, 2] and again[1] != first[1]
    assert (tmp_path / 'manifest.json').read_text() != manifest
    run_experiment(changed, tmp_path)  # which the manifest has taken note of

    # The last stage alone: the first is left as it is.
    before = (tmp_path / 'stages' / 'a_pretrain' / 'DONE').stat().st_mtime_ns
    run_experiment(changed, tmp_path, rerun=['b_rl'])
    assert metrics(tmp_path, 'b_rl') == again[1]
    assert (tmp_path / 'stages' / 'a_pretrain' / 'DONE').stat().st_mtime_ns == before


def test_a_stage_that_was_not_begun_may_change(tmp_path):
    run_experiment(experiment(), tmp_path, only='a_pretrain')
    run_experiment(experiment(stages={'b_rl': {'steps': 1}}), tmp_path)
    assert len(metrics(tmp_path, 'b_rl')) == 1
    manifest = json.loads((tmp_path / 'manifest.json').read_text())
    assert manifest['experiment']['stages']['b_rl']['steps'] == 1


def test_the_manifest_tells_inputs_and_a_base_that_changed_is_refused(tmp_path, monkeypatch):
    run_experiment(experiment(), tmp_path / 'first', only='a_pretrain')
    base = tmp_path / 'first' / 'stages' / 'a_pretrain'
    config = experiment(base=str(base))
    del config.stages['a_pretrain']
    run_experiment(config, tmp_path / 'second')
    held = json.loads((tmp_path / 'second' / 'manifest.json').read_text())['stages']['b_rl']
    assert held['inputs']['model']['from'] == str(base) and len(held['hash']) == 64
    (base / 'model' / 'note.txt').write_text('touched')
    with pytest.raises(UserError, match=f"'b_rl' was run with other settings or inputs.*'{base}' has changed"):
        run_experiment(config, tmp_path / 'second')


@pytest.mark.parametrize('inputs, sentence', [
    ({'model': 'a_pretrian'}, "no stage or folder 'a_pretrian'.*did you mean 'a_pretrain'"),
    ({'model': 'b_rl'}, "'b_rl' does not come before 'b_rl'"),
    ({'model': 'base'}, 'there is no model to start from: set base'),
    ({'helpful': 'a_pretrain'}, "'a_pretrain' makes a model, and a reward model is wanted"),
    ({'model': 'data'}, "'data' makes data, and a model is wanted"),
])
def test_wrong_inputs_are_told(tmp_path, inputs, sentence):
    config = experiment()
    last = config.stages.b_rl
    del config.stages['b_rl']
    config.stages.data = ConfigDict({
        'kind': 'collect', 'task': 'tiny_reasoning', 'questions': 2, 'sampling': {'slots': 8, 'max_tokens': 8}})
    config.stages.b_rl = ConfigDict(last.to_dict() | {'inputs': inputs})
    with pytest.raises(UserError, match=sentence):
        run_experiment(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_stage_takes_no_input_that_it_has_no_use_for(tmp_path):
    with pytest.raises(UserError, match="a stage of kind 'pretrain' takes no 'data'"):
        run_experiment(experiment(stages={'a_pretrain': {'inputs': {'data': 'x'}}}), tmp_path / 'run')
