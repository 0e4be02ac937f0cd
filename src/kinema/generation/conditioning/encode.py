"""Encoding of a request's clips: from pixels to a canvas for the sampler, and the pixels that the result
keeps.

request and inputs -> EncodedConditions
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from einops import reduce
from torch import Tensor

from kinema.diffusion.canvas import Canvas
from kinema.errors import RequestError
from kinema.generation.conditioning.clips import Inputs, find_input
from kinema.generation.conditioning.layout import PlacedClip, frames_of
from kinema.generation.plan import Plan
from kinema.models.autoencoder import Autoencoder
from kinema.models.pixels import from_uint8
from kinema.models.vae_conditioning import encode_conditioning
from kinema.shapes import Bool, Float, UInt8
from kinema.video import Video
from kinema.video.resize import describe_fit, fit_mask, fit_pixels

FEATHER_PX = 4
"""Width of the transition inside an edited region to the kept pixels around it."""


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """Pixels (h, w, 3) that a frame of the result takes from an input, and their weight: 1 keeps them bit for
    bit, 0 ignores them.

    The weight is one number, or one per pixel (h, w).
    """

    pixels: np.ndarray
    weight: float | np.ndarray = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the whole frame is the input's."""
        return not isinstance(self.weight, np.ndarray) and self.weight == 1


@dataclass(frozen=True, eq=False)
class EncodedConditions:
    """The canvas of a request, and by frame of the result the pixels of the inputs that it keeps."""

    canvas: Canvas
    kept: dict[int, KeptFrame] = field(default_factory=dict)

    @property
    def pictures(self) -> list[np.ndarray]:
        """The kept frames in order, for a model whose pictures enter in channels beside the latents."""
        return [self.kept[frame].pixels for frame in sorted(self.kept)]


@torch.no_grad()
def encode_conditions(
    plan: Plan, inputs: Inputs, vae: Autoencoder, device: torch.device
) -> EncodedConditions:
    """The canvas of `plan` with its conditions encoded in their order, and the pixels to keep.

    Raises `RequestError` for an input that is missing or too short, a mask that does not fit, and a kept clip
    that does not fill one latent frame.
    """
    canvas = empty_canvas(plan, vae, device)
    kept: dict[int, KeptFrame] = {}
    for clip in plan.layout.clips:
        _check_length(plan, clip)
        source = _ClipFrames(plan, clip, inputs)
        canvas = _encode_latents(canvas, plan, source, vae)
        _update_kept(kept, plan, source)
    return EncodedConditions(canvas, kept)


@torch.no_grad()
def kept_pixels(plan: Plan, inputs: Inputs) -> dict[int, KeptFrame]:
    """The pixels that the result keeps, by frame; nothing is encoded. Raises as `encode_conditions` does."""
    kept: dict[int, KeptFrame] = {}
    for clip in plan.layout.clips:
        _check_length(plan, clip)
        _update_kept(kept, plan, _ClipFrames(plan, clip, inputs))
    return kept


def empty_canvas(plan: Plan, vae: Autoencoder, device: torch.device) -> Canvas:
    """The canvas of `plan` without conditions."""
    space = vae.config.spatial_factor
    grid = len(plan.layout.is_free), plan.canvas_height // space, plan.canvas_width // space
    return Canvas.empty((1, vae.config.z_dim, *grid), device=device)


def describe_inputs(plan: Plan, inputs: Inputs) -> list[str]:
    """A line for each input that describes how it was fitted. Raises `RequestError` for a missing one."""
    lines = []
    for media, condition in {condition.media: condition for condition in plan.request.conditions}.items():
        video = find_input(inputs, media)
        is_still = condition.seconds is None
        lines.append(describe_fit(video, plan.width, plan.height, plan.fps, condition.fit, is_still=is_still))
    return lines


def on_canvas(frames: UInt8[np.ndarray, "f h w 3"], plan: Plan) -> Float[Tensor, "1 3 f h2 w2"]:
    """Frames of the result's size on the larger canvas, in [-1, 1]; the outermost pixels are repeated."""
    vertical, horizontal = _margins(plan)
    return from_uint8([np.pad(frames, ((0, 0), vertical, horizontal, (0, 0)), mode="edge")])


