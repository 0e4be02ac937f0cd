"""Prompts with their truth: captions of clips that the world could show, of combinations that training has shown and of ones it has not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kinema.checkpoints.folders import Manifest
from kinema.config import from_dict
from kinema.errors import ConfigError, KinemaError, ModelError, RequestError
from kinema.worlds import Clip, StageConfig, StageWorld

Split = Literal["held_out", "seen"]
SPLITS: tuple[Split, ...] = ("held_out", "seen")
FIRST_SEED = {"held_out": 10**9, "seen": 2 * 10**9, "all": 3 * 10**9}
"""Where the seeds of the splits begin; training draws its own by hashing, from 63 bits."""
VOCABULARY = ("nouns", "verbs", "grounds", "skies", "cameras")


@dataclass(frozen=True)
class Sample:
    """One prompt and the truth of the clip it is the caption of; `seed` is the world's, and the generation's too."""

    split: str
    index: int
    seed: int
    prompt: str
    truth: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.split}-{self.index:04d}"


def stage_of(manifest: Manifest) -> StageConfig:
    """The stage whose words the model knows, with the split that it was trained on ("all" when its card names none).

    Raises `ModelError` for a model without the world's vocabulary: there is no truth to hold its videos against.
    """
    missing = [kind for kind in VOCABULARY if not manifest.vocabulary.get(kind)]
    if missing:
        raise ModelError(
            f"{manifest.name} does not say which {', '.join(missing)} of the stage it knows (vocabulary in kinema.json): "
            "only a model trained on the stage can be evaluated against it"
        )
    words: dict[str, Any] = {kind: tuple(manifest.vocabulary[kind]) for kind in VOCABULARY}
    recipe = manifest.card.get("dit", {}).get("recipe", {})
    trained = recipe.get("stage", {})
    if "salt" in trained:
        words["salt"] = trained["salt"]
    words |= {
        "max_objects": trained.get("max_objects", 1),
        "split": trained.get("split", "train" if trained else "all"),
    }
    try:
        return from_dict(StageConfig, words)
    except KinemaError as error:
        raise ModelError(f"the vocabulary of {manifest.name} is not the stage's: {error}") from None


def world_of(stage: StageConfig, split: Split) -> StageWorld:
    """The world that draws the combinations of `split`.

    Raises `ConfigError` when the model was trained on everything, so that nothing is held out, or when the split is empty.
    """
    if split == "seen":
        return StageWorld(replace(stage, split="train" if stage.split == "train" else "all"))
    if stage.split != "train":
        raise ConfigError(
            f"nothing was held out: the model was trained on the split '{stage.split}' of its stage, or its card does not say; use --seen"
        )
    return StageWorld(replace(stage, split="held_out"))


@dataclass(frozen=True)
class Shown:
    """How clips are shown: the sizes and the rate of a model's videos."""

    height: int
    width: int
    num_frames: int
    fps: float


def true_clip(world: StageWorld, seed: int, shown: Shown) -> Clip:
    """The clip of `seed` as the renderer draws it."""
    return world.clip(
        seed, height=shown.height, width=shown.width, num_frames=shown.num_frames, fps=shown.fps
    )


def draw_samples(stage: StageConfig, split: Split, count: int, shown: Shown) -> list[Sample]:
    """`count` prompts of a split. The prompt is the medium caption, which names every slot that is not at its plain value.

    Raises `RequestError` for an empty set and `ConfigError` for a split with nothing in it.
    """
    if count < 1:
        raise RequestError(f"{count} prompts are no sample: use 1 or more")
    world = world_of(stage, split)
    # The sizes in pixels change nothing in a truth, but the number of frames decides what a caption says of the end.
    small = replace(shown, height=max(8, shown.height // 8), width=max(8, shown.width // 8))
    samples = []
    for index in range(count):
        seed = FIRST_SEED[split] + index
        clip = true_clip(
            world, seed, shown if small.width * shown.height != small.height * shown.width else small
        )
        samples.append(Sample(split, index, seed, clip.captions["medium"], clip.truth))
    return samples
