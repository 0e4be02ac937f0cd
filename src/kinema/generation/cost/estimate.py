"""Estimates of the tokens, FLOPs and memory of a generation, phase by phase, before anything is loaded."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import prod

import torch

from kinema.checkpoints.families.wan.files import EncoderFiles, WanFiles
from kinema.checkpoints.families.wan.model import Offload
from kinema.diffusion.guidance import JOINT_TOKENS
from kinema.errors import ConfigError
from kinema.generation.cost.counting import (
    PROMPT_TOKENS,
    decode_cost,
    dit_flops,
    dit_peak_bytes,
    encode_cost,
    keys_bytes,
)
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAES, VAEConfig
from kinema.nn.parameters import weight_dtypes
from kinema.registry import lookup

IMAGE_ENCODER_PARAMETERS = 630_766_080
"""Parameters of the image encoder of Wan 2.1, CLIP ViT-H/14 without its projection."""
DTYPES = {2: torch.bfloat16, 4: torch.float32}
"""Weight dtype by bytes per weight."""
LATENT_COPIES = 8
"""Copies of the latents in float32 during a run: canvas, noise, sample and the sampler's history."""


@dataclass(frozen=True)
class TextEncoderSizes:
    """Sizes of a UMT5 encoder."""

    num_parameters: int
    embedding_parameters: int
    """Parameters of the token embedding, which are part of `num_parameters`."""
    mlp_width: int
    num_heads: int
    num_blocks: int

    @classmethod
    def of(cls, encoder: EncoderFiles) -> "TextEncoderSizes":
        """The sizes of an encoder in files."""
        config = encoder.config
        embedding_parameters = config["vocab_size"] * config["d_model"]
        copies = ("encoder.embed_tokens.weight", "spiece_model")
        num_parameters = sum(
            prod(shape) for name, shape in encoder.files.shapes.items() if name not in copies
        )
        return cls(
            num_parameters, embedding_parameters, config["d_ff"], config["num_heads"], config["num_layers"]
        )


