"""What a generation will take before anything is loaded: tokens, operations, memory of every stage, and time at a stated utilisation."""

from collections.abc import Iterator, Sequence
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
"""Numbers in the image tower of Wan 2.1, CLIP ViT-H/14 without its projection."""
DTYPES = {2: torch.bfloat16, 4: torch.float32}
LATENT_COPIES = 8
"""Copies of the latents that a run holds beside the backbone: canvas, noise, sample, and what the sampler remembers."""


@dataclass(frozen=True)
class TextEncoderSizes:
    """Sizes of a UMT5 encoder: numbers of all tensors, numbers of the table of words, widths, heads and blocks."""

    num_parameters: int
    embedding_parameters: int
    mlp_width: int
    num_heads: int
    num_blocks: int

    @classmethod
    def of(cls, encoder: EncoderFiles) -> "TextEncoderSizes":
        """Those of an encoder in files."""
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
    """What a plan needs to know of a model."""

    dit: DiTConfig
    vae: VAEConfig
    variant: str
    num_experts: int = 1
    text: "TextEncoderSizes" = UMT5_XXL
    image_encoder: int = 0
    """Numbers in the image tower, where there is one."""

    @classmethod
    def of(cls, files: WanFiles, variant: str) -> "ModelSizes":
        """Those of a model in files."""
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
    beside: int = 0,
    image_dim: int | None = None,
) -> DiTConfig:
    sizes = {"d": d, "num_heads": num_heads, "ffn_dim": ffn_dim, "num_layers": layers, "image_dim": image_dim}
    return DiTConfig(in_channels=z + beside, out_channels=z, text_dim=4096, text_padding="zeros", **sizes)  # type: ignore[arg-type]


_14B = (5120, 40, 13824, 40)
PUBLISHED_MODELS = {
    "wan-2.1-1.3b": ModelSizes(_wan(1536, 12, 8960, 30), VAES["wan-2.1"], "wan-2.1-t2v"),
    "wan-2.1-14b": ModelSizes(_wan(*_14B), VAES["wan-2.1"], "wan-2.1-t2v"),
    "wan-2.1-i2v-14b": ModelSizes(
        _wan(*_14B, beside=20, image_dim=1280),
        VAES["wan-2.1"],
        "wan-2.1-i2v",
        image_encoder=IMAGE_ENCODER_PARAMETERS,
    ),
    "wan-2.2-t2v-a14b": ModelSizes(_wan(*_14B), VAES["wan-2.1"], "wan-2.2-t2v-a14b", 2),
    "wan-2.2-i2v-a14b": ModelSizes(_wan(*_14B, beside=20), VAES["wan-2.1"], "wan-2.2-i2v-a14b", 2),
    "wan-2.2-5b": ModelSizes(_wan(3072, 24, 14336, 30, z=48), VAES["wan-2.2"], "wan-2.2-ti2v-5b"),
}
"""The published models (Wan Team 2025, and the configurations of the Wan 2.2 code)."""

IMAGE_MODELS = {
    "sd": ("Stable Diffusion 1.5, 512x512", 0.803e12, 50),
    "sdxl": ("SDXL, 1024x1024", 6.761e12, 50),
}
"""Image models to compare with: name, operations of one forward pass of the UNet (bench/image_models.py counts them), steps."""


