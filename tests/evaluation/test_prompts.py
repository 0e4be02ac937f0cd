"""A whole evaluation of a tiny model: its files, its refusals, and that it goes on where it stopped."""

import dataclasses
import json

import pytest
import torch

from kinema.checkpoints.components import save_component
from kinema.errors import ModelError, OutputError, RequestError
from kinema.evaluation import PromptsConfig, evaluate_prompts, prompts, prompts_table, write_prompts_page
from kinema.generation.loading import load
from kinema.models.oracle import Oracle, OracleConfig
from kinema.worlds.stage import StageConfig, StageWorld

QUICK = PromptsConfig(prompts=2, steps=1, num_fresh=4, num_round_trips=1, num_vae_clips=1, num_clip_clips=1)


@pytest.fixture(scope="module")
def pipeline(stage_model):
    return load(stage_model)


@pytest.fixture(scope="module")
def evaluated(pipeline, untrained_oracle, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "out"
    return out, evaluate_prompts(pipeline, QUICK, out, oracle_folder=untrained_oracle)


def test_an_oracle_that_cannot_read_gives_no_relative_figure(evaluated):
    _, report = evaluated
    assert report["oracle"]["failures"]
    assert "No relative scores" in prompts_table(report)
    assert all(
        "relative" not in row for found in report["splits"].values() for row in found["slots"].values()
    )


def test_the_report_says_what_the_vocabulary_lacks(evaluated):
    _, report = evaluated
    assert (
        report["physics"]["momentum"] == report["physics"]["permanence"] == "not in this model's vocabulary"
    )


def test_the_report_is_plain_json_of_every_clip(evaluated):
    out, report = evaluated
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == report
    assert [clip["split"] for clip in report["clips"]] == ["held_out"] * 2 + ["seen"] * 2
    assert {"noun", "verb", "sky"} <= set(report["clips"][0]["right"]) | {"direction"}
    assert report["vae"]["psnr_db"] > 0
    assert 0 <= report["clip"]["foil"] <= 1


def test_the_page_holds_every_video(evaluated):
    out, report = evaluated
    page = write_prompts_page(report, out).read_text(encoding="utf-8")
    assert page.count("data:video/mp4;base64,") == 4
    assert all(clip["prompt"] in page for clip in report["clips"])
    assert 'src="http' not in page
    assert page.count('class="right"') + page.count('class="wrong"') == sum(
        len(clip["right"]) for clip in report["clips"]
    )


def test_clips_that_are_there_are_not_made_again(evaluated, pipeline, untrained_oracle, monkeypatch):
    out, report = evaluated
    before = {file: file.stat().st_mtime_ns for file in (out / "clips").iterdir()}
    gone = sorted(before)[1]
    gone.unlink()
    made = []
    run = pipeline.run
    monkeypatch.setattr(pipeline, "run", lambda request: made.append(request) or run(request))
    assert evaluate_prompts(pipeline, QUICK, out, oracle_folder=untrained_oracle) == report
    assert len(made) == 1
    assert {file for file in before if file.stat().st_mtime_ns != before[file]} == {gone}


def test_a_folder_of_other_settings_is_refused(evaluated, pipeline, untrained_oracle, tmp_path):
    out, _ = evaluated
    with pytest.raises(OutputError, match="evaluation of another sampling"):
        evaluate_prompts(pipeline, dataclasses.replace(QUICK, steps=2), out, oracle_folder=untrained_oracle)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="in the way"):
        evaluate_prompts(pipeline, QUICK, tmp_path, oracle_folder=untrained_oracle)


def test_an_oracle_of_other_words_is_refused_before_any_work(pipeline, tmp_path):
    slots = StageWorld(StageConfig(nouns=("duck", "bus"), max_objects=1, split="all")).slots
    torch.manual_seed(0)
    save_component(tmp_path / "oracle", Oracle(OracleConfig(slots, width=8, short_side_px=32)))
    with pytest.raises(ModelError, match=r"cannot read what tiny knows: noun .*rocket.*--oracle"):
        evaluate_prompts(pipeline, QUICK, tmp_path / "out", oracle_folder=tmp_path / "oracle")
    assert not (tmp_path / "out").exists()


def test_clips_too_short_for_motion_are_refused(pipeline, untrained_oracle, tmp_path):
    with pytest.raises(RequestError, match="use at least 9"):
        evaluate_prompts(
            pipeline, dataclasses.replace(QUICK, frames=5), tmp_path / "out", oracle_folder=untrained_oracle
        )


def test_no_prompts_and_no_split_are_refused():
    with pytest.raises(RequestError, match="prompts=0"):
        PromptsConfig(prompts=0)
    with pytest.raises(RequestError, match="splits is empty"):
        PromptsConfig(splits=())


def test_the_trial_of_the_oracle_goes_on_where_it_stopped(
    evaluated, pipeline, untrained_oracle, tmp_path, monkeypatch
):
    monkeypatch.setattr(prompts, "SAVE_EVERY", 2)

    def stop(stage, done, total):
        if (stage, done) == ("measuring the oracle", 3):
            raise KeyboardInterrupt

    trust = tmp_path / "trust.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate_prompts(
            pipeline,
            QUICK,
            tmp_path / "out",
            oracle_folder=untrained_oracle,
            trust_file=trust,
            on_progress=stop,
        )
    kept = json.loads(trust.read_text(encoding="utf-8"))
    assert set(kept["grades"]) == {"0", "1"}
    assert "trust" not in kept
    whole = evaluated[1]["oracle"]["trust"]
    assert (
        evaluate_prompts(pipeline, QUICK, tmp_path / "out", oracle_folder=untrained_oracle, trust_file=trust)[
            "oracle"
        ]["trust"]
        == whole
    )
