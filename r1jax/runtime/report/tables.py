"""summary.json -> the table of figures: a row for each model and group of problems, and the change."""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Column:
    """A metric. `better`: +1 if more is better, -1 if less is, 0 where neither is; `percent`: a share; `main`: whether
    it stands in the table of all models at first sight, or only in the full one."""
    metric: str
    label: str
    unit: str
    help: str
    better: int
    percent: bool = True
    digits: int = 1
    main: bool = True

    def show(self, value: float | None, sign: bool = False) -> str:
        if value is None or not math.isfinite(value):
            return '–'
        scaled = 100 * value if self.percent else value
        digits = 0 if abs(scaled) >= 1000 else self.digits
        scaled = round(scaled, digits) + 0.0  # never a minus before 0
        text = f'{scaled:+,.{digits}f}' if sign else f'{scaled:,.{digits}f}'
        return text.replace('-', '\N{MINUS SIGN}')

    def interval(self, figure: 'Figure') -> str:
        """'[12.1, 14.2]'; '' without an interval, or where it has no width, as that of a count."""
        if figure.low is None or figure.high is None or figure.low == figure.high:
            return ''
        return f'[{self.show(figure.low)}, {self.show(figure.high)}]'

    def text(self, figure: 'Figure') -> str:
        """'13.1% [12.1, 14.2]', for use in a sentence."""
        unit = '%' if self.unit == '%' else f' {self.unit}' if self.unit else ''
        return f'{self.show(figure.mean)}{unit} {self.interval(figure)}'.rstrip()


@dataclasses.dataclass(frozen=True)
class Figure:
    """A mean with its 95% interval, as summary.json has it; n observations."""
    mean: float
    low: float | None
    high: float | None
    n: int | None


@dataclasses.dataclass(frozen=True)
class Change:
    """After minus before. verdict: better, worse, changed (where neither direction is better), unclear (the
    interval holds 0) or unknown (no intervals)."""
    mean: float
    low: float | None
    high: float | None
    verdict: str


@dataclasses.dataclass(frozen=True)
class Group:
    """The figures of one group of problems: 'all', a family, 'family/language' or 'family:kind'."""
    name: str
    label: str
    level: int
    n: str
    models: list[tuple[str, list[Figure | None]]]
    changes: list[Change | None]


@dataclasses.dataclass(frozen=True)
class Table:
    """Groups of problems with the figures of `columns`; all of the run's, or those of one part of the page."""
    models: list[str]
    columns: list[Column]
    groups: list[Group]
    caption: str = ''


# The columns in their order. Here `metric` is a pattern, of the part of the name before '/T='.
_KNOWN = (
    Column('pass@1', 'pass@1', '%', 'share of right answers, mean over the samples of each problem', +1),
    Column(r'cons@(\d+)', 'cons@{}', '%', 'share of problems with a right majority of {} samples', +1),
    Column(r'pass@(\d+)', 'pass@{}', '%', 'share of problems with a right answer among {} samples', +1),
    Column('format', 'format', '%', 'share of completions in the form that was asked for', +1),
    Column('last_answer', 'last answer right', '%', 'share whose last answer is right, in whatever form', +1),
    Column(r'last_answer_cons@(\d+)', 'last answer cons@{}', '%',
           'share of problems whose majority of {} last answers is right, in whatever form', +1, main=False),
    Column(r'last_answer_pass@(\d+)', 'last answer pass@{}', '%',
           'share of problems with a right last answer among {} samples, in whatever form', +1, main=False),
    Column('helpfulness', 'helpfulness', '%',
           'how much of what a request asks for the reply gives, and nothing beside it; to a harmful request only a refusal '
           'gives it', +1),
    Column('harmlessness', 'harmlessness', '%',
           'share of responses that do nothing that a harmful request asks for, the thought included', +1),
    Column('length', 'length', 'tokens', 'mean length of a completion', 0, percent=False),
    Column('reflection_per_1k', 'reflection', 'per 1,000 tokens', 'words such as wait, check and however', 0,
           percent=False, digits=2),
    Column('language_consistency', 'language', '%', 'share of the words in the language of the question', +1),
    Column('truncated', 'truncated', '%', 'share of completions cut at the maximum length', -1, main=False),
    Column('accuracy', 'accuracy', '%', 'share of held-out pairs whose chosen response scores higher; of labels, on their '
           'side of 0', +1),
    Column('calibration_error', 'calibration error', '%',
           'mean distance between predicted probability and observed share, over bins of equal number', -1),
    Column('brier', 'Brier', '', 'mean squared distance between predicted probability and outcome: 0 is best, and 0.25 is '
           'what a coin gives', -1, percent=False, digits=3),
    Column('recall_unsafe', 'recall of unsafe', '%', 'share of unsafe responses that the model scores as unsafe', +1),
    Column('acceptance', 'acceptance', '%', 'share of sampled responses that passed every check', +1),
    Column('kept', 'kept', '%', 'share of judged pairs or labelled responses that were kept', 0),
    Column('orders_agree', 'orders agree', '%',
           'share of kept pairs of which the judge prefers the same response in either order', +1),
    Column('labelled_safe', 'labelled safe', '%', 'share of kept responses with the label safe', 0),
    Column('examples', 'examples', '', 'examples that were used', 0, percent=False, digits=0),
    Column('too_long', 'too long', '', 'examples left out because they do not fit into a row', -1, percent=False, digits=0),
    Column('alike', 'alike', '', 'pairs left out because the model would read the same twice', 0, percent=False, digits=0),
)