@dataclass(frozen=True)
class Phase:
    """One stage of a generation: operations, and memory: the weights that are on the device meanwhile, and the most that is computed."""

    name: str
    flops: float
    weights_bytes: int
    activations_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Most memory at a time."""
        return self.weights_bytes + self.activations_bytes


@dataclass(frozen=True)
class Estimate:
    """A plan: what is generated, and its stages in order."""

    frames: int
    grid: tuple[int, int, int]
    """Size (lf, lh, lw) of the latents."""
    tokens: int
    num_forwards: int
    """Forward passes of the backbone."""
    phases: tuple[Phase, ...]

    @property
    def flops(self) -> float:
        """Operations in all."""
        return sum(phase.flops for phase in self.phases)

    @property
    def peak_bytes(self) -> int:
        """Most memory at a time."""
        return max(phase.peak_bytes for phase in self.phases)


@dataclass(frozen=True)
class Workload:
    """What is asked for: pixels, frames in all, latent frames that the backbone sees at a time, steps, and how the weights are kept."""

    width: int
    height: int
    frames: int
    steps: int
    window: int | None = None
    guided: bool = True
    bytes_per_weight: int = 2
    offload: Offload = "text"


def estimate(sizes: ModelSizes, workload: Workload) -> Estimate:
    """What a video takes with matrices of `bytes_each` bytes a number and a float32 VAE, prompts of `PROMPT_TOKENS` tokens.

    A stage's weights are all that are on the device meanwhile. Raises `ConfigError` for sizes that do not fit the model.
    """
    width, height, frames = workload.width, workload.height, workload.frames
    space, pace = sizes.vae.spatial_factor, sizes.vae.temporal_factor
    multiple = space * max(sizes.dit.patch[1:])
    if width % multiple or height % multiple:
        near = "x".join(str(max(multiple, round(side / multiple) * multiple)) for side in (width, height))
        raise ConfigError(
            f"{width}x{height} pixels do not fit the model: use multiples of {multiple}, e.g. {near}"
        )
    if frames % pace != 1 % pace:
        raise ConfigError(
            f"{frames} frames do not fit the model: use {pace}k+1, e.g. {frames // pace * pace + 1}"
        )
    grid = ((frames - 1) // pace + 1, height // space, width // space)
    seen = (min(grid[0], workload.window or grid[0]), *grid[1:])
    tokens = prod(grid) // prod(sizes.dit.patch)
    num_forwards = workload.steps * (2 if workload.guided else 1)
    kept = _kept(sizes, workload)
    dtype = DTYPES[workload.bytes_per_weight]
    text = sizes.text
    read = {
        "none": 0,
        "text": text.num_parameters,
        "layers": text.embedding_parameters
        + 2 * (text.num_parameters - text.embedding_parameters) // text.num_blocks,
    }[workload.offload]
    # Beside what goes through a block, the scores of every head with their softmax, and the two halves of the gated MLP.
    states = (
        PROMPT_TOKENS
        * workload.bytes_per_weight
        * (3 * text.num_heads * PROMPT_TOKENS + 3 * text.mlp_width + 4 * sizes.dit.text_dim)
    )
    phases = [
        Phase(
            "text encoder",
            2 * 2.0 * (text.num_parameters - text.embedding_parameters) * PROMPT_TOKENS,
            kept.resting + workload.bytes_per_weight * read,
            states,
        )
    ]
    latents = LATENT_COPIES * 4 * sizes.vae.z_dim * prod(grid)
    if sizes.dit.in_channels != sizes.vae.z_dim:
        flops, peak = encode_cost(sizes.vae, width, height, frames)
        phases.append(Phase("image", flops, kept.resting, peak + 2 * latents))
    joined = 2 if workload.guided and prod(seen) // prod(sizes.dit.patch) <= JOINT_TOKENS else 1
    held = (4 if workload.guided else 1) * sizes.num_experts * keys_bytes(sizes.dit, dtype)
    computed = dit_peak_bytes(sizes.dit, seen, dtype, joined) + held + latents
    phases.append(Phase("sampling", dit_flops(sizes.dit, tokens) * num_forwards, kept.sampling, computed))
    flops, peak = decode_cost(sizes.vae, grid)
    phases.append(Phase("decoding", flops, kept.resting, peak + latents))
    return Estimate(frames, grid, tokens, num_forwards, tuple(phases))


@dataclass(frozen=True)
class _Kept:
    """Bytes of weights on the device while the backbone rests, and while it works."""

    resting: int
    sampling: int


def _kept(sizes: ModelSizes, workload: Workload) -> _Kept:
    outside, block, vae = _weights(sizes.dit, sizes.vae, workload.bytes_per_weight)
    always = vae + workload.bytes_per_weight * sizes.image_encoder + sizes.num_experts * outside
    if workload.offload == "layers":
        return _Kept(always, always + 2 * block)
    always += sizes.num_experts * sizes.dit.num_layers * block
    always += workload.bytes_per_weight * sizes.text.num_parameters if workload.offload == "none" else 0
    return _Kept(always, always)


@lru_cache
def _weights(dit: DiTConfig, vae: VAEConfig, bytes_per_weight: int) -> tuple[int, int, int]:
    """Bytes of the backbone's weights outside its blocks, of one block, and of the VAE."""
    dtype = DTYPES[bytes_per_weight]
    with torch.device("meta"):
        backbone = DiT(replace(dit, num_layers=1))
        codec = 4 * sum(p.numel() for p in VAE(vae).parameters())
    dtypes = weight_dtypes(backbone, dtype)
    each = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in backbone.state_dict().items()}
    block = sum(size for name, size in each.items() if name.startswith("blocks."))
    return sum(each.values()) - block, block, codec


