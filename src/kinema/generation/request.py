"""What is asked for, checked once: against sense when it is made, against what a model was trained for when it is planned."""

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from kinema import config
from kinema.checkpoints.folders import Manifest
from kinema.checkpoints.shipped import SHIPPED
from kinema.diffusion.samplers import SAMPLERS
from kinema.errors import ConfigError, RequestError
from kinema.generation.conditioning.clips import Place, TimedPrompt
from kinema.generation.conditioning.layout import Layout, latent_of, lay_cycle, lay_out, span
from kinema.generation.sampling.windows import Window, slide
from kinema.registry import lookup

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
    "window": (1, 100_000),
    "cache": (1e-6, 1),
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
    """Whether sizes and windows the model was not trained with may be tried."""
    places: tuple[Place, ...] = ()
    """What is known of the result: clips and pictures, where they stand, and how much of them may change."""
    prompts: tuple[TimedPrompt, ...] = ()
    """What it shows later on; `prompt` is what it shows from the start."""
    loop: bool = False
    """Whether the end is to run on into the beginning."""
    window: int | None = None
    """Frames that the model sees at a time; a longer result is made in windows that slide over it."""
    anchor: bool = False
    """Whether every window also sees the first frame of the result, which is to hold what it shows. For models that were trained with it:
    one that was not drifts more (docs/timeline.md)."""
    guidance_interval: tuple[float, float] | None = None
    """Least and greatest diffusion time (0 data, 1 noise) at which there is guidance; a step outside costs half. None is everywhere."""
    cache: float | None = None
    """Relative error up to which the estimate of a step may be forecast from earlier ones instead of computed; None computes all."""
    written: str | None = None
    """The user's own words, when `prompt` is what an expander made of them; it says nothing to the model."""
    expander: str | None = None
    """Which expander that was."""

    def __post_init__(self) -> None:
        later = [(f"prompt at {timed.at_s:g} s", timed.prompt) for timed in self.prompts]
        given = (
            ("prompt", self.prompt),
            ("negative prompt", self.negative_prompt),
            ("prompt as written", self.written or ""),
            *later,
        )
        for name, text in given:
            if len(text) > MAX_PROMPT_CHARACTERS:
                raise RequestError(
                    f"the {name} has {len(text)} characters: use at most {MAX_PROMPT_CHARACTERS}"
                )
            if "\0" in text:
                raise RequestError(f"the {name} holds a NUL character: leave it out")
            if text.encode(errors="ignore").decode() != text:
                raise RequestError(
                    f"the {name} holds half a character (a lone surrogate), which no file can keep: leave it out"
                )
        if not self.prompt.strip() and not self.places:
            raise RequestError(
                'the prompt is empty: say what the video should show, e.g. "a penguin walks across the snow"'
            )
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # so that NaN is refused too
                raise RequestError(f"{name}={value} is out of range: use {least} to {most}")
        if (self.width is None) != (self.height is None):
            raise RequestError("width and height are given together or not at all")
        if self.seconds is not None and self.frames is not None:
            raise RequestError(f"give seconds={self.seconds:g} or frames={self.frames}, not both")
        if (
            self.guidance_interval is not None
            and not 0 <= self.guidance_interval[0] < self.guidance_interval[1] <= 1
        ):
            low, high = self.guidance_interval
            raise RequestError(
                f"guidance_interval={low:g},{high:g} must be two diffusion times with 0 <= low < high <= 1, e.g. 0.3,0.9"
            )
        if self.sampler is not None:
            lookup(SAMPLERS, self.sampler, kind="sampler")
        starts = [timed.at_s for timed in self.prompts]
        if any(later <= earlier for earlier, later in pairwise(starts)):
            raise RequestError(
                f"prompts stand at {', '.join(f'{at:g}' for at in starts)} s: each must be later than the one before it"
            )
        if self.loop and (self.prompts or any(place.is_limited or place.strength for place in self.places)):
            raise RequestError(
                "a loop has one prompt, and at most clips that are kept: leave out timed prompts, regions and strengths"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field that is not None and not an empty list."""
        return {name: value for name, value in config.to_dict(self).items() if value != []}

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


HISTORY_SHARE = 0.5
"""Most of a window that is history: a model of five latents makes three new ones while it sees two."""


CLIP_GUIDANCE = 0.7
"""Share of a model's guidance with which clips are continued when none is asked for: what is shown is known from them, and guidance
pulls what is new away from their look, while with little of it what is new moves too little (`kinema evaluate --tasks --guidance G`)."""


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
    canvas_first: int = 0
    """The frame of the canvas with which the result begins."""
    window: int = 1
    """Latent frames that the model sees at a time."""
    temporal_factor: int = 4

    @property
    def is_cropped(self) -> bool:
        """Whether more is generated than was asked for."""
        canvas_frames = self.frames if self.request.loop else self.canvas_frames
        return (self.canvas_width, self.canvas_height, canvas_frames) != (
            self.width,
            self.height,
            self.frames,
        )

    @property
    def layout(self) -> Layout:
        """Where the request's places lie on the canvas."""
        if self.request.loop:
            return lay_cycle(self.request.places, self.frames, self.fps, self.temporal_factor)
        return lay_out(self.request.places, self.frames, self.fps, self.temporal_factor)

    @property
    def windows(self) -> list[Window]:
        """The windows in which the canvas is made, in order; none for a loop, whose latents are made together."""
        if self.request.loop:
            return []
        is_free = self.layout.is_free
        size = self.window - 1 if self.request.anchor and len(is_free) > self.window > 2 else self.window
        return slide(
            is_free, size, max(1, int(size * HISTORY_SHARE)), [latent for latent, _ in self.prompts[1:]]
        )

    @property
    def prompts(self) -> list[tuple[int, str]]:
        """The first latent frame of each prompt, and the prompt, in order."""
        later = [
            (self.canvas_first + round(timed.at_s * self.fps), timed.prompt) for timed in self.request.prompts
        ]
        return [
            (0, self.request.prompt),
            *((latent_of(frame, self.temporal_factor), prompt) for frame, prompt in later),
        ]

    @property
    def text(self) -> str:
        """One line for the user: size, length, and what was generated for them."""
        line = f"{self.width}x{self.height}, {self.frames} frames at {self.fps:g} fps ({self.frames / self.fps:.2f} s)"
        if self.request.loop:
            line += ", without an end"
        if self.is_cropped:
            line += f", cropped from {self.canvas_width}x{self.canvas_height} and {self.canvas_frames} frames"
        count = len(self.windows)
        return (
            f"{line}, in {count} windows of up to {self.temporal_factor * (self.window - 1) + 1} frames"
            if count > 1
            else line
        )


def make_plan(request: Request, manifest: Manifest, *, temporal_factor: int = 4) -> Plan:
    """What the model of `manifest` will do for `request`. Raises `RequestError` for what it cannot do, naming the nearest that it can.

    A duration in seconds becomes `round(seconds * fps)` frames. The plan's own request says all of it explicitly, so that it means
    the same thing when the model's defaults have changed.
    """
    height, width = manifest.default_size
    if request.width is not None and request.height is not None:
        width, height = request.width, request.height
    frames = _num_frames(request, manifest, temporal_factor)
    canvas_width, canvas_height = fit_size(width, height, manifest, request.beyond_trained)
    fit_frames(frames, manifest, request.beyond_trained, temporal_factor=temporal_factor)
    steps = manifest.steps if request.steps is None else request.steps
    sampler = manifest.sampler if request.sampler is None else request.sampler
    guidance = manifest.guidance if request.guidance is None else request.guidance
    if request.guidance is None and continues_clips(request):
        guidance = min(guidance, max(1.0, CLIP_GUIDANCE * guidance))
    if not request.prompt.strip() and not request.prompts and request.guidance is None:
        guidance = 1.0  # the empty prompt is what guidance moves away from
    shift = manifest.shift if request.shift is None else request.shift
    window = manifest.frames[1] if request.window is None else request.window
    if window > manifest.frames[1] and not request.beyond_trained:
        raise RequestError(
            f"window={window} is longer than the {manifest.frames[1]} frames {manifest.name} was trained with: "
            f"use at most that, or allow it with beyond_trained (--beyond-trained)"
        )
    if request.negative_prompt and guidance == 1:
        raise RequestError(
            "a negative prompt needs guidance above 1: with guidance=1 nothing is moved away from"
        )
    if request.guidance_interval is not None and guidance == 1:
        raise RequestError(
            "a guidance interval needs guidance above 1: with guidance=1 there is none anywhere"
        )
    for place in request.places:
        _check_place(place, width, height, frames, manifest.fps)
    if request.prompts and round(request.prompts[-1].at_s * manifest.fps) >= frames:
        raise RequestError(
            f"a prompt at {request.prompts[-1].at_s:g} s stands behind the end: the result has {frames / manifest.fps:g} s"
        )
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
        window=window,
    )
    lay = lay_cycle if request.loop else lay_out
    layout = lay(request.places, frames, manifest.fps, temporal_factor)
    num_latents = max(2, latent_of(_up(window - 1, temporal_factor), temporal_factor) + 1)
    canvas = {
        "canvas_width": canvas_width,
        "canvas_height": canvas_height,
        "canvas_frames": layout.canvas_frames,
    }
    more = {"canvas_first": layout.first, "window": num_latents, "temporal_factor": temporal_factor}
    return Plan(
        filled, width, height, frames, manifest.fps, steps, sampler, guidance, shift, **canvas, **more
    )


