"""Rows of the store as replies."""

import json
import time
from collections.abc import Mapping
from typing import Any

from kinema.serve.api.schemas import JobError, Own, Video
from kinema.serve.store.base import COMPLETED, IN_PROGRESS, QUEUED

VARIANTS = {
    "video": "video.mp4",
    "thumbnail": "thumbnail.webp",
    "spritesheet": "spritesheet.jpg",
    "drift": "drift.json",
    "drift_plot": "drift.png",
}
"""File of a result by the `variant` of a download."""
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
}
FAST_POLL_S, FAST_MS, SLOW_MS = 20.0, 500, 2000
"""Jobs this young are asked for every `FAST_MS`, older ones every `SLOW_MS`."""


def video(row: Any) -> Video:
    """The video object of a row."""
    detail = json.loads(row.detail_json)
    result = json.loads(row.result_json) if row.result_json else {}
    error = JobError(code=row.error_code, message=row.error_message) if row.error_code else None
    return Video(
        id=row.id,
        model=row.shown_model,
        status=row.status,
        progress=row.progress,
        created_at=int(row.created),
        completed_at=None if row.completed is None else int(row.completed),
        expires_at=None if row.expires is None else int(row.expires),
        prompt=detail.get("asked_prompt", row.prompt),
        seconds=row.seconds,
        size=row.size,
        remixed_from_video_id=row.remixed_from,
        error=error,
        kinema=_own(row, detail, result),
    )


def _own(row: Any, detail: Mapping[str, Any], result: Mapping[str, Any]) -> Own:
    is_running = row.status == IN_PROGRESS
    files = result.get("files", {})
    expanded = result.get("prompt") if result.get("original_prompt") else None
    return Own(
        **{name: detail[name] for name in ("task", "seed", "width", "height", "frames", "fps", "steps")},
        guidance=detail["guidance"],
        sampler=detail["sampler"],
        adjusted=detail.get("adjusted", []),
        words=result.get("words") or detail.get("words") or None,
        expanded_prompt=expanded,
        phase=row.phase if is_running else None,
        step=row.step if is_running else None,
        total=row.total if is_running else None,
        has_preview=is_running and row.preview is not None,
        attempt=row.attempt,
        queue_s=None if row.started is None else round(max(0.0, row.started - row.created), 3),
        run_s=None if row.started is None or row.completed is None else round(row.completed - row.started, 3),
        similarity=result.get("similarity"),
        notes=[*result.get("notes", [])],
        variants=[variant for variant, file in VARIANTS.items() if file in files],
        source=detail.get("source"),
    )


def poll_after_ms(row: Any) -> int | None:
    """When a client is to ask for a job again; None for one that has ended."""
    if row.status not in (QUEUED, IN_PROGRESS):
        return None
    return FAST_MS if time.time() - row.created < FAST_POLL_S else SLOW_MS


def blob_of(row: Any, variant: str) -> str | None:
    """The blob of a variant of a job, or None if there is none (yet). The preview of a finished job is its
    thumbnail, so that a request that comes a moment too late has an answer."""
    if variant == "preview" and row.status == IN_PROGRESS:
        return str(row.preview) if row.preview else None
    if row.status != COMPLETED:
        return None
    files: dict[str, str] = json.loads(row.result_json)["files"]
    return files.get(VARIANTS["thumbnail" if variant == "preview" else variant])


def media_type(key: str) -> str:
    """The media type of a blob by its suffix."""
    return next(
        (kind for suffix, kind in MEDIA_TYPES.items() if key.endswith(suffix)), "application/octet-stream"
    )
