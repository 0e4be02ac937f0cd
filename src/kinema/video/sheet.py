"""Contact sheets: frames of several videos in one image."""

import io
import lzma
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kinema.errors import VideoError
from kinema.video.video import Video

PAPER, INK = (255, 255, 255), (34, 34, 40)
GAP_PX = 3  # between the frames of one video
MARGIN_PX = 20  # around the page and between videos
TITLE_PX = 17
MAX_TITLE_LINES = 2
MISSING = "\U0010fffe"  # no character, so every face draws its mark for a missing glyph
CHINESE_FACE = (
    Path(__file__).parent / "assets" / "chinese.ttf.xz"
)  # Droid Sans Fallback, tools/make_title_font.py


def contact_sheet(
    videos: Sequence[Video],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 1,
    frames_per_video: int = 8,
    cell_height_px: int = 128,
) -> np.ndarray:
    """An image, uint8 (h, w, 3): for every video its title above a strip of at most `frames_per_video`
    frames, evenly spaced.

    Frames are scaled to `cell_height_px`; the videos may differ in size, length and rate. A title takes at
    most two lines; it may be Chinese. Characters without a glyph become "?", and a title without any glyph
    "video N". Raises `VideoError` without videos, or if the number of titles differs.
    """
    if not videos:
        raise VideoError("a contact sheet needs at least one video")
    if titles is not None and len(titles) != len(videos):
        raise VideoError(f"a contact sheet needs one title per video; got {len(titles)} for {len(videos)}")
    if min(columns, frames_per_video, cell_height_px) < 1:
        raise VideoError(
            f"columns={columns}, frames_per_video={frames_per_video}, cell_height_px={cell_height_px}: "
            "each must be 1 or more"
        )
    columns = min(columns, len(videos))
    strips = [_strip(video, frames_per_video, cell_height_px) for video in videos]
    widths = [max(strip.width for strip in strips[column::columns]) for column in range(columns)]
    lines = [
        _title_lines(title, f"video {index + 1}", widths[index % columns])
        for index, title in enumerate(titles or [])
    ]
    face_height_px = TITLE_PX + 6
    rows = range(0, len(videos), columns)
    titles_px = [
        max((len(wrapped) for wrapped in lines[row : row + columns]), default=0) * face_height_px
        for row in rows
    ]
    tops = [
        MARGIN_PX + sum(titles_px[:row]) + row * (cell_height_px + MARGIN_PX) for row in range(len(rows) + 1)
    ]
    page = Image.new("RGB", (sum(widths) + MARGIN_PX * (columns + 1), tops[-1]), PAPER)
    draw = ImageDraw.Draw(page)
    for index, strip in enumerate(strips):
        row, column = divmod(index, columns)
        left = MARGIN_PX + sum(widths[:column]) + MARGIN_PX * column
        top, title_px = tops[row], titles_px[row]
        if lines:
            wrapped = lines[index]
            first = top + title_px - face_height_px * len(wrapped)  # a short title stays close to its strip
            for line_index, line in enumerate(wrapped):
                _draw_line(draw, line, left, first + line_index * face_height_px)
        page.paste(strip, (left, top + title_px))
    return np.asarray(page).copy()


def _strip(video: Video, num_frames: int, height_px: int) -> Image.Image:
    indices = np.linspace(0, video.num_frames - 1, min(num_frames, video.num_frames)).round().astype(int)
    width_px = max(1, round(video.width * height_px / video.height))
    strip = Image.new("RGB", (len(indices) * (width_px + GAP_PX) - GAP_PX, height_px), PAPER)
    for position, index in enumerate(indices):
        picture = Image.fromarray(np.ascontiguousarray(video.frames[index]))
        strip.paste(
            picture.resize((width_px, height_px), Image.Resampling.LANCZOS),
            (position * (width_px + GAP_PX), 0),
        )
    return strip


def _title_lines(title: str, instead: str, width_px: int) -> list[str]:
    """`title` broken into lines of at most `width_px`; a long title ends in an ellipsis.

    `instead` replaces a title without any glyph.
    """
    title = " ".join(title.split())
    lost = {character for character in title if not character.isspace() and _face(character) is None}
    if any(character.isalnum() and character not in lost for character in title):
        rest = "".join("?" if character in lost else character for character in title)
    else:
        rest = instead

    lines = list[str]()
    while rest and len(lines) < MAX_TITLE_LINES:
        is_last = len(lines) == MAX_TITLE_LINES - 1
        end = len(rest)
        while end > 1 and _width(rest[:end] + ("..." if is_last and end < len(rest) else "")) > width_px:
            end -= 1
        if end < len(rest) and not is_last and " " in rest[1:end]:
            end = rest.rindex(" ", 1, end)
        lines.append(rest[:end].strip() + ("..." if is_last and end < len(rest) else ""))
        rest = rest[end:].strip()
    return lines


def _draw_line(draw: ImageDraw.ImageDraw, line: str, left: float, top: int) -> None:
    """Draw a line of a title; every character on the same baseline in the first face that has it."""
    baseline = top + _faces()[0].getmetrics()[0]
    for face, run in _runs(line):
        draw.text((left, baseline), run, fill=INK, font=face, anchor="ls")
        left += face.getlength(run)


def _width(line: str) -> float:
    return sum(face.getlength(run) for face, run in _runs(line))


def _runs(line: str) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """The parts of a line that one face draws."""
    for face, characters in groupby(line, lambda character: _face(character) or _faces()[0]):
        yield face, "".join(characters)


@cache
def _faces() -> tuple[ImageFont.FreeTypeFont, ImageFont.FreeTypeFont]:
    """Pillow's own face, and the Chinese one."""
    latin = ImageFont.load_default(TITLE_PX)
    assert isinstance(latin, ImageFont.FreeTypeFont), "with a size, Pillow's default face is a FreeType face"
    chinese = io.BytesIO(lzma.decompress(CHINESE_FACE.read_bytes()))
    return latin, ImageFont.truetype(chinese, TITLE_PX)


@cache
def _face(character: str) -> ImageFont.FreeTypeFont | None:
    """The first face that has a glyph for `character`, or None."""
    return next((face for face in _faces() if _mask(character, face) != _mask(MISSING, face)), None)


def _mask(character: str, face: ImageFont.FreeTypeFont) -> tuple[bytes, tuple[int, int]]:
    mask = face.getmask(character)
    return bytes(mask), mask.size
