"""Prompt expansion: a short prompt becomes one in the style that the model was trained on, and keeps all that the user named.

An expander proposes; what it proposes is checked before anything is made of it. When a word, number, quote or negation of the user's is
gone it is asked once more, then the user's own sentence is put in front; and where that would contradict itself, it is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from kinema import config
from kinema.checkpoints.folders import CONFIG, PARTS, load_component
from kinema.checkpoints.shipped import SHIPPED, shipped_expander
from kinema.endpoint import Endpoint
from kinema.errors import ModelError, RequestError
from kinema.files import read_json, sha256_of
from kinema.generation.request import MAX_PROMPT_CHARACTERS
from kinema.models import expander as network
from kinema.prompts.fidelity import Lost, is_same, lost, negations

Kind = Literal["text", "image", "edit"]

RULES = (
    "Answer with the rewritten description alone, in the language of the user's. Keep every word of theirs: nouns, names, numbers, what "
    "stands in quotation marks, and what they do not want (no, not, without). Change no number and contradict nothing."
)
INSTRUCTIONS: dict[Kind, str] = {
    "text": (
        "You rewrite short descriptions of videos into the style that a text-to-video model was trained on: one plain sentence that says "
        "who does what, in which direction, on which ground, and under which sky or at what time of day. Add what the user leaves open, "
        "nothing more. "
    ),
    "image": (
        "You rewrite short descriptions of videos that begin with a given picture. The picture shows subject, place and light already, so "
        "do not describe them: say in one plain sentence how the subject moves, in which direction, and how it ends. "
    ),
    "edit": (
        "You rewrite requests to change a video that exists. Say in one or two plain sentences what the changed video shows. What the user "
        "does not speak of stays as it is: add no place, no light, no direction and nobody, only the style: a flat cartoon unless they say "
        "otherwise. "
    ),
}
"""What a language model is told, by what the prompt is for."""


@dataclass(frozen=True)
class Expansion:
    """A prompt that was accepted: what the user wrote, what the model will read, who made it, and what had to be put right."""

    written: str
    prompt: str
    expander: str
    repaired: tuple[Lost, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Both prompts, and what was put right, to show."""
        lines = [f"written: {self.written}", f"expanded: {self.prompt} (by {self.expander})"]
        if self.repaired:
            lines.append(
                f"the expander had lost {', '.join(map(str, self.repaired))}: your own words were put in front"
            )
        return lines

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a request."""
        return {"prompt": self.prompt, "written": self.written, "expander": self.expander}


@runtime_checkable
class Expander(Protocol):
    """What makes a longer prompt of a short one."""

    name: str
    """How a result says by whom its prompt was made; no path and no address."""

    def propose(
        self, prompt: str, kind: Kind, *, picture: bytes | None, missing: Sequence[Lost], seed: int
    ) -> str:
        """An expansion. `missing` is what the one before had lost; `picture` is the first frame, as PNG."""
        ...


class Shipped:
    """The expander of `kinema.models.expander`, from the package or a folder. It can lose nothing, so it is asked once."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or shipped_expander()
        self.network = load_component(folder, network.Expander)
        self.name = f"kinema-expander {sha256_of(folder / PARTS[network.Expander].weights)[:12]}"

    def propose(
        self,
        prompt: str,
        kind: Kind,
        *,
        picture: bytes | None = None,
        missing: Sequence[Lost] = (),
        seed: int = 0,
    ) -> str:
        unwanted = [word for _, word in negations(prompt)]

        def may_add(word: str) -> bool:
            return not any(
                is_same(word, other) or (not word.isascii() and other in word) for other in unwanted
            )

        return self.network.expand(prompt, kind=kind, seed=seed, may_add=may_add)


