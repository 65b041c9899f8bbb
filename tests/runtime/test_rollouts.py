"""Rollouts: what is written comes back, whole or not at all."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1jax.errors import UserError
from r1jax.runtime import rollouts
from r1jax.runtime.rollouts import LATER, SCHEMA, as_rows, read_rollouts, step_path, steps_in, write_rollouts


def row(step=1, sample=0, **changes):
    return {'step': step, 'prompt_id': 2**40 + 1, 'sample': sample, 'task': 'logic', 'kind': 'order',
            'language': 'de', 'difficulty': 2, 'prompt': 'Wer?', 'completion': '<think>天</think>',
            'answer': 'Ana', 'reward': 1.5, 'rewards': {'accuracy': 1.0, 'format': 0.5}, 'advantage': -0.25,
            'n_tokens': 7, 'finished': True,
            'reflection_words': 0, 'logprob_mean': -1.5, 'id': 'order-7', 'question': 'Wer?',
            'options': ['Ana', 'Bo'], 'tests': ''} | changes


def test_rows_come_back_as_they_were(tmp_path):
    rows = [row(sample=0), row(sample=1, rewards={}, finished=False, advantage=None)]
    path = write_rollouts(step_path(tmp_path / 'rollouts', 12), rows)
    assert path.name == 'step_000012.parquet'
    table = read_rollouts(tmp_path / 'rollouts')
    assert table.schema.equals(SCHEMA) and as_rows(table) == rows
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == 'ZSTD'
    assert as_rows(read_rollouts(path)) == rows


def test_the_same_step_replaces_its_file_and_leaves_nothing_else(tmp_path):
    for reward in (0.0, 1.0):
        write_rollouts(step_path(tmp_path, 3), [row(step=3, reward=reward)])
    assert [path.name for path in tmp_path.iterdir()] == ['step_000003.parquet']
    assert read_rollouts(tmp_path)['reward'].to_pylist() == [1.0]


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    write_rollouts(step_path(tmp_path, 3), [row(step=3)])

    def die(table, file, **_):
        file.write(b'PAR1')
        raise OSError('no space left')
    monkeypatch.setattr(rollouts.pq, 'write_table', die)
    with pytest.raises(OSError):
        write_rollouts(step_path(tmp_path, 3), [row(step=3, reward=9)])
    assert read_rollouts(tmp_path)['reward'].to_pylist() == [1.5]


def test_steps_and_columns_choose_what_is_read(tmp_path):
    for step in (2, 10, 1_000_000):
        write_rollouts(step_path(tmp_path, step), [row(step=step)])
    assert steps_in(tmp_path) == [2, 10, 1_000_000]
    table = read_rollouts(tmp_path, steps=[10], columns=['completion', 'step'])
    assert table.column_names == ['completion', 'step'] and table['step'].to_pylist() == [10]
    with pytest.raises(UserError, match='step_000011.parquet; the folder has steps 2 to 1000000'):
        read_rollouts(tmp_path, steps=[11])


def test_missing_and_empty_folders(tmp_path):
    assert steps_in(tmp_path / 'none') == []
    with pytest.raises(UserError, match='no such folder'):
        read_rollouts(tmp_path / 'none')
    table = read_rollouts(tmp_path)
    assert table.num_rows == 0 and table.schema.equals(SCHEMA)
    write_rollouts(step_path(tmp_path, 1), [])
    assert read_rollouts(tmp_path).num_rows == 0


def test_rows_must_have_exactly_the_columns(tmp_path):
    wrong = row(colour='red')
    del wrong['reward']
    with pytest.raises(ValueError, match=r"lacks \['reward'\] and has the unknown \['colour'\]"):
        write_rollouts(step_path(tmp_path, 1), [wrong])
    assert list(tmp_path.iterdir()) == []


def test_odd_values_do_not_lose_the_file(tmp_path):
    write_rollouts(step_path(tmp_path, 1), [row(completion='a\ud800b\x00', reward=math.nan)])
    back, = as_rows(read_rollouts(tmp_path))
    assert back['completion'].startswith('a\ufffd') and back['completion'].endswith('b\x00')
    assert math.isnan(back['reward'])


def test_a_file_from_before_a_column_is_read_with_nulls_there(tmp_path):
    path = write_rollouts(step_path(tmp_path, 1), [row(), row(sample=1)])
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns(list(LATER)), path)
    write_rollouts(step_path(tmp_path, 2), [row(step=2)])
    table = read_rollouts(tmp_path)
    assert table.schema.equals(SCHEMA)
    assert table['id'].to_pylist() == [None, None, 'order-7'] and table['options'].to_pylist()[2] == ['Ana', 'Bo']
    assert read_rollouts(tmp_path, steps=[1], columns=['tests', 'step']).to_pylist() == [{'tests': None, 'step': 1}] * 2
    assert table.drop_columns(list(LATER)).slice(0, 2).equals(whole.drop_columns(list(LATER)))


def test_a_file_without_any_other_column_is_still_refused(tmp_path):
    path = write_rollouts(step_path(tmp_path, 1), [row()])
    pq.write_table(pq.read_table(path).drop_columns(['n_tokens']), path)
    with pytest.raises(pa.ArrowException):
        read_rollouts(tmp_path)
