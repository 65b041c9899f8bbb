"""Runs an experiment: its stages in order, each on what earlier ones left, the evaluations, summary and report.

The run's folder holds `manifest.json` (which experiment this is, and a hash of each stage's settings and inputs),
`stages/NAME/` and, at the end, `summary.json` and `report.html`. The same command goes on with an interrupted run: what is
done is skipped, what was begun resumes. A stage whose settings or inputs have changed since it was begun is refused until
`rerun` names it: then it is run again, and everything that depends on it.
"""

import dataclasses
import datetime
import hashlib
import json
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping

from ml_collections import ConfigDict

import r1jax
from r1jax.config import Experiment, config_hash, parse_experiment, to_dict
from r1jax.data import tasks
from r1jax.errors import Missing, UserError, nearest
from r1jax.models import transformer
from r1jax.models.config import Execution, ModelConfig
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.mesh import make_mesh
from r1jax.parallel.rules import DECODING, TRAINING, Sharding
from r1jax.runtime.checkpoint import load_model, read_config, resolve
from r1jax.runtime.files import write_json
from r1jax.runtime.report import build_report
from r1jax.runtime.summary import print_tables
from r1jax.stages import collect, evaluate, grpo, preferences, pretrain, reward_model, sft
from r1jax.stages.base import MODEL, Inputs, Made, StageKind

STAGES: dict[str, StageKind] = {
    'collect': collect.KIND,
    'grpo': grpo.KIND,
    'preferences': preferences.KIND,
    'pretrain': pretrain.KIND,
    'reward_model': reward_model.KIND,
    'sft': sft.KIND,
}
BASE = 'base'  # what stages call the experiment's own base among their inputs
# Of each file of an outside input that is no larger, the content is hashed; of a larger one its size.
HASHED_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment whose stages know where their inputs come from.

    Attributes:
        experiment: the experiment.
        inputs: stage -> role -> the name of an earlier stage, or a folder, file or 'package:NAME' from outside.
    """

    experiment: Experiment
    inputs: dict[str, dict[str, str]]

    @property
    def outside(self) -> dict[str, Made]:
        """The base and the inputs that no stage makes, each once, and what they must be."""
        stages = self.experiment.stages
        return ({self.experiment.base: 'model'} if self.experiment.base else {}) | {
            source: STAGES[stages[name].kind].wants(role) for name, roles in self.inputs.items()
            for role, source in roles.items() if source not in stages}

    def dependents(self, names: Collection[str]) -> list[str]:
        """Returns `names` and all stages that depend on them, in order."""
        found = set(names)
        for name, roles in self.inputs.items():
            if found & set(roles.values()):
                found.add(name)
        return [name for name in self.inputs if name in found]

    def hashes(self, fingerprints: Mapping[str, str]) -> dict[str, str]:
        """Returns a hash of each stage: its kind and settings, the seed and dtype, and the hashes of its inputs.

        Args:
            fingerprints: of every input of `outside`.
        """
        known = dict(fingerprints)
        for name, stage in self.experiment.stages.items():
            known[name] = config_hash({
                'kind': stage.kind, 'settings': to_dict(stage.config), 'seed': self.experiment.seed,
                'dtype': self.experiment.dtype,
                'inputs': {role: known[source] for role, source in self.inputs[name].items()}})
        return {name: known[name] for name in self.experiment.stages}


def plan(config: ConfigDict) -> Plan:
    """Parses an experiment and finds every stage's inputs.

    Raises:
        UserError: a wrong setting, or an input that is missing, of the wrong kind, unknown, or made only later.
    """
    experiment = parse_experiment(config, {kind: known.settings for kind, known in STAGES.items()}, evaluate.Evaluation)
    inputs: dict[str, dict[str, str]] = {}
    for name, stage in experiment.stages.items():
        kind = STAGES[stage.kind]
        roles = dict(stage.inputs)
        if MODEL in kind.takes and MODEL not in roles:
            made = [earlier for earlier in inputs if STAGES[experiment.stages[earlier].kind].makes == 'model']
            roles[MODEL] = made[-1] if made else BASE
        for role in roles:
            if role not in kind.takes and kind.more is None:
                raise UserError(f"stages.{name}.inputs: a stage of kind '{stage.kind}' takes no '{role}'"
                                f'{nearest(role, kind.takes)}')
        for role in kind.takes:
            if role not in roles:
                raise UserError(f"stages.{name}.inputs lacks '{role}': name a stage that makes it, or a folder")
        inputs[name] = {role: _source(experiment, name, role, source) for role, source in roles.items()}
    for place, _ in experiment.sources:
        if _at(to_dict(experiment), place) is None:
            raise UserError(f"sources: there is no setting '{place}'")
    return Plan(experiment, inputs)


def _at(settings: object, place: str) -> object:
    """The value at a path with dots, None where there is none."""
    for name in place.split('.'):
        settings = settings.get(name) if isinstance(settings, dict) else None
    return settings


def _source(experiment: Experiment, name: str, role: str, source: str) -> str:
    """One input of a stage: an earlier stage's name, or what lies outside."""
    where = f'stages.{name}.inputs.{role}'
    if source == BASE:
        if not experiment.base:
            raise UserError(f"{where}: there is no model to start from: set base, or put a stage before '{name}'")
        return experiment.base
    wanted = STAGES[experiment.stages[name].kind].wants(role)
    if source in experiment.stages:
        order = list(experiment.stages)
        if order.index(source) >= order.index(name):
            raise UserError(f"{where}: the stage '{source}' does not come before '{name}'")
        made = STAGES[experiment.stages[source].kind].makes
        if made != wanted:
            raise UserError(f"{where}: the stage '{source}' makes {_A[made]}, and {_A[wanted]} is wanted")
        return source
    if not source.startswith('package:') and '/' not in source and not pathlib.Path(source).exists():
        raise UserError(f"{where}: there is no stage or folder '{source}'{nearest(source, [BASE, *experiment.stages])}")
    return source


