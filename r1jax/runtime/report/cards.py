"""stages/NAME/data/card.json -> what collected data are made of, and why the rest is not there."""

import dataclasses
from typing import Any

from r1jax.runtime.report.load import Run, Stage
from r1jax.runtime.report.tables import Figure, column_of, counts_of, figure_of, figures_of


@dataclasses.dataclass(frozen=True)
class Family:
    """One row; texts are ready to show. `acceptance` has an interval where summary.json has one."""
    name: str
    source: str
    sampled: int
    kept: int
    acceptance: Figure | None
    tokens: str
    dropped: str


@dataclasses.dataclass(frozen=True)
class Card:
    """One data stage. `about` are (label, value) pairs, `figures` texts about the whole."""
    stage: str
    about: list[tuple[str, str]]
    figures: list[str]
    families: list[Family]
    total: Family


ACCEPTANCE = column_of('acceptance')


def collect(run: Run) -> list[Card]:
    """The cards in the order of the stages; one that is no data card is noted in `run.unreadable`."""
    found = []
    for stage in run.stages:
        if not stage.card:
            continue
        try:
            found.append(_card(run, stage))
        except (AttributeError, KeyError, TypeError, ValueError):
            run.note(f'stages/{stage.name}/data/card.json is no data card')
    return found


def _card(run: Run, stage: Stage) -> Card:
    card = stage.card
    measured = {group: figure for (_, metric, group), figure in figures_of(run.summary, [stage.name]).items()
                if metric.partition('/')[0] == 'acceptance'}
    families = [
        Family(name, family['source'], family['sampled'], family['kept'],
               measured.get(name) or figure_of(family['acceptance']), _tokens(family['tokens']), _dropped(family['dropped']))
        for name, family in card['families'].items()]
    counts = counts_of(run.summary, stage.name)
    kept = next((figure for column, figure in counts if column.metric == 'kept'), None)
    total = Family('all', '', sum(family.sampled for family in families), card['examples']['all'],
                   measured.get('all') or kept, _tokens(card['tokens']), _dropped(card['dropped']))
    about = [(name, str(value)) for name, value in card.items()
             if name != 'stage' and not isinstance(value, (dict, list)) and value != '']
    sources = ', '.join(f'{name} {n:,}' for name, n in card['examples'].items() if name != 'all')
    figures = [f'{total.kept:,} examples' + (f' ({sources})' if len(card['examples']) > 2 else ''),
               f'of {total.sampled:,} sampled']
    if 'all' in measured:
        figures.append(f'{ACCEPTANCE.label} {ACCEPTANCE.text(measured["all"])}')
    figures += [f'{column.label} {column.text(figure)}' for column, figure in counts]
    return Card(stage.name, about, figures, families, total)


def _tokens(lengths: dict[str, Any] | None) -> str:
    return '–' if lengths is None else f'{lengths["p5"]:.0f}, {lengths["median"]:.0f}, {lengths["p95"]:.0f}'


def _dropped(reasons: dict[str, int]) -> str:
    """Why, the most frequent reason first."""
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return ', '.join(f'{reason.replace("_", " ")} {n:,}' for reason, n in ordered) or '–'
