"""Scores of readers that are known: one that sees the truth, one that guesses."""

import pytest

from kinema.checkpoints.manifest import load_manifest
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.evaluation.alignment import ALL_SLOTS, alignment_rows, shuffled_accuracies, slot_accuracies
from kinema.evaluation.samples import ClipFormat, draw_samples, trained_world
from kinema.evaluation.trust import OracleAccuracy, scored_slots
from kinema.worlds.stage import StageConfig, StageWorld, is_held_out

SHOWN = ClipFormat(32, 32, 17, 8.0)


def test_the_truth_is_right_in_every_slot(stage, read_truth):
    samples = draw_samples(stage, "held_out", 40, SHOWN)
    readings = [read_truth(sample.truth) for sample in samples]
    asked = [sample.asked for sample in samples]
    assert set(slot_accuracies(readings, asked, scored_slots(stage)).values()) == {1.0}


def test_the_floor_is_the_mean_over_all_pairs(stage, read_truth):
    samples = draw_samples(stage, "seen", 25, SHOWN)
    readings = [read_truth(sample.truth) for sample in samples]
    floor = shuffled_accuracies(readings, [sample.asked for sample in samples], scored_slots(stage))
    pairs = [(a, b) for i, a in enumerate(samples) for j, b in enumerate(samples) if i != j]
    for slot in ("noun", "ground", "direction"):
        asked = [(a.truth, b.asked) for a, b in pairs if slot in b.asked]
        assert floor[slot] == pytest.approx(sum(a[slot] == b[slot] for a, b in asked) / len(asked))
    assert floor[ALL_SLOTS] < 0.01


def test_a_reader_that_always_says_the_same_scores_as_much_as_the_floor_says(stage, read_truth):
    samples = draw_samples(stage, "seen", 60, SHOWN)
    same = [read_truth(samples[0].truth)] * len(samples)
    asked = [sample.asked for sample in samples]
    right, floor = (
        shares(same, asked, scored_slots(stage)) for shares in (slot_accuracies, shuffled_accuracies)
    )
    assert right["sky"] == pytest.approx(floor["sky"], abs=0.02)


def test_no_relative_figure_without_trust(stage, read_truth):
    samples = draw_samples(stage, "seen", 5, SHOWN)
    readings, asked = [read_truth(one.truth) for one in samples], [one.asked for one in samples]
    assert all(
        "relative" not in row
        for row in alignment_rows(readings, readings, asked, ("noun",), relative=False).values()
    )
    assert alignment_rows(readings, readings, asked, ("noun",), relative=True)["noun"]["relative"] == 1


def test_trust_needs_every_slot_on_both_kinds():
    good = {"noun": 0.99, "verb": 0.98}
    assert not OracleAccuracy(good, {"noun": 0.95, "verb": 0.96}, 200, 64).failures
    assert "verb 97.0% of fresh" in OracleAccuracy({**good, "verb": 0.97}, good, 200, 64).failures[0]
    assert "not measured" in OracleAccuracy(good, {}, 200, 0).failures[0]


def test_held_out_prompts_are_of_pairs_that_training_never_showed(stage):
    for split in ("held_out", "seen"):
        for sample in draw_samples(stage, split, 40, SHOWN):
            noun = sample.truth["noun"]
            reserved = [
                is_held_out(noun, sample.truth[kind], kind=kind, salt=stage.config.salt)
                for kind in ("verb", "ground")
            ]
            assert any(reserved) == (split == "held_out")


def test_the_prompts_are_the_captions_of_the_clips_at_any_size(stage):
    small, large = (draw_samples(stage, "seen", 5, shown) for shown in (SHOWN, ClipFormat(128, 128, 17, 8.0)))
    assert [one.prompt for one in small] == [one.prompt for one in large]


def test_slots_with_one_value_are_not_scored(stage):
    assert set(scored_slots(stage)) == {"noun", "verb", "direction", "ground", "sky", "size"}


def test_an_empty_sample_is_refused(stage):
    with pytest.raises(RequestError, match="prompts=0"):
        draw_samples(stage, "seen", 0, SHOWN)


def test_a_stage_that_held_nothing_out_is_refused():
    with pytest.raises(ConfigError, match=r"nothing was held out.*--seen"):
        draw_samples(StageWorld(StageConfig(nouns=4, max_objects=1, split="all")), "held_out", 5, SHOWN)


def test_a_model_without_the_words_of_the_world_is_refused(model_folder, stage_model, stage):
    with pytest.raises(ModelError, match="names no world and no vocabulary"):
        trained_world(load_manifest(model_folder))
    assert trained_world(load_manifest(stage_model)).config == stage.config
