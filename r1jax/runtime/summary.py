"""The final table on the terminal: the first model against the last, by family and language."""

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


def print_table(summary: Mapping, console: Console | None = None) -> None:
    """Prints one row a group and temperature; nothing if no model was measured.

    Args:
        summary: what stands in summary.json.
    """
    models = list(summary['stages'])
    if not models:
        return
    first, last = summary['stages'][models[0]], summary['stages'][models[-1]]
    title = models[0] if len(models) == 1 else f'{models[0]} -> {models[-1]}'
    table = Table(title=f"{summary['experiment']}, seed {summary['seed']}: {title}, held-out problems")
    for name in ('group', 'T', 'n', *COLUMNS):
        table.add_column(name, justify='left' if name == 'group' else 'right')
    for key in last:
        metric, temperature, group = key.split('/', 2)
        if metric == 'pass@1' and ':' not in group:
            cells = [_cell(first, last, start, temperature, group, form, len(models) > 1, '[' in column)
                     for column, (start, form) in COLUMNS.items()]
            table.add_row(group, temperature.removeprefix('T='), str(last[key]['n']), *cells)
    # Wide enough for every column where the output is no terminal: a log file does not wrap.
    console = console or Console()
    (console if console.is_terminal else Console(width=190)).print(table)


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
    metric, t, g = key.split('/', 2)
    named = metric.startswith(start) if start.endswith('@') else metric == start
    return named and t == temperature and g == group
