"""metrics.jsonl: always valid JSON, flushed, and right again after a crash and a resume."""

import json
import math

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from r1jax.runtime.metrics import MetricWriter, read_metrics


def strict_lines(folder):
    """Parses with a parser that refuses NaN and Infinity, which Python's own accepts."""
    def refuse(name):
        raise ValueError(name)
    text = (folder / 'metrics.jsonl').read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def tensorboard_events(folder):
    events = []
    for path in sorted((folder / 'tensorboard').iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], 'little')
            events.append(event_pb2.Event.FromString(data[12:12 + size]))
            data = data[12 + size + 4:]
    return events


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {'reward/mean': np.float32(0.25), 'lr': 3e-6})
        line, = strict_lines(tmp_path)
        assert line['step'] == 1 and line['reward/mean'] == 0.25 and line['lr'] == 3e-6
        assert line['time'] > 1.6e9 and 'nonfinite' not in line


def test_nonfinite_values_become_null_and_are_named(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {'kl_ref': math.nan, 'grad_norm': math.inf, 'ratio/max': -np.inf, 'reward/mean': 1})
    line, = strict_lines(tmp_path)
    assert line['kl_ref'] is None and line['grad_norm'] is None and line['ratio/max'] is None
    assert line['nonfinite'] == ['kl_ref', 'grad_norm', 'ratio/max'] and line['reward/mean'] == 1.0


def test_resume_drops_later_steps_and_a_half_written_line(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in range(1, 7):
            writer.write(step, {'x': step})
    path = tmp_path / 'metrics.jsonl'
    before = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b''.join(before) + '{"step": 4, "x": 0.5, "näm'.encode()[:-2])
    with MetricWriter(tmp_path, last_step=4) as writer:
        assert path.read_bytes() == b''.join(before[:4])
        writer.write(5, {'x': 50})
    assert [line['x'] for line in strict_lines(tmp_path)] == [1, 2, 3, 4, 50]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['metrics.jsonl']


def test_resume_drops_a_last_line_that_parses_but_has_no_newline(tmp_path):
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1, "x": 1}\n{"step": 2}')
    with MetricWriter(tmp_path, last_step=2) as writer:
        writer.write(3, {'x': 3})
    assert [line['step'] for line in strict_lines(tmp_path)] == [1, 3]


def test_a_fresh_start_forgets_everything(tmp_path):
    for _ in range(2):
        with MetricWriter(tmp_path) as writer:
            writer.write(0, {'x': 1})
    assert [line['step'] for line in strict_lines(tmp_path)] == [0]


def test_reading_leaves_out_a_half_written_last_line(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1, "x": 1}\n{"step": 2, "x"')
    assert read_metrics(tmp_path) == [{'step': 1, 'x': 1}]


def test_steps_go_forward_and_reserved_names_are_refused(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(3, {'x': 1})
        with pytest.raises(ValueError, match='step 2 after step 3'):
            writer.write(2, {'x': 1})
        with pytest.raises(ValueError, match="'step'"):
            writer.write(4, {'step': 1})
    assert [line['step'] for line in strict_lines(tmp_path)] == [3]


def test_tensorboard_gets_the_scalars_and_forgets_the_steps_after_the_resumed_one(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in range(1, 5):
            writer.write(step, {'reward/mean': step / 10})
    with MetricWriter(tmp_path, last_step=2) as writer:
        writer.write(3, {'reward/mean': 0.9, 'kl_ref': math.nan})
    events = tensorboard_events(tmp_path)
    scalars = [(event.step, value.tag, round(value.simple_value, 5)) for event in events
               for value in event.summary.value]
    assert sorted(scalars) == [(1, 'reward/mean', 0.1), (2, 'reward/mean', 0.2), (3, 'reward/mean', 0.3),
                               (3, 'reward/mean', 0.9), (4, 'reward/mean', 0.4)]
    starts = [event.step for event in events if event.session_log.status == event_pb2.SessionLog.START]
    assert sorted(starts) == [0, 3]
