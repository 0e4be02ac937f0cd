"""Accuracy of captions against the truth of the world."""

from collections.abc import Mapping, Sequence
from typing import Any

from kinema.evaluation.alignment import ALL_SLOTS
from kinema.worlds import ReadsCaptions


def caption_grades(world: ReadsCaptions, caption: str, truth: Mapping[str, Any]) -> dict[str, bool]:
    """Whether a caption names the true value of each slot, and none where the clip has none."""
    true = world.named_slots(truth)
    return {slot: value == true.get(slot) for slot, value in world.read_caption(caption).items()}


def caption_accuracies(
    world: ReadsCaptions, captions: Sequence[str], truths: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The share of correct captions, by slot and, as `ALL_SLOTS`, in every slot."""
    grades = [caption_grades(world, text, truth) for text, truth in zip(captions, truths, strict=True)]
    shares = {slot: sum(grade[slot] for grade in grades) / len(grades) for slot in grades[0]}
    return shares | {ALL_SLOTS: sum(all(grade.values()) for grade in grades) / len(grades)}
