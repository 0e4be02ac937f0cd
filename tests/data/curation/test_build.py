"""A folder of videos becomes a data set; done again it does what is left, and killed it loses nothing."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.curation.films import ODD, film, make, shot, texture

from kinema.checkpoints.components import load_vae
from kinema.cli.main import main
from kinema.data.curation.recipe import ClipSettings
from kinema.data.curation.steps.cut import target_frames, target_size
from kinema.data.curation.validate import dataset_problems
from kinema.data.dataset import Dataset
from kinema.errors import DataError
from kinema.models.pixels import from_uint8
from kinema.models.vae_conditioning import encode_conditioning
from kinema.video import Video, save_image

SOURCE = str(Path(__file__).parents[3] / "src")


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file that a data set is made of."""
    files = [
        p
        for p in folder.rglob("*")
        if p.is_file() and "work" not in p.relative_to(folder).parts and p.name != ".lock"
    ]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows(folder: Path) -> list[dict]:
    return Dataset(folder).clips.to_pylist()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three good films, one of them with a cut, and one file that is none."""
    place = tmp_path / "in"
    film(place / "one.mkv", shot(1, 40))
    film(place / "two.mkv", shot(2, 30), shot(3, 36))
    film(place / "tall.mkv", shot(4, 34, height=128, width=96))
    (place / "none.mp4").write_text("no video")
    (place / "one.txt").write_text("a slow slide\n")
    (place / "two.json").write_text(
        json.dumps(
            {
                "licence": "CC-BY-4.0",
                "caption": {"short": "two"},
                "clips": [{"start_s": 1.875, "end_s": 9, "caption": "the second"}],
            }
        )
    )
    return place


def test_what_is_encoded_is_what_was_shown(folder, built, tmp_path, model_folder):
    built(folder, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    kept = dataset.kept.to_pylist()
    assert [(row["name"], row["start_s"], row["num_frames"]) for row in kept] == [
        ("one.mkv", 0.0, 17),
        ("tall.mkv", 0.0, 17),
        ("two.mkv", 0.0, 13),
        ("two.mkv", 1.875, 17),
    ]
    assert [(row["height"], row["width"]) for row in kept] == [(64, 96), (96, 64), (64, 96), (64, 96)]
    frames = Video.read(folder / "tall.mkv").frames[0:34:2]
    import cv2

    small = np.stack([cv2.resize(p, (72, 96), interpolation=cv2.INTER_AREA)[:, 4:68] for p in frames])
    expected = encode_conditioning(load_vae(model_folder), from_uint8([small]), starts_canvas=True)[0]
    assert torch.allclose(dataset.latents(1).float(), expected, atol=2e-3, rtol=2e-3)


def test_captions_and_licences_come_from_beside_the_files(folder, built, tmp_path):
    built(folder, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert [dataset.captions(i) for i in range(4)] == [
        {"original": "a slow slide"},
        {},
        {"short": "two"},
        {"original": "the second"},
    ]
    assert list(dataset.column("licence")) == ["CC0", "CC0", "CC-BY-4.0", "CC-BY-4.0"]


def test_a_second_build_does_nothing_and_a_changed_one_only_what_depends_on_it(folder, built, here, tmp_path):
    out = tmp_path / "out"
    built(folder, out)
    first = contents(out)
    here.done.clear()
    built(folder, out)
    assert here.done == ["fingerprint none.mp4"], "only what failed to probe is tried again"
    assert contents(out) == first
    built(folder, out, "filters.min_motion=0.001", "dedup.max_bits=-1")
    assert not [line for line in here.done if not line.startswith("fingerprint none")]
    (folder / "one.txt").write_text("another caption")
    built(folder, out)
    assert not [line for line in here.done if not line.startswith("fingerprint none")]
    assert Dataset(out).captions(0) == {"original": "another caption"}
    film(folder / "zz.mkv", shot(9, 40))
    built(folder, out)
    assert [line for line in here.done if "none" not in line] == [
        "fingerprint zz.mkv",
        "analyze zz.mkv",
        "encode zz.mkv",
    ]
    here.done.clear()
    built(folder, out, "clips.area=4096")
    assert {line.split()[0] for line in here.done if "none" not in line} == {"encode"}
    here.done.clear()
    built(folder, out, "cuts.threshold=200", "clips.area=4096")
    assert "analyze two.mkv" in here.done
    assert not any("fingerprint one" in line for line in here.done)


def test_shards_hold_no_more_than_asked_and_old_ones_go(folder, built, tmp_path):
    out = tmp_path / "out"
    built(folder, out)
    built(folder, out, "work.shard_clips=2")
    assert len(list((out / "shards").iterdir())) == 2
    assert [
        line for line in dataset_problems(out) if "belongs to no clip" in line or line.startswith("error")
    ] == []


def test_a_file_that_is_renamed_is_not_looked_at_again(folder, built, here, tmp_path):
    built(folder, tmp_path / "out")
    here.done.clear()
    (folder / "tall.mkv").rename(folder / "a.mkv")
    built(folder, tmp_path / "out")
    assert [line for line in here.done if "none" not in line] == ["fingerprint a.mkv"]


def test_borders_are_cropped_dropped_or_kept(built, tmp_path):
    frames = np.zeros((40, 144, 128, 3), np.uint8)
    frames[:, 24:120] = shot(1, 40)
    film(tmp_path / "in" / "boxed.mkv", frames)
    boxes = {}
    for mode in ("crop", "keep"):
        built(tmp_path / "in", tmp_path / mode, f"clips.borders={mode}")
        row = rows(tmp_path / mode)[0]
        boxes[mode] = row["box_top"], row["box_left"], row["box_height"], row["box_width"]
    assert boxes == {"crop": (25, 0, 94, 128), "keep": (0, 0, 144, 128)}
    with pytest.raises(DataError, match="borders"):
        built(tmp_path / "in", tmp_path / "drop", "clips.borders=drop")


def test_duplicates_go_and_the_larger_one_stays(built, tmp_path):
    film(tmp_path / "in" / "a_small.mkv", shot(1, 40, height=96, width=128))
    large = np.repeat(np.repeat(shot(1, 40, height=96, width=128), 2, axis=1), 2, axis=2)
    film(tmp_path / "in" / "b_large.mkv", large)
    shutil.copy(tmp_path / "in" / "b_large.mkv", tmp_path / "in" / "c_copy.mkv")
    built(tmp_path / "in", tmp_path / "out")
    assert list(Dataset(tmp_path / "out").column("name")) == ["b_large.mkv"]
    assert [row["reason"] for row in Dataset(tmp_path / "out").sources.to_pylist()][
        2
    ] == "same bytes as another file: b_large.mkv"
    assert rows(tmp_path / "out")[0]["reason"].startswith("duplicate: of ")


def test_a_picture_is_a_clip_of_one_frame(built, tmp_path):
    (tmp_path / "in").mkdir()
    save_image(tmp_path / "in" / "picture.png", texture(1))
    built(tmp_path / "in", tmp_path / "out")
    assert Dataset(tmp_path / "out").latents(0).shape[1:] == (1, 4, 6)


# A quick selection of the odd files; `python tests/data/curation/films.py FOLDER` makes all.
SOME = [
    "empty.mp4",
    "text.mp4",
    "cut_off.mkv",
    "damaged.mp4",
    "sound_only.wav",
    "rotated.mp4",
    "varying_rate.mkv",
    "size_changes.ts",
]
MORE = [
    "odd_size.mkv",
    "ten_bit.mp4",
    "one_frame.mp4",
    "tiny.mp4",
    "slow.mp4",
    "black.mp4",
    "static.mp4",
    "broken_link.mp4",
    "pipe.mp4",
]


@pytest.mark.parametrize(
    "names", [SOME + MORE, pytest.param(list(ODD), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_odd_file_is_used_or_has_a_reason(built, tmp_path, names):
    make(tmp_path / "in", names)
    built(tmp_path / "in", tmp_path / "out", "work.error_budget=1")
    sources = {row["name"]: row for row in Dataset(tmp_path / "out").sources.to_pylist()}
    assert set(sources) == set(names) - {"folder.mp4"}
    assert all(row["verdict"] == "used" or row["reason"] for row in sources.values())
    assert {name for name in SOME + MORE if sources[name]["verdict"] == "quarantined"} == {
        *(
            "empty.mp4",
            "text.mp4",
            "cut_off.mkv",
            "damaged.mp4",
            "sound_only.wav",
            "size_changes.ts",
            "broken_link.mp4",
            "pipe.mp4",
        )
    }
    kept = {row["name"] for row in rows(tmp_path / "out") if row["verdict"] == "kept"}
    assert {"rotated.mp4", "varying_rate.mkv", "odd_size.mkv", "ten_bit.mp4", "one_frame.mp4"} <= kept
    assert (sources["rotated.mp4"]["height"], sources["rotated.mp4"]["width"]) == (128, 96)


def test_too_many_unusable_files_stop_the_build_and_what_is_done_stays(built, here, tmp_path):
    film(tmp_path / "in" / "good.mkv", shot(1, 40))
    for i in range(4):
        (tmp_path / "in" / f"bad{i}.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"4 of 5 files cannot be used.*bad0\.mp4: not a video"):
        built(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    built(tmp_path / "in", tmp_path / "out", "work.error_budget=1")


@pytest.mark.parametrize("moments", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(folder, built, tmp_path, model_folder, moments):
    """The real command, killed with SIGKILL after times spread over its length, until it is done."""
    built(folder, tmp_path / "whole")
    words = [sys.executable, "-m", "kinema", "data", "build", str(folder), "-o", str(tmp_path / "out")]
    for setting in (f"vae={model_folder}", "clips.area=8192", "licence=CC0"):
        words += ["--set", setting]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    rng = random.Random(0)
    kills = 0
    length_s = 2.0
    for attempt in range(4 * moments):
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        started = time.monotonic()
        try:
            code = process.wait(timeout=rng.uniform(0.3, 1) * length_s if kills < moments else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            length_s *= 1.3
            continue
        assert code == 0
        length_s = time.monotonic() - started
        if kills >= moments or attempt > 2 * moments:
            break
        shutil.rmtree(tmp_path / "out")  # it was done too soon to be killed
    assert kills
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_one_build_at_a_time(folder, built, tmp_path):
    from kinema.data.curation.store import only_builder

    with only_builder(tmp_path / "out"), pytest.raises(DataError, match="being built by another process"):
        built(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1080, 1920), (96, 160)),
        ((1920, 1080), (160, 96)),
        ((96, 128), (96, 128)),
        ((100, 900), (32, 384)),
        ((40, 40), (32, 32)),
        ((20, 300), (0, 0)),
    ],
)
def test_sizes_keep_the_shape_and_never_exceed_the_source(size, expected):
    assert target_size(*size, ClipSettings(area=128 * 128), 32) == expected


def test_a_crop_is_one_size_for_all():
    assert target_size(1080, 1920, ClipSettings(crop=(128, 128)), 32) == (128, 128)
    assert target_size(100, 1920, ClipSettings(crop=(128, 128)), 32) == (0, 0)


def test_lengths_are_four_k_and_one():
    assert [
        target_frames(s, ClipSettings(fps=8, max_frames=17, min_frames=5), 4)
        for s in (0.4, 0.6, 1.6, 2.125, 9)
    ] == [0, 5, 13, 17, 17]


def test_damage_to_a_data_set_is_named(folder, built, tmp_path, capsys):
    out = tmp_path / "out"
    built(folder, out)
    assert main(["data", "validate", str(out)]) == 0
    shard = next((out / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-100])
    assert main(["data", "validate", str(out)]) == 1
    assert f"{shard} is missing or damaged" in capsys.readouterr().out
    built(folder, out)
    assert main(["data", "validate", str(out)]) == 0, "a build mends it"


def test_show_tells_where_a_clip_comes_from(folder, built, tmp_path, capsys):
    built(folder, tmp_path / "out")
    clip_id = rows(tmp_path / "out")[0]["clip_id"]
    assert main(["data", "show", str(tmp_path / "out"), clip_id[:8]]) == 0
    said = capsys.readouterr().out
    assert all(
        word in said
        for word in (
            clip_id,
            "one.mkv",
            "licence            CC0",
            "kinema.data.curation.dedup",
            "max_bits",
            "a slow slide",
        )
    )
    assert main(["data", "show", str(tmp_path / "out"), "zzz"]) == 2
    assert "0 clips whose id begins with 'zzz'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["build", "nowhere", "-o", "out"], "nowhere: no such folder or list"),
        (["build", ".", "-o", "out"], "holds no file that could be a video"),
        (["build", ".", "-o", "out", "--set", "clips.fsp=3"], "did you mean 'fps'"),
        (
            ["build", ".", "-o", "out", "--set", "filters.min_contrast=3"],
            "min_contrast = 3.0 is out of",
        ),
        (["build", "list.csv", "-o", "out"], "list.csv, line 2: no path (columns here: file; needed: path)"),
        (["validate", "."], "is not a data set: it has no dataset.json"),
        (["show", ".", "a"], "is not a data set"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("file\na.mp4\n")
    assert main(["data", *words]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_list_names_files_captions_and_licences(folder, built, tmp_path):
    listing = tmp_path / "list.jsonl"
    listing.write_text(
        '{"path": "in/two.mkv", "caption": "listed", "licence": "X"}\n{"path": "in/gone.mkv"}\n'
    )
    (folder / "two.json").unlink()
    built(listing, tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert {row["name"]: row["reason"] for row in dataset.sources.to_pylist()} == {
        "in/two.mkv": "",
        "in/gone.mkv": "there is no such file",
    }
    assert dataset.captions(0) == {"original": "listed"}


def test_the_report_is_one_page_whose_clips_play(folder, built, tmp_path, capsys):
    import base64
    import re

    film(folder / "<b>.mkv", shot(5, 40, speed=0))
    built(folder, tmp_path / "out")
    assert main(["data", "report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    movies = re.findall(r'base64,([^"]+)"', page)
    verdicts = [row["verdict"] for row in rows(tmp_path / "out")]
    assert verdicts.count("kept") == 4
    assert len(movies) == len(verdicts), "four kept, a static one and the rests that are too short"
    (tmp_path / "clip.mp4").write_bytes(base64.b64decode(movies[0]))
    assert Video.read(tmp_path / "clip.mp4").num_frames == 17
    assert "<b>.mkv" not in page
    assert "&lt;b&gt;.mkv" in page
    assert not re.findall(r'(?:src|href)="http', page)
    assert ">motion, frame diagonals per second</text>" in page, "plots have labelled axes"
    assert all(word in page for word in ("Funnel", "static", "a slow slide", "not a video"))
