"""Plans: a request with the model's defaults filled in, and the canvas and windows that generate it."""

import math
from dataclasses import dataclass, replace
from hashlib import sha256

from kinema.checkpoints.manifest import Manifest
from kinema.errors import RequestError
from kinema.generation.conditioning.clips import ClipCondition
from kinema.generation.conditioning.layout import (
    CanvasLayout,
    frame_span,
    latent_of,
    make_layout,
    make_loop_layout,
    make_shown_layout,
)
from kinema.generation.request import Request
from kinema.generation.sampling.sliding_windows import Window, sliding_windows

HISTORY_SHARE = 0.5
"""Maximum share of a window that is history: a model of five latent frames generates three, given two."""
CLIP_GUIDANCE = 0.7
"""Default guidance for continuing clips, as a share of the model's default. The clips determine the
appearance, and guidance pulls new content away from it; with too little guidance new content moves too little
(`kinema evaluate --tasks --guidance G`)."""


@dataclass(frozen=True)
class Plan:
    """A request with every default of a model filled in, and how its result is generated. Sizes in pixels."""

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
    layout: CanvasLayout
    """Positions of the request's clips on the canvas."""
    windows: tuple[Window, ...]
    """The windows that generate the canvas, in order. Empty for a loop, which is sampled as a whole."""
    window: int = 1
    """Latent frames per window."""
    temporal_factor: int = 4

    @property
    def canvas_frames(self) -> int:
        """Frames of the canvas."""
        return self.layout.canvas_frames

    @property
    def canvas_first(self) -> int:
        """The frame of the canvas at which the result begins."""
        return self.layout.first

    @property
    def is_cropped(self) -> bool:
        """Whether the canvas is larger or longer than the result."""
        canvas_frames = self.frames if self.request.loop else self.canvas_frames
        canvas = (self.canvas_width, self.canvas_height, canvas_frames)
        return canvas != (self.width, self.height, self.frames)

    @property
    def prompts(self) -> list[tuple[int, str]]:
        """Every prompt with the first latent frame that it holds for, in order."""
        return _prompts(self.request, self.layout.first, self.fps, self.temporal_factor)

    @property
    def text(self) -> str:
        """One line for the user: size, length, and the canvas and windows if they differ."""
        line = f"{self.width}x{self.height}, {self.frames} frames at {self.fps:g} fps"
        line += f" ({self.frames / self.fps:.2f} s)"
        if self.request.loop:
            line += ", a seamless loop"
        if self.is_cropped:
            line += f", cropped from {self.canvas_width}x{self.canvas_height} and {self.canvas_frames} frames"
        if len(self.windows) > 1:
            window_frames = self.temporal_factor * (self.window - 1) + 1
            line += f", in {len(self.windows)} windows of up to {window_frames} frames"
        return line


def make_plan(request: Request, manifest: Manifest, *, temporal_factor: int = 4) -> Plan:
    """What the model of `manifest` will do for `request`.

    A duration becomes `round(seconds * fps)` frames. The plan's own request states every value, so that it
    has the same meaning after the model's defaults have changed. Raises `RequestError` for what the model
    cannot do, with the nearest value that it can.
    """
    if not request.prompt.strip() and not request.conditions:
        raise RequestError('the prompt is empty: describe the video, e.g. "a penguin walks across the snow"')

    height, width = manifest.default_size
    if request.width is not None and request.height is not None:
        width, height = request.width, request.height
    frames = _num_frames(request, manifest, temporal_factor)
    canvas_width, canvas_height = fit_size(width, height, manifest, request.beyond_trained)
    fit_frames(frames, manifest, request.beyond_trained, temporal_factor=temporal_factor)

    window = _window(request, manifest)
    values = {name: getattr(request, name) for name in ("steps", "sampler", "shift")}
    values = {name: getattr(manifest, name) if given is None else given for name, given in values.items()}
    values |= {"guidance": _guidance(request, manifest), "width": width, "height": height, "frames": frames}

    for condition in request.conditions:
        _check_condition(condition, width, height, frames, manifest.fps)
    if request.prompts and round(request.prompts[-1].at_s * manifest.fps) >= frames:
        raise RequestError(
            f"the prompt at {request.prompts[-1].at_s:g} s starts after the end of the result, "
            f"which has {frames / manifest.fps:g} s: use an earlier time, or a longer result"
        )

    filled = replace(request, seconds=None, window=window, **values)
    lay_out = make_shown_layout if manifest.pictures_in_channels else make_layout
    if request.loop:
        lay_out = make_loop_layout
    layout = lay_out(request.conditions, frames, manifest.fps, temporal_factor)
    num_latents = max(2, latent_of(_round_up(window - 1, temporal_factor), temporal_factor) + 1)
    return Plan(
        filled,
        fps=manifest.fps,
        canvas_width=canvas_width,
        canvas_height=canvas_height,
        layout=layout,
        windows=_windows(filled, layout, num_latents, manifest.fps, temporal_factor),
        window=num_latents,
        temporal_factor=temporal_factor,
        **values,
    )


