"""Blocks whose weights come and go give the numbers of blocks that stay."""

import pytest
import torch

from kinema.checkpoints.adapters import Adapter, merge_lora
from kinema.checkpoints.components import with_weights
from kinema.checkpoints.offload import with_streamed_blocks
from kinema.device import CPU
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.nn.parameters import weight_dtypes

TINY = DiTConfig(
    in_channels=4, out_channels=4, d=48, num_layers=3, num_heads=4, ffn_dim=80, text_dim=20, freq_dim=32
)


class Reads(dict):
    """Tensors by name that remember which blocks were asked for."""

    def __init__(self, state):
        super().__init__(state)
        self.blocks = []

    def __getitem__(self, name):
        if name.startswith("blocks."):
            self.blocks.append(int(name.split(".")[1]))
        return super().__getitem__(name)


@pytest.fixture
def networks():
    """The same random network with weights that stay and with streamed blocks, and where the latter's are
    read.
    """
    torch.manual_seed(0)
    whole = DiT(TINY).requires_grad_(False)
    torch.nn.init.normal_(whole.head.projection.weight, std=0.2)
    state = Reads({name: tensor.clone() for name, tensor in whole.state_dict().items()})
    with torch.device("meta"):
        empty = DiT(TINY)
    streamed = with_streamed_blocks(
        empty, "blocks", state, CPU, lambda name, tensor: tensor.to(torch.float32)
    )
    return whole.eval(), streamed, state


def answer(dit):
    generator = torch.Generator().manual_seed(1)
    x, states = torch.randn(1, 4, 2, 4, 4, generator=generator), torch.randn(3, 20, generator=generator)
    with torch.inference_mode():
        return dit.predict(x, torch.tensor([0.4]), dit.prepare(Conditioning(TextStates(states, (3,)))))


def test_streamed_blocks_give_the_same_numbers_bit_for_bit(networks):
    whole, streamed, state = networks
    assert torch.equal(answer(whole), answer(streamed))
    assert sorted(set(state.blocks)) == [0, 1, 2]
    assert all(parameter.is_meta for parameter in streamed.blocks.parameters())


def test_at_most_two_blocks_have_been_read_while_one_works(networks):
    _, streamed, _ = networks
    blocks = iter(streamed.blocks)
    first = next(blocks)
    assert not any(parameter.is_meta for parameter in first.parameters())
    next(blocks)
    assert all(parameter.is_meta for parameter in first.parameters())
    blocks.close()
    assert all(parameter.is_meta for parameter in streamed.blocks.parameters())


def test_an_adapter_changes_streamed_blocks_as_those_that_stay(networks):
    whole, streamed, _ = networks
    before = answer(whole)
    layers = ("blocks.1.self_attention.to_q", "blocks.2.cross_attention.to_out")
    adapters = {layer: Adapter(torch.randn(2, 48), torch.randn(48, 2), 2.0) for layer in layers}
    for dit in (whole, streamed):
        for scale in (0.3, 0.5):
            merge_lora(dit, adapters, scale)
    assert not torch.equal(answer(whole), before)
    assert torch.equal(answer(whole), answer(streamed))


def test_an_error_in_a_block_leaves_none_of_them_loaded(networks):
    _, streamed, _ = networks

    def use():
        for _ in streamed.blocks:
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        use()
    assert all(parameter.is_meta for parameter in streamed.blocks.parameters())


def test_matrices_have_the_dtype_that_loading_gives_them(networks):
    _, _, state = networks
    with torch.device("meta"):
        empty, other = DiT(TINY), DiT(TINY)
    dtypes = weight_dtypes(empty, torch.bfloat16)
    streamed = with_streamed_blocks(
        empty, "blocks", dict(state), CPU, lambda name, tensor: tensor.to(dtypes[name])
    )
    assert torch.equal(answer(with_weights(other, dict(state), None, torch.bfloat16)), answer(streamed))
