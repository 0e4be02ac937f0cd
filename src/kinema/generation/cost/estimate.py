"""Estimates of the tokens, FLOPs and memory of a generation, phase by phase, before anything is loaded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import Any

import torch

from kinema.checkpoints.families.base import OFFLOADS, ModelSizes, Offload
from kinema.diffusion.guidance import JOINT_TOKENS
from kinema.errors import ConfigError
from kinema.generation.cost.counting import (
    PROMPT_TOKENS,
    backbone_flops,
    backbone_peak_bytes,
    decode_cost,
    encode_cost,
    prepared_bytes,
)
from kinema.models.autoencoder import AutoencoderConfig, autoencoder_without_weights
from kinema.models.backbone import Backbone, entry_of, without_weights
from kinema.nn.parameters import weight_dtypes
from kinema.registry import lookup

DTYPES = {2: torch.bfloat16, 4: torch.float32}
"""Weight dtype by bytes per weight."""
LATENT_COPIES = 8
"""Copies of the latents in float32 during a run: canvas, noise, sample and the sampler's history."""


@dataclass(frozen=True)
class ImageModel:
    """A published image model to compare with."""

    title: str
    forward_flops: float
    """FLOPs of one forward pass of the UNet, counted by bench/image_models.py."""
    steps: int


IMAGE_MODELS = {
    "sd": ImageModel("Stable Diffusion 1.5, 512x512", 0.803e12, 50),
    "sdxl": ImageModel("SDXL, 1024x1024", 6.761e12, 50),
}


@dataclass(frozen=True)
class Phase:
    """A phase of a generation: its FLOPs, and the memory of weights on the device and of what is computed."""

    name: str
    flops: float
    weights_bytes: int
    activations_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the phase."""
        return self.weights_bytes + self.activations_bytes


@dataclass(frozen=True)
class Estimate:
    """The cost of a generation. `phases` are in the order in which they run."""

    frames: int
    grid: tuple[int, int, int]
    """Size (lf, lh, lw) of the latents."""
    tokens: int
    num_forwards: int
    """Forward passes of the backbone."""
    phases: tuple[Phase, ...]

    @property
    def flops(self) -> float:
        """FLOPs of all phases."""
        return sum(phase.flops for phase in self.phases)

    @property
    def peak_bytes(self) -> int:
        """Peak memory over all phases."""
        return max(phase.peak_bytes for phase in self.phases)


@dataclass(frozen=True)
class Workload:
    """What is to be generated, and how the weights are kept. Sizes are in pixels."""

    width: int
    height: int
    frames: int
    steps: int
    window: int | None = None
    """Latent frames of one forward pass of the backbone; None for all."""
    guided: bool = True
    bytes_per_weight: int = 2
    offload: Offload = "text"


def estimate(sizes: ModelSizes, workload: Workload) -> Estimate:
    """The cost of a video with a float32 VAE and prompts of `PROMPT_TOKENS` tokens.

    The weights of a phase are all weights on the device meanwhile. Raises `ConfigError` for a size that the
    model cannot generate.
    """
    grid = _latent_grid(sizes, workload)
    backbone = _backbone(sizes)
    tokens = prod(grid) // prod(backbone.patch)
    num_forwards = workload.steps * (2 if workload.guided else 1)
    weights = _weights_on_device(sizes, workload)
    latents = LATENT_COPIES * 4 * sizes.vae.z_dim * prod(grid)

    phases = [_text_phase(sizes, workload, weights.resting)]
    if backbone.in_channels != sizes.vae.z_dim:
        flops, peak = encode_cost(sizes.vae, workload.width, workload.height, workload.frames)
        phases.append(Phase("image", flops, weights.resting, peak + 2 * latents))

    window = (min(grid[0], workload.window or grid[0]), *grid[1:])
    is_joint = workload.guided and prod(window) // prod(backbone.patch) <= JOINT_TOKENS
    dtype = DTYPES[workload.bytes_per_weight]
    num_prepared = (4 if workload.guided else 1) * sizes.num_experts
    prepared = num_prepared * prepared_bytes(sizes.backbone, window, dtype)
    activations = (
        backbone_peak_bytes(sizes.backbone, window, dtype, 2 if is_joint else 1) + prepared + latents
    )
    flops = backbone_flops(sizes.backbone, grid, dtype) * num_forwards
    phases.append(Phase("sampling", flops, weights.sampling, activations))

    flops, peak = decode_cost(sizes.vae, grid)
    phases.append(Phase("decoding", flops, weights.resting, peak + latents))
    return Estimate(workload.frames, grid, tokens, num_forwards, tuple(phases))


def _latent_grid(sizes: ModelSizes, workload: Workload) -> tuple[int, int, int]:
    """Size (lf, lh, lw) of the latents. Raises `ConfigError`."""
    width, height, frames = workload.width, workload.height, workload.frames
    spatial, temporal = sizes.vae.spatial_factor, sizes.vae.temporal_factor
    multiple = sizes.manifest.side_multiple
    if width % multiple or height % multiple:
        near = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in (width, height))
        raise ConfigError(
            f"{width}x{height} pixels do not fit the model: use multiples of {multiple}, e.g. {near}"
        )
    if (frames - 1) % temporal:
        raise ConfigError(
            f"{frames} frames do not fit the model: use {temporal}k+1, e.g. "
            f"{frames // temporal * temporal + 1}"
        )
    return (frames - 1) // temporal + 1, height // spatial, width // spatial


def _text_phase(sizes: ModelSizes, workload: Workload, resting_bytes: int) -> Phase:
    text = sizes.text
    block_parameters = text.num_parameters - text.embedding_parameters
    loaded = {
        "none": 0,  # already part of the resting weights
        "text": text.num_parameters,
        "layers": text.embedding_parameters + 2 * block_parameters // text.num_blocks,
    }[workload.offload]

    # Besides hidden states: the scores of every head with their softmax, and both halves of the gated MLP.
    activations = (
        PROMPT_TOKENS
        * workload.bytes_per_weight
        * (3 * text.num_heads * PROMPT_TOKENS + 3 * text.mlp_width + 4 * _backbone(sizes).text_width)
    )
    flops = 2 * 2.0 * block_parameters * PROMPT_TOKENS
    weights = resting_bytes + workload.bytes_per_weight * loaded
    return Phase("text encoder", flops, weights, activations)


@dataclass(frozen=True)
class _DeviceWeights:
    """Bytes of weights on the device during sampling, and outside it."""

    resting: int
    sampling: int


def _weights_on_device(sizes: ModelSizes, workload: Workload) -> _DeviceWeights:
    entry, dtype = entry_of(sizes.backbone), DTYPES[workload.bytes_per_weight]
    one, two = (_weight_bytes(entry.with_blocks(sizes.backbone, number), dtype) for number in (1, 2))
    block = two - one
    resident = _vae_bytes(sizes.vae) + workload.bytes_per_weight * sizes.image_encoder
    resident += sizes.num_experts * (one - block)
    if workload.offload == "layers":  # the current block and the next one
        return _DeviceWeights(resident, resident + 2 * block)

    resident += sizes.num_experts * entry.num_blocks(sizes.backbone) * block
    if workload.offload == "none":
        resident += workload.bytes_per_weight * sizes.text.num_parameters
    return _DeviceWeights(resident, resident)


def _backbone(sizes: ModelSizes) -> Backbone:
    backbone = without_weights(sizes.backbone)
    assert isinstance(backbone, Backbone), "a network of BACKBONES is a backbone"
    return backbone


@lru_cache
def _vae_bytes(config: AutoencoderConfig) -> int:
    return 4 * sum(parameter.numel() for parameter in autoencoder_without_weights(config).parameters())


@lru_cache
def _weight_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of the weights of a backbone."""
    backbone = without_weights(config)
    dtypes = weight_dtypes(backbone, dtype)
    return sum(tensor.numel() * dtypes[name].itemsize for name, tensor in backbone.state_dict().items())


