import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinema.checkpoints.key_maps import dit_diffusers_config, dit_to_diffusers
from kinema.device import CPU, autocast
from kinema.errors import ConfigError, RequestError
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.models.dit_blocks import TimeTable
from kinema.models.patches import grid_coordinates

TINY = DiTConfig(
    in_channels=4,
    out_channels=3,
    d=48,
    num_layers=2,
    num_heads=4,
    ffn_dim=80,
    text_dim=20,
    freq_dim=32,
    text_length=9,
)
WIDE = DiTConfig(
    in_channels=5,
    out_channels=5,
    d=96,
    num_layers=2,
    num_heads=4,
    ffn_dim=64,
    text_dim=20,
    patch=(2, 1, 2),
    text_length=9,
)

ATOL = {"fp32": 2e-6, "bf16": 3e-2}
"""Between batches of other shapes, for outputs of about one."""


def network(config=TINY):
    """A DiT in which every weight matters."""
    generator = torch.Generator().manual_seed(0)
    dit = DiT(config)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    return dit.requires_grad_(False)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompts(*lengths):
    return Conditioning(TextStates(draw(sum(lengths), 20, seed=7), lengths))


def packed(*grids, config=TINY, first_frames=(0, 3, 1)):
    """Random tokens of several grids with their coordinates, table of times and lengths."""
    coordinates = [grid_coordinates(*grid, (1, 1, 1), first) for grid, first in zip(grids, first_frames)]
    lengths = tuple(len(grid) for grid in coordinates)
    table = TimeTable(torch.tensor([0.0, 0.35, 1.0]), torch.arange(sum(lengths)) % 3)
    return draw(sum(lengths), config.token_in, seed=3), torch.cat(coordinates), table, lengths


def wan_twin(dit):
    """diffusers' model with the same weights, loaded strictly."""
    diffusers = pytest.importorskip("diffusers")
    values = dit_diffusers_config(dit.config)
    wan = getattr(diffusers, values.pop("_class_name"))(**values)
    wan.load_state_dict(dit_to_diffusers(dit.state_dict(), dit.config))
    return wan.eval().requires_grad_(False)


@contextmanager
def hidden_states(block):
    """A list that collects what `block` returns."""
    states = []
    hook = block.register_forward_hook(lambda module, inputs, output: states.append(output))
    try:
        yield states
    finally:
        hook.remove()


def relative_error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("padding", ["masked", "zeros"])
@pytest.mark.parametrize(
    ("config", "grid"),
    [(TINY, (3, 6, 8)), (TINY, (1, 2, 2)), (WIDE, (4, 3, 6))],
    ids=["clip", "image", "other patch"],
)
def test_is_wan_with_one_time_a_clip(config, grid, padding):
    dit = network(replace(config, text_padding=padding))
    x, t, text = draw(2, config.in_channels, *grid), torch.tensor([0.21, 0.87]), prompts(5, 5)
    states = text.text.states.unflatten(0, (2, 5))
    if padding == "zeros":
        states = torch.nn.functional.pad(states, (0, 0, 0, config.text_length - 5))
    theirs = wan_twin(dit)(x, 1000 * t, states, return_dict=False)[0]
    assert relative_error(dit.predict(x, t, text), theirs) < 1e-5


def test_is_wan_with_a_time_for_each_token():
    dit, x, text = network(), draw(2, 4, 3, 6, 8), prompts(4, 4)
    t = torch.tensor([0.21, 0.87]).view(2, 1, 1, 1, 1).repeat(1, 1, 3, 6, 8)
    t[:, :, 0] = 0
    t[1, :, 2, :, 4:] = 0.5
    of_tokens = t[:, 0, :, ::2, ::2].flatten(1)
    theirs = wan_twin(dit)(x, 1000 * of_tokens, text.text.states.unflatten(0, (2, 4)), return_dict=False)[0]
    assert relative_error(dit.predict(x, t, text), theirs) < 1e-5


