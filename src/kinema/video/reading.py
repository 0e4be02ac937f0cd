"""Any video file as frames at a constant rate."""

import logging
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from kinema.errors import VideoError
from kinema.video import pyav
from kinema.video.metadata import from_container
from kinema.video.pictures import STILL_FPS, flatten, num_frames, open_picture, picture_metadata, timed_frames

if TYPE_CHECKING:
    import av

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Not in the list: playlists (hls, dash, concat), which open other files and addresses, and tty, which renders
# any text as video.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,live_flv,asf,ogg,h264,hevc,obu,av1,ivf,m4v,"
    "mpegvideo,mjpeg,mxf,gxf,nut,rm,dv,yuv4mpegpipe,wtv,swf,avif"
)
MAX_DECLARED_FPS = (
    240  # a higher "rate" is usually the clock of a browser's recording; the rate is measured instead
)
MAX_BYTES = 8 << 30  # frames in memory unless the caller gives max_frames
ROUNDING_S = 0.0105  # containers round times: Matroska to 1 ms, GIF to 10 ms
HD_HEIGHT_PX = 720  # from here on players take colours that carry no tag for BT.709, below for BT.601


@dataclass(frozen=True, eq=False)
class FileContent:
    """What is read from a file at once: frames, uint8 (f, h, w, 3), and their rate."""

    frames: np.ndarray
    fps: float
    source_fps: float
    """The file's own rate."""
    is_still: bool
    """Whether the file has one frame."""
    metadata: dict[str, str]


def read_file(
    path: Path, *, max_frames: int | None = None, fps: float | None = None, allow_damaged: bool = False
) -> FileContent:
    """The content of the file at `path`. See `Video.read`."""
    if max_frames is not None and max_frames < 1:
        raise VideoError(f"max_frames={max_frames} is too small: use 1 or more")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise VideoError(f"fps={fps} is not a valid rate: use a finite number above 0")
    with open_picture(checked_file(path)) as picture:
        if picture is not None:
            count = num_frames(picture)
            _check_memory(
                path, min(count, max_frames or count), picture.height * picture.width * 3, max_frames
            )
            metadata, timed = picture_metadata(picture), list(timed_frames(picture))
            source_fps = STILL_FPS if count == 1 else count / sum(duration_s for _, duration_s, _ in timed)
            rate = (fps or source_fps) if count > 1 else STILL_FPS
            frames = _collect(path, at_constant_rate(timed, rate, source_fps), max_frames)
            return FileContent(frames, fps or source_fps, source_fps, count == 1, metadata)
    with open_video(path) as (container, stream):
        declared = frame_rate(path, stream)
        damage = Damage(path, allow_damaged)
        timed_raw = decode_timed(container, stream, 1 / float(declared), damage)
        start = list(islice(timed_raw, 2))
        timed_raw = chain(start, timed_raw)
        pictures = _convert(at_constant_rate(timed_raw, fps or declared, declared), rotation_tag(stream))
        frames = _collect(path, pictures, max_frames)
        damage.report()
        metadata = from_container(container.metadata)
        return FileContent(frames, float(fps or declared), float(declared), len(start) == 1, metadata)


def read_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """The metadata in the file at `path`, as `Video.save` and `save_image` write it; empty if there is none.

    Keys are in lower case; those of the container itself ("encoder", "major_brand") are left out. Raises
    `VideoError` if the file is neither a video nor a picture.
    """
    source = checked_file(Path(path))
    with open_picture(source) as picture:
        if picture is not None:
            return picture_metadata(picture)
    with open_video(source) as (container, _):
        return from_container(container.metadata)


@contextmanager
def open_video(path: Path) -> "Iterator[tuple[av.container.InputContainer, av.VideoStream]]":
    """The open container at `path` and its first video stream. FFmpeg's errors become `VideoError`."""
    av = pyav.load()
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}
    try:
        with av.open(pyav.url(path), options=options, metadata_errors="replace") as container:
            streams = [stream for stream in container.streams.video if not _is_cover(stream)]
            if not streams:
                raise VideoError(f"cannot read {path}: it has no video, only {_kinds(container)}")
            if streams[0].codec_context is None:
                raise VideoError(
                    f"cannot read {path}: not a video, or damaged (no decoder for what it declares)"
                )
            yield container, streams[0]
    except av.FFmpegError as error:
        raise VideoError(f"cannot read {path}: not a video, or damaged ({error.strerror})") from error


