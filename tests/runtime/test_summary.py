"""The final tables show the figures of summary.json: all models, reward models, and the first model against the result."""

import io
import re

import pytest
from rich.console import Console

from r1jax.runtime.summary import print_tables


def figure(mean):
    return {'mean': mean, 'low': mean - 0.01, 'high': mean + 0.01, 'n': 512}


def shown(summary, width=200, terminal=True):
    out = io.StringIO()
    print_tables(summary, Console(file=out, width=width, force_terminal=terminal, no_color=True))
    return re.sub('\x1b\\[[0-9;]*m', '', out.getvalue())


def test_the_table_holds_both_models_intervals_and_every_group_but_kinds():
    metrics = {f'{m}/T=0.6/{g}': v for g in ('all', 'logic/zh', 'arithmetic:sum') for m, v in (
        ('pass@1', 0.1), ('cons@16', 0.2), ('last_answer', 0.25), ('last_answer_cons@16', 0.99), ('format', 0.3),
        ('length', 20.0))}
    base = {k: figure(v) for k, v in metrics.items()}
    trained = {k: figure(v + 0.5) for k, v in metrics.items()}
    text = shown({'experiment': 'tiny', 'seed': 3, 'stages': {'base': base, 'r1_zero': trained}})
    assert 'tiny, seed 3: base -> r1_zero' in text
    assert '0.100 [0.090, 0.110] -> 0.600 [0.590, 0.610]' in text
    assert '0.200 -> 0.700' in text and '0.250 -> 0.750' in text and '20.0 -> 20.5' in text
    assert 'logic/zh' in text and 'arithmetic:sum' not in text and '512' in text


def test_one_model_and_none():
    text = shown({'experiment': 'tiny', 'seed': 0, 'stages': {'pretrain': {'pass@1/T=1/all': figure(0.25)}}})
    assert '0.250 [0.240, 0.260]' in text and '->' not in text
    assert shown({'experiment': 'tiny', 'seed': 0, 'stages': {}}) == ''


def r1(**changed):
    """A summary of base, five stages with models, of which the last but one is the result, data and a reward model."""
    stages = {}
    for i, name in enumerate(('base', 'zero', 'dev1', 'dev2', 'all_scenario', 'distill')):
        stages[name] = {f'{metric}/T=0.6/{group}': figure(0.1 * i + 0.02) for group in ('all', 'logic') for metric in (
            'pass@1', 'format', 'truncated', 'last_answer', 'last_answer_cons@16')}
        stages[name] |= {'helpfulness/T=0.6/helpful/all': figure(0.1 * i + 0.05), 'length/T=0.6/all': figure(10.0 * i)}
    stages['dev1']['examples'] = {'mean': 573, 'low': 573, 'high': 573, 'n': 573}
    stages['data'] = {'acceptance/T=1/all': figure(0.777)}
    stages['rm'] = {'accuracy': figure(0.81), 'calibration_error': figure(0.05), 'brier': figure(0.19),
                    'accuracy/everyday': figure(0.888)}
    return {'experiment': 'tiny', 'seed': 3, 'labels': {'all_scenario': 'R1[x]', 'zero': 'Zero'}, 'result': 'all_scenario',
            'stages': stages} | changed


def test_all_models_come_first_then_reward_models_then_the_families_of_the_result():
    text = shown(r1())
    head, = (line for line in text.splitlines() if 'Zero' in line)
    assert head.replace('\u2503', ' ').split() == ['figure', 'n', 'base', 'Zero', 'dev1', 'dev2', 'R1[x]', 'distill']
    row, = (line for line in text.splitlines() if line.startswith('\u2502 pass@1, T=0.6'))
    cells = row.replace('\u2502', ' ').split()
    assert cells == ['pass@1,', 'T=0.6', '512', '0.020', '0.120', '0.220', '0.320', '0.420', '0.520']
    assert '[0.410, 0.430]' in text and 'helpfulness, T=0.6, on helpful' in text
    # No figures of stages that made no model, no details, and no counts.
    assert not any(word in text for word in ('0.777', 'truncated', 'cons@16', '573', '0.888'))
    rm, = (line for line in text.splitlines() if line.startswith('rm, '))
    assert rm == ('rm, 512 prompts held out: accuracy 0.810 [0.800, 0.820], calibration error 0.050 [0.040, 0.060], '
                  'Brier 0.190 [0.180, 0.200]')
    assert text.index('Preference') < text.index('rm, 512') < text.index('tiny, seed 3: base -> R1[x], held-out')
    assert '0.020 [0.010, 0.030] -> 0.420 [0.410, 0.430]' in text and '-> 0.520' not in text
    assert 'base -> distill' in shown(r1(result='')) and 'all models' not in shown(
        r1(stages={name: r1()['stages'][name] for name in ('base', 'zero', 'rm')}))


@pytest.mark.parametrize('width, parts', [(80, 3), (120, 2), (200, 1)])
def test_tables_fit_the_terminal(width, parts):
    text = shown(r1(), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    heads = [line.replace('\u2503', ' ').split() for line in lines if line.startswith('\u2503 figure')]
    assert len(heads) == parts
    assert [name for head in heads for name in head[2:]] == ['base', 'Zero', 'dev1', 'dev2', 'R1[x]', 'distill']
    # Nothing is broken within a cell: all rows of the families are one line, and what is left out is said.
    assert '0.020 [0.010, 0.030] -> 0.420 [0.410, 0.430]' in text
    assert ('no room for: ' in text) == (width < 200)
    assert ('reflection /1k' in text) and text.count('last answer, format') == (width == 80)


def test_a_log_does_not_depend_on_the_terminal():
    assert shown(r1(), 80, terminal=False) == shown(r1(), 200, terminal=False) != ''
    assert max(map(len, shown(r1(), 80, terminal=False).splitlines())) <= 200
