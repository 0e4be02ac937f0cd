"""Configurations and tensor names of image models in diffusers' layout: the U-Net, the image DiT and their
VAE.

A key of config.json that changes results must have a value that our networks support.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kinema.config import from_dict
from kinema.errors import ModelError
from kinema.models.image_dit import ImageDiTConfig
from kinema.models.image_vae import ImageVAEConfig
from kinema.models.unet import UNetConfig

State = Mapping[str, Tensor]

NO_INFLUENCE = ("sample_size", "upcast_attention", "force_upcast")  # upcasting is a matter of float16
_BLOCK_TYPES = ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
UNET_DEFAULTS: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_cond_proj_dim": None,
    "time_embedding_type": "positional",
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}
"""diffusers' defaults of the keys that matter, which files may leave out."""


def unet_diffusers_config(config: UNetConfig) -> dict[str, Any]:
    """The contents of config.json for diffusers' `UNet2DConditionModel`."""
    depths = config.depths
    down = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths]
    up = ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)]
    filled = [depth or config.middle_depth for depth in depths]
    values = UNET_DEFAULTS | {
        "_class_name": "UNet2DConditionModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "cross_attention_dim": config.text_dim,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.layers,
        "down_block_types": down,
        "up_block_types": up,
        "transformer_layers_per_block": filled,
        "attention_head_dim": list(config.heads),  # the number of heads, in spite of its name
        "norm_num_groups": config.groups,
        "use_linear_projection": config.linear_projection,
        "_kinema": {"text_length": config.text_length},
    }
    if config.added_dim is not None:
        values |= {"addition_embed_type": "text_time", "addition_time_embed_dim": config.number_dim}
        values["projection_class_embeddings_input_dim"] = config.added_dim
    if config.class_dim is not None:
        values |= {"class_embed_type": "projection"}
        values["projection_class_embeddings_input_dim"] = config.class_dim
    return values


def unet_config_from_diffusers(values: Mapping[str, Any]) -> UNetConfig:
    """The configuration in a config.json of class UNet2DConditionModel.

    Raises `ModelError` for a value that the U-Net does not support, KeyError for a missing one.
    """
    given = {**UNET_DEFAULTS, **values}
    levels, types = len(given["block_out_channels"]), given["down_block_types"]
    if unknown := sorted({*types, *given["up_block_types"]} - set(_BLOCK_TYPES)):
        raise ModelError(
            f"{unknown[0]} is of another dialect of U-Nets (Karlo, DeepFloyd IF): it is not supported"
        )

    blocks = _each(given["transformer_layers_per_block"], levels)
    depths = tuple(depth if name.startswith("Cross") else 0 for depth, name in zip(blocks, types))
    added, class_dim = given["addition_embed_type"], given["class_embed_type"]
    width = given.get("projection_class_embeddings_input_dim")
    heads = given.get("num_attention_heads") or given.get("attention_head_dim", 8)
    config = from_dict(
        UNetConfig,
        {
            "in_channels": given["in_channels"],
            "out_channels": given["out_channels"],
            "text_dim": given["cross_attention_dim"],
            "channels": tuple(given["block_out_channels"]),
            "layers": given["layers_per_block"],
            "depths": depths,
            "middle_depth": blocks[-1],
            "heads": _each(heads, levels),
            "groups": given["norm_num_groups"],
            "linear_projection": given["use_linear_projection"],
            "added_dim": width if added == "text_time" else None,
            "number_dim": given["addition_time_embed_dim"] or 256,
            "class_dim": width if class_dim == "projection" else None,
            **values.get("_kinema", {}),
        },
    )
    _check(given, unet_diffusers_config(config) | _as_given(given))
    return config


def _each(value: Any, number: int) -> tuple[int, ...]:
    """One integer for each level."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * number


def _as_given(given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that files write in several forms, and that the configuration has read."""
    names = ("transformer_layers_per_block", "attention_head_dim", "num_attention_heads")
    optional = ("projection_class_embeddings_input_dim", "addition_embed_type_num_heads")
    forms = ("block_out_channels", "down_block_types", "up_block_types", "addition_time_embed_dim")
    return {name: given[name] for name in (*names, *optional, *forms) if name in given}


