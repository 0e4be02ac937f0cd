"""How a text encoder reads a prompt: word by word, and as a report that is shown before generation starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from kinema.prompts.segment import scripts


@dataclass(frozen=True)
class WordUse:
    """How one word of a prompt is read: `used` is what the model reads for it, None if it is left out."""

    word: str
    used: str | None
    known: bool
    """Whether the captions of the training had the word, in this or another form ("dogs" for "dog"); also
    True for a usable word past the longest length.
    """


@runtime_checkable
class Tokenizer(Protocol):
    """Texts to ids: a closed vocabulary (`WordTokenizer`) or an open one (`BPETokenizer`).

    The ids are `<pad>` 0, `<bos>` 1, `<eos>` 2, then the others. See `kinema.prompts.load_tokenizer`.
    """

    max_length: int
    """The largest number of ids of a text."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that occurred in the captions of the training, sorted."""
        ...

    def __len__(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """At most `max_length` ids from `<bos>` to `<eos>`; only these two for an empty text."""
        ...

    def explain(self, text: str) -> tuple[WordUse, ...]:
        """How every word of `text` is read, in order."""
        ...

    def limited(self, words: Sequence[str]) -> "Tokenizer":
        """A tokenizer with the same ids that knows only `words`."""
        ...

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`. Raises `OutputError`."""
        ...


@dataclass(frozen=True)
class PromptReport:
    """How a prompt was read. `scripts` are writing systems that no caption of the training was written in."""

    uses: tuple[WordUse, ...]
    scripts: tuple[str, ...] = ()
    objects: tuple[tuple[str, str], ...] = ()
    """(object, words of the prompt for it), if the prompt names more objects than the model draws."""
    max_objects: int = 0
    """Objects that the model draws, if there are `objects`."""

    @property
    def replaced(self) -> tuple[tuple[str, str], ...]:
        """(word as written, word that the model reads instead), each once."""
        pairs = ((use.word, use.used) for use in self.uses if use.used and not use.known)
        return tuple(dict.fromkeys((word, used) for word, used in pairs if word != used))

    @property
    def unfamiliar(self) -> tuple[str, ...]:
        """Words that are read as written although no caption of the training had them, each once."""
        return tuple(dict.fromkeys(use.word for use in self.uses if use.used == use.word and not use.known))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Words left out because no known word is close, each once."""
        return tuple(dict.fromkeys(use.word for use in self.uses if use.used is None and not use.known))

    @property
    def cut(self) -> tuple[str, ...]:
        """Words left out because the prompt is too long for the model."""
        return tuple(use.word for use in self.uses if use.used is None and use.known)

    @property
    def num_read(self) -> int:
        """Number of words that the model reads."""
        return sum(use.used is not None for use in self.uses)

    @property
    def text(self) -> str:
        """One line for the user; empty if every word is known and read as written."""
        parts = []
        if self.replaced:
            pairs = ", ".join(f"'{word}' as '{used}'" for word, used in self.replaced)
            parts.append(f"read {pairs}")
        if self.unfamiliar:
            parts.append(f"spelled {_quoted(self.unfamiliar)} (not in the captions of the model's training)")
        if self.unknown:
            parts.append(f"left out {_quoted(self.unknown)} (not in the model's vocabulary)")
        if self.scripts:
            parts.append(f"no caption of the model's training is written in {' or '.join(self.scripts)}")
        if self.cut:
            parts.append(
                f"left out the last {len(self.cut)} words, from '{self.cut[0]}' on "
                "(the prompt is longer than the model reads)"
            )
        if self.objects:
            named = ", ".join(name if name == word else f"{name} ('{word}')" for name, word in self.objects)
            parts.append(f"the model draws {self.max_objects} of these {len(self.objects)} objects: {named}")
        if not self.num_read:
            parts.append("no word is left for the video to follow")
        return "; ".join(parts)


def read_prompt(tokenizer: Tokenizer, prompt: str) -> PromptReport:
    """How `tokenizer` reads `prompt`."""
    uses = tokenizer.explain(prompt)
    strange = scripts("".join(use.word for use in uses if not use.known))
    met = scripts("".join(tokenizer.words)) if strange else frozenset()
    return PromptReport(uses, tuple(sorted(strange - met)))


def read_as_written(prompt: str) -> PromptReport:
    """The report of an encoder that was trained on texts of every kind: each word is read as it is."""
    return PromptReport(tuple(WordUse(word, word, True) for word in prompt.split()))


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
