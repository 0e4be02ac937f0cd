"""From the task of a request and its files to a checked `Request` with its clips.

Files come from strangers, so a child process of limited memory and time decodes them:
`python -m kinema.serve.intake` reads an `Intake` as JSON and prints what `check` found. Neither side imports
torch.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinema import config
from kinema.checkpoints.manifest import Manifest
from kinema.config import to_dict
from kinema.errors import KinemaError, RequestError, VideoError
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.clips import InputClip, read_input
from kinema.generation.conditioning.tasks import Shot, TaskRequest
from kinema.generation.output.provenance import provenance_in
from kinema.generation.plan import nearest_size
from kinema.generation.request import Request
from kinema.serve.models import ServedModel
from kinema.video import Video, save_image
from kinema.video.scanning import read_header

log = logging.getLogger(__name__)

CONTAINERS = {"png", "jpeg", "webp", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
"""Formats that are accepted, as their readers name them."""
MAX_BYTES = 2 << 30
"""Decoded frames of one file."""
KEEP_SIZE = ("extend", "connect", "loop", "edit")
"""Tasks whose result has the size of the first clip, unless the request names one."""
MEMORY_BYTES = 6 << 30
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Intake:
    """A task: its kind, the fields of its request, what only this kind has, and its files by their role."""

    kind: str
    fields: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """A request that its model can fulfil, and the files of its clips by content hash."""

    request: Request
    inputs: Mapping[str, str] = field(default_factory=dict)


def build(intake: Intake, clips: Mapping[str, Video], fps: float) -> TaskRequest:
    """The request of a task with its decoded clips. Raises the errors of the tasks."""
    request = config.from_dict(Request, {"prompt": "", **intake.fields})
    params = dict(intake.params)
    match intake.kind:
        case "picture":  # the first picture of a clip, as the library keeps it
            picture = Video(next(iter(clips.values())).frames[:1], 1.0)
            return tasks.pictures(replace(request, prompt="-"), first=picture)
        case "generate" if not clips:
            return TaskRequest(request, {})
        case "generate":
            moments = {
                role.removeprefix("at "): clip for role, clip in clips.items() if role.startswith("at ")
            }
            keyframes = [(float(at_s), clip) for at_s, clip in moments.items()]
            first, last = clips.get("first"), clips.get("last")
            return tasks.pictures(request, first=first, last=last, keyframes=keyframes, **params)
        case "extend":
            return tasks.extend(request, clips["clip"], fps=fps, **params)
        case "connect":
            return tasks.connect(request, clips["first"], clips["second"], fps=fps, **params)
        case "loop":
            return tasks.loop(request, clips.get("clip"), fps=fps, **params)
        case "edit":
            return tasks.edit(request, clips["clip"], mask=clips.get("mask"), fps=fps, **params)
        case _:
            entries = params.pop("shots")
            shots = [Shot(entry["at"], entry.get("prompt"), clips.get(f"shot {i}")) for i, entry in entries]
            return tasks.storyboard(request, shots, fps=fps, **params)


def check(intake: Intake, model: ServedModel, out: Path) -> Checked:
    """The request with every default filled in; its clips are written to `out`. Raises `KinemaError`."""
    clips = {role: read_upload(Path(file), model.manifest.fps) for role, file in intake.media.items()}
    if not intake.fields.get("prompt") and intake.kind != "storyboard":
        intake = replace(intake, fields={**intake.fields, "prompt": _stored_prompt(clips.values())})
    videos = {role: clip.video for role, clip in clips.items()}
    if intake.kind in KEEP_SIZE and videos and "width" not in intake.fields:
        size = _size_of(next(iter(videos.values())), model.manifest)
        intake = replace(intake, fields={**intake.fields, **size})
    request, inputs = build(intake, videos, model.manifest.fps)
    plan = model.plan(request)
    if intake.kind == "picture":
        picture = save_image(out / "picture.png", next(iter(inputs.values())).frames[0])
        return Checked(plan.request, {"picture": str(picture)})
    return Checked(plan.request, {media: str(write_clip(out, media, clip)) for media, clip in inputs.items()})


def read_upload(path: Path, fps: float) -> InputClip:
    """The clip or picture in a file of an accepted format. Raises `VideoError`."""
    try:
        header = read_header(path)
        if header.container not in CONTAINERS:
            raise VideoError(f"a file of the format {header.container}: use PNG, JPEG, WebP, MP4 or WebM")
        frame_bytes = 3 * header.width * header.height
        if frame_bytes * max(1, header.num_frames) > MAX_BYTES:
            raise VideoError(f"{header.num_frames} frames of {header.width}x{header.height} are too many")
        if Video.read(path, max_frames=MAX_BYTES // frame_bytes).num_frames == MAX_BYTES // frame_bytes:
            raise VideoError(f"frames of {header.width}x{header.height} without an end")
        return read_input(path, fps)
    except VideoError as error:  # a path of this machine is not the caller's business
        raise VideoError(
            str(error).replace(f"cannot read {path}: ", "").replace(str(path), "the file")
        ) from None


def _size_of(clip: Video, manifest: Manifest) -> dict[str, int]:
    """Width and height of a clip, or the nearest that the model was trained with."""
    height, width = clip.frames.shape[1:3]
    sides = (width, height)
    if not manifest.min_side <= min(sides) or not max(sides) <= manifest.max_side:
        width, height = nearest_size(width, height, manifest)
    return {"width": width, "height": height}


def _stored_prompt(clips: Iterable[InputClip]) -> str:
    """The first prompt in the metadata of the clips, or ""."""
    found = [provenance_in(clip.metadata, clip.name) for clip in clips]
    return next((values["request"]["prompt"] for values in found if values), "")


def write_clip(folder: Path, media: str, clip: Video) -> Path:
    """A file of a clip, bit for bit, which no decoder of foreign formats reads again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{media}.npz"
    np.savez_compressed(path, frames=clip.frames, fps=np.float64(clip.fps))
    return path


