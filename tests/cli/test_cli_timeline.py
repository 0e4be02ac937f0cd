"""The verbs of the timeline on real files: what comes out, what is said, and one line for what cannot be."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from kinema.checkpoints.adapters import LoRALinear, add_lora, save_lora
from kinema.checkpoints.components import load_backbone
from kinema.cli.main import main
from kinema.models.dit import DiT
from kinema.video import Video, VideoWriter


@pytest.fixture
def files(tmp_path):
    """A folder with clips and pictures."""
    y, x = np.mgrid[:40, :60]

    def frame(f, seed=0):
        return np.stack(
            [(4 * x + 6 * f) % 256, (5 * y + 30 * seed) % 256, (x + y + f) % 256], axis=-1
        ).astype(np.uint8)

    Video(np.stack([frame(f) for f in range(27)]), 24.0).save(tmp_path / "a.mp4")
    Video(np.stack([frame(f, 1) for f in range(8)]), 8.0).save(tmp_path / "b.mkv")
    Video(np.stack([np.rot90(frame(f)) for f in range(8)]), 8.0).save(tmp_path / "tall.mp4")
    Image.fromarray(frame(0)).save(tmp_path / "picture.jpg")
    alpha = np.dstack([frame(0), np.full((40, 60), 128, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    Image.fromarray((x * 1000).astype(np.uint16)).save(tmp_path / "deep.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all")
    return tmp_path


@pytest.fixture
def kinema(model_folder, files, monkeypatch):
    """A function that runs a verb with the tiny model in the folder of the files; gives the exit code."""
    monkeypatch.chdir(files)

    def run(verb, *words, out="out.mkv"):
        return main(
            [verb, *map(str, words), "-o", out, "--model", str(model_folder), "--steps", "2", "--no-sheet"]
        )

    return run


def test_extend_says_how_the_clip_was_fitted(kinema, files, capsys):
    assert kinema("extend", "a.mp4", "the fox runs", "--seconds", "0.5", "--direction", "both") == 0
    out = capsys.readouterr().out
    assert "a.mp4: 24 fps, resampled to 8 fps" in out
    assert "60x40, 9 frames at 8 fps: scaled to 48x32" in out
    assert "transitions" in out
    assert Video.read(files / "out.mkv").num_frames == 9 + 8


def test_connect_keeps_the_second_clip(kinema, files):
    assert kinema("connect", "a.mp4", "b.mkv", "--seconds", "0.5", "--size", "60x40") == 0
    frames = Video.read(files / "out.mkv").frames
    assert np.array_equal(frames[-8:], Video.read(files / "b.mkv").frames)


def test_loop_from_words_and_from_a_clip(kinema, files, capsys):
    assert kinema("loop", "the fox runs", "--seconds", "1") == 0
    assert "loop seam" in capsys.readouterr().out
    assert kinema("loop", "b.mkv", "--frames", "16", "--size", "60x40") == 0
    assert np.array_equal(Video.read(files / "out.mkv").frames[:8], Video.read(files / "b.mkv").frames)


def test_edit_with_a_mask_keeps_what_is_black(kinema, files):
    assert (
        kinema("edit", "b.mkv", "the blue ball", "--mask", "mask.png", "--strength", "1", "--size", "60x40")
        == 0
    )
    frames, clip = Video.read(files / "out.mkv").frames, Video.read(files / "b.mkv").frames
    black = Video.read(files / "mask.png").frames[0, ..., 0] == 0
    assert np.array_equal(frames[:, black], clip[:, black])
    assert not np.array_equal(frames, clip)


@pytest.mark.parametrize("picture", ["picture.jpg", "alpha.png", "deep.png"])
def test_a_video_begins_with_a_picture_of_any_kind(kinema, files, picture):
    assert kinema("generate", "the fox runs", "--image", picture, "--size", "60x40", "--frames", "9") == 0
    assert np.array_equal(Video.read(files / "out.mkv").frames[0], Video.read(files / picture).frames[0])


def test_last_image_and_keyframes(kinema, files):
    assert (
        kinema(
            "generate",
            "a",
            "--last-image",
            "picture.jpg",
            "--keyframe",
            "0.5:alpha.png",
            "--size",
            "60x40",
            "--frames",
            "13",
        )
        == 0
    )
    frames = Video.read(files / "out.mkv").frames
    assert np.array_equal(frames[12], Video.read(files / "picture.jpg").frames[0])
    assert np.array_equal(frames[4], Video.read(files / "alpha.png").frames[0])


def test_a_tall_video_is_padded_when_asked(kinema, files, capsys):
    assert kinema("extend", "tall.mp4", "--seconds", "0.5", "--fit", "pad") == 0
    assert "40x60, 8 frames at 8 fps: scaled to 48x32, with 56% of it black bars" in capsys.readouterr().out
    frame = Video.read(files / "out.mkv").frames[0]
    assert not frame[:, :13].any()
    assert frame[:, 20:28].any()


def test_a_phone_clip_that_says_it_is_turned_is_used_upright(kinema, files, capsys):
    import av

    stored = np.zeros((8, 60, 40, 3), np.uint8)
    stored[:, :20, :, 0] = 255  # lies on its side: shown, red is on the left
    with av.open(str(files / "phone.mp4"), "w") as target:
        stream = target.add_stream(
            "libx264rgb", rate=8, width=40, height=60, pix_fmt="rgb24", options={"qp": "0"}
        )
        stream.set_display_rotation(90)
        for pixels in stored:
            target.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        target.mux(stream.encode())
    assert kinema("extend", "phone.mp4", "--seconds", "0.5", "--size", "60x40") == 0
    assert "60x40, 8 frames at 8 fps: used as it is" in capsys.readouterr().out
    upright = np.rot90(stored, 1, axes=(1, 2))
    assert np.array_equal(Video.read(files / "out.mkv").frames[:8], upright)


def test_a_clip_of_varying_rate_keeps_its_timing(kinema, files):
    import av

    with VideoWriter(
        files / "even.mp4", 8, 48, 32
    ) as writer:  # 2 s; below, the same frames with their times stretched
        writer.write(np.stack([np.full((32, 48, 3), 15 * f, np.uint8) for f in range(16)]))
    with av.open(str(files / "even.mp4")) as source, av.open(str(files / "vfr.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                late = (
                    packet.pts * 2
                    if packet.pts * packet.time_base < 1
                    else packet.pts + int(1 / packet.time_base)
                )
                packet.pts, packet.dts, packet.stream = late, packet.dts, stream
                target.mux(packet)
    assert kinema("extend", "vfr.mkv", "--seconds", "0.5") == 0
    grey = Video.read(files / "out.mkv").frames[:24].mean(axis=(1, 2, 3))
    assert np.allclose(grey[[0, 8, 16]], [0, 60, 120], atol=6)


def test_a_storyboard_is_one_result(kinema, files):
    (files / "board.yaml").write_text(
        "seconds: 2.125\nshots:\n"
        "  - {at: 0, prompt: the fox runs, image: picture.jpg}\n"
        "  - {at: 1, prompt: the ball rolls}\n"
        "  - {at: 1.125, clip: b.mkv}\n"
    )
    assert kinema("storyboard", "board.yaml", "--size", "60x40") == 0
    frames = Video.read(files / "out.mkv").frames
    assert np.array_equal(frames[0], Video.read(files / "picture.jpg").frames[0])
    assert np.array_equal(frames[9:17], Video.read(files / "b.mkv").frames)


def test_a_long_video_has_a_drift_report_and_a_short_one_none(kinema, files):
    assert kinema("generate", "the fox runs", "--image", "picture.jpg", "--seconds", "2") == 0
    assert not list(files.glob("*.drift.*"))
    assert kinema("generate", "the fox runs", "--seconds", "4") == 0
    assert (files / "out.drift.json").is_file()
    assert Video.read(files / "out.drift.png").frames.shape == (1, 6 * 110 + 30, 640, 3)


def test_a_stopped_run_is_continued(kinema, files, model_folder, monkeypatch, capsys):
    words = ["a fox runs", "--seconds", "3", "--job", "job"]
    assert kinema("generate", *words, out="whole.mkv") == 0
    real, count = DiT.predict, iter(range(99))

    def stopped(*arguments):
        if next(count) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DiT, "predict", stopped)
        assert kinema("generate", *words) == 130
    assert "'kinema continue job -o out.mkv' continues from here" in capsys.readouterr().out
    assert not (files / "out.mkv").exists()
    assert main(["continue", "job", "-o", "out.mkv", "--no-sheet"]) == 0
    assert np.array_equal(Video.read(files / "out.mkv").frames, Video.read(files / "whole.mkv").frames)


def test_a_draft_is_finished_with_more_steps(kinema, files, model_folder):
    assert kinema("generate", "a fox", "--job", "job") == 0
    assert main(["continue", "job", "-o", "better.mkv", "--steps", "3", "--no-sheet"]) == 0
    assert (
        main(
            [
                "generate",
                "a fox",
                "-o",
                "three.mkv",
                "--steps",
                "3",
                "--model",
                str(model_folder),
                "--no-sheet",
            ]
        )
        == 0
    )
    assert np.array_equal(Video.read(files / "better.mkv").frames, Video.read(files / "three.mkv").frames)


def test_a_preview_is_there_while_it_is_made(kinema, files):
    assert kinema("generate", "a fox", "--preview", "preview.gif") == 0
    assert Video.read(files / "preview.gif").frames.shape == (9, 16, 24, 3)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["extend", "broken.mp4", "--seconds", "1"], "cannot read broken.mp4: not a video, or damaged"),
        (["extend", "none.mp4", "--seconds", "1"], "cannot read none.mp4: there is no such file"),
        (["extend", "b.mkv", "--seconds", "0"], "seconds=0 adds nothing"),
        (["extend", "b.mkv", "--seconds", "-2"], "seconds=-2 adds nothing"),
        (["connect", "a.mp4", "b.mkv", "--seconds", "nan"], "seconds=nan adds nothing"),
        (["loop", "b.mkv", "--frames", "4"], "a clip from 0 to 1 s does not fit into a result of 0.5 s"),
        (["generate", "a fox", "--seconds", "0"], "seconds=0.0 is out of range"),
        (["generate", "a fox", "--frames", "-4"], "frames=-4 is out of range"),
        (
            ["generate", "a fox", "--guidance", "1", "--negative", "fog"],
            "a negative prompt needs guidance above 1",
        ),
        (["loop"], "a loop needs a prompt"),
        (["loop", "a fox", "--frames", "10"], "a loop of 10 frames does not close"),
        (
            ["edit", "b.mkv", "a fox", "--region", "40,0,30,10"],
            "region 40,0,30,10 reaches outside the frame of 48x32",
        ),
        (
            ["edit", "b.mkv", "a fox", "--mask", "picture.jpg", "--strength", "2"],
            "strength=2.0 changes nothing or is out of range",
        ),
        (["edit", "b.mkv", "a fox", "--mask", "tall.mp4"], "the mask has 40x60 pixels"),
        (
            ["edit", "b.mkv", "a fox", "--start", "0.5", "--end", "3"],
            "0.5 to 3 s is not a span of this clip: use times from 0 to 1 s",
        ),
        (["generate", "a fox", "--image", "b.mkv"], "a clip of 8 frames was given in place of a picture"),
        (
            ["generate", "a fox", "--frames", "5", "--keyframe", "2:picture.jpg"],
            "a clip from 2 to 2.125 s does not fit into a result of 0.625 s",
        ),
        (["generate", "a fox", "--preview", "preview.mp4"], "preview.mp4 is not a .gif file"),
        (["storyboard", "picture.jpg"], "picture.jpg is not a storyboard"),
    ],
)
def test_what_cannot_be_is_one_line(kinema, files, words, line, capsys):
    assert kinema(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"kinema: {line}")
    assert error.count("\n") == 1
    assert not (files / "out.mkv").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["edit", "b.mkv", "a fox", "--region", "0,0,8,8", "--mask", "mask.png"],
        ["generate", "a fox", "--seconds", "1", "--frames", "9"],
    ],
)
def test_options_that_contradict_each_other_are_refused(kinema, words, capsys):
    assert kinema(*words) == 2
    assert re.search("not allowed with|not both", capsys.readouterr().err)


def test_an_adapter_is_applied_by_every_verb_and_a_job_needs_it_again(kinema, model_folder, files, capsys):
    dit = add_lora(load_backbone(model_folder), 2, 2.0, ("to_q", "mlp.expand"))
    for module in dit.modules():
        if isinstance(module, LoRALinear):
            torch.nn.init.normal_(module.up)
    save_lora(files / "style.safetensors", dit)
    words = ("loop", "the fox runs", "--seconds", "0.5")
    assert kinema(*words, out="plain.mkv") == 0
    assert kinema(*words, "--lora", "style.safetensors:0.5", "--job", "job", out="styled.mkv") == 0
    num_layers = 3 * dit.config.num_layers
    assert f"applied {num_layers}/{num_layers} at scale 0.5" in capsys.readouterr().out
    plain, styled = (Video.read(files / name).frames for name in ("plain.mkv", "styled.mkv"))
    assert not np.array_equal(plain, styled)
    assert main(["continue", "job", "-o", "again.mkv", "--no-sheet"]) == 2
    assert main(["continue", "job", "-o", "again.mkv", "--no-sheet", "--lora", "style.safetensors:0.5"]) == 0
    assert np.array_equal(Video.read(files / "again.mkv").frames, styled)
