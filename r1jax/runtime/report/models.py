"""summary.json -> the models of an experiment side by side, as the paper's table of Zero, Dev1, Dev2, Dev3 and R1."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from r1jax.runtime.report.tables import (
    Column,
    Figure,
    column_of,
    column_order,
    figures_of,
    kind_and_temperature,
    show_n,
    split_suite,
    suites_in,
)

REASONING, PREFERENCE, OTHERS = 'Reasoning', 'Preference', 'Other suites'
_PREFERENCE_KINDS = ('helpfulness', 'harmlessness')


@dataclasses.dataclass(frozen=True)
class Row:
    """One metric of all problems of a suite ('' is the main one), a figure for each model; `first` at first sight."""
    column: Column
    suite: str
    n: str
    figures: list[Figure | None]
    first: bool


@dataclasses.dataclass(frozen=True)
class Overview:
    """All models in the order of the experiment, and what was measured of them by section."""
    models: list[str]
    sections: list[tuple[str, list[Row]]]

    @property
    def short(self) -> list[tuple[str, list[Row]]]:
        """The sections with the rows of the first sight alone."""
        sections = [(title, [row for row in rows if row.first]) for title, rows in self.sections]
        return [(title, rows) for title, rows in sections if rows]


def models_of(summary: Mapping[str, Any]) -> list[str]:
    """The stages whose models were evaluated, in the order of summary.json: data and reward models are none.

    An evaluation writes pass@1; where it had nothing that a rule can grade, it still writes lengths by group.
    """
    stages = summary.get('stages')
    named = {name: list(figures) for name, figures in (stages if isinstance(stages, dict) else {}).items()
             if isinstance(figures, dict)}
    for sign in ('pass@1/', 'length/'):
        found = [name for name, figures in named.items() if any(key.startswith(sign) for key in figures)]
        if found:
            return found
    return []


def result_of(summary: Mapping[str, Any]) -> str | None:
    """The model that the experiment is about: the one that `result` names, else the last one; None without models."""
    models = models_of(summary)
    return summary['result'] if summary.get('result') in models else models[-1] if models else None


def awaited(summary: Mapping[str, Any]) -> str | None:
    """The result that is named and not evaluated yet, while other models are; another stands in its place."""
    named, models = summary.get('result'), models_of(summary)
    return named if isinstance(named, str) and named and models and named not in models else None


def compared(summary: Mapping[str, Any]) -> list[str]:
    """The models that are compared family by family: the first and the result, or all where there are no more than two."""
    models = models_of(summary)
    return models if len(models) < 3 else list(dict.fromkeys((models[0], result_of(summary))))


def label_of(summary: Mapping[str, Any], stage: str) -> str:
    """What tables call a stage: its label, or its name."""
    labels = summary.get('labels')
    label = labels.get(stage) if isinstance(labels, dict) else None
    return label if isinstance(label, str) and label else stage


def overview(summary: Mapping[str, Any]) -> Overview | None:
    """All models side by side, with the figures of all problems of each suite; None if there are no more than two."""
    models = models_of(summary)
    if len(models) < 3:
        return None
    figures = figures_of(summary, models)
    suites = ['', *suites_in(group for _, _, group in figures)]
    found: dict[tuple[str, str], None] = {}  # (suite, metric)
    for _, metric, group in figures:
        suite, of_suite = split_suite(group, suites)
        if of_suite == 'all':
            found[(suite, metric)] = None
    rows: dict[str, list[Row]] = {REASONING: [], PREFERENCE: [], OTHERS: []}
    ordered = sorted(found, key=lambda key: (column_order(column_of(key[1])), suites.index(key[0])))
    preferred = {suite for suite, metric in found if kind_and_temperature(metric)[0] in _PREFERENCE_KINDS}
    coldest = {suite: min(kind_and_temperature(metric)[1] for of, metric in found if of == suite) for suite, _ in found}
    for suite, metric in ordered:
        section = REASONING if not suite else PREFERENCE if suite in preferred else OTHERS
        group = f'{suite}/all' if suite else 'all'
        row = [figures.get((model, metric, group)) for model in models]
        first = _at_first_sight(column_of(metric), section, coldest[suite])
        rows[section].append(Row(column_of(metric), suite, show_n(row), row, first))
    return Overview(models, [(title, of_section) for title, of_section in rows.items() if of_section])


def _at_first_sight(column: Column, section: str, coldest: float) -> bool:
    """What a suite is for; at temperatures beside its lowest, pass@1 alone."""
    kind, temperature = kind_and_temperature(column.metric)
    if section == PREFERENCE:
        return kind in _PREFERENCE_KINDS and temperature == coldest
    if section == OTHERS:
        return bool(re.fullmatch(r'pass@1|cons@\d+', kind)) and temperature == coldest
    return column.main and (kind == 'pass@1' or temperature == coldest)

