"""Prompts and their truth: captions of world clips, of seen and held-out combinations.

Seen combinations are those that training could show."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kinema.checkpoints.manifest import Manifest
from kinema.errors import ConfigError, KinemaError, ModelError, RequestError
from kinema.worlds import Clip, World, WorldConfig, check_slots, make_world, with_world_table

PromptSplit = Literal["held_out", "seen"]
SPLITS: tuple[PromptSplit, ...] = ("held_out", "seen")
FIRST_SEED = {"held_out": 10**9, "seen": 2 * 10**9, "all": 3 * 10**9}
"""The first seed of each split. Training hashes its seeds to 63 bits, so a collision is improbable."""


@dataclass(frozen=True)
class Sample:
    """A prompt and the truth of the clip that it is the caption of.

    `seed` is used by the world and by the generation.
    """

    split: PromptSplit
    index: int
    seed: int
    prompt: str
    truth: Mapping[str, Any]
    asked: Mapping[str, str]
    """The value of every slot that the prompt determines."""

    @property
    def name(self) -> str:
        """The stem of the sample's file names."""
        return f"{self.split}-{self.index:04d}"


def trained_world(manifest: Manifest) -> World:
    """The world that the model was trained on, with the split of its training.

    Raises `ModelError` if the model names no world or one that does not exist here: its videos have no known
    truth then.
    """
    recipe = with_world_table(manifest.card.get("dit", {}).get("recipe", {}))
    if not manifest.vocabulary or "world" not in recipe:
        raise ModelError(
            f"{manifest.name} names no world and no vocabulary in kinema.json: "
            "only a model trained on a world can be evaluated against it"
        )
    try:
        world = make_world(WorldConfig.from_table(recipe["world"]))
    except KinemaError as error:
        raise ModelError(f"the world of {manifest.name} cannot be made: {error}") from None
    check_slots(world, "the evaluation")
    return world


def world_of(world: World, split: PromptSplit) -> World:
    """The trained world with the combinations of `split`.

    Raises `ConfigError` if the split is empty, or if nothing was held out because the model was trained on
    everything.
    """
    if split == "seen":
        return world
    if world.split != "train":
        raise ConfigError(
            f"nothing was held out: the model was trained on the split '{world.split}' of its world; "
            "use --seen"
        )
    return world.in_split("held_out")


@dataclass(frozen=True)
class ClipFormat:
    """Size in pixels, length and frame rate of clips."""

    height: int
    width: int
    num_frames: int
    fps: float


def true_clip(world: World, seed: int, clip_format: ClipFormat) -> Clip:
    """The clip of `seed` as the renderer draws it."""
    return world.clip(
        seed,
        height=clip_format.height,
        width=clip_format.width,
        num_frames=clip_format.num_frames,
        fps=clip_format.fps,
    )


def draw_samples(trained: World, split: PromptSplit, count: int, clip_format: ClipFormat) -> list[Sample]:
    """`count` prompts of a split: medium captions, which name every slot that has not its default value.

    Raises `RequestError` if `count` is below 1 and `ConfigError` if the split is empty.
    """
    if count < 1:
        raise RequestError(f"prompts={count}: use at least 1")
    world = world_of(trained, split)

    # The truth depends on the aspect ratio and the number of frames only, so small clips give it faster.
    height, width = (max(8, side // 8) for side in (clip_format.height, clip_format.width))
    keeps_aspect = width * clip_format.height == height * clip_format.width
    drawn_format = replace(clip_format, height=height, width=width) if keeps_aspect else clip_format

    samples = []
    for index in range(count):
        seed = FIRST_SEED[split] + index
        clip = true_clip(world, seed, drawn_format)
        asked = world.named_slots(clip.truth)
        samples.append(Sample(split, index, seed, clip.captions["medium"], clip.truth, asked))
    return samples
