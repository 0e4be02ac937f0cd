"""Prompts and their truth: captions of world clips, of seen and held-out combinations.

Seen combinations are those that training could show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kinema.checkpoints.manifest import Manifest
from kinema.config import from_dict
from kinema.errors import ConfigError, KinemaError, ModelError, RequestError
from kinema.worlds import Clip, StageConfig, StageWorld

PromptSplit = Literal["held_out", "seen"]
SPLITS: tuple[PromptSplit, ...] = ("held_out", "seen")
FIRST_SEED = {"held_out": 10**9, "seen": 2 * 10**9, "all": 3 * 10**9}
"""The first seed of each split. Training hashes its seeds to 63 bits, so a collision is improbable."""
VOCABULARY = ("nouns", "verbs", "grounds", "skies", "cameras")


@dataclass(frozen=True)
class Sample:
    """A prompt and the truth of the clip that it is the caption of.

    `seed` is used by the world and by the generation.
    """

    split: str
    index: int
    seed: int
    prompt: str
    truth: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The stem of the sample's file names."""
        return f"{self.split}-{self.index:04d}"


def stage_of(manifest: Manifest) -> StageConfig:
    """The stage that the model was trained on, with its split ("all" if the model's card has none).

    Raises `ModelError` if the model's vocabulary is missing or is not the stage's: its videos have no known
    truth then.
    """
    missing = [kind for kind in VOCABULARY if not manifest.vocabulary.get(kind)]
    if missing:
        raise ModelError(
            f"{manifest.name} has no vocabulary for {', '.join(missing)} in kinema.json: "
            "only a model trained on the stage can be evaluated against it"
        )

    settings: dict[str, Any] = {kind: tuple(manifest.vocabulary[kind]) for kind in VOCABULARY}
    trained = manifest.card.get("dit", {}).get("recipe", {}).get("stage", {})
    if "salt" in trained:
        settings["salt"] = trained["salt"]
    settings["max_objects"] = trained.get("max_objects", 1)
    settings["split"] = trained.get("split", "train" if trained else "all")

    try:
        return from_dict(StageConfig, settings)
    except KinemaError as error:
        raise ModelError(f"the vocabulary of {manifest.name} is not the stage's: {error}") from None


def world_of(stage: StageConfig, split: PromptSplit) -> StageWorld:
    """The world that draws the combinations of `split`.

    Raises `ConfigError` if the split is empty, or if nothing was held out because the model was trained on
    everything.
    """
    if split == "seen":
        return StageWorld(replace(stage, split="train" if stage.split == "train" else "all"))
    if stage.split != "train":
        raise ConfigError(
            f"nothing was held out: the model was trained on the split '{stage.split}' of its stage, "
            "or its card names none; use --seen"
        )
    return StageWorld(replace(stage, split="held_out"))


@dataclass(frozen=True)
class ClipFormat:
    """Size in pixels, length and frame rate of clips."""

    height: int
    width: int
    num_frames: int
    fps: float


def true_clip(world: StageWorld, seed: int, clip_format: ClipFormat) -> Clip:
    """The clip of `seed` as the renderer draws it."""
    return world.clip(
        seed,
        height=clip_format.height,
        width=clip_format.width,
        num_frames=clip_format.num_frames,
        fps=clip_format.fps,
    )


def draw_samples(stage: StageConfig, split: PromptSplit, count: int, clip_format: ClipFormat) -> list[Sample]:
    """`count` prompts of a split: medium captions, which name every slot that has not its default value.

    Raises `RequestError` if `count` is below 1 and `ConfigError` if the split is empty.
    """
    if count < 1:
        raise RequestError(f"prompts={count}: use at least 1")
    world = world_of(stage, split)

    # The truth depends on the aspect ratio and the number of frames only, so small clips give it faster.
    height, width = (max(8, side // 8) for side in (clip_format.height, clip_format.width))
    keeps_aspect = width * clip_format.height == height * clip_format.width
    drawn_format = replace(clip_format, height=height, width=width) if keeps_aspect else clip_format

    samples = []
    for index in range(count):
        seed = FIRST_SEED[split] + index
        clip = true_clip(world, seed, drawn_format)
        samples.append(Sample(split, index, seed, clip.captions["medium"], clip.truth))
    return samples
