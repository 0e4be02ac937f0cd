"""Lookup in tables of names, with an error that lists the known names."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from kinema.errors import UnknownName

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, ignoring case; None below a difflib ratio of 0.6."""
    by_spelling = {other.casefold(): other for other in known}
    matches = get_close_matches(name.casefold(), list(by_spelling), n=1, cutoff=0.6)
    return by_spelling[matches[0]] if matches else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """An error message for an unknown name, with the nearest and all known names."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})"


def lookup(table: Mapping[str, T], name: str, *, kind: str) -> T:
    """The entry `name` of `table`. Raises `UnknownName`, which lists the nearest and all known names."""
    if name not in table:
        raise UnknownName(unknown(kind, name, table))
    return table[name]
