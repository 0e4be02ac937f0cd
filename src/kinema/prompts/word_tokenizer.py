"""The tokenizer of a closed vocabulary: English and Chinese words to ids, one id per word.

The vocabulary is the words of the world's captions, so training paired no other word with a video. A word
outside it is read as the nearest known word, and `explain` reports it, instead of becoming a token without
meaning to the model.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kinema.errors import ModelError
from kinema.files import read_json, write_json
from kinema.prompts.reading import WordUse
from kinema.prompts.segment import is_chinese, pieces, segment_chinese
from kinema.prompts.synonyms import correct_spelling, load_synonyms, substitute

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL = (PAD, BOS, EOS)
FORMAT = "kinema-words-1"
MAX_SYNONYM_LENGTH = 4
"""Characters of the longest Chinese word in the table of synonyms."""
ENDINGS = (
    ("", ("",)),
    ("ies", ("y",)),
    ("es", ("", "e")),
    ("s", ("",)),
    ("ing", ("", "e")),
    ("ed", ("", "e")),
    ("y", ("", "e")),
)
"""(ending of an English word, endings of the word that it is derived from).

Captions contain "rolls" more often than "roll".
"""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class WordTokenizer:
    """Words to ids and back.

    The ids are `<pad>` 0, `<bos>` 1, `<eos>` 2, then the vocabulary in sorted order.
    """

    def __init__(
        self,
        words: Iterable[str],
        *,
        max_length: int = 96,
        table: Mapping[str, tuple[str, ...]] | None = None,
        understood: Iterable[str] | None = None,
    ) -> None:
        """`table` maps unknown words to replacements; None loads the shipped one at the first unknown word.

        `understood` is the subset of `words` that is read as written, None for all: a backbone trained on
        fewer nouns than its CLIP reads the others as unknown.
        """
        self.tokens = (*SPECIAL, *sorted({piece for word in words for piece in pieces(word)}))
        self.max_length = max_length
        if understood is None:
            wanted = set(self.tokens)
        else:
            wanted = {piece for word in understood for piece in pieces(word)}
        self.understood = tuple(token for token in self.words if token in wanted)
        """The words that are read as written, sorted."""

        self._ids = {
            token: index for index, token in enumerate(self.tokens) if token in SPECIAL or token in wanted
        }
        self._english = tuple(token for token in self.understood if not is_chinese(token))
        longest = max((len(token) for token in self.understood if is_chinese(token)), default=0)
        self._longest_chinese = max(longest, MAX_SYNONYM_LENGTH)
        self._table = table

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary without the special tokens, sorted."""
        return self.tokens[len(SPECIAL) :]

    def encode(self, text: str) -> list[int]:
        """At most `max_length` ids from `<bos>` to `<eos>`; only these two for an empty text.

        Unusable words are left out.
        """
        ids = [self._ids[word] for use in self.explain(text) if use.used for word in use.used.split()]
        return [self._ids[BOS], *ids, self._ids[EOS]]

    def explain(self, text: str) -> tuple[WordUse, ...]:
        """How every word of `text` is read, in order. Words past `max_length` are left out."""
        uses = [use for piece in pieces(text) for use in self._read(piece)]
        room = self.max_length - 2  # <bos> and <eos>
        result = []
        for use in uses:
            room -= len(use.used.split()) if use.used else 0
            result.append(use if room >= 0 else WordUse(use.word, None, use.known or use.used is not None))
        return tuple(result)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`: the format's name, `max_length` and the tokens in the order of their ids.

        Raises `OutputError`.
        """
        content: dict[str, object] = {"format": FORMAT, "max_length": self.max_length, "tokens": self.tokens}
        if self.understood != self.words:
            content["understood"] = self.understood
        write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> "WordTokenizer":
        """The tokenizer of a `tokenizer.json`.

        Raises `ModelError` if the file is missing or has another format.
        """
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

    def limited(self, words: Iterable[str]) -> "WordTokenizer":
        """A tokenizer with the same ids that reads only `words` as written."""
        return WordTokenizer(self.words, max_length=self.max_length, table=self._table, understood=words)

    def _read(self, piece: str) -> Iterator[WordUse]:
        """How one piece is read: a run of Chinese is segmented, anything else is one word."""
        if piece in self._ids:
            yield WordUse(piece, piece, True)
        elif is_chinese(piece):
            yield from self._read_chinese(piece)
        else:
            yield self._read_english(piece)

    def _read_chinese(self, run: str) -> Iterator[WordUse]:
        words = segment_chinese(run, self._ids, self._longest_chinese)
        if any(word not in self._ids for word in words):
            words = segment_chinese(run, {**self._synonyms(), **self._ids}, self._longest_chinese)
        for word in words:
            if word in self._ids:
                yield WordUse(word, word, True)
            else:
                yield WordUse(word, substitute(word, self._ids.__contains__, self._synonyms()), False)

    def _read_english(self, word: str) -> WordUse:
        """A word outside the vocabulary: by its synonyms, another form, or its spelling, in this order."""
        table, forms = self._synonyms(), tuple(other_forms(word))
        if word in table:
            phrase = substitute(word, self._ids.__contains__, table)
            return WordUse(word, phrase, phrase in forms)

        form = next((form for form in forms if form in self._ids), None)
        if form is not None:
            return WordUse(word, form, True)

        listed = next((form for form in forms if form in table), None)
        if listed is not None:
            return WordUse(word, substitute(listed, self._ids.__contains__, table), False)
        return WordUse(word, correct_spelling(word, self._english), False)

    def _synonyms(self) -> Mapping[str, tuple[str, ...]]:
        return load_synonyms() if self._table is None else self._table


def other_forms(word: str) -> Iterator[str]:
    """Other spellings of an English word, likeliest first: number, verb endings, a digit as a word."""
    if word.isdigit():
        if int(word) < len(NUMBERS):
            yield NUMBERS[int(word)]
        return

    for ending, replacements in ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) < 3 or (ending and stem == word):
            continue
        stems = [stem + replacement for replacement in replacements]
        if ending and len(stem) >= 4 and stem[-1] == stem[-2]:  # "running": "run"
            stems.append(stem[:-1])
        for root in stems:
            forms = (root, root + "s", root + "es", *((root[:-1] + "ies",) if root.endswith("y") else ()))
            yield from forms[1:] + forms[:1] if ending in ("ing", "ed") else forms
