"""Scores stored completions: rows of JSON lines or Parquet in, the same rows in the same order with their rewards out.

A row holds `completion` and what its rewards need: `prompt`, `answer` (the gold answer), `task` (it routes the accuracy
reward), `language`, `tests`, `options`, `n_tokens`, ... as `base.Example` and `base.Completion` have them. It comes back
with `reward` (the weighted sum), `rewards` (each component) and `error`: null, or why the row could not be scored, and then
the other two are null. A reward is never 0 because something went wrong.

What is scored so far lies beside the output, so that the same call goes on where it was stopped.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1jax.errors import UserError
from r1jax.rewards.base import Completion, Example, short_name
from r1jax.rewards.mix import RewardMix
from r1jax.rewards.pool import WorkerPool
from r1jax.runtime.files import write_json
from r1jax.runtime.progress import Progress

SUFFIXES = ('.jsonl', '.parquet')
# Rows that are scored together, and written together.
BATCH = 256
_TEXT = ('prompt', 'answer', 'task', 'language', 'kind', 'id', 'question', 'response')


@dataclasses.dataclass(frozen=True)
class Scored:
    """What became of a file.

    Attributes:
        rows: how many there are; blank lines do not count.
        failed: how many could not be scored.
        errors: of the first of them, 'line 3: what is wrong' (Parquet: 'row 3').
        reward, rewards: means over the rows that were scored, of the sum and of each component; None without any.
    """

    rows: int
    failed: int
    errors: tuple[str, ...]
    reward: float | None
    rewards: Mapping[str, float | None]


def score_file(
    source: pathlib.Path, out: pathlib.Path, weights: str, *, options: Mapping[str, Mapping[str, Any]] | None = None,
    prefilled: bool = False, workers: int = 2, timeout_s: float = 5.0,
) -> Scored:
    """Scores a file in killable workers, see `RewardMix` for the arguments that are not explained here.

    Args:
        source, out: .jsonl or .parquet, each of its own kind; `out` must not exist.

    Raises:
        UserError: for files of another kind, a source that is not there or no Parquet, an output that is there already, one
            that was begun with another source or other rewards, and bad rewards.
    """
    for path in (source, out):
        if path.suffix not in SUFFIXES:
            raise UserError(f"'{path}': rows are read from and written to {' or '.join(SUFFIXES)} files")
    if not source.is_file():
        raise UserError(f"there is no file '{source}'")
    if out.exists():
        raise UserError(f"'{out}' exists already: name another file, or remove it")
    with WorkerPool(workers, timeout_s) as pool:
        mix = RewardMix(weights, options=options, prefilled=prefilled, pool=pool)
        recipe = {
            'source': _digest(source), 'rewards': dict(mix.weights),
            'options': {k: dict(v) for k, v in (options or {}).items()}, 'prefilled': prefilled}
        part = out.with_name(f'.{out.name}.part')
        done = _begun(part, recipe, out)
        lines = _rows(source)
        with part.open('ab') as file, Progress(_count(source), 'score', start=done) as progress:
            for batch in _batches(lines, done):
                scored = _score(mix, [row for _, row in batch], done, timeout_s)
                for (where, row), (reward, rewards, error) in zip(batch, scored, strict=True):
                    row = {} if isinstance(row, str) else row
                    told = error and f'{where}: {error}'
                    file.write(_line({**row, 'reward': reward, 'rewards': rewards, 'error': told}))
                file.flush()
                done += len(batch)
                progress.update(done)
    scored = _summary(part, [short_name(name) for name in mix.weights.names])
    if out.suffix == '.parquet':
        _to_parquet(part, out)
        part.unlink()
    else:
        os.replace(part, out)
    _recipe_of(part).unlink()
    return scored


def _digest(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'blake2b').hexdigest()


def _recipe_of(part: pathlib.Path) -> pathlib.Path:
    return part.with_name(f'{part.name}.json')


def _begun(part: pathlib.Path, recipe: Mapping[str, Any], out: pathlib.Path) -> int:
    """Returns how many rows an earlier call has scored, and cuts off half a line that it may have left."""
    told = _recipe_of(part)
    if not part.exists() or not told.exists():
        part.unlink(missing_ok=True)
        write_json(told, recipe)
        return 0
    before = json.loads(told.read_text())
    for name, value in json.loads(json.dumps(recipe)).items():
        if before.get(name) != value:
            raise UserError(
                f"'{out}' was begun with other {name} than now: name another file, or remove '{part}' to begin anew")
    done, end = 0, 0
    with part.open('rb+') as file:
        for line in file:
            if not line.endswith(b'\n'):
                break
            done, end = done + 1, end + len(line)
        file.truncate(end)
    return done


def _rows(source: pathlib.Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yields ('line 3', the row), or what is wrong with it."""
    if source.suffix == '.parquet':
        rows = (row for batch in _parquet(source).iter_batches(BATCH) for row in batch.to_pylist())
        yield from ((f'row {number}', row) for number, row in enumerate(rows, start=1))
        return
    with source.open('rb') as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                row = row if isinstance(row, dict) else 'no JSON object'
            except ValueError as error:
                row = f'not valid JSON: {error}'
            yield f'line {number}', row