@pytest.mark.parametrize("positions", [None, 10], ids=["one image", "first and last image"])
def test_is_wan_with_images(positions):
    # diffusers takes the last 512 rows for text whatever the configuration says.
    config = replace(TINY, image_dim=14, image_positions=positions, text_padding="zeros", text_length=512)
    dit, x, t = network(config), draw(2, 4, 3, 4, 6), torch.tensor([0.21, 0.87])
    text, states = prompts(5, 5), draw(2 * (positions or 5), 14, seed=9)
    images = TextStates(states, (len(states) // 2,) * 2)
    padded = torch.nn.functional.pad(text.text.states.unflatten(0, (2, 5)), (0, 0, 0, 507))
    per_image = states.unflatten(
        0, (-1, 5)
    )  # diffusers wants a row for each image, and joins those of a clip where there are positions
    theirs = wan_twin(dit)(x, 1000 * t, padded, encoder_hidden_states_image=per_image, return_dict=False)[0]
    assert relative_error(dit.predict(x, t, dit.prepare(replace(text, images=images))), theirs) < 1e-5
    with pytest.raises(RequestError, match="needs an image"):
        dit.prepare(text)
    with pytest.raises(RequestError, match="takes no image"):
        network().prepare(replace(text, images=images))


def test_a_prompt_that_fills_the_text_length_has_no_padding():
    dit, masked = (network(replace(TINY, text_padding=padding)) for padding in ("zeros", "masked"))
    x, t, text = draw(1, 4, 2, 4, 4), torch.tensor([0.4]), prompts(TINY.text_length)
    torch.testing.assert_close(dit.predict(x, t, text), masked.predict(x, t, text))


def test_a_new_network_predicts_exactly_zero():
    dit = DiT(TINY)
    assert (dit.predict(draw(2, 4, 2, 4, 4), torch.rand(2), prompts(3, 1)) == 0).all()


def test_initial_weights_follow_wan_and_the_generator():
    config = replace(TINY, d=96)
    dit, again = DiT(config), DiT(config)
    for each in (dit, again):
        each.init_weights(torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(dit.parameters(), again.parameters()))
    assert dit.text_embedding.project.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert dit.time_embedding.project.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert dit.blocks[0].modulation.std().item() == pytest.approx(96**-0.5, rel=0.15)
    assert dit.time_projection.weight.abs().max().item() == pytest.approx(
        (6 / (96 + 6 * 96)) ** 0.5, rel=0.01
    )
    assert all(
        parameter.abs().max() == 0 for name, parameter in dit.named_parameters() if name.endswith(".bias")
    )


@pytest.mark.parametrize("padding", ["masked", "zeros"])
@pytest.mark.parametrize(
    "grids",
    [[(2, 3, 3), (2, 3, 3), (1, 3, 6)], [(1, 2, 2), (3, 4, 5), (2, 1, 1)]],
    ids=["one length", "lengths"],
)
@pytest.mark.portable
def test_packing_clips_is_running_them_apart(grids, padding, precision):
    dit, text = network(replace(TINY, text_padding=padding)), prompts(4, 1, 6)
    tokens, coordinates, table, lengths = packed(*grids)
    rows = zip(tokens.split(lengths), coordinates.split(lengths), table.index.split(lengths), text.split())
    with autocast(CPU, precision):
        together = dit(tokens, coordinates, table, text, lengths)
        apart = torch.cat(
            [
                dit(own, positions, TimeTable(table.times, index), prompt, (len(own),))
                for own, positions, index, prompt in rows
            ]
        )
    torch.testing.assert_close(together, apart, rtol=0, atol=ATOL[precision])


def test_a_batch_of_two_is_two_batches_of_one(precision):
    dit, x, t, text = network(), draw(2, 4, 3, 4, 6), torch.tensor([0.1, 0.9]), prompts(2, 5)
    with autocast(CPU, precision):
        together = dit.predict(x, t, text, first_frame=[0, 4])
        for i, first_frame in enumerate([0, 4]):
            alone = dit.predict(x[i : i + 1], t[i : i + 1], text.split()[i], first_frame)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=ATOL[precision])


def test_order_of_tokens_does_not_matter():
    dit, text = network(), prompts(4)
    tokens, coordinates, table, lengths = packed((2, 3, 4))
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1))
    reordered = TimeTable(table.times, table.index[order])
    shuffled = dit(tokens[order], coordinates[order], reordered, text, lengths)
    in_order = dit(tokens, coordinates, table, text, lengths)
    torch.testing.assert_close(shuffled, in_order[order], rtol=0, atol=2e-6)


