"""What an experiment file may say: loads it, applies `--config.key=value`, checks it, explains what is wrong.

An experiment file is a Python file with `get_config(arg: str = '') -> ml_collections.ConfigDict`. Every value
in it ends in a frozen dataclass: `Experiment` and `MeshConfig` are known here; those of the stages and of the
evaluation are handed in by the pipeline, so that this module imports no stage.
"""

import ast
import dataclasses
import hashlib
import inspect
import json
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from ml_collections import ConfigDict, FieldReference

import r1jax
from r1jax.errors import UserError, nearest
from r1jax.parallel.mesh import MeshConfig

T = TypeVar('T')
CHECKOUT = Path(r1jax.__file__).resolve().parents[1]
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        kind: 'grpo', 'sft', ...
        config: its settings, an instance of that kind's dataclass.
        inputs: role -> what the stage is given there: the name of an earlier stage, 'base', a folder or 'package:NAME'.
        label: what tables call it; its name by default.
    """

    kind: str
    config: Any
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    label: str = ''


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """What `plan` takes where its command line does not say it; a run does not look at it.

    Attributes:
        topology: TPUs like 'v5p:8x8x8', as many devices as the mesh lays out.
        model: a preset that stands for the base where its folder is not there.
    """

    topology: str = ''
    model: str = ''


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment, checked.

    Attributes:
        name: what the run is called in reports.
        stages: name -> Stage, run in the order in which the file names them.
        seed: the one seed that everything random in the run derives from.
        cpu_devices: virtual devices that a CPU is split into; no effect where jax finds an accelerator.
        mesh: devices along each mesh axis.
        base: the model the first stage starts from: a checkpoint folder, or 'package:NAME' for one shipped in
            the package; '' if the first stage makes its own.
        dtype: what all models compute in; None leaves it to their descriptions. Parameters stay float32.
        scan_layers: whether one program for a layer is run in a loop over layers, which compiles faster where they are many.
        remat: what training computes again for the gradient, to save memory: nothing ('none'), all of a layer but its matrix
            products ('dots'), or all of it ('full').
        evaluation: how base and results are measured (the evaluation's own dataclass); None: not measured.
        result: the stage whose model is what the experiment is about; '' is the last one that makes a model.
        plan: the TPUs that the experiment is meant for.
        sources: pairs of a setting ('stages.r1_zero.steps') and where its value comes from; a dry run shows them.
    """

    name: str
    stages: dict[str, Stage]
    seed: int = 0
    cpu_devices: int = 1
    mesh: MeshConfig = MeshConfig()
    base: str = ''
    dtype: Literal['float32', 'bfloat16'] | None = None
    scan_layers: bool = False
    remat: Literal['none', 'dots', 'full'] = 'none'
    evaluation: Any = None
    result: str = ''
    plan: PlanConfig = PlanConfig()
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        for name in (self.name, *self.stages):
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' cannot name an experiment or a stage: use letters, digits, _ . -")
        if not self.stages:
            raise ValueError('stages must name at least one stage')
        if 'base' in self.stages:
            raise ValueError("no stage may be named 'base': that is what the model before all stages is called")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f'seed must be at least 0 and less than 2**32, got {self.seed}')
        if self.result and self.result not in self.stages:
            raise ValueError(f"result='{self.result}' is no stage{nearest(self.result, self.stages)}")
        if self.cpu_devices < 1:
            raise ValueError(f'cpu_devices must be at least 1, got {self.cpu_devices}')


