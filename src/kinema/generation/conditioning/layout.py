"""Where the clips of a request lie among the latent frames of the canvas: arithmetic on frames.

Latent frame 0 holds one frame, and latent frame i the four frames 4i - 3 to 4i. A kept clip fills whole
latent frames only, so the canvas may begin up to three frames before the result: of the four offsets, the one
that wastes the fewest frames of the clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kinema.generation.conditioning.clips import ClipCondition

STILL_WASTE = 0.01
"""Waste of a frame for which a picture must stand still, relative to a clip's frame that is not kept."""


@dataclass(frozen=True)
class PlacedClip:
    """A condition: frames `first` to `stop` - 1 of the canvas, and the latent frames that it fills."""

    condition: ClipCondition
    first: int
    stop: int
    latents: range


@dataclass(frozen=True)
class CanvasLayout:
    """The canvas of a request in time. The result begins at frame `first` of its `canvas_frames` frames."""

    first: int
    canvas_frames: int
    clips: tuple[PlacedClip, ...]
    is_free: tuple[bool, ...]
    """For every latent frame, whether any of it is generated."""


def frames_of(latent: int, factor: int) -> range:
    """The frames of the canvas that a latent frame holds."""
    return range(1) if latent == 0 else range(factor * (latent - 1) + 1, factor * latent + 1)


def latent_of(frame: int, factor: int) -> int:
    """The latent frame that holds a frame of the canvas."""
    return -(-frame // factor)


def frame_span(condition: ClipCondition, num_frames: int, fps: float) -> tuple[int, int]:
    """The first frame of the result that a condition covers, and the frame after the last."""
    length = 1 if condition.seconds is None else max(1, round(condition.seconds * fps))
    first = num_frames - length if condition.at_s is None else round(condition.at_s * fps)
    return first, first + length


def make_layout(
    conditions: Sequence[ClipCondition], num_frames: int, fps: float, factor: int
) -> CanvasLayout:
    """The layout of a result of `num_frames` frames with the smallest waste; the earliest of equals."""
    offsets = range(factor if conditions else 1)
    layouts = [_with_offset(conditions, num_frames, fps, factor, offset) for offset in offsets]
    return min(layouts, key=lambda layout: _waste(layout, num_frames, factor))


def make_loop_layout(
    conditions: Sequence[ClipCondition], num_frames: int, fps: float, factor: int
) -> CanvasLayout:
    """The layout of a loop: latent frame 0 is discarded; frame i of the result is canvas frame i + 1."""
    num_latents = num_frames // factor + 1
    is_free = [True] * num_latents
    clips = []
    for condition in conditions:
        first, stop = (1 + frame for frame in frame_span(condition, num_frames, fps))
        if condition.seconds is None:
            latents = range(latent_of(first, factor), latent_of(first, factor) + 1)
        else:
            latents = _filled(range(1, num_latents), range(first, stop), factor)

        for i in latents:
            is_free[i] = False
        clips.append(PlacedClip(condition, first, stop, latents))
    return CanvasLayout(1, num_frames + 1, tuple(clips), tuple(is_free))


def make_shown_layout(
    conditions: Sequence[ClipCondition], num_frames: int, fps: float, factor: int
) -> CanvasLayout:
    """The layout for pictures that enter the network beside the latents: they fill none, all are made."""
    spans = [(condition, *frame_span(condition, num_frames, fps)) for condition in conditions]
    clips = tuple(PlacedClip(condition, first, stop, range(0)) for condition, first, stop in spans)
    return replace(make_layout((), num_frames, fps, factor), clips=clips)


def _with_offset(
    conditions: Sequence[ClipCondition], num_frames: int, fps: float, factor: int, offset: int
) -> CanvasLayout:
    """The layout of a result that begins at frame `offset` of the canvas."""
    num_latents = latent_of(offset + num_frames - 1, factor) + 1
    result = range(offset, offset + num_frames)
    is_free = [True] * num_latents
    clips = []
    for condition in conditions:
        first, stop = (offset + frame for frame in frame_span(condition, num_frames, fps))
        last = latent_of(max(stop - 1, 0), factor)
        latents = range(latent_of(max(first, 0), factor), min(num_latents, last + 1))
        if condition.strength == 0 and condition.seconds is not None:
            latents = _filled(latents, range(first, stop), factor, result)

        for i in latents:
            if condition.strength > 0:
                is_free[i] = True
            elif not condition.is_limited:
                is_free[i] = False
        clips.append(PlacedClip(condition, first, stop, latents))
    return CanvasLayout(offset, factor * (num_latents - 1) + 1, tuple(clips), tuple(is_free))


def _filled(latents: range, frames: range, factor: int, result: range | None = None) -> range:
    """The latent frames among `latents` whose frames, those outside `result` aside, all lie in `frames`."""
    filled = []
    for i in latents:
        own = [frame for frame in frames_of(i, factor) if result is None or frame in result]
        if all(frame in frames for frame in own):
            filled.append(i)
    return range(filled[0], filled[-1] + 1) if filled else range(0)


def _waste(layout: CanvasLayout, num_frames: int, factor: int) -> float:
    """Frames of kept clips outside their latent frames, and with less weight frames for which a picture
    stands still."""
    waste = 0.0
    result = range(layout.first, layout.first + num_frames)
    for clip in layout.clips:
        own = set(range(clip.first, clip.stop))
        filled = {frame for i in clip.latents for frame in frames_of(i, factor) if frame in result}
        if clip.condition.seconds is None:
            waste += STILL_WASTE * len(filled - own)
        elif clip.condition.strength == 0:
            waste += len(own - filled)
    return waste
