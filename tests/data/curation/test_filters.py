"""Every rule of the filters, row by row: kept at its limit, dropped with its name beyond it."""

from dataclasses import replace

import pytest

from kinema.config import from_dict
from kinema.data.curation.filters import CLIP_RULES, drop_reason, score_drop_reason
from kinema.data.curation.recipe import DataRecipe
from kinema.data.dataset import ClipRow

RECIPE = DataRecipe()
GOOD = ClipRow(
    clip_id="a",
    source_id="b",
    name="a.mp4",
    licence="CC0",
    shot=0,
    is_still=False,
    start_s=0.0,
    end_s=2.0,
    num_source_frames=32,
    source_fps=16.0,
    source_height=96,
    source_width=128,
    box_top=0,
    box_left=0,
    box_height=96,
    box_width=128,
    brightness=0.5,
    contrast=0.2,
    sharpness=100.0,
    motion=0.1,
    border=0.0,
    hash="0",
    height=96,
    width=128,
    num_frames=17,
    fps=8.0,
    captions="{}",
    verdict="kept",
    reason="",
)

# rule, values at the limit, values beyond it, the detail of the reason, whether the rule holds for stills too
ROWS = [
    ("too short", {"num_frames": 9}, {"num_frames": 0}, "2.00 s, at least 9 frames at 8 a second", False),
    ("too small", {"box_height": 64}, {"box_height": 63}, "shorter side in pixels 63, at least 64", True),
    ("too small", {"width": 32}, {"width": 0}, "not one token of the VAE's fits into it", True),
    ("too few frames a second", {"source_fps": 6.0}, {"source_fps": 5.9}, "rate 5.9, at least 6", False),
    ("borders", {"border": 0.5}, {"border": 0.51}, "share of the picture 0.51, at most 0.5", True),
    ("too dark", {"brightness": 0.06}, {"brightness": 0.05}, "mean brightness 0.05, at least 0.06", True),
    ("too bright", {"brightness": 0.94}, {"brightness": 0.95}, "mean brightness 0.95, at most 0.94", True),
    ("too flat", {"contrast": 0.03}, {"contrast": 0.02}, "contrast 0.02, at least 0.03", True),
    ("blurred", {"sharpness": 20.0}, {"sharpness": 19.0}, "sharpness 19, at least 20", True),
    ("static", {"motion": 0.005}, {"motion": 0.004}, "diagonals a second 0.004, at least 0.005", False),
    ("too fast", {"motion": 1.5}, {"motion": 1.6}, "diagonals a second 1.6, at most 1.5", False),
]


@pytest.mark.parametrize(("rule", "at_limit", "beyond", "detail", "holds_for_stills"), ROWS)
def test_a_rule_keeps_its_limit_and_drops_beyond_it(rule, at_limit, beyond, detail, holds_for_stills):
    assert drop_reason(replace(GOOD, **at_limit), RECIPE) == ""
    assert drop_reason(replace(GOOD, **beyond), RECIPE) == f"{rule}: {detail}"
    still = replace(GOOD, is_still=True, **beyond)
    assert drop_reason(still, RECIPE) == (f"{rule}: {detail}" if holds_for_stills else "")


def test_every_rule_has_a_row():
    assert {row[0] for row in ROWS} == set(CLIP_RULES)


def test_the_reason_is_that_of_the_first_rule_broken():
    assert drop_reason(replace(GOOD, num_frames=0, motion=0.0), RECIPE).startswith("too short:")


def test_borders_drop_a_clip_if_the_recipe_says_so():
    recipe = from_dict(DataRecipe, {"clips": {"borders": "drop"}})
    assert drop_reason(replace(GOOD, border=0.01), recipe) == "borders: has black borders"


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ({"caption": 0.3, "overlay": 0.1}, ""),
        ({"overlay": 0.1}, ""),
        ({"caption": 0.29, "overlay": 0.1}, "caption does not fit: cosine 0.29, at least 0.3"),
        ({"caption": 0.3, "overlay": 0.21}, "overlay: score 0.21, at most 0.2"),
        ({"caption": 0.3, "overlay": 0.04}, "overlay: score 0.04, at least 0.05"),
    ],
)
def test_further_scores_drop_with_their_name(scores, reason):
    scorer = {"function": "kinema.data.curation.overlay:share", "min": 0.05, "max": 0.2}
    recipe = from_dict(DataRecipe, {"agreement": {"min_caption": 0.3}, "scorers": {"overlay": scorer}})
    assert score_drop_reason(scores, recipe) == reason
