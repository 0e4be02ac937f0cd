"""The funnel of a build: how many files and clips remain after each step, and why the others do not."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kinema.data.dataset import ClipRow, Row, SourceRow


class FunnelRow(NamedTuple):
    """What remains after a step, and how many were removed in it by reason."""

    name: str
    num_left: int
    removed: Mapping[str, int]

    def removed_by_count(self) -> list[tuple[str, int]]:
        """(reason, number) by falling number."""
        return sorted(self.removed.items(), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class Funnel:
    """The rows of the funnel, in the order of the steps."""

    rows: tuple[FunnelRow, ...]

    def lines(self) -> list[str]:
        """The funnel as lines of text."""
        lines = []
        for row in self.rows:
            lines.append(f"{row.num_left:>8}  {row.name}")
            lines += [f"{-count:>8}    {reason}" for reason, count in row.removed_by_count()]
        return lines


def count_funnel(num_files: int, sources: Sequence[SourceRow], clips: Sequence[ClipRow]) -> Funnel:
    """The funnel of `num_files` input files from the rows of the finished steps."""
    used = [source for source in sources if source.verdict == "used"]
    quarantined = _reasons(source for source in sources if source.verdict == "quarantined")
    unusable = Counter({f"quarantined: {reason}": count for reason, count in quarantined.items()})
    repeated = _reasons(source for source in sources if source.verdict == "dropped")

    kept = [clip for clip in clips if clip.is_kept]
    dropped = _reasons(clip for clip in clips if clip.verdict == "dropped")
    num_captioned = sum(clip.captions != "{}" for clip in kept)
    num_written = sum(json.loads(clip.caption_log).get("used") == "written" for clip in kept)

    rows = [
        FunnelRow("files", num_files, {}),
        FunnelRow("files used", len(used), unusable + repeated),
        FunnelRow("clips in their shots", len(clips), {}),
        FunnelRow("clips kept", len(kept), dropped),
        FunnelRow("of them with a caption", num_captioned, _refused_captions(kept)),
    ]
    if num_written:
        rows.append(FunnelRow("of these written by a model", num_written, {}))
    return Funnel(tuple(rows))


def _reasons(rows: Iterable[Row]) -> Counter[str]:
    """How many rows have each reason, without the detail after a colon or in brackets."""
    return Counter(re.split(r"[:(]", row.reason)[0].strip() for row in rows)


def _refused_captions(clips: Sequence[ClipRow]) -> Counter[str]:
    """How many captions were refused for each reason, without its detail."""
    logs = [json.loads(clip.caption_log) for clip in clips]
    return Counter(
        f"refused: {reason.split(':')[0]}" for log in logs for reason in log.get("refused", {}).values()
    )
