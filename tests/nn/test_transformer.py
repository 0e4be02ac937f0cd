"""The shared transformer block: sequences are independent, and a decoder does not attend to later tokens."""

import torch

from kinema.nn.transformer import TransformerBlock


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_packed_sequences_do_not_attend_to_each_other():
    block, x = TransformerBlock(16, 2), draw(9, 16)
    alone = torch.cat([block(x[:4], (4,)), block(x[4:], (5,))])
    torch.testing.assert_close(block(x, (4, 5)), alone, atol=1e-6, rtol=0)


def test_a_decoder_does_not_attend_to_later_tokens_nor_to_the_memory_of_others():
    block = TransformerBlock(16, 2, mlp_width=24, is_decoder=True)
    x, memory = draw(10, 16), draw(2, 3, 16)
    before = block(x, (5, 5), memory)

    changed, other_memory = x.clone(), memory.clone()
    changed[4] += 1
    other_memory[1] += 1
    after = block(changed, (5, 5), other_memory)
    torch.testing.assert_close(after[:4], before[:4], atol=1e-6, rtol=0)
    assert not torch.allclose(after[4:], before[4:], atol=1e-2)


def test_residual_branches_start_small_in_a_deep_stack():
    torch.manual_seed(0)
    block = TransformerBlock(64, 2)
    block.init_weights(8)
    assert abs(block.out.weight.std() - (2 * 8 * 64) ** -0.5) < 3e-3
    assert not block.qkv.bias.any()
