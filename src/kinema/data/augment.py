"""Degradations that resemble those of models and codecs, for networks that must read imperfect clips."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.shapes import Float

MAX_BLUR_PX, MAX_SHRINK, MAX_NOISE, MAX_SHIFT = 1.6, 2.6, 0.12, 0.12


def degrade(video: Float[Tensor, "b c f h w"], generator: torch.Generator) -> Float[Tensor, "b c f h w"]:
    """Clips in [-1, 1] after some of: blur, resampling, mixing of neighbouring frames, fine and coarse noise,
    colour shift.

    Each clip draws its own degradations from `generator` (on the CPU). Motion and positions do not change.
    """
    return torch.stack([_degrade(clip, generator) for clip in video])


def _degrade(clip: Float[Tensor, "c f h w"], generator: torch.Generator) -> Tensor:
    def draw(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(clip.device)

    c, f, h, w = clip.shape
    frames = clip.transpose(0, 1)
    if draw(0, 1) < 0.5:
        if draw(0, 1) < 0.5:
            frames = blur(frames, draw(0.3, MAX_BLUR_PX))
        else:
            shrink = draw(1.2, MAX_SHRINK)
            small = F.interpolate(frames, size=(round(h / shrink), round(w / shrink)), mode="area")
            frames = F.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
    if draw(0, 1) < 0.35 and f > 1:
        share = draw(0.1, 0.35)
        before, after = frames[[0, *range(f - 1)]], frames[[*range(1, f), f - 1]]
        frames = (1 - share) * frames + share / 2 * (before + after)
    if draw(0, 1) < 0.5:
        blotches = F.interpolate(
            noise(f, c, max(2, h // 8), max(2, w // 8)), size=(h, w), mode="bilinear", align_corners=False
        )
        frames = frames + draw(0, MAX_NOISE) * blotches + draw(0, MAX_NOISE) * noise(f, c, h, w)
    if draw(0, 1) < 0.5:
        frames = frames * draw(0.8, 1.15) + MAX_SHIFT * (2 * torch.rand(c, generator=generator) - 1).to(
            clip.device
        ).view(c, 1, 1)
    return frames.transpose(0, 1).clamp(-1, 1)


def blur(frames: Float[Tensor, "f c h w"], sigma_px: float) -> Float[Tensor, "f c h w"]:
    """Frames after a Gaussian blur of standard deviation `sigma_px`; the borders are repeated."""
    reach = max(1, round(2.5 * sigma_px))
    offsets = torch.arange(-reach, reach + 1, dtype=frames.dtype, device=frames.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()

    c = frames.shape[1]
    padded = F.pad(frames, (reach, reach, reach, reach), mode="replicate")
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)
    return F.conv2d(across, kernel.view(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
