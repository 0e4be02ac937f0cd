import errno
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from kinema.errors import KinemaError, OutputError, UnknownName, VideoError
from kinema.video import Video, VideoWriter, contact_sheet, read_metadata, save_image
from kinema.video.reading import DEMUXERS, MAX_BYTES, at_constant_rate, oriented

METADATA = {
    "kinema": '{"prompt": "' + "a fox " * 5000 + '"}',
    "prompt": "一只红狐狸 runs",
    "title": "Fox",
    "seed": "7",
    "comment": "c",
}
VIDEO_ENDINGS = [".mp4", ".webm", ".mkv", ".gif"]


def smooth(num_frames=9, height=48, width=64, seed=0) -> np.ndarray:
    """Coloured frames without hard edges, which drift over time."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 8, width // 8 + num_frames, 3), dtype=np.uint8
    )
    wide = np.asarray(
        Image.fromarray(coarse).resize((width + 8 * num_frames, height), Image.Resampling.BICUBIC)
    )
    return np.stack([wide[:, 4 * index : 4 * index + width] for index in range(num_frames)])


def noise(num_frames=5, height=20, width=24, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def levels(*values: int, height=16, width=16) -> np.ndarray:
    """One grey frame per value."""
    return np.stack([np.full((height, width, 3), value, np.uint8) for value in values])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def encode(
    path,
    frames,
    *,
    codec="ffv1",
    pixel_format="bgr0",
    times_ms=None,
    rate=8,
    prepare=lambda stream: None,
    source="rgb24",
) -> Path:
    """A file as some other program would write it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        prepare(stream)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=source).reformat(
                format=pixel_format
            )
            frame.pts = times_ms[index] if times_ms else round(1000 * index / rate)
            frame.time_base = Fraction(1, 1000)
            if times_ms and index + 1 < len(frames):
                frame.duration = times_ms[index + 1] - times_ms[index]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# --- the value ---


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), 8.0),
        (np.zeros((4, 4, 3), np.uint8), 8.0),
        (np.zeros((2, 4, 4, 4), np.uint8), 8.0),
        (np.zeros((0, 4, 4, 3), np.uint8), 8.0),
        (np.zeros((2, 4, 4, 3), np.uint8), 0.0),
        (np.zeros((2, 4, 4, 3), np.uint8), float("nan")),
        ([[1]], 8.0),
    ],
)
def test_video_refuses_what_is_no_video(frames, fps):
    with pytest.raises(VideoError):
        Video(frames, fps)


def test_video_knows_its_sizes():
    video = Video(noise(6, 20, 24), 12.0)
    assert (video.num_frames, video.height, video.width, video.duration_s) == (6, 20, 24, 0.5)


# --- round trips ---


@pytest.mark.parametrize(
    ("ending", "lossless"), [(".mkv", False), (".mkv", True), (".mp4", True), (".webm", True)]
)
@pytest.mark.parametrize("size", [(20, 24), (21, 25), (1, 1)], ids=str)
def test_lossless_files_keep_every_bit(tmp_path, ending, lossless, size):
    video = Video(noise(5, *size), 12.5)
    back = Video.read(video.save(tmp_path / f"a{ending}", lossless=lossless))
    assert np.array_equal(back.frames, video.frames)
    assert back.fps == 12.5


@pytest.mark.parametrize(("ending", "floor_db"), [(".mp4", 38.0), (".webm", 38.0), (".gif", 25.0)])
def test_lossy_files_are_close(tmp_path, ending, floor_db):
    video = Video(smooth(), 8.0)
    back = Video.read(video.save(tmp_path / f"a{ending}"))
    assert back.frames.shape == video.frames.shape
    assert back.fps == pytest.approx(8.0, rel=0.01)
    assert psnr(back.frames, video.frames) > floor_db


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
@pytest.mark.parametrize("colour", [(200, 30, 60), (20, 160, 70), (30, 60, 220), (255, 255, 255), (0, 0, 0)])
def test_colours_do_not_shift(tmp_path, ending, colour):
    frames = np.broadcast_to(np.array(colour, np.uint8), (2, 32, 32, 3))
    back = Video.read(Video(frames, 8.0).save(tmp_path / f"a{ending}", quality=4))
    assert np.abs(back.frames.astype(int) - frames).max() <= 4