def continues_clips(request: Request) -> bool:
    """Whether a request keeps clips as they are and makes no part of one anew."""
    return any(place.seconds is not None for place in request.places) and not any(
        place.strength for place in request.places
    )


def _num_frames(request: Request, manifest: Manifest, temporal_factor: int) -> int:
    """Frames of the result. A loop has a multiple of the temporal factor: seconds are rounded to it, frames have to be it."""
    frames = manifest.default_frames
    if request.frames is not None:
        frames = request.frames
    elif request.seconds is not None:
        frames = max(1, math.floor(request.seconds * manifest.fps + 0.5))
    if not request.loop or frames % temporal_factor == 0:
        return frames
    near = max(1, math.floor(frames / temporal_factor + 0.5)) * temporal_factor
    if request.frames is not None:
        raise RequestError(
            f"a loop of {frames} frames does not close: use a multiple of {temporal_factor}, e.g. frames={near}"
        )
    return near


def _check_place(place: Place, width: int, height: int, frames: int, fps: float) -> None:
    """Raise `RequestError` for a place that is not inside the result."""
    first, stop = span(place, frames, fps)
    if first < 0 or stop > frames:
        raise RequestError(
            f"a clip from {first / fps:g} to {stop / fps:g} s does not fit into a result of {frames / fps:g} s ({frames} frames): "
            "ask for more seconds, or use less of the clip"
        )
    if place.region is not None:
        x, y, w, h = place.region
        if x + w > width or y + h > height:
            raise RequestError(
                f"region {x},{y},{w},{h} reaches outside the picture of {width}x{height}: it may end at {width},{height}"
            )