UMT5_XXL = TextEncoderSizes(5_680_910_336, 256_384 * 4096, 10_240, 64, 24)


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of a model that an estimate needs."""

    dit: DiTConfig
    vae: VAEConfig
    variant: str
    num_experts: int = 1
    text: TextEncoderSizes = UMT5_XXL
    image_encoder: int = 0
    """Parameters of the image encoder, 0 if there is none."""

    @classmethod
    def of(cls, files: WanFiles, variant: str) -> "ModelSizes":
        """The sizes of a model in files."""
        image_encoder = 0 if files.images is None else files.images.files.num_parameters
        backbone = files.backbones[0].config
        return cls(
            backbone,
            files.vae.config,
            variant,
            len(files.backbones),
            TextEncoderSizes.of(files.text),
            image_encoder,
        )


def _wan(
    d: int,
    num_heads: int,
    ffn_dim: int,
    layers: int,
    z: int = 16,
    image_channels: int = 0,
    image_dim: int | None = None,
) -> DiTConfig:
    return DiTConfig(
        in_channels=z + image_channels,
        out_channels=z,
        d=d,
        num_layers=layers,
        num_heads=num_heads,
        ffn_dim=ffn_dim,
        text_dim=4096,
        text_padding="zeros",
        image_dim=image_dim,
    )


_14B = (5120, 40, 13824, 40)
PUBLISHED_MODELS = {
    "wan-2.1-1.3b": ModelSizes(_wan(1536, 12, 8960, 30), VAES["wan-2.1"], "wan-2.1-t2v"),
    "wan-2.1-14b": ModelSizes(_wan(*_14B), VAES["wan-2.1"], "wan-2.1-t2v"),
    "wan-2.1-i2v-14b": ModelSizes(
        _wan(*_14B, image_channels=20, image_dim=1280),
        VAES["wan-2.1"],
        "wan-2.1-i2v",
        image_encoder=IMAGE_ENCODER_PARAMETERS,
    ),
    "wan-2.2-t2v-a14b": ModelSizes(_wan(*_14B), VAES["wan-2.1"], "wan-2.2-t2v-a14b", 2),
    "wan-2.2-i2v-a14b": ModelSizes(_wan(*_14B, image_channels=20), VAES["wan-2.1"], "wan-2.2-i2v-a14b", 2),
    "wan-2.2-5b": ModelSizes(_wan(3072, 24, 14336, 30, z=48), VAES["wan-2.2"], "wan-2.2-ti2v-5b"),
}
"""The published models (Wan Team 2025, and the configurations of the Wan 2.2 code)."""


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
    """One phase of a generation: its FLOPs, and the memory of the weights on the device and of what is
    computed.
    """

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
    tokens = prod(grid) // prod(sizes.dit.patch)
    num_forwards = workload.steps * (2 if workload.guided else 1)
    weights = _weights_on_device(sizes, workload)
    latents = LATENT_COPIES * 4 * sizes.vae.z_dim * prod(grid)

    phases = [_text_phase(sizes, workload, weights.resting)]
    if sizes.dit.in_channels != sizes.vae.z_dim:
        flops, peak = encode_cost(sizes.vae, workload.width, workload.height, workload.frames)
        phases.append(Phase("image", flops, weights.resting, peak + 2 * latents))

    window = (min(grid[0], workload.window or grid[0]), *grid[1:])
    is_joint = workload.guided and prod(window) // prod(sizes.dit.patch) <= JOINT_TOKENS
    dtype = DTYPES[workload.bytes_per_weight]
    keys = (4 if workload.guided else 1) * sizes.num_experts * keys_bytes(sizes.dit, dtype)
    activations = dit_peak_bytes(sizes.dit, window, dtype, 2 if is_joint else 1) + keys + latents
    flops = dit_flops(sizes.dit, tokens) * num_forwards
    phases.append(Phase("sampling", flops, weights.sampling, activations))

    flops, peak = decode_cost(sizes.vae, grid)
    phases.append(Phase("decoding", flops, weights.resting, peak + latents))
    return Estimate(workload.frames, grid, tokens, num_forwards, tuple(phases))


def _latent_grid(sizes: ModelSizes, workload: Workload) -> tuple[int, int, int]:
    """Size (lf, lh, lw) of the latents. Raises `ConfigError`."""
    width, height, frames = workload.width, workload.height, workload.frames
    spatial, temporal = sizes.vae.spatial_factor, sizes.vae.temporal_factor
    multiple = spatial * max(sizes.dit.patch[1:])
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
        * (3 * text.num_heads * PROMPT_TOKENS + 3 * text.mlp_width + 4 * sizes.dit.text_dim)
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
    weights = _weights(sizes.dit, sizes.vae, workload.bytes_per_weight)
    resident = weights.vae + workload.bytes_per_weight * sizes.image_encoder
    resident += sizes.num_experts * weights.outside_blocks
    if workload.offload == "layers":  # the current block and the next one
        return _DeviceWeights(resident, resident + 2 * weights.block)

    resident += sizes.num_experts * sizes.dit.num_layers * weights.block
    if workload.offload == "none":
        resident += workload.bytes_per_weight * sizes.text.num_parameters
    return _DeviceWeights(resident, resident)


@dataclass(frozen=True)
class _Weights:
    """Bytes of the backbone outside its blocks, of one block, and of the VAE."""

    outside_blocks: int
    block: int
    vae: int


@lru_cache
def _weights(dit: DiTConfig, vae: VAEConfig, bytes_per_weight: int) -> _Weights:
    with torch.device("meta"):
        backbone = DiT(replace(dit, num_layers=1))
        vae_bytes = 4 * sum(parameter.numel() for parameter in VAE(vae).parameters())
    dtypes = weight_dtypes(backbone, DTYPES[bytes_per_weight])
    state = backbone.state_dict()
    num_bytes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in state.items()}
    block = sum(size for name, size in num_bytes.items() if name.startswith("blocks."))
    return _Weights(sum(num_bytes.values()) - block, block, vae_bytes)


Option = tuple[str, Workload]
"""Command-line options, and the workload that they give."""


def alternatives(sizes: ModelSizes, workload: Workload, memory_bytes: float) -> list[str]:
    """Changes to `workload` that fit into `memory_bytes`, one line each.

    Every line changes one option. If none fits, offloading and a smaller size are combined.
    """
    streamed = replace(workload, offload="layers")
    options: list[Iterable[Option]] = []
    if workload.offload != "layers":
        options.append([("--offload layers", streamed)])
    if workload.bytes_per_weight != 2:
        options.append([("--precision bf16", replace(workload, bytes_per_weight=2))])
    options.append(_smaller(sizes, workload, "--size {0.width}x{0.height}"))
    options.append(_shorter(sizes, workload, "--frames {0.frames}"))

    fitting = [_first_that_fits(sizes, each, memory_bytes) for each in options]
    if not any(fitting):
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
    multiple = sizes.vae.spatial_factor * max(sizes.dit.patch[1:])
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
