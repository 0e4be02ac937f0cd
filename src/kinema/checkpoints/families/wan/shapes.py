"""Configurations of the networks of the Wan family, derived from the names and shapes of their tensors."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from kinema.checkpoints.key_maps import num_blocks
from kinema.errors import ConfigError, ModelError
from kinema.models.dit import DiTConfig
from kinema.models.vae import VAE, VAES, VAEConfig

HEAD_DIM = 128
"""Channels per head of every published model; a file without a configuration does not contain it."""


def umt5_config(shapes: Mapping[str, tuple[int, ...]], what: str) -> dict[str, Any]:
    """The configuration of the UMT5 encoder whose tensors, under transformers' names, have these shapes.

    Raises `ModelError`.
    """
    try:
        vocabulary, d = shapes["shared.weight"]
        num_buckets, heads = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        inner = shapes["encoder.block.0.layer.0.SelfAttention.q.weight"][0]
        hidden = shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0]
    except KeyError as error:
        raise ModelError(f"{what}: not the encoder of UMT5, {error.args[0]} is missing") from None
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": vocabulary,
        "d_model": d,
        "d_kv": inner // heads,
        "d_ff": hidden,
        "num_layers": num_blocks(shapes, "encoder.block"),
        "num_decoder_layers": num_blocks(shapes, "encoder.block"),
        "num_heads": heads,
        "relative_attention_num_buckets": num_buckets,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "tie_word_embeddings": False,
    }


def dit_config_from_tensors(
    shapes: Mapping[str, tuple[int, ...]], what: str, *, num_heads: int | None = None, text_length: int = 512
) -> DiTConfig:
    """The configuration of the DiT whose tensors, under the original names, have these shapes; heads have 128
    channels unless `num_heads` is given. Raises `ModelError`.
    """
    try:
        d, in_channels, *patch = shapes["patch_embedding.weight"]
        image = shapes.get("img_emb.proj.0.weight")
        positions = shapes.get("img_emb.emb_pos")
        return DiTConfig(
            in_channels=in_channels,
            out_channels=shapes["head.head.weight"][0] // prod(patch),
            d=d,
            num_layers=num_blocks(shapes, "blocks"),
            num_heads=d // HEAD_DIM if num_heads is None else num_heads,
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            text_dim=shapes["text_embedding.0.weight"][1],
            freq_dim=shapes["time_embedding.0.weight"][1],
            patch=tuple(patch),  # type: ignore[arg-type]
            text_padding="zeros",
            text_length=text_length,
            image_dim=None if image is None else image[0],
            image_positions=None if positions is None else positions[1],
        )
    except (KeyError, ValueError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{what}: not a backbone of the Wan family, {reason}") from None


def vae_config_from_tensors(shapes: Mapping[str, tuple[int, ...]], what: str) -> VAEConfig:
    """The configuration of the VAE whose tensors, under the original names, have these shapes; the latent
    statistics come from the published VAE with as many channels. Raises `ModelError`.
    """
    try:
        residual = any(name.startswith("encoder.downsamples.0.downsamples.") for name in shapes)
        base, pixels = shapes["encoder.conv1.weight"][:2]
        z = shapes["conv2.weight"][0]
        widths: list[int] = []
        in_time: list[bool] = []
        num_res, width, blocks = 0, base, 0
        for part in _flat_parts(shapes, residual):
            if f"{part}.residual.2.weight" in shapes:
                width, num_res = shapes[f"{part}.residual.2.weight"][0], num_res + 1
            else:
                widths.append(width)
                in_time.append(f"{part}.time_conv.weight" in shapes)
                blocks, num_res = num_res, 0
        widths.append(width)
        mult = tuple(width // base for width in widths)
        decoder_base = shapes["decoder.conv1.weight"][0] // mult[-1]
        published = next((VAES[name] for name in ("wan-2.1", "wan-2.2") if VAES[name].z_dim == z), None)
        if published is None:
            raise ModelError(
                f"{what}: latents of {z} channels; a published VAE has 16 or 48, and the file has "
                "no latent statistics"
            )
        return VAEConfig(
            base_dim=base,
            decoder_base_dim=None if decoder_base == base else decoder_base,
            dim_mult=mult,
            num_res_blocks=blocks,
            z_dim=z,
            temporal_downsample=tuple(in_time),
            patch_size={3: 1, 12: 2, 48: 4}[pixels],
            residual=residual,
            latents_mean=published.latents_mean,
            latents_std=published.latents_std,
        )
    except (KeyError, ConfigError, ZeroDivisionError) as error:
        reason = f"{error.args[0]} is missing or wrong" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{what}: not a VAE of the Wan family, {reason}") from None


def _flat_parts(shapes: Mapping[str, Any], residual: bool) -> list[str]:
    """Names of the encoder's blocks and downsamplers in the order of computation."""
    pattern = (
        r"encoder\.downsamples\.(\d+)\.downsamples\.(\d+)\." if residual else r"encoder\.downsamples\.(\d+)\."
    )
    found = {
        match[0][:-1]: tuple(map(int, match.groups()))
        for name in shapes
        if (match := re.match(pattern, name))
    }
    return sorted(found, key=lambda part: found[part])


def vae_shapes(config: VAEConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a VAE by name."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in VAE(config).state_dict().items()}
