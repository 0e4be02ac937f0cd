"""Pairs of a short prompt and its expansion, made from a truth: the training data of an expander.

The expansion is a medium caption. The prompt has a random part of its phrases, always with the subject: "a
car", "a car at night", "a car drives". Some phrases are replaced, in both texts, by words as users write
them: "a quokka drives on the star". An expander that only inserts thus learns which slots a prompt leaves
open, and that any word may fill one.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from kinema.worlds.stage import grammar
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.verbs import VERBS

UNKNOWN_WORDS = {"en": "quokka", "zh": "麒麟"}
"""A word for each language that is outside the vocabulary."""
OTHER_NOUN = 0.25
"""Share of those words that are a noun of the stage instead: an unknown word is read as its nearest known."""
USER_VERBS = ("runs", "moves", "goes", "jumps", "gets bigger", "passes", "turns")
"""Verbs of users whose words are in the vocabulary, but not as these verbs."""
USER_ARTICLES = {"a": 0.7, "the": 0.14, "my": 0.05, "": 0.07, "one": 0.04}
USER_PREPOSITIONS = ("in", "on", "across", "through", "over", "at", "near", "along", "into")
IN_PICTURE = ("ground", "sky")
"""Slots that a first picture shows, so that the prompt need not name them."""
DROPPED = {"verb": 0.45, "direction": 0.75, "ground": 0.75, "sky": 0.75, "tail": 0.8, "camera": 0.8}
"""Probability that the prompt leaves out a phrase of each slot."""
WHOLE = 0.06
"""Share of prompts that have every phrase, and need no expansion."""
REPLACED = {"subject": 0.25, "verb": 0.3, "ground": 0.3, "sky": 0.2}
"""Probability that a phrase of the prompt has an unknown word."""

CLAUSE = 0.08
"""Share of prompts with another clause at their end."""

Phrase = tuple[str, str]
"""A slot ("subject", "verb", ...) and the text of its phrase."""


def prompt_pair(truth: Mapping[str, Any], kind: str, language: str, rng: random.Random) -> tuple[str, str]:
    """A prompt of a truth and its expansion, which has the words of the prompt in the same order.

    `kind` is one of `kinema.models.expander.PROMPT_KINDS`. For text alone the expansion is the medium
    caption. Next to a first picture it leaves out what the picture shows, unless the prompt names it. For an
    edit it adds only the style, because any other addition would be a change that the user did not ask for.
    """
    phrases = _phrases(truth, language, rng)
    is_whole = rng.random() < WHOLE
    kept = [is_whole or slot == "subject" or rng.random() >= DROPPED[slot] for slot, _ in phrases]
    phrases = [
        (slot, _in_words_of_users(slot, text, language, rng) if is_kept else text)
        for (slot, text), is_kept in zip(phrases, kept)
    ]

    prompt = [phrase for phrase, is_kept in zip(phrases, kept) if is_kept]
    if rng.random() < CLAUSE:
        clause = ("clause", _clause_of_users(language, rng))
        prompt, phrases = [*prompt, clause], [*phrases, clause]
    if kind == "image":
        named = {slot for slot, _ in prompt}
        phrases = [(slot, text) for slot, text in phrases if slot in named or slot not in IN_PICTURE]
    elif kind == "edit":
        style = rng.choice(grammar.STYLES if language == "en" else grammar.STYLES_ZH)
        mark = ". " if language == "en" else "。"
        return _text(prompt, language), f"{_text(prompt, language)}{mark}{style}"
    return _text(prompt, language), _text(phrases, language)


def subject_prompt(truth: Mapping[str, Any], language: str, rng: random.Random, *, with_verb: bool) -> str:
    """A prompt of a truth that names the subject alone, or the subject and the verb."""
    slots = ("subject", "verb") if with_verb else ("subject",)
    return _text([phrase for phrase in _phrases(truth, language, rng) if phrase[0] in slots], language)


def is_complete(text: str, language: str) -> bool:
    """Whether a text names verb, ground and sky once each. In Chinese a verb can name the ground."""
    found: Counter[str] = Counter()
    for slot, texts in _slots(language):
        for phrase in texts:
            text, count = _as_words(phrase, language).subn("#", text)
            found[slot] += count
            if language == "zh" and slot == "verb" and count:
                found["ground"] += any(
                    word in phrase for words in grammar.GROUND_WORDS_ZH.values() for word in words
                )
    return all(found[slot] == 1 for slot in ("verb", "ground", "sky"))


def _phrases(truth: Mapping[str, Any], language: str, rng: random.Random) -> list[Phrase]:
    """The phrases of a medium caption in its order.

    An English caption that begins with the sky is drawn again: words in front of a user's text would change
    its capital letter.
    """
    while True:
        text = grammar.caption(truth, "medium", language, random.Random(rng.getrandbits(32)))
        if language == "zh" or not text.startswith(grammar.optional_phrases("en")["sky"]):
            break

    phrases, end = list[Phrase](), 0
    for start, stop, slot in [*sorted(_spans(text, language)), (len(text), len(text), "")]:
        if text[end:start].strip():
            phrases.append(("subject", text[end:start].strip()))
        if slot:
            phrases.append((slot, text[start:stop].strip()))
        end = stop
    return phrases


def _spans(text: str, language: str) -> list[tuple[int, int, str]]:
    """(start, stop, slot) of every phrase besides the subject, without overlaps."""
    spans: list[tuple[int, int, str]] = []
    for slot, texts in _slots(language):
        for phrase in texts:
            match = _as_words(phrase, language).search(text)
            if match and all(match.end() <= start or match.start() >= stop for start, stop, _ in spans):
                spans.append((*match.span(), slot))
                break
    return spans


def _slots(language: str) -> list[tuple[str, Sequence[str]]]:
    """The phrases of every slot, in the order in which they are looked for.

    A camera or a tail may have words of a verb ("and then rolls on"), and a Chinese verb a direction.
    """
    phrases = {**grammar.optional_phrases(language), "verb": _verbs(language)}
    return [(slot, phrases[slot]) for slot in ("camera", "tail", "verb", "ground", "sky", "direction")]


@cache
def _verbs(language: str) -> tuple[str, ...]:
    """Every verb phrase without a second noun, the longest first.

    In Chinese also with its place and direction where they cannot be taken apart ("落到草地上").
    """
    if language == "en":
        texts = {form for verb in VERBS.values() for pair in verb.english for form in pair}
        return _longest_first(text for text in texts if "{" not in text)

    forms = {
        form.removeprefix("{at}").removeprefix("{to}") for verb in VERBS.values() for form in verb.chinese
    }
    grounds = [word for words in grammar.GROUND_WORDS_ZH.values() for word in words]
    directions = [word for words in grammar.DIRECTIONS_ZH.values() for word in words]
    return _longest_first(
        form.format(ground=ground, to=direction)
        for form in forms
        if "{other}" not in form
        for ground in grounds
        for direction in directions
    )


def _longest_first(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(texts), key=lambda text: (-len(text), text)))


@cache
def _as_words(phrase: str, language: str) -> re.Pattern[str]:
    """Matches the phrase as separate words, but not in a phrase of the camera ("pans to the left").

    In Chinese `在草地上` does not match in `在草地上空飞行`, nor `向左` in `镜头向左平移`.
    """
    if language == "zh":
        return re.compile(re.escape(phrase) + "(?!空|平移)")
    start = "" if phrase.startswith(",") else r"(?<!pans )(?<![\w-])"
    return re.compile(start + re.escape(phrase) + r"(?![\w-])")


def _in_words_of_users(slot: str, text: str, language: str, rng: random.Random) -> str:
    """The phrase as a user may write it: with other articles, forms and words."""
    is_replaced = rng.random() < REPLACED.get(slot, 0.0)
    other = _other_word(language, rng)
    if language == "zh":
        return text[:2] + other if slot == "subject" and is_replaced else text
    if slot == "subject":
        return _subject_of_users(text, other if is_replaced else None, rng)
    if slot == "verb":
        return _verb_of_users(text, other if is_replaced else None, rng)
    if slot in ("ground", "sky"):
        preposition, _, rest = text.partition(" ")
        preposition = rng.choice(USER_PREPOSITIONS) if rng.random() < 0.4 else preposition
        if is_replaced:
            rest = rng.choice((other, f"the {other}", f"a {other}", f"a {UNKNOWN_WORDS['en']} {other}"))
        elif rng.random() < 0.3 and slot == "ground":
            rest = "the " + rest.removeprefix("a ").removeprefix("the ")
        return f"{preposition} {rest}"
    return text


def _other_word(language: str, rng: random.Random) -> str:
    """An unknown word, or a noun of the stage."""
    if rng.random() >= OTHER_NOUN:
        return UNKNOWN_WORDS[language]
    noun = rng.choice(list(NOUNS.values()))
    return noun.name if language == "en" else noun.chinese


def _clause_of_users(language: str, rng: random.Random) -> str:
    """A clause of anything behind a comma."""
    unknown, other = UNKNOWN_WORDS[language], _other_word(language, rng)
    if language == "zh":
        return f"，{unknown}{rng.choice(('', other))}"
    return rng.choice((f", {unknown}", f", {unknown} {other}", f", {unknown} style", f", no {other}"))


def _subject_of_users(text: str, other: str | None, rng: random.Random) -> str:
    """An English subject with another article or none, and with `other` as its adjective or its noun."""
    article, _, noun = text.partition(" ")
    if other:
        unknown = UNKNOWN_WORDS["en"]
        pairs = (f"{noun} and a {other}", f"{noun} with a {other}")
        noun = rng.choice((other, other, f"{other} {noun}", f"{unknown} {other}", *pairs))
    if article in ("a", "an"):
        article = rng.choices(list(USER_ARTICLES), list(USER_ARTICLES.values()))[0]
    return f"{article} {noun}".strip()


def _verb_of_users(text: str, other: str | None, rng: random.Random) -> str:
    """An English verb phrase, without its "down" in half of all cases, or a verb that is not the stage's."""
    if other:
        unknown = UNKNOWN_WORDS["en"]
        phrases = (f"is {unknown}", f"{unknown} {unknown}", f"{unknown} the {other}")
        return rng.choice((*(rng.choice((unknown, *USER_VERBS)) for _ in range(2)), *phrases))
    return text.removesuffix(" down") if rng.random() < 0.5 else text


def _text(phrases: Sequence[Phrase], language: str) -> str:
    """The phrases as one text."""
    if language == "zh":
        return "".join(text for _, text in phrases)
    return " ".join(text for _, text in phrases).replace(" ,", ",")