def load_experiment(spec: str, overrides: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """Runs an experiment file's get_config and applies overrides to what it returns.

    Args:
        spec: 'path/to/file.py' or 'path/to/file.py:arg'; `arg` is handed to get_config.
        overrides: pairs like ('stages.r1_zero.lr', '1e-5'). A key below a stage or the evaluation may be one
            that the file leaves at its default: whether it exists is then checked by `parse_experiment`.

    Raises:
        UserError: no such file, no get_config in it, an exception inside it, unknown key, ill-typed value.
    """
    match = re.fullmatch(r'(.*?\.py)(?::(.*))?', spec, re.DOTALL)
    if not match:
        raise UserError(f"'{spec}' is no experiment file: it must be a path that ends in .py, or in .py:arg")
    path, arg = Path(match[1]), match[2] or ''
    if not path.is_file():
        files = _experiment_files(path)
        raise UserError(f"there is no experiment file '{path}'{nearest(str(path), files) if files else ''}")
    config = _call_get_config(path, arg)
    for key, text in overrides:
        _override(config, key, text)
    return config


def parse_arg(arg: str, **defaults: Any) -> ConfigDict:
    """Reads an experiment's argument, like 'seed=1,arm=random_reward,quick', typed by its defaults.

    Args:
        arg: comma-separated name=value; a bare name sets a boolean. Commas in brackets do not separate.
        **defaults: every name that is understood, with its default; None takes a value of any type.

    Raises:
        UserError: an unknown name, a value not of its default's type, or a bare name that is no boolean.
    """
    config = ConfigDict(defaults)
    for item in re.split(r',(?![^(\[]*[)\]])', arg) if arg.strip() else ():
        name, equals, text = (part.strip() for part in item.partition('='))
        where = f"the argument '{name}'"
        if name not in defaults:
            raise UserError(f"unknown argument '{name}' in '{arg}'{nearest(name, defaults)}")
        default = defaults[name]
        if not equals and not isinstance(default, bool):
            raise UserError(f'{where} needs a value, as in {name}={default}')
        value = _read_value(text, default, where) if equals else True
        if isinstance(default, int) and isinstance(value, float):
            raise UserError(f"{where} must be an integer, got '{text}'")
        with config.ignore_type():
            config[name] = float(value) if isinstance(default, float) else value
    return config


def parse_experiment(
        config: ConfigDict | Mapping, stage_kinds: Mapping[str, type],
        evaluation_type: type | None = None) -> Experiment:
    """Checks an experiment against the dataclasses of its parts.

    Args:
        config: what `load_experiment` returned (or `to_dict` of an Experiment).
        stage_kinds: the dataclass of each kind of stage. A stage's `kind` chooses; the rest is its fields, beside
            `inputs` and `label`.
        evaluation_type: the dataclass of `evaluation`; None where an experiment may have none.

    Raises:
        UserError: an unknown, missing or ill-typed key anywhere, with its place and the nearest valid name.
    """
    plain = dict(_group(config, 'the experiment'))
    stages = {}
    for name, said in _group(plain.get('stages', {}), 'stages').items():
        where = f'stages.{name}'
        settings = dict(_group(said, where))
        kind = settings.pop('kind', None)
        more = {'inputs': _convert(settings.pop('inputs', {}), dict[str, str], f'{where}.inputs'),
                'label': _convert(settings.pop('label', ''), str, f'{where}.label')}
        if kind not in stage_kinds:
            wrong = f"is of the unknown kind '{kind}'" if kind is not None else "lacks the key 'kind'"
            raise UserError(f'{where} {wrong}{nearest(str(kind), stage_kinds)}')
        stages[name] = Stage(kind, from_dict(stage_kinds[kind], settings, where), **more)
    plain['stages'] = stages
    if plain.get('evaluation') is not None:
        if evaluation_type is None:
            raise UserError("unknown key 'evaluation' in the experiment: nothing here can be evaluated")
        plain['evaluation'] = from_dict(evaluation_type, plain['evaluation'], 'evaluation')
    return from_dict(Experiment, plain)


def from_dict(cls: type[T], mapping: ConfigDict | Mapping, where: str = '') -> T:
    """Builds a dataclass from a mapping, recursively: dataclasses, tuples, unions, Literal, dict[str, X].

    An int is taken for a float, a list for a tuple, text for a Path; nothing else is converted.

    Args:
        cls: a dataclass.
        mapping: field name -> value; fields with a default may be left out.
        where: the mapping's place in the experiment ('stages.r1_zero'), for messages.

    Raises:
        UserError: an unknown or missing key, an ill-typed value, a ValueError of a class's __post_init__.
        TypeError: the class has a field of a type that is unknown here, which is a fault in the class.
    """
    place = where or 'the experiment'
    mapping = _group(mapping, place)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            raise UserError(f"unknown key '{key}' in {place}{nearest(str(key), fields)}")
    for name, field in fields.items():
        if name not in mapping and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{place} lacks the key '{name}'")
    prefix = f'{where}.' if where else ''
    values = {key: _convert(value, hints[key], prefix + key) for key, value in mapping.items()}
    try:
        return cls(**values)
    except (UserError, ValueError) as error:
        raise UserError(f'{place}: {error}') from error


def to_dict(value: Any) -> Any:
    """Makes a config (dataclass, ConfigDict, mapping) ready for JSON, in its order; tuples become lists.

    An Experiment becomes a mapping that `parse_experiment` takes back.

    Raises:
        TypeError: a value that JSON has no form for.
    """
    value = _plain(value)
    if isinstance(value, Stage):
        named = {name: given for name in ('inputs', 'label') if (given := getattr(value, name))}
        return {'kind': value.kind} | to_dict(named) | to_dict(value.config)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f'{value!r} ({type(value).__name__}) has no form in JSON')


