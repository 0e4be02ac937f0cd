"""Contact sheets: frames of several videos in one image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kinema.errors import VideoError
from kinema.video.video import Video

PAPER, INK = (255, 255, 255), (34, 34, 40)
GAP_PX = 3  # between the frames of one video
MARGIN_PX = 20  # around the page and between videos
TITLE_PX = 17
MAX_TITLE_LINES = 2
# Faces with Chinese glyphs on common systems; Pillow's own face, which is always there, has none.
CHINESE_FACES = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "msyh.ttc",
)

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
    most two lines. Characters without a glyph on this machine become "?"; a title without any glyph becomes
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
        max((len(wrapped) for wrapped, _ in lines[row : row + columns]), default=0) * face_height_px
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
            wrapped, face = lines[index]
            first = top + title_px - face_height_px * len(wrapped)  # a short title stays close to its strip
            for line_index, line in enumerate(wrapped):
                draw.text((left, first + line_index * face_height_px), line, fill=INK, font=face)
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


def _title_lines(title: str, instead: str, width_px: int) -> tuple[list[str], Face]:
    """`title` broken into lines of at most `width_px`, and the face that draws them; a long title ends in an
    ellipsis.

    `instead` replaces a title without any glyph.
    """
    title = " ".join(title.split())
    face = next((face for face in _faces(title) if not _missing(title, face)), None)
    if face is None:
        face = ImageFont.load_default(TITLE_PX)
        lost = _missing(title, face)
        is_lost = not any(character.isalnum() and character not in lost for character in title)
        title = (
            instead if is_lost else "".join("?" if character in lost else character for character in title)
        )
    lines, rest = list[str](), title
    while rest and len(lines) < MAX_TITLE_LINES:
        is_last = len(lines) == MAX_TITLE_LINES - 1
        end = len(rest)
        while (
            end > 1 and face.getlength(rest[:end] + ("..." if is_last and end < len(rest) else "")) > width_px
        ):
            end -= 1
        if end < len(rest) and not is_last and " " in rest[1:end]:
            end = rest.rindex(" ", 1, end)
        lines.append(rest[:end].strip() + ("..." if is_last and end < len(rest) else ""))
        rest = rest[end:].strip()
    return lines, face


def _faces(title: str) -> list[Face]:
    faces: list[Face] = [ImageFont.load_default(TITLE_PX)]
    for name in CHINESE_FACES if _missing(title, faces[0]) else ():
        try:
            faces.append(ImageFont.truetype(name, TITLE_PX))
        except OSError:  # not on this machine
            continue
    return faces


def _missing(text: str, face: Face) -> set[str]:
    """The characters of `text` for which `face` has no glyph."""
    box = _mask("\U0010fffe", face)
    return {
        character
        for character in set(text)
        if not character.isspace() and _mask(character, face) in (box, None)
    }


def _mask(character: str, face: Face) -> bytes | None:
    try:
        mask = face.getmask(character)
    except UnicodeEncodeError:  # Pillow's bitmap face knows Latin-1 only
        return None
    return bytes(mask) + repr(mask.size).encode()
