"""Step 3: the rows of the clips, with the size at which each is encoded, and the filters."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kinema.data.curation.context import BuildContext
from kinema.data.curation.dedup import ClipSignature
from kinema.data.curation.filters import drop_reason
from kinema.data.curation.recipe import ClipSettings
from kinema.data.curation.scores import Box
from kinema.data.curation.sources import InputFile
from kinema.data.curation.steps.analyze import Analysis
from kinema.data.dataset import ClipRow, SourceRow
from kinema.files import content_key

COPIED = (
    "start_s",
    "end_s",
    "num_source_frames",
    "source_fps",
    "brightness",
    "contrast",
    "sharpness",
    "motion",
    "border",
    "hash",
    "shot",
)
"""Columns of a clip that are values of its analysis."""


class PixelBox(NamedTuple):
    """A rectangle in pixels of the upright source."""

    top: int
    left: int
    height: int
    width: int


def cut_clips(
    context: BuildContext,
    sources: Sequence[SourceRow],
    analyses: Mapping[str, Analysis],
    files: Sequence[InputFile],
) -> tuple[list[ClipRow], dict[str, ClipSignature]]:
    """One row per clip of the used files, kept or dropped by the filters, and the signature of each by
    clip_id.
    """
    by_name = {file.name: file for file in files}
    clips: list[ClipRow] = []
    signatures: dict[str, ClipSignature] = {}

    for source in sources:
        if source.verdict != "used":
            continue
        for values in analyses[source.source_id]["clips"]:
            clip = _row(context, source, values, by_name[source.name])
            reason = drop_reason(clip, context.recipe)
            clips.append(clip.dropped(reason) if reason else clip)

            shot = f"{source.source_id}/{values['shot']}"
            signatures[clip.clip_id] = ClipSignature(clip.clip_id, shot, values["hash"], values["thumbnails"])

    return clips, signatures


def _row(context: BuildContext, source: SourceRow, values: Mapping[str, Any], file: InputFile) -> ClipRow:
    """The row of a kept clip, with its size and length as the VAE gets it (0 if nothing fits)."""
    settings, vae = context.recipe.clips, context.vae
    inside = values["box"] if settings.borders == "crop" else (0.0, 0.0, 1.0, 1.0)
    box = pixel_box(inside, source.height, source.width, context.recipe.side)
    height, width = target_size(box.height, box.width, settings, vae.multiple)

    duration_s = values["end_s"] - values["start_s"]
    is_still = source.num_frames == 1
    num_frames = 1 if is_still else target_frames(duration_s, settings, vae.config.temporal_factor)
    captions = file.captions_of(values["start_s"], values["end_s"])

    return ClipRow(
        clip_id=content_key([source.sha256, values["start_s"], values["end_s"]])[:16],
        source_id=source.source_id,
        name=source.name,
        licence=source.licence,
        is_still=is_still,
        **{name: values[name] for name in COPIED},
        source_height=source.height,
        source_width=source.width,
        box_top=box.top,
        box_left=box.left,
        box_height=box.height,
        box_width=box.width,
        height=height,
        width=width,
        num_frames=num_frames,
        fps=settings.fps,
        captions=json.dumps(captions, ensure_ascii=False, sort_keys=True),
        verdict="kept",
        reason="",
    )


def pixel_box(box: Box, height: int, width: int, side: int) -> PixelBox:
    """The box (top, left, bottom, right as shares) of a source of `height` x `width`, in whole pixels inside
    the shares.

    The shares were measured on frames of at most `side` pixels. Where a border is cut off, the edge moves
    inwards by one pixel of those frames, because that pixel may be half border.
    """
    top, left, bottom, right = box
    slack = 1 / min(side, max(height, width))
    first_row = _ceil((top + slack * (top > 0)) * height)
    first_column = _ceil((left + slack * (left > 0)) * width)
    end_row = _floor((bottom - slack * (bottom < 1)) * height)
    end_column = _floor((right - slack * (right < 1)) * width)
    return PixelBox(first_row, first_column, max(1, end_row - first_row), max(1, end_column - first_column))


def _ceil(pixels: float) -> int:
    """`pixels` rounded up. An excess below 1/1000 pixel is a rounding error of the share and is ignored."""
    return math.ceil(int(pixels * 1000) / 1000)


def _floor(pixels: float) -> int:
    """`pixels` rounded down. A deficit below 1e-6 pixel is a rounding error of the share and is ignored."""
    return int(pixels + 1e-6)


def target_size(height: int, width: int, settings: ClipSettings, multiple: int) -> tuple[int, int]:
    """Height and width at which a clip of `height` x `width` pixels is encoded; (0, 0) if no size fits.

    Both are multiples of `multiple` and at most the clip's own. Without `crop`, the size whose area is near
    `area` and whose shape is nearest to the clip's.
    """
    if settings.crop is not None:
        sides = settings.crop[0] // multiple * multiple, settings.crop[1] // multiple * multiple
        return sides if sides[0] <= height and sides[1] <= width and min(sides) else (0, 0)

    scale = min(1.0, (settings.area / (height * width)) ** 0.5)
    rows = min(max(1, round(height * scale / multiple)), height // multiple)
    columns = min(max(1, round(width * scale / multiple)), width // multiple)
    return (rows * multiple, columns * multiple) if rows and columns else (0, 0)


def target_frames(duration_s: float, settings: ClipSettings, temporal_factor: int) -> int:
    """The largest number of frames of the form 4k+1 that `duration_s` holds at the recipe's rate.

    At most `max_frames`; 0 if it is below `min_frames`. The 4 is the VAE's `temporal_factor`.
    """
    count = min(settings.max_frames, int(duration_s * settings.fps + 0.5))
    count = (count - 1) // temporal_factor * temporal_factor + 1 if count else 0
    return count if count >= settings.min_frames else 0
