"""Experiment files: loading, arguments, overrides, and the sentence each mistake gets."""

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Literal

import pytest
from ml_collections import ConfigDict

from r1jax import config
from r1jax.errors import UserError

EXPERIMENT = """
from ml_collections import ConfigDict
from r1jax.config import parse_arg

def get_config(arg=''):
    arg = parse_arg(arg, seed=0, arm='accuracy', quick=False)
    c = ConfigDict()
    c.name = 'tiny'
    c.seed = arg.seed
    c.stages = {'warm_up': {'kind': 'sft', 'lr': 1e-3}}
    c.stages.r1_zero = {
        'kind': 'grpo', 'lr': 1e-4, 'steps': 2 if arg.quick else 60, 'betas': (0.9, 0.95),
        'sampling': {'temperature': 1}, 'weights': {arg.arm: 1.0}, 'beta': 0}
    return c
"""


@dataclasses.dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    top_p: float | None = None


@dataclasses.dataclass(frozen=True)
class Grpo:
    lr: float
    steps: int = 10
    beta: float = 0.0
    norm: Literal['sequence', 'token'] = 'sequence'
    mask_truncated: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    tasks: tuple[str, ...] = ()
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    sampling: Sampling = Sampling()
    arms: tuple[Sampling, ...] = ()
    start: Path | None = None
    horizon: int | float | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f'steps must be at least 1, got {self.steps}')


@dataclasses.dataclass(frozen=True)
class Sft:
    lr: float = 1e-3


KINDS = {'grpo': Grpo, 'sft': Sft}


@pytest.fixture
def experiment(tmp_path) -> str:
    path = tmp_path / 'tiny.py'
    path.write_text(EXPERIMENT)
    return str(path)


@contextlib.contextmanager
def says(*parts: str):
    """Expects a UserError whose one line holds all the parts."""
    with pytest.raises(UserError) as info:
        yield
    assert '\n' not in str(info.value)
    for part in parts:
        assert part in str(info.value)


# ---- load_experiment ----


def test_loads_with_argument_and_overrides(experiment):
    loaded = config.load_experiment(f'{experiment}:seed=3,quick', [
        ('stages.r1_zero.lr', '1e-5'), ('stages.r1_zero.betas', '(0.8, 0.9)'),
        ('stages.r1_zero.beta', '0.01'),
        ('stages.r1_zero.sampling.temperature', '0.6'), ('stages.r1_zero.weights.length', '0.5'),
        ('stages.r1_zero.norm', 'token'), ('cpu_devices', '2'), ('mesh.fsdp', '2'), ('name', 'other')])
    parsed = config.parse_experiment(loaded, KINDS)
    stage = parsed.stages['r1_zero']
    assert (parsed.name, parsed.seed, parsed.cpu_devices, parsed.mesh.fsdp) == ('other', 3, 2, 2)
    assert stage == config.Stage('grpo', Grpo(
        lr=1e-5, steps=2, norm='token', betas=(0.8, 0.9), sampling=Sampling(0.6), beta=0.01,
        weights={'accuracy': 1.0, 'length': 0.5}))


def test_locked_config_takes_overrides(tmp_path):
    path = tmp_path / 'locked.py'
    path.write_text(EXPERIMENT.replace('return c', 'return c.lock()'))
    loaded = config.load_experiment(str(path), [('stages.r1_zero.horizon', '7')])
    assert config.parse_experiment(loaded, KINDS).stages['r1_zero'].config.horizon == 7
    assert loaded.is_locked


def test_stages_keep_the_order_they_were_written_in(experiment):
    parsed = config.parse_experiment(config.load_experiment(experiment), KINDS)
    assert list(parsed.stages) == ['warm_up', 'r1_zero']  # not sorted by name


def test_edited_file_is_read_anew(experiment):
    Path(experiment).write_text(EXPERIMENT.replace("'tiny'", "'tony'"))
    first = config.load_experiment(experiment).name
    Path(experiment).write_text(EXPERIMENT.replace("'tiny'", "'teny'"))
    assert (first, config.load_experiment(experiment).name) == ('tony', 'teny')


