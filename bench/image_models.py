"""Operations of a forward pass of the UNets of Stable Diffusion 1.5 and SDXL, counted without weights.

python bench/image_models.py
"""

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}


def main() -> None:
    for name, sizes, side, text_dim in (("sd", {}, 64, 768), ("sdxl", SDXL, 128, 2048)):
        with torch.device("meta"), torch.no_grad():
            unet = UNet2DConditionModel(sample_size=side, cross_attention_dim=text_dim, **sizes)
            added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)} if sizes else None
            with FlopCounterMode(display=False) as counter:
                unet(
                    torch.empty(1, 4, side, side),
                    torch.empty(1),
                    torch.empty(1, 77, text_dim),
                    added_cond_kwargs=added,
                )
        millions = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
        print(
            f"{name}: {millions:.1f} million parameters, "
            f"{counter.get_total_flops() / 1e12:.3f} TFLOP a forward pass at {8 * side} pixels"
        )


if __name__ == "__main__":
    main()
