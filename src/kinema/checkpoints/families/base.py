"""A loaded model of any family: its networks, and how they are sampled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kinema.checkpoints.manifest import Manifest
from kinema.models.backbone import Backbone
from kinema.models.conditioning import TextEncoder, TextStates
from kinema.models.vae import VAE

Expert = Literal["high", "low"]
"""The backbone for high noise, or the only one, and the backbone for low noise."""


@dataclass(frozen=True)
class SamplingRules:
    """How the models of a family are sampled beyond their manifest. Times are in [0, 1]."""

    negative_prompt: str = ""
    """The negative prompt of a request that has none."""
    highest_time: float = 1.0
    last_time: float = 0.0
    """The last time of the sampler before 0."""
    whole_timesteps: bool = False
    """Whether the backbones receive whole timesteps (of 1000) only."""
    boundary: float | None = None
    """The time from which on the expert for high noise is used, if there are two."""
    low_guidance: float | None = None
    """Guidance of the expert for low noise, where the request has the default."""
    needs_last_picture: bool = False
    """Whether the model needs a last picture besides the first."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """The networks of a model, all on one device, and how they are sampled."""

    manifest: Manifest
    backbones: Mapping[Expert, Backbone]
    vae: VAE
    text_encoder: TextEncoder
    rules: SamplingRules = SamplingRules()
    encode_pictures: Callable[[list[np.ndarray]], TextStates] | None = None
    """Hidden states of uint8 pictures (h, w, 3), for backbones that attend to them."""
