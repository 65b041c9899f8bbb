"""Scoring files: every row comes back in order, what cannot be scored has no reward, and a stopped call goes on."""

import json
import pathlib
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r1jax.__main__ import main
from r1jax.errors import UserError
from r1jax.rewards import score

GOOD = {
    'completion': '<think>17+25=42</think> <answer>42</answer>', 'answer': '42', 'task': 'math',
    'prompt': 'what is 17+25?'}
WRONG = GOOD | {'completion': '<think>so</think> <answer>41</answer>'}
FILE = '''
import os, time
def strange(completions, examples):
    for completion in completions:
        if completion.text == 'hang':
            time.sleep(60)
        if completion.text == 'die':
            os._exit(3)
        if completion.text == 'raise':
            raise RuntimeError('of this row alone')
    return [float(len(completion.text)) for completion in completions]
'''


def write(path: pathlib.Path, rows) -> pathlib.Path:
    path.write_text(''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in rows), encoding='utf-8')
    return path


def read(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def test_rows_come_back_in_order_with_their_rewards(tmp_path):
    source = write(tmp_path / 'in.jsonl', [GOOD | {'mine': {'a': [1]}}, WRONG, GOOD | {'completion': '42'}] * 200)
    scored = score.score_file(source, tmp_path / 'out.jsonl', 'accuracy=1,format=0.5')
    rows = read(tmp_path / 'out.jsonl')
    assert len(rows) == scored.rows == 600 and not scored.failed
    assert [(row['reward'], row['rewards'], row['error']) for row in rows[-3:]] == [
        (1.5, {'accuracy': 1.0, 'format': 1.0}, None), (0.5, {'accuracy': 0.0, 'format': 1.0}, None),
        (0.0, {'accuracy': 0.0, 'format': 0.0}, None)]
    assert rows[-3]['mine'] == {'a': [1]} and rows[-3]['completion'] == GOOD['completion']
    assert scored.reward == pytest.approx(2 / 3) and scored.rewards == pytest.approx({'accuracy': 1 / 3, 'format': 2 / 3})
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in.jsonl', 'out.jsonl']


def test_a_row_that_cannot_be_scored_is_told_and_the_others_are_scored(tmp_path):
    (tmp_path / 'mine.py').write_text(FILE)
    bad = ['{"completion": "cut', '[1]', '"42"', {'answer': '42'}, *(GOOD | change for change in (
        {'task': 5}, {'answer': '?'}, {'task': 'maht'}, {'completion': 'raise'}, {'completion': 'hang'},
        {'completion': 'die'}, {'n_tokens': 'x'}))]
    rows = [GOOD]
    for row in bad:
        rows += [row, '', GOOD]  # a blank line is no row, but counts as a line
    source = write(tmp_path / 'in.jsonl', rows)
    scored = score.score_file(source, tmp_path / 'out.jsonl', f'accuracy=1,{tmp_path / "mine.py"}:strange=0', timeout_s=1)
    out = read(tmp_path / 'out.jsonl')
    assert [row['error'] is None for row in out] == [True] + [False, True] * len(bad)
    assert all(row['reward'] == 1 for row in out[::2])
    assert all(row['reward'] is None and row['rewards'] is None for row in out[1::2])
    assert scored.failed == len(bad) and scored.reward == 1
    for number, (row, wanted) in enumerate(zip(out[1::2], (
            'not valid JSON', 'no JSON object', 'no JSON object', "no text under 'completion'", "'task' is no text",
            'cannot be graded',
            "without an accuracy rule .did you mean 'math'", 'RuntimeError: of this row alone', 'more than 1 s', 'crashed',
            "'n_tokens' must be a whole number"), strict=True)):
        assert row['error'].startswith(f'line {2 + 3 * number}: ')
        assert re.search(wanted, row['error']), row['error']


@pytest.mark.parametrize('cut', [0, 1, 40])
def test_a_stopped_call_goes_on_where_it_was(tmp_path, monkeypatch, cut):
    source = write(tmp_path / 'in.jsonl', [GOOD | {'id': str(i)} for i in range(30)])
    whole = tmp_path / 'whole.jsonl'
    score.score_file(source, whole, 'accuracy=1,random=1')
    monkeypatch.setattr(score, 'BATCH', 8)
    seen = []

    def stopping(*args):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(args[2])
        return scoring(*args)

    scoring = score._score
    out = tmp_path / 'out.jsonl'
    monkeypatch.setattr(score, '_score', stopping)
    with pytest.raises(KeyboardInterrupt):
        score.score_file(source, out, 'accuracy=1,random=1')
    assert not out.exists()
    part = tmp_path / '.out.jsonl.part'
    part.write_bytes(part.read_bytes()[:-cut or None])  # as if the machine had died in the middle of a line
    with pytest.raises(UserError, match='begun with other rewards'):
        score.score_file(source, out, 'accuracy=1')
    seen = ['now it goes on']
    monkeypatch.setattr(score, '_score', lambda *args: (seen.append(args[2]), scoring(*args))[1])
    score.score_file(source, out, 'accuracy=1,random=1')
    assert seen[1] == (16 if cut == 0 else 15)
    assert read(out) == read(whole)
    with pytest.raises(UserError, match='exists already'):
        score.score_file(source, out, 'accuracy=1,random=1')


def test_parquet_in_and_out(tmp_path):
    source = tmp_path / 'in.parquet'
    pq.write_table(pa.Table.from_pylist([GOOD, WRONG, GOOD | {'task': 'sums'}]), source)
    scored = score.score_file(source, tmp_path / 'out.parquet', 'accuracy=1')
    rows = pq.read_table(tmp_path / 'out.parquet').to_pylist()
    assert [row['reward'] for row in rows] == [1.0, 0.0, None]
    assert rows[0]['rewards'] == {'accuracy': 1.0} and rows[2]['error'].startswith('row 3: ') and scored.failed == 1
    assert rows[1]['completion'] == WRONG['completion']


@pytest.mark.parametrize('flags, sentence', [
    (['--in=none.jsonl', '--out=out.jsonl', '--rewards=accuracy=1'], "there is no file 'none.jsonl'"),
    (['--in=in.csv', '--out=out.jsonl', '--rewards=accuracy=1'], 'read from and written to .jsonl or .parquet'),
    (['--in=in.jsonl', '--out=out.jsonl', '--rewards=acuracy=1'], "did you mean 'accuracy'"),
    (['--in=in.jsonl', '--out=out.jsonl', '--rewards=overlong=1', '--reward_options={"overlong": {"max": 3}}'],
     "no option 'max'"),
    (['--in=in.jsonl', '--out=out.jsonl', '--rewards=overlong=1',
      '--reward_options={"overlong": {"max_length": 9, "cache": 3}}'], 'needs the number of tokens'),
    (['--in=in.jsonl', '--out=out.jsonl', '--rewards=accuracy=1', '--reward_options=[1]'], 'must look like'),
    (['--in=bad.jsonl', '--out=out.jsonl', '--rewards=accuracy=1'], 'none of the 1 rows'),
])
def test_the_command_line(tmp_path, monkeypatch, capsys, flags, sentence):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'in.jsonl', [GOOD])
    write(tmp_path / 'bad.jsonl', ['{'])
    assert main(['score', *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert main(['score', '--in=in.jsonl', '--out=good.jsonl', '--rewards=accuracy=1']) == 0
    told = capsys.readouterr().out
    assert json.loads(told[told.index('{'):]) == {'rows': 1, 'failed': 0, 'reward': 1.0, 'rewards': {'accuracy': 1.0}}
