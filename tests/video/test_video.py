"""Videos in memory and as files of any kind: round trips, rates, and what happens when a file cannot be
written.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.video.frames import METADATA, VIDEO_ENDINGS, levels, noise, psnr, smooth

from kinema.errors import KinemaError, OutputError, UnknownName, VideoError
from kinema.video import Video, save_image


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


def test_resampled_repeats_and_leaves_out():
    video = Video(levels(0, 1, 2, 3), 8.0)
    assert video.resampled(16.0).frames[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert video.resampled(4.0).frames[:, 0, 0, 0].tolist() == [0, 2]
    assert video.resampled(8.0).frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert video.resampled(0.5).num_frames == 1


def test_png_of_several_frames_says_what_to_do(tmp_path):
    with pytest.raises(VideoError, match="holds one picture and this video has 5"):
        Video(noise(5), 8.0).save(tmp_path / "a.png")


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownName, match=r"'\.mp5'; did you mean '\.mp4'\?"):
        Video(noise(), 8.0).save(tmp_path / "a.mp5")
    with pytest.raises(UnknownName, match=r"\.png"):
        save_image(tmp_path / "a", noise()[0])


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