def keeps_clips(request: Request) -> bool:
    """Whether a request keeps clips, and edits none."""
    has_clip = any(condition.seconds is not None for condition in request.conditions)
    return has_clip and not any(condition.strength for condition in request.conditions)


def fit_size(width: int, height: int, manifest: Manifest, beyond_trained: bool = False) -> tuple[int, int]:
    """Width and height of the canvas for a result of `width` x `height`: both rounded up to the model's
    multiple.

    Raises `RequestError` for a side outside the trained range, with the nearest size of that shape, unless
    `beyond_trained`.
    """
    low, high, multiple = manifest.min_side, manifest.max_side, manifest.side_multiple
    if not beyond_trained and (min(width, height) < low or max(width, height) > high):
        nearest = nearest_size(width, height, manifest)
        raise RequestError(
            f"size {width}x{height} is outside what {manifest.name} was trained with, sides of {low} to "
            f"{high} pixels: "
            f"use {nearest[0]}x{nearest[1]}, or allow it with beyond_trained (--beyond-trained)"
        )
    return _round_up(width, multiple), _round_up(height, multiple)


def nearest_size(width: int, height: int, manifest: Manifest) -> tuple[int, int]:
    """The width and height in the trained range that are nearest in shape to `width` x `height`."""
    low, high, multiple = manifest.min_side, manifest.max_side, manifest.side_multiple
    scale = min(high / max(width, height), max(1.0, low / min(width, height)))
    sides = [min(high, max(low, round(side * scale / multiple) * multiple)) for side in (width, height)]
    return sides[0], sides[1]


def fit_frames(
    frames: int, manifest: Manifest, beyond_trained: bool = False, *, temporal_factor: int = 4
) -> int:
    """Frames of the canvas for a result of `frames`: rounded up to 4k + 1, as the VAE requires.

    A result longer than the trained length is generated in windows. Raises `RequestError` for one that is
    shorter, unless `beyond_trained`.
    """
    shortest = manifest.min_frames
    if manifest.max_frames == 1 < frames:
        raise RequestError(f"{manifest.name} makes single pictures, not {frames} frames: use frames=1")
    if not beyond_trained and frames < shortest:
        raise RequestError(
            f"{frames} frames ({frames / manifest.fps:.2f} s) are fewer than {manifest.name} was trained "
            f"with: use frames={shortest} ({shortest / manifest.fps:.2f} s), or allow it with beyond_trained "
            "(--beyond-trained)"
        )
    return _round_up(frames - 1, temporal_factor) + 1


def _num_frames(request: Request, manifest: Manifest, temporal_factor: int) -> int:
    """Frames of the result. A loop has a multiple of the temporal factor: a duration is rounded to it, a
    count must be one."""
    frames = manifest.default_frames
    if request.frames is not None:
        frames = request.frames
    elif request.seconds is not None:
        frames = max(1, math.floor(request.seconds * manifest.fps + 0.5))
    if not request.loop or frames % temporal_factor == 0:
        return frames

    nearest = max(1, math.floor(frames / temporal_factor + 0.5)) * temporal_factor
    if request.frames is not None:
        raise RequestError(
            f"a loop of {frames} frames does not close: use a multiple of {temporal_factor}, e.g. "
            f"frames={nearest}"
        )
    return nearest


