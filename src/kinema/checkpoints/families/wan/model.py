"""The Wan family (Wan Team 2025, arXiv 2503.20314; code Apache-2.0): variants, sampling defaults and loading.

The variant of a folder follows from its structure: the channels that the backbone takes besides the noisy
latents, the number of experts, and whether every token has its own time.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import nn

from kinema.checkpoints.components import with_weights
from kinema.checkpoints.families.base import Expert, LoadedModel, Offload, SamplingRules
from kinema.checkpoints.families.wan.files import (
    BackboneFiles,
    EncoderFiles,
    RenamedTensors,
    WanFiles,
    find_wan_files,
)
from kinema.checkpoints.families.wan.image_encoder import ImageEncoder
from kinema.checkpoints.families.wan.umt5 import SubwordTokenizer, umt5_encoder
from kinema.checkpoints.manifest import Manifest, load_manifest
from kinema.checkpoints.offload import with_streamed_blocks
from kinema.checkpoints.text_encoders import transformers_module
from kinema.errors import ModelError
from kinema.models.backbone import BACKBONES
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAEConfig
from kinema.nn.parameters import weight_dtypes
from kinema.registry import lookup

EncoderKind = Literal["UMT5EncoderModel", "CLIPVisionModel"]
HIGHEST_TIME, LAST_TIME = 1 - 1e-6, 1e-3
"""Limits of the times before 0 in Wan and diffusers: the log SNR of UniPC is infinite at 1."""
LICENCE = "Apache-2.0"
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Default negative prompt of Wan's code (wan/configs/shared_config.py), which its models need."""


@dataclass(frozen=True)
class Variant:
    """Sampling defaults of the published models of one kind (wan/configs of the Wan 2.1 and 2.2 code)."""

    fps: float
    frames: int
    size: tuple[int, int]
    steps: int
    shift: float
    guidance: float
    low_guidance: float | None = None
    """Guidance of the low-noise expert, if there are two."""
    boundary: float | None = None
    """Time in [0, 1] from which on the high-noise expert is used."""
    last_image: bool = False
    """Whether the model takes a last image besides the first."""
    time_per_token: bool = False
    """Whether every token may have its own time, so that a first image is given by tokens at t = 0."""


VARIANTS = {
    "wan-2.1-t2v": Variant(16, 81, (480, 832), 50, 5.0, 5.0),
    "wan-2.1-i2v": Variant(16, 81, (480, 832), 40, 3.0, 5.0),
    "wan-2.1-flf2v": Variant(16, 81, (720, 1280), 50, 16.0, 5.0, last_image=True),
    "wan-2.2-t2v-a14b": Variant(16, 81, (720, 1280), 40, 12.0, 4.0, 3.0, 0.875),
    "wan-2.2-i2v-a14b": Variant(16, 81, (720, 1280), 40, 5.0, 3.5, 3.5, 0.9),
    "wan-2.2-ti2v-5b": Variant(24, 121, (704, 1280), 50, 5.0, 5.0, time_per_token=True),
}


def wan_variant(dit: DiTConfig, vae: VAEConfig, *, num_experts: int, has_token_times: bool) -> str:
    """The variant with this structure. Raises `ModelError` if there is none."""
    beside = dit.in_channels - vae.z_dim
    if beside not in (0, vae.z_dim + vae.temporal_factor):
        raise ModelError(
            f"the backbone takes {dit.in_channels} channels, but latents of the VAE have {vae.z_dim}: "
            f"{vae.z_dim} are needed, or {2 * vae.z_dim + vae.temporal_factor} with an image beside them"
        )
    if num_experts == 2:
        return "wan-2.2-i2v-a14b" if beside else "wan-2.2-t2v-a14b"
    if has_token_times:
        return "wan-2.2-ti2v-5b"
    if dit.image_positions is not None:
        return "wan-2.1-flf2v"
    return "wan-2.1-i2v" if beside else "wan-2.1-t2v"