def _count(source: pathlib.Path) -> int:
    rows = _parquet(source).metadata.num_rows if source.suffix == '.parquet' else sum(1 for _ in _rows(source))
    return max(1, rows)


def _parquet(source: pathlib.Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f'{source} cannot be read as Parquet: {str(error).splitlines()[0]}') from error


def _batches(rows: Iterator[tuple[str, Any]], done: int) -> Iterator[list[tuple[str, Any]]]:
    batch = []
    for index, row in enumerate(rows):
        if index < done:
            continue
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(row: Mapping[str, Any], number: int) -> tuple[Completion, Example]:
    """Raises UserError for a field of another type."""
    text = row.get('completion')
    if not isinstance(text, str):
        raise UserError("it has no text under 'completion'")
    values: dict[str, Any] = {}
    for name in _TEXT:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise UserError(f"'{name}' is no text: {value!r:.60}")
        values[name] = value or ''
    n_tokens, finished = row.get('n_tokens') or 0, row.get('finished')
    if not isinstance(n_tokens, int) or finished is not None and not isinstance(finished, bool):
        raise UserError("'n_tokens' must be a whole number and 'finished' true or false")
    options = row.get('options') or ()
    options = options.split('\n') if isinstance(options, str) else options
    tests = row.get('tests') or ''
    if not isinstance(options, Sequence) or not isinstance(tests, str | list):
        raise UserError("'options' and 'tests' must be texts or lists")
    return (
        Completion(text, n_tokens, finished is not False, key=number),
        Example(**values, tests=tests, options=tuple(map(str, options))))


Result = tuple[float | None, dict[str, float | None] | None, str | None]


def _score(mix: RewardMix, rows: Sequence[Any], first: int, timeout_s: float) -> list[Result]:
    """Returns reward, rewards and error of each row, of which `first` is the number of the first."""
    results: list[Result | None] = [None] * len(rows)
    read = []
    for index, row in enumerate(rows):
        try:
            if isinstance(row, str):
                raise UserError(row)
            read.append((index, *_read(row, first + index)))
        except UserError as error:
            results[index] = None, None, str(error)
    names = [short_name(name) for name in mix.weights.names]

    def attempt(some: list[tuple[int, Completion, Example]]) -> None:
        if not some:
            return
        try:
            output = mix([completion for _, completion, _ in some], [example for _, _, example in some])
        except Exception as error:  # whatever a user's reward may raise: it is this row's error, if it is one row's
            if len(some) == 1:
                name = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
                results[some[0][0]] = None, None, f'{name}{error}'
                return
            attempt(some[:len(some) // 2])
            attempt(some[len(some) // 2:])
            return
        for place, (index, _, _) in enumerate(some):
            if output.info['timeouts'][place]:
                results[index] = None, None, f'its rewards took more than {timeout_s:g} s'
            elif output.info['crashes'][place]:
                results[index] = None, None, 'its rewards crashed their process'
            else:
                parts = {name: float(output.info[name][place]) for name in names}
                results[index] = float(output.values[place]), {
                    name: None if math.isnan(value) else value for name, value in parts.items()}, None

    attempt(read)
    return results


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, default=str) + '\n').encode()


def _summary(part: pathlib.Path, names: Sequence[str]) -> Scored:
    rows, errors, total, sums, counts = 0, [], 0.0, dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    failed = 0
    with part.open('rb') as file:
        for line in file:
            row = json.loads(line)
            rows += 1
            if row['error'] is not None:
                failed += 1
                errors += [row['error']] if len(errors) < 10 else []
                continue
            total += row['reward']
            for name, value in row['rewards'].items():
                if value is not None:
                    sums[name] += value
                    counts[name] += 1
    scored = rows - failed
    return Scored(
        rows, failed, tuple(errors), total / scored if scored else None,
        {name: sums[name] / counts[name] if counts[name] else None for name in names})


def _to_parquet(part: pathlib.Path, out: pathlib.Path) -> None:
    with part.open('rb') as file:
        rows = [json.loads(line) for line in file]
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"'{out}': rows have values of several types: {str(error).splitlines()[0]}") from error
    temporary = out.with_name(f'.{out.name}.tmp')
    pq.write_table(table, temporary, compression='zstd')
    os.replace(temporary, out)