def _guidance(request: Request, manifest: Manifest) -> float:
    """The scale of guidance. Raises `RequestError` for options that need guidance if there is none."""
    guidance = manifest.guidance if request.guidance is None else request.guidance
    if request.guidance is None and keeps_clips(request):
        guidance = min(guidance, max(1.0, CLIP_GUIDANCE * guidance))
    if request.guidance is None and not request.prompt.strip() and not request.prompts:
        guidance = 1.0  # an empty prompt equals the unconditional estimate

    if request.negative_prompt and guidance == 1:
        raise RequestError(
            "a negative prompt needs guidance above 1: use a higher guidance, or remove the negative prompt"
        )
    if request.guidance_interval is not None and guidance == 1:
        raise RequestError(
            "a guidance interval needs guidance above 1: use a higher guidance, or remove the interval"
        )
    return guidance


def _window(request: Request, manifest: Manifest) -> int:
    """Frames per window. Raises `RequestError` for more than the trained length, unless that is allowed."""
    longest = manifest.max_frames
    window = longest if request.window is None else request.window
    if window > longest and not request.beyond_trained:
        raise RequestError(
            f"window={window} is longer than the {longest} frames {manifest.name} was trained with: "
            f"use at most {longest}, or allow it with beyond_trained (--beyond-trained)"
        )
    return window


def _check_condition(condition: ClipCondition, width: int, height: int, frames: int, fps: float) -> None:
    """Raise `RequestError` for a clip or region that reaches outside the result."""
    first, stop = frame_span(condition, frames, fps)
    if first < 0 or stop > frames:
        raise RequestError(
            f"a clip from {first / fps:g} to {stop / fps:g} s does not fit into a result of {frames / fps:g} "
            f"s ({frames} frames): use a longer result, or less of the clip"
        )

    if condition.region is not None:
        x, y, w, h = condition.region
        if x + w > width or y + h > height:
            raise RequestError(
                f"region {x},{y},{w},{h} reaches outside the frame of {width}x{height}: "
                f"use x + width <= {width} and y + height <= {height}"
            )


def _prompts(request: Request, first: int, fps: float, factor: int) -> list[tuple[int, str]]:
    """See `Plan.prompts`; the result begins at frame `first` of the canvas."""
    later = [(latent_of(first + round(timed.at_s * fps), factor), timed.prompt) for timed in request.prompts]
    return [(0, request.prompt), *later]


def _windows(
    request: Request, layout: CanvasLayout, num_latents: int, fps: float, factor: int
) -> tuple[Window, ...]:
    """See `Plan.windows`; `num_latents` is the size of a window, of which an anchor takes one."""
    if request.loop:
        return ()
    has_anchor = request.anchor and len(layout.is_free) > num_latents > 2
    size = num_latents - 1 if has_anchor else num_latents
    cuts = [latent for latent, _ in _prompts(request, layout.first, fps, factor)[1:]]
    return tuple(sliding_windows(layout.is_free, size, max(1, int(size * HISTORY_SHARE)), cuts))


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def batch_key(plan: Plan) -> str:
    """A hash that is equal for plans that can be generated as one batch (`Pipeline.run_many`)."""
    return sha256(repr(batch_fields(plan)).encode()).hexdigest()[:16]


def batch_fields(plan: Plan) -> dict[str, object]:
    """What the plans of a batch share, by name. Prompts, seeds, guidance scales and clips may differ."""
    request, layout = plan.request, plan.layout
    clips = [
        (clip.first, clip.stop, clip.latents, clip.condition.strength, clip.condition.is_limited)
        for clip in layout.clips
    ]
    return {
        "model": request.model,
        "size": f"{plan.canvas_width}x{plan.canvas_height}",
        "frames": plan.frames,
        "steps": plan.steps,
        "sampler": plan.sampler,
        "shift": plan.shift,
        "guidance": {0.0: "of the negative prompt alone", 1.0: "off"}.get(plan.guidance, "on"),
        "guidance interval": request.guidance_interval,
        "cache": request.cache,
        "loop": request.loop,
        "anchor": request.anchor,
        "windows": (plan.window, plan.windows),
        "clips": (layout.first, layout.canvas_frames, layout.is_free, clips),
    }
