"""report.html: one page, opened from the disk, that shows what a run did: figures, curves and samples.

The page is built from a run's folder alone and from whatever part of it exists, so that a run under way or
cut short has a page too, which says what is missing. Everything is inside the file (Plotly's script included)
and its content security policy forbids the browser to fetch anything. Text the model wrote reaches the page
only as JSON, from which the page's script makes text nodes, never markup.

    load.py           reads the folder                 checks.py   what is missing or looks odd
    tables.py         summary.json -> two models compared by family of problems
    models.py         summary.json -> all models side by side, and which one is the result
    reward_models.py  how good reward models are, and whether they are hacked
    cards.py          data cards                       curves.py   metrics.jsonl -> the plots
    samples.py        Parquet -> the browser of completions
    page/             the template, its style and its scripts
"""

import datetime
import functools
import json
import os
import pathlib
from typing import Any

import jinja2

from r1jax.runtime.files import write_text
from r1jax.runtime.report import cards, checks, curves, models, reward_models, samples, tables
from r1jax.runtime.report.load import Run, Stage, load_run

FILE_NAME = 'report.html'
_PAGE = pathlib.Path(__file__).parent / 'page'
# Of the page without its samples; findings and rounding stay within what is left of 6 MB.
MOST_BYTES = 5_900_000


