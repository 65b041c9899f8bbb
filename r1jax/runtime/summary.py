"""The final tables on the terminal: all models, the reward models, and the first model against the result by family."""

import math
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from r1jax.runtime.report.models import Overview, compared, label_of, overview
from r1jax.runtime.report.reward_models import COLUMNS as REWARD_COLUMNS
from r1jax.runtime.report.reward_models import reward_models
from r1jax.runtime.report.tables import Column, Figure

# Column title -> (how metric names begin, how a value is written). Where they do not all fit, the last ones are left out.
COLUMNS = {
    'pass@1 [95%]': ('pass@1', '{:.3f}'),
    'majority': ('cons@', '{:.3f}'),
    'last answer': ('last_answer', '{:.3f}'),
    'format': ('format', '{:.3f}'),
    'length': ('length', '{:.1f}'),
    'reflection /1k': ('reflection_per_1k', '{:.1f}'),
    'language': ('language_consistency', '{:.3f}'),
}
# Of a log file, which does not wrap: all columns of eight models fit.
LOG_WIDTH = 200


def print_tables(summary: Mapping, console: Console | None = None) -> None:
    """Prints what an experiment has measured; nothing if it measured nothing.

    That is the table of all models, if there are more than two; a line for each reward model; and one row for each family of
    problems and temperature, the first model against the result. Tables are cut to the width of the terminal: that of the
    models into several, that of the families to its first columns.

    Args:
        summary: what stands in summary.json.
        console: where to print; standard output if None.
    """
    console = console or Console()
    console = console if console.is_terminal else Console(file=console.file, width=LOG_WIDTH)
    view = overview(summary)
    if view is not None:
        for table in _models(summary, view, console):
            console.print(table)
    for line in _reward_models(summary):
        console.print(line, highlight=False)
    models = compared(summary)
    if models:
        console.print(_families(summary, models, console))


def _models(summary: Mapping, view: Overview, console: Console) -> Iterator[Table]:
    """Metrics down, models across, as the paper's table of R1-Zero, Dev1, Dev2, Dev3 and R1; as many parts as it takes."""
    total = len(view.models)

    def part(first: int, size: int) -> Table:
        chosen = range(first, min(first + size, total))
        table = Table(title=f'{_title(summary)}: all models, held-out problems [95% interval]' if first == 0 else None)
        table.add_column('figure')
        table.add_column('n', justify='right')
        for i in chosen:
            table.add_column(_label(summary, view.models[i]), justify='right')
        for title, rows in view.short:
            table.add_section()
            table.add_row(f'[bold]{title}[/bold]')
            for row in rows:
                name = escape(row.column.label + (f', on {row.suite}' if row.suite else ''))
                table.add_row(name, row.n, *(_cell(row.column, row.figures[i], '\n') for i in chosen))
        return table

    def parts(size: int) -> list[Table]:
        return [part(first, size) for first in range(0, total, size)]

    number = next((n for n in range(1, total) if _fit(parts(math.ceil(total / n)), console)), total)
    yield from parts(math.ceil(total / number))


def _fit(tables: list[Table], console: Console) -> bool:
    wide = console.options.update(width=10_000)
    return all(console.measure(table, options=wide).maximum <= console.width for table in tables)


def _title(summary: Mapping) -> str:
    return escape(f"{summary['experiment']}, seed {summary['seed']}")


def _label(summary: Mapping, model: str) -> str:
    return escape(label_of(summary, model))


def _cell(column: Column, figure: Figure | None, between: str) -> str:
    """The mean, and its interval unless that has no width."""
    if figure is None:
        return '-'
    form = '{:.3f}' if column.percent else f'{{:.{column.digits}f}}'
    mean = form.format(figure.mean)
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return mean
    return f'{mean}{between}\\[{form.format(figure.low)}, {form.format(figure.high)}]'


def _reward_models(summary: Mapping) -> Iterator[str]:
    for model in reward_models(summary):
        _, n, figures = model.groups[0]
        told = [f'{column.label} {_cell(column, figure, " ")}'
                for column, figure in zip(REWARD_COLUMNS, figures, strict=True) if figure is not None]
        held_out = '' if n is None else f', {n} prompts held out'
        yield f'{_label(summary, model.name)}{held_out}: {", ".join(told)}'


def _families(summary: Mapping, models: list[str], console: Console) -> Table:
    def table(columns: list[str]) -> Table:
        left_out = [name for name in COLUMNS if name not in columns]
        made = Table(
            title=f'{_title(summary)}: {" -> ".join(_label(summary, name) for name in models)}, held-out problems',
            caption=f'no room for: {", ".join(left_out)}' if left_out else None)
        for name in ('group', 'T', 'n', *columns):
            made.add_column(name, justify='left' if name == 'group' else 'right')
        first, last = (summary['stages'][name] for name in (models[0], models[-1]))
        for key in last:
            if not key.startswith('pass@1/'):
                continue
            _, temperature, group = key.split('/', 2)
            if ':' not in group:
                cells = [_change(first, last, temperature, group, name, len(models) > 1) for name in columns]
                made.add_row(escape(group), temperature.removeprefix('T='), str(last[key]['n']), *cells)
        return made

    names = list(COLUMNS)
    number = next((n for n in range(len(names), 1, -1) if _fit([table(names[:n])], console)), 1)
    return table(names[:number])


def _change(first: Mapping, last: Mapping, temperature: str, group: str, column: str, both: bool) -> str:
    start, form = COLUMNS[column]
    key = next((k for k in last if _is(k, start, temperature, group)), None)
    if key is None:
        return '-'

    def text(figure: Mapping) -> str:
        mean = form.format(figure['mean'])
        return f"{mean} \\[{form.format(figure['low'])}, {form.format(figure['high'])}]" if '[' in column else mean

    return f'{text(first[key])} -> {text(last[key])}' if both and key in first else text(last[key])


def _is(key: str, start: str, temperature: str, group: str) -> bool:
    if key.count('/') < 2:
        return False
    metric, t, g = key.split('/', 2)
    named = metric.startswith(start) if start.endswith('@') else metric == start
    return named and t == temperature and g == group
