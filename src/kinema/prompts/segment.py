"""Text to words: a regular expression for words and numbers, and longest-match segmentation for Chinese."""

import re
import unicodedata
from collections.abc import Container

CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
"""Ranges of a character class: CJK ideographs and extension A."""
PIECES = re.compile(rf"[{CHINESE}]+|[^\W\d_{CHINESE}]+|\d+")
POSSESSIVE = re.compile(r"['\u2019]s\b|['\u2019]")


def pieces(text: str) -> list[str]:
    """The words, numbers and runs of Chinese in `text`, normalised (NFKC) and in lower case.

    Punctuation, hyphens and the possessive 's are dropped.
    """
    return PIECES.findall(POSSESSIVE.sub("", unicodedata.normalize("NFKC", text).casefold()))


def is_chinese(text: str) -> bool:
    """Whether `text` begins with a Chinese character."""
    return "\u3400" <= text[:1] <= "\u4dbf" or "\u4e00" <= text[:1] <= "\u9fff"


def segment_chinese(run: str, known: Container[str], longest: int) -> list[str]:
    """The words of a run of Chinese: at each position the longest known word of at most `longest` characters.

    Adjacent characters that begin no known word form one unknown word. The words joined are `run`.
    """
    words: list[str] = []
    follows_unknown = False
    start = 0
    while start < len(run):
        sizes = range(min(longest, len(run) - start), 0, -1)
        size = next((size for size in sizes if run[start : start + size] in known), 0)
        word = run[start : start + max(size, 1)]

        if size == 0 and follows_unknown:
            words[-1] += word
        else:
            words.append(word)
        follows_unknown = size == 0
        start += len(word)
    return words


def scripts(text: str) -> frozenset[str]:
    """The writing systems of the letters in `text`, such as "Latin", "Chinese" and "Cyrillic".

    The name of a letter in the Unicode standard begins with its script.
    """
    names = {unicodedata.name(letter, "").partition(" ")[0] for letter in set(text) if letter.isalpha()}
    return frozenset("Chinese" if name == "CJK" else name.capitalize() for name in names if name)
