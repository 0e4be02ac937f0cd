"""The entry of image models in diffusers' layout."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from kinema.checkpoints.components import format_of, with_weights
from kinema.checkpoints.families.base import (
    ComponentFiles,
    Family,
    LoadedModel,
    ModelFiles,
    ModelSizes,
    Offload,
    TextEncoderSizes,
)
from kinema.checkpoints.families.stable_diffusion.files import (
    ImageFiles,
    pipeline_class,
    read_files,
    tensors_in,
)
from kinema.checkpoints.families.stable_diffusion.text import ClassLabels, JoinedText, clip_encoder
from kinema.checkpoints.manifest import CONFIG, Manifest
from kinema.files import file_fingerprint, read_json
from kinema.models.backbone import Backbone, entry_of
from kinema.models.conditioning import TextEncoder
from kinema.models.image_dit import ImageDiTConfig
from kinema.models.image_vae import ImageVAE
from kinema.models.unet import UNetConfig

M = TypeVar("M", bound=nn.Module)
State = Mapping[str, Tensor]
VAE_OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Names of the VAE's attention in files before 2023, by ours."""


def is_mine(path: Path) -> bool:
    """Whether `path` is an image model of diffusers, also of a kind that is not supported."""
    return pipeline_class(path) is not None


def manifest(path: Path) -> Manifest:
    """The limits and defaults of a model."""
    return read_files(path).manifest


def inspect(path: Path) -> ModelFiles:
    """The sizes and the components of a model."""
    files, components = read_files(path), read_files(path).components
    text = TextEncoderSizes(0, 0, 0, 1, 1)
    if encoders := files.variant.encoders:
        num_parameters = sum(components[name].num_parameters for name in encoders)
        text = TextEncoderSizes.of(read_json(path / encoders[-1] / CONFIG), num_parameters)
    sizes = ModelSizes(files.backbone, files.vae, files.manifest, text)
    kind = f"{files.variant.title}, in the layout diffusers"
    return ModelFiles(kind, sizes, {name: ComponentFiles.of(part) for name, part in components.items()})


def load(path: Path, device: torch.device, dtype: torch.dtype, offload: Offload) -> LoadedModel:
    """The networks of a model, with matrices of the backbone in `dtype`. Raises `ModelError`."""
    files = read_files(path)
    with torch.device("meta"):
        network = entry_of(files.backbone).network(files.backbone)
        vae = ImageVAE(files.vae)
    layout = format_of(type(network))
    backbone = _filled(
        network, path / files.variant.backbone, device, dtype, layout.to_file, layout.from_file
    )
    assert isinstance(backbone, Backbone), "a network of BACKBONES is a backbone"
    has_size = isinstance(files.backbone, UNetConfig) and files.backbone.added_dim is not None
    return LoadedModel(
        files.manifest,
        {"high": backbone},
        _filled(vae, path / "vae", device, torch.float32),
        _text_encoder(files, device, keep=offload == "none"),
        files.rules,
        size_vector=size_and_crop if has_size else None,
    )


def size_and_crop(height: int, width: int) -> tuple[float, ...]:
    """The numbers that SDXL takes: the original size, the upper left corner of the crop, the wanted size."""
    return float(height), float(width), 0.0, 0.0, float(height), float(width)


def _text_encoder(files: ImageFiles, device: torch.device, *, keep: bool) -> TextEncoder:
    """The text encoder of a model."""
    if isinstance(files.backbone, ImageDiTConfig):
        labels = cast(dict[str, str], files.index.get("id2label", {}))
        return ClassLabels(labels, files.backbone.num_classes, device)
    is_joined = len(files.variant.encoders) > 1
    layer = -2 if is_joined else -1
    encoders = [clip_encoder(files.path, name, layer, device, keep=keep) for name in files.variant.encoders]
    if not is_joined:
        return encoders[0]
    return JoinedText(encoders, zero_empty=bool(files.index.get("force_zeros_for_empty_prompt", True)))


def _unchanged(module: nn.Module, state: State) -> State:
    return state


def _filled(
    module: M,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    to_file: Callable[[M, State], State] = _unchanged,
    from_file: Callable[[M, State], State] = _unchanged,
) -> M:
    """`module` with the tensors of a folder, under today's names or those before 2023.

    Raises `ModelError`.
    """
    files = tensors_in(folder)
    expected = to_file(module, module.state_dict())
    names = {name: name if name in files.shapes else _old_name(name) for name in expected}
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in expected.items()}
    files.account(shapes, type(module).__name__)
    state = {name: files[theirs] for name, theirs in names.items()}
    return with_weights(module, from_file(module, state), device, dtype).requires_grad_(False)


def _old_name(name: str) -> str:
    """The name of a tensor of the VAE's attention in old files."""
    for ours, theirs in VAE_OLD_NAMES.items():
        name = name.replace(f"attentions.0.{ours}.", f"attentions.0.{theirs}.")
    return name


STABLE_DIFFUSION = Family(
    "Stable Diffusion",
    is_mine,
    manifest,
    inspect,
    file_fingerprint,
    load,
    offloads=("text", "none"),
    checks_memory=True,
)
