"""The image DiT against diffusers' with the same random weights."""

import pytest
import torch
from torch import nn

from kinema.checkpoints.components import load_component, write_component
from kinema.checkpoints.image_configs import image_dit_config_from_diffusers, image_dit_to_diffusers
from kinema.errors import ConfigError, ModelError, RequestError
from kinema.models.backbone import BACKBONES, Backbone, without_weights
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.image_dit import ImageDiT, ImageDiTConfig

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 3,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 10,
}


def classes(*numbers):
    return Conditioning(
        TextStates(torch.zeros(0, 0), (0,) * len(numbers), torch.tensor(numbers)[:, None].float())
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(diffusers' network, ours, their folder)."""
    folder = tmp_path_factory.mktemp("dit") / "transformer"
    theirs = diffusers.DiTTransformer2DModel(**SMALL).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.06, generator=generator)
    for block in theirs.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    theirs.save_pretrained(folder)
    return theirs, load_component(folder, ImageDiT), folder


@torch.no_grad()
def test_predictions_equal_those_of_diffusers(pair):
    theirs, ours, _ = pair
    x, steps, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 411, 999]), torch.tensor([2, 9, 10])
    expected = theirs(x, steps, labels).sample[:, :4]
    given = classes(2, 9, 10)
    for prepared in (given, ours.prepare(given)):
        out = ours.predict(x[:, :, None], (steps + 1) / 1000, prepared)[:, :, 0]
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_frames_are_separate_images_and_clips_are_predicted_one_by_one(pair):
    ours = pair[1]
    assert isinstance(ours, Backbone)
    x, t = torch.randn(1, 4, 2, 4, 6), torch.tensor([0.3])
    out = ours.predict(x, t, classes(3))
    alone = ours.predict(x[:, :, 1:], t, classes(3))
    torch.testing.assert_close(out[:, :, 1:], alone, rtol=0, atol=1e-5)
    (packed,) = ours.predict_packed([x[0]], [t.view(1, 1, 1, 1).expand(1, 2, 4, 6)], [classes(3)], [0])
    torch.testing.assert_close(packed, out[0], rtol=0, atol=1e-5)
    assert (ours.predict(x, t, classes(4)) - out).abs().max() > 1e-3


def test_a_saved_network_is_read_by_diffusers_and_copies_that_differ_are_refused(pair, tmp_path):
    theirs, ours, _ = pair
    write_component(tmp_path / "transformer", ours, torch.float32)
    again = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "transformer", local_files_only=True)
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in theirs.state_dict().items())

    again.transformer_blocks[2].norm1.emb.timestep_embedder.linear_1.bias.data += 1
    again.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="the DiT has one embedding for all blocks"):
        load_component(tmp_path / "other", ImageDiT)


def test_the_published_size_has_the_tensors_of_diffusers():
    with torch.device("meta"):
        theirs = diffusers.DiTTransformer2DModel(
            num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=28
        )
    config = image_dit_config_from_diffusers(dict(theirs.config))
    assert config == ImageDiTConfig()
    ours = without_weights(config).state_dict()
    file = {name: x.shape for name, x in image_dit_to_diffusers(ours, config).items()}
    assert file == {name: x.shape for name, x in theirs.state_dict().items()}
    assert round(sum(x.numel() for x in ours.values()) / 1e6, 1) == 674.8
    assert BACKBONES["image_dit"].num_blocks(config) == 28


def test_wrong_classes_and_sizes_are_refused(pair):
    ours = pair[1]
    with pytest.raises(RequestError, match="classes are numbers from 0 to 10"):
        ours.prepare(classes(11))
    with pytest.raises(RequestError, match="takes the number of a class and no text"):
        ours.prepare(Conditioning(TextStates(torch.zeros(2, 0), (2,))))
    with pytest.raises(RequestError, match="3x4 latents do not fit the image DiT: use multiples of 2"):
        ours.predict(torch.zeros(1, 4, 1, 3, 4), torch.tensor([0.5]), classes(1))
    with pytest.raises(ModelError, match="norm_type = 'layer_norm' is not supported"):
        image_dit_config_from_diffusers({**SMALL, "norm_type": "layer_norm"})
    with pytest.raises(ConfigError, match="must be a multiple of num_heads"):
        ImageDiTConfig(d=100, num_heads=3)
