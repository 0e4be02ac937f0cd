"""The tokenizer of an open vocabulary: byte-level byte-pair encoding learned from the captions of a data set.

Bytes spell every word of every language, so no word is left out. A word that no caption had means nothing to
the model, and `explain` reports it. Words of a script with spaces are units. Chinese, Japanese, Thai, Lao,
Khmer and Burmese are written without spaces; there the unit is a letter with its marks.

Sennrich et al. 2016, "Neural machine translation of rare words with subword units"; Radford et al. 2019,
section 2.2, for bytes as the alphabet.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kinema.errors import ConfigError, ModelError
from kinema.files import read_json, write_json
from kinema.prompts.reading import WordUse

SPECIAL = ("<pad>", "<bos>", "<eos>")
FORMAT = "kinema-bpe-1"
MAX_TOKENS = 8192
"""The largest number of tokens. A caption word beyond it has more than one token."""
SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNITS = rf"[{SPACELESS}]\p{{M}}*|[\p{{L}}\p{{M}}&&[^{SPACELESS}]]+|\p{{N}}+"
"""Words, numbers, and letters of scripts without spaces."""
POSSESSIVE = r"['\u2019]s\b|['\u2019]"


class BPETokenizer:
    """Texts to ids. See `kinema.prompts.reading.Tokenizer`."""

    def __init__(self, bpe: Any, words: Iterable[str], *, max_length: int = 96) -> None:
        """`bpe` is a `tokenizers.Tokenizer` as `train` makes it; `words` are the words of its captions."""
        self.bpe, self.max_length = bpe, max_length
        self.words = tuple(sorted(set(words)))
        """The words of the captions, sorted."""
        self._known = frozenset(self.words)

    @classmethod
    def train(
        cls, captions: Iterable[str], *, max_length: int = 96, max_tokens: int = MAX_TOKENS
    ) -> "BPETokenizer":
        """The tokenizer whose at most `max_tokens` tokens spell `captions` shortest.

        The same captions in any order give the same tokens. Raises `ConfigError` for fewer tokens than bytes.
        """
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        if max_tokens < len(SPECIAL) + len(alphabet):
            raise ConfigError(
                f"max_tokens={max_tokens} are fewer than the {len(SPECIAL)} special tokens and the "
                f"{len(alphabet)} bytes: use {len(SPECIAL) + len(alphabet)} or more"
            )

        bpe = Tokenizer(models.BPE())
        bpe.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(POSSESSIVE), "")]
        )
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(UNITS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=max_tokens,
            min_frequency=1,
            special_tokens=list(SPECIAL),
            initial_alphabet=alphabet,
            show_progress=False,
        )
        texts = sorted(captions)
        bpe.train_from_iterator(texts, trainer)
        return cls(bpe, (word for text in texts for word in _units(bpe, text)), max_length=max_length)

    def __len__(self) -> int:
        return int(self.bpe.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """At most `max_length` ids from `<bos>` to `<eos>`; only these two for an empty text."""
        ids = self.bpe.encode(text, add_special_tokens=False).ids[: self.max_length - 2]
        return [SPECIAL.index("<bos>"), *ids, SPECIAL.index("<eos>")]

    def explain(self, text: str) -> tuple[WordUse, ...]:
        """How every word of `text` is read, in order. Words past `max_length` are left out."""
        room = self.max_length - 2  # <bos> and <eos>
        uses = []
        for word in _units(self.bpe, text):
            room -= len(self.bpe.encode(word, add_special_tokens=False).ids)
            uses.append(WordUse(word, word, word in self._known) if room >= 0 else WordUse(word, None, True))
        return tuple(uses)

    def limited(self, words: Iterable[str]) -> "BPETokenizer":
        """A tokenizer with the same ids that knows only `words`."""
        wanted = {unit for word in words for unit in _units(self.bpe, word)}
        return BPETokenizer(self.bpe, self._known & wanted, max_length=self.max_length)

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`: the format's name, `max_length`, the words, and under "bpe" the tokenizer
        in the format of the library tokenizers.

        Raises `OutputError`.
        """
        write_json(
            path,
            {
                "format": FORMAT,
                "max_length": self.max_length,
                "words": self.words,
                "bpe": json.loads(self.bpe.to_str()),
            },
        )

    @classmethod
    def load(cls, path: Path) -> "BPETokenizer":
        """The tokenizer of a `tokenizer.json`. Raises `ModelError` if the file is damaged or missing."""
        from tokenizers import Tokenizer

        content = read_json(path)
        words: Any = content.get("words")
        max_length = content.get("max_length")
        are_words = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if content.get("format") != FORMAT or not are_words or type(max_length) is not int:
            raise ModelError(
                f"{path} is not a Kinema tokenizer: it must hold format '{FORMAT}', max_length, words and bpe"
            )
        try:
            bpe = Tokenizer.from_str(json.dumps(content.get("bpe")))
        except Exception as error:  # the library raises bare exceptions
            raise ModelError(f"{path}: bpe is not a tokenizer of the library tokenizers: {error}") from None
        return cls(bpe, words, max_length=max_length)


def _units(bpe: Any, text: str) -> list[str]:
    """The words, numbers and spaceless letters of `text`, normalised and in lower case."""
    split = bpe.pre_tokenizer[0]
    return [unit for unit, _ in split.pre_tokenize_str(bpe.normalizer.normalize_str(text))]
