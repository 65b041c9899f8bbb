"""Progress of long work on the standard output: a bar on a terminal, now and then a line in a log file."""

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

# How a shown value is written; any other name gets four significant digits.
_FORMATS = {'pass_rate': '{:.1%}', 'format_rate': '{:.1%}', 'length': '{:,.0f}', 'tokens_per_s': '{:,.0f}'}
_LABELS = {'tokens_per_s': 'tokens/s'}
# Weight of the newest step in the mean of seconds per step: steps of RL grow longer with the completions.
_NEWEST = 0.2


class Progress:
    """Shows how far a loop is, its latest numbers and the time left. A context manager.

        with Progress(total=200, title='r1_zero', start=12) as progress:
            for step in range(12, 200):
                ...
                progress.update(step + 1, reward=0.41, pass_rate=0.37, length=143, tokens_per_s=5120)

    On a terminal it is one live bar; what the program prints meanwhile appears above it. Elsewhere it is a
    line for the first and the last update and at most one every `every_s` seconds between them.

    Args:
      total: steps of the whole work, at least 1.
      title: what is being done.
      start: steps that were done before (a resumed stage); the estimate of the time left passes over them.
      every_s: seconds between plain lines.
      enabled: False shows nothing, for the hosts that only follow.
      stream: where to write; the standard output by default.
    """

    def __init__(self, total: int, title: str, *, start: int = 0, every_s: float = 10.0, enabled: bool = True,
                 stream: TextIO | None = None):
        self._total, self._title, self._every_s, self._enabled = total, title, every_s, enabled
        self._done = start
        self._stream = sys.stdout if stream is None else stream
        self._seconds_per_step: float | None = None
        self._last_update = time.monotonic()
        self._last_line: float | None = None
        self._last_text = ''
        self._bar: RichProgress | None = None
        console = Console(file=self._stream)
        if enabled and console.is_terminal and not console.is_dumb_terminal:
            # Markup stays off: the text holds what a stage was named, which may contain brackets.
            self._bar = RichProgress(
                TextColumn('{task.description}', markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
                TextColumn('{task.fields[text]}', markup=False), console=console)
            self._task = self._bar.add_task(title, total=total, completed=start, text='')

    def update(self, step: int, **shown: float) -> None:
        """Tells that `step` steps of `total` are done, and what to show beside that (reward, ...)."""
        now = time.monotonic()
        if step > self._done:
            latest = (now - self._last_update) / (step - self._done)
            before = latest if self._seconds_per_step is None else self._seconds_per_step
            self._seconds_per_step = before + _NEWEST * (latest - before)
            self._last_update = now
        self._done = step
        parts = [f'{_LABELS.get(name, name.replace("_", " "))} {_FORMATS.get(name, "{:.4g}").format(value)}'
                 for name, value in shown.items()]
        if self._seconds_per_step is not None and step < self._total:
            parts.append(f'left {clock(self._seconds_per_step * (self._total - step))}')
        self._last_text = '  '.join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._last_text)
        elif self._last_line is None or step >= self._total or now - self._last_line >= self._every_s:
            self._line(now)

    def _line(self, now: float) -> None:
        if self._enabled:
            share = self._done / max(self._total, 1)
            print(f'{self._title}  {self._done}/{self._total} ({share:.0%})  {self._last_text}'.rstrip(),
                  file=self._stream, flush=True)
            self._last_line = now

    def __enter__(self) -> 'Progress':
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if exc_type is not None and self._enabled:
            print(f'{self._title}  stopped at {self._done}/{self._total}', file=self._stream, flush=True)


def clock(seconds: float) -> str:
    """A duration as h:mm:ss, with days in front from one day on: '0:01:30', '2d 3:00:00'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f'{days}d ' if days else '') + f'{hours}:{minutes:02d}:{seconds:02d}'