def test_quality_0_is_better_than_40(tmp_path):
    video = Video(smooth(), 8.0)
    good, bad = (Video.read(video.save(tmp_path / f"{quality}.mp4", quality=quality)) for quality in (0, 40))
    assert psnr(good.frames, video.frames) > psnr(bad.frames, video.frames) + 6


@pytest.mark.parametrize("fps", [1.0, 7.5, 24000 / 1001, 30.0, 48.0, 50.0])
@pytest.mark.parametrize("ending", VIDEO_ENDINGS)
def test_count_and_rate_survive(tmp_path, ending, fps):
    video = Video(levels(*range(0, 230, 10)), fps)
    back = Video.read(video.save(tmp_path / f"a{ending}"))
    assert back.num_frames == video.num_frames
    assert back.fps == pytest.approx(fps, rel=0.03 if ending == ".gif" else 1e-3)
    assert np.abs(back.frames[:, 8, 8].astype(int) - video.frames[:, 8, 8]).max() <= 4


def test_the_same_frames_make_the_same_bytes(tmp_path):
    video = Video(smooth(), 8.0)
    for ending in VIDEO_ENDINGS:
        first, second = (
            video.save(tmp_path / f"{name}{ending}", metadata=METADATA).read_bytes() for name in "ab"
        )
        assert first == second, ending


def test_writer_in_pieces_is_save(tmp_path):
    frames = smooth(9)
    whole = Video(frames, 8.0).save(tmp_path / "whole.mp4")
    with VideoWriter(tmp_path / "pieces.mp4", 8.0, 64, 48) as writer:
        for piece in (frames[:1], frames[1:1], frames[1:6], frames[6:]):
            writer.write(piece)
    assert (tmp_path / "pieces.mp4").read_bytes() == whole.read_bytes()


# --- mp4 that plays ---


def test_mp4_is_h264_420_tagged_bt709_with_its_index_first(tmp_path):
    path = Video(smooth(), 8.0).save(tmp_path / "a.mp4")
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert container.streams.video[0].codec_context.name == "h264"
        assert frame.format.name == "yuv420p"
        assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    assert b"colr" in data


def test_odd_sizes_repeat_the_edge(tmp_path):
    video = Video(smooth(3, 48, 64)[:, :47, :63], 8.0)
    back = Video.read(video.save(tmp_path / "a.mp4", quality=4))
    assert back.frames.shape == (3, 48, 64, 3)
    assert psnr(back.frames[:, :47, :63], video.frames) > 38
    assert psnr(back.frames[:, 47], back.frames[:, 46]) > 30
    assert psnr(back.frames[:, :, 63], back.frames[:, :, 62]) > 30


# --- metadata ---


@pytest.mark.parametrize("ending", VIDEO_ENDINGS)
@pytest.mark.parametrize("metadata", [METADATA, {}], ids=["long", "none"])
def test_metadata_survives_in_every_container(tmp_path, ending, metadata):
    path = Video(noise(), 8.0).save(tmp_path / f"a{ending}", metadata=metadata)
    assert read_metadata(path) == metadata


def test_metadata_survives_in_a_png(tmp_path):
    assert read_metadata(save_image(tmp_path / "a.png", noise()[0], metadata=METADATA)) == METADATA
    assert read_metadata(Video(noise(1), 8.0).save(tmp_path / "b.png", metadata=METADATA)) == METADATA


