"""Names of the tensors of the Wan family in the published layouts: diffusers' (and transformers'), and the
original Wan files.

The tensors are the same in all of them, but for the patch embedding: a Conv3d kernel there, a Linear over
flattened patches here. ComfyUI's files have the original names for the DiT and the VAE, and transformers' for
the text encoder.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from kinema.config import from_dict, to_dict
from kinema.errors import ModelError
from kinema.models.dit import DiTConfig
from kinema.models.vae import VAES, VAEConfig

Layout = Literal["diffusers", "wan"]

DIFFUSERS_CLASS, KINEMA_DIT = "WanTransformer3DModel", "KinemaDiT"
"""Classes of `transformer/config.json`: that of diffusers, and that of a DiT with vectors."""
COMFY_PREFIX = "model.diffusion_model."  # in front of the original names in ComfyUI's single files
PATCH_WEIGHT = "patch_embedding.weight"

# ours: (diffusers, original); a name stands for its weight and bias
LINEARS = {
    "patch_embedding": ("patch_embedding", "patch_embedding"),
    "text_embedding.expand": ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    "text_embedding.project": ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    "time_embedding.expand": ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    "time_embedding.project": ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    "time_projection": ("condition_embedder.time_proj", "time_projection.1"),
    "head.projection": ("proj_out", "head.head"),
}
BLOCK_LINEARS = {
    "self_attention.to_q": ("attn1.to_q", "self_attn.q"),
    "self_attention.to_k": ("attn1.to_k", "self_attn.k"),
    "self_attention.to_v": ("attn1.to_v", "self_attn.v"),
    "self_attention.to_out": ("attn1.to_out.0", "self_attn.o"),
    "norm_cross": ("norm2", "norm3"),  # the two layouts number the norms differently
    "cross_attention.to_q": ("attn2.to_q", "cross_attn.q"),
    "cross_attention.to_k": ("attn2.to_k", "cross_attn.k"),
    "cross_attention.to_v": ("attn2.to_v", "cross_attn.v"),
    "cross_attention.to_out": ("attn2.to_out.0", "cross_attn.o"),
    "mlp.expand": ("ffn.net.0.proj", "ffn.0"),
    "mlp.project": ("ffn.net.2", "ffn.2"),
}
# ours: (diffusers, original); whole names
TENSORS = {"head.modulation": ("scale_shift_table", "head.modulation")}
BLOCK_TENSORS = {
    "modulation": ("scale_shift_table", "modulation"),
    "self_attention.norm_q.weight": ("attn1.norm_q.weight", "self_attn.norm_q.weight"),
    "self_attention.norm_k.weight": ("attn1.norm_k.weight", "self_attn.norm_k.weight"),
    "cross_attention.norm_q.weight": ("attn2.norm_q.weight", "cross_attn.norm_q.weight"),
    "cross_attention.norm_k.weight": ("attn2.norm_k.weight", "cross_attn.norm_k.weight"),
}

# Where the backbone takes images (Wan 2.1 image to video).
IMAGE_LINEARS = {
    "image_embedding.norm_in": ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
    "image_embedding.expand": ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
    "image_embedding.project": ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
    "image_embedding.norm_out": ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
}
IMAGE_BLOCK_LINEARS = {
    "cross_attention.to_k_image": ("attn2.add_k_proj", "cross_attn.k_img"),
    "cross_attention.to_v_image": ("attn2.add_v_proj", "cross_attn.v_img"),
}
IMAGE_BLOCK_TENSORS = {
    "cross_attention.norm_k_image.weight": ("attn2.norm_added_k.weight", "cross_attn.norm_k_img.weight")
}
# Where the backbone takes vectors.
VECTOR_LINEARS = {
    "condition_embedding.expand": ("condition_embedder.vector_embedder.linear_1", "vector_embedding.0"),
    "condition_embedding.project": ("condition_embedder.vector_embedder.linear_2", "vector_embedding.2"),
}
IMAGE_POSITIONS = {
    "image_embedding.positions": ("condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos")
}


def dit_keys(config: DiTConfig, layout: Layout) -> dict[str, str]:
    """Maps our name of every tensor of the DiT to its name in `layout`."""
    side = ("diffusers", "wan").index(layout)
    has_images = config.image_dim is not None
    tensors = TENSORS | (IMAGE_POSITIONS if config.image_positions is not None else {})
    linears = LINEARS | (IMAGE_LINEARS if has_images else {})
    linears |= VECTOR_LINEARS if config.all_vectors_dim else {}
    block_tensors = BLOCK_TENSORS | (IMAGE_BLOCK_TENSORS if has_images else {})
    block_linears = BLOCK_LINEARS | (IMAGE_BLOCK_LINEARS if has_images else {})

    def named(
        tensors: Mapping[str, tuple[str, str]], linears: Mapping[str, tuple[str, str]]
    ) -> dict[str, str]:
        whole = {ours: theirs[side] for ours, theirs in tensors.items()}
        return whole | {
            f"{ours}.{kind}": f"{theirs[side]}.{kind}"
            for ours, theirs in linears.items()
            for kind in ("weight", "bias")
        }

    keys, block = named(tensors, linears), named(block_tensors, block_linears)
    return keys | {
        f"blocks.{i}.{ours}": f"blocks.{i}.{theirs}"
        for i in range(config.num_layers)
        for ours, theirs in block.items()
    }


def dit_to_diffusers(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Our state dict under the names and shapes of diffusers' WanTransformer3DModel, as views.

    Raises `ModelError` listing wrong names.
    """
    keys = dit_keys(config, "diffusers")
    _check_keys(state, keys, "the DiT")
    result = {theirs: state[ours] for ours, theirs in keys.items()}
    result[keys[PATCH_WEIGHT]] = state[PATCH_WEIGHT].unflatten(1, (config.in_channels, *config.patch))
    return result


