"""What an experiment would do: its stages with every setting of the file, where figures come from, and what is missing.

Nothing is written and no device is needed: the mesh is laid out in the abstract, so that an experiment for a pod is checked
on a laptop.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from jax.sharding import AbstractMesh, AxisType
from ml_collections import ConfigDict
from rich.console import Console

from r1jax.config import to_dict
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.parallel.mesh import AXES, MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from r1jax.pipeline import BASE, STAGES, Plan, check, plan


def describe(config: ConfigDict, console: Console | None = None) -> list[str]:
    """Prints the experiment and returns what is missing before it can run.

    Raises:
        UserError: the experiment is wrong.
    """
    console = console or Console(soft_wrap=True, highlight=False)
    planned = plan(config)
    experiment = planned.experiment
    missing: list[str] = []
    models = check(planned, Sharding(abstract_mesh(experiment.mesh), TRAINING), missing)
    console.print(f'{experiment.name}, seed {experiment.seed}: {len(experiment.stages)} stages', markup=False)
    if experiment.base:
        console.print(f'base: {_model(experiment.base, models.get(experiment.base))}', markup=False)
    said, sources = to_dict(config), dict(experiment.sources)
    notes = {source: number for number, source in enumerate(dict.fromkeys(sources.values()), 1)}

    def show(prefix: str, place: str, value: object) -> None:
        source = sources.get(f'{prefix}.{place}')
        console.print(f'     {place} = {value!r}' + (f'  [{notes[source]}]' if source else ''), markup=False)

    for number, (name, stage) in enumerate(experiment.stages.items(), 1):
        label = f' ({stage.label})' if stage.label else ''
        console.print(f'\n{number}. {name}{label}: {stage.kind}', markup=False)
        for role, source in planned.inputs[name].items():
            shown = BASE if source == experiment.base else source
            console.print(f'     {role} from {_model(shown, models.get(source))}', markup=False)
        console.print(f'     makes {_makes(planned, name, models.get(name))}', markup=False)
        for place, value in _leaves(said['stages'][name]):
            if place.split('.')[0] not in ('kind', 'inputs', 'label'):
                show(f'stages.{name}', place, value)
    if experiment.evaluation:
        console.print('\nevaluation', markup=False)
        for name, suite in said['evaluation']['suites'].items():
            for place, value in _leaves(suite):
                show('evaluation.suites', f'{name}.{place}', value)
    if notes:
        console.print('\nsources', markup=False)
        for source, number in notes.items():
            console.print(f'  [{number}] {source}', markup=False)
    if missing:
        console.print('\nmissing before it can run:', markup=False)
        for sentence in missing:
            console.print(f'  - {sentence}', markup=False)
    else:
        console.print('\nnothing is missing', markup=False)
    return missing


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """The mesh without its devices; an axis of -1 takes those that are here, where their number fits."""
    sizes = dataclasses.asdict(config)
    if -1 in sizes.values():
        return make_mesh(config).abstract_mesh
    return AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _makes(planned: Plan, name: str, model: ModelConfig | None) -> str:
    made = STAGES[planned.experiment.stages[name].kind].makes
    return _model({'model': 'a model', 'reward_model': 'a reward model', 'data': 'data'}[made], model)


def _model(name: str, cfg: ModelConfig | None) -> str:
    if cfg is None:
        return name
    return f'{name} ({transformer.n_params(cfg) / 1e6:,.1f} M parameters, {cfg.n_layers} layers of width {cfg.d_model})'


def _leaves(settings: Mapping, prefix: str = '') -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f'{prefix}{name}.')
        else:
            yield prefix + name, value