_A = {'model': 'a model', 'reward_model': 'a reward model', 'data': 'data'}


def run_experiment(
    config: ConfigDict, workdir: pathlib.Path, only: str | None = None, start: str | None = None,
    rerun: Collection[str] = (),
) -> pathlib.Path:
    """Runs what is not done yet and returns the path of the report.

    Args:
        config: as `config.load_experiment` returns it.
        workdir: the run's folder; made if absent.
        only: run this stage alone; what it is given must be done.
        start: leave the stages before this one alone; what the others are given of them must be done.
        rerun: run these stages again, and all that depends on them; what they had made is removed.

    Raises:
        UserError: if the config is wrong, or the folder holds another experiment (which is left as it is).
    """
    planned = plan(config)
    experiment = planned.experiment
    for flag, name in (('--only', only), ('--from', start), *(('--rerun', name) for name in rerun)):
        if name is not None and name not in experiment.stages:
            raise UserError(f'{flag}={name}: the experiment has no such stage{nearest(name, experiment.stages)}')
    mesh = make_mesh(experiment.mesh)
    check(planned, Sharding(mesh, TRAINING))
    workdir = pathlib.Path(workdir)
    _claim(workdir, planned, rerun)
    names = list(experiment.stages)
    chosen = [only] if only is not None else names[names.index(start) if start is not None else 0:]
    for name in chosen:
        _require_inputs(planned, workdir, name, chosen)
    for name in chosen:
        _run_stage(planned, workdir, name, mesh)
    if is_leader():
        print_tables(_summary(workdir, experiment))
        build_report(workdir)
    barrier('report')
    return workdir / 'report.html'


def check(planned: Plan, sharding: Sharding, missing: list[str] | None = None) -> dict[str, ModelConfig]:
    """Returns the description of each model that is given or made, by the name of its stage or its folder.

    Args:
        missing: where to note files and folders that are not there, instead of giving up at the first; what depends on
            them is not checked then.

    Raises:
        UserError: for all that can be known to fail before the first stage runs.
    """
    experiment = planned.experiment
    known: dict[str, ModelConfig | None] = {}

    def attempt(where: str, look: Callable[[], ModelConfig | None]) -> ModelConfig | None:
        try:
            return look()
        except Missing as error:
            if missing is None:
                raise
            missing.append(f'{where}: {error}')
        except UserError as error:
            raise UserError(str(error) if where in str(error) else f'{where}: {error}') from error
        return None

    for source, wanted in planned.outside.items():
        where = 'base' if source == experiment.base else 'inputs'
        known[source] = attempt(where, lambda: read_config(source) if wanted != 'data' else _check_exists(source))
    for name, stage in experiment.stages.items():
        roles = planned.inputs[name]
        if hasattr(stage.config, 'check_inputs'):
            attempt(f'stages.{name}', lambda: stage.config.check_inputs([role for role in roles if role != MODEL]))
        model = known.get(roles[MODEL]) if MODEL in roles else None
        if model is None and MODEL in roles:  # the folder is not there, which has been noted
            known[name] = None
            for task in getattr(stage.config, 'prompts_from', ()):
                attempt(f'stages.{name}', lambda: _check_task(task))
            continue
        known[name] = attempt(f'stages.{name}', lambda: stage.config.check(sharding, model))
    found = {name: model for name, model in known.items() if model is not None}
    for model in found.values():
        transformer.shardings(model, Sharding(sharding.mesh, DECODING))
    if experiment.evaluation:
        models = [model for model in found.values() if not model.scalar_head]
        for name, suite in experiment.evaluation.suites.items():
            attempt(f'evaluation.suites.{name}', lambda: suite.check(sharding, models))
    return found


