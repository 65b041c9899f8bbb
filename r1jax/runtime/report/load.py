"""Reads a run's folder for the report, taking what is there and noting what cannot be read."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from typing import Any

import pyarrow as pa

from r1jax.errors import UserError
from r1jax.runtime.metrics import read_metrics
from r1jax.runtime.report import models
from r1jax.runtime.rollouts import read_rollouts, steps_in


@dataclasses.dataclass(frozen=True)
class Stage:
    """One folder stages/NAME. `metrics` has one entry a step, in ascending order.

    `card` is what a stage that makes data says of them, `reward` and `calibration` what one that makes a reward model
    says of that; {} elsewhere.
    """
    name: str
    folder: pathlib.Path
    done: bool
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    rollout_steps: list[int]
    eval_files: list[pathlib.Path]
    card: dict[str, Any]
    reward: dict[str, Any]
    calibration: dict[str, Any]

    @functools.cached_property
    def steps(self) -> list[int]:
        return [line['step'] for line in self.metrics]

    @functools.cached_property
    def metric_names(self) -> list[str]:
        """Every metric of the stage, in the order in which they first appear."""
        names = {name: None for line in self.metrics for name in line}
        return [name for name in names if name not in ('step', 'time', 'nonfinite')]

    @property
    def started(self) -> float:
        """Seconds since 1970 of the first step; infinity if none was recorded."""
        return self.metrics[0].get('time', math.inf) if self.metrics else math.inf

    @property
    def seconds(self) -> float | None:
        """From the first line of metrics to the last: a pause before a resume counts."""
        times = [line['time'] for line in self.metrics if 'time' in line]
        return times[-1] - times[0] if len(times) > 1 else None

    def column(self, name: str) -> list[float | None]:
        """The metric at each of `steps`; None where it is absent or was not finite."""
        return [line.get(name) for line in self.metrics]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder. `unreadable` collects one sentence for each file that could not be read."""
    workdir: pathlib.Path
    summary: dict[str, Any]
    manifest: dict[str, Any]
    stages: list[Stage]
    unreadable: list[str]

    def fact(self, name: str, default: Any = None) -> Any:
        """A value of summary.json, or else of manifest.json."""
        described = {'experiment': self.described.get('name'), 'seed': self.described.get('seed')}
        for source in (self.summary, described, self.manifest):
            value = source.get(name)
            if value is not None and not isinstance(value, (dict, list)):
                return value
        return default

    @property
    def described(self) -> dict[str, Any]:
        """The experiment as the manifest has it; {} without one."""
        experiment = self.manifest.get('experiment')
        return experiment if isinstance(experiment, dict) else {}

    @property
    def planned(self) -> dict[str, dict[str, Any]]:
        """The experiment's stages in their order, with their settings, as the manifest has them; {} without one."""
        planned = self.described.get('stages')
        return {name: settings if isinstance(settings, dict) else {} for name, settings in planned.items()} \
            if isinstance(planned, dict) else {}

    @property
    def evaluated(self) -> list[str]:
        """The models that summary.json has figures for, in its order."""
        return models.models_of(self.summary)

    def note(self, sentence: str) -> None:
        """Adds a sentence to `unreadable`, once."""
        if sentence not in self.unreadable:
            self.unreadable.append(sentence)

    def rollouts(self, path: pathlib.Path, columns: list[str] | None = None) -> pa.Table | None:
        """The table of one Parquet file; None, and a note in `unreadable`, if it cannot be read."""
        try:
            return read_rollouts(path, columns=columns)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            self.note(f'{path.relative_to(self.workdir)} cannot be read as rollouts: {reason}')
            return None


def load_run(workdir: str | os.PathLike[str]) -> Run:
    """Reads everything but the Parquet files.

    Raises:
      UserError: if `workdir` is no folder, or holds neither summary.json nor stages/.
    """
    workdir = pathlib.Path(workdir)
    if not workdir.is_dir():
        raise UserError(f'{workdir}: there is no such folder to report on')
    if not (workdir / 'summary.json').exists() and not (workdir / 'stages').is_dir():
        raise UserError(f'{workdir}: this is no run\'s folder, for it has neither summary.json nor stages/')
    unreadable: list[str] = []
    summary = _read_object(workdir, workdir / 'summary.json', unreadable)
    manifest = _read_object(workdir, workdir / 'manifest.json', unreadable)
    folders = [path for path in sorted((workdir / 'stages').glob('[!.]*')) if path.is_dir()]
    stages = [_load_stage(workdir, folder, unreadable) for folder in folders]
    # In the order that the run recorded; stages it does not name follow in the order of their first step.
    run = Run(workdir, summary, manifest, stages, unreadable)
    order = {name: i for i, name in enumerate(run.planned or summary.get('stages') or ())}
    stages.sort(key=lambda stage: (order.get(stage.name, len(order)), stage.started))
    return run


def _load_stage(workdir: pathlib.Path, folder: pathlib.Path, unreadable: list[str]) -> Stage:
    by_step: dict[int, dict[str, Any]] = {}
    for line in read_metrics(folder):  # a step may have several lines, of training and of a test say
        merged = by_step.setdefault(line['step'], {})
        nonfinite = merged.get('nonfinite', []) + line.get('nonfinite', [])
        merged |= line
        if nonfinite:
            merged['nonfinite'] = nonfinite
    return Stage(
        name=folder.name, folder=folder, done=(folder / 'DONE').exists(),
        config=_read_object(workdir, folder / 'config.json', unreadable),
        metrics=[by_step[step] for step in sorted(by_step)], rollout_steps=steps_in(folder / 'rollouts'),
        eval_files=sorted((folder / 'eval').glob('[!.]*.parquet')),
        card=_read_object(workdir, folder / 'data' / 'card.json', unreadable),
        reward=_read_object(workdir, folder / 'model' / 'reward.json', unreadable),
        calibration=_read_object(workdir, folder / 'calibration.json', unreadable))


def _read_object(workdir: pathlib.Path, path: pathlib.Path, unreadable: list[str]) -> dict[str, Any]:
    """The JSON object in `path`; {} without the file, or if it cannot be read, which is then noted."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        unreadable.append(f'{path.relative_to(workdir)} is not valid JSON: {error}')
        return {}
    if not isinstance(value, dict):
        unreadable.append(f'{path.relative_to(workdir)} does not hold a JSON object')
        return {}
    return value
