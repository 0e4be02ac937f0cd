"""The writer of video files: pieces, H.264 that players understand, and errors that leave no file."""

import av
import numpy as np
import pytest
from tests.video.frames import noise, psnr, smooth

from kinema.errors import VideoError
from kinema.video import Video, VideoWriter


def test_writer_in_pieces_is_save(tmp_path):
    frames = smooth(9)
    whole = Video(frames, 8.0).save(tmp_path / "whole.mp4")
    with VideoWriter(tmp_path / "pieces.mp4", 8.0, 64, 48) as writer:
        for piece in (frames[:1], frames[1:1], frames[1:6], frames[6:]):
            writer.write(piece)
    assert (tmp_path / "pieces.mp4").read_bytes() == whole.read_bytes()


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
