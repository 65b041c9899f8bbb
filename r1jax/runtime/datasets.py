"""Data sets between stages: folders of Parquet files (zstd), each written in one rename; JSON lines are read as well.

A schema says which columns there are. One that may be null may also be missing in what others have made, and is read as '',
0 or False then.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from r1jax.errors import Missing, UserError

Row = dict[str, Any]


def _schema(needed: Mapping[str, pa.DataType], other: Mapping[str, pa.DataType]) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in needed.items()]
    return pa.schema(fields + [pa.field(name, kind) for name, kind in other.items()])


# What a model is fine-tuned on.
EXAMPLES = _schema(
    {'prompt': pa.string(), 'completion': pa.string()},
    {'task': pa.string(), 'kind': pa.string(), 'language': pa.string(), 'answer': pa.string(), 'id': pa.string(),
     'source': pa.string(),    # 'reasoning' or 'general'
     'n_tokens': pa.int32()})  # of the completion
# Two responses of which one is better; what a pairwise reward model is trained on.
PAIRS = _schema(
    {'prompt': pa.string(), 'chosen': pa.string(), 'rejected': pa.string()},
    {'question': pa.string(),  # the prompt without a template around it
     'task': pa.string(), 'language': pa.string(), 'id': pa.string(),
     'margin': pa.float32(),   # by how much the judge rates one above the other
     'votes': pa.int32(),      # judgements behind it
     'agreed': pa.bool_()})    # whether both orders of presentation gave the same
# Responses that are safe or not; what a pointwise reward model is trained on.
LABELS = _schema(
    {'prompt': pa.string(), 'response': pa.string(), 'safe': pa.bool_()},
    {'question': pa.string(), 'task': pa.string(), 'language': pa.string(), 'id': pa.string()})


def write(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pathlib.Path:
    """Writes `rows` to the Parquet file `path` in one rename: readers see the old file, the new one or none.

    Args:
        path: folders above it are made, a file that is there is replaced.
        rows: mappings with exactly the columns of the schema; None where a column may be null.

    Raises:
        ValueError: for a row with a column missing or one too many, or a value of another type.
    """
    path = pathlib.Path(path)
    for row in rows:
        if row.keys() != set(schema.names):
            missing, unknown = set(schema.names) - row.keys(), row.keys() - set(schema.names)
            raise ValueError(f'a row of {path.name} lacks {sorted(missing)} and has the unknown {sorted(unknown)}')
    stored = [{name: _storable(value) for name, value in row.items()} for row in rows]
    try:
        table = pa.Table.from_pylist(stored, schema=schema)
        empty = [field.name for field in schema if not field.nullable and table[field.name].null_count]
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f'{path.name}: {error}') from error
    if empty:
        raise ValueError(f"{path.name}: the column '{empty[0]}' must not be null")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.tmp')
    with temporary.open('wb') as file:
        pq.write_table(table, file, compression='zstd')
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def read(path: str | os.PathLike[str], schema: pa.Schema) -> list[Row]:
    """Reads all *.parquet of a folder in the order of their names, or one .parquet or .jsonl file.

    Returns:
        One dictionary a row with the columns of the schema in its order, none of them None; other columns are left out.

    Raises:
        UserError: naming file and column (and line, in JSON), where there is nothing to read, a file is damaged, a column
            that must be there is not, or a value is null or of another type.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        files = sorted(path.glob('[!.]*.parquet'))
        if not files:
            raise UserError(f'{path}: the folder holds no *.parquet')
    elif not path.is_file():
        raise Missing(f'{path}: there is no such folder or file of data')
    elif path.suffix not in ('.parquet', '.jsonl'):
        raise UserError(f'{path}: data are read from a folder of *.parquet, a .parquet or a .jsonl file')
    else:
        files = [path]
    readers = {'.jsonl': _read_jsonl, '.parquet': _read_parquet}
    return [row for file in files for row in readers[file.suffix](file, schema)]


def _read_parquet(path: pathlib.Path, schema: pa.Schema) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
        there = set(file.schema_arrow.names)
        _require(path, schema, there)
        table = file.read(columns=[name for name in schema.names if name in there])
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f'{path} cannot be read as Parquet: {_first_line(error)}') from error
    columns = {}
    for field in schema:
        if field.name not in there:
            columns[field.name] = [_default(field)] * table.num_rows
            continue
        try:
            values = table[field.name].cast(field.type).to_pylist()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{path}: the column '{field.name}' is not {field.type}: {_first_line(error)}") from error
        columns[field.name] = [_filled(value, field, path) for value in values]
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(schema.names, values, strict=True))


def _read_jsonl(path: pathlib.Path, schema: pa.Schema) -> Iterator[Row]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f'{where} is not valid JSON: {error}') from error
        if not isinstance(row, dict):
            raise UserError(f'{where} is no JSON object')
        _require(where, schema, row)
        filled = {}
        for field in schema:
            value = row.get(field.name)
            try:
                # Arrow knows what fits into which type, and refuses what does not.
                filled[field.name] = _filled(pa.scalar(_storable(value), field.type).as_py(), field, where)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                raise UserError(f"{where}: the column '{field.name}' is not {field.type}: {value!r}") from error
        yield filled


def _require(where: object, schema: pa.Schema, there: object) -> None:
    for field in schema:
        if not field.nullable and field.name not in there:
            raise UserError(f"{where}: the column '{field.name}' is missing")


def _filled(value: Any, field: pa.Field, where: object) -> Any:
    if value is not None:
        return value
    if not field.nullable:
        raise UserError(f"{where}: the column '{field.name}' has a null, which it must not")
    return _default(field)


def _default(field: pa.Field) -> str | int | float | bool:
    if pa.types.is_string(field.type):
        return ''
    if pa.types.is_boolean(field.type):
        return False
    return 0.0 if pa.types.is_floating(field.type) else 0


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        # A lone surrogate, from a data set's JSON say, is no valid UTF-8 and would cost the whole file.
        return value.encode('utf-8', 'surrogatepass').decode('utf-8', 'replace')
    return value