def test_files_import_the_checkouts_helpers_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / 'experiments').mkdir()
    (tmp_path / 'experiments' / 'helper.py').write_text('NAME = "helped"\n')
    mine = tmp_path / 'mine.py'
    mine.write_text(EXPERIMENT.replace("'tiny'", 'helper.NAME') + '\nfrom experiments import helper\n')
    monkeypatch.setattr(sys, 'path', [path for path in sys.path if Path(path).resolve() != config.CHECKOUT])
    monkeypatch.setattr(config, 'CHECKOUT', tmp_path)
    monkeypatch.setitem(sys.modules, 'experiments', None)  # so that its state is put back after the test
    monkeypatch.delitem(sys.modules, 'experiments')
    assert config.load_experiment(str(mine)).name == 'helped'


def test_missing_file_names_its_neighbour(experiment):
    with says('no experiment file', 'did you mean', 'tiny.py'):
        config.load_experiment(experiment.replace('tiny.py', 'tinny.py'))
    with says('must be a path that ends in .py'):
        config.load_experiment('experiments/tiny')


@pytest.mark.parametrize('source, parts', [
    ('x = 1\n', ('no function get_config',)),
    ('def get_config(arg):\n    y = 1\n    return nothing\n', ('line 3', 'NameError', "'nothing'")),
    ('def get_config(arg)\n    return 1\n', ('line 1', 'SyntaxError')),
    ('import json\ndef get_config(arg):\n    json.loads("{")\n', ('line 3', 'JSONDecodeError', 'raised in')),
    ('def get_config(arg):\n    return {}\n', ('must return an ml_collections.ConfigDict', '{} (dict)')),
    ('import no_such_module\n', ('line 1', 'ModuleNotFoundError', 'no_such_module')),
])
def test_mistakes_inside_the_file_are_placed(tmp_path, source, parts):
    path = tmp_path / 'wrong.py'
    path.write_text(source)
    with says('wrong.py', *parts):
        config.load_experiment(str(path))


def test_file_without_argument_refuses_one(tmp_path):
    path = tmp_path / 'plain.py'
    path.write_text('from ml_collections import ConfigDict\n\n'
                    'def get_config():\n    return ConfigDict({"name": "plain"})\n')
    assert config.load_experiment(str(path)).name == 'plain'
    with says('takes no argument', ':seed=1'):
        config.load_experiment(f'{path}:seed=1')


@pytest.mark.parametrize('key, value, parts', [
    ('sed', '1', ("unknown key 'sed'", "did you mean 'seed'")),
    ('mesh.fdsp', '1', ("unknown key 'fdsp'", "did you mean 'fsdp'")),
    ('stages.r1zero.lr', '1', ("unknown key 'r1zero'", "did you mean 'r1_zero'")),
    ('stages.r1_zero', '1', ('is a group of settings', 'lr')),
    ('stages.r1_zero.lr.x', '1', ('stages.r1_zero.lr is 0.0001', "no key 'x'")),
    ('stages.r1_zero.lr', 'high', ('--config.stages.r1_zero.lr must be a number', "'high'")),
    ('stages.r1_zero.lr', 'true', ('must be a number', "'true'")),
    ('stages.r1_zero.betas', '0.9', ('must be a sequence', "'0.9'")),
])
def test_wrong_overrides(experiment, key, value, parts):
    with says(*parts):
        config.load_experiment(experiment, [(key, value)])


@pytest.mark.parametrize('key, value, parts', [
    ('stages.r1_zero.lrr', '1', ("unknown key 'lrr' in stages.r1_zero", "did you mean 'lr'")),
    ('stages.r1_zero.sampling.temprature', '1', ("'temprature' in stages.r1_zero.sampling", "'temperature'")),
    ('stages.r1_zero.steps', '1.5', ('stages.r1_zero.steps must be an integer', '1.5')),
    ('stages.r1_zero.mask_truncated', '1', ('stages.r1_zero.mask_truncated must be true or false',)),
])
def test_overrides_that_only_the_stage_can_judge(experiment, key, value, parts):
    loaded = config.load_experiment(experiment, [(key, value)])
    with says(*parts):
        config.parse_experiment(loaded, KINDS)