def test_gathering_a_time_is_having_it():
    dit, text = network(), prompts(4)
    tokens, coordinates, table, lengths = packed((2, 3, 4))
    by_index = TimeTable(table.times, torch.ones_like(table.index))
    by_value = TimeTable(table.times[[1, 1, 1]], table.index)
    one_by_name = dit(tokens, coordinates, by_index, text, lengths)
    same_by_value = dit(tokens, coordinates, by_value, text, lengths)
    # Not bit for bit: matrix products of two and of three times round differently with AVX512.
    torch.testing.assert_close(one_by_name, same_by_value, rtol=0, atol=2e-6)


def test_one_time_for_a_clip_is_that_time_for_each_latent():
    dit, x, text = network(), draw(2, 4, 3, 4, 6), prompts(3, 3)
    t = torch.tensor([0.25, 0.75])
    spread = t.view(2, 1, 1, 1, 1).expand(2, 1, 3, 4, 6)
    torch.testing.assert_close(dit.predict(x, t, text), dit.predict(x, spread, text), rtol=0, atol=2e-6)


def test_a_patch_takes_the_largest_time_in_it():
    dit, x, text = network(), draw(1, 4, 1, 2, 4), prompts(3)
    mixed = torch.tensor([[0.0, 0.6, 0.2, 0.2], [0.1, 0.3, 0.2, 0.0]]).view(1, 1, 1, 2, 4)
    largest = torch.tensor([0.6, 0.6, 0.2, 0.2]).expand(1, 1, 1, 2, 4)
    assert torch.equal(dit.predict(x, mixed, text), dit.predict(x, largest, text))


def test_sizes_that_patches_do_not_divide_are_padded_with_the_edge_and_cropped():
    dit, x, t, text = network(), draw(1, 4, 2, 3, 5), torch.rand(1, 1, 2, 3, 5), prompts(3)
    edge_x, edge_t = (torch.cat([a, a[..., -1:]], -1) for a in (x, t))
    edge_x, edge_t = (torch.cat([a, a[..., -1:, :]], -2) for a in (edge_x, edge_t))
    out = dit.predict(x, t, text)
    assert out.shape == (1, 3, 2, 3, 5)
    assert torch.equal(out, dit.predict(edge_x, edge_t, text)[..., :3, :5])


def test_only_differences_of_place_matter():
    dit, x, t, text = network(), draw(1, 4, 2, 4, 4), torch.rand(1), prompts(3)
    torch.testing.assert_close(dit.predict(x, t, text, 1), dit.predict(x, t, text, 700), rtol=0, atol=2e-5)


def test_frames_that_patches_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 latent frames are not a multiple of 2"):
        network(WIDE).predict(draw(1, 5, 3, 2, 2), torch.rand(1), prompts(3))


@pytest.mark.parametrize("padding", ["masked", "zeros"])
def test_prepared_text_gives_the_same_bits(padding):
    dit, text = network(replace(TINY, text_padding=padding)), prompts(4, 6)
    x, t = draw(2, 4, 2, 4, 4), torch.rand(2)
    assert torch.equal(dit.predict(x, t, dit.prepare(text)), dit.predict(x, t, text))


def test_each_clip_sees_its_own_prompt_only():
    dit, x, t = network(), draw(1, 4, 2, 4, 4).repeat(2, 1, 1, 1, 1), torch.tensor([0.5, 0.5])
    one, other = dit.predict(x, t, prompts(4, 6))
    assert not torch.allclose(one, other, atol=1e-3)
    one, other = dit.predict(x, t, Conditioning.cat([prompts(4)] * 2))
    assert torch.equal(one, other)


