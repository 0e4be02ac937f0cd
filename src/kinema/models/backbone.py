"""The interface of the network that predicts noisy latents, and the table of all such networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kinema.config import from_dict
from kinema.errors import ConfigError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig, dit_example
from kinema.models.image_dit import ImageDiT, ImageDiTConfig, image_dit_example
from kinema.models.patches import Patch
from kinema.models.unet import UNet, UNetConfig, unet_example
from kinema.shapes import Float


@runtime_checkable
class Backbone(Protocol):
    """A module that predicts the target of diffusion (noise, x0 or velocity) from noisy latents."""

    @property
    def config(self) -> Any:
        """The sizes, an instance of `BackboneEntry.config`."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the latents and of `Conditioning.channels` together."""
        ...

    @property
    def out_channels(self) -> int:
        """Channels of the prediction."""
        ...

    @property
    def text_width(self) -> int:
        """Width of the text states."""
        ...

    @property
    def patch(self) -> Patch:
        """Latents along (lf, lh, lw) per token."""
        ...

    @property
    def time_per_token(self) -> bool:
        """Whether every latent may have its own time. If not, all times of a clip are equal."""
        ...

    def prepare(self, conditioning: Conditioning) -> Any:
        """What the steps of a sampler share: computed once, and given to `predict` in place of
        `conditioning`. The predictions are the same.

        Raises `RequestError` for a part that is missing, of another width or not supported.
        """
        ...

    def predict(
        self,
        latents: Float[Tensor, "b c lf lh lw"],
        t: Float[Tensor, "b 1 lf lh lw"] | Float[Tensor, " b"],
        prepared: Any,
        first_frame: int | Sequence[int] = 0,
    ) -> Float[Tensor, "b out lf lh lw"]:
        """The prediction for latents with one time in [0, 1] per clip or per latent.

        `prepared` is a result of `prepare`, or a `Conditioning`. `first_frame` (of all clips, or of each) is
        the time coordinate of the first latent: 0 for an image latent, >= 1 for a window of a longer video.
        """
        ...

    def predict_packed(
        self,
        clips: Sequence[Float[Tensor, "c _lf _lh _lw"]],
        t: Sequence[Float[Tensor, "1 _lf _lh _lw"]],
        conditioning: Sequence[Conditioning],
        first_frames: Sequence[int],
    ) -> list[Tensor]:
        """The predictions (out, lf, lh, lw) for clips of any sizes, each with its own conditioning.

        They equal those of `predict` for each clip. `predict_each` is one implementation.
        """
        ...


FIXED_SIZES = ("in_channels", "out_channels", "text_dim", "text_length")
"""Sizes that the VAE and the text encoder of a model determine."""


def text_only(config: Any, num_clips: int, num_tokens: int, num_frames: int) -> Conditioning:
    """Prompts of `num_tokens` tokens, with states that are not initialised."""
    lengths = (num_tokens,) * num_clips
    return Conditioning(TextStates(torch.empty(sum(lengths), config.text_dim), lengths))


@dataclass(frozen=True)
class BackboneEntry:
    """One class of backbones.

    `config` is a dataclass with the fields `FIXED_SIZES`; its other fields have defaults and are the [model]
    table of a recipe.
    """

    class_names: tuple[str, ...]
    """The classes in config.json that the network reads; a new one writes the first."""
    config: type[Any]
    network: type[nn.Module]
    """The class of the module, a `Backbone`. Its argument is `config`."""
    depth: str | None = None
    """The size that is the number of equal blocks: their cost is counted once."""
    example: Callable[[Any, int, int, int], Conditioning] = text_only
    """Conditioning of the usual shapes: of a configuration, for a number of clips, of tokens of a prompt and
    of latent frames."""

    def build(self, sizes: Mapping[str, Any], **fixed: int) -> nn.Module:
        """A new network of these sizes. `fixed` are the values of `FIXED_SIZES`.

        Raises `ConfigError` for sizes that do not fit, or that are not a recipe's to set.
        """
        if surplus := sorted(fixed.keys() & sizes):
            raise ConfigError(
                f"[model] sets {', '.join(surplus)}, which follow from the VAE and the text: leave it out"
            )
        return self.network(from_dict(self.config, {**sizes, **fixed}, "model"))

    def sizes(self, config: Any) -> dict[str, Any]:
        """The [model] table of a recipe for the network of `config`: the inverse of `build`."""
        return {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(self.config)
            if field.name not in FIXED_SIZES and getattr(config, field.name) != field.default
        }

    def num_blocks(self, config: Any) -> int:
        """The number of equal blocks; 1 if there are none."""
        return 1 if self.depth is None else int(getattr(config, self.depth))

    def with_blocks(self, config: Any, number: int) -> Any:
        """The configuration with another number of equal blocks, if there are any."""
        return config if self.depth is None else dataclasses.replace(config, **{self.depth: number})


BACKBONES: dict[str, BackboneEntry] = {
    "dit": BackboneEntry(
        ("WanTransformer3DModel", "KinemaDiT"), DiTConfig, DiT, depth="num_layers", example=dit_example
    ),
    "unet": BackboneEntry(("UNet2DConditionModel",), UNetConfig, UNet, example=unet_example),
    "image_dit": BackboneEntry(
        ("DiTTransformer2DModel",), ImageDiTConfig, ImageDiT, depth="num_layers", example=image_dit_example
    ),
}
"""Every backbone by its name in recipes."""


def entry_of(config: Any) -> BackboneEntry:
    """The entry of the backbones with this configuration."""
    return next(entry for entry in BACKBONES.values() if isinstance(config, entry.config))


@lru_cache
def without_weights(config: Any) -> nn.Module:
    """The backbone of a configuration on the meta device."""
    with torch.device("meta"):
        return entry_of(config).network(config)
