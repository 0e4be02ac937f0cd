"""What is measured of a task is what it says: the truth scores as truth, a frozen picture as frozen.

A folder goes on where it stopped.
"""

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from kinema.checkpoints.oracle import load_oracle
from kinema.cli.main import main
from kinema.errors import OutputError, UnknownName
from kinema.evaluation import (
    TimelineConfig,
    evaluate_timeline,
    timeline_metrics,
    timeline_table,
    write_timeline_page,
)
from kinema.evaluation.samples import trained_world, world_of
from kinema.evaluation.timeline_cases import (
    GAP,
    KNOWN,
    NEW,
    TIMELINE_TASKS,
    Case,
    edit_region,
    edit_target,
    plain_extension,
)
from kinema.evaluation.trust import noun_in
from kinema.generation.conditioning.tasks import TaskRequest
from kinema.generation.loading import load
from kinema.generation.pipeline import Pipeline
from kinema.models.oracle import Reading

SIZE: dict[str, Any] = {"width": 48, "height": 32}
QUICK = TimelineConfig(cases=2, long_seconds=4, steps=1, **SIZE)


@pytest.fixture(scope="module")
def pipeline(stage_model):
    return load(stage_model)


@pytest.fixture(scope="module")
def world(pipeline):
    return world_of(trained_world(pipeline.manifest), "seen")


@pytest.fixture(scope="module")
def evaluated(pipeline, untrained_oracle, tmp_path_factory):
    out = tmp_path_factory.mktemp("timeline") / "out"
    return out, evaluate_timeline(pipeline, QUICK, out, oracle_folder=untrained_oracle)


class TruthReader:
    """An oracle that reads the truth of one clip, whatever it is shown."""

    def __init__(self, config, truth):
        self.config, self.truth = config, truth

    def read(self, clips, fps):
        tracks = self.truth["objects"][0]["tracks"]
        columns = {name: np.array(tracks[name])[:, None] for name in ("x", "y", "size", "visible")}
        answers = {slot: str(self.truth[slot]) for slot in self.config.slots}
        return [Reading(answers, **columns) for _ in clips]


@pytest.fixture
def rolling(untrained_oracle, stage):
    """A clip of something that rolls, and an oracle that knows all of it."""
    seed = next(
        seed
        for seed in range(100)
        if stage.clip(seed, height=8, width=8, num_frames=2).truth["verb"] == "roll"
    )
    clip = stage.clip(seed, height=64, width=64, num_frames=17)
    asked = stage.named_slots(clip.truth)
    oracle = TruthReader(load_oracle(untrained_oracle).config, clip.truth)
    return clip, partial(timeline_metrics.measure_join, oracle=oracle, asked=asked)