# ---- parse_arg ----


def test_parse_arg_types_by_default():
    parsed = config.parse_arg(
        'seed=4,lr=1,arm=random_reward,quick,shape=(1, 2),slow=false,free=x',
        seed=0, lr=0.1, arm='none', quick=False, shape=(), slow=True, free=None, other='kept')
    assert parsed.to_dict() == {
        'seed': 4, 'lr': 1.0, 'arm': 'random_reward', 'quick': True, 'shape': (1, 2), 'slow': False,
        'free': 'x', 'other': 'kept'}
    assert isinstance(parsed.lr, float)
    assert config.parse_arg('', seed=7).seed == 7
    assert config.parse_arg('arm=17', arm='none').arm == '17'  # text stays text


@pytest.mark.parametrize('arg, parts', [
    ('sede=1', ("unknown argument 'sede'", "did you mean 'seed'")),
    ('seed', ("'seed' needs a value", 'seed=0')),
    ('seed=1.5', ("'seed' must be an integer", '1.5')),
    ('seed=one', ("'seed' must be a number", 'one')),
    ('quick=2', ("'quick' must be true or false", '2')),
])
def test_parse_arg_mistakes(arg, parts):
    with says(*parts):
        config.parse_arg(arg, seed=0, quick=False)


def test_mistaken_argument_of_a_file_keeps_its_sentence(experiment):
    with says("unknown argument 'arms' in 'arms=x' (did you mean 'arm'?)"):
        config.load_experiment(f'{experiment}:arms=x')


# ---- from_dict ----


def test_from_dict_converts():
    built = config.from_dict(Grpo, ConfigDict({
        'lr': 1, 'tasks': ['a', 'b'], 'arms': ({'temperature': 2}, Sampling(top_p=0.5)), 'start': 'runs/a',
        'horizon': 3}))
    assert built == Grpo(
        lr=1.0, tasks=('a', 'b'), arms=(Sampling(2.0), Sampling(top_p=0.5)), start=Path('runs/a'), horizon=3)
    assert [type(x) for x in (built.lr, built.horizon, built.arms[0].temperature)] == [float, int, float]


@pytest.mark.parametrize('mapping, parts', [
    ({}, ("stages.x lacks the key 'lr'",)),
    ({'lr': '1e-4'}, ("stages.x.lr must be a number, got '1e-4' (str)",)),
    ({'lr': True}, ('stages.x.lr must be a number, got True (bool)',)),
    ({'lr': 1, 'steps': True}, ('stages.x.steps must be an integer',)),
    ({'lr': 1, 'steps': 0}, ('stages.x: steps must be at least 1, got 0',)),
    ({'lr': 1, 'norm': 'tokens'}, ("stages.x.norm must not be 'tokens'", "did you mean 'token'")),
    ({'lr': 1, 'betas': (1,)}, ('stages.x.betas must have 2 values, got 1',)),
    ({'lr': 1, 'tasks': 'arithmetic'}, ("stages.x.tasks must be a sequence, got 'arithmetic'",)),
    ({'lr': 1, 'tasks': ('a', 2)}, ('stages.x.tasks[1] must be text, got 2',)),
    ({'lr': 1, 'weights': {'accuracy': 'x'}}, ('stages.x.weights.accuracy must be a number',)),
    ({'lr': 1, 'sampling': 3}, ('stages.x.sampling must be a group of settings, got 3',)),
    ({'lr': 1, 'arms': [{'top': 1}]}, ("unknown key 'top' in stages.x.arms[0]", "'top_p'")),
    ({'lr': 1, 'horizon': 'x'}, ('stages.x.horizon must be an integer or a number',)),
    ({'lr': 1, 'sampling': None}, ('stages.x.sampling must be a group of settings, got None',)),
])
def test_from_dict_mistakes(mapping, parts):
    with says(*parts):
        config.from_dict(Grpo, mapping, 'stages.x')


