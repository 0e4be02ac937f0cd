"""The oracle of an evaluation, and whether it may be trusted with a model: measured anew on the model's own stage and VAE."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.checkpoints.folders import load_oracle
from kinema.errors import ModelError
from kinema.evaluation.samples import FIRST_SEED, Shown, true_clip
from kinema.generation.pipeline import Pipeline
from kinema.models.oracle import LEAST_FRAMES, SLOTS, Oracle, Reading
from kinema.models.pixels import from_uint8, to_uint8
from kinema.models.vae import VAE
from kinema.worlds import StageConfig, StageWorld

FRESH_RIGHT, ROUND_TRIP_RIGHT = 0.98, 0.95
"""What the oracle must read rightly, in every slot, before a figure is given relative to the renderer."""
PLURAL = {"noun": "nouns", "verb": "verbs", "ground": "grounds", "sky": "skies", "camera": "cameras"}


def check_vocabulary(oracle: Oracle, stage: StageConfig, name: str) -> None:
    """Raises `ModelError` when the model can be asked for what the oracle cannot read."""
    known = oracle.config.slots
    asked = {**vocabulary_of(stage), "count": [str(n) for n in range(1, stage.max_objects + 1)]}
    unknown = [
        f"{slot} {', '.join(values)}"
        for slot, options in asked.items()
        if (values := [v for v in options if v not in known[slot]])
    ]
    if unknown:
        raise ModelError(
            f"the oracle cannot read what {name} knows: {'; '.join(unknown)}. Train one with 'kinema train recipes/oracle.toml' on this "
            "model's [stage] and give it with --oracle"
        )


def vocabulary_of(stage: StageConfig) -> dict[str, tuple[str, ...]]:
    """The values of every slot that a vocabulary lists."""
    words = StageWorld(replace(stage, split="all")).vocabulary()
    return {slot: tuple(getattr(words, plural)) for slot, plural in PLURAL.items()}


def scored_slots(stage: StageConfig) -> tuple[str, ...]:
    """The slots that can be wrong: those with more than one value on this stage."""
    values = vocabulary_of(stage)
    single = {slot for slot, options in values.items() if len(options) < 2} | (
        {"count"} if stage.max_objects < 2 else set()
    )
    return tuple(slot for slot in SLOTS if slot not in single)


def is_said(slot: str, truth: Any) -> bool:
    """Whether the caption leaves a choice in that slot: up and down are in the verb, and what has no direction is not asked for one."""
    return slot != "direction" or truth["direction"] in ("left", "right", "clockwise", "counterclockwise")


@dataclass(frozen=True)
class Trust:
    """The share that the oracle reads rightly, by slot, of fresh renders and of renders that went through the model's VAE."""

    fresh: dict[str, float] = field(default_factory=dict)
    round_trip: dict[str, float] = field(default_factory=dict)
    num_fresh: int = 0
    num_round_trip: int = 0

    @property
    def failures(self) -> list[str]:
        """What stands in the way of relative figures; empty when the oracle may be trusted."""
        found = []
        for kind, scores, needed in (
            ("fresh renders", self.fresh, FRESH_RIGHT),
            ("VAE round trips", self.round_trip, ROUND_TRIP_RIGHT),
        ):
            if not scores:
                found.append(f"it was not measured on {kind}")
            found += [
                f"{slot} {share:.1%} of {kind}, needed {needed:.0%}"
                for slot, share in scores.items()
                if share < needed
            ]
        return found


def measure_trust(
    oracle: Oracle,
    stage: StageConfig,
    vae: VAE,
    shown: Shown,
    *,
    num_fresh: int,
    num_round_trips: int,
    verdicts: dict[str, dict[str, bool]] | None = None,
    on_clip: Callable[[], None] = lambda: None,
) -> Trust:
    """How well the oracle reads this stage, seen and held-out combinations together, at this size and through this VAE.

    `verdicts` takes what was read rightly of each clip, by its number; clips that are in it already are not read again.
    """
    world, slots = StageWorld(replace(stage, split="all")), scored_slots(stage)
    verdicts = {} if verdicts is None else verdicts
    right: dict[bool, dict[str, list[bool]]] = {False: {}, True: {}}
    for index in range(num_fresh + num_round_trips):
        is_round_trip = index >= num_fresh
        if str(index) not in verdicts:
            clip = true_clip(world, FIRST_SEED["all"] + index, shown)
            (reading,) = oracle.read([through(vae, clip.frames) if is_round_trip else clip.frames], shown.fps)
            verdicts[str(index)] = judge(reading, clip.truth, slots)
        for slot, is_right in verdicts[str(index)].items():
            right[is_round_trip].setdefault(slot, []).append(is_right)
        on_clip()
    fresh, round_trip = (
        {slot: sum(values) / len(values) for slot, values in right[kind].items()} for kind in (False, True)
    )
    return Trust(fresh, round_trip, num_fresh, num_round_trips)


def judge(reading: Reading, truth: Any, slots: Sequence[str]) -> dict[str, bool]:
    """Right or wrong for every slot that the prompt decides."""
    return {slot: reading.answers[slot] == str(truth[slot]) for slot in slots if is_said(slot, truth)}


@torch.inference_mode()
def through(vae: VAE, frames: np.ndarray) -> np.ndarray:
    """A clip, uint8 (f, h, w, 3), after encoding and decoding; sizes and lengths that the VAE cannot take are padded and cropped back."""
    space, pace = vae.config.spatial_factor, vae.config.temporal_factor
    f, h, w, _ = frames.shape
    padded = np.pad(frames, ((0, -(f - 1) % pace), (0, -h % space), (0, -w % space), (0, 0)), mode="edge")
    video = from_uint8([padded]).to(next(vae.parameters()).device)
    return to_uint8(vae.decode(vae.encode(video).mean)[0])[:f, :h, :w]


def noun_in(oracle: Oracle, frames: np.ndarray) -> str:
    """The noun that the oracle reads in frames (f, h, w, 3), however few they are."""
    # The slots want LEAST_FRAMES; which frames are seen twice does not change what the thing is.
    enough = frames[np.linspace(0, len(frames) - 1, max(len(frames), LEAST_FRAMES)).round().astype(int)]
    return oracle.read([enough], oracle.config.fps)[0].answers["noun"]


def add_judges(pipeline: Pipeline, folder: Path | None = None) -> None:
    """Have the drift report name the noun of every window, when an oracle knows all nouns of the model."""
    nouns = pipeline.manifest.vocabulary.get("nouns", ())
    if nouns and set(nouns) <= set(
        (oracle := load_oracle(folder, device=pipeline.device)).config.slots["noun"]
    ):
        pipeline.judges["noun"] = lambda frames, prompt: noun_in(oracle, frames)