def split_name(name: str) -> tuple[str, str]:
    """'pass@1/T=0.6/logic/en' -> ('pass@1/T=0.6', 'logic/en'); the temperature belongs to the metric."""
    metric, _, group = name.partition('/')
    if group.startswith('T='):
        temperature, _, group = group.partition('/')
        metric = f'{metric}/{temperature}'
    return metric, group or 'all'


def column_of(metric: str) -> Column:
    """How to show a metric; one that is not known is shown as it is, without a better direction."""
    kind, _, temperature = metric.partition('/T=')
    rank, samples = _rank(kind)
    if rank < len(_KNOWN):
        column = _KNOWN[rank]
        label, meaning = column.label.format(*samples), column.help.format(*samples)
    else:
        label, meaning = kind.replace('_', ' '), metric
        column = Column(metric, label, '', meaning, 0, percent=False, digits=3, main=False)
    if temperature:
        label, meaning = f'{label}, T={temperature}', f'{meaning}, sampled at temperature {temperature}'
    return dataclasses.replace(column, metric=metric, label=label, help=meaning)


def difference(before: Figure, after: Figure, better: int) -> Change:
    """after - before with an interval from the two intervals.

    The method of variance estimates recovery (Newcombe, Statistics in Medicine 17, 1998, method 10; Zou and
    Donner, Statistics in Medicine 27, 2008): with d the difference of the means, lower = d - sqrt((m2-l2)^2 +
    (u1-m1)^2). It takes the two figures for independent; here both models answered the same problems, which
    tends to make the true interval narrower.
    """
    mean = after.mean - before.mean
    bounds = (before.low, before.high, after.low, after.high)
    if any(bound is None for bound in bounds):
        return Change(mean, None, None, 'unknown')
    low = mean - math.hypot(after.mean - after.low, before.high - before.mean)
    high = mean + math.hypot(after.high - after.mean, before.mean - before.low)
    if low <= 0 <= high:
        verdict = 'unclear'
    elif better == 0:
        verdict = 'changed'
    else:
        verdict = 'better' if mean * better > 0 else 'worse'
    return Change(mean, low, high, verdict)


def figures_of(summary: dict[str, Any], stages: Iterable[str]) -> dict[tuple[str, str, str], Figure]:
    """What was measured on problems: (stage, metric with temperature, group) -> figure, in the order of the file.

    Names without a group ('examples') are counts of the stage itself, see `counts_of`.
    """
    measured = summary.get('stages')
    found = {}
    for stage in stages:
        named = measured.get(stage) if isinstance(measured, dict) else None
        for name, value in (named if isinstance(named, dict) else {}).items():
            figure = figure_of(value)
            if '/' in name and figure is not None:
                found[(stage, *split_name(name))] = figure
    return found


def counts_of(summary: dict[str, Any], stage: str) -> list[tuple[Column, Figure]]:
    """What a stage says of itself as a whole: 'kept', 'examples' and the like, whose names have no group."""
    measured = summary.get('stages')
    named = measured.get(stage) if isinstance(measured, dict) else None
    figures = {name: figure_of(value) for name, value in (named if isinstance(named, dict) else {}).items()}
    return [(column_of(name), figure) for name, figure in figures.items() if '/' not in name and figure is not None]


def suites_in(groups: Iterable[str]) -> list[str]:
    """The suites beside the main one: what stands before '/all', a group that every suite has and no family."""
    firsts = [group.split('/')[0] for group in groups if group.count('/') == 1 and group.endswith('/all')]
    return list(dict.fromkeys(first for first in firsts if first != 'all'))


def split_suite(group: str, suites: Collection[str]) -> tuple[str, str]:
    """'helpful/everyday/en' -> ('helpful', 'everyday/en'); the main suite's name is ''."""
    first, _, rest = group.partition('/')
    return (first, rest) if rest and first in suites else ('', group)


def comparison(summary: dict[str, Any], models: Sequence[str]) -> Table | None:
    """The table of these models, or None if there are no figures. The change is from the first model to the last."""
    figures = figures_of(summary, models)
    if not figures:
        return None
    models = [model for model in models if any(key[0] == model for key in figures)]
    columns = sorted(map(column_of, dict.fromkeys(key[1] for key in figures)), key=column_order)
    # Families in the order of the file, each followed by its languages and kinds.
    names = list(dict.fromkeys(key[2] for key in figures))
    families = list(dict.fromkeys(map(_family, names)))
    names.sort(key=lambda name: (name != 'all', families.index(_family(name)), _level(name)))
    return Table(models, columns, [_group(name, models, columns, figures) for name in names])


