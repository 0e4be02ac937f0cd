"""kinema caption: files in, captions out, one line for what cannot be captioned."""

import json
from functools import partial

import pytest

from kinema.cli.main import main
from kinema.evaluation.captions import caption_grades
from kinema.video import Video, save_image
from kinema.worlds.stage import StageConfig, StageWorld

grades_of = partial(caption_grades, StageWorld())

NOUNS = ("penguin", "rocket", "car")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of the stage in files of several kinds and sizes, with what is true of them."""
    folder = tmp_path_factory.mktemp("clips")
    world = StageWorld(
        StageConfig(
            nouns=NOUNS, verbs=("walk", "rise", "drive"), max_objects=1, cameras=("still",), split="all"
        )
    )
    files = []
    for seed, (name, height, width) in enumerate(
        (("a.mp4", 128, 128), ("b.mkv", 192, 320), ("c.webm", 240, 144))
    ):
        clip = world.clip(seed, height=height, width=width, num_frames=17)
        files.append((Video(clip.frames, clip.fps).save(folder / name), clip.truth))
    return files


def test_captions_say_what_is_true(clips, capsys):
    assert main(["caption", *(str(file) for file, _ in clips), "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in said] == [str(file) for file, _ in clips]
    verdicts = [grades_of(one["caption"], truth) for one, (_, truth) in zip(said, clips)]
    assert all(verdict["noun"] and verdict["ground"] and verdict["sky"] for verdict in verdicts), said
    assert all(0 < one["confidence"] <= 1 and one["seconds"] == pytest.approx(2.125) for one in said)


def test_styles_and_languages(clips, capsys):
    file, truth = str(clips[0][0]), clips[0][1]
    captions = {}
    for style in ("short", "medium", "detailed"):
        for language in ("en", "zh"):
            assert main(["caption", file, "--style", style, "--language", language]) == 0
            captions[style, language] = capsys.readouterr().out.strip()
    assert len(captions["short", "en"]) < len(captions["medium", "en"]) < len(captions["detailed", "en"])
    assert all(text.isascii() == (language == "en") for (_, language), text in captions.items())
    assert grades_of(captions["detailed", "zh"], truth)["noun"]
    assert captions["detailed", "en"].endswith(".")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("none.mp4", "no such file"),
        ("text.mp4", "text.mp4"),
        ("picture.png", "picture.png: 1 frame"),
        ("brief.mp4", "brief.mp4: 3 frames"),
    ],
)
def test_what_cannot_be_captioned_is_one_line(clips, tmp_path, monkeypatch, capsys, name, line):
    monkeypatch.chdir(tmp_path)
    frames = Video.read(clips[0][0]).frames
    (tmp_path / "text.mp4").write_text("no video")
    save_image(tmp_path / "picture.png", frames[0])
    Video(frames[:3], 8.0).save(tmp_path / "brief.mp4")
    assert main(["caption", name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said
    if name != "none.mp4":
        assert line in said


def test_a_folder_that_is_no_captioner_is_named(clips, tmp_path, capsys):
    assert main(["caption", str(clips[0][0]), "--model", str(tmp_path / "nowhere")]) == 2
    assert "no captioner in" in capsys.readouterr().err
