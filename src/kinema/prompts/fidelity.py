"""What a prompt names, and what of it another wording has lost: words, numbers, quotes and negations.

Which word is a noun cannot be known without a dictionary of every noun, so every word that is not a function word must be kept, in this
or another form ("dog", "dogs"); Chinese is cut into the words of the tokenizer's tables, and what lies between must be kept as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from kinema.prompts.synonyms import senses
from kinema.prompts.tokenizer import CHINESE, NUMBERS, Tokenizer, other_forms, pieces
from kinema.prompts.words import CLAUSE_ENDS, NEGATIONS, NEGATIONS_ZH, QUOTES
from kinema.worlds.stage import grammar
from kinema.worlds.stage.nouns import NOUNS

STOP = frozenset(
    """
    a an the this that these those some any of in on at to into onto over under from by with for and or but as is are was were be been
    being it its itself he she his her him they their them there here then than so such very really just also too can will would
    should could do does did has have had i me my we our you your please show make create generate video clip movie film scene
    """.split()  # noqa: SIM905
)
STOP_ZH = frozenset(
    "的了着在上下里中一是有和与正地得把被向往到从个只辆架匹头条颗枚朵棵位座张块件片群双对们这那其并也都很请"
)
NUMBERS_ZH = "二两三四五六七八九十百千万"
REACH = 4
"""Words between a negation and what it negates."""
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
WORDS = (
    *NUMBERS[1:],
    "eleven",
    "twelve",
    "dozen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "hundred",
    "thousand",
    "million",
    "both",
    "single",
)


@dataclass(frozen=True)
class Lost:
    """Something of a prompt that an expansion does not say. `is_contradicted`: it says something else in its place."""

    kind: str
    text: str
    is_contradicted: bool = False

    def __str__(self) -> str:
        return f"the {self.kind} '{self.text}'" + (", and says otherwise" if self.is_contradicted else "")


def lost(prompt: str, expansion: str) -> tuple[Lost, ...]:
    """What `prompt` names and `expansion` does not, in the order of quotes, numbers, negations and words."""
    found = [Lost("quote", quote) for quote in quotes(prompt) if quote not in expansion]
    said = _said(expansion)
    others = set(numbers(expansion)) - set(numbers(prompt))
    found += [
        Lost("number", number, bool(others))
        for number in numbers(prompt)
        if not _is_number_said(number, expansion, said)
    ]
    for marker, word in negations(prompt):
        here = [is_negated for other, is_negated in _negatable(expansion) if is_same(word, other)]
        if not here or not all(here):
            found.append(
                Lost("negation", f"{marker} {word}" if marker.isascii() else marker + word, not all(here))
            )
    found += [
        Lost("word", word) for word in content_words(prompt) if not _is_word_said(word, expansion, said)
    ]
    return tuple(dict.fromkeys(found))


def content_words(prompt: str) -> list[str]:
    """Words that carry the prompt's meaning: no function words, no negations, no numbers."""
    return [
        word
        for word in _words(prompt)
        if word not in STOP
        and word not in NEGATIONS
        and word not in NEGATIONS_ZH
        and not _is_number(word)
        and set(word) - STOP_ZH
    ]


def numbers(prompt: str) -> list[str]:
    """Numbers in digits and in words; `一` is an article more often than a number and is none."""
    return [
        *NUMBER.findall(prompt),
        *(word for word in _words(prompt) if word in WORDS or (word and set(word) <= set(NUMBERS_ZH))),
    ]


def quotes(prompt: str) -> list[str]:
    """What stands between quotation marks, without them."""
    pairs = "|".join(
        f"{re.escape(left)}([^{re.escape(right)}]+){re.escape(right)}" for left, right in QUOTES.items()
    )
    return ["".join(match.groups(default="")) for match in re.finditer(pairs, prompt)]


def negations(prompt: str) -> Iterator[tuple[str, str]]:
    """(negation, the first word of meaning behind it)."""
    words = _words(prompt)
    for index, marker in enumerate(words):
        if marker in NEGATIONS or marker in NEGATIONS_ZH:
            behind = words[index + 1 : index + 1 + REACH]
            word = next(
                (w for w in behind if w not in STOP and w not in NEGATIONS and set(w) - STOP_ZH), None
            )
            if word is not None:
                yield marker, word


def is_same(word: str, other: str) -> bool:
    """Whether two words are forms of one: equal, or one a form of the other, or both forms of a third."""
    return word == other or bool({word, *other_forms(word)} & {other, *other_forms(other)})


def _negatable(text: str) -> Iterator[tuple[str, bool]]:
    """Every word with whether a negation stands close before it in its clause."""
    for clause in re.split(f"[{re.escape(''.join(CLAUSE_ENDS))}]", text):
        words = _words(clause)
        for index, word in enumerate(words):
            before = words[max(0, index - REACH) : index]
            yield word, any(marker in NEGATIONS or marker in NEGATIONS_ZH for marker in before)


def _words(text: str) -> list[str]:
    """The words of a text in lower case, negations of Chinese apart; "don't" is "dont"."""
    words: list[str] = []
    for piece in pieces(re.sub(r"n['’]t\b", "nt", text)):
        words += (
            [use.word for use in _chinese().explain(piece)] if re.match(f"[{CHINESE}]", piece) else [piece]
        )
    return words


@cache
def _chinese() -> Tokenizer:
    """What cuts Chinese into words: those of the world, of the table of senses, and what negates or counts."""
    tables = (grammar.GROUND_WORDS_ZH, grammar.DIRECTIONS_ZH, grammar.SKY_WORDS_ZH)
    known = [word for table in tables for texts in table.values() for word in texts if word]
    known += [
        text
        for texts in grammar.VERBS_ZH.values()
        for form in texts
        for text in re.sub(r"\{\w+\}", " ", form).split()
    ]
    known += [noun.chinese for noun in NOUNS.values()] + [
        word for word in senses() if re.match(f"[{CHINESE}]", word)
    ]
    return Tokenizer([*known, *NEGATIONS_ZH, *STOP_ZH, *NUMBERS_ZH], max_length=10**6)


def _said(text: str) -> set[str]:
    """Every word of a text and every form of it."""
    return {form for word in _words(text) for form in (word, *other_forms(word))}


def _is_number(word: str) -> bool:
    return bool(NUMBER.fullmatch(word)) or word in WORDS or set(word) <= set(NUMBERS_ZH)


def _is_number_said(number: str, expansion: str, said: set[str]) -> bool:
    if NUMBER.fullmatch(number):
        return number in NUMBER.findall(expansion) or any(form in said for form in other_forms(number))
    if number in NUMBERS:
        return number in said or str(NUMBERS.index(number)) in NUMBER.findall(expansion)
    return number in said or (not number.isascii() and number in expansion)


def _is_word_said(word: str, expansion: str, said: set[str]) -> bool:
    return (
        word in said
        or any(form in said for form in other_forms(word))
        or (bool(re.match(f"[{CHINESE}]", word)) and word in expansion)
    )
