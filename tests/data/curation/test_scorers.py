"""Scores beyond the cheap ones: a recipe's own functions, captions that fit, files that look alike; each drop
has its reason.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.data.curation.films import film, shot

from kinema.data.curation import plug_ins
from kinema.data.curation.cuts import BLACK, in_shots
from kinema.data.curation.dedup import ClipEmbedding, look_alikes
from kinema.data.curation.overlay import share
from kinema.data.curation.recipe import AgreementSettings, CutSettings
from kinema.data.dataset import Dataset
from kinema.errors import ConfigError
from kinema.video.scanning import ScannedFrame

HERE = "tests.data.curation.plug_ins"


def rows(folder: Path) -> list[dict]:
    return Dataset(folder).clips.to_pylist()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A film, a red one, and one with words beside it."""
    for seed, (name, channel) in enumerate((("plain", 0), ("red", 2), ("told", 0)), start=1):
        frames = shot(seed, 34)
        frames[..., channel] //= 4
        film(tmp_path / "in" / f"{name}.mkv", frames)
    (tmp_path / "in" / "told.txt").write_text("the red fox runs")
    return tmp_path / "in"


def test_a_scorer_of_the_recipe_drops_with_its_reason_and_is_asked_once(folder, built, here, tmp_path):
    settings = (f'scorers.redness.function="{HERE}:redness"', "scorers.redness.max=0.05")
    built(folder, tmp_path / "data", *settings)
    for row in rows(tmp_path / "data"):
        score = json.loads(row["scores"])["redness"]
        assert (row["verdict"] == "dropped") == (row["name"] == "red.mkv") == (score > 0.05)
        if row["verdict"] == "dropped":
            assert row["reason"] == f"redness: score {score:.3g}, at most 0.05"
    here.done.clear()
    built(folder, tmp_path / "data", *settings[:1], "scorers.redness.max=1.0")
    assert {done.split()[0] for done in here.done} == {"encode"}, "a moved threshold scores nothing again"
    assert all(row["verdict"] == "kept" for row in rows(tmp_path / "data"))


def test_a_caption_that_does_not_fit_drops_its_clip(folder, built, model_folder, tmp_path):
    built(folder, tmp_path / "data", f"agreement.clip={model_folder}", "agreement.min_caption=0.9999")
    for row in rows(tmp_path / "data"):
        if row["name"] == "told.mkv":
            assert row["reason"].startswith("caption does not fit: cosine")
            assert -1 <= json.loads(row["scores"])["caption"] < 0.9999
        else:
            assert (row["verdict"], row["scores"]) == ("kept", "{}"), (
                "without a caption there is nothing to fit"
            )


def test_files_that_look_alike_are_kept_once(folder, built, model_folder, tmp_path):
    built(folder, tmp_path / "data", f"agreement.clip={model_folder}", "agreement.max_same=-0.9999")
    kept = {row["name"] for row in rows(tmp_path / "data") if row["verdict"] == "kept"}
    assert len(kept) == 1, "the clips of one file are not compared"
    for row in rows(tmp_path / "data"):
        if row["verdict"] == "dropped":
            assert row["reason"].startswith(f"looks like another: {next(iter(kept))} at ")


def test_look_alikes_are_those_above_the_cosine():
    unit = {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.6, 0.8], "d": [1.0, 0.0]}
    clips = [
        ClipEmbedding(name, file, np.array(unit[name]))
        for name, file in (("a", "1"), ("b", "2"), ("c", "3"), ("d", "1"))
    ]
    assert [(one, other) for one, other, _ in look_alikes(clips, 0.9)] == [("c", "b")]
    assert [(one, other, round(cosine, 6)) for one, other, cosine in look_alikes(clips, 0.7)] == [
        ("b", "a", 0.8)
    ]
    assert not list(look_alikes(clips, 1.0))


def test_a_scorer_that_is_none_is_said_before_the_work(folder, built, here, tmp_path):
    for name, said in (
        ("nowhere:f", "cannot be imported"),
        (f"{HERE}:f", "no function"),
        ("f", "write module:function"),
    ):
        with pytest.raises(ConfigError, match=said):
            built(folder, tmp_path / "data", f'scorers.x.function="{name}"')
    assert not here.done
    with pytest.raises(ConfigError, match="gave nan, which is not a finite number"):
        plug_ins.run_scorer(f"{HERE}:nothing", np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match="is a cosine"):
        AgreementSettings(max_same=2)


def frames(pictures: np.ndarray) -> list[ScannedFrame]:
    return [ScannedFrame(i / 16, 1 / 16, picture, *picture.shape[:2]) for i, picture in enumerate(pictures)]


def test_a_cut_detector_of_the_recipe_cuts():
    pictures = shot(1, 35)
    pictures[12:14] = 0
    found = [number for number, _ in in_shots(frames(pictures), CutSettings(detector=f"{HERE}:every_tenth"))]
    assert found == [0] * 10 + [1] * 2 + [BLACK] * 2 + [2] * 6 + [3] * 10 + [4] * 5
    with pytest.raises(ConfigError, match="left 35 frames without an answer"):
        list(in_shots(frames(pictures), CutSettings(detector=f"{HERE}:silent")))
    with pytest.raises(ConfigError, match="module:function"):
        CutSettings(detector="transnet")


def test_words_that_stand_still_over_a_moving_picture_are_text():
    moving = shot(4, 9, speed=3, height=144, width=256)
    assert share(moving) == 0
    subtitled = np.stack(
        [
            cv2.putText(f.copy(), "a subtitle of a film", (20, 130), 0, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
            for f in moving
        ]
    )
    covered = share(subtitled)
    assert 0.01 < covered < 0.2
    sliding = np.stack([np.roll(frame, 9 * i, axis=1) for i, frame in enumerate(subtitled)])
    assert share(sliding) < covered / 2, "what moves with the picture is in it, not over it"