def _margins(plan: Plan) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels of the canvas above and below the result, and left and right of it."""
    top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
    bottom, right = plan.canvas_height - plan.height - top, plan.canvas_width - plan.width - left
    return (top, bottom), (left, right)


def _check_length(plan: Plan, clip: PlacedClip) -> None:
    """Raise `RequestError` for a kept clip that does not fill one latent frame."""
    if not clip.latents and clip.condition.strength == 0 and clip.condition.seconds is not None:
        factor = plan.temporal_factor
        raise RequestError(
            f"a clip of {clip.stop - clip.first} frames is shorter than one latent and cannot be kept at "
            f"{(clip.first - plan.canvas_first) / plan.fps:g} s: use {factor / plan.fps:g} s or more "
            f"({factor} frames at {plan.fps:g} fps), or a picture"
        )


class _ClipFrames:
    """The frames of a placed clip at the plan's rate and size, and its mask, by frame of the canvas."""

    def __init__(self, plan: Plan, clip: PlacedClip, inputs: Inputs) -> None:
        self.clip, self.plan, condition = clip, plan, clip.condition
        video = find_input(inputs, condition.media)
        self.frames = video.frames if condition.seconds is None else _frames_at(video, plan.fps)
        self.first = round(condition.first_s * plan.fps)
        needed = self.first + clip.stop - clip.first
        if needed > len(self.frames):
            raise RequestError(
                f"frames {self.first} to {needed - 1} of a clip are used, which has {len(self.frames)} at "
                f"{plan.fps:g} fps: use a longer clip, or less of it"
            )
        self.mask = _mask(plan, clip, inputs, video.frames.shape[1:3])

    def pixels(self, frames: Sequence[int]) -> np.ndarray:
        """Fitted pixels (n, h, w, 3) of frames of the canvas. The clip is mirrored at its ends."""
        last = len(self.frames) - 1
        indices = [_mirrored(self.first + frame - self.clip.first, last) for frame in frames]
        return fit_pixels(self.frames[indices], self.plan.width, self.plan.height, self.clip.condition.fit)

    def mask_at(self, frame: int) -> np.ndarray | None:
        """Where the condition applies at a frame of the canvas, (h, w) booleans. None: everywhere."""
        if self.mask is None:
            return None
        return self.mask[min(max(frame - self.clip.first, 0), len(self.mask) - 1)]


def _encode_latents(canvas: Canvas, plan: Plan, source: _ClipFrames, vae: Autoencoder) -> Canvas:
    """`canvas` with the latents of a clip."""
    clip, factor = source.clip, plan.temporal_factor
    if not clip.latents:
        return canvas

    frames = [frame for latent in clip.latents for frame in frames_of(latent, factor)]
    video = on_canvas(source.pixels(frames), plan).to(canvas.clean.device)
    encoded = encode_conditioning(vae, video, starts_canvas=clip.latents[0] == 0)
    clean = canvas.clean.clone()
    clean[:, :, clip.latents[0] : clip.latents[-1] + 1] = encoded.to(clean)

    where = torch.zeros_like(canvas.known)
    if source.mask is None:
        where[:, :, clip.latents[0] : clip.latents[-1] + 1] = True
    else:
        for latent in clip.latents:
            masks = [source.mask_at(frame) for frame in frames_of(latent, factor)]
            stacked = np.stack([mask for mask in masks if mask is not None])
            where[:, :, latent] = _to_grid(stacked, plan, vae, is_edited=clip.condition.strength > 0)
    return canvas.paint(clean, where, start=clip.condition.strength)


