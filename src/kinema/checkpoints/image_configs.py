"""Configurations and tensor names of image models in diffusers' layout: the U-Net, the image DiT and their
VAE.

A key of config.json that changes results must have a value that our networks support.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kinema.config import from_dict
from kinema.errors import ModelError
from kinema.models.unet import UNetConfig

State = Mapping[str, Tensor]

NO_INFLUENCE = (
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "_kinema",
    "sample_size",
    "upcast_attention",  # a matter of float16
    "force_upcast",
    "scaling_factor",
)
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
    filled[-1] = config.middle_depth if not depths[-1] else depths[-1]
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
    levels = len(given["block_out_channels"])
    types = given["down_block_types"]
    if unknown := sorted({*types, *given["up_block_types"]} - set(_BLOCK_TYPES)):
        raise ModelError(f"{unknown[0]} is of another dialect of U-Nets (Karlo, DeepFloyd IF): it is not supported")

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


_BLOCK_TYPES = ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")


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
        if key not in NO_INFLUENCE and value != needed and (key in expected or value not in (None, False)):
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
