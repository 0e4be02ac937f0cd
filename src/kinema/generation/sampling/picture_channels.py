"""Pictures in channels of their own: how a backbone receives the first and last picture of a video beside the
noisy latents (Wan image-to-video; Wan Team 2025, section 5.1).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.families.base import LoadedModel
from kinema.errors import RequestError
from kinema.generation.conditioning.encode import on_canvas
from kinema.generation.conditioning.layout import frame_span
from kinema.generation.plan import Plan
from kinema.models.autoencoder import Autoencoder
from kinema.models.conditioning import TextStates
from kinema.shapes import Float

PIECE_FRAMES = 8
"""Frames per piece of a clip of pictures and grey: encoding all 81 at once would take tens of gigabytes."""


@dataclass(frozen=True, eq=False)
class PictureChannels:
    """The picture input of a backbone: channels beside the latents, and perhaps hidden states."""

    vae: Autoencoder
    needs_last: bool = False
    encode_states: Callable[[list[np.ndarray]], TextStates] | None = None

    @classmethod
    def of(cls, model: LoadedModel) -> "PictureChannels | None":
        """The picture input of a model, or None if its pictures are painted on the canvas."""
        if not model.manifest.pictures_in_channels:
            return None
        return cls(model.vae, model.rules.needs_last_picture, model.encode_pictures)

    @property
    def num_channels(self) -> int:
        """Channels beside the latents: the pictures' latents, and their mask for each frame of a latent."""
        return self.vae.config.z_dim + self.vae.config.temporal_factor

    def check(self, plan: Plan, name: str) -> None:
        """Raise `RequestError` unless the conditions of `plan` are a first picture and at most a last one."""
        conditions = plan.request.conditions
        firsts = {frame_span(condition, plan.frames, plan.fps)[0] for condition in conditions}
        are_stills = all(
            condition.seconds is None and condition.strength == 0 and not condition.is_limited
            for condition in conditions
        )
        if plan.request.loop or not are_stills or not firsts <= {0, plan.frames - 1}:
            raise RequestError(
                f"{name} generates a video from its first picture, and from its last: "
                f"leave loops and other clips and pictures out"
            )
        if 0 not in firsts:
            raise RequestError(f"{name} makes videos from an image: give the first frame")

        has_last = len(firsts) > 1
        if self.needs_last and not has_last:
            raise RequestError(f"{name} joins a first and a last image: give both")
        if has_last and plan.canvas_frames != plan.frames:
            raise RequestError(f"{plan.frames} frames cannot end with an image: use {plan.canvas_frames}")

        if len(plan.windows) > 1:
            longest = plan.temporal_factor * (plan.window - 1) + 1
            raise RequestError(
                f"{name} makes at most {longest} frames of one prompt from an image, not {plan.frames}: "
                "ask for fewer"
            )

    def states(self, pictures: Sequence[np.ndarray]) -> TextStates | None:
        """Hidden states of uint8 pictures (h, w, 3), for a backbone that attends to them."""
        return None if self.encode_states is None else self.encode_states(list(pictures))

    def channels(
        self, pictures: Sequence[np.ndarray], plan: Plan, device: torch.device
    ) -> Float[Tensor, "1 c2 lf lh lw"]:
        """A mask of the given frames, and the latents of a clip of `pictures` on grey.

        `pictures` are the first frame and perhaps the last, uint8 (h, w, 3) of the video's size. The mask has
        one channel for each frame of a latent. The first latent has one frame, whose mask fills all channels.
        """
        height, width, factor = plan.canvas_height, plan.canvas_width, self.vae.config.temporal_factor
        by_frame = dict(zip((0, plan.canvas_frames - 1), pictures))

        def pieces() -> Iterator[Tensor]:
            for start in range(0, plan.canvas_frames, PIECE_FRAMES):
                length = min(PIECE_FRAMES, plan.canvas_frames - start)
                piece = torch.zeros(1, 3, length, height, width, device=device)
                for frame, picture in by_frame.items():
                    if 0 <= frame - start < length:
                        piece[:, :, frame - start : frame - start + 1] = on_canvas(picture[None], plan)
                yield piece

        encoded = [posterior.mean for posterior in self.vae.stream_encode(pieces(), at_once=PIECE_FRAMES)]
        latents = self.vae.normalise(torch.cat(encoded, dim=2))

        given = torch.zeros(plan.canvas_frames, device=device)
        given[list(by_frame)] = 1
        mask = torch.cat([given[:1].expand(factor), given[1:]]).view(-1, factor).T
        _, _, _, lh, lw = latents.shape
        return torch.cat([mask[None, :, :, None, None].expand(1, factor, -1, lh, lw), latents], dim=1)
