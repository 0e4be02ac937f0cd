"""What is asked for, checked once: against sense when it is made, against what a model was trained for when it is planned."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

from kinema import config
from kinema.diffusion.samplers import SAMPLERS
from kinema.errors import ConfigError, RequestError
from kinema.lookup import lookup
from kinema.models.weights import SHIPPED, Manifest

MAX_PROMPT_CHARACTERS = 2000
LIMITS: dict[str, tuple[float, float]] = {
    "width": (1, 8192),
    "height": (1, 8192),
    "frames": (1, 100_000),
    "seconds": (0.01, 10_000),
    "seed": (0, 2**63 - 1),
    "steps": (1, 1000),
    "guidance": (0, 100),
    "shift": (0.01, 100),
}
"""Least and most of every number, as far as sense goes; what a model was trained for is in its manifest."""


@dataclass(frozen=True)
class Request:
    """A video that is wanted. What is None is the model's own default. Raises `RequestError` when it makes no sense for any model."""

    prompt: str
    negative_prompt: str = ""
    """What guidance moves away from; "" is any video at all."""
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    """Length as a duration; `frames` is the same thing as a count, and at most one of the two is given."""
    frames: int | None = None
    seed: int = 0
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 is none, and then a step costs half."""
    shift: float | None = None
    """How far the sampler's times move towards noise; 1 is not at all."""
    model: str = SHIPPED
    beyond_trained: bool = False
    """Whether sizes and lengths the model was not trained with may be tried."""

    def __post_init__(self) -> None:
        for name, text in (("prompt", self.prompt), ("negative prompt", self.negative_prompt)):
            if len(text) > MAX_PROMPT_CHARACTERS:
                raise RequestError(f"the {name} has {len(text)} characters: use at most {MAX_PROMPT_CHARACTERS}")
            if "\0" in text:
                raise RequestError(f"the {name} holds a NUL character: leave it out")
            if text.encode(errors="ignore").decode() != text:
                raise RequestError(f"the {name} holds half a character (a lone surrogate), which no file can keep: leave it out")
        if not self.prompt.strip():
            raise RequestError('the prompt is empty: say what the video should show, e.g. "a penguin walks across the snow"')
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # so that NaN is refused too
                raise RequestError(f"{name}={value} is out of range: use {least} to {most}")
        if (self.width is None) != (self.height is None):
            raise RequestError("width and height are given together or not at all")
        if self.seconds is not None and self.frames is not None:
            raise RequestError(f"give seconds={self.seconds:g} or frames={self.frames}, not both")
        if self.sampler is not None:
            lookup(SAMPLERS, self.sampler, kind="sampler")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field that is not None."""
        return config.to_dict(self)

    def to_json(self) -> str:
        """One JSON object; `from_json` gives the equal request back."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """The request of `to_json`. Raises `RequestError` for text that is no JSON object, an unknown key or a value of the wrong type."""
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise RequestError(f"the request is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise RequestError(f"the request is {type(values).__name__}, not a JSON object")
        try:
            return config.from_dict(cls, values)
        except ConfigError as error:
            raise RequestError(f"the request: {error}") from None


@dataclass(frozen=True)
class Plan:
    """A request with every default of a model filled in, and the canvas that holds its result. Sizes in pixels."""

    request: Request
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    sampler: str
    guidance: float
    shift: float
    canvas_width: int
    canvas_height: int
    canvas_frames: int

    @property
    def is_cropped(self) -> bool:
        """Whether more is generated than was asked for."""
        return (self.canvas_width, self.canvas_height, self.canvas_frames) != (self.width, self.height, self.frames)

    @property
    def text(self) -> str:
        """One line for the user: size, length, and what was generated for them."""
        line = f"{self.width}x{self.height}, {self.frames} frames at {self.fps:g} fps ({self.frames / self.fps:.2f} s)"
        canvas = f"{self.canvas_width}x{self.canvas_height} and {self.canvas_frames} frames"
        return f"{line}, cropped from {canvas}" if self.is_cropped else line


def make_plan(request: Request, manifest: Manifest, *, temporal_factor: int = 4) -> Plan:
    """What the model of `manifest` will do for `request`. Raises `RequestError` for what it cannot do, naming the nearest that it can.

    A duration in seconds becomes `round(seconds * fps)` frames. The plan's own request says all of it explicitly, so that it means
    the same thing when the model's defaults have changed.
    """
    height, width = manifest.default_size
    if request.width is not None and request.height is not None:
        width, height = request.width, request.height
    frames = manifest.default_frames
    if request.frames is not None:
        frames = request.frames
    elif request.seconds is not None:
        frames = max(1, math.floor(request.seconds * manifest.fps + 0.5))
    canvas_width, canvas_height = fit_size(width, height, manifest, request.beyond_trained)
    canvas_frames = fit_frames(frames, manifest, request.beyond_trained, temporal_factor=temporal_factor)
    steps = manifest.steps if request.steps is None else request.steps
    sampler = manifest.sampler if request.sampler is None else request.sampler
    guidance = manifest.guidance if request.guidance is None else request.guidance
    shift = manifest.shift if request.shift is None else request.shift
    if request.negative_prompt and guidance == 1:
        raise RequestError("a negative prompt needs guidance above 1: with guidance=1 nothing is moved away from")
    filled = replace(
        request,
        width=width,
        height=height,
        frames=frames,
        seconds=None,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        shift=shift,
    )
    canvas = {"canvas_width": canvas_width, "canvas_height": canvas_height, "canvas_frames": canvas_frames}
    return Plan(filled, width, height, frames, manifest.fps, steps, sampler, guidance, shift, **canvas)


def fit_size(width: int, height: int, manifest: Manifest, beyond_trained: bool = False) -> tuple[int, int]:
    """Width and height of the canvas for a picture of `width` x `height`: both rounded up to the model's multiple.

    Raises `RequestError` for a side outside the trained range, naming the size inside it of the nearest shape, unless `beyond_trained`.
    """
    least, most, multiple = manifest.sides
    if not beyond_trained and (min(width, height) < least or max(width, height) > most):
        scale = min(most / max(width, height), max(1.0, least / min(width, height)))
        near = "x".join(str(min(most, max(least, round(side * scale / multiple) * multiple))) for side in (width, height))
        raise RequestError(
            f"size {width}x{height} is outside what {manifest.name} was trained with, sides of {least} to {most} pixels: "
            f"use {near}, or allow it with beyond_trained (--beyond-trained)"
        )
    return _up(width, multiple), _up(height, multiple)


def fit_frames(frames: int, manifest: Manifest, beyond_trained: bool = False, *, temporal_factor: int = 4) -> int:
    """Frames of the canvas for a video of `frames`: rounded up to 4k + 1, which is what the VAE wants.

    Raises `RequestError` for a length outside the trained range, naming the nearest inside it, unless `beyond_trained`.
    """
    fewest, most = manifest.frames
    if not beyond_trained and not fewest <= frames <= most:
        near = min(max(frames, fewest), most)
        raise RequestError(
            f"{frames} frames ({frames / manifest.fps:.2f} s) are outside what {manifest.name} was trained with, {fewest} to {most}: "
            f"use frames={near} ({near / manifest.fps:.2f} s), or allow it with beyond_trained (--beyond-trained)"
        )
    return _up(frames - 1, temporal_factor) + 1


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
