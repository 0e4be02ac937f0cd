"""The tokenizer: English and Chinese words to numbers, one number a word.

Its vocabulary is what the world's captions can say, so a word outside it has never been seen with a picture. Such a word is
read as the nearest known one, and `explain` says so, instead of becoming a token that means nothing to the model.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.errors import ModelError
from kinema.files import read_json, write_json
from kinema.prompts.synonyms import corrected, senses, stand_in

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL = (PAD, BOS, EOS)
FORMAT = "kinema-words-1"
CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
PIECES = re.compile(rf"[{CHINESE}]+|[^\W\d_{CHINESE}]+|\d+")
POSSESSIVE = re.compile(r"['\u2019]s\b|['\u2019]")
ENDINGS = (
    ("", ("",)),
    ("ies", ("y",)),
    ("es", ("", "e")),
    ("s", ("",)),
    ("ing", ("", "e")),
    ("ed", ("", "e")),
    ("y", ("", "e")),
)
"""What an English word may end with, and what stands there in the word it comes from. Captions say "rolls" more than "roll"."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class WordUse:
    """What became of one word of a prompt: `used` is what the model reads in its place, None when it was left out."""

    word: str
    used: str | None
    known: bool
    """Whether the vocabulary holds the word, in this or another form ("dogs" for "dog"); also a usable word past `max_length`."""


