"""Where the places of a request come to lie among the latents: pure arithmetic on frames.

Latent 0 holds one frame and latent i the four frames 4i - 3 to 4i. A clip that is kept fills whole latents only, so the canvas may begin
up to three frames before the result does: of the four offsets the one that wastes least of the clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kinema.generation.conditioning.clips import Place


@dataclass(frozen=True)
class Laid:
    """A place on the canvas. Frames `first` to `stop` - 1 of the canvas are its, and `latents` are those that its content fills."""

    place: Place
    first: int
    stop: int
    latents: range


@dataclass(frozen=True)
class Layout:
    """The canvas of a request in time: the result is `num_frames` frames from `first` on."""

    first: int
    canvas_frames: int
    laid: tuple[Laid, ...]
    is_free: tuple[bool, ...]
    """For every latent frame whether any of it has to be generated."""


def frames_of(latent: int, factor: int) -> range:
    """The frames of the canvas that a latent frame holds."""
    return range(1) if latent == 0 else range(factor * (latent - 1) + 1, factor * latent + 1)


def latent_of(frame: int, factor: int) -> int:
    """The latent frame that holds a frame of the canvas."""
    return -(-frame // factor)


def lay_out(places: Sequence[Place], num_frames: int, fps: float, factor: int) -> Layout:
    """The layout that loses least of the kept clips to latents which they fill only in part; the earliest of equals."""
    layouts = [
        _with_offset(places, num_frames, fps, factor, offset) for offset in range(factor if places else 1)
    ]
    return min(layouts, key=lambda layout: _waste(layout, num_frames, factor))


def lay_cycle(places: Sequence[Place], num_frames: int, fps: float, factor: int) -> Layout:
    """The layout of a loop: latent 0 is thrown away, and frame i of the result is frame i + 1 of the canvas."""
    num_latents = num_frames // factor + 1
    is_free = [True] * num_latents
    laid = []
    for place in places:
        first, stop = (1 + frame for frame in span(place, num_frames, fps))
        whole = [
            i for i in range(1, num_latents) if all(first <= frame < stop for frame in frames_of(i, factor))
        ]
        if place.seconds is None:
            whole = [latent_of(first, factor)]
        for i in whole:
            is_free[i] = False
        laid.append(Laid(place, first, stop, range(whole[0], whole[-1] + 1) if whole else range(0)))
    return Layout(1, num_frames + 1, tuple(laid), tuple(is_free))


def span(place: Place, num_frames: int, fps: float) -> tuple[int, int]:
    """First frame of the result that is the place's, and the one after its last."""
    length = 1 if place.seconds is None else max(1, round(place.seconds * fps))
    first = num_frames - length if place.at_s is None else round(place.at_s * fps)
    return first, first + length


def _with_offset(places: Sequence[Place], num_frames: int, fps: float, factor: int, offset: int) -> Layout:
    num_latents = latent_of(offset + num_frames - 1, factor) + 1
    shown = range(offset, offset + num_frames)
    is_free = [True] * num_latents
    laid = []
    for place in places:
        first, stop = (offset + frame for frame in span(place, num_frames, fps))
        touched = range(
            latent_of(max(first, 0), factor), min(num_latents, latent_of(max(stop - 1, 0), factor) + 1)
        )
        if place.strength == 0 and place.seconds is not None:
            whole = [
                i
                for i in touched
                if all(first <= frame < stop for frame in frames_of(i, factor) if frame in shown)
            ]
            touched = range(whole[0], whole[-1] + 1) if whole else range(0)
        for i in touched:
            is_free[i] = (is_free[i] if place.is_limited else False) if place.strength == 0 else True
        laid.append(Laid(place, first, stop, touched))
    return Layout(offset, factor * (num_latents - 1) + 1, tuple(laid), tuple(is_free))


def _waste(layout: Layout, num_frames: int, factor: int) -> float:
    """Frames of kept clips outside their latents; less grave, the frames for which a picture has to stand still."""
    waste = 0.0
    shown = range(layout.first, layout.first + num_frames)
    for laid in layout.laid:
        filled = {frame for i in laid.latents for frame in frames_of(i, factor) if frame in shown}
        own = set(range(laid.first, laid.stop))
        if laid.place.seconds is None:
            waste += 0.01 * len(filled - own)
        elif laid.place.strength == 0:
            waste += len(own - filled)
    return waste