Option = tuple[str, Workload]
"""Command-line options, and the workload that they give."""


def alternatives(
    sizes: ModelSizes, workload: Workload, memory_bytes: float, offloads: Sequence[Offload] = OFFLOADS
) -> list[str]:
    """Changes to `workload` that fit into `memory_bytes`, one line each. The model supports `offloads`.

    Every line changes one option. If none fits, offloading and a smaller size are combined.
    """
    can_stream = "layers" in offloads
    streamed = replace(workload, offload="layers" if can_stream else workload.offload)
    options: list[Iterable[Option]] = []
    if can_stream and workload.offload != "layers":
        options.append([("--offload layers", streamed)])
    if workload.bytes_per_weight != 2:
        options.append([("--precision bf16", replace(workload, bytes_per_weight=2))])
    options.append(_smaller(sizes, workload, "--size {0.width}x{0.height}"))
    options.append(_shorter(sizes, workload, "--frames {0.frames}"))

    fitting = [_first_that_fits(sizes, each, memory_bytes) for each in options]
    if can_stream and not any(fitting):
        combined = _smaller(sizes, streamed, "--offload layers --size {0.width}x{0.height}")
        fitting = [_first_that_fits(sizes, combined, memory_bytes)]
    return [line for line in fitting if line]


def _first_that_fits(sizes: ModelSizes, options: Iterable[Option], memory_bytes: float) -> str | None:
    for text, workload in options:
        needed = estimate(sizes, workload).peak_bytes
        if needed <= memory_bytes:
            return f"{text} needs {format_bytes(needed)}"
    return None


def _smaller(sizes: ModelSizes, workload: Workload, text: str) -> Iterator[Option]:
    multiple = sizes.manifest.side_multiple
    for share in (Fraction(3, 4), Fraction(1, 2), Fraction(3, 8), Fraction(1, 4)):
        width, height = (
            max(multiple, int(side * share) // multiple * multiple)
            for side in (workload.width, workload.height)
        )
        smaller = replace(workload, width=width, height=height)
        yield text.format(smaller), smaller


def _shorter(sizes: ModelSizes, workload: Workload, text: str) -> Iterator[Option]:
    temporal = sizes.vae.temporal_factor
    for share in (Fraction(3, 4), Fraction(1, 2), Fraction(1, 4), Fraction(1, 8)):
        frames = 1 + int((workload.frames - 1) * share) // temporal * temporal
        shorter = replace(workload, frames=frames)
        yield text.format(shorter), shorter


def format_bytes(size_bytes: float) -> str:
    """A size in GiB, or in MiB below 0.1 GiB."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 0.1 * 2**30 else f"{size_bytes / 2**20:.1f} MiB"


def compare_with_images(video: Estimate, names: Sequence[str]) -> list[str]:
    """One line per image model with the ratio of the FLOPs. Raises `UnknownName`."""
    lines = []
    for name in names:
        image = lookup(IMAGE_MODELS, name, kind="image model")
        image_flops = 2 * image.steps * image.forward_flops  # two forward passes per guided step
        lines.append(
            f"{image.title}: {image_flops / 1e12:.0f} TFLOP in {image.steps} guided steps; "
            f"the video is {video.flops / image_flops:.0f} times as much"
        )
    return lines
