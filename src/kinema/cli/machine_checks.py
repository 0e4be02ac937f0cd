"""The checks of `kinema doctor` that import torch: device, arithmetic, attention, video, shipped model."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kinema.checkpoints.manifest import load_manifest, model_hash, verify_hashes
from kinema.checkpoints.shipped import shipped_model
from kinema.cli.doctor import FAIL, OK, Finding
from kinema.device import available, describe_device, has_fast_bf16, pick_device
from kinema.models.pixels import frames_psnr
from kinema.nn.attention import attend
from kinema.video import Video

MIN_PSNR_DB = 25.0
"""Smallest PSNR of a clip that was written and read back."""


def device() -> Finding:
    """The device that is used by default, tested by a matrix product."""
    here = pick_device()
    ones = torch.ones(64, 64, device=here)
    if (ones @ ones).sum().item() != 64**3:
        return FAIL, f"{describe_device(here)} multiplies matrices wrongly"
    return OK, f"{describe_device(here)} (available: {', '.join(available())})"


def arithmetic() -> Finding:
    """Whether bfloat16 is fast on the device."""
    if has_fast_bf16(pick_device()):
        return OK, "bfloat16 is fast here and used where it is safe"
    return OK, "bfloat16 is emulated here, so float32 is used"


def attention() -> Finding:
    """Compares the package's attention with an explicit softmax."""
    q, k, v = torch.randn(3, 24, 2, 16, generator=torch.Generator().manual_seed(0)).to(pick_device())
    weights = torch.einsum("nkd,mkd->knm", q, k).div(16**0.5).softmax(-1)
    error = (attend(q, k, v, (24,), (24,)) - torch.einsum("knm,mkd->nkd", weights, v)).abs().max().item()
    name = "PyTorch's scaled_dot_product_attention"
    return (OK, name) if error < 1e-2 else (FAIL, f"{name} is off by {error:.2g}")


def video() -> Finding:
    """Writes a clip as mp4 and reads it back."""
    f, h, w = np.ogrid[:9, :64, :64]
    frames = (
        np.stack([(4 * h + 0 * w + 8 * f), (4 * w + 0 * h + 0 * f), 128 + 0 * (f + h + w)], axis=-1)
        .clip(0, 255)
        .astype(np.uint8)
    )
    with tempfile.TemporaryDirectory() as folder:
        read = Video.read(Video(frames, fps=8.0).save(Path(folder) / "clip.mp4"))
    if read.frames.shape != frames.shape:
        return FAIL, f"wrote {frames.shape} (f, h, w, 3), read {read.frames.shape}"
    psnr_db = frames_psnr(read.frames, frames)
    line = f"9 frames written as mp4 and read back at {psnr_db:.0f} dB"
    return (OK, line) if psnr_db >= MIN_PSNR_DB else (FAIL, line)


def model() -> Finding:
    """Verifies the hashes of the model in the package."""
    num_files = verify_hashes(shipped_model())
    return (
        OK,
        f"{load_manifest(shipped_model()).name} {model_hash(shipped_model())}, "
        f"{num_files} files as they were written",
    )


MACHINE_CHECKS: dict[str, Callable[[], Finding]] = {
    "device": device,
    "arithmetic": arithmetic,
    "attention": attention,
    "video": video,
    "model": model,
}
