"""The figures of a model's other two networks: what its VAE keeps, and what its CLIP can tell apart."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from kinema.errors import VideoError
from kinema.evaluation.samples import FIRST_SEED, Shown, true_clip
from kinema.evaluation.trust import through
from kinema.models.clip import CLIP
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.video import Video
from kinema.worlds import Clip, StageWorld

GROUP = 32
"""Captions that a clip has to find its own among."""


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pixels; 100 when they are equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 100.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def vae_psnr(vae: VAE, clips: Sequence[np.ndarray], on_clip: Callable[[], None] = lambda: None) -> float:
    """Mean PSNR in dB of clips after encoding and decoding."""
    scores = []
    for frames in clips:
        scores.append(psnr(frames, through(vae, frames)))
        on_clip()
    return float(np.mean(scores))


def read_real_clip(file: Path, shown: Shown) -> np.ndarray:
    """The first frames of a video file at the model's rate: its middle, area-resized to the model's size.

    Raises `VideoError` when the file is shorter than that.
    """
    video = Video.read(file, fps=shown.fps, max_frames=shown.num_frames)
    if video.num_frames < shown.num_frames:
        raise VideoError(
            f"{file} has {video.num_frames} frames at {shown.fps:g} fps; at least {shown.num_frames} are needed"
        )
    scale = max(shown.height / video.height, shown.width / video.width)
    size = max(shown.width, round(video.width * scale)), max(shown.height, round(video.height * scale))
    frames = np.stack(
        [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video.frames[: shown.num_frames]]
    )
    top, left = (size[1] - shown.height) // 2, (size[0] - shown.width) // 2
    return frames[:, top : top + shown.height, left : left + shown.width]


@torch.inference_mode()
def clip_scores(clip: CLIP, world: StageWorld, shown: Shown, num_clips: int) -> dict[str, float]:
    """How often a rendered clip finds its caption among 32, and prefers it to a caption wrong in one slot, in all and by slot.

    `num_clips` is rounded up to whole groups of 32.
    """
    device = next(clip.parameters()).device
    retrieved: list[bool] = []
    right: dict[str, list[bool]] = {}
    for start in range(0, num_clips, GROUP):
        seeds = [FIRST_SEED["all"] + 10**6 + start + i for i in range(GROUP)]
        clips: list[Clip] = [true_clip(world, seed, shown) for seed in seeds]
        video = clip.encode_video(from_uint8([one.frames for one in clips]).to(device))
        captions, foils = (
            [one.captions["medium"] for one in clips],
            [world.foil(one, seed) for one, seed in zip(clips, seeds)],
        )
        texts, wrong = clip.encode_text(captions)[1], clip.encode_text([caption for caption, _ in foils])[1]
        retrieved += ((video @ texts.T).argmax(dim=1).cpu() == torch.arange(GROUP)).tolist()
        for (_, slot), better in zip(
            foils, ((video * texts).sum(dim=1) > (video * wrong).sum(dim=1)).tolist()
        ):
            right.setdefault(slot, []).append(better)
    every = [answer for answers in right.values() for answer in answers]
    by_slot = {f"foil_{slot}": sum(answers) / len(answers) for slot, answers in sorted(right.items())}
    return {
        "num": len(every),
        "retrieval_of_32": sum(retrieved) / len(retrieved),
        "foil": sum(every) / len(every),
        **by_slot,
    }
