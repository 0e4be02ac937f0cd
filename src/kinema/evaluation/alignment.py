"""Slots right and wrong: of a model, of the true renderer (the ceiling) and of prompts shuffled among the videos (the floor)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kinema.evaluation.trust import is_said, judge
from kinema.models.oracle import Reading

ALL = "all at once"


def right_shares(
    readings: Sequence[Reading], truths: Sequence[Mapping[str, Any]], slots: Sequence[str]
) -> dict[str, float]:
    """The share of clips read as the prompt says, by slot, over the prompts that decide the slot; and of those with every slot right."""
    verdicts = [judge(reading, truth, slots) for reading, truth in zip(readings, truths, strict=True)]
    shares = {}
    for slot in slots:
        asked = [verdict[slot] for verdict in verdicts if slot in verdict]
        if asked:
            shares[slot] = sum(asked) / len(asked)
    return shares | {ALL: sum(all(verdict.values()) for verdict in verdicts) / len(verdicts)}


def floor_shares(
    readings: Sequence[Reading], truths: Sequence[Mapping[str, Any]], slots: Sequence[str]
) -> dict[str, float]:
    """What a model scores that ignores its prompts: the mean over all pairs of a video with another video's prompt. Needs two clips.

    Each slot is counted from the numbers of answers and truths, all pairs at once.
    """
    count = len(readings)
    if count < 2:
        return {}
    own = [judge(reading, truth, slots) for reading, truth in zip(readings, truths, strict=True)]
    shares = {}
    for slot in slots:
        asked = [str(truth[slot]) for truth in truths if is_said(slot, truth)]
        if asked:
            answers, wanted = Counter(reading.answers[slot] for reading in readings), Counter(asked)
            pairs = sum(answers[value] * wanted[value] for value in wanted) - sum(
                verdict.get(slot, False) for verdict in own
            )
            shares[slot] = pairs / (len(asked) * (count - 1))
    every = sum(
        all(judge(reading, truth, slots).values())
        for i, reading in enumerate(readings)
        for j, truth in enumerate(truths)
        if i != j
    )
    return shares | {ALL: every / (count * (count - 1))}


def score(
    readings: Sequence[Reading],
    true_readings: Sequence[Reading],
    truths: Sequence[Mapping[str, Any]],
    slots: Sequence[str],
    *,
    relative: bool,
) -> dict[str, dict[str, float]]:
    """By slot: `model`, `ceiling`, `floor`, and `relative`, the model's share over the ceiling's, only where it may be given."""
    model, ceiling = right_shares(readings, truths, slots), right_shares(true_readings, truths, slots)
    floor = floor_shares(readings, truths, slots)
    rows: dict[str, dict[str, float]] = {}
    for slot, share in model.items():
        asked = sum(is_said(slot, truth) for truth in truths) if slot != ALL else len(truths)
        rows[slot] = {"num": asked, "model": share, "ceiling": ceiling[slot]}
        if slot in floor:
            rows[slot]["floor"] = floor[slot]
        if relative and ceiling[slot]:
            rows[slot]["relative"] = share / ceiling[slot]
    return rows
