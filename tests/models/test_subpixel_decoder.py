"""The subpixel decoder inside a VAE: any size, a bounded past, and folders that are read strictly.

Streaming, causality and stills are tests of every VAE, in test_vae.py.
"""

import json
from dataclasses import replace

import pytest
import torch

import kinema
from kinema.checkpoints.components import load_backbone, load_clip, load_component, load_vae, save_component
from kinema.checkpoints.folders import save_model
from kinema.checkpoints.key_maps import KINEMA_VAE, vae_config_from_diffusers, vae_diffusers_config
from kinema.checkpoints.manifest import load_manifest, verify_hashes
from kinema.errors import ConfigError, ModelError
from kinema.generation.cost.counting import decode_cost
from kinema.generation.request import Request
from kinema.models.subpixel_decoder import SubpixelConfig, SubpixelStage, WindowAttention
from kinema.models.vae import VAE, VAEConfig
from kinema.nn.causal_conv import FeatureCache

SMALL = SubpixelConfig(
    width=12,
    hidden=6,
    num_blocks=2,
    num_heads=2,
    num_past=1,
    stages=(SubpixelStage(8, 1, kernel_frames=3), SubpixelStage(6, 1)),
)
CONFIG = VAEConfig(base_dim=8, z_dim=4, subpixel=SMALL)


@pytest.fixture
def vae() -> VAE:
    """A network whose residual branches count."""
    torch.manual_seed(0)
    vae = VAE(CONFIG).eval()
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


@pytest.mark.parametrize(("lf", "lh", "lw"), [(1, 1, 1), (1, 5, 3), (4, 2, 7)])
@torch.no_grad()
def test_latents_of_any_size_become_pixels(vae: VAE, lf: int, lh: int, lw: int):
    assert vae.decode(torch.randn(2, 4, lf, lh, lw)).shape == (2, 3, 4 * lf - 3, 16 * lh, 16 * lw)


@torch.no_grad()
def test_attention_sees_its_own_frame_and_the_given_number_before_it():
    attention = WindowAttention(8, 2, 2)
    torch.nn.init.normal_(attention.proj.weight)
    x = torch.randn(1, 8, 6, 2, 3)
    changed = x.clone()
    changed[:, :, 1] += 1
    differs = (attention(x) - attention(changed)).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert differs.tolist() == [False, True, True, True, False, False]


@torch.no_grad()
def test_attention_of_a_stream_equals_one_pass():
    attention, cache = WindowAttention(8, 2, 2), FeatureCache()
    torch.nn.init.normal_(attention.proj.weight)
    x = torch.randn(2, 8, 7, 2, 3)
    streamed = torch.cat([attention(piece, cache) for piece in x.split([1, 1, 3, 2], dim=2)], dim=2)
    torch.testing.assert_close(streamed, attention(x), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_frame_depends_on_a_bounded_past(vae: VAE):
    z = torch.randn(1, 4, 16, 1, 1)
    changed = z.clone()
    changed[:, :, 0] += 1
    assert torch.equal(vae.decode(z)[:, :, -1], vae.decode(changed)[:, :, -1])


@torch.no_grad()
def test_a_folder_is_read_back_and_names_its_class(vae: VAE, tmp_path):
    save_component(tmp_path / "vae", vae)
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["_class_name"] == KINEMA_VAE
    read = load_vae(tmp_path / "vae")
    z = torch.randn(1, 4, 2, 2, 2)
    assert read.config == CONFIG
    assert torch.equal(read.decode(z), vae.decode(z))


def test_a_missing_tensor_is_named(vae: VAE, tmp_path):
    save_component(tmp_path / "vae", vae)
    config = tmp_path / "vae" / "config.json"
    values = json.loads(config.read_text())
    values["subpixel"]["num_blocks"] = 4
    config.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"decoder\.blocks"):
        load_component(tmp_path / "vae", VAE)


@pytest.mark.parametrize("change", [{"_class_name": "AutoencoderKLWan"}, {"subpixel": None}], ids=str)
def test_the_class_and_the_table_belong_together(change):
    values = {**vae_diffusers_config(CONFIG), **change}
    values = {key: value for key, value in values.items() if value is not None or key != "subpixel"}
    with pytest.raises(ModelError, match="KinemaVAE"):
        vae_config_from_diffusers(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_heads": 5}, "multiple of num_heads"), ({"num_blocks": 0}, "num_blocks = 0")],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **change)


def test_the_number_of_doublings_is_that_of_the_encoder():
    with pytest.raises(ConfigError, match="doubles time and space 2 times"):
        VAEConfig(temporal_downsample=(False, True), subpixel=SMALL)


def test_the_cost_of_decoding_is_counted():
    short, long = (decode_cost(CONFIG, (lf, 2, 2))[0] for lf in (3, 9))
    assert 0 < short < long


def test_a_model_with_it_loads_and_generates(model_folder, tmp_path):
    dit, clip, manifest = load_backbone(model_folder), load_clip(model_folder), load_manifest(model_folder)
    kept = load_vae(model_folder).config
    torch.manual_seed(0)
    save_model(tmp_path / "model", dit, VAE(replace(kept, subpixel=SMALL)), clip, manifest)
    assert json.loads((tmp_path / "model" / "model_index.json").read_text())["vae"] == ["kinema", KINEMA_VAE]
    assert verify_hashes(tmp_path / "model") > 5

    pipeline = kinema.load(str(tmp_path / "model"), device="cpu")
    request = Request("a red fox runs", seed=1)
    plan = pipeline.plan(request)
    assert pipeline.run(request).video.frames.shape == (plan.frames, plan.height, plan.width, 3)
