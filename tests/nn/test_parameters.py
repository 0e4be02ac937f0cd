"""The optimizer and the dtype of a parameter follow from its module and not from its name."""

import copy

import pytest
import torch
from torch import nn

from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAEConfig
from kinema.nn.norms import RMSNorm
from kinema.nn.parameters import float32_names, keep_float32, muon_parameters, use_muon, weight_dtypes

CONFIG = DiTConfig(d=24, num_layers=2, num_heads=4, ffn_dim=16, text_dim=8, freq_dim=8, in_channels=4)
RENAMED = {"blocks": "layers", "time_embedding": "clock", "time_projection": "modulator", "head": "out"}


def marked(model):
    """The parameters that Muon trains, in order, and those that stay in float32, by identity."""
    tensors = dict(model.named_parameters())
    return [id(p) for p in muon_parameters(model)], {id(tensors[name]) for name in float32_names(model)}


def rename(module, old, new):
    """Register the child `old` as `new`, at its place in the order."""
    module._modules = {new if name == old else name: child for name, child in module._modules.items()}


def test_renaming_layers_changes_neither_optimizer_nor_dtype():
    dit = DiT(CONFIG)
    before, names = marked(dit), float32_names(dit)

    for old, new in RENAMED.items():
        rename(dit, old, new)
    for block in dit.layers:
        rename(block, "norm_cross", "scaled")
        rename(block, "mlp", "norm")
        rename(block.self_attention, "norm_q", "q_scaled")

    assert marked(dit) == before
    assert len(before[0]) == 2 * 10
    assert float32_names(dit).isdisjoint(names)


def test_renaming_layers_does_not_change_the_initialisation():
    config = VAEConfig(base_dim=8, dim_mult=(1, 2, 3), z_dim=4)
    torch.manual_seed(0)
    one, other = VAE(config), VAE(config)
    for coder in (other.encoder, other.decoder):
        rename(coder, "conv_in", "proj")
        rename(coder, "conv_out", "conv2")
        rename(coder.mid_block, "resnets", "time_conv")

    for vae in (one, other):
        torch.manual_seed(1)
        vae.init_weights()

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_name_with_block_or_norm_in_it_marks_nothing():
    model = nn.ModuleDict({"block": nn.Linear(4, 4), "norm": nn.Linear(4, 4)})
    assert muon_parameters(model) == []
    assert float32_names(model) == set()


def test_marks_survive_copies_and_assigned_weights():
    dit = DiT(CONFIG)
    muon = [name for name, p in dit.named_parameters() if any(p is q for q in muon_parameters(dit))]
    with torch.device("meta"):
        assigned = DiT(CONFIG)
    assigned.load_state_dict(dit.state_dict(), assign=True)

    for other in (copy.deepcopy(dit), assigned):
        found = {id(p) for p in muon_parameters(other)}
        assert [name for name, p in other.named_parameters() if id(p) in found] == muon
        assert float32_names(other) == float32_names(dit)


def test_muon_takes_no_vectors():
    layer = use_muon(nn.Sequential(nn.Linear(4, 1), nn.Linear(4, 2), nn.Conv1d(1, 3, 1)))
    assert muon_parameters(layer) == [layer[1].weight]


def test_norms_stay_in_float32_and_so_does_what_is_named():
    model = nn.Module()
    model.table = nn.Parameter(torch.zeros(2))
    model.bias = nn.Parameter(torch.zeros(2))
    model.scale = RMSNorm(2)
    model.groups = nn.GroupNorm(1, 2)
    model.clock = keep_float32(nn.Linear(2, 2))
    keep_float32(model, "table")

    dtypes = weight_dtypes(model, torch.bfloat16)
    assert {name for name, dtype in dtypes.items() if dtype == torch.bfloat16} == {"bias"}
    assert set(dtypes) == set(model.state_dict())
    with pytest.raises(AttributeError, match="tables"):
        keep_float32(model, "tables")
