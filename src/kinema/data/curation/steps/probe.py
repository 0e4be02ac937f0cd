"""Step 1: identify each file by the hash of its bytes and by its header."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kinema.data.curation.context import BuildContext
from kinema.data.curation.engine import WorkItem
from kinema.data.curation.sources import InputFile
from kinema.data.dataset import SourceRow
from kinema.files import content_key, sha256_of
from kinema.video.scanning import read_header

KIND = "probe"
"""Folder of the stored results."""
DEADLINE_S = 20.0
"""Deadline for the header, to which hashing adds a second for every `HASHED_BYTES_PER_S` bytes."""
HASHED_BYTES_PER_S = 20e6


def fingerprint(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """SHA-256, size and header of the file at arguments["path"]. Raises `VideoError` if it is not a video."""
    path = Path(arguments["path"])
    header = read_header(path)
    return {"sha256": sha256_of(path), "size_bytes": path.stat().st_size, **asdict(header)}


def probe_files(context: BuildContext, files: Sequence[InputFile]) -> list[SourceRow]:
    """One row per file, in the order of `files`. Files with the bytes of an earlier one, and small ones, are
    dropped.
    """
    items = {file.name: _item(file) for file in files}
    outcomes = context.run_stored("probe", KIND, fingerprint, list(items.values()), stores_failures=False)

    rows: list[SourceRow] = []
    name_of: dict[str, str] = {}  # of the first file with a hash
    min_side = context.recipe.filters.min_side
    for file in files:
        outcome = outcomes[items[file.name].key]
        row = _row(file, outcome.result or {}, context.recipe.licence)
        if outcome.result is None:
            row = row.quarantined(outcome.reason)
        elif row.sha256 in name_of:
            row = row.dropped(f"same bytes as another file: {name_of[row.sha256]}")
        else:
            name_of[row.sha256] = file.name
            side = min(row.width, row.height)
            if side < min_side:
                row = row.dropped(f"too small: shorter side of {side} pixels, at least {min_side}")
        rows.append(row)
    return rows


def _item(file: InputFile) -> WorkItem:
    """The work item of a file. Its key depends on path, size and times, so an unchanged file is not hashed
    again.
    """
    try:
        stat = file.path.stat()
    except OSError:
        size, key = 0, content_key([str(file.path), "unreadable"])
    else:
        identity = [str(file.path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        size, key = stat.st_size, content_key(identity)
    return WorkItem(key, {"path": str(file.path)}, DEADLINE_S + size / HASHED_BYTES_PER_S)


def _row(file: InputFile, result: Mapping[str, Any], licence: str) -> SourceRow:
    """The row of a file with the `result` of `fingerprint`, which is empty if it failed."""
    sha256 = str(result.get("sha256", ""))
    return SourceRow(
        source_id=(sha256 or content_key([file.name]))[:16],
        name=file.name,
        path=str(file.path),
        sha256=sha256,
        size_bytes=int(result.get("size_bytes", 0)),
        container=str(result.get("container", "")),
        codec=str(result.get("codec", "")),
        pixel_format=str(result.get("pixel_format", "")),
        width=int(result.get("width", 0)),
        height=int(result.get("height", 0)),
        num_frames=int(result.get("num_frames", 0)),
        fps=float(result.get("fps", 0)),
        duration_s=float(result.get("duration_s", 0)),
        licence=file.licence or licence,
        verdict="used",
        reason="",
    )
