"""The pieces in which a canvas is sampled: windows, or a whole ring; and how each is cut out of the canvas and put back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.diffusion.canvas import Canvas
from kinema.generation.request import Plan
from kinema.generation.sampling.windows import Window
from kinema.shapes import Bool

HISTORY_NOISE = 0.05
"""Diffusion time at which a window is shown latents that an earlier one made: the model then trusts them a little less than it would
clean ones, and errors do not feed on themselves (history noise augmentation, as in Valevski et al. 2024, GameNGen)."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a canvas that is sampled by itself."""

    canvas: Canvas
    places: tuple[int, ...]
    """The latent frame of the whole canvas that each of its latent frames is; noise belongs to these."""
    first_coordinate: int
    """The time coordinate of its first latent frame: 0 for the one that holds a single frame."""
    new: slice
    """Which of its latent frames are kept."""
    prompt: str
    is_ring: bool = False

    @property
    def target(self) -> slice:
        """Where the kept ones stand on the whole canvas."""
        kept = self.places[self.new]
        return slice(kept[0], kept[-1] + 1)


def num_pieces(plan: Plan) -> int:
    """In how many pieces the plan's canvas is sampled."""
    return 1 if plan.request.loop else len(plan.windows)


def cut_piece(plan: Plan, index: int, whole: Canvas, latents: Tensor) -> Piece:
    """The piece of that index, with what earlier ones left in `latents` (1, c, lf, lh, lw) as its history."""
    if plan.request.loop:
        size = latents.shape[2]
        return Piece(whole, tuple(range(size)), 0, slice(0, size), plan.request.prompt, is_ring=True)
    windows = plan.windows
    window = windows[index]
    done = _done(plan.layout.is_free, windows[:index], whole.start.device)
    places = list(range(window.first, window.stop))
    has_anchor = window.first > 0 and plan.request.anchor and bool(done[0])
    if has_anchor:
        places = [0, *places]
    start = whole.start[:, :, places].clone()
    was_made = (start > 0) & done[places].view(1, 1, -1, 1, 1)
    start = start.masked_fill(was_made, HISTORY_NOISE)
    if has_anchor:
        start[:, :, 0] = 0
    canvas = Canvas(latents[:, :, places], start == 0, start)
    new = slice(
        places.index(window.new_first), places.index(window.new_first) + window.new_stop - window.new_first
    )
    prompt = [text for latent, text in plan.prompts if latent <= window.new_first][-1]
    return Piece(canvas, tuple(places), min(places[0], 1), new, prompt)


def _done(is_free: Sequence[bool], earlier: Sequence[Window], device: torch.device) -> Bool[Tensor, " lf"]:
    """Which latent frames are known or made before a window."""
    done = torch.tensor([not free for free in is_free], device=device)
    for window in earlier:
        done[window.new_first : window.new_stop] = True
    return done


def put_back(latents: Tensor, piece: Piece, made: Tensor) -> Tensor:
    """`latents` with what `piece` was to make."""
    latents = latents.clone()
    latents[:, :, piece.target] = made[:, :, piece.new].to(latents)
    return latents
