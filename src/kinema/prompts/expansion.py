"""Prompt expansion: rewrite a short prompt in the style of the training captions, without losing what the
user named.

An expander proposes a prompt, which is checked against the user's (`kinema.prompts.fidelity`). If a word,
number, quote or negation is missing, the expander is asked once more. If it is still missing, the user's own
sentence is put in front; where the result would contradict itself, the expansion is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from kinema.endpoint import Endpoint
from kinema.errors import RequestError
from kinema.prompts.fidelity import Omission, omissions
from kinema.prompts.words import MAX_PROMPT_CHARACTERS, QUOTES

PromptKind = Literal["text", "image", "edit"]

MAX_ATTEMPTS = 2
"""Proposals that are asked for before the user's sentence is put in front."""
MAX_SHOWN_CHARACTERS = 200
"""Characters of a refused proposal in the error message."""

KEEP_EVERYTHING = (
    "Answer with the rewritten description alone, in the language of the user's. Keep every word of theirs: "
    "nouns, names, numbers, what stands in quotation marks, and what they do not want (no, not, without). "
    "Change no number and contradict nothing."
)
INSTRUCTIONS: dict[PromptKind, str] = {
    "text": (
        "You rewrite short descriptions of videos into the style that a text-to-video model was trained on: "
        "one plain sentence that says who does what, in which direction, on which ground, and under which "
        "sky or at what time of day. Add what the user leaves open, nothing more. "
    ),
    "image": (
        "You rewrite short descriptions of videos that begin with a given picture. The picture shows "
        "subject, place and light already, so do not describe them: say in one plain sentence how the "
        "subject moves, in which direction, and how it ends. "
    ),
    "edit": (
        "You rewrite requests to change a video that exists. Say in one or two plain sentences what the "
        "changed video shows. What the user does not speak of stays as it is: add no place, no light, no "
        "direction and nobody, only the style: a flat cartoon unless they say otherwise. "
    ),
}
"""The system prompt of a language model for each kind of prompt; `KEEP_EVERYTHING` follows it."""


@dataclass(frozen=True)
class Expansion:
    """An accepted expansion."""

    original: str
    """The user's prompt."""
    prompt: str
    """The prompt for the model."""
    expander: str
    """Name of the expander."""
    repaired: tuple[Omission, ...] = ()
    """What the last proposal omitted; the original prompt was put in front for it."""

    @property
    def lines(self) -> list[str]:
        """Both prompts and the repair, for display."""
        lines = [f"original prompt: {self.original}", f"expanded prompt: {self.prompt} (by {self.expander})"]
        if self.repaired:
            omitted = ", ".join(map(str, self.repaired))
            lines.append(f"the expander omitted {omitted}: the original prompt was put in front")
        return lines

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a request that the expansion sets."""
        return {"prompt": self.prompt, "original_prompt": self.original, "expander": self.expander}


@runtime_checkable
class PromptExpander(Protocol):
    """Writes a longer prompt."""

    name: str
    """Stored with the result. It contains no path and no address."""
    words: tuple[str, ...]
    """The words of its answers, if they are few, as those of a world. They segment Chinese."""

    def propose(
        self, prompt: str, kind: PromptKind, *, picture: bytes | None, missing: Sequence[Omission], seed: int
    ) -> str:
        """An expansion of `prompt`.

        `missing` is what the previous proposal omitted; `picture` is the first frame as PNG.
        """
        ...


class ChatExpander:
    """A language model behind a chat endpoint. It also receives the first frame."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.name = f"{endpoint.model} (endpoint)"
        self.words: tuple[str, ...] = ()

    def propose(
        self, prompt: str, kind: PromptKind, *, picture: bytes | None, missing: Sequence[Omission], seed: int
    ) -> str:
        """See `PromptExpander`. Raises `EndpointError`."""
        pictures = [] if picture is None else [picture]
        return self.endpoint.ask(system_prompt(kind, missing), prompt, pictures)


def system_prompt(kind: PromptKind, missing: Sequence[Omission]) -> str:
    """The instructions for a language model; on a second attempt they name what the first omitted."""
    text = INSTRUCTIONS[kind] + KEEP_EVERYTHING
    if missing:
        text += f" Your last answer lost {', '.join(map(str, missing))}: keep that."
    return text


def expand(
    prompt: str,
    expander: PromptExpander,
    *,
    kind: PromptKind = "text",
    picture: bytes | None = None,
    seed: int = 0,
) -> Expansion:
    """The checked and, where possible, repaired expansion of `prompt`.

    Raises `RequestError` if `prompt` is empty, or if the expansion contradicts it or is too long.
    """
    if not prompt.strip():
        raise RequestError("there is no prompt to expand: give a prompt, or remove --expand")

    missing: tuple[Omission, ...] = ()
    for _ in range(MAX_ATTEMPTS):
        answer = expander.propose(prompt, kind, picture=picture, missing=missing, seed=seed)
        proposal = _without_wrapping(answer)
        missing = omissions(prompt, proposal, expander.words)
        if not missing and proposal:
            return Expansion(prompt, _checked_length(proposal, expander), expander.name)

    if not proposal or any(item.is_contradicted for item in missing):
        what = ", ".join(map(str, missing)) or "everything"
        raise RequestError(
            f'the expansion by {expander.name} lost {what}: "{proposal[:MAX_SHOWN_CHARACTERS]}". '
            "Leave --expand out, or use another --expander"
        )

    repaired = f"{prompt.strip().rstrip('.。')}{'. ' if prompt.isascii() else '。'}{proposal}"
    lost = omissions(prompt, repaired, expander.words)
    assert not lost, "a prompt that contains the original omits nothing of it"
    return Expansion(prompt, _checked_length(repaired, expander), expander.name, missing)


def _checked_length(prompt: str, expander: PromptExpander) -> str:
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise RequestError(
            f"the expansion by {expander.name} has {len(prompt)} characters: "
            f"a prompt has at most {MAX_PROMPT_CHARACTERS}"
        )
    return prompt


def _without_wrapping(text: str) -> str:
    """An answer without what language models add: a label, line breaks, quotation marks around the whole."""
    text = " ".join(text.replace("\0", " ").encode(errors="ignore").decode().split())
    for label in ("Rewritten:", "Expanded:", "Description:"):
        text = text.removeprefix(label).strip()

    for left, right in QUOTES.items():
        inner = text[1:-1]
        is_quoted = len(text) > 2 and text.startswith(left) and text.endswith(right)
        if is_quoted and left not in inner and right not in inner:
            text = inner.strip()
    return text