def _check(given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise `ModelError` for a value that is neither the expected one nor, where none is, empty."""
    for key, value in given.items():
        needed = expected.get(key)
        if (
            key[0] != "_"
            and key not in NO_INFLUENCE
            and value != needed
            and (key in expected or value not in (None, False))
        ):
            raise ModelError(f"{key} = {value!r} is not supported (needed here: {needed!r})")


def unet_to_diffusers(state: State, config: UNetConfig) -> State:
    """The tensors of a U-Net under diffusers' names and shapes."""
    if config.linear_projection:
        return state
    return {name: x[..., None, None] if _is_projection(name) else x for name, x in state.items()}


def unet_from_diffusers(state: State, config: UNetConfig) -> State:
    """The tensors of a U-Net in our shapes."""
    return {name: x.flatten(1) if _is_projection(name) else x for name, x in state.items()}


def _is_projection(name: str) -> bool:
    return name.endswith((".proj_in.weight", ".proj_out.weight"))


VAE_DEFAULTS: dict[str, Any] = {
    "act_fn": "silu",
    "in_channels": 3,
    "layers_per_block": 1,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "norm_num_groups": 32,
    "out_channels": 3,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
"""diffusers' defaults of the keys that matter."""


def image_vae_config_from_diffusers(values: Mapping[str, Any]) -> ImageVAEConfig:
    """The configuration in a config.json of class AutoencoderKL.

    Raises `ModelError` for a value that the VAE does not support, KeyError for a missing one.
    """
    given = {**VAE_DEFAULTS, **values}
    channels = tuple(given["block_out_channels"])
    read = ("layers_per_block", "norm_num_groups", "scaling_factor", "shift_factor")
    expected = (
        VAE_DEFAULTS
        | {name: given[name] for name in read}
        | {
            "block_out_channels": given["block_out_channels"],
            "down_block_types": ["DownEncoderBlock2D"] * len(channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(channels),
            "latent_channels": given["latent_channels"],
        }
    )
    _check({name: list(x) if isinstance(x, tuple) else x for name, x in given.items()}, expected)
    return ImageVAEConfig(
        given["latent_channels"],
        channels,
        given["layers_per_block"],
        given["norm_num_groups"],
        given["scaling_factor"],
        given["shift_factor"] or 0.0,
    )


DIT_DEFAULTS: dict[str, Any] = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
}
"""diffusers' defaults of the keys that matter."""
EMBEDDER = "embedder."
"""Beginning of our names of the embedding of time and class, of which diffusers has a copy in every block."""


def image_dit_diffusers_config(config: ImageDiTConfig) -> dict[str, Any]:
    """The contents of config.json for diffusers' `DiTTransformer2DModel`."""
    return DIT_DEFAULTS | {
        "_class_name": "DiTTransformer2DModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels * (2 if config.has_variance else 1),
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.d // config.num_heads,
        "num_layers": config.num_layers,
        "patch_size": config.patch_size,
        "sample_size": config.sample_size,
        "num_embeds_ada_norm": config.num_classes,
        "_kinema": {"freq_shift": config.freq_shift},
    }


def image_dit_config_from_diffusers(values: Mapping[str, Any]) -> ImageDiTConfig:
    """The configuration in a config.json of class DiTTransformer2DModel.

    Raises `ModelError` for a value that the DiT does not support, KeyError for a missing one.
    """
    given = {**DIT_DEFAULTS, **values}
    channels, outputs = given["in_channels"], given["out_channels"] or given["in_channels"]
    config = from_dict(
        ImageDiTConfig,
        {
            "in_channels": channels,
            "out_channels": channels,
            "has_variance": outputs == 2 * channels,
            "d": given["num_attention_heads"] * given["attention_head_dim"],
            "num_heads": given["num_attention_heads"],
            "num_layers": given["num_layers"],
            "patch_size": given["patch_size"],
            "sample_size": given["sample_size"],
            "num_classes": given["num_embeds_ada_norm"],
            **values.get("_kinema", {}),
        },
    )
    _check(given, image_dit_diffusers_config(config) | {"out_channels": outputs})
    return config


def image_dit_to_diffusers(state: State, config: ImageDiTConfig) -> State:
    """The tensors of an image DiT under diffusers' names. Copies share no memory, as files require."""
    own = {name: x for name, x in state.items() if not name.startswith(EMBEDDER)}
    copies = {
        f"transformer_blocks.{i}.norm1.emb.{name.removeprefix(EMBEDDER)}": x.clone()
        for name, x in state.items()
        if name.startswith(EMBEDDER)
        for i in range(config.num_layers)
    }
    return own | copies


def image_dit_from_diffusers(state: State) -> State:
    """The tensors of an image DiT under our names. Raises `ModelError` if the copies of the embedding
    differ."""
    ours: dict[str, Tensor] = {}
    for name, x in state.items():
        _, is_copy, part = name.partition(".norm1.emb.")
        key = EMBEDDER + part if is_copy else name
        if key in ours and not torch.equal(ours[key], x):
            raise ModelError(
                f"{name} differs from the first block's: the DiT has one embedding for all blocks"
            )
        ours[key] = x
    return ours
