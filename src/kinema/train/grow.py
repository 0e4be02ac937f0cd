"""More latent channels for a VAE and its DiT, without forgetting: what the smaller network computes, the larger one computes too.

Function-preserving growth (Chen et al. 2016, "Net2Net", for widths; here for the channels between two networks). Weights from new inputs
to old outputs are zero, old outputs keep their place in front, new outputs keep the fresh weights of the larger network.
"""

from math import prod

import torch
from torch import Tensor

from kinema.models.dit import DiT
from kinema.models.vae import VAE

State = dict[str, Tensor]


def grown_vae(small: VAE, large: VAE) -> State:
    """The state of `large` in which its first channels are those of `small`: equal latents there, and pictures that need no others.

    Tensors of other differences are returned as they are, so that loading them says what does not fit.
    """
    state, fresh = dict(small.state_dict()), large.state_dict()
    few, many = small.config.z_dim, large.config.z_dim
    if few >= many:
        return state
    latents = torch.arange(few)
    both = torch.cat([latents, many + latents])  # means, then log variances
    return state | {
        "encoder.conv_out.weight": _grown(fresh["encoder.conv_out.weight"], state["encoder.conv_out.weight"], rows=both),
        "encoder.conv_out.bias": _grown(fresh["encoder.conv_out.bias"], state["encoder.conv_out.bias"], rows=both),
        "quant_conv.weight": _grown(fresh["quant_conv.weight"], state["quant_conv.weight"], rows=both, columns=both),
        "quant_conv.bias": _grown(fresh["quant_conv.bias"], state["quant_conv.bias"], rows=both),
        "post_quant_conv.weight": _grown(fresh["post_quant_conv.weight"], state["post_quant_conv.weight"], rows=latents, columns=latents),
        "post_quant_conv.bias": _grown(fresh["post_quant_conv.bias"], state["post_quant_conv.bias"], rows=latents),
        "decoder.conv_in.weight": _grown(fresh["decoder.conv_in.weight"], state["decoder.conv_in.weight"], columns=latents),
    }


def grown_dit(small: DiT, large: DiT) -> State:
    """The state of `large` in which the first latent channels are seen and predicted as by `small`, and new ones are predicted afresh."""
    state, fresh = dict(small.state_dict()), large.state_dict()
    few, many = small.config.in_channels, large.config.in_channels
    is_square = (few, many) == (small.config.out_channels, large.config.out_channels)
    if few >= many or not is_square or small.config.patch != large.config.patch:
        return state
    # A row of the head is laid out as (pt, ph, pw, c): see `unpatchify`.
    heads = (many * torch.arange(prod(large.config.patch))[:, None] + torch.arange(few)).flatten()
    seen = torch.arange(small.config.token_in)  # a column of the embedding as (c, pt, ph, pw)
    return state | {
        "patch_embedding.weight": _grown(fresh["patch_embedding.weight"], state["patch_embedding.weight"], columns=seen),
        "head.projection.weight": _grown(fresh["head.projection.weight"], state["head.projection.weight"], rows=heads),
        "head.projection.bias": _grown(fresh["head.projection.bias"], state["head.projection.bias"], rows=heads),
    }


def _grown(fresh: Tensor, old: Tensor, *, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """`fresh` with `old` at the given rows and columns (all, when not given); what else the rows would read has weight zero.

    `old` itself where it does not fit in.
    """
    rows = torch.arange(len(fresh)) if rows is None else rows
    if fresh.ndim > 1 and columns is None:
        columns = torch.arange(fresh.shape[1])
    wanted = (len(rows), *([] if columns is None else [len(columns)]), *fresh.shape[2:])
    if old.shape != wanted:
        return old
    grown = fresh.clone()
    grown[rows] = 0
    if columns is None:
        grown[rows] = old
    else:
        grown[rows[:, None], columns] = old
    return grown
