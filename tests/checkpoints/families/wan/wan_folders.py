"""Folders of the Wan family with tiny random weights, written by diffusers and transformers themselves."""

from functools import cache

import pytest
import torch

from kinema.models.vae import WAN_22_MEAN, WAN_22_STD

WORDS = [
    "▁a",
    "▁red",
    "▁fox",
    "▁runs",
    "▁in",
    "▁the",
    "▁snow",
    "▁blue",
    "▁ball",
    "▁rolls",
    "▁on",
    "▁grass",
    "s",
]
KINDS = ("2.1-t2v", "2.1-i2v", "2.1-flf2v", "2.2-t2v-a14b", "2.2-i2v-a14b", "2.2-ti2v-5b")
WAN_21 = {
    "base_dim": 4,
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
WAN_22 = {
    "base_dim": 6,
    "decoder_base_dim": 8,
    "z_dim": 48,
    "dim_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": list(WAN_22_MEAN),
    "latents_std": list(WAN_22_STD),
}
HEADS = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "ffn_dim": 48,
    "text_dim": 32,
    "freq_dim": 64,
}


def with_random_weights(module, seed, std):
    """`module` with weights that all matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 and "norm" not in name:
            torch.nn.init.normal_(parameter, std=std, generator=generator)
    return module.eval().requires_grad_(False)


def tokenizer():
    """A unigram tokenizer whose pieces are `WORDS` and single letters, in T5's manner: no start token, `</s>`
    at the end.
    """
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -2.0) for word in WORDS)]
    pieces += [(letter, -6.0) for letter in "▁abcdefghijklmnopqrtuvwxyz.,"]
    fast = Tokenizer(models.Unigram(pieces, unk_id=2))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def peer(kind, **sizes):
    """diffusers' own pipeline of a tiny model of `kind`; `sizes` replace those of its backbones."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    words = tokenizer()
    text = transformers.UMT5Config(
        vocab_size=len(words),
        d_model=32,
        d_kv=16,
        d_ff=40,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    vae = with_random_weights(
        diffusers.AutoencoderKLWan(**(WAN_22 if kind == "2.2-ti2v-5b" else WAN_21)), 1, 0.15
    )
    z = vae.config.z_dim
    channels = {
        "in_channels": 2 * z + 4 if "i2v-a" in kind or kind in ("2.1-i2v", "2.1-flf2v") else z,
        "out_channels": z,
    }
    image = {"image_dim": 24, "added_kv_proj_dim": 32} if kind in ("2.1-i2v", "2.1-flf2v") else {}
    if kind == "2.1-flf2v":
        image["pos_embed_seq_len"] = 2 * 17

    def backbone(seed):
        return with_random_weights(
            diffusers.WanTransformer3DModel(**(HEADS | channels | image | sizes)), seed, 0.12
        )

    parts = {
        "tokenizer": words,
        "text_encoder": with_random_weights(transformers.UMT5EncoderModel(text), 2, 0.3),
        "vae": vae,
        "transformer": backbone(3),
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }
    options = {"expand_timesteps": kind == "2.2-ti2v-5b"}
    if "a14b" in kind:
        options["boundary_ratio"] = 0.875
        parts["transformer_2"] = backbone(4)
    if "i2v" not in kind and kind != "2.1-flf2v":
        return diffusers.WanPipeline(**parts, **options)
    if image:
        tower = transformers.CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            hidden_act="gelu",
        )
        parts["image_encoder"] = with_random_weights(transformers.CLIPVisionModel(tower), 5, 0.2)
        size = {"shortest_edge": 32}
        crop = {"height": 32, "width": 32}
        parts["image_processor"] = transformers.CLIPImageProcessorPil(size=size, crop_size=crop)
    else:
        parts |= {"image_encoder": None, "image_processor": None}
    return diffusers.WanImageToVideoPipeline(**parts, **options)


def saved_peers(tmp_path_factory):
    """A function from a kind to its folder and diffusers' pipeline of it, each made once."""

    @cache
    def saved(kind):
        folder, pipeline = tmp_path_factory.mktemp("wan") / kind, peer(kind)
        pipeline.save_pretrained(folder, safe_serialization=True)
        pipeline.set_progress_bar_config(disable=True)
        return folder, pipeline

    return saved
