"""Senses: which known word stands in for a word that no caption ever contained.

The shipped table was made once, offline (`tools/make_senses.py`); reading a prompt needs no network and no embedding model.
"""

import functools
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import resources

TABLE = "senses.tsv"
SHORTEST_MISSPELT = 4
SPELLING_CUTOFF = 0.8


@functools.cache
def senses() -> Mapping[str, tuple[str, ...]]:
    """For each listed word the words or phrases that may stand in for it, best first; none for a word to be left out.

    The file has a line a word, `word<TAB>phrase,phrase`; lines that begin with # state its source and licence.
    """
    text = resources.files("kinema.prompts").joinpath("assets", TABLE).read_text(encoding="utf-8")
    rows = (line.partition("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {word: tuple(phrase for phrase in phrases.split(",") if phrase) for word, _, phrases in rows}


def stand_in(word: str, is_known: Callable[[str], bool], table: Mapping[str, tuple[str, ...]]) -> str | None:
    """The first phrase of `word`'s row in `table` whose words are all known, else one of the rows of those phrases, or None.

    A model of few nouns so reads "puppy" as whatever stands in for "dog".
    """
    near = table.get(word, ())
    further = (phrase for middle in near for phrase in table.get(middle, ()))
    return next(
        (phrase for phrase in (*near, *further) if all(is_known(part) for part in phrase.split())), None
    )


def corrected(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that `word` probably misspells (difflib ratio at least 0.8), or None. Words under four letters are never corrected."""
    if len(word) < SHORTEST_MISSPELT:
        return None
    matches = get_close_matches(word, known, n=1, cutoff=SPELLING_CUTOFF)
    return matches[0] if matches else None
