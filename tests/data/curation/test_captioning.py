"""Captions that are written in a build: drawn, checked, mixed, stored; by the captioner, an endpoint or a
file.
"""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from tests.data.curation.films import film, shot
from tests.endpoints import serving

from kinema.cli.main import main
from kinema.data.curation.caption_checks import caption_fault, choose_captions
from kinema.data.curation.recipe import CaptionSettings
from kinema.data.dataset import Dataset
from kinema.errors import ConfigError, EndpointError
from kinema.evaluation.captions import caption_grades
from kinema.video import save_image
from kinema.worlds.stage import StageConfig, StageWorld

grades_of = partial(caption_grades, StageWorld())

BY_MODEL = ("captions.writer=model", "captions.forms=['medium']")


def said(text: str, **values) -> dict:
    return {"text": text, "confidence": None, "agreement": None, "is_whole": True, **values}


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (said("a fox walks to the left on a grassy field"), ""),
        (said("一只狐狸在草地上向左行走"), ""),
        (said("a fox"), "too short: 2 words"),
        (said("fox " * 200), "too long: 200 words"),
        (said("a fox walks", is_whole=False), "too long: 3 words or cut off"),
        (said("the fox the fox the fox the fox the fox"), "repeats itself: 'the fox the' 4 times"),
        (said("I'm sorry, but I cannot describe this clip."), "not a caption: I'm sorry"),
        (said("a fox walks", confidence=0.1), "unsure: confidence 0.10"),
        (said("a fox walks", confidence=0.9, agreement=0.05), "does not fit the clip: agreement 0.05"),
        (said("a fox walks", confidence=0.9, agreement=0.5), ""),
    ],
)
def test_a_fault_is_named(one, why):
    assert caption_fault(one, CaptionSettings()).startswith(why)
    assert bool(caption_fault(one, CaptionSettings())) == bool(why)


def test_true_captions_of_the_world_have_no_fault():
    world = StageWorld(StageConfig(nouns=60, split="all"))
    for seed in range(60):
        for text in world.clip(seed, height=8, width=8, num_frames=1).captions.values():
            assert caption_fault(said(text), CaptionSettings()) == ""


def test_written_captions_take_the_share_that_is_asked_for_and_always_the_same_clips():
    original, written = {"original": "mine"}, {"medium": "its"}
    config = CaptionSettings(share=0.7)
    taken = [choose_captions(original, written, f"clip{i}", config) is written for i in range(2000)]
    assert sum(taken) / 2000 == pytest.approx(0.7, abs=0.03)
    assert taken == [choose_captions(original, written, f"clip{i}", config) is written for i in range(2000)]
    assert choose_captions({}, written, "a", CaptionSettings(share=0.0)) is written
    assert choose_captions(original, {}, "a", CaptionSettings(share=1.0)) is original


@pytest.fixture
def stage_films(tmp_path) -> tuple[Path, dict]:
    """Three clips of the stage in files, one with a caption beside it, and a picture."""
    place, truths = tmp_path / "in", {}
    world = StageWorld(
        StageConfig(nouns=24, verbs=("walk", "drive", "fly"), max_objects=1, cameras=("still",), split="all")
    )
    for seed in range(3):
        clip = world.clip(seed, height=128, width=128, num_frames=17)
        film(place / f"{seed}.mkv", clip.frames, fps=clip.fps)
        truths[f"{seed}.mkv"] = clip.truth
    (place / "1.txt").write_text("my own words for it")
    save_image(place / "picture.png", world.clip(9, height=128, width=128, num_frames=1).frames[0])
    return place, truths


def logs(out: Path) -> dict[str, dict]:
    """By file, what is known of the captions of its clip."""
    kept = Dataset(out).kept.to_pylist()
    return {
        row["name"]: {**json.loads(row["caption_log"]), "captions": json.loads(row["captions"])}
        for row in kept
    }


def test_the_captioner_writes_what_is_true_and_a_rerun_writes_nothing(stage_films, built, here, tmp_path):
    place, truths = stage_films
    out = tmp_path / "out"
    built(place, out, *BY_MODEL, "captions.share=0.0", "filters.min_sharpness=0")
    found = logs(out)
    for name, truth in truths.items():
        verdict = grades_of(found[name]["written"]["medium"], truth)
        assert [slot for slot in ("noun", "sky", "ground") if not verdict[slot]] == [], found[name]
    assert found["1.mkv"]["captions"] == {"original": "my own words for it"}
    assert found["1.mkv"]["used"] == "original"
    assert found["0.mkv"]["captions"] == found["0.mkv"]["written"]
    assert found["picture.png"]["refused"]["medium"].startswith("too few frames")
    (stage,) = (stage for stage in Dataset(out).card["stages"] if stage["stage"] == "caption")
    assert len(stage["parameters"]["weights"]) == 16

    here.done.clear()
    built(place, out, *BY_MODEL, "captions.share=1.0", "filters.min_sharpness=0")
    assert not any(line.startswith(("write_captions", "encode")) for line in here.done), (
        "a share and a threshold are no work"
    )
    assert logs(out)["1.mkv"]["used"] == "written"
    built(place, out, *BY_MODEL, "captions.seed=5", "filters.min_sharpness=0")
    assert {line.split()[0] for line in here.done} == {"write_captions"}


