"""The work on one file: plain functions from a task to a result, both of plain values, that run in a child process.

What goes wrong with the file is a `KinemaError` or an `OSError`; the engine turns it into a reason. Nothing is written here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kinema.config import from_dict
from kinema.data.curation import plug_ins
from kinema.data.curation.cuts import BLACK, Look, in_shots
from kinema.data.curation.recipe import DataRecipe
from kinema.data.curation.scores import score
from kinema.errors import VideoError
from kinema.files import sha256_of
from kinema.video.reading import at_constant_rate
from kinema.video.scanning import read_header, read_spans, scan

Task = Mapping[str, Any]
Result = dict[str, Any]

LOOK_VERSION = 2
"""Rises when `look` would answer differently to the same question, so that what is stored is not taken for it."""
SEE_VERSION = 1
ENCODE_VERSION = 1


def fingerprint(task: Task) -> Result:
    """What the file at task["path"] is: SHA-256 and size of its bytes, and what its header says."""
    path = Path(task["path"])
    header = read_header(path)
    return {"sha256": sha256_of(path), "size_bytes": path.stat().st_size, **asdict(header)}


def look(task: Task) -> Result:
    """The clips of the file at task["path"], from one pass over its frames: {"height", "width", "num_frames", "clips": [rows]}.

    A row has the shot's number, start_s and end_s, the frames in between, and the scores. task["recipe"] is a `DataRecipe` as a table.
    """
    recipe = from_dict(DataRecipe, task["recipe"])
    rows, num_frames, last = [], 0, None
    for shot, part, next_s in _parts(
        in_shots(scan(Path(task["path"]), max_side=recipe.side), recipe.cuts), recipe
    ):
        num_frames += len(part)
        last = part[-1].frame
        if shot != BLACK:
            rows.append({"shot": shot, **_row(part, next_s, recipe.clips.fps)})
    if last is None:
        raise VideoError(f"cannot read {task['path']}: it holds no frame")
    return {"height": last.height, "width": last.width, "num_frames": num_frames, "clips": rows}


def _parts(looks: Iterator[tuple[int, Look]], recipe: DataRecipe) -> Iterator[tuple[int, list[Look], float]]:
    """Shots cut into runs of frames that last at most as long as the longest clip, and when the next frame begins.

    Of a run only the grey planes are held.
    """
    longest_s = recipe.clips.max_frames / recipe.clips.fps
    part: list[Look] = []
    current = BLACK
    for shot, full in looks:
        frame = full.frame
        light = Look(
            type(frame)(frame.time_s, frame.duration_s, frame.pixels[:0], frame.height, frame.width),
            full.hsv[:0],
            full.grey,
        )
        if part and (
            shot != current or frame.time_s - part[0].frame.time_s > longest_s - 0.5 * frame.duration_s
        ):
            yield current, part, frame.time_s
            part = []
        current = shot
        part.append(light)
    if part:
        yield current, part, float("inf")


def _row(part: list[Look], next_s: float, fps: float) -> Result:
    """A run of frames with its scores, which are taken at `fps` or at the source's rate where that is lower."""
    start_s = part[0].frame.time_s
    end_s = min(
        part[-1].frame.time_s + part[-1].frame.duration_s, next_s
    )  # what a file says of durations may overlap
    duration_s = max(end_s - start_s, 1e-6)
    timed = [(item.frame.time_s, item.frame.duration_s, item.grey) for item in part]
    rate = min(fps, len(part) / duration_s)
    greys = list(at_constant_rate(timed, rate, len(part) / duration_s))
    row = asdict(score(greys, 1 / rate))
    return {
        "start_s": start_s,
        "end_s": end_s,
        "num_source_frames": len(part),
        "source_fps": round(len(part) / duration_s, 4),
        **row,
    }


