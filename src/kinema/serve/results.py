"""The files of a result: video, thumbnail, spritesheet, quality report and previews, stored under the job's
token."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from kinema.generation.output.quality import plot_quality
from kinema.generation.pipeline import Pipeline
from kinema.generation.result import Result
from kinema.models.pixels import to_uint8
from kinema.serve.blobs import Blobs
from kinema.serve.store.base import Claim
from kinema.video import png_bytes

SPRITES = 16
PREVIEW_SIDE = 256


def publish(result: Result, video: Path, claim: Claim, blobs: Blobs) -> dict[str, Any]:
    """The blobs and the report of a result, after its files were stored."""
    prefix = f"videos/{claim.id}/{claim.token}"
    frames = result.video.frames
    files: dict[str, bytes | Path] = {
        "video.mp4": video,
        "thumbnail.webp": _encoded(frames[len(frames) // 2], "WEBP"),
        "spritesheet.jpg": _encoded(spritesheet(frames), "JPEG"),
    }
    report = dict(result.report)
    if "windows" in report:
        files["drift.json"] = json.dumps(report).encode()
        files["drift.png"] = png_bytes(plot_quality(report))
    for name, content in files.items():
        blobs.put(f"{prefix}/{name}", content)

    request = result.plan.request
    return {
        "files": {name: f"{prefix}/{name}" for name in files},
        "model_hash": result.model_hash,
        "prompt": request.prompt,
        "original_prompt": request.original_prompt,
        "similarity": result.similarity,
        "run_s": round(result.seconds, 3),
        "notes": [*result.notes, *result.warnings],
        "words": result.prompt.text,
        "width": result.plan.width,
        "height": result.plan.height,
        "frames": result.plan.frames,
        "fps": result.plan.fps,
    }


def spritesheet(frames: np.ndarray) -> np.ndarray:
    """Up to `SPRITES` frames, evenly spaced, in a grid read by rows."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(len(frames), SPRITES)).round().astype(int)]
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    _, height, width, _ = chosen.shape
    sheet = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for index, frame in enumerate(chosen):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = frame
    return sheet


def preview(pipeline: Pipeline, x0: Tensor) -> bytes:
    """An animated WebP of the present estimate of the latents (c, lf, lh, lw)."""
    vae = pipeline.vae
    chunks = vae.stream_decode([vae.denormalise(x0.unsqueeze(0))], clamp=True)
    pictures = [Image.fromarray(frame) for chunk in chunks for frame in to_uint8(chunk[0])]
    for picture in pictures:
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    file = io.BytesIO()
    duration_ms = round(1000 / pipeline.manifest.fps)
    pictures[0].save(
        file, "WEBP", save_all=True, append_images=pictures[1:], duration=duration_ms, loop=0, quality=60
    )
    return file.getvalue()


def _encoded(frame: np.ndarray, format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format, quality=85)
    return file.getvalue()