def alternatives(sizes: ModelSizes, workload: Workload, memory_bytes: float) -> list[str]:
    """What fits into `memory_bytes` in place of `canvas`: one thing changed at a time, or when that is not enough, several."""
    streamed, halved = replace(workload, offload="layers"), replace(workload, bytes_per_weight=2)
    ways: dict[str, Iterator[tuple[str, Workload]]] = {
        "offload": iter([("--offload layers", streamed)] if workload.offload != "layers" else []),
        "precision": iter([("--precision bf16", halved)] if workload.bytes_per_weight != 2 else []),
        "size": _smaller(sizes, workload, "--size {0.width}x{0.height}"),
        "frames": _shorter(sizes, workload, "--frames {0.frames}"),
    }
    words = "--offload layers --size {0.width}x{0.height}"
    several: Iterator[tuple[str, Workload]] = _smaller(sizes, streamed, words)
    found = [line for way in ways.values() if (line := _first_that_fits(sizes, way, memory_bytes))]
    return found or [line for line in [_first_that_fits(sizes, several, memory_bytes)] if line]


def _first_that_fits(
    sizes: ModelSizes, ways: Iterator[tuple[str, Workload]], memory_bytes: float
) -> str | None:
    for words, workload in ways:
        needed = estimate(sizes, workload).peak_bytes
        if needed <= memory_bytes:
            return f"{words} needs {format_bytes(needed)}"
    return None


def _smaller(sizes: ModelSizes, workload: Workload, words: str) -> Iterator[tuple[str, Workload]]:
    multiple = sizes.vae.spatial_factor * max(sizes.dit.patch[1:])
    for share in (Fraction(3, 4), Fraction(1, 2), Fraction(3, 8), Fraction(1, 4)):
        width, height = (
            max(multiple, int(side * share) // multiple * multiple)
            for side in (workload.width, workload.height)
        )
        smaller = replace(workload, width=width, height=height)
        yield words.format(smaller), smaller


def _shorter(sizes: ModelSizes, workload: Workload, words: str) -> Iterator[tuple[str, Workload]]:
    pace = sizes.vae.temporal_factor
    for share in (Fraction(3, 4), Fraction(1, 2), Fraction(1, 4), Fraction(1, 8)):
        shorter = replace(workload, frames=1 + int((workload.frames - 1) * share) // pace * pace)
        yield words.format(shorter), shorter


def format_bytes(size_bytes: float) -> str:
    """A number of bytes for the eye; what is less than a tenth of a GiB in MiB."""
    return f"{size_bytes / 2**30:.1f} GiB" if size_bytes >= 0.1 * 2**30 else f"{size_bytes / 2**20:.1f} MiB"


def compare_with_images(plan: Estimate, names: Sequence[str]) -> list[str]:
    """One line for each image model: how many times its work the video is."""
    lines = []
    for name in names:
        title, flops, steps = lookup(IMAGE_MODELS, name, kind="image model")
        whole = 2 * steps * flops
        lines.append(
            f"{title}: {whole / 1e12:.0f} TFLOP in {steps} guided steps; the video is {plan.flops / whole:.0f} times as much"
        )
    return lines