def see(task: Task) -> Result:
    """What a CLIP and a recipe's own scorers say of some clips of the file at task["path"]: {clip_id: {"embedding", "scores"}}.

    task["clips"] are rows as for `encode`; task["clip"] is a CLIP's folder, or None, and task["scorers"] are functions by name. They see
    the clip at its rate, inside its borders, no side longer than task["side"].
    """
    import torch

    from kinema.models.pixels import from_uint8

    clips = task["clips"]

    def shrink(index: int, pixels: np.ndarray) -> np.ndarray:
        box = clips[index]["box"]
        scale = min(1.0, task["side"] / max(box[2:]))
        return fitted(pixels, box, max(1, round(box[2] * scale)), max(1, round(box[3] * scale)))

    spans = [(clip["start_s"], clip["end_s"]) for clip in clips]
    result: Result = {}
    for clip, frames in zip(clips, read_spans(Path(task["path"]), spans, shrink), strict=True):
        timed = [(frame.time_s, frame.duration_s, frame.pixels) for frame in frames]
        shown = np.stack(list(at_constant_rate(timed, clip["fps"], clip["source_fps"]))[: clip["num_frames"]])
        embedding: list[float] = []
        if task["clip"] is not None:
            with torch.no_grad(), one_thread():
                embedding = _clip(task["clip"]).encode_video(from_uint8([shown]))[0].tolist()
        scores = {
            name: round(plug_ins.measure(function, shown), 6) for name, function in task["scorers"].items()
        }
        result[clip["clip_id"]] = {"embedding": [round(value, 6) for value in embedding], "scores": scores}
    return result


def encode(task: Task) -> Result:
    """Normalised latents of some clips of the file at task["path"]: {clip_id: float16 (z, lf, lh, lw) array}.

    task["clips"] are rows in rising order of start_s with box (top, left, height, width in pixels), height, width, num_frames and fps;
    task["vae"] is a VAE's folder and task["device"] where it runs. A clip is encoded alone, so that it is the same bytes in every build.
    """
    import torch

    from kinema.device import pick_device
    from kinema.models.pixels import from_uint8
    from kinema.models.vae_conditioning import encode_conditioning

    device = pick_device(task["device"])
    vae = _vae(task["vae"]).to(device)
    result: Result = {}
    for clip, shown in shown_clips(task):
        with torch.no_grad(), one_thread():
            latents = encode_conditioning(vae, from_uint8([shown]).to(device), starts_canvas=True)[0]
        if not torch.isfinite(latents).all():
            raise VideoError(
                f"cannot encode {task['path']} at {clip['start_s']:.3f} s: the VAE's latents are not finite"
            )
        result[clip["clip_id"]] = latents.half().cpu().numpy()
    return result


def shown_clips(task: Task) -> Iterator[tuple[Mapping[str, Any], np.ndarray]]:
    """The rows of task["clips"], in rising order of start_s, each with its frames at its own size and rate, uint8 (f, h, w, 3)."""
    clips = task["clips"]

    def shrink(index: int, pixels: np.ndarray) -> np.ndarray:
        return fitted(pixels, clips[index]["box"], clips[index]["height"], clips[index]["width"])

    spans = [(clip["start_s"], clip["end_s"]) for clip in clips]
    for clip, frames in zip(clips, read_spans(Path(task["path"]), spans, shrink), strict=True):
        if len(frames) != clip["num_source_frames"]:
            raise VideoError(
                f"cannot read {task['path']}: {len(frames)} frames from {clip['start_s']:.3f} s to {clip['end_s']:.3f} s, "
                f"where there were {clip['num_source_frames']} before"
            )
        timed = [(frame.time_s, frame.duration_s, frame.pixels) for frame in frames]
        shown = list(at_constant_rate(timed, clip["fps"], clip["source_fps"]))[: clip["num_frames"]]
        shown += shown[-1:] * (clip["num_frames"] - len(shown))  # rounding may leave the last tick out
        yield clip, np.stack(shown)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread, so that sums are the same however many processes run; as it was, afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _vae(folder: str) -> Any:
    """The VAE of a folder, once a process."""
    from kinema.checkpoints.folders import load_vae

    return load_vae(Path(folder)).eval().requires_grad_(False)


@cache
def _clip(folder: str) -> Any:
    """The CLIP of a folder, once a process."""
    from kinema.checkpoints.folders import load_clip

    return load_clip(Path(folder)).eval().requires_grad_(False)


def fitted(pixels: np.ndarray, box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """The box (top, left, height, width) of a frame, resized by area to cover (height, width), and the middle of that."""
    top, left, box_height, box_width = box
    inner = pixels[top : top + box_height, left : left + box_width]
    scale = max(height / box_height, width / box_width)
    size = max(height, round(box_height * scale)), max(width, round(box_width * scale))
    if size != inner.shape[:2]:
        inner = cv2.resize(
            np.ascontiguousarray(inner),
            size[::-1],
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
        )
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    return np.ascontiguousarray(inner[y : y + height, x : x + width])
