"""Metrics of a model's VAE and CLIP: reconstruction PSNR, caption retrieval and preference over foils."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinema.errors import VideoError
from kinema.evaluation.samples import FIRST_SEED, ClipFormat, true_clip
from kinema.models.autoencoder import Autoencoder
from kinema.models.clip import CLIP
from kinema.models.pixels import frames_psnr, from_uint8, to_uint8
from kinema.shapes import Float
from kinema.video import Video
from kinema.video.resize import fit_pixels
from kinema.worlds import World

GROUP_SIZE = 32
"""Clips, and so candidate captions, of one retrieval test."""


@torch.inference_mode()
def vae_round_trip(vae: Autoencoder, frames: np.ndarray) -> np.ndarray:
    """A clip, uint8 (f, h, w, 3), after encoding and decoding.

    Sizes and lengths that the VAE cannot encode are padded with edge pixels, and the result is cropped.
    """
    space, time = vae.config.spatial_factor, vae.config.temporal_factor
    f, h, w, _ = frames.shape
    padding = ((0, -(f - 1) % time), (0, -h % space), (0, -w % space), (0, 0))
    padded = np.pad(frames, padding, mode="edge")

    video = from_uint8([padded]).to(next(vae.parameters()).device)
    return to_uint8(vae.decode(vae.encode(video).mean)[0])[:f, :h, :w]


def vae_psnr(vae: Autoencoder, clips: Iterable[np.ndarray]) -> float:
    """Mean PSNR in dB of clips, uint8 (f, h, w, 3), after encoding and decoding."""
    return float(np.mean([frames_psnr(frames, vae_round_trip(vae, frames)) for frames in clips]))


def read_real_clip(file: Path, clip_format: ClipFormat) -> np.ndarray:
    """The first frames of a video file at the rate of `clip_format`, scaled and centre-cropped to its size.

    Returns uint8 (f, h, w, 3). Raises `VideoError` if the file has fewer frames at that rate.
    """
    num_frames = clip_format.num_frames
    video = Video.read(file, fps=clip_format.fps, max_frames=num_frames)
    if video.num_frames < num_frames:
        raise VideoError(
            f"{file} has {video.num_frames} frames at {clip_format.fps:g} fps; "
            f"at least {num_frames} are needed"
        )

    return fit_pixels(video.frames[:num_frames], clip_format.width, clip_format.height, "crop")


@dataclass(frozen=True, eq=False)
class CaptionedClips:
    """A group of clips with captions and foils.

    A foil is a caption that is wrong in one slot, and that slot's name."""

    video: Float[Tensor, "b 3 f h w"]
    captions: Sequence[str]
    foils: Sequence[tuple[str, str]]


@torch.inference_mode()
def clip_scores(clip: CLIP, groups: Iterable[CaptionedClips]) -> dict[str, float]:
    """Shares of clips whose own caption scores best in its group, and whose caption scores above its foil.

    Keys are `retrieval_of_32`, `foil` and, by slot, `foil_SLOT`. Pixels are in [-1, 1].
    """
    device = next(clip.parameters()).device
    retrieved: list[bool] = []
    preferred: dict[str, list[bool]] = {}

    for group in groups:
        video = clip.encode_video(group.video.to(device))
        texts = clip.encode_text(group.captions)[1]
        foil_texts = clip.encode_text([caption for caption, _ in group.foils])[1]

        nearest = (video @ texts.T).argmax(dim=1).cpu()
        retrieved += (nearest == torch.arange(len(video))).tolist()

        is_preferred = (video * texts).sum(dim=1) > (video * foil_texts).sum(dim=1)
        for (_, slot), answer in zip(group.foils, is_preferred.tolist()):
            preferred.setdefault(slot, []).append(answer)

    answers = [answer for slot in preferred.values() for answer in slot]
    by_slot = {f"foil_{slot}": sum(values) / len(values) for slot, values in sorted(preferred.items())}
    return {
        "retrieval_of_32": sum(retrieved) / len(retrieved),
        "foil": sum(answers) / len(answers),
        **by_slot,
    }


def rendered_groups(world: World, clip_format: ClipFormat, num_clips: int) -> Iterable[CaptionedClips]:
    """Rendered clips with medium captions and foils, in groups of 32.

    `num_clips` is rounded up to whole groups.
    """
    for start in range(0, num_clips, GROUP_SIZE):
        seeds = [FIRST_SEED["all"] + 10**6 + start + i for i in range(GROUP_SIZE)]
        clips = [true_clip(world, seed, clip_format) for seed in seeds]
        yield CaptionedClips(
            from_uint8([clip.frames for clip in clips]),
            [clip.captions["medium"] for clip in clips],
            [world.foil(clip, seed) for clip, seed in zip(clips, seeds)],
        )
