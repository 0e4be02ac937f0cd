"""Spacetime patches: latents to packed tokens and back, and the coordinates of the tokens."""

import torch
from einops import rearrange
from torch import Tensor

from kinema.shapes import Float, Int

Patch = tuple[int, int, int]
"""Latents along (lf, lh, lw) per token."""


def patchify(x: Float[Tensor, "b c lf lh lw"], patch: Patch) -> Float[Tensor, "n patch_channels"]:
    """The patches of all clips of a batch as rows, in the order (b, lf, lh, lw).

    A row has the order (c, pt, ph, pw), like the flattened kernel of the Conv3d that embeds patches in Wan.
    """
    pt, ph, pw = patch
    return rearrange(x, "b c (lf pt) (lh ph) (lw pw) -> (b lf lh lw) (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def unpatchify(
    tokens: Float[Tensor, "n patch_channels"], grid: tuple[int, int, int], patch: Patch
) -> Float[Tensor, "b c lf lh lw"]:
    """Latents of size `grid` = (lf, lh, lw) from the rows of the head.

    A row has the order (pt, ph, pw, c) of Wan's head, which differs from that of `patchify`.
    """
    pt, ph, pw = patch
    lf, lh, lw = (size // p for size, p in zip(grid, patch))
    pattern = "(b lf lh lw) (pt ph pw c) -> b c (lf pt) (lh ph) (lw pw)"
    return rearrange(tokens, pattern, lf=lf, lh=lh, lw=lw, pt=pt, ph=ph, pw=pw)


def grid_coordinates(
    lf: int, lh: int, lw: int, patch: Patch, first_frame: int = 0, device: torch.device | None = None
) -> Int[Tensor, "n 3"]:
    """Coordinates (t, h, w) of the patches of one clip, in patches and in token order. `first_frame` is the
    first t.

    t = 0 is an image latent. A window of latents of four frames starts at `first_frame` >= 1.
    """
    t, h, w = (torch.arange(size // p, device=device) for size, p in zip((lf, lh, lw), patch))
    return torch.cartesian_prod(t + first_frame, h, w)
