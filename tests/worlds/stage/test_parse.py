"""What a caption says is read back from its words."""

from functools import partial

import pytest

from kinema.evaluation.captions import caption_grades
from kinema.worlds.stage import StageConfig, StageWorld
from kinema.worlds.stage.nouns import NOUNS
from kinema.worlds.stage.parse import CAPTION_SLOTS, parse_caption

grades_of = partial(caption_grades, StageWorld())

FULL = ("medium", "detailed", "medium_zh", "detailed_zh")


def test_every_caption_of_the_whole_world_is_read_as_it_was_meant():
    world = StageWorld(StageConfig(nouns=len(NOUNS), split="all"))
    for seed in range(150):
        clip = world.clip(seed, height=8, width=8, num_frames=1)
        for form in FULL:
            assert all(grades_of(clip.captions[form], clip.truth).values()), clip.captions[form]


def test_a_foil_is_wrong_in_its_slot_and_in_no_other():
    world = StageWorld(StageConfig(nouns=24, max_objects=1, cameras=("still",), split="all"))
    seen = set()
    for seed in range(60):
        clip = world.clip(seed, height=8, width=8, num_frames=1)
        caption, slot = world.foil(clip, seed)
        if slot in CAPTION_SLOTS:
            seen.add(slot)
            assert {name for name, right in grades_of(caption, clip.truth).items() if not right} == {slot}, (
                caption
            )
    assert seen == set(CAPTION_SLOTS)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a horse walks", {"noun": "horse", "verb": "walk"}),
        (
            "under an orange sunset sky, two foxes hop to the left",
            {"noun": "fox", "verb": "hop", "direction": "left", "sky": "sunset"},
        ),
        ("a ball falls down on grass and then rolls on", {"verb": "fall"}),
        (
            "夜晚，一只企鹅在雪地上向右行走",
            {"noun": "penguin", "verb": "walk", "direction": "right", "ground": "snow", "sky": "night"},
        ),
        ("a quiet afternoon", {}),
        ("", {}),
    ],
)
def test_what_is_not_said_is_none(caption, expected):
    assert parse_caption(caption) == {slot: expected.get(slot) for slot in CAPTION_SLOTS}


def test_a_direction_where_there_is_none_is_wrong():
    truth = {"noun": "rocket", "verb": "rise", "direction": "up", "ground": "snow", "sky": "night"}
    truth |= {"count": 1, "size": "regular", "camera": "still"}
    assert all(grades_of("a rocket rises on a snowy plain at night", truth).values())
    assert not grades_of("a rocket rises to the left on a snowy plain at night", truth)["direction"]
