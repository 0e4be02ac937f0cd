"""Requests: everything that a user can ask of a model, validated when it is made."""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kinema import config
from kinema.checkpoints.manifest import SAMPLER_NAMES
from kinema.checkpoints.shipped import SHIPPED
from kinema.errors import ConfigError, RequestError
from kinema.generation.conditioning.clips import ClipCondition, TimedPrompt
from kinema.prompts.words import MAX_PROMPT_CHARACTERS
from kinema.registry import lookup

LIMITS: dict[str, tuple[float, float]] = {
    "width": (1, 8192),
    "height": (1, 8192),
    "frames": (1, 100_000),
    "seconds": (0.01, 10_000),
    "seed": (0, 2**63 - 1),
    "steps": (1, 1000),
    "guidance": (0, 100),
    "shift": (0.01, 100),
    "window": (1, 100_000),
    "cache": (1e-6, 1),
}
"""Hard limits of each field. The limits of a model are in its manifest."""
OLD_KEYS = {"places": "conditions", "written": "original_prompt"}
"""JSON keys of version 0.1.0, with the fields that they are read into."""


@dataclass(frozen=True)
class Request:
    """A video to generate. Fields that are None take the model's default.

    Raises `RequestError` for values that no model could accept.
    """

    prompt: str
    negative_prompt: str = ""
    """The prompt that guidance moves away from. "" is the unconditional estimate."""
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    """Duration. At most one of `seconds` and `frames` is given."""
    frames: int | None = None
    seed: int = 0
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    """Scale of classifier-free guidance. 1 turns it off and halves the cost of a step."""
    shift: float | None = None
    """How far the sampler's times are shifted towards noise. 1 is no shift."""
    model: str = SHIPPED
    beyond_trained: bool = False
    """Allow sizes and windows that the model was not trained with."""
    conditions: tuple[ClipCondition, ...] = ()
    """Clips and pictures that parts of the result are kept or edited from."""
    prompts: tuple[TimedPrompt, ...] = ()
    """Prompts for later times. `prompt` holds from the start."""
    loop: bool = False
    """Generate a seamless loop."""
    window: int | None = None
    """Frames per window. A longer result is generated in windows that slide over it."""
    anchor: bool = False
    """Every window also attends to the first frame of the result, so that its content lasts. For models
    trained with anchors: other models drift more (docs/timeline.md)."""
    guidance_interval: tuple[float, float] | None = None
    """Lowest and highest diffusion time (0 data, 1 noise) with guidance; a step outside costs half. None is
    every time."""
    cache: float | None = None
    """Relative error up to which a step's estimate may be forecast from earlier steps. None computes every
    estimate."""
    original_prompt: str | None = None
    """The user's prompt, if `prompt` is its expansion. The model does not read it."""
    expander: str | None = None
    """Name of the expander that wrote `prompt`."""

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

        if not self.prompt.strip() and not self.conditions:
            raise RequestError(
                'the prompt is empty: describe the video, e.g. "a penguin walks across the snow"'
            )

        starts = [timed.at_s for timed in self.prompts]
        if any(later <= earlier for earlier, later in pairwise(starts)):
            times = ", ".join(f"{start:g}" for start in starts)
            raise RequestError(f"prompts start at {times} s: each must start later than the one before it")

    def _check_numbers(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # this form also rejects NaN
                raise RequestError(f"{name}={value} is out of range: use {low} to {high}")

        if (self.width is None) != (self.height is None):
            raise RequestError("width and height are given together or not at all")
        if self.seconds is not None and self.frames is not None:
            raise RequestError(f"give seconds={self.seconds:g} or frames={self.frames}, not both")

        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low < high <= 1:
                raise RequestError(
                    f"guidance_interval={low:g},{high:g} must be two diffusion times with 0 <= low < high "
                    "<= 1, "
                    f"e.g. 0.3,0.9"
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
