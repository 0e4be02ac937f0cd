"""Generating with a model of the Wan family: what differs from our own is which backbone answers, and what it is shown."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinema.device import Precision, has_fast_bf16
from kinema.diffusion.canvas import Canvas, Network
from kinema.diffusion.schedule import shift_time
from kinema.errors import RequestError
from kinema.generate.pipeline import Pipeline
from kinema.generate.request import Plan
from kinema.models.dit import TIMESTEPS, DiT
from kinema.models.pixels import from_uint8
from kinema.models.vae import VAE
from kinema.shapes import Float
from kinema.wan.model import NEGATIVE_PROMPT, VARIANTS, Wan, fingerprint, load_wan_model

TOP, BOTTOM = 1 - 1e-6, 1e-3
"""Greatest and least time of Wan's grid before the last, 0: UniPC's log SNR is infinite at 1."""


@dataclass(frozen=True, eq=False)
class Images:
    """Frames that are given, uint8 (h, w, 3), as large as the canvas."""

    first: np.ndarray
    last: np.ndarray | None = None

    @property
    def all(self) -> list[np.ndarray]:
        """Those that are there, in order."""
        return [self.first] if self.last is None else [self.first, self.last]


class WanPipeline(Pipeline):
    """A model of the Wan family, ready to generate."""

    def __init__(self, wan: Wan, *, model: str, model_hash: str, precision: Precision = "auto") -> None:
        """All networks must be on one device. Raises `ModelError` when the parts do not fit together."""
        self.wan = wan
        super().__init__(wan.dit, wan.vae, wan.text, wan.manifest, model=model, model_hash=model_hash, precision=precision)
        self.has_token_times = wan.has_token_times
        self.images: Images | None = None

    def showing(self, first: np.ndarray, last: np.ndarray | None = None) -> "WanPipeline":
        """This pipeline for videos that begin with the frame `first` (and end with `last`), uint8 (h, w, 3) of the canvas's size.

        Raises `RequestError` when the model takes no image, or wants a last one too.
        """
        variant = VARIANTS[self.wan.variant]
        if not self.wan.takes_image and not self.wan.has_token_times:
            raise RequestError(f"{self.manifest.name} makes videos from words alone: leave the image out, or use an image-to-video model")
        if variant.last_image and last is None:
            raise RequestError(f"{self.manifest.name} joins a first and a last image: give both")
        if self.wan.has_token_times and last is not None:
            raise RequestError(f"{self.manifest.name} was trained with a first image only: leave the last one out")
        pipeline = copy.copy(self)
        pipeline.images = Images(first, last)
        return pipeline

    def backbones(self) -> dict[str, DiT]:
        """The expert for high noise (or the one backbone there is), and that for low noise."""
        return {"high": self.wan.dit} if self.wan.low_dit is None else {"high": self.wan.dit, "low": self.wan.low_dit}

    def times(self, plan: Plan) -> Float[Tensor, " u"]:
        """The times of the flow form of UniPC as Wan and diffusers visit them: as many as steps from 1 on, the next being 0.001, then 0."""
        # In double precision as there; the first is kept below 1 after the shift and not before it.
        even = torch.linspace(1.0, BOTTOM, plan.steps + 1, dtype=torch.float64)
        times = shift_time(even, plan.shift).clamp(max=TOP).to(torch.float32)
        times[-1] = 0
        return times

    def shown_times(self, t: Tensor) -> Tensor:
        """Whole timesteps: Wan's samplers cut the fraction off, so that its networks are told no other times at inference."""
        return torch.floor(TIMESTEPS * t) / TIMESTEPS

    def channels_in(self, vae: VAE) -> int:
        """Channels of the latents, and with an image beside them those of its latents and of its mask."""
        beside = vae.config.z_dim + vae.config.temporal_factor if self.wan.takes_image else 0
        return vae.config.z_dim + beside

    def empty_canvas(self, plan: Plan) -> Canvas:
        """The canvas on which nothing is known, or the first image where tokens have times of their own."""
        canvas = super().empty_canvas(plan)
        if self.images is None or not self.wan.has_token_times:
            return canvas
        latents = self.vae.encode(self._pixels([self.images.first], plan)).mean
        return canvas.paint_frames(self.vae.normalise(latents), 0)

    def network(self, plan: Plan) -> Network:
        """The guided estimate of x0, by the expert for the time at hand where there are two."""
        wan = self.wan
        if wan.takes_image and self.images is None:
            raise RequestError(f"{self.manifest.name} makes videos from an image: give the first frame")
        negative = plan.request.negative_prompt or NEGATIVE_PROMPT
        texts = self.clip.encode_prompts([plan.request.prompt, negative])
        states, beside = None, None
        if self.images is not None and wan.takes_image:
            beside = self.image_channels(self.images, plan)
            states = None if wan.images is None else wan.images.encode(self.images.all)
        high = self.guided(wan.dit, texts, plan, plan.guidance, images=states, beside=beside)
        if wan.low_dit is None:
            return high
        is_default = plan.guidance == self.manifest.guidance
        low_guidance = wan.low_guidance if is_default and wan.low_guidance is not None else plan.guidance
        low = self.guided(wan.low_dit, texts, plan, low_guidance, images=states, beside=beside)
        assert wan.boundary is not None, "a model of two experts has a boundary"
        return two_experts(high, low, wan.boundary, self.shown_times)

    def image_channels(self, images: Images, plan: Plan) -> Float[Tensor, "1 c2 lf lh lw"]:
        """What Wan shows beside the noisy latents: which frames are given, and the latents of a clip of these and grey.

        The mask has one channel for each of the frames of a latent; the first latent has one frame, whose mask fills them all.
        """
        height, width, factor = plan.canvas_height, plan.canvas_width, self.vae.config.temporal_factor
        clip = torch.zeros(1, 3, plan.canvas_frames, height, width, device=self.device)
        given = torch.zeros(plan.canvas_frames, device=self.device)
        places = [0, plan.canvas_frames - 1]
        for place, image in zip(places, images.all):
            clip[:, :, place : place + 1] = self._pixels([image], plan)
            given[place] = 1
        latents = self.vae.normalise(self.vae.encode(clip).mean)
        mask = torch.cat([given[:1].expand(factor), given[1:]]).view(-1, factor).T
        _, _, _, lh, lw = latents.shape
        return torch.cat([mask[None, :, :, None, None].expand(1, factor, -1, lh, lw), latents], dim=1)

    def _pixels(self, frames: list[np.ndarray], plan: Plan) -> Float[Tensor, "1 3 f h w"]:
        """Given frames in [-1, 1]. Raises `RequestError` for a size that is not the canvas's."""
        for frame in frames:
            if frame.shape != (plan.canvas_height, plan.canvas_width, 3):
                size = "x".join(map(str, frame.shape[1::-1]))
                raise RequestError(f"the image is {size} pixels; this video needs {plan.canvas_width}x{plan.canvas_height}")
        return from_uint8([np.stack(frames)]).to(self.device)


def two_experts(high: Network, low: Network, boundary: float, shown_times: Callable[[Tensor], Tensor]) -> Network:
    """The network that answers with `high` from the timestep `boundary * 1000` on, and with `low` below it (Wan 2.2)."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        now = float(TIMESTEPS * shown_times(t.max()))
        return (high if round(now) >= boundary * TIMESTEPS else low)(x, t)

    return network


def load_wan(path: Path, device: torch.device, precision: Precision = "auto") -> WanPipeline:
    """The pipeline of a model of the Wan family; its matrices are bfloat16 where that is fast, unless `precision` is fp32."""
    is_bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    wan = load_wan_model(path, device, torch.bfloat16 if is_bf16 else torch.float32)
    return WanPipeline(wan, model=str(path), model_hash=fingerprint(path), precision=precision)
