"""Tables of names: one way to look a name up, and one way to say that it is not there."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from kinema.errors import UnknownName

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, whatever the case, or None when nothing is close."""
    by_spelling = {other.casefold(): other for other in known}
    matches = get_close_matches(name.casefold(), list(by_spelling), n=1, cutoff=0.6)
    return by_spelling[matches[0]] if matches else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line that says `name` is unknown, which name is near, and which ones there are."""
    names = sorted(known)
    near = nearest(name, names)
    hint = f"; did you mean '{near}'?" if near else ""
    return f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})"


def lookup(table: Mapping[str, T], name: str, *, kind: str) -> T:
    """The entry of `table` called `name`. Raises `UnknownName`, which lists the known names and the nearest."""
    if name not in table:
        raise UnknownName(unknown(kind, name, table))
    return table[name]
