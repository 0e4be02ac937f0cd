"""Accuracy of captions against the truth of the world."""

from collections.abc import Mapping, Sequence
from typing import Any

from kinema.evaluation.alignment import ALL_SLOTS
from kinema.worlds.stage.parse import CAPTION_SLOTS, grade_caption


def caption_accuracies(captions: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of correct captions, by slot and, as `ALL_SLOTS`, in every slot."""
    grades = [grade_caption(caption, truth) for caption, truth in zip(captions, truths, strict=True)]
    shares = {slot: sum(grade[slot] for grade in grades) / len(grades) for slot in CAPTION_SLOTS}
    return shares | {ALL_SLOTS: sum(all(grade.values()) for grade in grades) / len(grades)}
