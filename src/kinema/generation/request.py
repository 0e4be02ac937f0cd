"""Requests: everything that a user can ask of a model, validated when it is made."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from kinema import config
from kinema.checkpoints.manifest import SAMPLER_NAMES
from kinema.checkpoints.shipped import SHIPPED
from kinema.config import Option
from kinema.errors import ConfigError, RequestError
from kinema.generation.conditioning.clips import ClipCondition, TimedPrompt
from kinema.prompts.words import MAX_PROMPT_CHARACTERS
from kinema.registry import lookup

OLD_KEYS = {"places": "conditions", "written": "original_prompt"}
"""JSON keys of version 0.1.0, with the fields that they are read into."""
PromptSource = Literal["metadata", "caption"]


@dataclass(frozen=True)
class Request:
    """A video to generate. Fields that are None take the model's default. `Option`s are also flags of the
    command line.

    Raises `RequestError` for values that no model could accept.
    """

    prompt: str
    """What the video shows. Without a prompt it needs `conditions`."""
    negative_prompt: Annotated[
        str, Option("prompt that guidance moves away from; needs guidance above 1", "TEXT", flag="negative")
    ] = ""
    width: Annotated[int | None, Option("width in pixels", "N", (1, 8192))] = None
    height: Annotated[int | None, Option("height in pixels", "N", (1, 8192))] = None
    seconds: Annotated[float | None, Option("length in seconds", "S", (0.01, 10_000))] = None
    frames: Annotated[int | None, Option("length in frames", "N", (1, 100_000))] = None
    """At most one of `seconds` and `frames` is given."""
    seed: Annotated[int, Option("seed of the noise (default: 0)", "N", (0, 2**63 - 1))] = 0
    steps: Annotated[int | None, Option("number of sampler steps", "N", (1, 1000))] = None
    sampler: Annotated[str | None, Option(", ".join(SAMPLER_NAMES), "NAME")] = None
    guidance: Annotated[
        float | None,
        Option(
            "scale of classifier-free guidance; higher follows the prompt more closely, 1 turns it off and "
            "halves the cost of a step",
            "G",
            (0, 100),
        ),
    ] = None
    shift: Annotated[
        float | None, Option("timestep shift towards noise; 1 is no shift", "S", (0.01, 100))
    ] = None
    model: Annotated[
        str,
        Option("model folder or file, including Wan models (default: the model in the package)", "DIR"),
    ] = SHIPPED
    beyond_trained: Annotated[bool, Option("allow sizes and windows that the model was not trained for")] = (
        False
    )
    conditions: tuple[ClipCondition, ...] = ()
    """Clips and pictures that parts of the result are kept or edited from."""
    prompts: tuple[TimedPrompt, ...] = ()
    """Prompts for later times. `prompt` holds from the start."""
    loop: bool = False
    """Generate a seamless loop."""
    window: Annotated[
        int | None,
        Option(
            "frames per window of a longer video (default: as many as the model was trained with)",
            "N",
            (1, 100_000),
        ),
    ] = None
    anchor: Annotated[bool, Option("let every window of a long video attend to its first frame")] = False
    """For models trained with anchors: other models drift more (docs/timeline.md)."""
    guidance_interval: Annotated[
        tuple[float, float] | None,
        Option(
            "apply guidance only between these diffusion times (0 data, 1 noise); a step outside costs half",
            "LOW,HIGH",
        ),
    ] = None
    cache: Annotated[
        float | None,
        Option(
            "forecast steps while the relative error of a forecast is at most this, e.g. 0.03",
            "ERROR",
            (1e-6, 1),
        ),
    ] = None
    original_prompt: str | None = None
    """The user's prompt, if `prompt` is its expansion. The model does not read it."""
    expander: str | None = None
    """Name of the expander that wrote `prompt`."""
    prompt_source: PromptSource | None = None
    """Where `prompt` was found if the user gave none: in a clip's metadata, or its caption."""

    def __post_init__(self) -> None:
        self._check_prompts()
        self._check_numbers()

        if self.sampler is not None:
            lookup(SAMPLER_NAMES, self.sampler, kind="sampler")

        is_edited = any(condition.is_limited or condition.strength for condition in self.conditions)
        if self.loop and (self.prompts or is_edited):
            raise RequestError(
                "a loop takes one prompt, and clips that are kept: remove timed prompts, regions and "
                "strengths"
            )

    def _check_prompts(self) -> None:
        texts = {
            "prompt": self.prompt,
            "negative prompt": self.negative_prompt,
            "original prompt": self.original_prompt or "",
            **{f"prompt at {timed.at_s:g} s": timed.prompt for timed in self.prompts},
        }
        for name, text in texts.items():
            if len(text) > MAX_PROMPT_CHARACTERS:
                raise RequestError(
                    f"the {name} has {len(text)} characters: use at most {MAX_PROMPT_CHARACTERS}"
                )
            if "\0" in text:
                raise RequestError(f"the {name} contains a NUL character: remove it")
            if text.encode(errors="ignore").decode() != text:
                raise RequestError(
                    f"the {name} contains half a character (a lone surrogate), which no file can store: "
                    "remove it"
                )

        starts = [timed.at_s for timed in self.prompts]
        if any(later <= earlier for earlier, later in pairwise(starts)):
            times = ", ".join(f"{start:g}" for start in starts)
            raise RequestError(f"prompts start at {times} s: each must start later than the one before it")

    def _check_numbers(self) -> None:
        for name, (_, option) in config.options_of(Request).items():
            value, limits = getattr(self, name), option.limits
            if limits and value is not None and not limits[0] <= value <= limits[1]:  # also rejects NaN
                raise RequestError(f"{name}={value} is out of range: use {limits[0]} to {limits[1]}")

        if (self.width is None) != (self.height is None):
            raise RequestError("width and height are given together or not at all")
        if self.seconds is not None and self.frames is not None:
            raise RequestError(f"give seconds={self.seconds:g} or frames={self.frames}, not both")

        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high <= 1:
                raise RequestError(
                    f"guidance_interval={low:g},{high:g} must be two diffusion times with 0 <= low < high <= "
                    "1, e.g. 0.3,0.9"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of all fields except None and empty lists."""
        return {name: value for name, value in config.to_dict(self).items() if value != []}

    def to_json(self) -> str:
        """A JSON object that `from_json` reads back to an equal request."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """The request in a JSON object. Keys of version 0.1.0 (`OLD_KEYS`) are accepted.

        Raises `RequestError` for text that is not a JSON object, an unknown key, or a value of the wrong
        type.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise RequestError(f"the request is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise RequestError(f"the request is {type(values).__name__}, not a JSON object")

        try:
            fields: dict[str, Any] = {OLD_KEYS.get(str(key), str(key)): values[key] for key in values}
            return config.from_dict(cls, fields)
        except ConfigError as error:
            raise RequestError(f"the request: {error}") from None
