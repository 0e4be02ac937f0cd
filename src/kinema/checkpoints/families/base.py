"""What a family of models is, and what it returns: the sizes of a model in files, and its loaded networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from kinema.checkpoints.manifest import Manifest
from kinema.checkpoints.tensors import TensorFiles
from kinema.diffusion.schedules import TimestepGrid
from kinema.errors import ConfigError
from kinema.models.autoencoder import Autoencoder, AutoencoderConfig
from kinema.models.backbone import Backbone
from kinema.models.conditioning import TextEncoder, TextStates

Offload = Literal["none", "text", "layers"]
"""What is on the device: all networks; all but the text encoder, which is loaded while it encodes a prompt;
or, of the backbone and the text encoder, only the blocks that are computed (`StreamedBlocks`)."""
OFFLOADS: tuple[Offload, ...] = ("none", "text", "layers")

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
    grid: TimestepGrid | None = None
    """The times of the sampler, in place of equal steps between these two."""
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
    vae: Autoencoder
    text_encoder: TextEncoder
    rules: SamplingRules = SamplingRules()
    encode_pictures: Callable[[list[np.ndarray]], TextStates] | None = None
    """Hidden states of uint8 pictures (h, w, 3), for backbones that attend to them."""
    size_vector: Callable[[int, int], Sequence[float]] | None = None
    """`Conditioning.vectors` of a clip with this height and width, for backbones that take its size."""


@dataclass(frozen=True)
class TextEncoderSizes:
    """Sizes of a text encoder."""

    num_parameters: int
    embedding_parameters: int
    """Parameters of the token embedding, which are part of `num_parameters`."""
    mlp_width: int
    num_heads: int
    num_blocks: int

    @classmethod
    def of(cls, config: Mapping[str, Any], num_parameters: int) -> "TextEncoderSizes":
        """The sizes of an encoder with a config.json of transformers, whose names depend on the class."""
        config = config.get("text_config", config)

        def size(*names: str) -> int:
            return next((int(config[name]) for name in names if name in config), 1)

        return cls(
            num_parameters,
            size("vocab_size") * size("d_model", "hidden_size"),
            size("d_ff", "intermediate_size"),
            size("num_heads", "num_attention_heads"),
            size("num_layers", "num_hidden_layers"),
        )


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that an estimate of its cost needs."""

    backbone: Any
    """Configuration of the backbone, of a class of `BACKBONES`."""
    vae: AutoencoderConfig
    manifest: Manifest
    text: TextEncoderSizes
    num_experts: int = 1
    image_encoder: int = 0
    """Parameters of the image encoder, 0 if there is none."""


@dataclass(frozen=True)
class ComponentFiles:
    """The weights of a component in files."""

    num_tensors: int
    num_parameters: int
    size_bytes: int
    dtypes: frozenset[str]

    @classmethod
    def of(cls, files: TensorFiles) -> "ComponentFiles":
        """The weights in `files`."""
        dtypes = frozenset(str(dtype).removeprefix("torch.") for dtype in files.dtypes.values())
        return cls(len(files), files.num_parameters, files.size_bytes, dtypes)


@dataclass(frozen=True)
class ModelFiles:
    """A model in files, read from their headers."""

    kind: str
    """One line: the variant and the layout of the files."""
    sizes: ModelSizes
    components: Mapping[str, ComponentFiles]


@dataclass(frozen=True)
class Family:
    """A family of models: how its files are recognised, described and loaded.

    All but `load` read headers and configurations only, no weights. All raise `ModelError`.
    """

    name: str
    """The name in messages."""
    is_mine: Callable[[Path], bool]
    """Whether a path is a model of the family. No two families answer yes."""
    manifest: Callable[[Path], Manifest]
    inspect: Callable[[Path], ModelFiles]
    fingerprint: Callable[[Path], str]
    """12 hexadecimal digits that identify the weights."""
    load: Callable[[Path, torch.device, torch.dtype, Offload], LoadedModel]
    """The networks on a device, with matrices of a dtype where the family stores any."""
    offloads: tuple[Offload, ...] = ("none",)
    """What `load` supports. The first is the default."""
    published: Mapping[str, ModelSizes] = field(default_factory=dict)
    """Published models by name, which can be planned for without files."""
    checks_memory: bool = False
    """Whether requests are compared with the free memory before loading, which takes seconds."""
    convert: Callable[[Path, Path, str], ModelFiles] | None = None
    """Writes a model in another layout of the family, as a folder."""

    def offload(self, name: Offload | None, path: Path) -> Offload:
        """The mode `name` for the model at `path`, or the default. Raises `ConfigError` for another one."""
        if name is None:
            return self.offloads[0]
        if name not in self.offloads:
            raise ConfigError(
                f"offload='{name}' does not apply to {path}: its family has {', '.join(self.offloads)}"
            )
        return name
