"""The gradients of packed clips of unequal length are those of one process on every mesh."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.distributed.ranks import on_ranks
from torch import nn

from kinema.device import CPU
from kinema.distributed.group import open_group
from kinema.distributed.ranks import Ranks
from kinema.distributed.sharding import parallelize, whole
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig

CONFIG = DiTConfig(
    in_channels=4, out_channels=4, d=48, num_layers=2, num_heads=4, ffn_dim=96, text_dim=8, freq_dim=16
)
SHAPES = ((2, 4, 4), (1, 6, 4), (3, 6, 4), (2, 6, 8), (1, 2, 2))
PROMPTS = (5, 3, 7, 4, 2)
MESHES = ((1, 4, 1), (4, 1, 1), (2, 2, 1), (1, 4, 2), (2, 2, 4))
"""Copies, shards and ranks of a sequence."""


def gradients(ranks: Ranks, mesh=None, sequence=None, *, recompute=False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    model = DiT(CONFIG)
    for name, parameter in model.named_parameters():
        std = 0.02 if name.endswith("bias") else parameter[0].numel() ** -0.5
        nn.init.normal_(parameter, std=std, generator=generator)
    model.activation_checkpointing = recompute
    parallelize(model, mesh, sequence)

    clips = [torch.randn(4, *shape, generator=generator) for shape in SHAPES]
    times = [torch.rand(1, *shape, generator=generator) for shape in SHAPES]
    states = torch.randn(sum(PROMPTS), CONFIG.text_dim, generator=generator)
    texts = Conditioning(TextStates(states, PROMPTS)).split()

    share = ranks.share([clip[0].numel() for clip in clips])
    own_clips, own_times, own_texts = (
        [clips[i] for i in share.clips],
        [times[i] for i in share.clips],
        [texts[i] for i in share.clips],
    )
    outputs = model.predict_packed(own_clips, own_times, own_texts, [0] * len(share.clips))
    squares = torch.stack([out.square().sum() for out in outputs]).sum()
    (share.num_shares * squares / sum(clip.numel() for clip in clips)).backward()

    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        found[name] = whole(parameter.grad).contiguous()
    return found


def write_gradients(folder):
    """The gradients on every mesh of four ranks, in one file each."""
    index = int(os.environ["RANK"])
    for copies, shards, sequence in MESHES:
        for recompute in (False, True):
            ranks = Ranks(index, 4, index, shards, copies, sequence)
            with open_group(ranks, CPU, 60) as group:
                found = gradients(ranks, group.mesh, group.sequence, recompute=recompute)
            if ranks.is_first:
                save_file(found, folder / f"{copies}-{shards}-{sequence}-{recompute}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients")
    on_ranks(4, write_gradients, folder)
    return folder


@pytest.fixture(scope="module")
def expected():
    return gradients(Ranks())


@pytest.mark.parametrize("recompute", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: "{} copies, {} shards, sequence {}".format(*mesh))
def test_gradients_equal_those_of_one_process(folder, expected, mesh, recompute):
    copies, shards, sequence = mesh
    found = load_file(folder / f"{copies}-{shards}-{sequence}-{recompute}.safetensors")
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < 2e-6, name
