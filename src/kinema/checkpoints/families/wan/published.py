"""The published models of the family (Wan Team 2025, and the configurations of the Wan 2.2 code)."""

from kinema.checkpoints.families.base import ModelSizes, TextEncoderSizes
from kinema.checkpoints.families.wan.model import wan_manifest
from kinema.models.dit import DiTConfig
from kinema.models.vae import VAES

IMAGE_ENCODER_PARAMETERS = 630_766_080
"""Parameters of the image encoder of Wan 2.1, CLIP ViT-H/14 without its projection."""
UMT5_XXL = TextEncoderSizes(5_680_910_336, 256_384 * 4096, 10_240, 64, 24)
SIZES_14B = (5120, 40, 13824, 40)


def _sizes(variant: str, dit: DiTConfig, *, vae: str = "wan-2.1", num_experts: int = 1) -> ModelSizes:
    manifest = wan_manifest(variant, dit, VAES[vae], name=variant)
    image_encoder = 0 if dit.image_dim is None else IMAGE_ENCODER_PARAMETERS
    return ModelSizes(dit, VAES[vae], manifest, UMT5_XXL, num_experts, image_encoder)


def _dit(
    d: int,
    num_heads: int,
    ffn_dim: int,
    layers: int,
    z: int = 16,
    image_channels: int = 0,
    image_dim: int | None = None,
) -> DiTConfig:
    return DiTConfig(
        in_channels=z + image_channels,
        out_channels=z,
        d=d,
        num_layers=layers,
        num_heads=num_heads,
        ffn_dim=ffn_dim,
        text_dim=4096,
        text_padding="zeros",
        image_dim=image_dim,
    )


PUBLISHED: dict[str, ModelSizes] = {
    "wan-2.1-1.3b": _sizes("wan-2.1-t2v", _dit(1536, 12, 8960, 30)),
    "wan-2.1-14b": _sizes("wan-2.1-t2v", _dit(*SIZES_14B)),
    "wan-2.1-i2v-14b": _sizes("wan-2.1-i2v", _dit(*SIZES_14B, image_channels=20, image_dim=1280)),
    "wan-2.2-t2v-a14b": _sizes("wan-2.2-t2v-a14b", _dit(*SIZES_14B), num_experts=2),
    "wan-2.2-i2v-a14b": _sizes("wan-2.2-i2v-a14b", _dit(*SIZES_14B, image_channels=20), num_experts=2),
    "wan-2.2-5b": _sizes("wan-2.2-ti2v-5b", _dit(3072, 24, 14336, 30, z=48), vae="wan-2.2"),
}
"""Every model by the name that `kinema plan` takes."""