def _update_kept(kept: dict[int, KeptFrame], plan: Plan, source: _ClipFrames) -> None:
    """Add a kept clip's pixels to `kept`, by frame of the result, or remove those an edited clip covers."""
    clip, offset = source.clip, plan.canvas_first
    frames = range(clip.first, clip.stop)
    if clip.condition.strength > 0:
        for frame in frames:
            mask, earlier = source.mask_at(frame), kept.get(frame - offset)
            if mask is None:
                kept.pop(frame - offset, None)
            elif earlier is not None:
                kept[frame - offset] = KeptFrame(earlier.pixels, earlier.weight * _outside(mask))
        return

    filled = {frame for latent in clip.latents for frame in frames_of(latent, plan.temporal_factor)}
    for frame, pixels in zip(frames, source.pixels(frames)):
        mask = source.mask_at(frame)
        if mask is not None:
            kept[frame - offset] = KeptFrame(pixels, mask.astype(np.float32))
        elif frame in filled or clip.condition.seconds is None:
            kept[frame - offset] = KeptFrame(pixels)
        else:
            # The clip fills only a part of this frame's latent, which is generated: fade from the clip to it.
            distance = min(abs(frame - other) for other in filled)
            is_before = frame < min(filled)
            fade = min(filled) - clip.first if is_before else clip.stop - 1 - max(filled)
            kept[frame - offset] = KeptFrame(pixels, 1 - distance / (fade + 1))


def _mask(plan: Plan, clip: PlacedClip, inputs: Inputs, size: tuple[int, int]) -> np.ndarray | None:
    """The mask of a clip of `size` (h, w): booleans (1 or its frames, h, w). None: it is not limited."""
    condition = clip.condition
    if condition.region is not None:
        x, y, w, h = condition.region
        mask = np.zeros((1, plan.height, plan.width), bool)
        mask[:, y : y + h, x : x + w] = True
        return mask
    if condition.mask is None:
        return None

    video = find_input(inputs, condition.mask)
    if (video.height, video.width) not in (tuple(size), (plan.height, plan.width)):
        raise RequestError(
            f"the mask has {video.width}x{video.height} pixels: it must have the size of the clip "
            f"({size[1]}x{size[0]}) or of the result ({plan.width}x{plan.height})"
        )

    frames = _mask_frames(plan, clip, video)
    mask = fit_mask(frames, plan.width, plan.height, condition.fit)
    if not mask.any():
        raise RequestError(
            "the mask is black everywhere, so nothing would change: paint the area that may change white"
        )
    return mask


def _mask_frames(plan: Plan, clip: PlacedClip, video: Video) -> np.ndarray:
    """The frames of a mask: one, or one for each frame of the clip."""
    frames = video.frames if video.num_frames == 1 else _frames_at(video, plan.fps)
    length, first = clip.stop - clip.first, round(clip.condition.first_s * plan.fps)
    if len(frames) != 1 and len(frames) < length:
        raise RequestError(
            f"the mask has {len(frames)} frames at {plan.fps:g} fps and {length} frames are edited: "
            f"use a picture or a longer clip"
        )
    if len(frames) > length:  # a mask of the whole clip, of which a part is edited
        return frames[first : first + length] if len(frames) >= first + length else frames[:length]
    return frames


def _frames_at(video: Video, fps: float) -> np.ndarray:
    """The frames of a clip at a rate."""
    return video.frames if video.fps == fps else video.resampled(fps).frames


def _to_grid(masks: np.ndarray, plan: Plan, vae: Autoencoder, *, is_edited: bool) -> Bool[Tensor, "lh lw"]:
    """Latents that are edited if any pixel of `masks` (f, h, w) is white, or kept if all are."""
    merged = masks.any(axis=0) if is_edited else masks.all(axis=0)
    padded = torch.from_numpy(np.pad(merged, _margins(plan), mode="edge")).float()
    space = vae.config.spatial_factor
    return reduce(padded, "(h p) (w q) -> h w", "max" if is_edited else "min", p=space, q=space) > 0


def _outside(mask: np.ndarray) -> np.ndarray:
    """Weights (h, w) of kept pixels: 1 outside `mask`, falling to 0 at `FEATHER_PX` inside."""
    padded = np.pad(mask, 1, mode="edge").astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.clip(1 - depth / (FEATHER_PX + 1), 0, 1).astype(np.float32)


def _mirrored(index: int, last: int) -> int:
    """`index` mirrored into 0 ... `last`."""
    if last == 0:
        return 0
    phase = index % (2 * last)
    return min(phase, 2 * last - phase)
