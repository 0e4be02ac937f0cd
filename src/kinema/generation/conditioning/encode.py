"""The one place where clips become a canvas: fitted, encoded, painted; and what of their pixels the result keeps.

request and inputs -> Painted: the canvas that the sampler fills, and for every kept frame its own pixels.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from einops import reduce
from torch import Tensor

from kinema.diffusion.canvas import Canvas
from kinema.errors import RequestError
from kinema.generation.conditioning.clips import Inputs, Place, find_input
from kinema.generation.conditioning.layout import Laid, frames_of
from kinema.generation.request import Plan
from kinema.models.known import encode_known
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.shapes import Float
from kinema.video.resize import describe_fit, fit_mask, fit_pixels

FEATHER_PX = 4
"""Width, inside a region that is made anew, over which it passes into what is kept."""


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """Pixels (h, w, 3) that a frame of the result has from an input, and how much of each: 1 keeps it bit for bit, 0 not at all."""

    pixels: np.ndarray
    weight: float | np.ndarray = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the frame is the input's altogether."""
        return not isinstance(self.weight, np.ndarray) and self.weight == 1


@dataclass(frozen=True, eq=False)
class Painted:
    """The canvas of one request, and by frame of the result what is kept of the inputs' pixels."""

    canvas: Canvas
    kept: dict[int, KeptFrame] = field(default_factory=dict)


@torch.no_grad()
def paint(plan: Plan, inputs: Inputs, vae: VAE, device: torch.device) -> Painted:
    """The canvas of `plan` with its places painted in their order.

    Raises `RequestError` for an input that is missing, too short for its place, or a mask that does not fit; and for a place that
    does not fill a single latent.
    """
    factor, space = vae.config.temporal_factor, vae.config.spatial_factor
    layout = plan.layout
    grid = len(layout.is_free), plan.canvas_height // space, plan.canvas_width // space
    canvas = Canvas.empty((1, vae.config.z_dim, *grid), device=device)
    kept: dict[int, KeptFrame] = {}
    for laid in layout.laid:
        if not laid.latents and laid.place.strength == 0:
            raise RequestError(
                f"a clip of {laid.stop - laid.first} frames is shorter than one latent and cannot be kept at "
                f"{(laid.first - plan.canvas_first) / plan.fps:g} s: use {factor / plan.fps:g} s or more "
                f"({factor} frames at {plan.fps:g} fps), or a picture"
            )
        source = _Source(plan, laid, inputs)
        canvas = _paint_latents(canvas, plan, laid, source, vae)
        _keep_pixels(kept, plan, laid, source, factor)
    return Painted(canvas, kept)


def describe(plan: Plan, inputs: Inputs) -> list[str]:
    """A line for each input that says how it was fitted."""
    lines = []
    for media, place in {place.media: place for place in plan.request.places}.items():
        video = find_input(inputs, media)
        lines.append(
            describe_fit(video, plan.width, plan.height, plan.fps, place.fit, is_still=place.seconds is None)
        )
    return lines


class _Source:
    """The frames of a place's clip at the plan's rate and size, by frame of the canvas, and its mask."""

    def __init__(self, plan: Plan, laid: Laid, inputs: Inputs) -> None:
        self.laid, self.plan, place = laid, plan, laid.place
        video = find_input(inputs, place.media)
        self.raw = (
            video.frames
            if place.seconds is None or video.fps == plan.fps
            else video.resampled(plan.fps).frames
        )
        self.first = round(place.first_s * plan.fps)
        needed = self.first + laid.stop - laid.first
        if needed > len(self.raw):
            raise RequestError(
                f"a place uses frames {self.first} to {needed - 1} of a clip that has {len(self.raw)} at {plan.fps:g} fps"
            )
        self.mask = _mask(plan, laid, inputs, video.frames.shape[1:3])

    def pixels(self, frames: range | list[int]) -> np.ndarray:
        """Fitted pixels (n, h, w, 3); beyond its ends the clip is reflected."""
        last = len(self.raw) - 1
        indices = [_reflected(self.first + frame - self.laid.first, last) for frame in frames]
        return fit_pixels(self.raw[indices], self.plan.width, self.plan.height, self.laid.place.fit)

    def mask_at(self, frame: int) -> np.ndarray | None:
        """Where the place holds at a frame of the canvas, (h, w) booleans; None: everywhere."""
        if self.mask is None:
            return None
        return self.mask[min(max(frame - self.laid.first, 0), len(self.mask) - 1)]


def _paint_latents(canvas: Canvas, plan: Plan, laid: Laid, source: _Source, vae: VAE) -> Canvas:
    place, factor = laid.place, vae.config.temporal_factor
    if not laid.latents:
        return canvas
    frames = [frame for latent in laid.latents for frame in frames_of(latent, factor)]
    video = on_canvas(source.pixels(frames), plan).to(canvas.clean.device)
    clean = encode_known(vae, video, starts_canvas=laid.latents[0] == 0)
    whole = canvas.clean.clone()
    whole[:, :, laid.latents[0] : laid.latents[-1] + 1] = clean.to(whole)
    where = torch.zeros_like(canvas.known)
    if source.mask is None:
        where[:, :, laid.latents[0] : laid.latents[-1] + 1] = True
    else:
        for latent in laid.latents:
            masks = [source.mask_at(frame) for frame in frames_of(latent, factor)]
            where[:, :, latent] = _to_grid(
                np.stack([mask for mask in masks if mask is not None]), plan, vae, place
            )
    return canvas.paint(whole, where, start=place.strength)


