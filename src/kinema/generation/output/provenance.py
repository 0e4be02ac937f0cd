"""Provenance of a video, embedded in its file, so that the same video can be generated again."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kinema.checkpoints.shipped import SHIPPED
from kinema.errors import VideoError
from kinema.generation.plan import Plan
from kinema.video import read_metadata

KEY = "kinema"


def package_version() -> str:
    """The version of the installed package, or "source" if it is not installed."""
    try:
        return version("kinema")
    except PackageNotFoundError:
        return "source"


def provenance(plan: Plan, *, model_name: str, model_hash: str) -> dict[str, Any]:
    """What is needed to generate the video of `plan` again, as plain JSON values.

    The model is identified by name and hash, never by a path, in the request too. The request alone therefore
    identifies only the shipped model.
    """
    request = plan.request.to_dict()
    if plan.request.model != SHIPPED:
        request["model"] = model_name
    return {
        "kinema": package_version(),
        "model": model_name,
        "model_hash": model_hash,
        "request": request,
        "size": [plan.width, plan.height],
        "frames": plan.frames,
        "fps": plan.fps,
        "canvas": {"size": [plan.canvas_width, plan.canvas_height], "frames": plan.canvas_frames},
    }


def metadata(values: dict[str, Any]) -> dict[str, str]:
    """The values of `provenance` as metadata of a video file: one entry `kinema`."""
    return {KEY: json.dumps(values, ensure_ascii=False, sort_keys=True)}


def read_provenance(path: Path) -> dict[str, Any] | None:
    """The values of `provenance` in a video file, or None. Raises `VideoError` for unreadable values."""
    return provenance_in(read_metadata(path), str(path))


def provenance_in(metadata: Mapping[str, str], file: str) -> dict[str, Any] | None:
    """The values of `provenance` in the metadata of `file`; see `read_provenance`."""
    text = metadata.get(KEY)
    if text is None:
        return None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise VideoError(f"{file}: its '{KEY}' entry is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise VideoError(f"{file}: its '{KEY}' entry is not a JSON object")
    return values
