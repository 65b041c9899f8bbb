"""A stage's numbers over time: one JSON object a line in metrics.jsonl, and the same scalars for TensorBoard.

metrics.jsonl is the record (the report reads it); the TensorBoard events are for watching a run. A line is

    {"step": 12, "time": 1767225600.0, "reward/mean": 0.41, "kl_ref": null, "nonfinite": ["kl_ref"]}

with `time` in seconds since 1970 (UTC). JSON knows neither NaN nor infinity: such a value is written as null
and its name is listed under `nonfinite`, which is absent when every value is finite. In a run of several
hosts only one host writes.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, SupportsFloat

FILE_NAME = 'metrics.jsonl'
RESERVED = ('step', 'time', 'nonfinite')


class MetricWriter:
    """Appends metrics to `folder`/metrics.jsonl and `folder`/tensorboard; a context manager.

    Args:
      folder: the stage's folder, made if absent.
      last_step: the last step the run keeps, i.e. the step of the checkpoint it goes on from; -1 starts over.
        Lines of later steps, and a last line cut short by a crash, are removed; TensorBoard is told to forget
        the same steps.
      enabled: False writes nothing, for the hosts that only follow.
    """

    def __init__(self, folder: str | os.PathLike[str], last_step: int = -1, *, enabled: bool = True):
        self._enabled, self._last_step = enabled, last_step
        if not enabled:
            return
        import tensorboardX  # here, because it loads torch where that is installed

        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / FILE_NAME
        truncate(self._path, last_step)
        self._file = self._path.open('a', encoding='utf-8')
        # An event file's name tells seconds; the suffix keeps two writers opened within one second apart.
        self._tensorboard = tensorboardX.SummaryWriter(
            str(self._folder / 'tensorboard'), purge_step=last_step + 1, flush_secs=10,
            filename_suffix=f'.{os.getpid()}.step_{last_step + 1}')

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Appends one line, flushed to the operating system before the call returns.

        Args:
          step: never below the step written before.
          metrics: name -> scalar (Python, NumPy or a jax array of one element).

        Raises:
          ValueError: for a step that goes back, or a metric that bears a reserved name.
        """
        if step < self._last_step:
            raise ValueError(f'step {step} after step {self._last_step}: metrics are written in order')
        if not self._enabled:
            return
        reserved = [name for name in metrics if name in RESERVED]
        if reserved:
            raise ValueError(f'a metric may not be named {reserved[0]!r}: metrics.jsonl uses that name')
        now = time.time()
        values = {name: float(value) for name, value in metrics.items()}
        nonfinite = [name for name, value in values.items() if not math.isfinite(value)]
        line: dict[str, Any] = {'step': int(step), 'time': round(now, 3)}
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        if nonfinite:
            line['nonfinite'] = nonfinite
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + '\n')
        self._file.flush()
        self._last_step = step
        for name, value in values.items():
            if math.isfinite(value):
                self._tensorboard.add_scalar(name, value, step, walltime=now)

    def close(self) -> None:
        """Writes out what is buffered; a second call does nothing."""
        if self._enabled and not self._file.closed:
            self._file.close()
            self._tensorboard.close()

    def __enter__(self) -> 'MetricWriter':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of `folder`/metrics.jsonl in order, without a half-written last one; [] without the file."""
    path = pathlib.Path(folder) / FILE_NAME
    return [line for _, line in _whole_lines(path)] if path.exists() else []


def truncate(path: pathlib.Path, last_step: int) -> None:
    """Removes the lines of steps after `last_step`, and whatever is not a whole line, from a metrics.jsonl.

    The shorter file replaces the old one in a single rename, so that a crash here loses nothing.
    """
    if not path.exists():
        return
    kept = b''.join(raw for raw, line in _whole_lines(path) if line['step'] <= last_step)
    if len(kept) == path.stat().st_size:
        return
    temporary = path.with_name(f'.{path.name}.tmp')
    with temporary.open('wb') as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _whole_lines(path: pathlib.Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields (raw bytes with the newline, parsed object) of each line that is complete and has a step."""
    with path.open('rb') as file:
        for raw in file:
            try:
                line = json.loads(raw)
            except ValueError:  # cut short by a crash, or not UTF-8 for the same reason
                continue
            if raw.endswith(b'\n') and isinstance(line, dict) and isinstance(line.get('step'), int):
                yield raw, line
