"""Our backbone and VAE in the places of `pipe.transformer` and `pipe.vae` of diffusers' own pipelines of the
Wan family.

pipe = WanPipeline.from_pretrained(DIR)
wan = load_wan_model(DIR, device)
pipe.transformer, pipe.vae = Transformer(wan.backbones["high"]), Codec(wan.vae)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kinema.checkpoints.key_maps import dit_diffusers_config, vae_diffusers_config
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import TIMESTEPS, DiT
from kinema.models.dit_blocks import TimeTable
from kinema.models.patches import grid_coordinates, patchify, unpatchify
from kinema.models.vae import VAE


class Transformer(nn.Module):
    """A DiT with the interface of diffusers' `WanTransformer3DModel`.

    Sizes must be multiples of the patch size, as there.
    """

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit
        self.config = SimpleNamespace(**dit_diffusers_config(dit.config))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the matrices."""
        return self.dit.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.dit.patch_embedding.weight.device

    @contextmanager
    def cache_context(self, name: str, **options: Any) -> Iterator[None]:
        """Does nothing: diffusers' caches are hooks in its own blocks."""
        yield

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[Tensor]:
        """The prediction (b, c, lf, lh, lw) in a tuple.

        `timestep` in [0, 1000] is (b,), or (b, n) with one per token.
        """
        b, patch = len(hidden_states), self.dit.config.patch
        _, _, lf, lh, lw = hidden_states.shape
        grid = lf, lh, lw
        tokens = patchify(hidden_states, patch)
        num_tokens = len(tokens) // b
        of_tokens = (timestep[:, None].expand(b, num_tokens) if timestep.ndim == 1 else timestep).flatten()
        table = TimeTable(*(of_tokens.float() / TIMESTEPS).unique(return_inverse=True))
        coordinates = torch.cat([grid_coordinates(*grid, patch, 0, tokens.device)] * b)
        # The padding of the prompts has come with them, as zeros.
        conditioning = Conditioning(
            _packed(encoder_hidden_states, b), _packed(encoder_hidden_states_image, b)
        )
        out = self.dit(tokens, coordinates, table, self.dit.prepare(conditioning), (num_tokens,) * b)
        return (unpatchify(out, grid, patch).to(hidden_states.dtype),)


class Codec(nn.Module):
    """A VAE with those methods of diffusers' `AutoencoderKLWan` that its pipelines call."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae
        self.config = SimpleNamespace(**vae_diffusers_config(vae.config))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the kernels."""
        return self.vae.quant_conv.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.vae.quant_conv.weight.device

    def encode(self, video: Tensor) -> SimpleNamespace:
        """The posterior of a video, as `latent_dist` with `mode` and `sample`."""
        posterior = self.vae.encode(video)
        return SimpleNamespace(
            latent_dist=SimpleNamespace(mode=lambda: posterior.mean, sample=posterior.sample)
        )

    def decode(self, latents: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        """The video, in [-1, 1], in a tuple."""
        return (torch.cat(list(self.vae.stream_decode([latents], clamp=True)), dim=2),)


def _packed(states: Any, b: int) -> Any:
    """Hidden states (_, s, d) of `b` clips, packed; several images of a clip follow one another.

    None stays None.
    """
    if states is None:
        return None
    rows = states.flatten(0, 1)
    return TextStates(rows, (len(rows) // b,) * b)
