"""What the model makes of a prompt, word by word, said to the user before the waiting starts."""

from dataclasses import dataclass

from kinema.prompts.tokenizer import Tokenizer


@dataclass(frozen=True)
class PromptReport:
    """How a prompt was read: a model knows the words it was trained with and no others."""

    replaced: tuple[tuple[str, str], ...] = ()
    """(word as written, word the model reads in its place)."""
    unknown: tuple[str, ...] = ()
    """Words left out because nothing the model knows is near them."""
    cut: tuple[str, ...] = ()
    """Words left out because the prompt is longer than the model reads."""
    num_read: int = 0
    """How many words of the prompt the model reads."""

    @property
    def text(self) -> str:
        """One line for the user; empty when every word is read as written."""
        parts = []
        if self.replaced:
            parts.append("read " + ", ".join(f"'{word}' as '{used}'" for word, used in self.replaced))
        if self.unknown:
            parts.append(
                "left out "
                + ", ".join(f"'{word}'" for word in self.unknown)
                + " (not in the model's vocabulary)"
            )
        if self.cut:
            parts.append(
                f"left out the last {len(self.cut)} words, from '{self.cut[0]}' on (the prompt is longer than the model reads)"
            )
        if not self.num_read:
            parts.append("no word is left for the video to follow")
        return "; ".join(parts)


def read_prompt(tokenizer: Tokenizer, prompt: str) -> PromptReport:
    """What `tokenizer` makes of `prompt`. A word that occurs twice is reported once."""
    uses = tokenizer.explain(prompt)
    return PromptReport(
        replaced=tuple(dict.fromkeys((use.word, use.used) for use in uses if use.used and not use.known)),
        unknown=tuple(dict.fromkeys(use.word for use in uses if use.used is None and not use.known)),
        cut=tuple(use.word for use in uses if use.used is None and use.known),
        num_read=sum(use.used is not None for use in uses),
    )
