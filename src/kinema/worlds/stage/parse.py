"""Slot values of a caption of the stage, read from its words with the tables of `grammar`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from kinema.worlds.stage import grammar
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.verbs import VERBS

CAPTION_SLOTS = ("noun", "verb", "direction", "ground", "sky")
"""The slots that every medium and detailed caption names."""
NAMED_DIRECTIONS = ("left", "right", "clockwise", "counterclockwise")
"""Directions that have words of their own; up and down are part of the verb."""

Patterns = dict[str, re.Pattern[str]]
"""By value of a slot, an expression for the phrases that name it."""


@dataclass(frozen=True)
class CaptionPatterns:
    """How one language names slots.

    `ignored` matches phrases that are removed first, `stop` ends the first sentence.
    """

    slots: dict[str, Patterns]
    ignored: re.Pattern[str]
    stop: str


def parse_caption(caption: str) -> dict[str, str | None]:
    """The value of each of `CAPTION_SLOTS` that an English or Chinese caption names; None if it names none.

    Of several nouns the first counts. Only the first sentence is read, without its camera and its ending:
    "and then rolls on" does not name the verb roll.
    """
    patterns = _english() if caption.isascii() else _chinese()
    text = patterns.ignored.sub("", caption.lower().split(patterns.stop)[0])

    values: dict[str, str | None] = {}
    for slot in ("sky", "ground", "verb", "direction", "noun"):
        values[slot], phrase = _first(patterns.slots[slot], text)
        if slot in ("sky", "ground"):  # so that "orange sky" and "lavender field" do not name nouns
            text = text.replace(phrase, " ", 1)
    return {slot: values[slot] for slot in CAPTION_SLOTS}


@cache
def _english() -> CaptionPatterns:
    skies = {
        name: [*phrases, f"into the {grammar.INTO_SKY[name]} sky"]
        for name, phrases in grammar.SKY_WORDS.items()
    }
    nouns = {
        name: [form for word in noun.words for form in (word, grammar.plural(word))]
        for name, noun in NOUNS.items()
    }
    slots: Mapping[str, Mapping[str, Iterable[str]]] = {
        "noun": nouns,
        "verb": {name: [form for forms in verb.english for form in forms] for name, verb in VERBS.items()},
        "direction": {name: grammar.DIRECTIONS[name] for name in NAMED_DIRECTIONS},
        "ground": grammar.GROUND_WORDS,
        "sky": skies,
    }
    tails = [tail for options in grammar.TAILS.values() for forms in options for tail in forms]
    ignored = re.compile(rf", the camera .*|\b({'|'.join(tails)})$")
    return CaptionPatterns(_compile(slots, r"\b"), ignored, ".")


@cache
def _chinese() -> CaptionPatterns:
    slots: Mapping[str, Mapping[str, Iterable[str]]] = {
        "noun": {name: [noun.chinese] for name, noun in NOUNS.items()},
        "verb": {name: verb.chinese for name, verb in VERBS.items()},
        "direction": {name: grammar.DIRECTIONS_ZH[name] for name in NAMED_DIRECTIONS},
        "ground": grammar.GROUND_WORDS_ZH,
        "sky": grammar.SKY_WORDS_ZH,
    }
    tails = [tail for options in grammar.TAILS_ZH.values() for tail in options]
    ignored = re.compile(rf"，镜头.*|({'|'.join(tails)})$")
    return CaptionPatterns(_compile(slots, ""), ignored, "。")


def _compile(slots: Mapping[str, Mapping[str, Iterable[str]]], boundary: str) -> dict[str, Patterns]:
    return {
        slot: {name: _any_of(templates, boundary) for name, templates in table.items()}
        for slot, table in slots.items()
    }


def _any_of(templates: Iterable[str], boundary: str) -> re.Pattern[str]:
    """One expression for all templates, longest first. A placeholder matches anything."""
    options = [
        ".*?".join(re.escape(text) for text in re.split(r"\{\w+\}", template))
        for template in sorted(templates, key=len, reverse=True)
    ]
    return re.compile(f"{boundary}(?:{'|'.join(options)}){boundary}")


def _first(patterns: Patterns, text: str) -> tuple[str | None, str]:
    """The value whose phrase comes first in `text`, and that phrase; at equal positions the longest."""
    found = {name: match for name, pattern in patterns.items() if (match := pattern.search(text))}
    if not found:
        return None, ""
    name = min(found, key=lambda name: (found[name].start(), -len(found[name].group()), name))
    return name, found[name].group()
