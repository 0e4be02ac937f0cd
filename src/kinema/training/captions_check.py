"""The check of a run's captions before training starts.

A word that the text encoder does not know trains nothing, or trains another word.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from kinema.errors import DataError
from kinema.models.conditioning import TextEncoder

log = logging.getLogger(__name__)

CHECKED_CAPTIONS = 2000
SHOWN_WORDS = 12
"""Unknown words in a message, the most frequent ones."""


def check_captions(
    captions: Iterable[str], encoder: TextEncoder, *, max_unknown: float, data: str, advice: str
) -> None:
    """Log how many words of the first captions the text encoder knows, and which it does not.

    Raises `DataError` if the share of unknown occurrences is above `max_unknown`; `data` names the data set
    and `advice` is what else to do in the message.
    """
    unknown: Counter[tuple[str, str | None]] = Counter()
    scripts: set[str] = set()
    num_words = 0
    for caption in islice(captions, CHECKED_CAPTIONS):
        report = encoder.read_prompt(caption)
        num_words += len(report.uses)
        scripts.update(report.scripts)
        unknown.update((use.word, use.used) for use in report.uses if not use.known)
    if not unknown:
        log.info("the text encoder knows all %d words of the captions", num_words)
        return

    share = unknown.total() / num_words
    found = (
        f"the text encoder does not know {share:.1%} of the words in the captions of {data} "
        f"({unknown.total()} of {num_words}; most frequent: {_listed(unknown)})"
    )
    if scripts:
        found += f"; it has not been trained on text in {' or '.join(sorted(scripts))}"
    if share > max_unknown:
        raise DataError(
            f"{found}: {advice}, or allow it with --set max_unknown={min(1.0, share + 0.01):.2f} "
            f"(now {max_unknown:g})"
        )
    log.warning("%s", found)


def _listed(unknown: Counter[tuple[str, str | None]]) -> str:
    """The most frequent words with their fate and number."""
    parts = []
    for (word, used), count in unknown.most_common(SHOWN_WORDS):
        fate = " (left out)" if used is None else "" if used == word else f" (read as {used})"
        parts.append(f"{word}{fate} {count}")
    return ", ".join(parts)
