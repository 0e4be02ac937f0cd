"""Model folders, in diffusers' layout, so that a DiT and a VAE of Wan's shape also load in diffusers:

    model_index.json   kinema.json
    transformer/   config.json  diffusion_pytorch_model.safetensors
    vae/           config.json  diffusion_pytorch_model.safetensors
    text_encoder/  config.json  model.safetensors
    tokenizer/     tokenizer.json
    scheduler/     scheduler_config.json

With the text encoder of another model, text_encoder/config.json names its folder, and tokenizer/ is absent.

A component by itself, as a training run exports it, is one such subfolder plus card.json (and tokenizer.json
for a CLIP).
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kinema.checkpoints.components import CLASS_KEY, CLIP_CLASS, format_of, write_component
from kinema.checkpoints.key_maps import DIFFUSERS_CLASS, KINEMA_VAE, WAN_VAE
from kinema.checkpoints.manifest import (
    DIFFUSERS_PREDICTIONS,
    DIFFUSERS_SCHEDULERS,
    INDEX,
    MANIFEST,
    REQUIRED_FILES,
    Manifest,
    files_below,
)
from kinema.checkpoints.shipped import SHIPPED, shipped_model
from kinema.checkpoints.text_encoders import SOURCE_CLASS, TextSource, save_text_encoder
from kinema.config import to_dict
from kinema.errors import ModelError
from kinema.files import atomic_folder, sha256_of, write_json
from kinema.models.clip import CLIP
from kinema.models.vae import VAE
from kinema.registry import unknown


def save_model(
    folder: Path,
    backbone: nn.Module,
    vae: VAE,
    text: CLIP | TextSource,
    manifest: Manifest,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> Manifest:
    """Write a model folder atomically and return its manifest with the hashes filled in.

    `backbone` is of a class of `BACKBONES`. `text` is our CLIP, or names an encoder whose weights are not
    copied. Weights are stored as `dtype`. Raises `OutputError` if the folder cannot be written or holds
    something other than a model.
    """
    with atomic_folder(folder, INDEX) as partial:
        for module in (backbone, vae):
            write_component(partial / format_of(type(module)).folder, module, dtype)
        save_text_encoder(partial, text, dtype)

        scheduler = DIFFUSERS_SCHEDULERS[manifest.schedule] | {"num_train_timesteps": 1000}
        if manifest.schedule == "linear":
            scheduler |= {"shift": manifest.shift}
        else:
            scheduler |= {"prediction_type": DIFFUSERS_PREDICTIONS[manifest.prediction]}
        write_json(partial / "scheduler" / "scheduler_config.json", scheduler)
        backbone_class = format_of(type(backbone)).config(backbone)[CLASS_KEY]
        index = {
            "_class_name": "KinemaPipeline",
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["kinema", CLIP_CLASS if isinstance(text, CLIP) else SOURCE_CLASS],
            "tokenizer": ["kinema", "Tokenizer"],
            "transformer": ["diffusers" if backbone_class == DIFFUSERS_CLASS else "kinema", backbone_class],
            "vae": ["diffusers", WAN_VAE] if vae.config.subpixel is None else ["kinema", KINEMA_VAE],
        }
        if not isinstance(text, CLIP):
            del index["tokenizer"]
        write_json(partial / INDEX, index)

        hashes = {name: sha256_of(partial / name) for name in files_below(partial)}
        manifest = replace(manifest, sha256=hashes)
        write_json(partial / MANIFEST, to_dict(manifest))
    return manifest


def resolve_model(model: str | Path) -> Path:
    """The folder of a model: "shipped", or a path. Raises `ModelError` if it does not exist."""
    if model == SHIPPED:
        return shipped_model()
    if not Path(model).is_dir():
        raise ModelError(
            f"{unknown('model', str(model), [SHIPPED])}; or give the path of a model folder: {REQUIRED_FILES}"
        )
    return Path(model)
