"""Captions against the truth of the world: the share of clips of which a caption names every slot rightly."""

from collections.abc import Mapping, Sequence
from typing import Any

from kinema.evaluation.alignment import ALL
from kinema.worlds.stage.parse import SLOTS, judge


def right_captions(captions: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By slot, and for all at once, the share of captions whose words say what is true of the clip; see `kinema.worlds.stage.parse.judge`."""
    verdicts = [judge(caption, truth) for caption, truth in zip(captions, truths, strict=True)]
    shares = {slot: sum(verdict[slot] for verdict in verdicts) / len(verdicts) for slot in SLOTS}
    return shares | {ALL: sum(all(verdict.values()) for verdict in verdicts) / len(verdicts)}
