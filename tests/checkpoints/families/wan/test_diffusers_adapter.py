"""Our modules in diffusers' own pipelines give the frames of diffusers' modules."""

import numpy as np
import pytest
import torch
from tests.checkpoints.families.wan.wan_folders import peer

from kinema.checkpoints.families.wan.diffusers_adapter import Codec, Transformer
from kinema.checkpoints.families.wan.model import load_wan_model
from kinema.device import CPU


@pytest.mark.parametrize("kind", ["2.1-t2v", "2.1-i2v", "2.1-flf2v", "2.2-t2v-a14b", "2.2-ti2v-5b"])
def test_frames_are_those_of_diffusers_own_modules(tmp_path, kind):
    from PIL import Image

    pipe = peer(kind)
    pipe.save_pretrained(tmp_path / kind, safe_serialization=True)
    pipe.set_progress_bar_config(disable=True)
    scale = pipe.vae_scale_factor_spatial
    width, height = 6 * scale, 4 * scale
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    images = {"image": Image.fromarray(pixels[0])} if "t2v" not in kind else {}
    images |= {"last_image": Image.fromarray(pixels[1])} if kind == "2.1-flf2v" else {}

    def video():
        options = {
            "width": width,
            "height": height,
            "num_frames": 9,
            "num_inference_steps": 2,
            "guidance_scale": 3.0,
        }
        generator = torch.Generator().manual_seed(0)
        return pipe(
            prompt="a red fox", negative_prompt="blue ball", generator=generator, **options, **images
        ).frames[0]

    theirs = video()
    wan = load_wan_model(tmp_path / kind, CPU)
    pipe.transformer, pipe.vae = Transformer(wan.backbones["high"]), Codec(wan.vae)
    if "low" in wan.backbones:
        pipe.transformer_2 = Transformer(wan.backbones["low"])
    ours = video()
    assert theirs.std() > 20 / 255
    assert np.abs(ours - theirs).max() <= 1 / 255
