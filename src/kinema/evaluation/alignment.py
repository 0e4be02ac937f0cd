"""Prompt following by slot: of a model, of the renderer (ceiling) and with shuffled prompts (floor)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kinema.evaluation.trust import grade_reading, is_scored
from kinema.models.oracle import Reading

ALL_SLOTS = "all at once"
"""Row of the clips that are correct in every slot."""


def slot_accuracies(
    readings: Sequence[Reading], truths: Sequence[Mapping[str, Any]], slots: Sequence[str]
) -> dict[str, float]:
    """The share of clips that show what their prompt asks for, by slot, and, as `ALL_SLOTS`, in every slot.

    A slot counts only the prompts that determine it (`is_scored`).
    """
    grades = [grade_reading(reading, truth, slots) for reading, truth in zip(readings, truths, strict=True)]

    shares = {}
    for slot in slots:
        answers = [grade[slot] for grade in grades if slot in grade]
        if answers:
            shares[slot] = sum(answers) / len(answers)

    return shares | {ALL_SLOTS: sum(all(grade.values()) for grade in grades) / len(grades)}


def shuffled_accuracies(
    readings: Sequence[Reading], truths: Sequence[Mapping[str, Any]], slots: Sequence[str]
) -> dict[str, float]:
    """Accuracies of a model that ignores its prompts: the mean over all pairs of a clip and another's prompt.

    Empty for fewer than two clips. A slot's pairs are counted from the frequencies of its answers and of its
    prompts' values.
    """
    count = len(readings)
    if count < 2:
        return {}
    own = [grade_reading(reading, truth, slots) for reading, truth in zip(readings, truths, strict=True)]

    shares = {}
    for slot in slots:
        values = [str(truth[slot]) for truth in truths if is_scored(slot, truth)]
        if values:
            answers, wanted = Counter(reading.answers[slot] for reading in readings), Counter(values)
            equal_pairs = sum(answers[value] * wanted[value] for value in wanted)
            equal_pairs -= sum(grade.get(slot, False) for grade in own)
            shares[slot] = equal_pairs / (len(values) * (count - 1))

    all_correct = sum(
        all(grade_reading(reading, truth, slots).values())
        for i, reading in enumerate(readings)
        for j, truth in enumerate(truths)
        if i != j
    )
    return shares | {ALL_SLOTS: all_correct / (count * (count - 1))}


def alignment_rows(
    readings: Sequence[Reading],
    true_readings: Sequence[Reading],
    truths: Sequence[Mapping[str, Any]],
    slots: Sequence[str],
    *,
    relative: bool,
) -> dict[str, dict[str, float]]:
    """A row per slot: `num` prompts, and the accuracies `model`, `ceiling` (of `true_readings`) and `floor`.

    With `relative`, a row also has the model's accuracy divided by the ceiling's.
    """
    model, ceiling = slot_accuracies(readings, truths, slots), slot_accuracies(true_readings, truths, slots)
    floor = shuffled_accuracies(readings, truths, slots)

    rows: dict[str, dict[str, float]] = {}
    for slot, share in model.items():
        num = len(truths) if slot == ALL_SLOTS else sum(is_scored(slot, truth) for truth in truths)
        rows[slot] = {"num": num, "model": share, "ceiling": ceiling[slot]}
        if slot in floor:
            rows[slot]["floor"] = floor[slot]
        if relative and ceiling[slot]:
            rows[slot]["relative"] = share / ceiling[slot]
    return rows