def _check_exists(source: str) -> None:
    if not pathlib.Path(source).expanduser().exists():
        raise Missing(f'{source}: there is no such file or folder')


def _check_task(task: str) -> None:
    tasks.open_task(task, 'train')


def artifact_folder(planned: Plan, workdir: pathlib.Path, name: str) -> pathlib.Path:
    """Where a stage leaves what it makes."""
    made = STAGES[planned.experiment.stages[name].kind].makes
    return workdir / 'stages' / name / ('data' if made == 'data' else 'model')


def _require_inputs(planned: Plan, workdir: pathlib.Path, name: str, chosen: Collection[str]) -> None:
    for source in planned.inputs[name].values():
        if source in planned.experiment.stages and source not in chosen and not _done(workdir, source):
            raise UserError(f"stage '{name}' needs what '{source}' makes, which is not done: run that first")


def _done(workdir: pathlib.Path, name: str) -> bool:
    return (workdir / 'stages' / name / 'DONE').exists()


def _run_stage(planned: Plan, workdir: pathlib.Path, name: str, mesh) -> None:
    """Runs a stage unless it is done, and measures what it made."""
    experiment, stage = planned.experiment, planned.experiment.stages[name]
    if _done(workdir, name):
        return
    folder = workdir / 'stages' / name
    given = {
        role: str(artifact_folder(planned, workdir, source)) if source in experiment.stages else source
        for role, source in planned.inputs[name].items()}
    execution = Execution(experiment.dtype, experiment.scan_layers, experiment.remat)
    inputs = Inputs(name, experiment.seed, mesh, given.pop(MODEL, ''), execution, given)
    folder.mkdir(parents=True, exist_ok=True)
    if is_leader():
        write_json(folder / 'config.json', {'kind': stage.kind} | to_dict(stage.config))
    if experiment.evaluation and experiment.base and inputs.model == experiment.base:
        _evaluate(experiment, BASE, experiment.base, inputs, workdir, folder, {})
    artifact = STAGES[stage.kind].run(stage.config, inputs, folder)
    if STAGES[stage.kind].makes == 'model' and experiment.evaluation:
        _evaluate(experiment, name, str(artifact.folder), inputs, workdir, folder, artifact.figures)
    elif artifact.figures:
        _enter(experiment, name, artifact.figures, workdir)
    if is_leader():
        (folder / 'DONE').touch()
    barrier(f'{name} done')


def _summary(workdir: pathlib.Path, experiment: Experiment) -> dict:
    """What summary.json holds so far."""
    path = workdir / 'summary.json'
    if path.exists():
        return json.loads(path.read_text())
    return {'experiment': experiment.name, 'seed': experiment.seed, 'labels': {}, 'result': '', 'stages': {}}


def _enter(experiment: Experiment, name: str, figures: Mapping, workdir: pathlib.Path) -> None:
    """Writes a stage's figures into summary.json, in the order of the experiment's stages."""
    summary = _summary(workdir, experiment)
    summary['stages'][name] = dict(figures)
    order = [BASE, *experiment.stages]
    summary['stages'] = {key: summary['stages'][key] for key in order if key in summary['stages']}
    summary['labels'] = {key: stage.label for key, stage in experiment.stages.items() if stage.label}
    summary['result'] = experiment.result
    if is_leader():
        write_json(workdir / 'summary.json', summary)


def _evaluate(
    experiment: Experiment, title: str, model: str, inputs: Inputs, workdir: pathlib.Path, folder: pathlib.Path,
    figures: Mapping,
) -> None:
    """Measures a model once and enters its figures in summary.json, beside those of the stage itself."""
    if title in _summary(workdir, experiment)['stages']:
        return
    measured = evaluate.evaluate(
        load_model(model, inputs.decoding, inputs.execution), experiment.evaluation, inputs.decoding, experiment.seed, title,
        folder / 'eval')
    _enter(experiment, title, {**measured, **figures}, workdir)


# ---- manifest ----


