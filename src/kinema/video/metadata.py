"""Text metadata inside files: the keys and values that every container preserves."""

import json
import re
from collections.abc import Mapping

from kinema.errors import VideoError

KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Written or interpreted by the containers themselves.
CONTAINER_KEYS = frozenset(
    {
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
        "creation_time",
        "timecode",
        "language",
        "duration",
    }
)


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """`metadata` as a dict. Raises `VideoError` for a key or value that some container changes or drops.

    Keys are lower case letters, digits and underscores (Matroska folds case); values are text, not empty and
    without NUL.
    """
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not KEY.fullmatch(key) or key in CONTAINER_KEYS:
            raise VideoError(
                f"metadata key {key!r} cannot be written: use at most 64 lower case letters, digits and "
                f"underscores, and none of {', '.join(sorted(CONTAINER_KEYS))}"
            )
        if (
            not isinstance(value, str)
            or not value
            or "\0" in value
            or value.encode(errors="ignore").decode() != value
        ):
            raise VideoError(
                f"metadata '{key}' cannot be written: give it text, not empty and without NUL, not "
                f"{value!r:.60}"
            )
    return dict(metadata or {})


def from_container(tags: Mapping[str, str]) -> dict[str, str]:
    """The metadata among the `tags` of a container, keys in lower case, without those of the container."""
    return {key.lower(): value for key, value in tags.items() if key.lower() not in CONTAINER_KEYS}


def to_comment(metadata: Mapping[str, str]) -> bytes:
    """`metadata` as the one comment that a GIF has room for: JSON."""
    return json.dumps(dict(metadata), ensure_ascii=False).encode() if metadata else b""


def from_comment(comment: bytes) -> dict[str, str]:
    """The metadata in the comment of a GIF; a foreign comment is under the key "comment"."""
    text = comment.decode(errors="replace")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
        return found
    return {"comment": text} if text else {}
