"""The card of a collected data set: where it comes from, how much of what it holds, and why the rest is not there."""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.runtime.files import write_text

# Responses that passed every check and were left out because there are others: they count as accepted.
SURPLUS = ('enough', 'duplicate')


def make_card(
    about: Mapping[str, Any], kept: Sequence[Mapping[str, Any]], sampled: Sequence[str], dropped: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Counts.

    Args:
        about: what is known of the whole; goes into the card as it is.
        kept: rows with task, language, source and n_tokens.
        sampled: the family ('arithmetic/zh', see `family_of`) of every response that was sampled.
        dropped: (family, reason) of every response that was dropped.

    Returns:
        `about` with 'examples' (by source and in all), 'tokens', 'dropped' (by reason) and 'families', each with its source,
        sampled, kept, acceptance (the share that passed every check, None where nothing was sampled), tokens and dropped.
    """
    families: dict[str, dict[str, Any]] = {}
    lengths = collections.defaultdict(list)
    for row in kept:
        name = family_of(row['task'], row['language'])
        families.setdefault(name, _new(row['source']))['kept'] += 1
        lengths[name].append(row['n_tokens'])
    for name in sampled:
        families.setdefault(name, _new('reasoning'))['sampled'] += 1
    for name, reason in dropped:
        reasons = families[name]['dropped']
        reasons[reason] = reasons.get(reason, 0) + 1
    for name, family in families.items():
        family['tokens'] = _lengths(lengths[name])
        surplus = sum(family['dropped'].get(reason, 0) for reason in SURPLUS)
        family['acceptance'] = (family['kept'] + surplus) / family['sampled'] if family['sampled'] else None
    return {
        **about,
        'examples': {'all': len(kept)} | dict(collections.Counter(row['source'] for row in kept)),
        'tokens': _lengths([row['n_tokens'] for row in kept]),
        'dropped': dict(collections.Counter(reason for _, reason in dropped).most_common()),
        'families': {name: families[name] for name in sorted(families)},
    }


def source_of(model: str, folder: pathlib.Path) -> str:
    """What a card calls the model that was sampled: a stage of the same run by its place there, any other as it is.

    Args:
        model: a folder, or 'package:NAME'.
        folder: that of the stage that samples, stages/NAME in the run's folder.
    """
    run = folder.resolve().parents[1]
    path = pathlib.Path(model).resolve()
    return path.relative_to(run).as_posix() if path.is_relative_to(run) else model


def write_card(folder: pathlib.Path, card: Mapping[str, Any]) -> None:
    """Writes card.json, and the same for people as card.md."""
    write_text(folder / 'card.json', json.dumps(card, indent=2, ensure_ascii=False) + '\n')
    write_text(folder / 'card.md', _markdown(card))


def family_of(task: str, language: str) -> str:
    return f'{task}/{language}'.rstrip('/')


def _new(source: str) -> dict[str, Any]:
    return {'source': source, 'sampled': 0, 'kept': 0, 'dropped': {}}


def _lengths(tokens: Sequence[int]) -> dict[str, float] | None:
    if not tokens:
        return None
    p5, median, p95 = np.percentile(tokens, (5, 50, 95)).tolist()
    return {'mean': float(np.mean(tokens)), 'p5': p5, 'median': median, 'p95': p95}


def _markdown(card: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in card.items() if not isinstance(value, (dict, list)) and value != ''}
    counts = ', '.join(f'{name} {count:,}' for name, count in card['examples'].items())
    lines = [f'# Data card: {card.get("stage", "data")}', '', *(f'- {name}: {value}' for name, value in plain.items()),
             f'- examples: {counts}', '']
    columns = ('family', 'source', 'sampled', 'kept', 'acceptance', 'tokens: 5%, median, 95%', 'dropped')
    lines += ['| ' + ' | '.join(columns) + ' |', '|---' * len(columns) + '|']
    for name, family in card['families'].items():
        tokens, share = family['tokens'], family['acceptance']
        cells = (
            name, family['source'], family['sampled'], family['kept'], '-' if share is None else f'{share:.3f}',
            f'{tokens["p5"]:.0f}, {tokens["median"]:.0f}, {tokens["p95"]:.0f}' if tokens else '-',
            ', '.join(f'{reason} {n}' for reason, n in sorted(family['dropped'].items(), key=lambda item: -item[1])) or '-')
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    return '\n'.join(lines) + '\n'