def test_masked_and_zero_padded_text_differ_and_an_empty_prompt_works():
    x, t, text = draw(1, 4, 2, 4, 4), torch.rand(1), prompts(4)
    masked, zeros = (
        network(replace(TINY, text_padding=padding)).predict(x, t, text) for padding in ("masked", "zeros")
    )
    assert not torch.allclose(masked, zeros, atol=1e-3)
    assert torch.isfinite(network().predict(x, t, prompts(0))).all()


def test_the_head_reads_the_hidden_states_after_the_last_block():
    dit, text = network(), prompts(4)
    tokens, coordinates, table, lengths = packed((2, 3, 4))
    with hidden_states(dit.blocks[1]) as states:
        out = dit(tokens, coordinates, table, text, lengths)
    (last,) = states
    time, _ = dit.embed_time(table.times)
    assert torch.equal(dit.head(last, time, table.index), out)


def test_every_weight_gets_a_gradient():
    dit = network().requires_grad_()
    dit.predict(draw(2, 4, 2, 4, 4), torch.rand(2), prompts(4, 6)).square().mean().backward()
    still = {
        name
        for name, parameter in dit.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() == 0
    }
    assert not still


def test_half_precision_weights_keep_the_residual_and_the_time_in_float32():
    dit, text = network(), prompts(4)
    tokens, coordinates, table, lengths = packed((2, 3, 4))
    full = dit(tokens, coordinates, table, text, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with hidden_states(dit.blocks[1]) as states:
            out = dit(tokens, coordinates, table, text, lengths)
        assert torch.equal(dit.embed_time(table.times)[1], network().embed_time(table.times)[1])
    assert [each.dtype for each in states] == [torch.float32]
    assert relative_error(out.float(), full) < 0.03
    with hidden_states(dit.bfloat16().blocks[1]) as states:
        half = dit(tokens, coordinates, table, text, lengths)
    assert [each.dtype for each in states] == [torch.float32]
    assert relative_error(half.float(), full) < 0.03


def test_tokens_lengths_and_prompts_that_do_not_fit_are_refused():
    dit = network()
    tokens, coordinates, table, lengths = packed((2, 3, 4))
    with pytest.raises(
        ValueError, match="24 tokens do not match 1 segments with 24 tokens in all and 2 prompts"
    ):
        dit(tokens, coordinates, table, prompts(2, 2), lengths)
    with pytest.raises(ValueError, match="24 tokens do not match 1 segments with 23"):
        dit(tokens, coordinates, table, prompts(2), (23,))
    with pytest.raises(RequestError, match="a prompt has 10 tokens; the backbone takes text_length=9"):
        dit(tokens, coordinates, table, prompts(10), lengths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 50}, "d=50 must be a multiple of num_heads=4"),
        ({"d": 20}, "d=20 with num_heads=4 gives heads of 5"),
        ({"num_layers": 0}, "num_layers=0 must be more than 0"),
        ({"patch": (1, 0, 2)}, r"patch=\(1, 0, 2\)"),
        ({"freq_dim": 33}, "freq_dim=33 must be even"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_wan_has_the_published_number_of_parameters():
    config = DiTConfig(d=1536, num_layers=30, num_heads=12, ffn_dim=8960, text_dim=4096)
    block = DiT(replace(TINY, num_layers=1))
    assert len(block.state_dict()) == 27 + 15
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DiT(config).parameters()) == 1_418_996_800


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_one_compiled_block_serves_ten_sizes_with_at_most_two_recompilations(backend):
    # A process of its own: the checks of shapes that tests run with cannot be traced.
    script = Path(__file__).parent / "compiled_block.py"
    printed = subprocess.run(
        [sys.executable, script, "--backend", backend], check=True, capture_output=True, text=True
    ).stdout
    num_graphs, error = printed.split()
    assert 1 <= int(num_graphs) <= 3
    assert float(error) < 1e-5