def fit_size(width: int, height: int, manifest: Manifest, beyond_trained: bool = False) -> tuple[int, int]:
    """Width and height of the canvas for a picture of `width` x `height`: both rounded up to the model's multiple.

    Raises `RequestError` for a side outside the trained range, naming the size inside it of the nearest shape, unless `beyond_trained`.
    """
    least, most, multiple = manifest.sides
    if not beyond_trained and (min(width, height) < least or max(width, height) > most):
        scale = min(most / max(width, height), max(1.0, least / min(width, height)))
        near = "x".join(
            str(min(most, max(least, round(side * scale / multiple) * multiple))) for side in (width, height)
        )
        raise RequestError(
            f"size {width}x{height} is outside what {manifest.name} was trained with, sides of {least} to {most} pixels: "
            f"use {near}, or allow it with beyond_trained (--beyond-trained)"
        )
    return _up(width, multiple), _up(height, multiple)


def fit_frames(
    frames: int, manifest: Manifest, beyond_trained: bool = False, *, temporal_factor: int = 4
) -> int:
    """Frames of the canvas for a video of `frames`: rounded up to 4k + 1, which is what the VAE wants.

    Longer than trained is made in windows. Raises `RequestError` for fewer than the model was trained with, unless `beyond_trained`.
    """
    fewest = manifest.frames[0]
    if not beyond_trained and frames < fewest:
        raise RequestError(
            f"{frames} frames ({frames / manifest.fps:.2f} s) are fewer than {manifest.name} was trained with: "
            f"use frames={fewest} ({fewest / manifest.fps:.2f} s), or allow it with beyond_trained (--beyond-trained)"
        )
    return _up(frames - 1, temporal_factor) + 1


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
