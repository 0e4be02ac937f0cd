"""The U-Net against diffusers' with the same random weights."""

import pytest
import torch
from torch import nn

from kinema.checkpoints.components import load_component, write_component
from kinema.checkpoints.image_configs import unet_config_from_diffusers
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.unet import UNet, UNetConfig

diffusers = pytest.importorskip("diffusers")

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
SMALL = {
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 2,
    "norm_num_groups": 16,
    "cross_attention_dim": 24,
    "down_block_types": (CROSS, CROSS, PLAIN),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,
}
XL = {
    "down_block_types": (PLAIN, CROSS, CROSS),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 20 + 6 * 8,
}
KINDS = {
    "sd-1.5": {},
    "sd-2.1": {"use_linear_projection": True, "attention_head_dim": (2, 4, 4)},
    "sd-unclip": {
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 12,
    },
    "sdxl": XL,
    "refiner": {
        **XL,
        "down_block_types": (PLAIN, CROSS, PLAIN),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 2,
        "projection_class_embeddings_input_dim": 20 + 5 * 8,
    },
}
FULL = {
    "sd-1.5": (859_520_964, 686, {"attention_head_dim": 8, "cross_attention_dim": 768}),
    "sd-2.1": (
        865_910_724,
        686,
        {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
    ),
    "sdxl": (
        2_567_463_684,
        1680,
        {
            **XL,
            "block_out_channels": [320, 640, 1280],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """(kind, diffusers' network, ours), from one folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param) / "unet"
    theirs = diffusers.UNet2DConditionModel(**(SMALL | KINDS[request.param])).eval()
    theirs.save_pretrained(folder)
    return request.param, theirs, load_component(folder, UNet)


def given(kind, b=2, num_tokens=7):
    """(arguments of diffusers' network, our conditioning)."""
    states = torch.randn(b, num_tokens, 24)
    text, vectors, arguments = TextStates(states.flatten(0, 1), (num_tokens,) * b), None, {}
    if kind in ("sdxl", "refiner"):
        pooled, vectors = torch.randn(b, 20), torch.randint(0, 1024, (b, 6 if kind == "sdxl" else 5)).float()
        arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": vectors}
        text = TextStates(text.states, text.lengths, pooled)
    elif kind == "sd-unclip":
        vectors = arguments["class_labels"] = torch.randn(b, 12)
    return {"encoder_hidden_states": states, **arguments}, Conditioning(text, vectors=vectors)


@pytest.mark.parametrize("size", [(8, 16), (9, 11)])
def test_predictions_equal_those_of_diffusers_at_any_size(pair, size):
    kind, theirs, ours = pair
    arguments, conditioning = given(kind)
    x, steps = torch.randn(2, 4, *size), torch.tensor([3, 820])
    with torch.no_grad():
        expected = theirs(x, steps, **arguments).sample
        t = (steps + 1) / 1000
        for prepared in (conditioning, ours.prepare(conditioning)):
            out = ours.predict(x[:, :, None], t, prepared)[:, :, 0]
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_latent_frames_are_separate_images_with_the_text_of_their_clip(pair):
    kind, _, ours = pair
    conditioning = given(kind)[1]
    x, t = torch.randn(2, 4, 3, 8, 8), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        out = ours.predict(x, t, conditioning)
        for i in range(3):
            alone = ours.predict(x[:, :, i : i + 1], t, conditioning)
            torch.testing.assert_close(out[:, :, i : i + 1], alone, rtol=0, atol=1e-5)


def test_a_saved_network_is_read_by_diffusers(pair, tmp_path):
    kind, _, ours = pair
    write_component(tmp_path / "unet", ours, torch.float32)
    again = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet", local_files_only=True)
    arguments, conditioning = given(kind, b=1)
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = again(x, torch.tensor([500]), **arguments).sample
        out = ours.predict(x[:, :, None], torch.tensor([0.501]), conditioning)[:, :, 0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert load_component(tmp_path / "unet", UNet).config == ours.config


@pytest.mark.parametrize("kind", FULL)
def test_published_sizes_have_the_tensors_of_diffusers(kind):
    num_parameters, num_tensors, values = FULL[kind]
    base = {
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "down_block_types": [CROSS] * 3 + [PLAIN],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**(base | values)).state_dict()
        ours = UNet(unet_config_from_diffusers(base | values)).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].numel() == tensor.numel() for name, tensor in theirs.items())
    assert (sum(x.numel() for x in ours.values()), len(ours)) == (num_parameters, num_tensors)


def test_a_new_network_predicts_zero():
    unet = UNet(UNetConfig(text_dim=8, channels=(32, 64)))
    text = TextStates(torch.randn(3, 8), (3,))
    out = unet.predict(torch.randn(1, 4, 1, 6, 6), torch.tensor([0.5]), Conditioning(text))
    assert out.abs().max() == 0
    assert not [layer for layer in unet.modules() if isinstance(layer, nn.Dropout)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 3}, "of another dialect of U-Nets"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep' is not supported"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift = 'scale_shift' is not"),
        ({"encoder_hid_dim": 32}, "encoder_hid_dim = 32 is not supported"),
    ],
)
def test_other_dialects_are_refused(values, message):
    with pytest.raises(ModelError, match=message):
        unet_config_from_diffusers({"in_channels": 4, "out_channels": 4, **SMALL, **values})


def test_vectors_of_another_width_and_sizes_that_do_not_fit_are_refused():
    unet = UNet(UNetConfig(text_dim=8, channels=(32, 64), class_dim=5))
    text = TextStates(torch.randn(3, 8), (3,))
    with pytest.raises(RequestError, match="takes vectors of width 5 in all; the width given is 4"):
        unet.prepare(Conditioning(text, vectors=torch.randn(1, 4)))
    with pytest.raises(ConfigError, match="must have one number for each level"):
        UNetConfig(channels=(32,))
    with pytest.raises(ConfigError, match="40 channels does not fit 3 heads"):
        UNetConfig(channels=(40,), depths=(1,), heads=(3,))