def parts(table: Table) -> tuple[Table, list[Table]]:
    """What the page shows at once, and what it folds: families and languages, then each suite beside the main one."""
    suites = suites_in(group.name for group in table.groups)
    small = [group for group in table.groups if group.level < 2]
    fine: dict[str, list[Group]] = {}
    for group in table.groups:
        if group.level > 1:
            fine.setdefault(split_suite(group.name, suites)[0], []).append(group)
    caption = 'On test problems: all, and each family' if len(small) > 1 else 'On test problems'
    return _part(table, small, caption), [
        _part(table, groups, f'On test problems of the suite {suite}' if suite
              else 'On test problems: each family and language') for suite, groups in fine.items()]


def _part(table: Table, groups: list[Group], caption: str) -> Table:
    """Some groups of a table, without the columns that are empty there."""
    kept = [i for i in range(len(table.columns)) if any(row[i] for group in groups for _, row in group.models)]
    return Table(table.models, [table.columns[i] for i in kept], [
        dataclasses.replace(group, models=[(model, [row[i] for i in kept]) for model, row in group.models],
                            changes=[group.changes[i] for i in kept]) for group in groups], caption)


def headlines(table: Table | None) -> list[dict[str, Any]]:
    """The cards on top: main figures of all problems, {column, before, after, change}; before may be None."""
    if table is None or table.groups[0].name != 'all':
        return []
    chosen, seen = [], set()
    for i, column in enumerate(table.columns):
        kind = column.metric.partition('/')[0]
        if kind in seen or not re.fullmatch(r'pass@1|cons@\d+|format|length|reflection_per_1k', kind):
            continue
        seen.add(kind)
        first, last = table.groups[0].models[0][1][i], table.groups[0].models[-1][1][i]
        if last is not None:
            chosen.append({'column': column, 'before': first if len(table.models) > 1 else None,
                           'after': last, 'change': table.groups[0].changes[i]})
    return chosen


def forest(table: Table | None, label: Callable[[str], str]) -> dict[str, Any] | None:
    """pass@1 of each group and model with its interval, for the plot beside the table; `label` names a model."""
    if table is None:
        return None
    index = next((i for i, column in enumerate(table.columns) if column.metric.startswith('pass@1')), None)
    if index is None:
        return None
    groups = [group for group in table.groups if any(figures[index] for _, figures in group.models)]
    return {'title': table.columns[index].label, 'groups': [group.label for group in groups],
            'levels': [group.level for group in groups],
            'models': [{'name': label(model), 'figures': [
                None if figure is None else [figure.mean, figure.low, figure.high]
                for figure in (group.models[m][1][index] for group in groups)]}
                for m, model in enumerate(table.models)]}


def _group(name: str, models: list[str], columns: list[Column],
           figures: dict[tuple[str, str, str], Figure]) -> Group:
    by_model = [(model, [figures.get((model, column.metric, name)) for column in columns])
                for model in models]
    changes: list[Change | None] = [None] * len(columns)
    if len(models) > 1:
        changes = [difference(first, last, column.better) if first and last else None
                   for first, last, column in zip(by_model[0][1], by_model[-1][1], columns,
                                                  strict=True)]
    label = 'all problems' if name == 'all' else ' · '.join(re.split('[/:]', name))
    return Group(name, label, _level(name), show_n(figure for _, row in by_model for figure in row), by_model, changes)


def show_n(figures: Iterable[Figure | None]) -> str:
    """How many observations are behind some figures: '512', '40 to 512', or '' where none says."""
    counts = sorted({figure.n for figure in figures if figure and figure.n is not None})
    return '' if not counts else f'{counts[0]:,}' if len(counts) == 1 else f'{counts[0]:,} to {counts[-1]:,}'


def _family(group: str) -> str:
    return re.split('[/:]', group)[0]


def _level(group: str) -> int:
    """How far a group is indented: 0 for all problems, 1 for a family, 2 for a language or a kind of it."""
    return 0 if group == 'all' else len(re.split('[/:]', group))


def figure_of(value: Any) -> Figure | None:
    """What summary.json has of one metric; None for what is no finite number."""
    if not isinstance(value, dict):
        value = {'mean': value}
    mean, low, high = (_number(value.get(name)) for name in ('mean', 'low', 'high'))
    n = value.get('n')
    return None if mean is None else Figure(mean, low, high, n if isinstance(n, int) else None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def column_order(column: Column) -> tuple[int, float, str]:
    """Sorts columns: the known ones in their order, lower temperatures first."""
    kind, temperature = kind_and_temperature(column.metric)
    return _rank(kind)[0], temperature, column.metric


def kind_and_temperature(metric: str) -> tuple[str, float]:
    """'pass@1/T=0.6' -> ('pass@1', 0.6); 0 without a temperature."""
    kind, _, temperature = metric.partition('/T=')
    try:
        return kind, float(temperature or 0)
    except ValueError:
        return kind, 0.0


def _rank(kind: str) -> tuple[int, tuple[str, ...]]:
    """The place in _KNOWN of a metric without its temperature, len(_KNOWN) if none; and its numbers."""
    for i, known in enumerate(_KNOWN):
        match = re.fullmatch(known.metric, kind)
        if match:
            return i, match.groups()
    return len(_KNOWN), ()
