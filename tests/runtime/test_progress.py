"""Progress: a live bar on a terminal, few plain lines elsewhere."""

import io

import pytest

from r1jax.runtime import progress as progress_lib
from r1jax.runtime.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that only moves when told to."""
    class Clock:
        value = 100.0

        def monotonic(self):
            return self.value
    moving = Clock()
    monkeypatch.setattr(progress_lib, 'time', moving)
    return moving


def test_plain_lines_are_rate_limited_and_the_last_one_always_comes(now):
    out = io.StringIO()
    with Progress(100, 'r1_zero', stream=out) as progress:
        for step in range(1, 101):
            now.value += 1.0
            progress.update(step, reward=0.41234567, pass_rate=0.375, length=1430.2, tokens_per_s=5120.4)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f'{n}/100' for n in (*range(1, 100, 10), 100)]
    assert lines[0] == ('r1_zero  1/100 (1%)  reward 0.4123  pass rate 37.5%  length 1,430  tokens/s 5,120'
                        '  left 0:01:39')
    assert 'left' not in lines[-1] and '\x1b' not in out.getvalue()


def test_time_left_of_a_resumed_stage_counts_only_its_own_steps(now):
    out = io.StringIO()
    with Progress(110, 'sft', start=90, stream=out) as progress:
        now.value += 60.0
        progress.update(91)
    assert out.getvalue() == 'sft  91/110 (83%)  left 0:19:00\n'


def test_a_terminal_gets_a_bar_with_the_same_numbers(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.setenv('COLUMNS', '160')
    out = Terminal()
    with Progress(4, 'r1_zero [b]', stream=out) as progress:
        progress.update(3, reward=0.5, pass_rate=0.25)
    text = out.getvalue()
    assert 'r1_zero [b]' in text and '3/4' in text and 'pass rate 25.0%' in text and '\x1b[' in text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv('TERM', 'dumb')
    out = Terminal()
    with Progress(4, 'x', stream=out) as progress:
        progress.update(1)
    assert out.getvalue().startswith('x  1/4 (25%)') and '\x1b' not in out.getvalue()


def test_an_exception_passes_and_leaves_where_it_stopped():
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        with Progress(10, 'x', stream=out) as progress:
            progress.update(2)
            raise KeyboardInterrupt
    assert out.getvalue().splitlines()[-1] == 'x  stopped at 2/10'


def test_disabled_writes_nothing():
    out = io.StringIO()
    with pytest.raises(RuntimeError):
        with Progress(10, 'x', stream=out, enabled=False) as progress:
            progress.update(10)
            raise RuntimeError
    assert out.getvalue() == ''


@pytest.mark.parametrize('seconds, text', [(0, '0:00:00'), (89.6, '0:01:30'), (3600, '1:00:00'),
                                           (2 * 86400 + 3 * 3600, '2d 3:00:00')])
def test_clock(seconds, text):
    assert clock(seconds) == text
