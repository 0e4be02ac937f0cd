"""Kinema's own family: model folders with a kinema.json (`kinema.checkpoints.folders`)."""

from pathlib import Path

import torch

from kinema.checkpoints.components import backbone_entry, config_of, load_backbone, load_vae
from kinema.checkpoints.families.base import (
    ComponentFiles,
    Family,
    LoadedModel,
    ModelFiles,
    ModelSizes,
    Offload,
    TextEncoderSizes,
)
from kinema.checkpoints.manifest import CONFIG, INDEX, MANIFEST, load_manifest, model_hash
from kinema.checkpoints.tensors import TensorFiles
from kinema.checkpoints.text_encoders import find_text_encoder, load_text_encoder
from kinema.files import read_json
from kinema.models.clip import CLIP
from kinema.models.vae import VAE

CLASS = "KinemaPipeline"
"""The class in model_index.json."""


def is_mine(path: Path) -> bool:
    """Whether `path` is a model folder of Kinema."""
    if not (path / MANIFEST).is_file():
        return False
    return not (path / INDEX).is_file() or read_json(path / INDEX).get("_class_name") == CLASS


def inspect(path: Path) -> ModelFiles:
    """The sizes and the components of a model folder."""
    components = {
        folder.name: ComponentFiles.of(TensorFiles(files))
        for folder in sorted(path.iterdir())
        if folder.is_dir() and (files := sorted(folder.glob("*.safetensors")))
    }
    backbone = config_of(path, backbone_entry(path).network)
    sizes = ModelSizes(backbone, config_of(path, VAE), load_manifest(path), _text_sizes(path))
    return ModelFiles("kinema", sizes, components)


def _text_sizes(path: Path) -> TextEncoderSizes:
    """The sizes of the CLIP in a model folder, or of the encoder that it names."""
    source = find_text_encoder(path)
    folder = path / "text_encoder" if source is None else Path(source.path)
    num_parameters = TensorFiles(sorted(folder.glob("*.safetensors"))).num_parameters
    if source is not None:
        return TextEncoderSizes.of(read_json(folder / CONFIG), num_parameters)
    clip = config_of(path, CLIP)
    embedding_parameters = clip.vocabulary_size * clip.text_width
    return TextEncoderSizes(
        num_parameters, embedding_parameters, 4 * clip.text_width, clip.text_heads, clip.text_layers
    )


def load(path: Path, device: torch.device, dtype: torch.dtype, offload: Offload) -> LoadedModel:
    """The networks of a model folder. Their weights are float32 whatever `dtype`, which autocast applies."""
    backbone, vae = load_backbone(path, device), load_vae(path, device)
    return LoadedModel(load_manifest(path), {"high": backbone}, vae, load_text_encoder(path, device))


KINEMA = Family("Kinema", is_mine, load_manifest, inspect, model_hash, load)