class Chat:
    """A model behind an endpoint, which sees the first picture too."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.name = f"{endpoint.model} (endpoint)"

    def propose(
        self, prompt: str, kind: Kind, *, picture: bytes | None, missing: Sequence[Lost], seed: int
    ) -> str:
        return self.endpoint.ask(
            INSTRUCTIONS[kind] + RULES + _again(missing), prompt, [picture] if picture else []
        )


class Causal:
    """A causal language model in a folder of transformers' layout; its chat template is used when it has one."""

    MOST_TOKENS = 160

    def __init__(self, folder: Path) -> None:
        """Raises `ModelError` when transformers is not installed or cannot load the folder."""
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise ModelError(
                f"{folder} is a language model, and transformers is not installed ({error}): pip install 'kinema[wan]'"
            ) from error
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder} cannot be loaded as a causal language model: {' '.join(str(error).split())[:300]}"
            ) from error
        self.name = f"{folder.name} (transformers)"

    def propose(
        self, prompt: str, kind: Kind, *, picture: bytes | None, missing: Sequence[Lost], seed: int
    ) -> str:
        instructions = INSTRUCTIONS[kind] + RULES + _again(missing)
        if getattr(self.tokenizer, "chat_template", None):
            messages = [{"role": "system", "content": instructions}, {"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        else:
            text = f"{instructions}\n\nDescription: {prompt}\nRewritten:"
        tokens = self.tokenizer(
            text, return_tensors="pt", add_special_tokens=not getattr(self.tokenizer, "chat_template", None)
        )
        tokens.pop("token_type_ids", None)
        end = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else end
        made = self.model.generate(
            **tokens, max_new_tokens=self.MOST_TOKENS, do_sample=False, pad_token_id=pad
        )
        said = self.tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        return str(said)


@lru_cache(maxsize=2)
def load_expander(place: str = SHIPPED) -> Expander:
    """The expander called `place`: "shipped", the address of an endpoint, a .toml file with the settings of one, or a folder.

    Settings are the fields of `kinema.endpoint.Endpoint`; a folder is an export of recipes/expander.toml, or a causal language model of
    transformers.

    Raises `ConfigError` for settings that are none and `ModelError` for a folder that holds neither.
    """
    if place == SHIPPED:
        return Shipped()
    if place.startswith(("http://", "https://")):
        return Chat(Endpoint(place))
    path = Path(place)
    if path.suffix == ".toml":
        return Chat(config.load(Endpoint, path))
    if not (path / CONFIG).is_file():
        raise ModelError(
            f"'{place}' is no expander: give the address of an endpoint, a .toml file with its settings, or the folder of a model"
        )
    return Causal(path) if "model_type" in read_json(path / CONFIG) else Shipped(path)


def expand(
    prompt: str, expander: Expander, *, kind: Kind = "text", picture: bytes | None = None, seed: int = 0
) -> Expansion:
    """The prompt that `expander` makes of one, checked and put right where it can be.

    Raises `RequestError` when there is nothing to expand, and when the expansion contradicts the user.
    """
    if not prompt.strip():
        raise RequestError(
            "there is no prompt to expand: say what the video should show, or leave --expand out"
        )
    missing: tuple[Lost, ...] = ()
    for _ in range(2):
        proposal = _plain(expander.propose(prompt, kind, picture=picture, missing=missing, seed=seed))
        missing = lost(prompt, proposal)
        if not missing and proposal:
            return Expansion(prompt, _fitting(proposal, expander), expander.name)
    if not proposal or any(item.is_contradicted for item in missing):
        what = ", ".join(map(str, missing)) or "everything"
        raise RequestError(
            f'the expansion by {expander.name} lost {what}: "{proposal[:200]}". Leave --expand out, or use another --expander'
        )
    repaired = f"{prompt.strip().rstrip('.。')}{'. ' if prompt.isascii() else '。'}{proposal}"
    assert not lost(prompt, repaired), "a prompt that stands in its expansion has lost nothing"
    return Expansion(prompt, _fitting(repaired, expander), expander.name, missing)


def _fitting(prompt: str, expander: Expander) -> str:
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise RequestError(
            f"the expansion by {expander.name} has {len(prompt)} characters: a prompt has at most {MAX_PROMPT_CHARACTERS}"
        )
    return prompt


def _again(missing: Sequence[Lost]) -> str:
    return f" Your last answer lost {', '.join(map(str, missing))}: keep that." if missing else ""


def _plain(text: str) -> str:
    """An answer without what language models put around it: quotation marks around all of it, a label, line breaks."""
    text = " ".join(text.replace("\0", " ").encode(errors="ignore").decode().split())
    for label in ("Rewritten:", "Expanded:", "Description:"):
        text = text.removeprefix(label).strip()
    for left, right in network.QUOTES.items():
        inner = text[1:-1]
        if (
            len(text) > 2
            and text.startswith(left)
            and text.endswith(right)
            and left not in inner
            and right not in inner
        ):
            text = inner.strip()
    return text


def expanded(
    fields: dict[str, Any], place: str, kind: Kind, picture: bytes | None = None
) -> tuple[dict[str, Any], Expansion]:
    """The fields of a request with the prompt expanded by the expander called `place`, and what it did."""
    done = expand(
        fields.get("prompt", ""),
        load_expander(place),
        kind=kind,
        picture=picture,
        seed=int(fields.get("seed", 0)),
    )
    return {**fields, **done.fields}, done