def build_report(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `workdir`/report.html, a self-contained page below 6 MB, and returns its path.

    Args:
      workdir: a run's folder. It reads summary.json, manifest.json and stages/NAME/{config.json,
        metrics.jsonl, DONE, rollouts/*.parquet, eval/*.parquet, data/card.json, model/reward.json,
        calibration.json}, each where it exists. A file eval/*.parquet holds answers of the model that the
        stage left, unless its name begins with another name in summary.json (eval/base.parquet); files that
        hold the same problems for two models bear the same name, or that name after the model's.

    Raises:
      UserError: if `workdir` is not a run's folder.
    """
    run = load_run(workdir)
    plots = curves.collect(run)
    compared = models.compared(run.summary)
    table = tables.comparison(run.summary, compared)
    label = functools.partial(models.label_of, run.summary)
    data = {'plots': plots, 'forest': tables.forest(table, label), 'reliability': reward_models.reliability(run)}
    style, samples_js, charts_js = (
        (_PAGE / name).read_text('utf-8') for name in ('page.css', 'samples.js', 'charts.js'))
    page = {
        'style': style, 'samples_js': samples_js, 'charts_js': charts_js, 'plotly_js': _plotly_js(),
        'title': _title(run), 'facts': _facts(run), 'label': label,
        'overview': models.overview(run.summary), 'result': models.result_of(run.summary),
        'awaited': models.awaited(run.summary), 'compared': compared,
        'table': table, 'parts': tables.parts(table) if table else None, 'headlines': tables.headlines(table),
        'reward_models': reward_models.reward_models(run.summary), 'reward_columns': reward_models.COLUMNS,
        'described': {stage.name: stage.reward for stage in run.stages}, 'cards': cards.collect(run),
        'acceptance': cards.ACCEPTANCE, 'stages': _stage_rows(run), 'plots': plots, 'reliability': data['reliability'],
        'configs': _configs(run), 'has_forest': data['forest'] is not None}

    def render(browser: dict[str, Any], findings: list[str]) -> str:
        return _environment().get_template('page.html.j2').render(
            page | {'samples': browser, 'findings': findings, 'data_json': _script_json(data | {'samples': browser})})

    # Samples get what room the rest leaves. They may meet a Parquet file that cannot be read, which the checks then report.
    room = MOST_BYTES - len(render(samples.nothing(), []).encode('utf-8'))
    browser = samples.collect(run, room)
    text = render(browser, checks.findings(run))
    path = pathlib.Path(workdir) / FILE_NAME
    write_text(path, text)
    return path


def _environment() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # here, because only a report needs these five megabytes
    return get_plotlyjs()


def _script_json(value: Any) -> str:
    """JSON that is safe inside <script>: no '<' can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
    # A lone surrogate cannot be written as UTF-8.
    text = text.encode('utf-8', 'surrogatepass').decode('utf-8', 'replace')
    return (text.replace('&', '\\u0026').replace('<', '\\u003c').replace('>', '\\u003e')
            .replace('\u2028', '\\u2028').replace('\u2029', '\\u2029'))


def _title(run: Run) -> str:
    return str(run.fact('experiment') or run.workdir.resolve().name)


def _facts(run: Run) -> list[tuple[str, str]]:
    """The header's (label, value) pairs: what it takes to run it again, then any other scalar recorded."""
    shown = [('Seed', str(run.fact('seed', 'not recorded'))),
             ('Commit', str(run.fact('commit', 'not recorded')))]
    times = [line['time'] for stage in run.stages for line in stage.metrics if 'time' in line]
    if times:
        shown.append(('Trained', f'{_date(min(times))} to {_date(max(times))}'))
    # '...Z' and the like are shown as recorded; numbers are seconds since 1970.
    known = {'experiment', 'seed', 'commit'}
    for source in (run.summary, run.manifest):
        for name, value in source.items():
            if name not in known and isinstance(value, (str, int, float, bool)):
                known.add(name)
                shown.append((name.replace('_', ' ').capitalize(), str(value)))
    shown.append(('Page built', _date(datetime.datetime.now(datetime.UTC).timestamp())))
    return shown


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime('%Y-%m-%d %H:%M UTC')


def _stage_rows(run: Run) -> list[dict[str, Any]]:
    """One row for each stage in the order of the experiment, those that have not begun included."""
    folders = {stage.name: stage for stage in run.stages}
    return [_stage_row(run, name, folders.get(name)) for name in dict.fromkeys([*run.planned, *folders])]


def _stage_row(run: Run, name: str, stage: Stage | None) -> dict[str, Any]:
    kind = (stage.config if stage else {}).get('kind') or run.planned.get(name, {}).get('kind', '')
    steps = stage.steps if stage else []
    elsewhere = {column.metric for column in reward_models.COLUMNS}  # in a table of their own
    figures = tables.counts_of(run.summary, name)
    if name not in run.evaluated:
        figures += [(tables.column_of(metric), figure) for (_, metric, group), figure
                    in tables.figures_of(run.summary, [name]).items() if group == 'all']
    return {
        'name': name, 'kind': str(kind).replace('_', ' '), 'inputs': _inputs(run, name),
        'state': 'not begun' if stage is None else 'done' if stage.done else 'not finished',
        'steps': f'{steps[0]:,} to {steps[-1]:,}' if steps else '–',
        'time': _duration(stage.seconds) if stage else '–',
        'figures': [f'{column.label} {column.text(figure)}' for column, figure in figures
                    if column.metric not in elsewhere],
        'rollouts': f'{len(stage.rollout_steps):,}' if stage and stage.rollout_steps else '–',
        'eval': f'{len(stage.eval_files):,}' if stage and stage.eval_files else '–'}


def _inputs(run: Run, name: str) -> list[tuple[str, str]]:
    """(role, where it comes from) of a stage's inputs, as the manifest has them."""
    stages = run.manifest.get('stages')
    recorded = stages.get(name) if isinstance(stages, dict) else None
    inputs = recorded.get('inputs') if isinstance(recorded, dict) else None
    return [(role, str(given.get('from', '')) if isinstance(given, dict) else str(given))
            for role, given in (inputs if isinstance(inputs, dict) else {}).items()]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return '–'
    return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def _configs(run: Run) -> list[tuple[str, str]]:
    """(heading, indented JSON) of every configuration that was recorded."""
    recorded = [('manifest.json', run.manifest)] + [(f'stages/{stage.name}/config.json', stage.config)
                                                    for stage in run.stages]
    return [(name, json.dumps(value, indent=2, ensure_ascii=False)) for name, value in recorded if value]
