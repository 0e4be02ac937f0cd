from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kinema.checkpoints.families.base import ModelSizes, TextEncoderSizes
from kinema.checkpoints.families.wan.model import wan_manifest
from kinema.checkpoints.families.wan.published import PUBLISHED
from kinema.cli.main import main
from kinema.errors import ConfigError
from kinema.generation.cost.counting import (
    PeakMemory,
    backbone_flops,
    backbone_peak_bytes,
    decode_cost,
    encode_cost,
    prepared_bytes,
)
from kinema.generation.cost.estimate import Workload, alternatives, estimate
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAEConfig

TINY = DiTConfig(
    d=64, num_layers=2, num_heads=2, ffn_dim=96, text_dim=32, text_padding="zeros", text_length=8
)
CODEC = VAEConfig(
    base_dim=8, dim_mult=(1, 2, 2, 2), z_dim=16, temporal_downsample=(False, True, True), patch_size=1
)


@pytest.mark.parametrize(
    ("name", "width", "height", "frames", "tokens", "millions"),
    [
        ("wan-2.1-1.3b", 832, 480, 81, 32760, 1418.9968),
        ("wan-2.1-14b", 1280, 720, 81, 75600, 14288.491584),
        ("wan-2.1-i2v-14b", 832, 480, 81, 32760, 16394.878784),
        ("wan-2.2-i2v-a14b", 832, 480, 81, 32760, 14288.901184),
        ("wan-2.2-5b", 1280, 704, 121, 27280, 4999.787712),
    ],
)
def test_published_sizes_have_the_published_counts(name, width, height, frames, tokens, millions):
    sizes = PUBLISHED[name]
    with torch.device("meta"):
        assert sum(p.numel() for p in DiT(sizes.backbone).parameters()) == round(millions * 1e6)
    lf, lh, lw = (
        (frames - 1) // sizes.vae.temporal_factor + 1,
        height // sizes.vae.spatial_factor,
        width // sizes.vae.spatial_factor,
    )
    assert lf * lh * lw // 4 == tokens


def test_operations_and_memory_of_a_backbone_are_those_of_its_matrix_products():
    d, tokens, rows = 64, 48, 129  # a prompt of 128 tokens and one row of padding
    config = replace(TINY, text_length=512)
    linear = 2 * tokens * (6 * d * d + 2 * d * 96)  # q, k, v, out of two attentions, without keys of the text
    attention = 4 * tokens * d * (tokens + rows)
    edges = 2 * tokens * d * (config.token_in + config.token_out)
    time = 2 * d * (256 + d + 6 * d)
    assert backbone_flops(config, (3, 8, 8)) == 2 * (linear + attention) + edges + time
    keys, embedded = 2 * 2 * rows * d * 4, rows * d * 4
    assert keys + embedded <= prepared_bytes(config, (3, 8, 8)) < 1.2 * (keys + embedded)


def test_decoding_grows_with_length_and_its_memory_does_not():
    costs = [decode_cost(CODEC, (lf, 4, 4)) for lf in (5, 7, 11)]
    (first, memory), (second, other), (third, last) = costs
    assert memory == other == last
    assert third - second == pytest.approx(2 * (second - first))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        VAE(CODEC).decode(torch.empty(1, 16, 11, 4, 4))
    assert third == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_the_peak_is_what_is_alive_at_a_time():
    with PeakMemory() as peak:
        a = torch.zeros(1000)
        b = a + 1
        del a
        c = b * 2
        del b, c
    assert peak.max_bytes == 8000
    assert peak.bytes == 0


def test_memory_grows_with_the_tokens_and_is_less_in_bf16():
    one, two, four = (backbone_peak_bytes(TINY, (lf, 16, 16)) for lf in (4, 8, 16))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
    assert one * 0.5 < backbone_peak_bytes(TINY, (4, 16, 16), torch.bfloat16) < one


def test_the_operations_of_encoding_are_those_that_are_counted():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        VAE(CODEC).encode(torch.empty(1, 3, 41, 64, 64))
    assert encode_cost(CODEC, 64, 64, 41)[0] == pytest.approx(counter.get_total_flops(), rel=0.05)


TEXT = TextEncoderSizes(
    num_parameters=3_000_000, embedding_parameters=1_000_000, mlp_width=96, num_heads=2, num_blocks=4
)
DIT = replace(TINY, in_channels=16)
SMALL = ModelSizes(DIT, CODEC, wan_manifest("wan-2.2-t2v-a14b", DIT, CODEC, name="small"), TEXT, 2)
ASKED = Workload(128, 128, 33, 2, bytes_per_weight=4)


def test_each_way_to_keep_weights_needs_less_than_the_one_before_it():
    none, text, layers = (
        estimate(SMALL, replace(ASKED, offload=offload)) for offload in ("none", "text", "layers")
    )
    assert none.peak_bytes > text.peak_bytes > layers.peak_bytes
    assert [phase.activations_bytes for phase in none.phases] == [
        phase.activations_bytes for phase in layers.phases
    ]
    assert none.phases[1].weights_bytes - text.phases[1].weights_bytes == 4 * TEXT.num_parameters
    assert none.phases[0].weights_bytes == text.phases[0].weights_bytes


def test_what_does_not_fit_is_said_with_what_would():
    plan = estimate(SMALL, ASKED)
    assert plan.num_forwards == 4
    lines = alternatives(SMALL, ASKED, plan.peak_bytes - 1)
    assert [line.split()[0] for line in lines] == ["--offload", "--precision", "--size", "--frames"]
    assert alternatives(SMALL, ASKED, 1) == []
    with pytest.raises(ConfigError, match=r"use 4k\+1, e\.g\. 9"):
        estimate(SMALL, replace(ASKED, frames=10))
    with pytest.raises(ConfigError, match=r"multiples of 16, e\.g\. 64x128"):
        estimate(SMALL, replace(ASKED, width=60))


def test_the_command_line_answers_and_refuses(capsys):
    assert (
        main(["plan", "--model", "wan-2.1-1.3b", "--size", "64x64", "--frames", "5", "--compare", "sd,sdxl"])
        == 0
    )
    said = capsys.readouterr().out
    assert "32 tokens of 2x8x8 latents, 100 forward passes" in said
    assert "SDXL" in said
    assert "fits in 24 GiB with --offload text" in said
    assert (
        main(["plan", "--model", "wan-2.1-1.3b", "--size", "64x64", "--frames", "5", "--device-memory", "8"])
        == 0
    )
    assert "'text encoder' needs" in (said := capsys.readouterr().out)
    assert "--offload layers needs" in said
    for words, line in (
        (["--model", "wan-3"], "unknown model to plan for 'wan-3'"),
        (["--utilisation", "2"], "use 0.001 to 1"),
    ):
        assert main(["plan", *words]) == 2
        assert line in capsys.readouterr().err
