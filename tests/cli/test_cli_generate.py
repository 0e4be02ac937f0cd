import errno
from pathlib import Path

import pytest
from PIL import Image

from kinema.cli.main import main
from kinema.generation.output.provenance import read_provenance
from kinema.video import Video, VideoWriter


@pytest.fixture
def generate(model_folder, tmp_path):
    """A function that runs the verb with the tiny model and gives its exit code; FILE stands for a file of
    that ending.
    """

    def run(*words, out="video.mkv"):
        return main(["generate", *words, "-o", str(tmp_path / out), "--model", str(model_folder)])

    return run


def test_a_video_and_its_sheet_are_written_and_named(generate, tmp_path, capsys):
    assert generate("a red fox runs", "--seed", "7", out="new/video.mp4") == 0
    video = Video.read(tmp_path / "new" / "video.mp4")
    assert (video.num_frames, video.height, video.width, video.fps) == (9, 32, 48, 8.0)
    assert (tmp_path / "new" / "video.png").is_file()
    size, written = capsys.readouterr().out.splitlines()
    assert size.startswith("48x32, 9 frames at 8 fps")
    assert "video.mp4" in written
    assert "video.png" in written
    assert "with seed 7" in written


def test_what_is_asked_for_is_what_comes(generate, tmp_path, capsys):
    assert (
        generate(
            "a fox",
            "--size",
            "40x34",
            "--frames",
            "6",
            "--steps",
            "2",
            "--sampler",
            "heun",
            "--guidance",
            "1",
            "--shift",
            "1",
        )
        == 0
    )
    assert Video.read(tmp_path / "video.mkv").frames.shape == (6, 34, 40, 3)
    assert "cropped from 48x48 and 9 frames" in capsys.readouterr().out


def test_a_length_in_seconds(generate, tmp_path):
    assert generate("a fox", "--seconds", "0.5", "--steps", "1") == 0
    assert Video.read(tmp_path / "video.mkv").num_frames == 4


def test_no_sheet_on_request_nor_for_one_frame(generate, tmp_path):
    assert generate("a fox", "--steps", "1", "--no-sheet") == 0
    assert generate("a fox", "--steps", "1", "--frames", "1", out="picture.png") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.png", "video.mkv"]


def test_words_that_the_model_does_not_know_are_said(generate, capsys):
    assert generate("a red foxx qqqqq", "--steps", "1") == 0
    out = capsys.readouterr().out
    assert "left out 'qqqqq'" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([""], "the prompt is empty"),
        (["a fox", "--size", "512x512"], "size 512x512 is outside what tiny was trained with"),
        (["a fox", "--window", "99"], "window=99 is longer than the 17 frames"),
        (["a fox", "--steps", "0"], "steps=0 is out of range"),
        (["a fox", "--sampler", "eular"], "unknown sampler 'eular'; did you mean 'euler'?"),
        (["a fox", "--device", "abacus"], "device 'abacus' is not available here"),
    ],
)
def test_a_wrong_request_is_one_line(generate, words, line, capsys, tmp_path):
    assert generate(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kinema: {line}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("video.avi", "unknown video ending '.avi'"),
        ("video.png", "holds one frame"),
        ("", "is a folder"),
        ("file/a.mp4", "file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    generate, out, line, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(
        "kinema.generation.pipeline.Pipeline.write", lambda *a, **b: pytest.fail("the work was begun")
    )
    Path(tmp_path / "file").write_text("in the way")
    if not out:
        (tmp_path / "folder.mp4").mkdir()
    assert generate("a fox", out=out or "folder.mp4") == 2
    assert line in capsys.readouterr().err


def test_a_sheet_replaces_a_sheet_but_no_picture_of_the_users(generate, tmp_path, capsys):
    assert generate("a fox", "--steps", "1") == 0
    sheet = tmp_path / "video.png"
    first = sheet.read_bytes()
    assert generate("a rocket", "--steps", "1") == 0
    assert sheet.read_bytes() != first
    Image.new("RGB", (32, 32)).save(sheet)
    mine = sheet.read_bytes()
    assert generate("a fox", "--steps", "1", "--image", str(sheet)) == 2
    assert "is another picture" in capsys.readouterr().err
    assert sheet.read_bytes() == mine


def test_a_sheet_that_cannot_be_written_is_refused_before_the_work(generate, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        "kinema.generation.pipeline.Pipeline.write", lambda *a, **b: pytest.fail("the work was begun")
    )
    (tmp_path / "video.png").mkdir()
    assert generate("a fox", out="video.mp4") == 2
    assert "video.png is a folder" in capsys.readouterr().err


def test_a_refused_request_makes_no_folder(generate, tmp_path):
    assert generate("a fox", "--guidance", "1", "--negative", "rain", out="new/video.mp4") == 2
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(generate, monkeypatch, capsys):
    def full(self, frames):
        raise OSError(errno.ENOSPC, "No space left on device", str(self.path))

    monkeypatch.setattr(VideoWriter, "write", full)
    assert generate("a fox", "--steps", "1") == 2
    assert capsys.readouterr().err.endswith("video.mkv: No space left on device\n")


def test_a_folder_that_is_no_model_is_one_line(tmp_path, capsys):
    assert main(["generate", "a fox", "-o", str(tmp_path / "a.mp4"), "--model", str(tmp_path)]) == 2
    assert "is not a model folder" in capsys.readouterr().err


def test_seconds_and_frames_exclude_each_other(generate):
    assert generate("a fox", "--seconds", "1", "--frames", "9") == 2


def test_both_prompts_are_said_and_kept_in_the_file(generate, tmp_path, capsys):
    assert generate("a fox", "--steps", "1", "--expand") == 0
    original, expanded, *_ = capsys.readouterr().out.splitlines()
    request = read_provenance(tmp_path / "video.mkv")["request"]
    assert original == f"original prompt: {request['original_prompt']}" == "original prompt: a fox"
    assert expanded == f"expanded prompt: {request['prompt']} (by {request['expander']})"
    assert "fox" in request["prompt"]
    assert generate("a fox", "--steps", "1", "--expand", "--expander", "nowhere") == 2
    assert "'nowhere' is not an expander" in capsys.readouterr().err