def wan_manifest(
    variant: str, dit: DiTConfig, vae: VAEConfig, *, name: str, shift: float | None = None
) -> Manifest:
    """The manifest of a model of the family: its defaults and limits. `shift` overrides the variant's."""
    values = lookup(VARIANTS, variant, kind="variant of Wan")
    multiple = vae.spatial_factor * max(dit.patch[1:])
    return Manifest(
        name=name,
        licence=LICENCE,
        fps=values.fps,
        sides=(multiple * -(-128 // multiple), multiple * (1280 // multiple), multiple),
        frames=(1, values.frames),
        default_size=cast(tuple[int, int], tuple(multiple * (side // multiple) for side in values.size)),
        default_frames=values.frames,
        sampler="unipc",
        steps=values.steps,
        guidance=values.guidance,
        shift=values.shift if shift is None else shift,
        time_per_token=values.time_per_token,
        pictures_in_channels=dit.in_channels != vae.z_dim,
    )


def describe_wan(files: WanFiles, *, name: str | None = None) -> tuple[str, Manifest]:
    """The variant and the manifest of a model in files, by default with the name of its folder or file.

    Raises `ModelError`.
    """
    path = files.path.resolve()
    name = name or (path.name if path.is_dir() else path.stem)
    config = files.backbones[0].config
    variant = wan_variant(
        config, files.vae.config, num_experts=len(files.backbones), has_token_times=files.has_token_times
    )
    if files.layout == "kinema":
        takes_pictures = config.in_channels != files.vae.config.z_dim
        return variant, replace(load_manifest(files.path), pictures_in_channels=takes_pictures)
    # The published folders of 2.1 have a shift by resolution; those of 2.2 all have 3 or 5, which Wan does
    # not sample with.
    shift = files.shift if variant.startswith("wan-2.1") else None
    return variant, wan_manifest(variant, config, files.vae.config, name=name, shift=shift)


def load_wan_model(
    path: Path, device: torch.device, dtype: torch.dtype = torch.float32, offload: Offload = "text"
) -> LoadedModel:
    """The model of the family at `path`, with matrices of `dtype`.

    Raises `ModelError` naming what is missing or wrong.
    """
    files = find_wan_files(path)
    variant, manifest = describe_wan(files)
    tokenizer = read_tokenizer(files.tokenizer)

    def backbone(part: BackboneFiles) -> DiT:
        with torch.device("meta"):
            dit = cast(DiT, BACKBONES["dit"].network(part.config))
        if offload != "layers":
            return with_weights(dit, part.state, device, dtype)
        dtypes = weight_dtypes(dit, dtype)
        return with_streamed_blocks(
            dit, "blocks", part.state, device, lambda name, tensor: tensor.to(dtypes[name])
        )

    def encoder() -> nn.Module:
        blocks = "encoder.block" if offload == "layers" else None
        return load_encoder(files.text, "UMT5EncoderModel", device, dtype, blocks=blocks)

    with torch.device("meta"):
        vae = VAE(files.vae.config)
    dits = [backbone(part) for part in files.backbones]
    text = umt5_encoder(
        encoder,
        tokenizer,
        files.text.config["d_model"],
        max_length=dits[0].config.text_length,
        keep=offload == "none",
    )
    images = None
    if files.images is not None:
        images = ImageEncoder(load_encoder(files.images, "CLIPVisionModel", device, dtype))
    return LoadedModel(
        manifest,
        dict(zip(get_args(Expert), dits)),
        with_weights(vae, files.vae.state, device, torch.float32),
        text,
        wan_rules(variant, files.boundary if len(dits) == 2 else None),
        None if images is None else images.encode,
    )


def wan_rules(variant: str, boundary: float | None = None) -> SamplingRules:
    """How a variant is sampled. `boundary` overrides the variant's."""
    values = VARIANTS[variant]
    return SamplingRules(
        negative_prompt=NEGATIVE_PROMPT,
        highest_time=HIGHEST_TIME,
        last_time=LAST_TIME,
        whole_timesteps=True,
        boundary=values.boundary if boundary is None else boundary,
        low_guidance=values.low_guidance,
        needs_last_picture=values.last_image,
    )


TIED = {
    "UMT5EncoderModel": ("encoder.embed_tokens.weight",),
    "CLIPVisionModel": ("vision_model.embeddings.position_ids",),
}
"""Tensors that a file may contain besides the weights: copies, and values that follow from the sizes."""


def load_encoder(
    part: EncoderFiles,
    kind: EncoderKind,
    device: torch.device,
    dtype: torch.dtype,
    *,
    blocks: str | None = None,
) -> nn.Module:
    """transformers' network of class `kind` with the weights of `part`, every tensor checked.

    The blocks of its list `blocks` are streamed.
    """
    transformers = transformers_module("models of the Wan family need, for their text encoder,")
    config = getattr(transformers, kind).config_class.from_dict(part.config)
    with torch.device("meta"):
        module: nn.Module = getattr(transformers, kind)(config)
    expected = {name: tensor.shape for name, tensor in module.state_dict().items() if name not in TIED[kind]}
    names = (
        part.state.names if isinstance(part.state, RenamedTensors) else {name: name for name in part.files}
    )
    if surplus := sorted(set(names) - expected.keys() - set(TIED[kind])):
        raise ModelError(
            f"{part.files.files[0]}: {len(surplus)} tensors are not those of {kind}, {surplus[0]} first"
        )
    part.files.account(
        {names.get(name, name): shape for name, shape in expected.items()},
        kind,
        ignored=set(part.files) - set(names.values()) | set(TIED[kind]),
    )
    if kind == "UMT5EncoderModel":
        module.set_submodule("encoder.embed_tokens", module.get_submodule("shared"))
    state = RenamedTensors(part.state, {name: name for name in expected})
    if blocks is not None:
        with_streamed_blocks(module, blocks, state, device, lambda name, tensor: tensor.to(dtype))
    else:
        there = {name: tensor.to(device, dtype) for name, tensor in state.items()}
        _, unexpected = module.load_state_dict(there, strict=False, assign=True)
        assert not unexpected, "the tensors have been accounted for"
    for owner in module.modules():  # buffers that are computed and not stored
        for name, buffer in list(owner.named_buffers(recurse=False)):
            if buffer.is_meta:
                assert name == "position_ids", f"the buffer {name} is not known here"
                owner.register_buffer(
                    name, torch.arange(buffer.shape[-1], device=device).expand(buffer.shape), persistent=False
                )
    return module.eval().requires_grad_(False)


def read_tokenizer(file: Path) -> SubwordTokenizer:
    """The tokenizer of a tokenizer.json. Raises `ModelError` naming the file."""
    from tokenizers import Tokenizer

    if not file.is_file():
        raise ModelError(f"{file} is missing")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        raise ModelError(f"{file} is damaged: {error}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return cast(SubwordTokenizer, tokenizer)