def test_the_truth_moves_as_the_truth_and_a_frozen_picture_fails(rolling):
    clip, measure = rolling
    known, new = [slice(0, 9)], slice(9, None)
    true = measure(clip.frames, clip, known, new, round_trip=clip.frames)
    assert true.motion_ceiling == pytest.approx(1)
    assert (true.motion, true.truth, true.kept, true.noun, true.place) == (pytest.approx(1), 0, True, True, 0)
    assert true.law  # what the renderer draws rolls without slipping
    frozen = np.concatenate([clip.frames[:9], np.repeat(clip.frames[8:9], 8, axis=0)])
    still = measure(frozen, clip, known, new, round_trip=clip.frames // 2)
    assert still.motion_ceiling == pytest.approx(
        0.5, abs=0.1
    )  # of frames of half the contrast, not of the result
    assert (still.motion, still.truth) == (0, pytest.approx(1))
    assert not still.is_good
    flash = clip.frames.copy()
    flash[9:] = 255 - flash[9:]
    assert measure(flash, clip, known, new, round_trip=clip.frames).seam > 10
    flash[0] += 1
    assert not measure(flash, clip, known, new, round_trip=clip.frames).kept


def test_a_join_behind_the_new_part_is_measured_there(rolling):
    clip, measure = rolling
    frames = clip.frames.copy()
    frames[:8] = np.roll(frames[:8], 7, axis=2)
    errors = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    measured = measure(frames, clip, [slice(8, 17)], slice(0, 8), round_trip=clip.frames)
    assert measured.seam == pytest.approx(errors[7] / np.median(errors))
    assert measured.blend == pytest.approx(max(errors[3:8]) / np.median(errors))


def test_a_loop_that_turns_closes_and_a_clip_that_ends_elsewhere_does_not(untrained_oracle):
    oracle = load_oracle(untrained_oracle)
    gradient = np.tile(np.abs(np.arange(-32, 32))[None, :, None] * 8, (64, 1, 3)).astype(np.uint8)
    turn = np.stack([np.roll(gradient, 4 * i, axis=1) for i in range(16)])
    assert timeline_metrics.measure_loop(turn, turn, "fox", oracle).is_good
    assert not timeline_metrics.measure_loop(turn[:8], turn, "fox", oracle).is_good
    assert not timeline_metrics.measure_loop(np.repeat(turn[:1], 16, axis=0), turn, "fox", oracle).is_good


def test_drift_is_compared_number_by_number():
    assert (
        timeline_metrics.drift_ratio(
            {"red": 1.0, "blue": -2.0, "sharpness": 1.0}, {"red": 3.0, "blue": 8.0, "sharpness": -5.0}
        )
        == 4
    )


def test_a_yes_or_no_has_a_share_and_a_number_a_median():
    results = [
        timeline_metrics.LongMetrics(True, None, 4.0),
        timeline_metrics.LongMetrics(False, True, 2.0),
        timeline_metrics.LongMetrics(None, None, 6.0),
    ]
    summary = timeline_metrics.summarize(results)
    assert summary["good"] == pytest.approx(
        2 / 3
    )  # a case in which the noun was never there says nothing of it
    assert summary["noun"] == {"num": 2, "share": 0.5}
    assert summary["drift"] == {"num": 3, "median": 4.0, "within": pytest.approx(2 / 3)}


def test_edits_ask_for_what_the_clip_does_not_show_where_it_would_be(pipeline, world):
    for index in range(8):
        case = Case(index, world, pipeline, SIZE, KNOWN + GAP)
        slot, asked = edit_target(case)
        assert asked != case.clip.truth[slot]
        x, y, w, h = edit_region(case, slot)
        assert 0 <= x < x + w <= 48
        assert 0 <= y < y + h <= 32
        if slot == "ground":
            assert (x, w, y + h) == (0, 48, 32)


def test_what_lasts_is_in_view_at_the_end(pipeline, world):
    case = Case(0, world, pipeline, SIZE, 160, stays_in_view=True)
    assert (
        min(case.clip.truth["objects"][0]["tracks"]["visible"][-2 * KNOWN :]) >= timeline_metrics.MIN_VISIBLE
    )


def test_plain_extension_is_as_long_and_goes_on_from_what_it_has(pipeline, world):
    case = Case(0, world, pipeline, {**SIZE, "steps": 1}, 36)
    frames = plain_extension(case)
    assert len(frames) == 36
    assert np.array_equal(frames[:17], case.run(TaskRequest(replace(case.request, frames=17), {})))


def test_every_task_is_measured(evaluated):
    out, report = evaluated
    assert list(report["tasks"]) == list(TIMELINE_TASKS)
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == report
    assert all(row["cases"] == 2 for row in report["tasks"].values())
    assert all(report["tasks"][name]["kept"]["share"] == 1 for name in ("forward", "backward", "connect"))
    assert report["tasks"]["edit"]["outside"]["share"] == 1
    assert "extend backward" in timeline_table(report)


def test_the_page_shows_every_case(evaluated):
    out, report = evaluated
    page = write_timeline_page(report, out).read_text(encoding="utf-8")
    assert page.count("data:video/mp4;base64,") == 2 * len(TIMELINE_TASKS)
    assert all(case["prompt"] in page for case in report["cases"])


def test_cases_that_are_there_are_not_made_again(evaluated, pipeline, untrained_oracle, monkeypatch):
    out, report = evaluated
    gone = out / "clips" / "backward-0001.mkv"
    gone.unlink()
    made, run = [], Pipeline.run
    monkeypatch.setattr(
        Pipeline, "run", lambda self, request, **rest: made.append(request) or run(self, request, **rest)
    )
    assert evaluate_timeline(pipeline, QUICK, out, oracle_folder=untrained_oracle) == report
    assert len(made) == 1
    assert made[0].conditions[0].at_s == NEW / 8


def test_another_way_of_sampling_and_another_task_are_refused(evaluated, pipeline, untrained_oracle):
    out, _ = evaluated
    with pytest.raises(OutputError, match="evaluation of another sampling and options"):
        evaluate_timeline(
            pipeline,
            TimelineConfig(cases=1, long_seconds=4, steps=2, **SIZE),
            out,
            oracle_folder=untrained_oracle,
        )
    with pytest.raises(UnknownName, match="known: backward, connect, edit, forward, long, loop"):
        TimelineConfig(tasks=("extend",))


def test_the_noun_of_a_single_frame_can_be_read(untrained_oracle, rolling):
    oracle = load_oracle(untrained_oracle)
    assert noun_in(oracle, rolling[0].frames[:1]) in oracle.config.slots["noun"]


def test_the_verb_measures_the_tasks_that_are_named(stage_model, untrained_oracle, tmp_path, capsys):
    words = [
        "evaluate",
        str(stage_model),
        "--task",
        "loop",
        "--cases",
        "1",
        "--steps",
        "1",
        "--size",
        "48x32",
    ]
    assert main([*words, "--oracle", str(untrained_oracle), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "loop: " in printed
    assert "extend" not in printed
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.parametrize(
    ("options", "line"),
    [(["--cases", "3"], "--cases needs --tasks"), (["--tasks", "--seen"], "has no effect with")],
)
def test_options_of_the_other_kind_are_refused(stage_model, capsys, options, line):
    assert main(["evaluate", str(stage_model), *options]) == 2
    assert line in capsys.readouterr().err
