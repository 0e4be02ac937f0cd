import pytest
import torch

from kinema.checkpoints.key_maps import (
    dit_diffusers_config,
    dit_from_diffusers,
    dit_keys,
    dit_to_diffusers,
)
from kinema.errors import ModelError
from kinema.models.dit import DiT, DiTConfig

CONFIG = DiTConfig(
    in_channels=4, out_channels=3, d=48, num_layers=2, num_heads=4, ffn_dim=80, text_dim=20, freq_dim=32
)
STATE = DiT(CONFIG).state_dict()

PUBLISHED = {  # from the state dict of the Wan2.2 code
    "text_embedding.0.weight": (48, 20),
    "text_embedding.2.bias": (48,),
    "time_embedding.0.weight": (48, 32),
    "time_projection.1.weight": (288, 48),
    "blocks.1.modulation": (1, 6, 48),
    "blocks.1.self_attn.norm_q.weight": (48,),
    "blocks.1.cross_attn.o.bias": (48,),
    "blocks.1.norm3.weight": (48,),
    "blocks.1.ffn.0.weight": (80, 48),
    "blocks.1.ffn.2.weight": (48, 80),
    "head.head.weight": (12, 48),
    "head.modulation": (1, 2, 48),
}


def test_there_and_back_is_the_same_state():
    again = dit_from_diffusers(dit_to_diffusers(STATE, CONFIG), CONFIG)
    assert list(again) != []
    assert again.keys() == STATE.keys()
    assert all(torch.equal(again[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("layout", ["diffusers", "wan"])
def test_every_tensor_has_one_name_of_its_own(layout):
    keys = dit_keys(CONFIG, layout)
    assert keys.keys() == STATE.keys()
    assert len(set(keys.values())) == len(keys)


def test_diffusers_has_the_same_names_and_shapes():
    diffusers = pytest.importorskip("diffusers")
    values = dit_diffusers_config(CONFIG)
    wan = getattr(diffusers, values.pop("_class_name"))(**values)
    ours = {name: tensor.shape for name, tensor in dit_to_diffusers(STATE, CONFIG).items()}
    assert ours == {name: tensor.shape for name, tensor in wan.state_dict().items()}
    assert {name: wan.config[name] for name in values} == {**values, "patch_size": [1, 2, 2]}


def test_original_names_and_shapes_are_the_published_ones():
    original = {theirs: tuple(STATE[ours].shape) for ours, theirs in dit_keys(CONFIG, "wan").items()}
    assert {name: original[name] for name in PUBLISHED} == PUBLISHED


def test_missing_and_surplus_tensors_are_listed():
    state = dit_to_diffusers(STATE, CONFIG)
    state["extra"] = state.pop("proj_out.bias")
    with pytest.raises(ModelError, match=r"missing proj_out\.bias; unexpected extra"):
        dit_from_diffusers(state, CONFIG)


def test_a_kernel_of_other_channels_is_refused():
    state = dit_to_diffusers(STATE, CONFIG)
    state["patch_embedding.weight"] = torch.zeros(48, 16, 1, 2, 2)
    with pytest.raises(ModelError, match=r"\(48, 16, 1, 2, 2\), but in_channels=4"):
        dit_from_diffusers(state, CONFIG)
