"""report.html: one page, opened from the disk, that shows what a run did: figures, curves and samples.

The page is built from a run's folder alone and from whatever part of it exists, so that a run under way or
cut short has a page too, which says what is missing. Everything is inside the file (Plotly's script included)
and its content security policy forbids the browser to fetch anything. Text the model wrote reaches the page
only as JSON, from which the page's script makes text nodes, never markup.

    load.py     reads the folder               tables.py   summary.json -> the table of figures
    checks.py   what is missing or looks odd   curves.py   metrics.jsonl -> the plots
    samples.py  Parquet -> the browser of completions
    page/       the template, its style and its scripts
"""

import datetime
import json
import os
import pathlib
from typing import Any

import jinja2

from r1jax.runtime.report import checks, curves, samples, tables
from r1jax.runtime.report.load import Run, load_run

FILE_NAME = 'report.html'
_PAGE = pathlib.Path(__file__).parent / 'page'


def build_report(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `workdir`/report.html, a self-contained page below 6 MB, and returns its path.

    Args:
      workdir: a run's folder. It reads summary.json, manifest.json and stages/NAME/{config.json,
        metrics.jsonl, DONE, rollouts/*.parquet, eval/*.parquet}, each where it exists. A file eval/*.parquet
        holds answers of the model that the stage left, unless its name begins with another name in
        summary.json (eval/base.parquet); files that hold the same problems for two models bear the same name,
        or that name after the model's.

    Raises:
      UserError: if `workdir` is not a run's folder.
    """
    run = load_run(workdir)
    # samples first: it may meet a Parquet file that cannot be read, which the checks then report.
    browser = samples.collect(run)
    plots = curves.collect(run)
    table = tables.comparison(run.summary)
    data = {'plots': plots, 'forest': tables.forest(table), 'samples': browser}
    style, samples_js, charts_js = (
        (_PAGE / name).read_text('utf-8') for name in ('page.css', 'samples.js', 'charts.js'))
    text = _environment().get_template('page.html.j2').render(
        style=style, samples_js=samples_js, charts_js=charts_js,
        title=_title(run), facts=_facts(run), findings=checks.findings(run), table=table,
        headlines=tables.headlines(table), stages=_stage_rows(run), plots=plots, samples=browser, configs=_configs(run),
        has_forest=data['forest'] is not None, data_json=_script_json(data), plotly_js=_plotly_js())
    path = pathlib.Path(workdir) / FILE_NAME
    temporary = path.with_name(f'.{FILE_NAME}.tmp')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)
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


def _stage_rows(run: Run) -> list[dict[str, str]]:
    return [{'name': stage.name, 'state': 'done' if stage.done else 'not finished',
             'steps': f'{stage.steps[0]:,} to {stage.steps[-1]:,}' if stage.steps else 'none recorded',
             'hours': f'{stage.seconds / 3600:.2f}' if stage.seconds is not None else 'not recorded',
             'rollouts': f'{len(stage.rollout_steps):,}', 'eval': f'{len(stage.eval_files):,}'}
            for stage in run.stages]


def _configs(run: Run) -> list[tuple[str, str]]:
    """(heading, indented JSON) of every configuration that was recorded."""
    recorded = [('manifest.json', run.manifest)] + [(f'stages/{stage.name}/config.json', stage.config)
                                                    for stage in run.stages]
    return [(name, json.dumps(value, indent=2, ensure_ascii=False)) for name, value in recorded if value]