def dit_from_diffusers(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """The state dict of diffusers' WanTransformer3DModel under our names and shapes, as views.

    Raises `ModelError` listing wrong names.
    """
    keys = dit_keys(config, "diffusers")
    _check_keys(state, keys.values(), "a DiT in the diffusers layout")
    result = {ours: state[theirs] for ours, theirs in keys.items()}
    kernel = result[PATCH_WEIGHT]
    if kernel.shape[1:] != (config.in_channels, *config.patch):
        raise ModelError(
            f"patch_embedding.weight is {tuple(kernel.shape)}, but in_channels={config.in_channels} and "
            f"patch={config.patch}"
        )
    result[PATCH_WEIGHT] = kernel.flatten(1)
    return result


def _check_keys(state: Mapping[str, Tensor], expected: Any, what: str) -> None:
    missing, surplus = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or surplus:
        raise ModelError(
            f"tensors of {what}: missing {', '.join(missing) or 'none'}; unexpected "
            f"{', '.join(surplus) or 'none'}"
        )


def dit_diffusers_config(config: DiTConfig) -> dict[str, Any]:
    """The contents of transformer/config.json in a diffusers folder.

    With vectors the class is `KINEMA_DIT`, which diffusers cannot build.
    """
    return {
        "_class_name": KINEMA_DIT if config.all_vectors_dim else DIFFUSERS_CLASS,
        "patch_size": list(config.patch),
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.num_layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
        "image_dim": config.image_dim,
        "added_kv_proj_dim": None if config.image_dim is None else config.d,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": config.image_positions,
    }


VAE_SAME_KEYS = (
    "base_dim",
    "decoder_base_dim",
    "dim_mult",
    "num_res_blocks",
    "z_dim",
    "latents_mean",
    "latents_std",
)
"""Keys of `vae/config.json` that are fields of `VAEConfig` under the same name."""
VAE_DERIVED_KEYS = ("scale_factor_spatial", "scale_factor_temporal")
"""Keys of `vae/config.json` that follow from the others and are not compared."""


WAN_VAE, KINEMA_VAE = "AutoencoderKLWan", "KinemaVAE"
"""Classes of `vae/config.json`: that of diffusers, and that of a VAE with a `SubpixelDecoder`."""


def vae_diffusers_config(config: VAEConfig) -> dict[str, Any]:
    """The contents of `vae/config.json` with which diffusers' `AutoencoderKLWan` builds the same network.

    With a subpixel decoder the class is `KINEMA_VAE`, which diffusers cannot build, and the sizes of the
    decoder are in the key "subpixel".
    """
    own = {} if config.subpixel is None else {"_class_name": KINEMA_VAE, "subpixel": to_dict(config.subpixel)}
    return {
        "_class_name": WAN_VAE,
        "attn_scales": [],
        "base_dim": config.base_dim,
        "decoder_base_dim": config.decoder_base_dim,
        "dim_mult": list(config.dim_mult),
        "dropout": 0.0,
        "in_channels": 3 * config.patch_size**2,
        "is_residual": config.residual,
        "latents_mean": list(config.latents_mean),
        "latents_std": list(config.latents_std),
        "num_res_blocks": config.num_res_blocks,
        "out_channels": 3 * config.patch_size**2,
        "patch_size": None if config.patch_size == 1 else config.patch_size,
        "scale_factor_spatial": config.spatial_factor,
        "scale_factor_temporal": config.temporal_factor,
        "temperal_downsample": list(config.temporal_downsample),
        "z_dim": config.z_dim,
        **own,
    }


def vae_config_from_diffusers(values: Mapping[str, Any]) -> VAEConfig:
    """The configuration in a `vae/config.json` of class `AutoencoderKLWan` or `KINEMA_VAE`.

    Absent keys have the defaults of `AutoencoderKLWan`, which are the sizes of Wan 2.1. Raises `ModelError`
    for a network that this class cannot build, and `ConfigError` for a value of the wrong type.
    """
    name = values.get("_class_name", WAN_VAE)
    if name not in (WAN_VAE, KINEMA_VAE):
        raise ModelError(f"vae/config.json is of class {name}; {WAN_VAE} or {KINEMA_VAE} is needed")
    if (name == KINEMA_VAE) != ("subpixel" in values):
        raise ModelError(
            f"vae/config.json is of class {name}: the key subpixel belongs to {KINEMA_VAE}, which needs it"
        )

    given = vae_diffusers_config(VAES["wan-2.1"]) | dict(values)
    sizes = {key: given[key] for key in VAE_SAME_KEYS}
    sizes["temporal_downsample"] = given["temperal_downsample"]
    sizes["patch_size"] = 1 if given["patch_size"] is None else given["patch_size"]
    sizes["residual"] = given["is_residual"]
    sizes |= {"subpixel": given["subpixel"]} if "subpixel" in given else {}
    config = from_dict(VAEConfig, sizes)

    expected = vae_diffusers_config(config)
    public = {key: value for key, value in given.items() if not key.startswith("_")}
    for key, value in public.items():
        if key not in VAE_DERIVED_KEYS and value != expected.get(key, value):
            raise ModelError(
                f"vae/config.json: {key} = {value!r} is not supported (needed here: {expected[key]!r})"
            )

    if unknown := sorted(public.keys() - expected.keys()):
        raise ModelError(f"vae/config.json has keys that {name} does not have: {', '.join(unknown)}")
    return config


# diffusers: original; the parts of a VAE's names, first match wins. Stages are translated by
# `vae_original_name`.
VAE_PARTS = {
    "quant_conv.": "conv1.",
    "post_quant_conv.": "conv2.",
    "mid_block.resnets.0.": "middle.0.",
    "mid_block.attentions.0.": "middle.1.",
    "mid_block.resnets.1.": "middle.2.",
    "conv_in.": "conv1.",
    "norm_out.": "head.0.",
    "conv_out.": "head.2.",
}
VAE_BLOCK = {
    "norm1.": "residual.0.",
    "conv1.": "residual.2.",
    "norm2.": "residual.3.",
    "conv2.": "residual.6.",
    "conv_shortcut.": "shortcut.",
}


def vae_original_name(name: str, *, num_res_blocks: int, residual: bool) -> str:
    """The original name of the VAE tensor `name` (ours and diffusers'); arguments as in `VAEConfig`."""
    side, _, rest = name.partition(".")
    if side in ("quant_conv", "post_quant_conv"):
        return VAE_PARTS[f"{side}."] + rest
    stage = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(?:(resnets)\.(\d+)\.|(downsampler|upsampler|upsamplers\.0)\.)?(.+)", rest
    )
    if stage is None:
        part = next(part for part in VAE_PARTS if rest.startswith(part))
        leaf = _vae_leaf(rest.removeprefix(part), part.startswith("mid_block.resnets"))
        return f"{side}.{VAE_PARTS[part]}{leaf}"
    way, index, resnets, block, _, leaf = stage.groups()
    blocks_before_last = num_res_blocks if way == "down" else num_res_blocks + 1
    position = int(block) if resnets else blocks_before_last
    if residual:
        return f"{side}.{way}samples.{index}.{way}samples.{position}.{_vae_leaf(leaf, bool(resnets))}"
    flat = int(index) if way == "down" else int(index) * (num_res_blocks + 2) + position
    return f"{side}.{way}samples.{flat}.{_vae_leaf(leaf, not leaf.startswith(('resample.', 'time_conv.')))}"