def test_captions_do_not_depend_on_the_other_clips(stage_films, built, tmp_path):
    place, _ = stage_films
    built(place, tmp_path / "all", *BY_MODEL, "filters.min_sharpness=0")
    (place / "0.mkv").unlink()
    built(place, tmp_path / "fewer", *BY_MODEL, "filters.min_sharpness=0")
    every, fewer = logs(tmp_path / "all"), logs(tmp_path / "fewer")
    assert {name: every[name] for name in fewer} == fewer


@pytest.fixture
def films(tmp_path) -> Path:
    place = tmp_path / "in"
    for seed in range(3):
        film(place / f"{seed}.mkv", shot(seed, 36))
    return place


def endpoint(url: str) -> tuple[str, ...]:
    return (
        "captions.writer=endpoint",
        f"captions.endpoint={url}",
        "captions.model=eyes",
        "captions.forms=['short']",
        "captions.tries=1",
    )


def test_an_endpoint_is_shown_frames_and_its_captions_are_checked(films, built, tmp_path):
    answers = iter(
        ['"a texture slides to the right"', "I'm sorry, I can't help with that.", "two words"]
        + ["an odd rest of a film"] * 9
    )
    with serving(lambda body: next(answers)) as (url, asked):
        built(films, tmp_path / "out", *endpoint(url), "captions.parallel=1")
    content = asked[0]["messages"][1]["content"]
    assert [part["type"] for part in content] == ["text"] + ["image_url"] * 4
    assert asked[0]["model"] == "eyes"
    assert "4 frames" in content[0]["text"]
    found = logs(tmp_path / "out")
    assert found["0.mkv"]["captions"] == {"short": "a texture slides to the right"}
    assert found["1.mkv"]["refused"]["short"].startswith("not a caption")
    assert found["2.mkv"]["refused"]["short"].startswith("too short")


def test_an_endpoint_that_fails_stops_the_build_and_it_goes_on_from_there(films, built, here, tmp_path):
    count = Counter()

    def answer(body):
        count["asked"] += 1
        return "a texture slides to the right" if count["asked"] != 2 else (401, b"no")

    with serving(answer) as (url, _):
        with pytest.raises(EndpointError, match=r"refused: HTTP 401.*finished captions are kept"):
            built(films, tmp_path / "out", *endpoint(url), "captions.parallel=1")
        assert count["asked"] == 2
        built(films, tmp_path / "out", *endpoint(url), "captions.parallel=1")
        clips = len(Dataset(tmp_path / "out"))
        assert count["asked"] == clips + 1, "none is asked for twice but the one that failed"
        built(films, tmp_path / "out", *endpoint(url), "captions.parallel=1", "captions.min_words=5")
        assert count["asked"] == clips + 1


def test_a_file_of_captions_stands_in_for_a_model(films, built, tmp_path):
    made = tmp_path / "made.jsonl"
    texts = {"short": "a blue slide", "detailed": "A texture slides. It is blue."}
    lines = [{"path": "0.mkv", "caption": texts}, {"path": "2.mkv", "caption": "no"}]
    made.write_text("".join(json.dumps(line) + "\n" for line in lines))
    built(
        films, tmp_path / "out", "captions.writer=file", f"captions.file={made}", "captions.min_agreement=-1"
    )
    found = logs(tmp_path / "out")
    assert found["0.mkv"]["captions"] == texts
    assert found["1.mkv"]["captions"] == {}
    assert found["2.mkv"]["refused"] == {"written": "too short: 1 words, at least 3"}


def test_a_caption_that_many_clips_have_is_refused(films, built, tmp_path):
    with serving(lambda body: "a video of something") as (url, _):
        funnel = built(films, tmp_path / "out", *endpoint(url), "captions.always_same=2")
    found = logs(tmp_path / "out")
    assert len(found) == 3
    assert all(log["refused"]["short"].startswith("duplicate: ") for log in found.values())
    assert any("refused: duplicate" in line for line in funnel.lines())


def test_a_caption_is_held_against_the_clip_where_its_words_are_known(stage_films, built, tmp_path):
    place, _ = stage_films
    wrong = {
        "medium": "a soccer ball bounces on the desert sand at night",
        "short": "a zeppelin hovers quietly",
    }
    texts = {f"{seed}.mkv": wrong for seed in range(3)}
    made = tmp_path / "made.jsonl"
    made.write_text(
        "".join(json.dumps({"path": name, "caption": text}) + "\n" for name, text in texts.items())
    )
    built(place, tmp_path / "out", "captions.writer=file", f"captions.file={made}", "filters.min_sharpness=0")
    found = logs(tmp_path / "out")
    for name in texts:
        assert found[name]["refused"]["medium"].startswith("does not fit the clip")
        assert found[name]["written"] == {"short": "a zeppelin hovers quietly"}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"share": 2}, "share = 2 is out of range: use 0 to 1"),
        ({"writer": "endpoint"}, "do not go together"),
        ({"endpoint": "http://a/v1"}, "do not go together"),
        ({"tries": 0}, "tries = 0 is out of range"),
        ({"max_words": 2}, "max_words >= min_words"),
    ],
)
def test_impossible_settings_are_refused(values, line):
    with pytest.raises(ConfigError, match=line):
        CaptionSettings(**values)


def test_a_bad_address_or_captioner_is_one_line(films, tmp_path, capsys):
    words = ["data", "build", str(films), "-o", str(tmp_path / "out"), "--set"]
    assert main([*words, "captions.writer=endpoint", "--set", "captions.endpoint=nowhere"]) == 2
    assert "'nowhere' is not the address of an endpoint" in capsys.readouterr().err
    assert main([*words, "captions.writer=model", "--set", f"captions.model={tmp_path}"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "out" / "shards").exists()
