"""Names of the DiT's tensors in the two published layouts: diffusers' WanTransformer3DModel and the original Wan files.

The tensors are the same in all three, but for the patch embedding: a Conv3d kernel there, a Linear over flattened patches here.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from kinema.errors import ModelError
from kinema.models.dit import DiTConfig

Layout = Literal["diffusers", "wan"]

DIFFUSERS_CLASS = "WanTransformer3DModel"
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


def dit_keys(config: DiTConfig, layout: Layout) -> dict[str, str]:
    """Our name of every tensor of the DiT, and its name in `layout`."""
    side = ("diffusers", "wan").index(layout)
    keys = {ours: theirs[side] for ours, theirs in TENSORS.items()}
    keys |= {f"{ours}.{kind}": f"{theirs[side]}.{kind}" for ours, theirs in LINEARS.items() for kind in ("weight", "bias")}
    block = {ours: theirs[side] for ours, theirs in BLOCK_TENSORS.items()}
    block |= {f"{ours}.{kind}": f"{theirs[side]}.{kind}" for ours, theirs in BLOCK_LINEARS.items() for kind in ("weight", "bias")}
    return keys | {f"blocks.{i}.{ours}": f"blocks.{i}.{theirs}" for i in range(config.num_layers) for ours, theirs in block.items()}


def dit_to_layout(state: Mapping[str, Tensor], config: DiTConfig, layout: Layout) -> dict[str, Tensor]:
    """Our state dict under the names and shapes of `layout`; the tensors are views. Raises `ModelError` listing wrong keys."""
    keys = dit_keys(config, layout)
    _check_keys(state, keys, "the DiT")
    result = {theirs: state[ours] for ours, theirs in keys.items()}
    result[keys[PATCH_WEIGHT]] = state[PATCH_WEIGHT].unflatten(1, (config.in_channels, *config.patch))
    return result


def dit_from_layout(state: Mapping[str, Tensor], config: DiTConfig, layout: Layout) -> dict[str, Tensor]:
    """A state dict in `layout` under our names and shapes; the tensors are views. Raises `ModelError` listing wrong keys.

    In the original layout a ComfyUI prefix is taken off.
    """
    if layout == "wan":
        state = {name.removeprefix(COMFY_PREFIX): tensor for name, tensor in state.items()}
    keys = dit_keys(config, layout)
    _check_keys(state, keys.values(), f"a DiT in the {layout} layout")
    result = {ours: state[theirs] for ours, theirs in keys.items()}
    kernel = result[PATCH_WEIGHT]
    if kernel.shape[1:] != (config.in_channels, *config.patch):
        raise ModelError(f"patch_embedding.weight is {tuple(kernel.shape)}, but in_channels={config.in_channels} and patch={config.patch}")
    result[PATCH_WEIGHT] = kernel.flatten(1)
    return result


def _check_keys(state: Mapping[str, Tensor], expected: Any, what: str) -> None:
    missing, surplus = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or surplus:
        raise ModelError(f"tensors of {what}: missing {', '.join(missing) or 'none'}; unexpected {', '.join(surplus) or 'none'}")


def dit_to_diffusers(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """Our state dict as diffusers' WanTransformer3DModel has it."""
    return dit_to_layout(state, config, "diffusers")


def dit_from_diffusers(state: Mapping[str, Tensor], config: DiTConfig) -> dict[str, Tensor]:
    """The state dict of diffusers' WanTransformer3DModel as ours."""
    return dit_from_layout(state, config, "diffusers")


def dit_diffusers_config(config: DiTConfig) -> dict[str, Any]:
    """What transformer/config.json holds in a diffusers folder."""
    return {
        "_class_name": DIFFUSERS_CLASS,
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
        "image_dim": None,
        "added_kv_proj_dim": None,
        "rope_max_seq_len": 1024,
        "pos_embed_seq_len": None,
    }