def _keep_pixels(kept: dict[int, KeptFrame], plan: Plan, laid: Laid, source: _Source, factor: int) -> None:
    """Note what the result keeps of the place's frames, or for one that is made anew no longer keeps."""
    offset = plan.canvas_first
    if laid.place.strength > 0:
        for frame in range(laid.first, laid.stop):
            mask, before = source.mask_at(frame), kept.get(frame - offset)
            if mask is None:
                kept.pop(frame - offset, None)
            elif before is not None:
                kept[frame - offset] = KeptFrame(before.pixels, before.weight * _outside(mask))
        return
    own = range(laid.first, laid.stop)
    filled = {frame for latent in laid.latents for frame in frames_of(latent, factor)}
    for frame, pixels in zip(own, source.pixels(own)):
        mask = source.mask_at(frame)
        if mask is not None:
            kept[frame - offset] = KeptFrame(pixels, mask.astype(np.float32))
        elif frame in filled or laid.place.seconds is None:
            kept[frame - offset] = KeptFrame(pixels)
        else:  # in a latent that the clip fills only in part, and that is generated: the frame passes from one to the other
            distance = min(abs(frame - other) for other in filled)
            passing = min(filled) - laid.first if frame < min(filled) else laid.stop - 1 - max(filled)
            kept[frame - offset] = KeptFrame(pixels, 1 - distance / (passing + 1))


def _mask(plan: Plan, laid: Laid, inputs: Inputs, size: tuple[int, int]) -> np.ndarray | None:
    """The mask of a place, (1 or its frames, h, w) booleans."""
    place = laid.place
    if place.region is not None:
        x, y, w, h = place.region
        mask = np.zeros((1, plan.height, plan.width), bool)
        mask[:, y : y + h, x : x + w] = True
        return mask
    if place.mask is None:
        return None
    video = find_input(inputs, place.mask)
    given = video.height, video.width
    if given not in (tuple(size), (plan.height, plan.width)):
        raise RequestError(
            f"the mask has {given[1]}x{given[0]} pixels: it must have those of the clip ({size[1]}x{size[0]}) "
            f"or of the result ({plan.width}x{plan.height})"
        )
    frames = (
        video.frames if video.num_frames == 1 or video.fps == plan.fps else video.resampled(plan.fps).frames
    )
    length, first = laid.stop - laid.first, round(place.first_s * plan.fps)
    if len(frames) != 1 and len(frames) < length:
        raise RequestError(
            f"the mask has {len(frames)} frames at {plan.fps:g} fps and {length} are to be edited: use a picture or a longer one"
        )
    if len(frames) > length:  # a mask of the whole clip, of which a span is edited
        frames = frames[first : first + length] if len(frames) >= first + length else frames[:length]
    mask = fit_mask(frames, plan.width, plan.height, place.fit)
    if not mask.any():
        raise RequestError(
            "the mask is black everywhere, so nothing would change: white is where the clip may change"
        )
    return mask


def _to_grid(masks: np.ndarray, plan: Plan, vae: VAE, place: Place) -> Tensor:
    """Which latents (lh, lw) hold a pixel of `masks` (f, h, w): all that do for what is made anew, only whole ones for what is kept."""
    space = vae.config.spatial_factor
    top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
    bottom, right = plan.canvas_height - plan.height - top, plan.canvas_width - plan.width - left
    together = masks.any(axis=0) if place.strength > 0 else masks.all(axis=0)
    padded = np.pad(together, ((top, bottom), (left, right)), mode="edge")
    return (
        reduce(
            torch.from_numpy(padded).float(),
            "(h p) (w q) -> h w",
            "max" if place.strength > 0 else "min",
            p=space,
            q=space,
        )
        > 0
    )


def on_canvas(frames: np.ndarray, plan: Plan) -> Float[Tensor, "1 3 f h w"]:
    """Pixels of the result's size on the larger canvas, in [-1, 1]; the border repeats the outermost pixels."""
    top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
    bottom, right = plan.canvas_height - plan.height - top, plan.canvas_width - plan.width - left
    return from_uint8([np.pad(frames, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")])


def _outside(mask: np.ndarray) -> np.ndarray:
    """How much is kept around and at the border of `mask` (h, w): all of it outside, none of it `FEATHER_PX` inside."""
    depth = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.clip(1 - depth / (FEATHER_PX + 1), 0, 1).astype(np.float32)


def _reflected(index: int, last: int) -> int:
    """`index` reflected into 0 ... `last`."""
    if last == 0:
        return 0
    place = index % (2 * last)
    return min(place, 2 * last - place)
