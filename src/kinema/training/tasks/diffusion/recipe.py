"""The recipes of diffusion runs: a model of its own, an adapter of a model, and a model of the Wan family."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kinema.checkpoints.adapters import TARGETS
from kinema.config import check_range
from kinema.data.latents import LatentData
from kinema.data.packing import PackConfig
from kinema.data.world_clips import CaptionMix
from kinema.errors import ConfigError
from kinema.models.backbone import BACKBONES, BackboneEntry
from kinema.registry import lookup
from kinema.training.canvas_mix import CanvasMix
from kinema.training.task import Recipe, check_periods
from kinema.training.tasks.diffusion.loss import DiffusionConfig
from kinema.worlds import WorldConfig

WORLD_SETTINGS = ("world", "data", "periods")
"""Settings that describe clips of a world."""
NETWORK_SETTINGS = ("vae", "clip", "text", "backbone", "model")
"""Settings that name the networks of a model. A run on a base model has those of its base."""


@dataclass(frozen=True)
class Period:
    """A period of the run, up to the share `until` of all steps: `batch` clips of `latent_frames` latents a
    step.

    With `latent_frames` 1 the period trains on images. Raises `ConfigError` for values out of range.
    """

    until: float
    batch: int
    latent_frames: int

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1 or self.batch < 1 or self.latent_frames < 1:
            raise ConfigError(
                f"period until={self.until}, batch={self.batch}, latent_frames={self.latent_frames}: "
                "until must be above 0 and at most 1, the others at least 1"
            )


@dataclass(frozen=True)
class SamplingDefaults:
    """Sampling settings of the exported model for requests without their own."""

    sampler: str = "unipc"
    steps: int = 20
    guidance: float = 4.0
    shift: float = 1.0


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """All settings of a run that trains a model of its own. `vae` and `clip` are "shipped" or the export
    folder of such a run.

    Without `dataset` the run trains on clips of `world`, with the sizes and numbers of `data` and `periods`.
    With one it trains on the clips of the data set, which `pack` groups into batches.
    """

    task: str = "dit"
    name: str = "kinema-nano"
    notes: str = ""
    """Abilities and limits of the model, for its users. They go into its card."""
    vae: str = "shipped"
    clip: str = "shipped"
    text: str = ""
    """A text encoder of another model in place of the CLIP. See `checkpoints.text_encoders.text_source`."""
    backbone: str = "dit"
    model: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the backbone: fields of its configuration that differ from the defaults."""
    world: WorldConfig = field(default_factory=WorldConfig)
    data: LatentData = field(default_factory=LatentData)
    periods: tuple[Period, ...] = (Period(0.15, 96, 1), Period(1.0, 32, 5))
    dataset: str | None = None
    """A data set to train on instead of clips of the world."""
    pack: PackConfig = field(default_factory=PackConfig)
    captions: CaptionMix = field(default_factory=CaptionMix)
    max_unknown: float = 0.05
    """Largest share of the words in a data set's captions that the text encoder may not know."""
    mix: CanvasMix = field(default_factory=CanvasMix)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)

    def __post_init__(self) -> None:
        check_periods([period.until for period in self.periods])
        check_range(self, ("max_unknown",), 0, 1)

        defaults = {f.name: f.default for f in dataclasses.fields(self.backbone_entry.config)}
        sizes = {key: tuple(value) if isinstance(value, list) else value for key, value in self.model.items()}
        kept = {key: value for key, value in sizes.items() if value != defaults.get(key)}
        object.__setattr__(self, "model", kept)  # equal networks then have equal recipes

    @property
    def backbone_entry(self) -> BackboneEntry:
        """The class of the backbone. Raises `UnknownName`."""
        return lookup(BACKBONES, self.backbone, kind="backbone")

    def unused_settings(self) -> dict[str, str]:
        """The settings that this run does not read, each with the reason."""
        unused = dict.fromkeys(WORLD_SETTINGS, "a run on a data set")
        if self.dataset is None:
            unused = dict.fromkeys(("pack", "max_unknown"), "a run on clips of a world")
        return unused | (dict.fromkeys(("clip", "max_unknown"), "a run with text") if self.text else {})


@dataclass(frozen=True)
class LoRARecipe(DiffusionRecipe):
    """All settings of an adapter's run. `base` is the adapted model ("shipped" or a folder); the run uses its
    VAE, CLIP and sizes.

    `matrices` is the precision of the frozen weights; with "bf16" they take half the memory. Trained weights
    are always float32.
    """

    task: str = "lora"
    base: str = "shipped"
    rank: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = TARGETS
    matrices: Literal["fp32", "bf16"] = "fp32"

    def unused_settings(self) -> dict[str, str]:
        """The settings that this run does not read, each with the reason."""
        return super().unused_settings() | dict.fromkeys(NETWORK_SETTINGS, "a run on a base model")


@dataclass(frozen=True)
class WanRecipe(LoRARecipe):
    """All settings of a run on a Wan model. `base` is a model folder or file, in any layout.

    `rank` 0 trains all weights of the backbone. `expert` is the trained one of two experts. `matrices` is the
    precision of the frozen weights; "auto" is bf16 where it is fast. `activation_checkpointing` recomputes
    the activations of a block for the gradient, which takes a third more time and a small part of the memory.
    """

    task: str = "wan"
    base: str = ""
    expert: Literal["high", "low"] | None = None
    matrices: Literal["auto", "fp32", "bf16"] = "auto"  # type: ignore[assignment]
    activation_checkpointing: bool = True

    def unused_settings(self) -> dict[str, str]:
        """The settings that this run does not read, each with the reason."""
        adapter = {} if self.rank else dict.fromkeys(("alpha", "targets"), "a run with rank = 0")
        return super().unused_settings() | adapter
