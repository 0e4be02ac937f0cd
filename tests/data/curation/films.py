"""Small films whose cuts, motion and borders are known, and broken or odd files. `python
tests/data/curation/films.py FOLDER` makes all.
"""

import os
import shutil
import struct
import sys
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from kinema.video import Video, save_image

FPS = 16.0


def texture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A picture that wraps around, uint8 (h, w, 3), in colours of its own."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.random((6, 8, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    fine = rng.random((height, width, 1)).astype(np.float32)
    tint = np.roll(np.array([0.9, 0.55, 0.2], dtype=np.float32), seed % 3)
    return (255 * np.clip(tint * (0.75 * coarse + 0.25 * fine), 0, 1)).astype(np.uint8)


def shot(seed: int, num_frames: int, *, speed: int = 1, height: int = 96, width: int = 128) -> np.ndarray:
    """A texture that slides to the right by `speed` pixels a frame."""
    picture = texture(seed, height, width)
    return np.stack([np.roll(picture, speed * i, axis=1) for i in range(num_frames)])


def film(path: Path, *shots: np.ndarray, fps: float = FPS, **options: object) -> Path:
    """Shots one after the other in a file."""
    Video(np.concatenate(shots), fps).save(path, **options)  # type: ignore[arg-type]
    return path


def encoded(
    path: Path,
    frames: np.ndarray,
    codec: str,
    pixel_format: str,
    *,
    times: list[int] | None = None,
    **options: str,
) -> Path:
    """Frames through any encoder of PyAV, with time stamps in 1/16 s if they are given."""
    with av.open(str(path), "w") as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=16, options=options))
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixel_format
        stream.codec_context.time_base = Fraction(1, 16)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = (times[index] if times else index), Fraction(1, 16)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _good(path: Path) -> Path:
    return film(path, shot(1, 40))


def _cut_off(path: Path, share: float) -> None:
    _good(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _damaged(path: Path) -> None:
    _good(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 400
    data[at : at + 600] = os.urandom(600)
    path.write_bytes(data)


def _sound_only(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def _rotated(path: Path) -> None:
    """The display matrix of the track header turned by a quarter (ISO 14496-12, 8.3.2)."""
    _good(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def _size_changes(path: Path) -> None:
    parts = [path.with_suffix(f".{i}.ts") for i in range(2)]
    for part, size in zip(parts, ((96, 128), (64, 96))):
        encoded(part, shot(2, 24, height=size[0], width=size[1]), "mpeg2video", "yuv420p")
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def _unreadable(path: Path) -> None:
    _good(path)
    path.chmod(0)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _jumping_times(path: Path) -> None:
    encoded(path, shot(3, 40), "libx264", "yuv420p", times=[i if i < 20 else i + 1600 for i in range(40)])


ODD: dict[str, Callable[[Path], object]] = {
    "empty.mp4": lambda path: path.write_bytes(b""),
    "one_byte.mp4": lambda path: path.write_bytes(b"\0"),
    "noise.mp4": lambda path: path.write_bytes(os.urandom(5000)),
    "zeros.mkv": lambda path: path.write_bytes(bytes(5000)),
    "text.mp4": lambda path: path.write_text("this is no video\n" * 50),
    "page.webm": lambda path: path.write_text("<!doctype html><title>404 Not Found</title>"),
    "playlist.mp4": lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
    "header_only.mp4": lambda path: _cut_off(path, 0.02),
    "cut_off.mp4": lambda path: _cut_off(path, 0.6),
    "cut_off.mkv": lambda path: _cut_off(path, 0.5),
    "cut_off.webm": lambda path: _cut_off(path, 0.7),
    "damaged.mp4": _damaged,
    "sound_only.wav": _sound_only,
    "sound_named.mp4": _sound_only,
    "wrong_ending.avi": lambda path: shutil.move(_good(path.with_suffix(".mp4")), path),
    "no_ending": lambda path: shutil.move(_good(path.with_suffix(".mp4")), path),
    "rotated.mp4": _rotated,
    "odd_size.mkv": lambda path: film(path, shot(4, 40, height=97, width=131)),
    "ten_bit.mp4": lambda path: encoded(path, shot(5, 40), "libx264", "yuv420p10le"),
    "colour_444.mkv": lambda path: encoded(path, shot(6, 40), "libx264", "yuv444p"),
    "grey.mp4": lambda path: encoded(path, shot(7, 40), "libx264", "gray"),
    "varying_rate.mkv": lambda path: encoded(
        path, shot(8, 40), "libx264", "yuv420p", times=[i + i // 3 for i in range(40)]
    ),
    "jumping_times.mp4": _jumping_times,
    "size_changes.ts": _size_changes,
    "mpeg2.ts": lambda path: encoded(path, shot(9, 40), "mpeg2video", "yuv420p"),
    "mjpeg.avi": lambda path: encoded(path, shot(10, 40), "mjpeg", "yuvj420p"),
    "hevc.mp4": lambda path: encoded(
        path, shot(11, 40), "libx265", "yuv420p", times=None, **{"x265-params": "log-level=none"}
    ),
    "one_frame.mp4": lambda path: film(path, shot(12, 1)),
    "short.mp4": lambda path: film(path, shot(13, 8)),
    "tiny.mp4": lambda path: film(path, shot(14, 40, height=16, width=24)),
    "thin.mp4": lambda path: film(path, shot(15, 40, height=20, width=320)),
    "slow.mp4": lambda path: film(path, shot(16, 12), fps=2.0),
    "fast.mp4": lambda path: film(path, shot(17, 240), fps=120.0),
    "long.mp4": lambda path: film(path, *(shot(seed, 160) for seed in range(20, 30))),
    "black.mp4": lambda path: film(path, np.zeros((40, 96, 128, 3), dtype=np.uint8)),
    "white.mp4": lambda path: film(path, np.full((40, 96, 128, 3), 255, dtype=np.uint8)),
    "static.mp4": lambda path: film(path, shot(18, 40, speed=0)),
    "picture.png": lambda path: save_image(path, texture(19)),
    "animated.gif": lambda path: film(path, shot(3, 40)),
    "cut_off.png": lambda path: (save_image(path, texture(19)), path.write_bytes(path.read_bytes()[:900])),
    "unreadable.mp4": _unreadable,
    "pipe.mp4": _fifo,
    "folder.mp4": lambda path: path.mkdir(),
    "broken_link.mp4": lambda path: path.symlink_to("nowhere.mp4"),
    "strange: name %20 'ä' 文.mp4": _good,
    "same_bytes.mp4": _good,
}


def make(folder: Path, names: list[str] | None = None) -> list[Path]:
    """Makes the odd files called `names`, or all, and gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or list(ODD):
        ODD[name](folder / name)
    return [folder / name for name in names or list(ODD)]


if __name__ == "__main__":
    print("\n".join(map(str, make(Path(sys.argv[1])))))
