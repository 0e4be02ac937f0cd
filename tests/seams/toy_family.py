"""A family of models in one file and one line: a folder with an index of its own and a tiny DiT, which takes
the VAE of the shipped model.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.seams.toy_text_encoder import ToyText

from kinema.checkpoints.components import config_of, load_vae
from kinema.checkpoints.families import base as families
from kinema.checkpoints.manifest import Manifest
from kinema.checkpoints.shipped import shipped_model
from kinema.checkpoints.tensors import TensorFiles
from kinema.config import from_dict
from kinema.files import file_fingerprint
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE

INDEX, WEIGHTS = "toy.json", "dit.safetensors"


def manifest(path):
    """The limits that every toy has."""
    return Manifest(path.name, "none", 8.0, (64, 128, 64), (1, 9), (64, 64), 5, steps=2)


def inspect(path):
    """The sizes of a model, and its one component."""
    dit = DiTConfig(**json.loads((path / INDEX).read_text()))
    text = families.TextEncoderSizes(0, 0, 0, 1, 1)
    sizes = families.ModelSizes(dit, config_of(shipped_model(), VAE), manifest(path), text)
    weights = families.ComponentFiles.of(TensorFiles([path / WEIGHTS]))
    return families.ModelFiles("toy", sizes, {"dit": weights})


def load(path, device, dtype, offload):
    """The networks of a model."""
    dit = DiT(inspect(path).sizes.backbone).to(device)
    dit.load_state_dict(load_file(path / WEIGHTS))
    vae = load_vae(shipped_model(), device)
    return families.LoadedModel(manifest(path), {"high": dit.eval()}, vae, ToyText(12, 64))


TOY = families.Family("toy", lambda path: (path / INDEX).is_file(), manifest, inspect, file_fingerprint, load)


def save(path: Path):
    """Write a model with random weights."""
    path.mkdir()
    sizes = {"in_channels": 24, "out_channels": 24, "d": 24, "num_layers": 1, "num_heads": 2, "text_dim": 12}
    dit = DiT(from_dict(DiTConfig, sizes))
    torch.nn.init.normal_(dit.head.projection.weight, std=0.2)
    (path / INDEX).write_text(json.dumps(sizes))
    save_file(dit.state_dict(), path / WEIGHTS)