def config_hash(value: Any) -> str:
    """Returns the SHA-256 (hex) of a config's canonical JSON: whatever the order of keys, except of stages.

    1 and 1.0 count as the same number, a tuple and a list as the same sequence.

    Raises:
        TypeError: see `to_dict`.
        ValueError: a number is NaN or infinite.
    """
    plain = to_dict(value)
    if isinstance(plain, dict) and isinstance(plain.get('stages'), dict):
        plain['stages'] = list(plain['stages'].items())
    text = json.dumps(_whole_as_int(plain), sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _whole_as_int(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole_as_int(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole_as_int(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---- experiment files ----


def _experiment_files(missing: Path) -> list[str]:
    """Paths that `missing` may have been meant as: its neighbours, and the checkout's experiments."""
    files = list(missing.parent.glob('*.py')) + list((CHECKOUT / 'experiments').rglob('*.py'))
    here = Path.cwd()
    return [str(file.relative_to(here) if file.is_relative_to(here) and not missing.is_absolute() else file)
            for file in files if file.name != '__init__.py']


def _call_get_config(path: Path, arg: str) -> ConfigDict:
    module = types.ModuleType(f'r1jax_experiment_{path.stem}')
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module  # dataclasses defined in the file look their module up
    # `from experiments import common` works from any folder, with an installed package too.
    if (CHECKOUT / 'experiments').is_dir() and str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    try:
        exec(compile(path.read_text(encoding='utf-8'), module.__file__, 'exec'), module.__dict__)
        get_config = getattr(module, 'get_config', None)
        if not callable(get_config):
            raise UserError(f'{path} has no function get_config(arg), which an experiment file must have')
        takes_arg = bool(inspect.signature(get_config).parameters)
        if arg and not takes_arg:
            raise UserError(f"{path} takes no argument, got ':{arg}'")
        config = get_config(arg) if takes_arg else get_config()
    except UserError:
        raise
    except Exception as error:
        raise UserError(_explain(error, path)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f'get_config of {path} must return an ml_collections.ConfigDict, got {_seen(config)}')
    return config


def _explain(error: Exception, path: Path) -> str:
    """One line: the file, its line, the error; and where it was raised if that is elsewhere."""
    file = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename:  # its place is not in the traceback
        name = path if error.filename == file else error.filename
        return f'{name}, line {error.lineno}: {type(error).__name__}: {error.msg}'
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f', line {frame.lineno}' for frame in reversed(frames) if frame.filename == file), '')
    last = frames[-1]
    raised = f' (raised in {last.filename}, line {last.lineno})' if last.filename != file else ''
    return f'{path}{line}: {type(error).__name__}: {" ".join(str(error).split())}{raised}'


# ---- overrides ----


def _override(config: ConfigDict, key: str, text: str) -> None:
    *groups, leaf = key.split('.')
    node, path = config, ()
    for name in [*groups, leaf]:
        where = '.'.join(path) or 'the experiment'
        if not isinstance(node, ConfigDict):
            raise UserError(f"--config.{key}: {where} is {_seen(node)} and has no key '{name}'")
        known = _known_keys(node, path)
        if known is not None and name not in known:
            raise UserError(f"unknown key '{name}' in --config.{key}{nearest(name, known)}")
        if len(path) == len(groups):
            break
        if name not in node or node[name] is None:
            with node.unlocked(), node.ignore_type():
                node[name] = ConfigDict()
        node, path = node[name], (*path, name)
    current = node.get(leaf)
    if isinstance(current, ConfigDict):
        raise UserError(f'--config.{key} is a group of settings, set one of them{nearest("", current)}')
    with node.unlocked(), node.ignore_type():
        node[leaf] = _read_value(text, current, f'--config.{key}')


def _known_keys(node: ConfigDict, path: tuple[str, ...]) -> set[str] | None:
    """The keys that the group at `path` may have; None where only the class of a stage can tell."""
    group = {(): Experiment, ('mesh',): MeshConfig, ('plan',): PlanConfig}.get(path)
    if group:
        return {field.name for field in dataclasses.fields(group)}
    return set(node) if path == ('stages',) else None


def _read_value(text: str, like: Any, where: str) -> Any:
    """Reads a value from the command line; `like` is the present one (None: any type will do).

    Numbers stand for each other here, because `beta = 0` in a file does not mean that beta is an integer.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = {'true': True, 'false': False}.get(text.lower(), text)
    if isinstance(like, str):
        return value if isinstance(value, str) or value is None else text
    wanted = {bool: 'true or false', (int, float): 'a number', (list, tuple): 'a sequence, as in (1, 2)'}
    for types_, words in wanted.items():  # bool before int, because True is an int to isinstance
        if isinstance(like, types_) and value is not None:
            if isinstance(value, types_) and isinstance(value, bool) == isinstance(like, bool):
                return value
            raise UserError(f"{where} must be {words}, got '{text}'")
    return value


# ---- types ----


def _plain(value: Any) -> Any:
    """A ConfigDict as a dict, recursively, in the order in which its keys were set; anything else as it is.

    The private `_fields` has that order; ConfigDict itself iterates by name, which would reorder stages.
    """
    if not isinstance(value, ConfigDict):
        return value
    fields = value._fields.items()
    return {key: _plain(item.get() if isinstance(item, FieldReference) else item) for key, item in fields}


def _group(value: Any, where: str) -> Mapping[str, Any]:
    value = _plain(value)
    if not isinstance(value, Mapping):
        raise UserError(f'{where} must be a group of settings, got {_seen(value)}')
    return value


def _seen(value: Any) -> str:
    return f'{value!r} ({type(value).__name__})' if value is not None else 'None'


_SIMPLE = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'text', Path: 'a path'}


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Returns `value` as the annotation `kind` wants it, or raises UserError."""
    value = _plain(value)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, where)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise UserError(f'{where} must not be {value!r}{nearest(str(value), map(str, args))}')
    if kind is tuple or origin is tuple:
        return _convert_tuple(value, args, where)
    if kind is dict or origin in (dict, Mapping):
        inner, items = args[1] if args else Any, _group(value, where).items()
        return {str(key): _convert(item, inner, f'{where}.{key}') for key, item in items}
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else from_dict(kind, value, where)
    if kind not in _SIMPLE:
        raise TypeError(f'{where}: fields of type {kind} cannot be read from an experiment file')
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UserError(f'{where} must be {_SIMPLE[kind]}, got {_seen(value)}')


def _convert_union(value: Any, args: tuple, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    choices = [choice for choice in args if choice is not type(None)]
    if len(choices) == 1:
        return _convert(value, choices[0], where)
    # The value's own type first: 1 stays an int in float | int.
    for choice in sorted(choices, key=lambda choice: choice is not type(value)):
        try:
            return _convert(value, choice, where)
        except UserError:
            continue
    wanted = ' or '.join(_SIMPLE.get(choice, getattr(choice, '__name__', str(choice))) for choice in choices)
    raise UserError(f'{where} must be {wanted}, got {_seen(value)}')


def _convert_tuple(value: Any, args: tuple, where: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise UserError(f'{where} must be a sequence, got {_seen(value)}')
    kinds = args if args and args[-1] is not Ellipsis else (args[0] if args else Any,) * len(value)
    if len(kinds) != len(value):
        raise UserError(f'{where} must have {len(kinds)} values, got {len(value)}')
    pairs = zip(value, kinds, strict=True)
    return tuple(_convert(item, kind, f'{where}[{i}]') for i, (item, kind) in enumerate(pairs))
