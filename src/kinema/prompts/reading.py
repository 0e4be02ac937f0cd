"""A report of how the model reads a prompt, word by word, shown before generation starts."""

from dataclasses import dataclass

from kinema.prompts.tokenizer import Tokenizer


@dataclass(frozen=True)
class PromptReport:
    """How a prompt was read. A model knows only the words of its training captions."""

    replaced: tuple[tuple[str, str], ...] = ()
    """(word as written, word the model reads instead)."""
    unknown: tuple[str, ...] = ()
    """Words left out because no known word is close."""
    cut: tuple[str, ...] = ()
    """Words left out because the prompt is too long for the model."""
    num_read: int = 0
    """Number of words that the model reads."""

    @property
    def text(self) -> str:
        """One line for the user; empty if every word is read as written."""
        parts = []
        if self.replaced:
            pairs = ", ".join(f"'{word}' as '{used}'" for word, used in self.replaced)
            parts.append(f"read {pairs}")
        if self.unknown:
            words = ", ".join(f"'{word}'" for word in self.unknown)
            parts.append(f"left out {words} (not in the model's vocabulary)")
        if self.cut:
            parts.append(
                f"left out the last {len(self.cut)} words, from '{self.cut[0]}' on "
                "(the prompt is longer than the model reads)"
            )
        if not self.num_read:
            parts.append("no word is left for the video to follow")
        return "; ".join(parts)


def read_prompt(tokenizer: Tokenizer, prompt: str) -> PromptReport:
    """How `tokenizer` reads `prompt`. A replaced or unknown word is listed once."""
    uses = tokenizer.explain(prompt)
    return PromptReport(
        replaced=tuple(dict.fromkeys((use.word, use.used) for use in uses if use.used and not use.known)),
        unknown=tuple(dict.fromkeys(use.word for use in uses if use.used is None and not use.known)),
        cut=tuple(use.word for use in uses if use.used is None and use.known),
        num_read=sum(use.used is not None for use in uses),
    )