def _vae_leaf(leaf: str, is_residual_block: bool) -> str:
    part = next((part for part in VAE_BLOCK if leaf.startswith(part)), None) if is_residual_block else None
    return leaf if part is None else VAE_BLOCK[part] + leaf.removeprefix(part)


# transformers: original; whole names, and those of a block
UMT5_TENSORS = {"shared.weight": "token_embedding.weight", "encoder.final_layer_norm.weight": "norm.weight"}
UMT5_BLOCK = {
    "layer.0.layer_norm.weight": "norm1.weight",
    "layer.0.SelfAttention.q.weight": "attn.q.weight",
    "layer.0.SelfAttention.k.weight": "attn.k.weight",
    "layer.0.SelfAttention.v.weight": "attn.v.weight",
    "layer.0.SelfAttention.o.weight": "attn.o.weight",
    "layer.0.SelfAttention.relative_attention_bias.weight": "pos_embedding.embedding.weight",
    "layer.1.layer_norm.weight": "norm2.weight",
    "layer.1.DenseReluDense.wi_0.weight": "ffn.gate.0.weight",
    "layer.1.DenseReluDense.wi_1.weight": "ffn.fc1.weight",
    "layer.1.DenseReluDense.wo.weight": "ffn.fc2.weight",
}


def umt5_keys(num_layers: int) -> dict[str, str]:
    """Maps transformers' name of every tensor of the UMT5 encoder to its original name."""
    blocks = {
        f"encoder.block.{i}.{theirs}": f"blocks.{i}.{name}"
        for i in range(num_layers)
        for theirs, name in UMT5_BLOCK.items()
    }
    return UMT5_TENSORS | blocks


def num_blocks(names: Iterable[str], prefix: str) -> int:
    """Number of distinct N among the `names` that begin with `prefix.N.`."""
    return len({name.removeprefix(prefix).split(".")[1] for name in names if name.startswith(f"{prefix}.")})
