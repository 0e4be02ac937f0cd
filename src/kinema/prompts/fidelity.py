"""Fidelity of a rewritten prompt: the words, numbers, quotes and negations of the original that it omits.

Recognising nouns would need a dictionary of all nouns, so every word that is not a function word must be
kept, in this or another form ("dog", "dogs"). Chinese is segmented with the words of the synonyms and those
that the caller knows, such as the words of a world; unknown text between them must be kept unchanged.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from kinema.prompts.segment import is_chinese, pieces, segment_chinese
from kinema.prompts.synonyms import load_synonyms
from kinema.prompts.word_tokenizer import NUMBERS, other_forms
from kinema.prompts.words import CLAUSE_ENDS, NEGATIONS, NEGATIONS_ZH, QUOTES

STOP_WORDS = frozenset(
    """
    a an the this that these those some any of in on at to into onto over under from by with for and or but
    as is are was were be been being it its itself he she his her him they their them there here then than
    so such very really just also too can will would should could do does did has have had i me my we our
    you your please show make create generate video clip movie film scene
    """.split()  # noqa: SIM905
)
STOP_CHARACTERS_ZH = frozenset(
    "的了着在上下里中一是有和与正地得把被向往到从个只辆架匹头条颗枚朵棵位座张块件片群双对们这那其并也都很请"
)
NUMBERS_ZH = "二两三四五六七八九十百千万"
NEGATION_REACH = 4
"""Words between a negation and the word it negates."""
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
NUMBER_WORDS = (
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
class Omission:
    """An item of a prompt that its expansion omits.

    `is_contradicted`: the expansion states something else instead.
    """

    kind: str
    text: str
    is_contradicted: bool = False

    def __str__(self) -> str:
        return f"the {self.kind} '{self.text}'" + (", and says otherwise" if self.is_contradicted else "")


def omissions(prompt: str, expansion: str, known: tuple[str, ...] = ()) -> tuple[Omission, ...]:
    """What `prompt` names and `expansion` omits, in the order quotes, numbers, negations, words.

    `known` are words that segment Chinese.
    """
    forms = _all_forms(expansion, known)
    has_other_numbers = bool(set(numbers(expansion, known)) - set(numbers(prompt, known)))

    found = [Omission("quote", quote) for quote in quotes(prompt) if quote not in expansion]
    for number in numbers(prompt, known):
        if not _has_number(number, expansion, forms):
            found.append(Omission("number", number, has_other_numbers))
    for marker, word in negations(prompt, known):
        found_words = _negatable(expansion, known)
        negated = [is_negated for other, is_negated in found_words if is_same_word(word, other)]
        if not negated or not all(negated):
            text = f"{marker} {word}" if marker.isascii() else marker + word
            found.append(Omission("negation", text, not all(negated)))
    for word in content_words(prompt, known):
        if not _has_word(word, expansion, forms):
            found.append(Omission("word", word))
    return tuple(dict.fromkeys(found))


def content_words(prompt: str, known: tuple[str, ...] = ()) -> list[str]:
    """The words of a prompt without function words, negations and numbers."""
    return [
        word
        for word in _words(prompt, known)
        if word not in STOP_WORDS
        and not _is_negation(word)
        and not _is_number(word)
        and set(word) - STOP_CHARACTERS_ZH
    ]


def numbers(prompt: str, known: tuple[str, ...] = ()) -> list[str]:
    """Numbers in digits and in words. `一` is excluded: it is an article more often than a number."""
    words = [word for word in _words(prompt, known) if word in NUMBER_WORDS or _is_number_zh(word)]
    return [*NUMBER.findall(prompt), *words]


def quotes(prompt: str) -> list[str]:
    """The quoted texts, without quotation marks."""
    pairs = "|".join(
        f"{re.escape(left)}([^{re.escape(right)}]+){re.escape(right)}" for left, right in QUOTES.items()
    )
    return ["".join(match.groups(default="")) for match in re.finditer(pairs, prompt)]


def negations(prompt: str, known: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(negation, the first content word within `NEGATION_REACH` words after it)."""
    words = _words(prompt, known)
    for index, marker in enumerate(words):
        if not _is_negation(marker):
            continue
        for word in words[index + 1 : index + 1 + NEGATION_REACH]:
            if word not in STOP_WORDS and word not in NEGATIONS and set(word) - STOP_CHARACTERS_ZH:
                yield marker, word
                break


def is_same_word(word: str, other: str) -> bool:
    """Whether two words are equal, or one is a form of the other, or both are forms of a third."""
    return word == other or bool({word, *other_forms(word)} & {other, *other_forms(other)})


def _negatable(text: str, known: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """(word, whether a negation stands within `NEGATION_REACH` words before it in its clause)."""
    for clause in re.split(f"[{re.escape(''.join(CLAUSE_ENDS))}]", text):
        words = _words(clause, known)
        for index, word in enumerate(words):
            before = words[max(0, index - NEGATION_REACH) : index]
            yield word, any(_is_negation(marker) for marker in before)


def _words(text: str, known: tuple[str, ...]) -> list[str]:
    """The words of a text in lower case, Chinese segmented with negations apart; "don't" becomes "dont"."""
    vocabulary, longest = _chinese_words(known)
    words: list[str] = []
    for piece in pieces(re.sub(r"n['’]t\b", "nt", text)):
        words += segment_chinese(piece, vocabulary, longest) if is_chinese(piece) else [piece]
    return words


@lru_cache(maxsize=8)
def _chinese_words(known: tuple[str, ...]) -> tuple[frozenset[str], int]:
    """The words that segment Chinese, and the length of the longest."""
    texts = [*known, *load_synonyms(), *NEGATIONS_ZH, *STOP_CHARACTERS_ZH, *NUMBERS_ZH]
    words = frozenset(piece for text in texts if not text.isascii() for piece in pieces(text))
    return words, max(map(len, words))


def _all_forms(text: str, known: tuple[str, ...]) -> set[str]:
    """Every word of a text and every form of it."""
    return {form for word in _words(text, known) for form in (word, *other_forms(word))}


def _is_negation(word: str) -> bool:
    return word in NEGATIONS or word in NEGATIONS_ZH


def _is_number(word: str) -> bool:
    return bool(NUMBER.fullmatch(word)) or word in NUMBER_WORDS or _is_number_zh(word)


def _is_number_zh(word: str) -> bool:
    return bool(word) and set(word) <= set(NUMBERS_ZH)


def _has_number(number: str, expansion: str, forms: set[str]) -> bool:
    if NUMBER.fullmatch(number):
        return number in NUMBER.findall(expansion) or any(form in forms for form in other_forms(number))
    if number in NUMBERS:
        return number in forms or str(NUMBERS.index(number)) in NUMBER.findall(expansion)
    return number in forms or (not number.isascii() and number in expansion)


def _has_word(word: str, expansion: str, forms: set[str]) -> bool:
    if word in forms or any(form in forms for form in other_forms(word)):
        return True
    return is_chinese(word) and word in expansion
