"""Tiny pipelines of diffusers with random weights: Stable Diffusion 1.5 and 2.1, SDXL, and the image DiT."""

import warnings
from typing import Any

import torch
from tests.checkpoints.text_encoder_folders import words_tokenizer

SIZE = 32
"""Height and width of the pictures in pixels."""
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
VAE = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
UNET = {
    "sample_size": 16,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
XL = {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2],
    "use_linear_projection": True,
    "cross_attention_dim": 32,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}


def text_encoder(projected: bool = False) -> Any:
    """A CLIP text encoder of transformers."""
    import transformers as hf

    config = hf.CLIPTextConfig(
        vocab_size=len(tokenizer()),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=12,
    )
    return (hf.CLIPTextModelWithProjection if projected else hf.CLIPTextModel)(config).eval()


def tokenizer() -> Any:
    """A tokenizer of 77 tokens at most."""
    made = words_tokenizer("<s> $A </s>")
    made.model_max_length = 77
    return made


def peer(kind, **unet):
    """A pipeline of diffusers: "sd-1.5", "sd-2.1", "sdxl" or "dit"."""
    import diffusers as d

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    vae = d.AutoencoderKL(**VAE, scaling_factor=0.13025 if kind == "sdxl" else 0.18215).eval()
    if kind == "dit":
        sizes = {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_embeds_ada_norm": 1000,
        }
        dit = d.DiTTransformer2DModel(**sizes, sample_size=16, out_channels=8).eval()
        for block in dit.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(dit.transformer_blocks[0].norm1.emb.state_dict())
        return d.DiTPipeline(dit, vae, d.DDIMScheduler(clip_sample=False))
    published = {"steps_offset": 1, "timestep_spacing": "leading", **BETAS}
    if kind == "sdxl":
        scheduler = d.EulerDiscreteScheduler(**published)
        network = d.UNet2DConditionModel(**(UNET | XL | unet)).eval()
        towers = (text_encoder(), text_encoder(projected=True), tokenizer(), tokenizer())
        return d.StableDiffusionXLPipeline(vae, *towers, network, scheduler, add_watermarker=False)
    is_2 = kind == "sd-2.1"
    options = {"use_linear_projection": True, "attention_head_dim": [2, 4]} if is_2 else {}
    network = d.UNet2DConditionModel(**(UNET | options | unet)).eval()
    scheduler = d.DDIMScheduler(
        **published,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction" if is_2 else "epsilon",
    )
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return d.StableDiffusionPipeline(vae, text_encoder(), tokenizer(), network, scheduler, **parts)
