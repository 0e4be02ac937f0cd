"""The oracle's accuracy on a model's own world and through its VAE, which relative scores depend on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from kinema.checkpoints.manifest import Manifest
from kinema.checkpoints.oracle import load_oracle
from kinema.errors import ModelError
from kinema.evaluation.samples import FIRST_SEED, ClipFormat, true_clip
from kinema.evaluation.vae_clip_metrics import vae_round_trip
from kinema.generation.output.quality import FrameMetric
from kinema.generation.pipeline import Pipeline
from kinema.models.autoencoder import Autoencoder
from kinema.models.oracle import MIN_FRAMES, Oracle, Reading
from kinema.worlds import World

MIN_FRESH, MIN_ROUND_TRIP = 0.98, 0.95
"""Accuracy that the oracle needs in every slot before scores are given relative to the renderer's."""


def load_checked_oracle(pipeline: Pipeline, world: World, folder: Path | None) -> Oracle:
    """The oracle in `folder` (None: the shipped one).

    Raises `ModelError` if it cannot read a slot value of the model's world.
    """
    oracle = load_oracle(folder, device=pipeline.device)
    check_slot_values(oracle, world, pipeline.manifest.name)
    return oracle


def check_slot_values(oracle: Oracle, world: World, name: str) -> None:
    """Raise `ModelError` if the oracle cannot read a slot value of the world of the model `name`."""
    unknown = []
    for slot, values in world.slots.items():
        missing = [value for value in values if value not in oracle.config.slots.get(slot, ())]
        if missing:
            unknown.append(f"{slot} {', '.join(missing)}")

    if unknown:
        raise ModelError(
            f"the oracle cannot read what {name} knows: {'; '.join(unknown)}. Train an oracle with "
            "'kinema train recipes/oracle.toml' on this model's [world] and pass it with --oracle"
        )


def scored_slots(world: World) -> tuple[str, ...]:
    """The slots that can be wrong: those with more than one value in this world."""
    return tuple(slot for slot, values in world.slots.items() if len(values) > 1)


def grade_reading(reading: Reading, asked: Mapping[str, str], slots: Sequence[str]) -> dict[str, bool]:
    """Whether the oracle reads the value that a prompt asks for, for each of `slots` that it determines."""
    return {slot: reading.answers[slot] == asked[slot] for slot in slots if slot in asked}


@dataclass(frozen=True)
class OracleAccuracy:
    """The oracle's accuracy by slot, on fresh renders and on renders after a VAE round trip."""

    fresh: dict[str, float] = field(default_factory=dict)
    round_trip: dict[str, float] = field(default_factory=dict)
    num_fresh: int = 0
    num_round_trip: int = 0

    @property
    def failures(self) -> list[str]:
        """The reasons against relative scores; empty if the oracle is accurate enough."""
        failures = []
        for kind, scores, minimum in (
            ("fresh renders", self.fresh, MIN_FRESH),
            ("VAE round trips", self.round_trip, MIN_ROUND_TRIP),
        ):
            if not scores:
                failures.append(f"it was not measured on {kind}")
            for slot, share in scores.items():
                if share < minimum:
                    failures.append(f"{slot} {share:.1%} of {kind}, needed {minimum:.0%}")
        return failures


def measure_oracle_accuracy(
    oracle: Oracle,
    world: World,
    vae: Autoencoder,
    clip_format: ClipFormat,
    *,
    num_fresh: int,
    num_round_trips: int,
    grades: dict[str, dict[str, bool]] | None = None,
    on_clip: Callable[[], None] = lambda: None,
) -> OracleAccuracy:
    """The oracle's accuracy on clips of this world, seen and held-out combinations together.

    `grades` receives the graded slots of each clip by its number. Clips that it already holds are not read
    again. `on_clip` is called after each clip.
    """
    world, slots = world.in_split("all"), scored_slots(world)
    grades = {} if grades is None else grades
    fresh: dict[str, list[bool]] = {}
    round_trip: dict[str, list[bool]] = {}

    for index in range(num_fresh + num_round_trips):
        is_fresh = index < num_fresh
        if str(index) not in grades:
            clip = true_clip(world, FIRST_SEED["all"] + index, clip_format)
            frames = clip.frames if is_fresh else vae_round_trip(vae, clip.frames)
            (reading,) = oracle.read([frames], clip_format.fps)
            grades[str(index)] = grade_reading(reading, world.named_slots(clip.truth), slots)

        for slot, is_correct in grades[str(index)].items():
            (fresh if is_fresh else round_trip).setdefault(slot, []).append(is_correct)
        on_clip()

    return OracleAccuracy(_shares(fresh), _shares(round_trip), num_fresh, num_round_trips)


def _shares(answers: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    return {slot: sum(values) / len(values) for slot, values in answers.items()}


def noun_in(oracle: Oracle, frames: np.ndarray) -> str:
    """The noun that the oracle reads in frames, uint8 (f, h, w, 3), however few they are."""
    # The oracle needs MIN_FRAMES. Repeated frames do not change the noun.
    num_frames = max(len(frames), MIN_FRAMES)
    repeated = frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]
    return oracle.read([repeated], oracle.config.fps)[0].answers["noun"]


def noun_metric(
    manifest: Manifest, device: torch.device, folder: Path | None = None
) -> dict[str, FrameMetric]:
    """The noun of every window, for the drift report. Empty unless the oracle knows the model's nouns."""
    nouns = manifest.vocabulary.get("nouns", ())
    if not nouns:
        return {}

    oracle = load_oracle(folder, device=device)
    if not set(nouns) <= set(oracle.config.slots["noun"]):
        return {}
    return {"noun": lambda frames, prompt: noun_in(oracle, frames)}
