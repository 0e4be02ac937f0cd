"""Synonyms: the known word that replaces a word outside the vocabulary.

The shipped table was computed offline (`tools/make_synonyms.py`); reading a prompt needs no network and no
embedding model.
"""

import functools
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import resources

SYNONYMS_FILE = "synonyms.tsv"
MIN_CORRECTED_LENGTH = 4
"""Shorter words are not corrected: too many known words are one letter away."""
SPELLING_CUTOFF = 0.8
"""Least difflib ratio between a word and its correction."""


@functools.cache
def load_synonyms() -> Mapping[str, tuple[str, ...]]:
    """The shipped table: for each word its replacement phrases, best first; an empty tuple if the word is
    dropped.

    Each line of the file is `word<TAB>phrase,phrase`; lines that begin with # give its source and licence.
    """
    text = resources.files("kinema.prompts").joinpath("assets", SYNONYMS_FILE).read_text(encoding="utf-8")
    rows = (line.partition("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {word: tuple(phrase for phrase in phrases.split(",") if phrase) for word, _, phrases in rows}


def substitute(
    word: str, is_known: Callable[[str], bool], table: Mapping[str, tuple[str, ...]]
) -> str | None:
    """The first phrase of `word`'s row in `table` whose words are all known, else the first in the rows of
    those phrases, else None.

    A model with few nouns thus reads "puppy" as whatever replaces "dog".
    """
    direct = table.get(word, ())
    indirect = (phrase for middle in direct for phrase in table.get(middle, ()))
    for phrase in (*direct, *indirect):
        if all(is_known(part) for part in phrase.split()):
            return phrase
    return None


@functools.lru_cache(maxsize=2**14)
def correct_spelling(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that `word` probably misspells, or None.

    Words under `MIN_CORRECTED_LENGTH` letters are not corrected.
    """
    if len(word) < MIN_CORRECTED_LENGTH:
        return None
    matches = get_close_matches(word, known, n=1, cutoff=SPELLING_CUTOFF)
    return matches[0] if matches else None
