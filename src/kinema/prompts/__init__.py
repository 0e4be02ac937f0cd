"""Prompts as text: tokenizers, synonyms, expansion, checks of expansions."""

from pathlib import Path

from kinema.errors import ModelError
from kinema.files import read_json
from kinema.prompts import bpe_tokenizer, word_tokenizer
from kinema.prompts.bpe_tokenizer import BPETokenizer
from kinema.prompts.reading import Tokenizer
from kinema.prompts.word_tokenizer import WordTokenizer

TOKENIZERS: dict[str, type[WordTokenizer] | type[BPETokenizer]] = {
    word_tokenizer.FORMAT: WordTokenizer,
    bpe_tokenizer.FORMAT: BPETokenizer,
}
"""The tokenizer classes by the format that a file of theirs names."""


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, of the class that the file names.

    Raises `ModelError` if the file is missing, damaged or of another format.
    """
    name = read_json(path).get("format")
    if name not in TOKENIZERS:
        raise ModelError(
            f"{path} is not a Kinema tokenizer: its format is {name!r} instead of {' or '.join(TOKENIZERS)}"
        )
    return TOKENIZERS[name].load(path)
