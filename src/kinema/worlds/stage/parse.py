"""What a caption of the stage says, slot by slot, read back from its words by the tables that `grammar` writes with."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from kinema.worlds.stage import grammar
from kinema.worlds.stage.nouns import NOUNS

CAPTION_SLOTS = ("noun", "verb", "direction", "ground", "sky")
"""What a medium or detailed caption always says."""
NAMED_DIRECTIONS = ("left", "right", "clockwise", "counterclockwise")
"""Directions that have words of their own; up and down are in the verb."""

Said = dict[str, str | None]
Options = dict[str, re.Pattern[str]]


def parse_caption(caption: str) -> Said:
    """The values of `CAPTION_SLOTS` that a caption in English or Chinese names; None for a slot that it leaves out.

    Of several nouns the first is meant. Only the sentence that tells what happens counts, without what is said of the camera and of how
    it ends: "and then rolls on" is no rolling.
    """
    slots, unsaid, stop = _english() if caption.isascii() else _chinese()
    text = unsaid.sub("", caption.lower().split(stop)[0])
    found: Said = {}
    for slot in ("sky", "ground", "verb", "direction", "noun"):
        value, words = _first(slots[slot], text)
        found[slot] = value
        if slot in ("sky", "ground"):  # so that an orange sky is no orange, and a lavender field no lavender
            text = text.replace(words, " ", 1)
    return found


def grade_caption(
    caption: str, truth: Mapping[str, Any], slots: Sequence[str] = CAPTION_SLOTS
) -> dict[str, bool]:
    """Right or wrong for each slot of a caption that should name them all. A direction is wrong too where there is none to name."""
    found = parse_caption(caption)
    wanted = {
        slot: truth[slot] if slot != "direction" or truth[slot] in NAMED_DIRECTIONS else None
        for slot in slots
    }
    return {slot: found[slot] == value for slot, value in wanted.items()}


@cache
def _english() -> tuple[dict[str, Options], re.Pattern[str], str]:
    """Words by value and slot, what is left out before they are looked for, and what ends the sentence that counts."""
    skies = {
        name: [*words, f"into the {grammar.INTO_SKY[name]} sky"] for name, words in grammar.SKY_WORDS.items()
    }
    slots: Mapping[str, Mapping[str, Iterable[str]]] = {
        "noun": {
            name: [form for word in noun.words for form in (word, grammar.plural(word))]
            for name, noun in NOUNS.items()
        },
        "verb": {name: [form for forms in words for form in forms] for name, words in grammar.VERBS.items()},
        "direction": {name: grammar.DIRECTIONS[name] for name in NAMED_DIRECTIONS},
        "ground": grammar.GROUND_WORDS,
        "sky": skies,
    }
    tails = [tail for options in grammar.TAILS.values() for forms in options for tail in forms]
    patterns = {
        slot: {name: _any(options, r"\b") for name, options in table.items()} for slot, table in slots.items()
    }
    return patterns, re.compile(rf", the camera .*|\b({'|'.join(tails)})$"), "."


@cache
def _chinese() -> tuple[dict[str, Options], re.Pattern[str], str]:
    slots: Mapping[str, Mapping[str, Iterable[str]]] = {
        "noun": {name: [noun.chinese] for name, noun in NOUNS.items()},
        "verb": grammar.VERBS_ZH,
        "direction": {name: grammar.DIRECTIONS_ZH[name] for name in NAMED_DIRECTIONS},
        "ground": grammar.GROUND_WORDS_ZH,
        "sky": grammar.SKY_WORDS_ZH,
    }
    tails = [tail for options in grammar.TAILS_ZH.values() for tail in options]
    patterns = {
        slot: {name: _any(options, "") for name, options in table.items()} for slot, table in slots.items()
    }
    return patterns, re.compile(rf"，镜头.*|({'|'.join(tails)})$"), "。"


def _any(templates: Iterable[str], edge: str) -> re.Pattern[str]:
    """One expression for all templates, the longest first, with anything in their open places."""
    options = [
        ".*?".join(re.escape(part) for part in re.split(r"\{\w+\}", text))
        for text in sorted(templates, key=len, reverse=True)
    ]
    return re.compile(f"{edge}(?:{'|'.join(options)}){edge}")


def _first(table: Options, text: str) -> tuple[str | None, str]:
    """The name whose words come first in `text`, and those words; of those at one place the longest."""
    matches = [
        (match.start(), -len(match.group()), name, match.group())
        for name, words in table.items()
        if (match := words.search(text))
    ]
    return min(matches)[2:] if matches else (None, "")
