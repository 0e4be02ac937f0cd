"""The oracle's accuracy on a model's own stage and through its VAE, which relative scores depend on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinema.checkpoints.oracle import load_oracle
from kinema.errors import ModelError
from kinema.evaluation.samples import FIRST_SEED, ClipFormat, true_clip
from kinema.evaluation.vae_clip_metrics import vae_round_trip
from kinema.generation.pipeline import Pipeline
from kinema.models.oracle import MIN_FRAMES, SLOTS, Oracle, Reading
from kinema.models.vae import VAE
from kinema.worlds import StageConfig, StageWorld
from kinema.worlds.stage.parse import NAMED_DIRECTIONS

MIN_FRESH, MIN_ROUND_TRIP = 0.98, 0.95
"""Accuracy that the oracle needs in every slot before scores are given relative to the renderer's."""
VOCABULARY_FIELD = {
    "noun": "nouns",
    "verb": "verbs",
    "ground": "grounds",
    "sky": "skies",
    "camera": "cameras",
}
"""The field of `Vocabulary` that lists the values of a slot."""


def load_checked_oracle(pipeline: Pipeline, stage: StageConfig, folder: Path | None) -> Oracle:
    """The oracle in `folder` (None: the shipped one).

    Raises `ModelError` if it cannot read a word that the model knows.
    """
    oracle = load_oracle(folder, device=pipeline.device)
    check_vocabulary(oracle, stage, pipeline.manifest.name)
    return oracle


def check_vocabulary(oracle: Oracle, stage: StageConfig, name: str) -> None:
    """Raise `ModelError` if the oracle cannot read a word that the model `name` knows."""
    counts = tuple(str(count) for count in range(1, stage.max_objects + 1))
    unknown = []
    for slot, values in {**vocabulary_of(stage), "count": counts}.items():
        missing = [value for value in values if value not in oracle.config.slots[slot]]
        if missing:
            unknown.append(f"{slot} {', '.join(missing)}")

    if unknown:
        raise ModelError(
            f"the oracle cannot read what {name} knows: {'; '.join(unknown)}. Train an oracle with "
            "'kinema train recipes/oracle.toml' on this model's [stage] and pass it with --oracle"
        )


def vocabulary_of(stage: StageConfig) -> dict[str, tuple[str, ...]]:
    """The values of every slot in `VOCABULARY_FIELD`."""
    vocabulary = StageWorld(replace(stage, split="all")).vocabulary()
    return {slot: tuple(getattr(vocabulary, name)) for slot, name in VOCABULARY_FIELD.items()}


def scored_slots(stage: StageConfig) -> tuple[str, ...]:
    """The slots that can be wrong: those with more than one value on this stage."""
    single = {slot for slot, values in vocabulary_of(stage).items() if len(values) < 2}
    if stage.max_objects < 2:
        single.add("count")
    return tuple(slot for slot in SLOTS if slot not in single)


def is_scored(slot: str, truth: Mapping[str, Any]) -> bool:
    """Whether the prompt determines the slot.

    The directions up, down and none are part of the verb and are not scored.
    """
    return slot != "direction" or truth["direction"] in NAMED_DIRECTIONS


def grade_reading(reading: Reading, truth: Mapping[str, Any], slots: Sequence[str]) -> dict[str, bool]:
    """Whether the oracle reads the true value, for each of `slots` that the prompt determines."""
    return {slot: reading.answers[slot] == str(truth[slot]) for slot in slots if is_scored(slot, truth)}


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
    stage: StageConfig,
    vae: VAE,
    clip_format: ClipFormat,
    *,
    num_fresh: int,
    num_round_trips: int,
    grades: dict[str, dict[str, bool]] | None = None,
    on_clip: Callable[[], None] = lambda: None,
) -> OracleAccuracy:
    """The oracle's accuracy on clips of this stage, seen and held-out combinations together.

    `grades` receives the graded slots of each clip by its number. Clips that it already holds are not read
    again. `on_clip` is called after each clip.
    """
    world, slots = StageWorld(replace(stage, split="all")), scored_slots(stage)
    grades = {} if grades is None else grades
    fresh: dict[str, list[bool]] = {}
    round_trip: dict[str, list[bool]] = {}

    for index in range(num_fresh + num_round_trips):
        is_fresh = index < num_fresh
        if str(index) not in grades:
            clip = true_clip(world, FIRST_SEED["all"] + index, clip_format)
            frames = clip.frames if is_fresh else vae_round_trip(vae, clip.frames)
            (reading,) = oracle.read([frames], clip_format.fps)
            grades[str(index)] = grade_reading(reading, clip.truth, slots)

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


def add_noun_to_drift_report(pipeline: Pipeline, folder: Path | None = None) -> None:
    """Add the noun of every window to the pipeline's drift report, if the oracle knows the model's nouns."""
    nouns = pipeline.manifest.vocabulary.get("nouns", ())
    if not nouns:
        return

    oracle = load_oracle(folder, device=pipeline.device)
    if set(nouns) <= set(oracle.config.slots["noun"]):
        pipeline.metrics["noun"] = lambda frames, prompt: noun_in(oracle, frames)