def _claim(workdir: pathlib.Path, planned: Plan, rerun: Collection[str]) -> None:
    """Writes the manifest of a new run; or checks that the folder's run is this one, and clears what is to be run again."""
    path = workdir / 'manifest.json'
    description = to_dict(planned.experiment)
    fingerprints = {source: fingerprint(source) for source in planned.outside}
    hashes = planned.hashes(fingerprints)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    if path.exists():
        try:
            held = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f'{path} cannot be read, so {workdir} may hold another run: {error}') from error
        changed = _changed(workdir, planned, held, description, fingerprints)
        again = planned.dependents(rerun)
        for name, difference in changed.items():
            if name not in again and (workdir / 'stages' / name).exists():
                others = [other for other in planned.dependents([name]) if other != name]
                also = f' and what depends on it ({", ".join(others)})' if others else ''
                raise UserError(
                    f"{workdir}: stage '{name}' was run with other settings or inputs ({difference}): --rerun={name} runs "
                    f'it{also} again, or choose another --workdir; nothing was changed')
        created = held.get('created', created)
        if is_leader():
            for name in again:
                _remove(workdir, name, planned.experiment)
        barrier('cleared')
        if not changed and held.get('stages') is not None:
            return
    else:
        # A run that was killed while it wrote its manifest leaves the half-written file, whose name begins with a dot.
        try:
            if workdir.exists() and any(not path.name.startswith('.') for path in workdir.iterdir()):
                raise UserError(f'{workdir} is not empty and holds no run: choose another --workdir; nothing was changed')
            barrier('checked')  # before anything is there that another host would take for somebody's
            if is_leader():
                workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'{workdir} cannot be a run\'s folder: {error.strerror}') from error
    if is_leader():
        write_json(path, {
            'experiment': description,
            'stages': {name: {'hash': hashes[name], 'inputs': {
                role: {'from': source, 'hash': hashes.get(source) or fingerprints[source]}
                for role, source in planned.inputs[name].items()}} for name in planned.experiment.stages},
            'commit': _commit(),
            'version': r1jax.__version__,
            'created': created,
        })


def _changed(
    workdir: pathlib.Path, planned: Plan, held: dict, description: dict, fingerprints: dict[str, str]
) -> dict[str, str]:
    """Returns stage -> what is different, for all stages that are not as the manifest has them.

    Raises:
        UserError: what is different concerns the experiment as a whole.
    """
    recorded = _in_full(held.get('experiment', {}))
    general = [
        {key: value for key, value in whole.items() if key not in ('stages', 'sources', 'result', 'plan')}
        for whole in (recorded, description)]
    if config_hash(general[0]) != config_hash(general[1]):
        raise UserError(
            f"{workdir} holds another experiment ('{recorded.get('name')}', which differs in "
            f'{_first_difference(*general)}): choose another --workdir; nothing was changed')
    try:
        before = plan(ConfigDict(recorded))
    except UserError:
        return {name: 'its stages are no experiment today' for name in planned.experiment.stages}
    old = {
        given['from']: given['hash'] for stage in held.get('stages', {}).values() for given in stage['inputs'].values()
        if given['from'] not in before.experiment.stages}
    old_hashes = before.hashes({source: old.get(source) or fingerprints.get(source, '') for source in before.outside})
    changed = {}
    for name, digest in planned.hashes(fingerprints).items():
        if old_hashes.get(name) == digest:
            continue
        settings = [whole['stages'].get(name) for whole in (recorded, description)]
        if settings[0] is None:
            changed[name] = 'it is new'
        elif settings[0] != settings[1]:
            changed[name] = _first_difference(*settings) or 'its settings'
        else:
            roles = planned.inputs[name]
            source = next((s for s in roles.values() if s in changed or old.get(s) != fingerprints.get(s)), None)
            changed[name] = f"'{source}' has changed" if source else 'the order of the stages'
    return changed


def _remove(workdir: pathlib.Path, name: str, experiment: Experiment) -> None:
    """Removes what a stage has made, DONE first: a crash on the way leaves a stage that is not done."""
    folder = workdir / 'stages' / name
    (folder / 'DONE').unlink(missing_ok=True)
    if (workdir / 'summary.json').exists():
        summary = _summary(workdir, experiment)
        if summary['stages'].pop(name, None) is not None:
            write_json(workdir / 'summary.json', summary)
    shutil.rmtree(folder, ignore_errors=True)


def fingerprint(source: str) -> str:
    """SHA-256 of an input from outside: the names of its files with their content, or their size where they are large.

    Raises:
        UserError: there is no such file or folder.
    """
    path = pathlib.Path(source).expanduser()
    if source.startswith('package:'):
        path = resolve(source)
    else:
        _check_exists(source)
        path = path / 'model' if (path / 'model' / 'model.json').exists() else path
    files = sorted(file for file in path.rglob('*') if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f'{file.relative_to(path)}\0{size}\0'.encode())
        if size <= HASHED_BYTES:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _in_full(recorded: dict) -> dict:
    """A recorded experiment with today's defaults for settings that did not exist when it was recorded."""
    try:
        return to_dict(plan(ConfigDict(recorded)).experiment)
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
