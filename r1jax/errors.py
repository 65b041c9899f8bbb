"""The one exception that means "the user can fix this"; the command line prints its sentence and exits with code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message is one sentence that says what is wrong, where, and the nearest valid choice."""


def at_least(low: int, settings: object, *names: str) -> None:
    """Raises UserError for the first of the named settings that is below `low`."""
    for name in names:
        if getattr(settings, name) < low:
            raise UserError(f'{name}={getattr(settings, name)} must be at least {low}')


class Missing(UserError):
    """A file or folder that an experiment needs is not there (yet): what a dry run lists instead of giving up."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the closest of `choices`, else " (known: a, b, ...)" for the first twelve."""
    choices = sorted(choices)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f" (did you mean '{close[0]}'?)"
    shown = ', '.join(choices[:12]) + (', ...' if len(choices) > 12 else '')
    return f' (known: {shown})'