def at_constant_rate(
    timed: Iterable[tuple[float, float, T]], fps: float | Fraction, source_fps: float | Fraction
) -> Iterator[T]:
    """The item to show at 0, 1/fps, 2/fps... from items with a start and a duration in seconds: the last one
    that has started.

    An item counts as started when it is at most `ROUNDING_S` late, or half an interval of the faster of the
    two rates if that is less. So a source of constant rate read at its own rate comes out unchanged. At least
    one item, and as many as the duration holds.
    """
    tolerance_s = min(ROUNDING_S, 0.5 / float(max(fps, source_fps)))
    start_s: float | None = None
    end_s = 0.0
    shown: list[T] = []  # the latest item, none before the first
    num_out = 0
    for time_s, duration_s, item in timed:
        start_s = time_s if start_s is None else start_s
        tick = math.ceil((time_s - start_s - tolerance_s) * float(fps) - 1e-6)
        for held in shown:
            while num_out < tick:
                yield held
                num_out += 1
        shown = [item]
        end_s = time_s - start_s + duration_s
    for held in shown:
        while num_out < max(1, round(end_s * float(fps))):
            yield held
            num_out += 1


def oriented(pixels: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """`pixels` (h, w, c) turned and mirrored as the 3x3 display `matrix` asks (ISO 14496-12, 8.2.2; quarter
    turns only).

    The matrix (a b u c d v x y w) takes the point (x, y), y down, to (a x + c y, b x + d y).
    """
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        to_x, to_y = a, d
    else:
        pixels = pixels.swapaxes(0, 1)
        to_x, to_y = c, b
    return pixels[:: -1 if to_y < 0 else 1, :: -1 if to_x < 0 else 1]


class Damage:
    """Collects the damage of a file: an error at once, or, if allowed, one log line at the end."""

    def __init__(self, path: Path, is_allowed: bool) -> None:
        self.path, self.is_allowed, self.found = path, is_allowed, list[str]()

    def add(self, what: str) -> None:
        """Record damage. Raises `VideoError` unless it is allowed."""
        if not self.is_allowed:
            raise VideoError(
                f"cannot read {self.path}: damaged ({what}); allow_damaged=True reads what is left"
            )
        self.found.append(what)

    def report(self) -> None:
        """Log a warning if there was damage."""
        if self.found:
            logger.warning("%s is damaged in %d places; first: %s", self.path, len(self.found), self.found[0])


def checked_file(path: Path) -> Path:
    """`path`. Raises `VideoError` unless it is a readable, regular file that is not empty."""
    try:
        if path.is_dir():
            raise VideoError(f"cannot read {path}: it is a folder; give a file")
        if not path.exists():
            raise VideoError(f"cannot read {path}: there is no such file")
        if not path.is_file():
            raise VideoError(f"cannot read {path}: it is not a regular file")
        with path.open("rb") as file:
            if not file.read(1):
                raise VideoError(f"cannot read {path}: the file is empty (0 bytes)")
    except OSError as error:
        raise VideoError(f"cannot read {path}: {error.strerror}") from error
    return path


def _is_cover(stream: "av.VideoStream") -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _kinds(container: "av.container.InputContainer") -> str:
    return (
        " and ".join(sorted({stream.type for stream in container.streams if stream.type != "video"}))
        or "a cover picture"
    )


def frame_rate(path: Path, stream: "av.VideoStream") -> Fraction:
    """The declared rate of `stream`; if it is missing or implausible, the mean rate of its packets."""
    declared = stream.average_rate or stream.guessed_rate
    return declared if declared and declared <= MAX_DECLARED_FPS else _measured_rate(path)


def rotation_tag(stream: "av.VideoStream") -> str:
    """The clockwise rotation in degrees from the stream's metadata; "0" by default."""
    return next((value for key, value in stream.metadata.items() if key.lower() == "rotate"), "0")


def _measured_rate(path: Path) -> Fraction:
    """The mean rate of the packets of the file, from a pass that decodes nothing."""
    with open_video(path) as (container, stream):
        times = sorted({packet.pts for packet in container.demux(stream) if packet.pts is not None})
        if len(times) < 2 or not stream.time_base:
            return Fraction(STILL_FPS)
        return (len(times) - 1) / ((times[-1] - times[0]) * Fraction(stream.time_base))


def decode_timed(
    container: "av.container.InputContainer", stream: "av.VideoStream", interval_s: float, damage: Damage
) -> "Iterator[tuple[float, float, av.VideoFrame]]":
    """Start and duration in seconds and frame, in order of presentation. Losses and errors go to `damage`."""
    av = pyav.load()
    decoder = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in ("vp8", "vp9"):
        decoder = av.CodecContext.create(
            {"vp8": "libvpx", "vp9": "libvpx-vp9"}[decoder.name], "r"
        )  # FFmpeg's own drop the alpha
    decoder.thread_count = 1  # one per reader: parallel over files costs less than parallel within one
    time_base = float(stream.time_base or 0)
    next_s = 0.0
    num_packets = num_decoded = 0
    for packet in _packets(container, stream, damage):
        num_packets += packet is not None
        if packet is not None and packet.is_corrupt:
            damage.add(f"packet {num_packets} is incomplete")
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError as error:
            damage.add(f"packet {num_packets}: {error.strerror}")
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.add(f"frame {num_decoded} decodes with errors")
            time_s = (
                next_s
                if frame.pts is None
                else max(frame.pts * time_base, next_s - interval_s if num_decoded else -math.inf)
            )
            duration_s = frame.duration * time_base if frame.duration else interval_s
            next_s = time_s + interval_s
            num_decoded += 1
            yield time_s, duration_s, frame
    if stream.frames > num_packets:
        damage.add(f"{stream.frames - num_packets} of {stream.frames} frames are missing")
    if container.format.name.startswith("matroska") and (missing := _missing_matroska_bytes(damage.path)):
        damage.add(f"the last {missing} bytes are missing")
    if not num_decoded:
        raise VideoError(f"cannot read {damage.path}: it holds no frame")


def _packets(
    container: "av.container.InputContainer", stream: "av.VideoStream", damage: Damage
) -> "Iterator[av.Packet | None]":
    """The packets of `stream`, then None, which flushes the decoder."""
    av = pyav.load()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            damage.add(f"the file ends early: {error.strerror}")
            packet = None
        if packet is None:
            break
        if packet.size:
            yield packet
    yield None


def _missing_matroska_bytes(path: Path) -> int:
    """How many bytes the file lacks of the declared size of its first segment (RFC 9559, section 4.5).

    FFmpeg reads a truncated Matroska file without an error.
    """

    def number(at: int, keep_marker: bool) -> tuple[int, int]:
        width = 9 - head[at].bit_length()
        value = int.from_bytes(head[at : at + width], "big")
        unknown = (1 << 7 * width) - 1
        value = value if keep_marker else value & unknown
        return (-1 if not keep_marker and value == unknown else value), at + width

    with path.open("rb") as file:
        head = file.read(4096)
    try:
        size, at = number(number(0, True)[1], False)
        element, at = number(at + size, True)
        size, at = number(at, False)
    except IndexError:
        return 0
    return max(0, at + size - path.stat().st_size) if element == 0x18538067 and size >= 0 else 0


def _convert(frames: "Iterable[av.VideoFrame]", rotate_tag: str) -> Iterator[np.ndarray]:
    """Upright RGB pixels (h, w, 3) of every frame; a repeated frame is converted once."""
    before: tuple[object, np.ndarray] | None = None
    for frame in frames:
        if before is None or before[0] is not frame:
            before = frame, upright(frame, rotate_tag)
        yield before[1]


def upright(frame: "av.VideoFrame", rotate_tag: str, max_side: int | None = None) -> np.ndarray:
    """Upright RGB pixels (h, w, 3) of a frame, shrunk by area so that no side exceeds `max_side`."""
    pixels = _rgb(frame, max_side)
    side_data = cast("Mapping[str, bytes]", frame.side_data)
    if "DISPLAYMATRIX" in side_data:
        return oriented(pixels, struct.unpack("=9i", bytes(side_data["DISPLAYMATRIX"])))
    quarter_turns = round(float(rotate_tag) / 90) if rotate_tag.lstrip("-").isdigit() else 0
    return np.rot90(pixels, -quarter_turns)  # the tag says how far to turn clockwise


def _rgb(frame: "av.VideoFrame", max_side: int | None) -> np.ndarray:
    is_yuv = not frame.format.is_rgb and not frame.format.has_palette
    is_untagged_hd = is_yuv and frame.colorspace == pyav.UNSPECIFIED and frame.height >= HD_HEIGHT_PX
    is_transparent = frame.format.has_palette or any(
        component.is_alpha for component in frame.format.components
    )
    is_shrunk = max_side is not None and max(frame.width, frame.height) > max_side
    shrunk = max_side / max(frame.width, frame.height) if max_side is not None and is_shrunk else 1.0
    plain = frame.reformat(
        width=max(1, round(frame.width * shrunk)),
        height=max(1, round(frame.height * shrunk)),
        format="rgba" if is_transparent else "rgb24",
        src_colorspace=pyav.BT709 if is_untagged_hd else None,
        interpolation=pyav.AREA if is_shrunk else pyav.ACCURATE,
    ).to_ndarray()
    return flatten(plain) if is_transparent else plain


def _check_memory(path: Path, count: int, frame_bytes: int, max_frames: int | None) -> None:
    if max_frames is None and count * frame_bytes > MAX_BYTES:
        raise VideoError(
            f"cannot read {path} whole: its frames take more than {MAX_BYTES >> 30} GiB; read a part "
            "with max_frames"
        )


def _collect(path: Path, pictures: Iterator[np.ndarray], max_frames: int | None) -> np.ndarray:
    frames: list[np.ndarray] = []
    for picture in pictures:
        if frames and picture.shape != frames[0].shape:
            sizes = " to ".join(f"{shape[1]}x{shape[0]}" for shape in (frames[0].shape, picture.shape))
            raise VideoError(f"cannot read {path}: its size changes from {sizes} at frame {len(frames)}")
        frames.append(picture)
        _check_memory(path, len(frames), picture.nbytes, max_frames)
        if len(frames) == max_frames:
            break
    return np.stack(frames)
