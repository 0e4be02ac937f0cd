"""Conversion between layouts of the Wan family: the same tensors bit for bit, renamed."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.checkpoints.families.wan.files import (
    EXPERTS,
    TEXT_WEIGHTS,
    BackboneFiles,
    RenamedTensors,
    WanFiles,
    WanLayout,
    find_wan_files,
)
from kinema.checkpoints.families.wan.model import VARIANTS, describe_wan
from kinema.checkpoints.key_maps import (
    PATCH_WEIGHT,
    dit_diffusers_config,
    dit_keys,
    num_blocks,
    umt5_keys,
    vae_diffusers_config,
    vae_original_name,
)
from kinema.checkpoints.manifest import CONFIG, DIFFUSERS_WEIGHTS, INDEX, MANIFEST, files_below
from kinema.checkpoints.tensors import write_shards
from kinema.config import to_dict
from kinema.errors import ModelError
from kinema.files import atomic_folder, sha256_of, write_json
from kinema.registry import lookup

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")
TOKENIZER_CONFIG = {
    "tokenizer_class": "T5TokenizerFast",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
UNIPC = {
    "_class_name": "UniPCMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "solver_order": 2,
    "solver_type": "bh2",
    "predict_x0": True,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "timestep_spacing": "linspace",
}


def convert(source: Path, target: Path, layout: str) -> WanFiles:
    """Write the model at `source` atomically as the folder `target` in `layout`, and return its files.

    Raises `ModelError` for an incomplete source or one that `layout` cannot represent, and `OutputError` if
    the folder cannot be written or holds something else.
    """
    return write_as(find_wan_files(source), target, layout)


def write_as(files: WanFiles, target: Path, layout: str) -> WanFiles:
    """Write the model of `files` as the folder `target` in `layout`; see `convert`."""
    write, mark = lookup(WRITERS, layout, kind="layout")
    with atomic_folder(target, mark) as partial:
        write(files, partial)
    return find_wan_files(
        target
        if layout != "comfy"
        else next(iter(sorted((target / "diffusion_models").glob("*.safetensors"))))
    )


def _diffusers(files: WanFiles, folder: Path) -> None:
    for part, backbone in zip(("transformer", "transformer_2"), files.backbones):
        write_shards(folder / part, DIFFUSERS_WEIGHTS, _renamed_backbone(backbone, "diffusers"))
        write_json(folder / part / CONFIG, dit_diffusers_config(backbone.config))
    write_shards(folder / "vae", DIFFUSERS_WEIGHTS, files.vae.state)
    write_json(folder / "vae" / CONFIG, vae_diffusers_config(files.vae.config))
    for part, encoder in (("text_encoder", files.text), ("image_encoder", files.images)):
        if encoder is not None:
            write_shards(folder / part, TEXT_WEIGHTS, encoder.state)
            write_json(folder / part / CONFIG, encoder.config)
    _copy_tokenizer(files, folder / "tokenizer")
    if not (folder / "tokenizer" / "tokenizer_config.json").exists():
        write_json(folder / "tokenizer" / "tokenizer_config.json", TOKENIZER_CONFIG)
    variant, manifest = describe_wan(files, name=folder.name.strip(".").removesuffix(".partial"))
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", UNIPC | {"flow_shift": manifest.shift})
    takes_image = files.backbones[0].config.in_channels != files.vae.config.z_dim
    index: dict[str, Any] = {
        "_class_name": "WanImageToVideoPipeline" if takes_image else "WanPipeline",
        "boundary_ratio": files.boundary if files.boundary is not None else VARIANTS[variant].boundary,
        "expand_timesteps": files.has_token_times,
        "scheduler": ["diffusers", UNIPC["_class_name"]],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"]
        if len(files.backbones) == 2
        else [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    if takes_image:
        has_image_encoder = files.images is not None
        index["image_encoder"] = ["transformers", "CLIPVisionModel"] if has_image_encoder else [None, None]
        index["image_processor"] = (
            ["transformers", "CLIPImageProcessor"] if has_image_encoder else [None, None]
        )
        if has_image_encoder:
            (folder / "image_processor").mkdir()
            write_json(
                folder / "image_processor" / "preprocessor_config.json",
                {"image_processor_type": "CLIPImageProcessor"},
            )
    write_json(folder / INDEX, index)


def _kinema(files: WanFiles, folder: Path) -> None:
    _diffusers(files, folder)
    _, manifest = describe_wan(files, name=files.path.resolve().stem)
    hashes = {name: sha256_of(folder / name) for name in files_below(folder)}
    write_json(folder / MANIFEST, to_dict(replace(manifest, sha256=hashes)))


def _original(files: WanFiles, folder: Path) -> None:
    _refuse_image_encoder(files, "wan")
    takes_image = files.backbones[0].config.in_channels != files.vae.config.z_dim
    without_token_times = "i2v" if takes_image else "t2v"
    kind = "ti2v" if files.has_token_times else without_token_times
    targets = [folder] if len(files.backbones) == 1 else [folder / expert for expert in EXPERTS]
    for target, backbone in zip(targets, files.backbones):
        write_shards(target, DIFFUSERS_WEIGHTS, _renamed_backbone(backbone, "wan"))
        config = backbone.config
        values = {
            "_class_name": "WanModel",
            "model_type": kind,
            "dim": config.d,
            "ffn_dim": config.ffn_dim,
            "freq_dim": config.freq_dim,
        }
        values |= {
            "in_dim": config.in_channels,
            "out_dim": config.out_channels,
            "num_heads": config.num_heads,
        }
        values |= {"num_layers": config.num_layers, "text_len": config.text_length, "eps": config.eps}
        write_json(target / CONFIG, values)
    if len(targets) == 2:  # marks the folder as one model
        write_json(folder / "configuration.json", {"framework": "Pytorch", "task": "text-to-video"})
    torch.save(
        _renamed_vae(files), folder / ("Wan2.2_VAE.pth" if files.vae.config.residual else "Wan2.1_VAE.pth")
    )
    names = umt5_keys(num_blocks(files.text.state, "encoder.block"))
    torch.save(
        {theirs: files.text.state[ours] for ours, theirs in names.items()},
        folder / "models_t5_umt5-xxl-enc-bf16.pth",
    )
    _copy_tokenizer(files, folder / "google" / "umt5-xxl")


def _comfy(files: WanFiles, folder: Path) -> None:
    _refuse_image_encoder(files, "comfy")
    name = files.path.resolve().stem
    suffixes = [""] if len(files.backbones) == 1 else ["_high_noise", "_low_noise"]
    for suffix, backbone in zip(suffixes, files.backbones):
        write_shards(
            folder / "diffusion_models",
            f"{name}{suffix}.safetensors",
            _renamed_backbone(backbone, "wan"),
            max_bytes=10**12,
        )
    write_shards(
        folder / "vae",
        "wan_2.2_vae.safetensors" if files.vae.config.residual else "wan_2.1_vae.safetensors",
        _renamed_vae(files),
    )
    text = {
        name: tensor for name, tensor in files.text.state.items() if name != "encoder.embed_tokens.weight"
    }
    write_shards(folder / "text_encoders", "umt5_xxl.safetensors", text, max_bytes=10**12)
    _copy_tokenizer(files, folder / "text_encoders")


WRITERS: dict[str, tuple[Callable[[WanFiles, Path], None], str]] = {
    "kinema": (_kinema, INDEX),
    "diffusers": (_diffusers, INDEX),
    "wan": (_original, "google/umt5-xxl/tokenizer.json"),
    "comfy": (_comfy, "text_encoders/tokenizer.json"),
}
"""By layout: the function that writes it, and the file that marks a folder of it."""


def _renamed_backbone(backbone: BackboneFiles, naming: Any) -> Mapping[str, Tensor]:
    config = backbone.config
    names = {theirs: ours for ours, theirs in dit_keys(config, naming).items()}
    kernel = dit_keys(config, naming)[PATCH_WEIGHT]
    return RenamedTensors(
        backbone.state, names, {kernel: lambda rows: rows.unflatten(1, (config.in_channels, *config.patch))}
    )


def _renamed_vae(files: WanFiles) -> dict[str, Tensor]:
    config = files.vae.config
    return {
        vae_original_name(name, num_res_blocks=config.num_res_blocks, residual=config.residual): tensor
        for name, tensor in files.vae.state.items()
    }


def _refuse_image_encoder(files: WanFiles, layout: WanLayout) -> None:
    if files.images is not None:
        raise ModelError(
            f"{files.path} has an image encoder, which the layout '{layout}' is not written with: use "
            "diffusers or kinema"
        )


def _copy_tokenizer(files: WanFiles, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (files.tokenizer.parent / name).is_file():
            shutil.copyfile(files.tokenizer.parent / name, folder / name)