def test_a_gif_comment_of_another_program_is_kept(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif", comment=b"made by hand")
    assert read_metadata(tmp_path / "a.gif") == {"comment": "made by hand"}


@pytest.mark.parametrize(
    "metadata",
    [{"Prompt": "x"}, {"a b": "x"}, {"encoder": "x"}, {"a": ""}, {"a": 7}, {"a": "x\0y"}, {"a": "\ud800"}],
)
def test_metadata_that_would_not_survive_is_refused(tmp_path, metadata):
    for ending in [*VIDEO_ENDINGS, ".png"]:
        with pytest.raises(VideoError, match="metadata"):
            Video(noise(1), 8.0).save(tmp_path / f"a{ending}", metadata=metadata)
    assert not list(tmp_path.iterdir())


# --- rate ---


def test_varying_rate_keeps_its_timing(tmp_path):
    times_ms = [0, 100, 200, 700, 800]  # 5 frames; the third stays for half a second
    path = encode(tmp_path / "a.mkv", levels(10, 20, 30, 40, 50), times_ms=times_ms, rate=10)
    assert Video.read(path, fps=10).frames[:, 0, 0, 0].tolist() == [10, 20, 30, 30, 30, 30, 30, 40, 50]
    assert Video.read(path, fps=5).frames[:, 0, 0, 0].tolist()[:4] == [10, 30, 30, 30]


def test_varying_rate_mp4_is_read_at_its_mean_rate(tmp_path):
    path = encode(
        tmp_path / "a.mp4",
        levels(10, 60, 110, 160, 210),
        times_ms=[0, 100, 200, 700, 800],
        rate=10,
        codec="libx264rgb",
        pixel_format="rgb24",
        prepare=lambda stream: stream.options.update(qp="0", tune="zerolatency"),
    )
    back = Video.read(path)
    assert (back.num_frames, back.fps) == (5, pytest.approx(5 / 0.9, rel=0.01))
    assert back.frames[:, 0, 0, 0].tolist() == [10, 60, 110, 110, 160]  # at 0, 0.18, 0.36, 0.54, 0.72 s
    assert Video.read(path, fps=10).frames[:, 0, 0, 0].tolist() == [10, 60, 110, 110, 110, 110, 110, 160, 210]


@pytest.mark.parametrize("fps", [24.0, 8.0, 4.0, 3.0, 10.0])
def test_read_at_a_rate_is_read_and_resampled(tmp_path, fps):
    path = Video(levels(*range(0, 240, 10)), 8.0).save(tmp_path / "a.mkv")
    asked, later = Video.read(path, fps=fps), Video.read(path).resampled(fps)
    assert np.array_equal(asked.frames, later.frames)
    assert asked.fps == later.fps == fps
    assert asked.duration_s == pytest.approx(3.0, abs=0.5 / fps + 1e-9)


def test_resampled_repeats_and_leaves_out():
    video = Video(levels(0, 1, 2, 3), 8.0)
    assert video.resampled(16.0).frames[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert video.resampled(4.0).frames[:, 0, 0, 0].tolist() == [0, 2]
    assert video.resampled(8.0).frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert video.resampled(0.5).num_frames == 1


@pytest.mark.parametrize("fps", [7.3, 23.976, 29.97, 59.94, 120.0])
def test_rounded_times_of_a_constant_rate_neither_repeat_nor_drop(fps):
    timed = [(round(1000 * index / fps) / 1000, 1 / fps, index) for index in range(500)]
    assert list(at_constant_rate(timed, fps, fps)) == list(range(500))


def test_max_frames_stops_early(tmp_path):
    path = Video(noise(8), 8.0).save(tmp_path / "a.mkv")
    assert np.array_equal(Video.read(path, max_frames=3).frames, noise(8)[:3])
    with pytest.raises(VideoError, match="max_frames=0"):
        Video.read(path, max_frames=0)


# --- orientation, alpha, pictures ---


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
def test_rotation_of_the_file_is_applied(tmp_path, degrees):
    frames = noise(2, 20, 24)
    path = encode(
        tmp_path / "a.mp4",
        frames,
        codec="libx264rgb",
        pixel_format="rgb24",
        prepare=lambda stream: (stream.options.update(qp="0"), stream.set_display_rotation(degrees)),
    )
    # FFmpeg counts counterclockwise: what is shown is the stored picture turned by that much.
    assert np.array_equal(Video.read(path).frames, np.rot90(frames, degrees // 90, axes=(1, 2)))


def test_display_matrices_turn_and_mirror():
    pixels = np.arange(6).reshape(2, 3, 1)  # 0 1 2 / 3 4 5

    def shown(a, b, c, d):
        return oriented(pixels, (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30))[..., 0].tolist()

    assert shown(1, 0, 0, 1) == [[0, 1, 2], [3, 4, 5]]
    assert shown(-1, 0, 0, 1) == [[2, 1, 0], [5, 4, 3]]
    assert shown(1, 0, 0, -1) == [[3, 4, 5], [0, 1, 2]]
    assert shown(-1, 0, 0, -1) == [[5, 4, 3], [2, 1, 0]]
    assert shown(0, 1, -1, 0) == [[3, 0], [4, 1], [5, 2]]  # a phone held upright: clockwise by 90 degrees
    assert shown(0, -1, 1, 0) == [[2, 5], [1, 4], [0, 3]]
    assert shown(0, 1, 1, 0) == [[0, 3], [1, 4], [2, 5]]
    assert shown(0, -1, -1, 0) == [[5, 2], [4, 1], [3, 0]]


def half_transparent() -> np.ndarray:
    rgba = np.full((2, 32, 32, 4), 200, np.uint8)
    rgba[:, :, 16:, 3], rgba[:, :, :16, 3] = 0, 255
    return rgba


@pytest.mark.parametrize(
    ("ending", "codec", "pixel_format"),
    [
        (".mkv", "ffv1", "bgra"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".webm", "libvpx", "yuva420p"),
        (".mov", "png", "rgba"),
    ],
)
def test_alpha_is_flattened_over_black(tmp_path, ending, codec, pixel_format):
    path = encode(
        tmp_path / f"a{ending}",
        half_transparent(),
        codec=codec,
        pixel_format=pixel_format,
        source="rgba",
        prepare=lambda stream: stream.options.update({"auto-alt-ref": "0"} if codec == "libvpx" else {}),
    )
    back = Video.read(path)
    assert back.num_frames == 2
    assert np.abs(back.frames[:, :, :12].astype(int) - 200).max() <= 4
    assert back.frames[:, :, 20:].max() <= 4


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp"])
def test_a_picture_is_a_video_of_one_frame(tmp_path, ending):
    pixels = smooth(1)[0]
    Image.fromarray(pixels).save(
        tmp_path / f"a{ending}", **{".jpg": {"quality": 98}, ".webp": {"lossless": True}}.get(ending, {})
    )
    video = Video.read(tmp_path / f"a{ending}")
    assert (video.num_frames, video.fps) == (1, 1.0)
    assert psnr(video.frames[0], pixels) > 28 if ending == ".jpg" else np.array_equal(video.frames[0], pixels)


def test_pictures_respect_exif_alpha_and_16_bit(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(1, 4, 6)[0]
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(Video.read(tmp_path / "turned.png").frames[0], np.rot90(pixels, -1))
    Image.fromarray(half_transparent()[0]).save(tmp_path / "alpha.png")
    assert Video.read(tmp_path / "alpha.png").frames[0, 0, [0, 31], 0].tolist() == [200, 0]
    Image.fromarray(np.full((4, 4), 0x8040, np.uint16)).save(tmp_path / "deep.png")
    assert Video.read(tmp_path / "deep.png").frames[0, 0, 0].tolist() == [0x80] * 3


@pytest.mark.parametrize("ending", [".png", ".webp"])
def test_save_image_keeps_every_bit(tmp_path, ending):
    assert np.array_equal(Video.read(save_image(tmp_path / f"a{ending}", noise(1)[0])).frames, noise(1))


def test_a_gif_of_few_colours_is_exact_and_loops(tmp_path):
    frames = (noise(6) > 128).astype(np.uint8) * 200  # 8 colours
    frames[3] = frames[2]  # a frame that repeats must not be merged away
    path = Video(frames, 12.0).save(tmp_path / "a.gif")
    assert np.array_equal(Video.read(path).frames, frames)
    with Image.open(path) as image:
        assert image.info["loop"] == 0


def test_a_gif_does_not_flicker_where_nothing_moves(tmp_path):
    frames = np.repeat(smooth(1), 4, axis=0)
    frames[:, :8, :8] = levels(0, 80, 160, 240, height=8, width=8)
    back = Video.read(Video(frames, 8.0).save(tmp_path / "a.gif"))
    assert (back.frames[1:, 8:] == back.frames[:1, 8:]).all()
    assert (back.frames[1:, :, 8:] == back.frames[:1, :, 8:]).all()
    assert len({frame.tobytes() for frame in back.frames}) == 4


def test_png_of_several_frames_says_what_to_do(tmp_path):
    with pytest.raises(VideoError, match="holds one picture and this video has 5"):
        Video(noise(5), 8.0).save(tmp_path / "a.png")


# --- files that are no video ---


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", [".mp4", ".txt", ".mkv", ".png", ".gif", ".avi"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"not a video at all, just a text\n" * 40,
        bytes(range(256)) * 40,
        b"\x89PNG\r\n\x1a\n" + b"x" * 50,
        b"GIF89a",
        b"\xff\xd8\xff",
    ],
    ids=["empty", "newline", "text", "bytes", "broken_png", "broken_gif", "broken_jpg"],
)
def test_a_file_that_is_no_video_is_one_clear_error(tmp_path, ending, content):
    path = tmp_path / f"holiday{ending}"
    path.write_bytes(content)
    for read in (Video.read, read_metadata):
        with pytest.raises(VideoError, match=rf"cannot read .*holiday\{ending}: ") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_missing_folder_and_sound_are_clear_errors(tmp_path):
    for path, why in [
        (tmp_path / "no.mp4", "no such file"),
        (tmp_path, "it is a folder"),
        (sound(tmp_path / "a.wav"), "no video|not a video"),
    ]:
        with pytest.raises(VideoError, match=why):
            Video.read(path)
    with pytest.raises(VideoError, match="it has no video, only audio"):
        Video.read(sound(tmp_path / "a.mkv"))


def test_a_container_without_frames_is_a_clear_error(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "bgr0"
        container.start_encoding()
    with pytest.raises(VideoError, match=r"a\.avi"):
        Video.read(path)


def test_playlists_cannot_open_other_files(tmp_path):
    Video(noise(), 8.0).save(tmp_path / "secret.mp4")
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(VideoError, match="not a video"):
            Video.read(tmp_path / name)


def test_every_demuxer_we_name_exists():
    known = {name for names in av.formats_available for name in names.split(",")}
    assert set(DEMUXERS.split(",")) <= known


@pytest.mark.parametrize(
    ("ending", "harm"), [(".mp4", "cut"), (".webm", "cut"), (".mkv", "cut"), (".mp4", "hit"), (".mkv", "hit")]
)
def test_a_damaged_file_is_an_error_unless_allowed(tmp_path, ending, harm, caplog):
    whole = Video(noise(16, 48, 64), 8.0).save(tmp_path / f"a{ending}").read_bytes()
    middle = len(whole) // 2
    harmed = {
        "cut": whole[: len(whole) * 2 // 3],
        "hit": whole[:middle] + bytes(4000) + whole[middle + 4000 :],
    }[harm]
    (tmp_path / f"b{ending}").write_bytes(harmed)
    with pytest.raises(VideoError, match=rf"b\{ending}: damaged .*allow_damaged=True"):
        Video.read(tmp_path / f"b{ending}")
    rest = Video.read(tmp_path / f"b{ending}", allow_damaged=True)
    assert 1 <= rest.num_frames <= 16
    assert np.array_equal(rest.frames[0], Video.read(tmp_path / f"a{ending}").frames[0])
    assert "is damaged in" in caplog.text


def test_a_half_written_mp4_is_a_clear_error_even_when_damage_is_allowed(tmp_path):
    whole = encode(tmp_path / "a.mp4", noise(16), codec="libx264rgb", pixel_format="rgb24").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[:-600])  # the index is at the end
    with pytest.raises(VideoError, match=r"b\.mp4: not a video, or damaged"):
        Video.read(tmp_path / "b.mp4", allow_damaged=True)


def test_a_gap_in_time_does_not_fill_the_memory(tmp_path):
    path = encode(tmp_path / "a.mkv", levels(1, 2, height=512, width=512), times_ms=[0, 86_400_000], rate=8)
    assert MAX_BYTES < 86_400 * 8 * 512 * 512 * 3
    with pytest.raises(VideoError, match="max_frames"):
        Video.read(path)
    assert Video.read(path, max_frames=3).num_frames == 3


def test_names_that_look_like_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mkv", "concat:a.mkv", "100%d.mkv", "-y.mkv", "狐 狸.mkv"):
        assert Video.read(Video(noise(), 8.0).save(name)).num_frames == 5
    assert len(list(tmp_path.iterdir())) == 5


# --- writing that fails ---


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".mkv"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("num_written", [0, 5])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path, ending, error, num_written):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"old")

    def write():
        with VideoWriter(path, 8.0, 24, 20) as writer:
            writer.write(noise(num_written))
            raise error

    with pytest.raises(error):
        write()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_a_writer_without_frames_is_an_error(tmp_path):
    with pytest.raises(VideoError, match="no frame was given"), VideoWriter(tmp_path / "a.mp4", 8.0, 24, 20):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frames", [noise(2, 20, 26), noise(2).astype(np.float32), noise(2)[0]])
def test_writer_refuses_other_frames(tmp_path, frames):
    with (
        pytest.raises(VideoError, match=r"takes frames of uint8 \(f, 20, 24, 3\)"),
        VideoWriter(tmp_path / "a.mp4", 8.0, 24, 20) as writer,
    ):
        writer.write(frames)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [{"fps": 0.0}, {"width": 0}, {"quality": 52}])
def test_writer_refuses_impossible_settings(tmp_path, arguments):
    with pytest.raises(VideoError):
        VideoWriter(tmp_path / "a.mp4", **{"fps": 8.0, "width": 24, "height": 20, **arguments})


def test_an_encoder_that_refuses_is_one_line(tmp_path):
    frames = np.zeros((1, 2, 40_000, 3), np.uint8)
    with pytest.raises(VideoError, match="refuses 40000x2"):
        Video(frames, 8.0).save(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownName, match=r"'\.mp5'; did you mean '\.mp4'\?"):
        Video(noise(), 8.0).save(tmp_path / "a.mp5")
    with pytest.raises(UnknownName, match=r"\.png"):
        save_image(tmp_path / "a", noise()[0])


def test_gif_limits_are_said(tmp_path):
    with pytest.raises(VideoError, match="at most 50 frames a second"):
        Video(noise(), 60.0).save(tmp_path / "a.gif")
    with pytest.raises(VideoError, match=r"use \.mkv"):
        Video(noise(), 8.0).save(tmp_path / "a.gif", lossless=True)


def test_parent_folders_are_made(tmp_path):
    assert Video(noise(), 8.0).save(tmp_path / "x" / "y" / "a.mkv").exists()
    assert save_image(tmp_path / "z" / "a.png", noise()[0]).exists()


def write_as(path: Path) -> None:
    if path.suffix == ".png":
        save_image(path, noise(1, 200, 200)[0])
    else:
        Video(noise(4, 200, 200), 8.0).save(path)


@pytest.mark.parametrize("ending", [*VIDEO_ENDINGS, ".png"])
def test_nowhere_to_write_is_an_output_error(tmp_path, ending):
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    for path, why in [
        (tmp_path / f"folder{ending}", "a folder of that name"),
        (tmp_path / "file" / f"a{ending}", "is a file, not a folder"),
    ]:
        with pytest.raises(OutputError, match=f"cannot write .*{why}"):
            write_as(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", f"folder{ending}"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_an_output_error(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        write_as(tmp_path / "closed" / "a.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_disk_that_refuses_is_an_output_error_and_leaves_nothing(tmp_path):
    code = f"""
import resource
from pathlib import Path
import numpy as np
from kinema.errors import OutputError
from kinema.video import Video
video = Video(np.random.default_rng(0).integers(0, 256, (1, 200, 200, 3), dtype=np.uint8), 8.0)
folder = Path({str(tmp_path)!r})
for limit in (0, 1000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for ending in {[*VIDEO_ENDINGS, ".png"]}:
        try:
            video.save(folder / f"a{{ending}}", quality=1)
        except OutputError as error:
            assert "File too large" in str(error), error
        else:
            raise AssertionError((limit, ending))
        assert not list(folder.iterdir()), (limit, ending)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_full_disk_is_called_so(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        Video(noise(), 8.0).save(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        modes = {
            Video(noise(), 8.0).save(tmp_path / f"a{ending}").stat().st_mode & 0o777
            for ending in VIDEO_ENDINGS
        }
    finally:
        os.umask(before)
    assert modes == {0o644}


# --- contact sheet, and life without PyAV ---


def test_contact_sheet_holds_every_video_and_keeps_to_its_size():
    videos = [Video(noise(16, 48, 64), 8.0), Video(noise(3, 64, 36), 24.0), Video(noise(1, 10, 10), 1.0)]
    sheet = contact_sheet(
        videos, ["one", "a long title " * 20, "一只红狐狸"], columns=2, frames_per_video=4, cell_height_px=48
    )
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 20 + (4 * 64 + 3 * 3) + 20 + (3 * 27 + 2 * 3) + 20
    plain = contact_sheet(videos[:1], frames_per_video=16, cell_height_px=48)
    assert np.array_equal(plain[20:68, 20:84], videos[0].frames[0])
    assert np.array_equal(plain[20:68, -84:-20], videos[0].frames[15])


def test_a_title_that_no_face_can_draw_is_replaced(monkeypatch):
    monkeypatch.setattr("kinema.video.sheet.CHINESE_FACES", ())
    videos = [Video(noise(2), 8.0)]
    assert np.array_equal(contact_sheet(videos, ["狐狸"]), contact_sheet(videos, ["video 1"]))
    assert np.array_equal(contact_sheet(videos, ["fox 狐"]), contact_sheet(videos, ["fox ?"]))


@pytest.mark.parametrize(
    ("videos", "titles"), [([], None), ([Video(noise(), 8.0)], []), ([Video(noise(), 8.0)], ["a", "b"])]
)
def test_contact_sheet_refuses_what_does_not_fit(videos, titles):
    with pytest.raises(VideoError):
        contact_sheet(videos, titles)


def test_without_pyav_frames_and_pictures_work_and_video_files_say_what_to_install(tmp_path):
    code = f"""
import sys
sys.modules["av"] = None
import numpy as np
from kinema.video import Video, contact_sheet, save_image
from kinema.errors import VideoError
video = Video(np.zeros((3, 8, 8, 3), np.uint8), 8.0).resampled(4.0)
save_image({str(tmp_path / "a.png")!r}, contact_sheet([video], ["x"]))
assert Video.read(video.save({str(tmp_path / "a.gif")!r})).num_frames == 2
try:
    video.save({str(tmp_path / "a.mp4")!r})
except VideoError as error:
    assert "pip install av" in str(error)
else:
    raise AssertionError
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.gif", "a.png"]


def test_all_errors_are_of_one_family():
    assert issubclass(VideoError, KinemaError)
    assert issubclass(OutputError, ValueError)
