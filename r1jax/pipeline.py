"""Runs an experiment: its stages in order, the evaluations before and after, summary and report.

The run's folder holds `manifest.json` (which experiment this is), `stages/NAME/` and, at the end, `summary.json` and
`report.html`. The same command goes on with an interrupted run: what is done is skipped, what was begun resumes.
"""

import datetime
import json
import os
import pathlib
import subprocess

from ml_collections import ConfigDict

import r1jax
from r1jax.config import Experiment, config_hash, parse_experiment, to_dict
from r1jax.errors import UserError, nearest
from r1jax.models import transformer
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.mesh import make_mesh
from r1jax.parallel.rules import DECODING, TRAINING, Sharding
from r1jax.runtime.checkpoint import load_model, read_config
from r1jax.runtime.report import build_report
from r1jax.runtime.summary import print_table
from r1jax.stages import evaluate, grpo, pretrain
from r1jax.stages.base import Inputs

# kind of stage -> (its settings, the function that runs it)
STAGES = {
    'grpo': (grpo.GRPOStage, grpo.run),
    'pretrain': (pretrain.PretrainStage, pretrain.run),
}


def run_experiment(config: ConfigDict, workdir: pathlib.Path, only: str | None = None) -> pathlib.Path:
    """Runs what is not done yet and returns the path of the report.

    Args:
        config: as `config.load_experiment` returns it.
        workdir: the run's folder; made if absent.
        only: run this stage alone; those before it must be done.

    Raises:
        UserError: if the config is wrong, or the folder holds another experiment (which is left as it is).
    """
    experiment = _parse(config)
    if only is not None and only not in experiment.stages:
        raise UserError(f"--only={only}: the experiment has no such stage{nearest(only, experiment.stages)}")
    mesh = make_mesh(experiment.mesh)
    sharding = Sharding(mesh, TRAINING)
    model = read_config(experiment.base) if experiment.base else None
    models = [model] if model else []
    for stage in experiment.stages.values():
        model = stage.config.check(sharding, model)
        models.append(model)
    for model in models:
        transformer.shardings(model, Sharding(mesh, DECODING))
    if experiment.evaluation:
        experiment.evaluation.check(sharding, models)
    workdir = pathlib.Path(workdir)
    _claim(workdir, experiment)
    base = experiment.base
    for name, stage in experiment.stages.items():
        folder = workdir / 'stages' / name
        inputs = Inputs(name, experiment.seed, mesh, base, experiment.dtype)
        if not (folder / 'DONE').exists():
            if only is not None and name != only:
                raise UserError(f"--only={only}: stage '{name}' comes before it and is not done yet")
            folder.mkdir(parents=True, exist_ok=True)
            if is_leader():
                _write_json(folder / 'config.json', {'kind': stage.kind} | to_dict(stage.config))
            if experiment.evaluation and base and base == experiment.base:
                _evaluate(experiment, 'base', base, inputs, workdir, folder)
            artifact = STAGES[stage.kind][1](stage.config, inputs, folder)
            if experiment.evaluation:
                _evaluate(experiment, name, str(artifact.model), inputs, workdir, folder)
            if is_leader():
                (folder / 'DONE').touch()
            barrier(f'{name} done')
        base = str(folder / 'model')
        if name == only:
            break
    if is_leader():
        print_table(_summary(workdir, experiment))
        build_report(workdir)
    barrier('report')
    return workdir / 'report.html'


def _summary(workdir: pathlib.Path, experiment: Experiment) -> dict:
    """What summary.json holds so far."""
    path = workdir / 'summary.json'
    if path.exists():
        return json.loads(path.read_text())
    return {'experiment': experiment.name, 'seed': experiment.seed, 'stages': {}}


def _claim(workdir: pathlib.Path, experiment: Experiment) -> None:
    """Writes the manifest of a new run, or checks that the folder's run is this one."""
    path = workdir / 'manifest.json'
    description = to_dict(experiment)
    digest = config_hash(description)
    if path.exists():
        try:
            held = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f'{path} cannot be read, so {workdir} may hold another run: {error}') from error
        held = _in_full(held.get('experiment', {}))
        if config_hash(held) != digest:
            raise UserError(
                f"{workdir} holds another experiment ('{held.get('name')}', which differs in "
                f'{_first_difference(held, description) or "the order of its stages"}): choose another --workdir; nothing '
                'was changed')
        return
    # A run that was killed while it wrote its manifest leaves the half-written file, whose name begins with a dot.
    try:
        if workdir.exists() and any(not path.name.startswith('.') for path in workdir.iterdir()):
            raise UserError(f'{workdir} is not empty and holds no run: choose another --workdir; nothing was changed')
        barrier('checked')  # before anything is there that another host would take for somebody's
        if not is_leader():
            return
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{workdir} cannot be a run\'s folder: {error.strerror}') from error
    _write_json(path, {
        'experiment': description,
        'hash': digest,
        'commit': _commit(),
        'version': r1jax.__version__,
        'created': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    })


def _parse(config: ConfigDict) -> Experiment:
    return parse_experiment(config, {kind: cls for kind, (cls, _) in STAGES.items()}, evaluate.Evaluation)


def _in_full(recorded: dict) -> dict:
    """A recorded experiment with today's defaults for settings that did not exist when it was recorded."""
    try:
        return to_dict(_parse(ConfigDict(recorded)))
    except UserError:
        return recorded  # it is no experiment today, so it is another one


def _first_difference(held: object, wanted: object, where: str = '') -> str:
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in sorted({*held, *wanted}):
            if held.get(key) != wanted.get(key):
                return _first_difference(held.get(key), wanted.get(key), f'{where}.{key}' if where else key)
        return ''
    return f'{where}: {held!r} there, {wanted!r} here'


def _commit() -> str | None:
    """The commit of the source tree, None where it is no git checkout."""
    here = pathlib.Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ['git', '-C', str(here), 'describe', '--always', '--dirty', '--abbrev=12'], capture_output=True, text=True,
            timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _evaluate(
    experiment: Experiment, title: str, model: str, inputs: Inputs, workdir: pathlib.Path, folder: pathlib.Path
) -> None:
    """Measures a model once and enters its figures in summary.json."""
    summary = _summary(workdir, experiment)
    if title in summary['stages']:
        return
    summary['stages'][title] = evaluate.evaluate(
        load_model(model, inputs.decoding, inputs.dtype), experiment.evaluation, inputs.decoding, experiment.seed, title,
        folder / 'eval')
    if is_leader():
        _write_json(workdir / 'summary.json', summary)


def _write_json(path: pathlib.Path, value: object) -> None:
    """Writes in one rename, so that a crash leaves the old file or the new one."""
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + '\n')
    os.replace(temporary, path)