def load_clip(path: Path) -> Video:
    """The clip that `write_clip` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return Video(stored["frames"], float(stored["fps"]))


async def check_apart(intake: Intake, model: ServedModel, out: Path) -> Checked:
    """`check` in a child process. Raises `RequestError` with the child's reason, or that it took too long."""
    text = json.dumps(
        {"intake": asdict(intake), "manifest": to_dict(model.manifest), "out": str(out)}
        | {"name": model.name, "temporal_factor": model.temporal_factor, "memory": MEMORY_BYTES}
    )
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kinema.serve.intake"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        answer, told = await asyncio.wait_for(child.communicate(text.encode()), DEADLINE_S)
    except TimeoutError:
        raise RequestError(f"the files took more than {DEADLINE_S:g} s to decode: use smaller ones") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode or not answer:
        log.warning("files not decoded: %s", told[-500:].decode(errors="replace").strip().splitlines()[-1:])
        raise RequestError("the files could not be decoded within the memory of a request: use smaller ones")
    values = json.loads(answer)
    if "error" in values:
        raise RequestError(values["error"])
    return Checked(Request.from_json(values["request"]), values["inputs"])


def main() -> int:
    """Check the intake on standard input, and print the result, or the error, as JSON."""
    values = json.load(sys.stdin)
    _limit_memory(values["memory"])
    manifest = config.from_dict(Manifest, values["manifest"])
    model = ServedModel(values["name"], "", manifest, values["temporal_factor"])
    try:
        found = check(Intake(**values["intake"]), model, Path(values["out"]))
    except (KinemaError, MemoryError) as error:
        print(json.dumps({"error": str(error) or "out of memory: use smaller files"}))
        return 0
    print(json.dumps({"request": found.request.to_json(), "inputs": dict(found.inputs)}))
    return 0


def _limit_memory(num_bytes: int) -> None:
    """Limit the address space, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
