"""The final tables on the terminal: every model's main figures, and the first model against the last by family."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

# Column title -> (how metric names begin, how a value is written).
COLUMNS = {
    'pass@1 [95%]': ('pass@1', '{:.3f}'),
    'majority': ('cons@', '{:.3f}'),
    'last answer': ('last_answer', '{:.3f}'),
    'format': ('format', '{:.3f}'),
    'length': ('length', '{:.1f}'),
    'reflection /1k': ('reflection_per_1k', '{:.1f}'),
    'language': ('language_consistency', '{:.3f}'),
}


def print_tables(summary: Mapping, console: Console | None = None) -> None:
    """Prints the table of all stages, and below it one row a group and temperature; nothing if nothing was measured.

    Args:
        summary: what stands in summary.json.
    """
    # Wide enough for every column where the output is no terminal: a log file does not wrap.
    console = console or Console()
    console = console if console.is_terminal else Console(width=240)
    if len(summary['stages']) > 2:
        console.print(_stages(summary))
    models = [name for name, figures in summary['stages'].items() if any(key.startswith('pass@1/') for key in figures)]
    if models:
        console.print(_families(summary, models))


def _stages(summary: Mapping) -> Table:
    """Metrics down, stages across, as the paper's table of R1-Zero, Dev1, Dev2, Dev3 and R1."""
    stages = summary['stages']
    labels = summary.get('labels', {})
    table = Table(title=f"{summary['experiment']}, seed {summary['seed']}: every stage, held-out problems [95% interval]")
    table.add_column('figure')
    for name in stages:
        table.add_column(labels.get(name, name), justify='right')
    for key in dict.fromkeys(key for figures in stages.values() for key in figures):
        if _is_headline(key):
            table.add_row(key.removesuffix('/all'), *(_interval(figures.get(key)) for figures in stages.values()))
    return table


def _is_headline(key: str) -> bool:
    """Whether a metric is of all problems of its suite, and no detail of another one."""
    metric, *_, group = key.split('/')
    return ('/' not in key or group == 'all') and not metric.startswith('last_answer_')


def _interval(figure: Mapping | None) -> str:
    if figure is None:
        return '-'
    form = '{:.3f}' if abs(figure['mean']) < 10 else '{:.1f}'
    mean = form.format(figure['mean'])
    if figure['low'] == figure['high']:
        return mean
    return f"{mean}\n\\[{form.format(figure['low'])}, {form.format(figure['high'])}]"


def _families(summary: Mapping, models: list[str]) -> Table:
    first, last = summary['stages'][models[0]], summary['stages'][models[-1]]
    title = models[0] if len(models) == 1 else f'{models[0]} -> {models[-1]}'
    table = Table(title=f"{summary['experiment']}, seed {summary['seed']}: {title}, held-out problems")
    for name in ('group', 'T', 'n', *COLUMNS):
        table.add_column(name, justify='left' if name == 'group' else 'right')
    for key in last:
        if not key.startswith('pass@1/'):
            continue
        metric, temperature, group = key.split('/', 2)
        if ':' not in group:
            cells = [_cell(first, last, start, temperature, group, form, len(models) > 1, '[' in column)
                     for column, (start, form) in COLUMNS.items()]
            table.add_row(group, temperature.removeprefix('T='), str(last[key]['n']), *cells)
    return table


def _cell(
    first: Mapping, last: Mapping, start: str, temperature: str, group: str, form: str, both: bool, interval: bool
) -> str:
    key = next((k for k in last if _is(k, start, temperature, group)), None)
    if key is None:
        return '-'

    def text(figure: Mapping) -> str:
        mean = form.format(figure['mean'])
        return f"{mean} \\[{form.format(figure['low'])}, {form.format(figure['high'])}]" if interval else mean

    return f'{text(first[key])} -> {text(last[key])}' if both and key in first else text(last[key])


def _is(key: str, start: str, temperature: str, group: str) -> bool:
    if key.count('/') < 2:
        return False
    metric, t, g = key.split('/', 2)
    named = metric.startswith(start) if start.endswith('@') else metric == start
    return named and t == temperature and g == group
