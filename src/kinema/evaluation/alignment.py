"""Prompt following by slot: of a model, of the renderer (ceiling) and with shuffled prompts (floor)."""

from collections import Counter
from collections.abc import Mapping, Sequence

from kinema.evaluation.trust import grade_reading
from kinema.models.oracle import Reading

ALL_SLOTS = "all at once"
"""Row of the clips that are correct in every slot."""


def slot_accuracies(
    readings: Sequence[Reading], asked: Sequence[Mapping[str, str]], slots: Sequence[str]
) -> dict[str, float]:
    """The share of clips that show what their prompt asks for, by slot, and, as `ALL_SLOTS`, in every slot.

    `asked` has the slots that each prompt determines; a slot counts only the prompts that determine it.
    """
    grades = [grade_reading(reading, wanted, slots) for reading, wanted in zip(readings, asked, strict=True)]

    shares = {}
    for slot in slots:
        answers = [grade[slot] for grade in grades if slot in grade]
        if answers:
            shares[slot] = sum(answers) / len(answers)

    return shares | {ALL_SLOTS: sum(all(grade.values()) for grade in grades) / len(grades)}


def shuffled_accuracies(
    readings: Sequence[Reading], asked: Sequence[Mapping[str, str]], slots: Sequence[str]
) -> dict[str, float]:
    """Accuracies of a model that ignores its prompts: the mean over all pairs of a clip and another's prompt.

    Empty for fewer than two clips. A slot's pairs are counted from the frequencies of its answers and of its
    prompts' values.
    """
    count = len(readings)
    if count < 2:
        return {}
    own = [grade_reading(reading, wanted, slots) for reading, wanted in zip(readings, asked, strict=True)]

    shares = {}
    for slot in slots:
        values = [wanted[slot] for wanted in asked if slot in wanted]
        if values:
            answers, prompts = Counter(reading.answers[slot] for reading in readings), Counter(values)
            equal_pairs = sum(answers[value] * prompts[value] for value in prompts)
            equal_pairs -= sum(grade.get(slot, False) for grade in own)
            shares[slot] = equal_pairs / (len(values) * (count - 1))

    all_correct = sum(
        all(grade_reading(reading, wanted, slots).values())
        for i, reading in enumerate(readings)
        for j, wanted in enumerate(asked)
        if i != j
    )
    return shares | {ALL_SLOTS: all_correct / (count * (count - 1))}


def alignment_rows(
    readings: Sequence[Reading],
    true_readings: Sequence[Reading],
    asked: Sequence[Mapping[str, str]],
    slots: Sequence[str],
    *,
    relative: bool,
) -> dict[str, dict[str, float]]:
    """A row per slot: `num` prompts, and the accuracies `model`, `ceiling` (of `true_readings`) and `floor`.

    With `relative`, a row also has the model's accuracy divided by the ceiling's.
    """
    model, ceiling = slot_accuracies(readings, asked, slots), slot_accuracies(true_readings, asked, slots)
    floor = shuffled_accuracies(readings, asked, slots)

    rows: dict[str, dict[str, float]] = {}
    for slot, share in model.items():
        num = len(asked) if slot == ALL_SLOTS else sum(slot in wanted for wanted in asked)
        rows[slot] = {"num": num, "model": share, "ceiling": ceiling[slot]}
        if slot in floor:
            rows[slot]["floor"] = floor[slot]
        if relative and ceiling[slot]:
            rows[slot]["relative"] = share / ceiling[slot]
    return rows