def test_from_dict_faults_in_a_class_are_not_the_users():
    @dataclasses.dataclass(frozen=True)
    class Faulty:
        when: complex = 0j

    with pytest.raises(TypeError, match='complex'):
        config.from_dict(Faulty, {'when': 1})


# ---- parse_experiment ----


def test_parse_experiment_with_evaluation(experiment):
    loaded = config.load_experiment(experiment, [('evaluation.temperature', '0.6')])
    assert config.parse_experiment(loaded, KINDS, Sampling).evaluation == Sampling(0.6)
    assert config.parse_experiment(config.load_experiment(experiment), KINDS, Sampling).evaluation is None
    with says("unknown key 'evaluation'"):
        config.parse_experiment(loaded, KINDS)


@pytest.mark.parametrize('change, parts', [
    ({'name': None}, ('name must be text, got None',)),
    ({'name': 'a/b'}, ("'a/b' cannot name",)),
    ({'seeds': 1}, ("unknown key 'seeds' in the experiment (did you mean 'seed'?)",)),
    ({'seed': -1}, ('seed must be at least 0 and less than 2**32, got -1',)),
    ({'seed': 2**32}, ('seed must be at least 0 and less than 2**32',)),
    ({'dtype': 'float16'}, ('float16', 'bfloat16')),
    ({'cpu_devices': 0}, ('cpu_devices must be at least 1, got 0',)),
    ({'mesh': {'fsdp': 'all'}}, ('mesh.fsdp must be an integer',)),
    ({'stages': {}}, ('stages must name at least one stage',)),
    ({'stages': {'../up': {'kind': 'sft'}}}, ("'../up' cannot name",)),
    ({'stages': {'a': {}}}, ("stages.a lacks the key 'kind' (known: grpo, sft)",)),
    ({'stages': {'a': {'kind': 'grp'}}}, ("stages.a is of the unknown kind 'grp' (did you mean 'grpo'?)",)),
    ({'stages': {'a': 3}}, ('stages.a must be a group of settings, got 3',)),
])
def test_parse_experiment_mistakes(change, parts):
    mapping = {'name': 'x', 'stages': {'a': {'kind': 'sft'}}}
    assert config.parse_experiment(mapping, KINDS).stages == {'a': config.Stage('sft', Sft())}
    with says(*parts):
        config.parse_experiment(mapping | change, KINDS)


# ---- to_dict, config_hash ----


def test_to_dict_is_json_and_comes_back(experiment):
    parsed = config.parse_experiment(
        config.load_experiment(experiment, [('stages.r1_zero.start', 'a/b'), ('evaluation.top_p', '0.95')]),
        KINDS, Sampling)
    as_json = json.loads(json.dumps(config.to_dict(parsed)))
    assert as_json['stages']['r1_zero']['start'] == 'a/b'
    assert config.parse_experiment(as_json, KINDS, Sampling) == parsed


def test_to_dict_refuses_what_json_has_no_form_for():
    with pytest.raises(TypeError, match='function'):
        config.to_dict({'reward': lambda: 0})


def test_config_hash():
    digest = config.config_hash
    assert digest({'a': 1, 'b': (1, 2)}) == digest({'b': [1, 2.0], 'a': 1.0})
    assert digest({'a': 1, 'b': (1, 2)}) == digest(ConfigDict({'a': 1, 'b': (1, 2)}))
    assert digest({'a': 1}) != digest({'a': 2})
    assert digest({'a': True}) != digest({'a': 1})
    # Stages run in the order they are written in.
    assert digest({'stages': {'x': 1, 'y': 2}}) != digest({'stages': {'y': 2, 'x': 1}})
    assert digest(Grpo(lr=1.0)) == digest(dataclasses.asdict(Grpo(lr=1.0)))
    assert len(digest({})) == 64
    with pytest.raises(ValueError):
        digest({'a': float('nan')})
