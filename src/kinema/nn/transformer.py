"""The pre-norm transformer block that the CLIP, the captioner and the expander share."""

import torch
from einops import rearrange
from torch import Tensor, nn

from kinema.nn.attention import attend, attend_causal
from kinema.nn.mlp import MLP
from kinema.nn.norms import LayerNorm
from kinema.shapes import Float


class TransformerBlock(nn.Module):
    """Self-attention within packed sequences, then, in a decoder, cross-attention to a memory, then an MLP;
    each is residual.

    In an encoder every token attends to its whole sequence. In a decoder (`is_decoder`) it attends to itself
    and to the tokens before it, and all sequences of a batch have one length.
    """

    uses_muon = True

    def __init__(
        self, width: int, num_heads: int, *, mlp_width: int | None = None, is_decoder: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

        self.is_decoder = is_decoder
        if is_decoder:
            self.cross_norm = LayerNorm(width)
            self.cross_q = nn.Linear(width, width)
            self.cross_kv = nn.Linear(width, 2 * width)
            self.cross_out = nn.Linear(width, width)

        self.mlp_norm = LayerNorm(width)
        self.mlp = MLP(width, 4 * width if mlp_width is None else mlp_width, width)

    @torch.no_grad()
    def init_weights(self, num_layers: int) -> None:
        """Draw the weights of an encoder block in a stack of `num_layers`, as OpenAI's CLIP does.

        Normal weights of std width ** -0.5 (the MLP's first layer: (2 * width) ** -0.5) and zero biases. What
        is added to the residual stream is divided by sqrt(2 * num_layers).
        """
        width = self.out.out_features
        residual_std = (2 * num_layers * width) ** -0.5
        stds = (
            (self.qkv, width**-0.5),
            (self.out, residual_std),
            (self.mlp.expand, (2 * width) ** -0.5),
            (self.mlp.project, residual_std),
        )

        for layer, std in stds:
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "n d"], lengths: tuple[int, ...], memory: Float[Tensor, "b m d"] | None = None
    ) -> Float[Tensor, "n d"]:
        """The states of packed sequences of `lengths` tokens. A decoder attends to the `memory` of each."""
        q, k, v = rearrange(
            self.qkv(self.attention_norm(x)), "n (three k dh) -> three n k dh", three=3, k=self.num_heads
        )
        if self.is_decoder:
            q, k, v = (rearrange(part, "(b n) k dh -> b n k dh", b=len(lengths)) for part in (q, k, v))
            attended = attend_causal(q, k, v).flatten(0, 1)
        else:
            attended = attend(q, k, v, lengths, lengths)
        x = x + self.out(attended.flatten(1))

        if memory is not None:
            x = x + self._attend_to(memory, x, lengths)
        return x + self.mlp(self.mlp_norm(x))

    def _attend_to(
        self, memory: Float[Tensor, "b m d"], x: Float[Tensor, "n d"], lengths: tuple[int, ...]
    ) -> Float[Tensor, "n d"]:
        b, m, _ = memory.shape
        q = rearrange(self.cross_q(self.cross_norm(x)), "n (k dh) -> n k dh", k=self.num_heads)
        k, v = rearrange(self.cross_kv(memory), "b m (two k dh) -> two (b m) k dh", two=2, k=self.num_heads)
        return self.cross_out(attend(q, k, v, lengths, (m,) * b).flatten(1))
