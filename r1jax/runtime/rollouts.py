"""What the model wrote, with what it was paid: completions as Parquet (zstd), one file a step.

The columns are SCHEMA, the same for training rollouts and for evaluation samples, so that any Parquet reader
can load a folder as one table. `rewards` is a map: stages differ in their components and the schema must not. All that a
reward function reads of a problem is there (`stages.rollout.read_row`), so that a file can be scored again.
"""

import os
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1jax.errors import UserError
from r1jax.runtime import datasets

SCHEMA = pa.schema([
    ('step', pa.int32()),              # the rollout that the completion belongs to; 0 in an evaluation
    ('prompt_id', pa.int64()),         # position of the problem in its task: in one task, the same id is the same problem
    ('sample', pa.int32()),            # which of the prompt's G samples
    ('task', pa.string()),             # family of the problem, e.g. 'arithmetic'
    ('kind', pa.string()),             # finer kind within the family
    ('language', pa.string()),         # ISO code of the prompt's language
    ('difficulty', pa.int32()),
    ('prompt', pa.string()),           # as the model saw it, template included
    ('completion', pa.string()),       # decoded, without the end-of-sequence token
    ('answer', pa.string()),           # the gold answer
    ('reward', pa.float32()),          # the weighted total
    ('rewards', pa.map_(pa.string(), pa.float32())),  # each component before its weight
    ('advantage', pa.float32()),
    ('n_tokens', pa.int32()),          # length of the completion with its end-of-sequence token
    ('finished', pa.bool_()),          # False: cut at the maximum length
    ('reflection_words', pa.int32()),  # occurrences in the completion
    ('logprob_mean', pa.float32()),    # log-probability it was sampled with: mean over the tokens, in nats
    ('id', pa.string()),               # the problem's name in its data set
    ('question', pa.string()),         # the prompt without a template around it
    ('options', pa.list_(pa.string())),  # texts of a multiple-choice question
    ('tests', pa.string()),            # of code: asserts, or cases as JSON
])
# Columns that older files lack. They are read as null.
LATER = ('id', 'question', 'options', 'tests')
_STEP_FILE = re.compile(r'step_(\d+)\.parquet')


def step_path(folder: str | os.PathLike[str], step: int) -> pathlib.Path:
    """The file of a step: `folder`/step_000012.parquet."""
    return pathlib.Path(folder) / f'step_{step:06d}.parquet'


def write_rollouts(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> pathlib.Path:
    """Writes `rows` to the Parquet file `path` in one rename: readers see the old file, the new one or none.

    Args:
      path: usually step_path(folder, step); folders above it are made, a file that is there is replaced.
      rows: one mapping a completion with exactly the columns of SCHEMA; `rewards` maps component -> value,
        and a value may be None where it is unknown.

    Raises:
      ValueError: for a row with a column missing or one too many.
    """
    return datasets.write(path, rows, SCHEMA)


def steps_in(folder: str | os.PathLike[str]) -> list[int]:
    """The steps that `folder` holds a file of, in ascending order; [] if there is no such folder."""
    names = (_STEP_FILE.fullmatch(path.name) for path in pathlib.Path(folder).glob('step_*.parquet'))
    return sorted(int(name[1]) for name in names if name)


def read_rollouts(path: str | os.PathLike[str], steps: Collection[int] | None = None,
                  columns: Iterable[str] | None = None) -> pa.Table:
    """Reads a folder of Parquet files in the order of their names, or one file, as one table.

    Args:
      path: a folder such as stages/NAME/rollouts, or a single .parquet file.
      steps: only the files of these steps (step_NNNNNN.parquet); None for every .parquet file of the folder.
      columns: only these columns of SCHEMA, in this order; None for all.

    Returns:
      A table with the columns of SCHEMA, empty if a folder holds no file; a column of LATER that a file lacks is null.

    Raises:
      UserError: if there is no such path, or a step that was asked for is not there.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(f'{path}: there is no such folder or file of rollouts')
    if steps is not None:
        files = [step_path(path, step) for step in sorted(steps)]
        absent = [file.name for file in files if not file.exists()]
        if absent:
            present = _span(steps_in(path))
            raise UserError(f'{path}: no rollouts in {absent[0]}; the folder has steps {present}')
    else:
        files = [path] if path.is_file() else sorted(path.glob('[!.]*.parquet'))
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    return pa.concat_tables(_read(file, schema) for file in files) if files else schema.empty_table()


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The table's rows as write_rollouts takes them: `rewards` is a dictionary again."""
    rows = table.to_pylist()
    for row in rows:
        if row.get('rewards') is not None:
            row['rewards'] = dict(row['rewards'])
    return rows


def _read(file: pathlib.Path, schema: pa.Schema) -> pa.Table:
    there = pq.read_schema(file).names
    present = pa.schema([field for field in schema if field.name in there or field.name not in LATER])
    table = pq.read_table(file, columns=present.names, partitioning=None).cast(present)
    for index, field in enumerate(schema):
        if field.name not in present.names:
            table = table.add_column(index, field, pa.nulls(table.num_rows, field.type))
    return table


def _span(steps: list[int]) -> str:
    return f'{steps[0]} to {steps[-1]}' if steps else 'none'
