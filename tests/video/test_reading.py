"""Reading of video files: rates, orientation, alpha, and files that are damaged or are not videos."""

from pathlib import Path

import av
import numpy as np
import pytest
from tests.video.frames import encode, half_transparent, levels, noise

from kinema.errors import VideoError
from kinema.video import Video, read_metadata
from kinema.video.reading import DEMUXERS, MAX_BYTES, at_constant_rate, oriented


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


@pytest.mark.parametrize("fps", [7.3, 23.976, 29.97, 59.94, 120.0])
def test_rounded_times_of_a_constant_rate_neither_repeat_nor_drop(fps):
    timed = [(round(1000 * index / fps) / 1000, 1 / fps, index) for index in range(500)]
    assert list(at_constant_rate(timed, fps, fps)) == list(range(500))


def test_max_frames_stops_early(tmp_path):
    path = Video(noise(8), 8.0).save(tmp_path / "a.mkv")
    assert np.array_equal(Video.read(path, max_frames=3).frames, noise(8)[:3])
    with pytest.raises(VideoError, match="max_frames=0"):
        Video.read(path, max_frames=0)


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