class Tokenizer:
    """Words to ids and back. The ids are `<pad>` 0, `<bos>` 1, `<eos>` 2, then the vocabulary in sorted order."""

    def __init__(
        self,
        words: Iterable[str],
        *,
        max_length: int = 96,
        table: Mapping[str, tuple[str, ...]] | None = None,
        understood: Iterable[str] | None = None,
    ) -> None:
        """`table` says what stands in for unknown words; None takes the shipped one when the first unknown word comes.

        `understood` are those of `words` that may be read, None all: a backbone trained on fewer nouns than its CLIP has never seen the
        others, and reads them as unknown.
        """
        self.tokens = (*SPECIAL, *sorted({piece for word in words for piece in pieces(word)}))
        self.max_length = max_length
        wanted = (
            set(self.tokens)
            if understood is None
            else {piece for word in understood for piece in pieces(word)}
        )
        self.understood = tuple(token for token in self.words if token in wanted)
        """The words that are read as written, sorted."""
        self._ids = {
            token: index for index, token in enumerate(self.tokens) if token in SPECIAL or token in wanted
        }
        self._english = tuple(token for token in self.understood if not _is_chinese(token))
        self._longest_chinese = max(
            (len(token) for token in self.understood if _is_chinese(token)), default=0
        )
        self._table = table

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary without the special tokens, sorted."""
        return self.tokens[len(SPECIAL) :]

    def encode(self, text: str) -> list[int]:
        """At most `max_length` ids from `<bos>` to `<eos>`; an empty text is those two. Words the model cannot use are left out."""
        ids = [self._ids[word] for use in self.explain(text) if use.used for word in use.used.split()]
        return [self._ids[BOS], *ids, self._ids[EOS]]

    def decode(self, ids: Sequence[int]) -> str:
        """The words of `ids`, special tokens left out: Chinese words together, others with a space between."""
        text = ""
        for token in (self.tokens[i] for i in ids):
            if token in SPECIAL:
                continue
            joins = not text or (_is_chinese(token) and _is_chinese(text[-1]))
            text += token if joins else f" {token}"
        return text

    def explain(self, text: str) -> tuple[WordUse, ...]:
        """What becomes of every word of `text`, in its order. Words past `max_length` are left out."""
        uses = [use for piece in pieces(text) for use in self._read(piece)]
        room = self.max_length - 2
        result = []
        for use in uses:
            room -= len(use.used.split()) if use.used else 0
            result.append(use if room >= 0 else WordUse(use.word, None, use.known or use.used is not None))
        return tuple(result)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`: the format's name, the longest length and the tokens in the order of their ids."""
        content: dict[str, object] = {"format": FORMAT, "max_length": self.max_length, "tokens": self.tokens}
        if self.understood != self.words:
            content["understood"] = self.understood
        write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a `tokenizer.json`. Raises `ModelError` when the file is missing or is not one of ours."""
        content = read_json(path)
        tokens: Any = content.get("tokens")
        understood, max_length = content.get("understood"), content.get("max_length")
        are_words = all(
            isinstance(words, list) and all(isinstance(word, str) for word in words)
            for words in (tokens, understood or [])
        )
        if content.get("format") != FORMAT or not are_words or type(max_length) is not int:
            raise ModelError(
                f"{path} is not a Kinema tokenizer: it must hold format '{FORMAT}', max_length and tokens"
            )
        tokenizer = cls(tokens[len(SPECIAL) :], max_length=max_length, understood=understood)
        if list(tokenizer.tokens) != tokens:
            raise ModelError(f"{path}: the tokens are not {', '.join(SPECIAL)} and then sorted words")
        return tokenizer

    def limited(self, words: Iterable[str]) -> "Tokenizer":
        """A tokenizer of the same ids that reads only `words` as written."""
        return Tokenizer(self.words, max_length=self.max_length, table=self._table, understood=words)

    def _read(self, piece: str) -> Iterator[WordUse]:
        """The words of one piece: a Chinese run is cut into words, anything else is one word."""
        if piece in self._ids:
            yield WordUse(piece, piece, True)
        elif not _is_chinese(piece):
            yield self._read_english(piece)
        else:
            words = self._cut(piece, self._ids)
            if any(word not in self._ids for word in words):
                words = self._cut(piece, {**self._senses(), **self._ids})
            for word in words:
                known = word in self._ids
                yield WordUse(
                    word, word if known else stand_in(word, self._ids.__contains__, self._senses()), known
                )

    def _read_english(self, word: str) -> WordUse:
        """A word outside the vocabulary: by its row in the senses, else by another form of it, else by its spelling."""
        table, forms = self._senses(), tuple(other_forms(word))
        if word in table:
            phrase = stand_in(word, self._ids.__contains__, table)
            return WordUse(word, phrase, phrase in forms)
        form = next((form for form in forms if form in self._ids), None)
        if form is not None:
            return WordUse(word, form, True)
        listed = next((form for form in forms if form in table), None)
        if listed is not None:
            return WordUse(word, stand_in(listed, self._ids.__contains__, table), False)
        return WordUse(word, corrected(word, self._english), False)

    def _cut(self, run: str, known: Mapping[str, object]) -> list[str]:
        """A run of Chinese cut into words: at each place the longest known one, and what lies between as one unknown word."""
        longest = max(self._longest_chinese, SHORT_SENSE)
        words: list[str] = []
        is_unknown = False
        start = 0
        while start < len(run):
            size = next(
                (n for n in range(min(longest, len(run) - start), 0, -1) if run[start : start + n] in known),
                0,
            )
            if size:
                words.append(run[start : start + size])
            elif is_unknown:
                words[-1] += run[start]
            else:
                words.append(run[start])
            is_unknown = size == 0
            start += max(size, 1)
        return words

    def _senses(self) -> Mapping[str, tuple[str, ...]]:
        return senses() if self._table is None else self._table


SHORT_SENSE = 4
"""No Chinese word of the senses table is longer than this."""


def pieces(text: str) -> list[str]:
    """The words, numbers and runs of Chinese in `text`, in lower case (NFKC); punctuation, hyphens and possessive 's are left out."""
    return PIECES.findall(POSSESSIVE.sub("", unicodedata.normalize("NFKC", text).casefold()))


def other_forms(word: str) -> Iterator[str]:
    """Other spellings of the same English word, likeliest first: singular and plural, verb endings, a digit as a word."""
    if word.isdigit():
        if int(word) < len(NUMBERS):
            yield NUMBERS[int(word)]
        return
    for ending, replacements in ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) < 3 or (ending and stem == word):
            continue
        stems = [stem + replacement for replacement in replacements]
        if ending and len(stem) >= 4 and stem[-1] == stem[-2]:
            stems.append(stem[:-1])
        for root in stems:
            forms = (root, root + "s", root + "es", *((root[:-1] + "ies",) if root.endswith("y") else ()))
            yield from forms[1:] + forms[:1] if ending in ("ing", "ed") else forms


def _is_chinese(text: str) -> bool:
    return "\u3400" <= text[:1] <= "\u4dbf" or "\u4e00" <= text[:1] <= "\u9fff"
