"""The final table shows the figures of summary.json, first model against last."""

import io

from rich.console import Console

from r1jax.runtime.summary import print_tables


def figure(mean):
    return {'mean': mean, 'low': mean - 0.01, 'high': mean + 0.01, 'n': 512}


def shown(summary):
    out = io.StringIO()
    print_tables(summary, Console(file=out, width=200, force_terminal=True, no_color=True))
    return out.getvalue()


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
