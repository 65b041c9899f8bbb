"""Data sets between stages: what is written comes back, and what is wrong is named with its file and column."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1jax.errors import UserError
from r1jax.runtime import datasets
from r1jax.runtime.datasets import EXAMPLES, LABELS, PAIRS, read, write


def pair(number=0, **changes):
    return {'prompt': f'Q{number}', 'chosen': 'gut', 'rejected': '坏', 'question': 'Q', 'task': 'chat', 'language': 'zh',
            'id': f'id{number}', 'margin': 1.5, 'votes': 4, 'agreed': True} | changes


def label(**changes):
    return {'prompt': 'Q', 'response': 'no', 'safe': True, 'question': '', 'task': '', 'language': '', 'id': ''} | changes


def test_rows_of_a_folder_come_back_in_the_order_of_the_file_names(tmp_path):
    write(tmp_path / 'data' / 'b.parquet', [pair(2)], PAIRS)
    path = write(tmp_path / 'data' / 'a.parquet', [pair(0), pair(1, agreed=False)], PAIRS)
    assert read(tmp_path / 'data', PAIRS) == [pair(0), pair(1, agreed=False), pair(2)]
    assert read(path, PAIRS) == [pair(0), pair(1, agreed=False)]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == 'ZSTD'
    write(path, [], PAIRS)
    assert read(path, PAIRS) == [] and sorted(p.name for p in path.parent.iterdir()) == ['a.parquet', 'b.parquet']


def test_the_schemas_hold_what_stages_hand_on():
    assert PAIRS.field('margin').type == pa.float32() and PAIRS.field('votes').type == pa.int32()
    assert EXAMPLES.names == ['prompt', 'completion', 'task', 'kind', 'language', 'answer', 'id', 'source', 'n_tokens']
    assert set(LABELS.names) == {'prompt', 'question', 'response', 'task', 'language', 'id', 'safe'}


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.parquet', [pair(0)], PAIRS)

    def die(table, file, **_):
        file.write(b'PAR1')
        raise OSError('no space left')
    monkeypatch.setattr(datasets.pq, 'write_table', die)
    with pytest.raises(OSError):
        write(path, [pair(9)], PAIRS)
    assert read(tmp_path, PAIRS) == [pair(0)]


@pytest.mark.parametrize('rows, sentence', [
    ([{name: value for name, value in pair(colour='red').items() if name != 'votes'}],
     r"lacks \['votes'\] and has the unknown \['colour'\]"),
    ([pair(chosen=None)], "'chosen' must not be null"),
    ([pair(votes='four')], 'a.parquet: '),
])
def test_rows_that_do_not_fit_the_schema_are_refused(tmp_path, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        write(tmp_path / 'a.parquet', rows, PAIRS)
    assert list(tmp_path.iterdir()) == []


def test_odd_text_does_not_lose_the_file(tmp_path):
    write(tmp_path / 'a.parquet', [pair(chosen='a\ud800b\x00')], PAIRS)
    chosen = read(tmp_path, PAIRS)[0]['chosen']
    assert chosen.startswith('a\ufffd') and chosen.endswith('b\x00')


def test_json_lines_and_foreign_parquet_are_filled_up_with_defaults_and_lose_what_is_unknown(tmp_path):
    lines = [{'prompt': 'Q0', 'chosen': 'gut', 'rejected': 'a\u2028b', 'margin': 2, 'agreed': False, 'more': [1]},
             {'prompt': 'Q1', 'chosen': '', 'rejected': 'x', 'task': None, 'agreed': True}]
    path = tmp_path / 'mine.jsonl'
    path.write_text('\n\n'.join(json.dumps(line, ensure_ascii=False) for line in lines))
    wanted = [pair(0, rejected='a\u2028b', question='', task='', language='', id='', margin=2.0, votes=0, agreed=False),
              pair(1, chosen='', rejected='x', question='', task='', language='', id='', margin=0.0, votes=0)]
    rows = read(path, PAIRS)
    assert rows == wanted and list(rows[0]) == PAIRS.names and type(rows[0]['margin']) is float
    pq.write_table(pa.Table.from_pylist([dict(line, more='') for line in lines]), tmp_path / 'mine.parquet')
    assert read(tmp_path / 'mine.parquet', PAIRS) == wanted


@pytest.mark.parametrize('line, sentence', [
    ('{"prompt": "Q", "safe": true}', "line 2: the column 'response' is missing"),
    ('{"prompt": "Q", "response": null, "safe": true}', "line 2: the column 'response' has a null"),
    ('{"prompt": "Q", "response": "r", "safe": "yes"}', "line 2: the column 'safe' is not bool: 'yes'"),
    ('{"prompt": "Q", "response": 3, "safe": true}', "line 2: the column 'response' is not string: 3"),
    ('{"prompt": "Q", ', 'line 2 is not valid JSON'),
    ('["Q"]', 'line 2 is no JSON object'),
])
def test_what_is_wrong_in_json_lines_is_named_with_its_line(tmp_path, line, sentence):
    path = tmp_path / 'labels.jsonl'
    path.write_text(json.dumps(label()) + '\n' + line + '\n')
    with pytest.raises(UserError, match=f'labels.jsonl, {sentence}'):
        read(path, LABELS)


def test_what_is_wrong_in_parquet_is_named_with_its_file_and_column(tmp_path):
    write(tmp_path / 'a.parquet', [label()], LABELS)
    with pytest.raises(UserError, match="a.parquet: the column 'chosen' is missing"):
        read(tmp_path, PAIRS)
    pq.write_table(pa.table({'prompt': ['Q'], 'response': ['r'], 'safe': ['perhaps']}), tmp_path / 'b.parquet')
    with pytest.raises(UserError, match="b.parquet: the column 'safe' is not bool"):
        read(tmp_path, LABELS)
    pq.write_table(pa.table({'prompt': ['Q'], 'response': [None], 'safe': [True]}), tmp_path / 'b.parquet')
    with pytest.raises(UserError, match="b.parquet: the column 'response' has a null"):
        read(tmp_path, LABELS)
    (tmp_path / 'b.parquet').write_bytes(b'PAR1 and nothing else')
    with pytest.raises(UserError, match='b.parquet cannot be read as Parquet'):
        read(tmp_path, LABELS)


def test_where_there_are_no_data_it_says_so(tmp_path):
    with pytest.raises(UserError, match='there is no such folder or file of data'):
        read(tmp_path / 'none', PAIRS)
    with pytest.raises(UserError, match=r'the folder holds no \*.parquet'):
        read(tmp_path, PAIRS)
    (tmp_path / 'data.csv').write_text('prompt')
    with pytest.raises(UserError, match=r'data are read from a folder of \*.parquet, a .parquet or a .jsonl file'):
        read(tmp_path / 'data.csv', PAIRS)
