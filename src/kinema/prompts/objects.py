"""The objects that a prompt names, for models that draw fewer of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kinema.prompts.reading import PromptReport, WordUse

MAX_NAME_WORDS = 4
"""Words of the longest name of an object."""


def with_objects(
    report: PromptReport, names: Mapping[str, Sequence[str]], max_objects: int | None
) -> PromptReport:
    """The report with the objects that the prompt names, if they are more than the model draws.

    `names` are the English and Chinese names of each object of the captions. None for `max_objects`: the
    number is not known.
    """
    found = named_objects(report.uses, names)
    if max_objects is None or len(found) <= max_objects:
        return report
    return replace(report, objects=tuple(found.items()), max_objects=max_objects)


def named_objects(uses: Sequence[WordUse], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The objects that a prompt names as the model reads it, in order, and the prompt's words for each."""
    objects = {form: name for name, forms in names.items() for form in forms}
    read = [(token, use.word) for use in uses if use.used for token in use.used.split()]
    found: dict[str, str] = {}
    start = 0
    while start < len(read):
        length = next(
            (n for n in range(MAX_NAME_WORDS, 0, -1) if _name(read[start : start + n]) in objects), 0
        )
        if length:
            part = read[start : start + length]
            words = " ".join(dict.fromkeys(word for _, word in part))
            found.setdefault(objects[_name(part)], words)
        start += max(1, length)
    return found


def _name(part: Sequence[tuple[str, str]]) -> str:
    """The tokens as one name. Chinese words are not separated."""
    name = " ".join(token for token, _ in part)
    return name if name.isascii() else name.replace(" ", "")
