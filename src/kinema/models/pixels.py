"""Pixels: uint8 (f, h, w, 3) in files, float in [-1, 1] (c, f, h, w) in networks; and their PSNR."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinema.shapes import Float


def to_uint8(video: Float[Tensor, "3 f h w"]) -> np.ndarray:
    """Pixels 0 to 255 (f, h, w, 3) from pixels in [-1, 1]. Values outside are clipped."""
    pixels = (
        rearrange(video, "c f h w -> f h w c").float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    )
    return pixels.cpu().numpy()


def from_uint8(clips: Sequence[np.ndarray]) -> Float[Tensor, "b 3 f h w"]:
    """Pixels in [-1, 1] from uint8 clips (f, h, w, 3) of one size."""
    return rearrange(torch.from_numpy(np.stack(clips)), "b f h w c -> b c f h w").float().div_(127.5).sub_(1)


def psnr(a: Tensor, b: Tensor, *, peak: float = 2.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, at most 100. `peak` is the range of the values, 2 for [-1, 1]."""
    error = (a - b).square().mean()
    return 10 * torch.log10(peak**2 / error.clamp_min(1e-10 * peak**2))


def frames_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of uint8 pixels of any shape, at most 100."""
    return psnr(torch.from_numpy(a).double(), torch.from_numpy(b).double(), peak=255).item()
