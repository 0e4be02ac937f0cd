"""Generating with a model of the Wan family: what differs from our own is which backbone answers, and what it is shown."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.families.wan.model import (
    IMAGE_FRAMES,
    NEGATIVE_PROMPT,
    VARIANTS,
    Offload,
    WanModel,
    file_fingerprint,
    load_wan_model,
)
from kinema.device import Precision, has_fast_bf16
from kinema.diffusion.canvas import Canvas, Network
from kinema.diffusion.schedules import time_grid
from kinema.errors import RequestError
from kinema.generation.conditioning.encode import EncodedConditions, encode_conditions, on_canvas
from kinema.generation.conditioning.layout import frame_span
from kinema.generation.job import Job
from kinema.generation.pipeline import OnStep, Pipeline, interval_of
from kinema.generation.plan import Plan
from kinema.generation.request import Request
from kinema.generation.sampling.windows import num_windows
from kinema.models.dit import TIMESTEPS, DiT
from kinema.models.vae import VAE
from kinema.shapes import Float

TOP, BOTTOM = 1 - 1e-6, 1e-3
"""Greatest and least time of Wan's grid before the last, 0: UniPC's log SNR is infinite at 1."""


@dataclass(frozen=True, eq=False)
class Images:
    """Frames that are given, uint8 (h, w, 3), as large as the video."""

    first: np.ndarray
    last: np.ndarray | None = None

    @property
    def all(self) -> list[np.ndarray]:
        """Those that are there, in order."""
        return [self.first] if self.last is None else [self.first, self.last]


class WanPipeline(Pipeline):
    """A model of the Wan family, ready to generate."""

    def __init__(self, wan: WanModel, *, model: str, model_hash: str, precision: Precision = "auto") -> None:
        """All networks must be on one device. Raises `ModelError` when the parts do not fit together."""
        self.wan = wan
        super().__init__(
            wan.dit, wan.vae, wan.text, wan.manifest, model=model, model_hash=model_hash, precision=precision
        )
        self.images: Images | None = None

    def showing(self, first: np.ndarray, last: np.ndarray | None = None) -> "WanPipeline":
        """This pipeline for videos that begin with the frame `first` (and end with `last`), uint8 (h, w, 3) of the video's size.

        Raises `RequestError` when the model takes no image, or wants a last one too.
        """
        variant = VARIANTS[self.wan.variant]
        if not self.wan.takes_image and not self.manifest.time_per_token:
            raise RequestError(
                f"{self.manifest.name} makes videos from words alone: leave the image out, or use an image-to-video model"
            )
        if variant.last_image and last is None:
            raise RequestError(f"{self.manifest.name} joins a first and a last image: give both")
        if self.manifest.time_per_token and last is not None:
            raise RequestError(
                f"{self.manifest.name} was trained with a first image only: leave the last one out"
            )
        pipeline = copy.copy(self)
        pipeline.images = Images(first, last)
        return pipeline

    def backbones(self) -> dict[str, DiT]:
        """The expert for high noise (or the one backbone there is), and that for low noise."""
        return (
            {"high": self.wan.dit}
            if self.wan.low_dit is None
            else {"high": self.wan.dit, "low": self.wan.low_dit}
        )

    def plan(self, request: Request) -> Plan:
        """What this model will do for `request`; raises `RequestError` for what it cannot do, an image that it lacks among that."""
        plan = super().plan(request)
        if self.wan.takes_image:
            self._check_images(plan)
        return plan

    def _check_images(self, plan: Plan) -> None:
        """Raise `RequestError` unless the places of a model that is shown images are a first picture and at most a last one."""
        name, places = self.manifest.name, plan.request.conditions
        ends = [frame_span(place, plan.frames, plan.fps)[0] for place in places]
        is_still = [
            place.seconds is None and place.strength == 0 and not place.is_limited for place in places
        ]
        if plan.request.loop or not all(is_still) or not set(ends) <= {0, plan.frames - 1}:
            raise RequestError(
                f"{name} makes a video from its first picture, and from its last: leave loops and other clips and pictures out"
            )
        if self.images is None and 0 not in ends:
            raise RequestError(f"{name} makes videos from an image: give the first frame")
        if self.images is not None and places:
            raise RequestError(f"{name} has been shown its images already: leave the request's pictures out")
        has_last = len(set(ends)) > 1 or (self.images is not None and self.images.last is not None)
        if VARIANTS[self.wan.variant].last_image and not has_last:
            raise RequestError(f"{name} joins a first and a last image: give both")
        if has_last and plan.canvas_frames != plan.frames:
            raise RequestError(f"{plan.frames} frames cannot end with an image: use {plan.canvas_frames}")
        if num_windows(plan) > 1:
            most = plan.temporal_factor * (plan.window - 1) + 1
            raise RequestError(
                f"{name} makes at most {most} frames of one prompt from an image, not {plan.frames}: ask for fewer"
            )

    @torch.inference_mode()
    def sample(
        self,
        plan: Plan,
        *,
        conditions: EncodedConditions | None = None,
        on_step: OnStep | None = None,
        job: Job | None = None,
    ) -> Float[Tensor, "c lf lh lw"]:
        """See `Pipeline.sample`. A backbone that is shown images beside the latents has nothing known on its canvas."""
        conditions = conditions if conditions is not None else encode_conditions(plan, {}, self.vae, self.device)
        if self.images is not None and not self.wan.takes_image:
            latents = self.vae.encode(self._pixels([self.images.first], plan)).mean
            conditions = replace(conditions, canvas=conditions.canvas.paint_frames(self.vae.normalise(latents), 0))
        elif self.images is None and self.wan.takes_image:
            pictures = [conditions.kept[frame].pixels for frame in sorted(conditions.kept)]
            freed = tuple(replace(place, strength=1.0) for place in plan.request.conditions)
            plan = replace(plan, request=replace(plan.request, conditions=freed))
            empty = EncodedConditions(Canvas.empty(tuple(conditions.canvas.clean.shape), device=self.device))
            return self.showing(*pictures).sample(plan, conditions=empty, on_step=on_step, job=job)
        return super().sample(plan, conditions=conditions, on_step=on_step, job=job)

    def times(self, plan: Plan, start: float) -> Float[Tensor, " u"]:
        """The times of the flow form of UniPC as Wan and diffusers visit them: as many as steps from 1 on, the next being 0.001, then 0."""
        # The first is kept below 1 after the shift and not before it.
        return time_grid(plan.steps, shift=plan.shift, start=start, bottom=BOTTOM).clamp(max=TOP)

    def shown_times(self, t: Tensor) -> Tensor:
        """Whole timesteps: Wan's samplers cut the fraction off, so that its networks are told no other times at inference."""
        return torch.floor(TIMESTEPS * t) / TIMESTEPS

    def channels_in(self, vae: VAE) -> int:
        """Channels of the latents, and with an image beside them those of its latents and of its mask."""
        beside = vae.config.z_dim + vae.config.temporal_factor if self.wan.takes_image else 0
        return vae.config.z_dim + beside

    def network(self, plan: Plan, prompt: str | None = None, *, first_frame: int = 0) -> Network:
        """The guided estimate of x0, by the expert for the time at hand where there are two."""
        wan = self.wan
        negative = plan.request.negative_prompt or NEGATIVE_PROMPT
        texts = self.clip.encode_prompts([plan.request.prompt if prompt is None else prompt, negative])
        states, beside = None, None
        if self.images is not None and wan.takes_image:
            beside = self.image_channels(self.images, plan)
            states = None if wan.images is None else wan.images.encode(self.images.all)
        guided = partial(
            self.guided, interval=interval_of(plan), first_frame=first_frame, images=states, beside=beside
        )
        high = guided(wan.dit, texts, plan.guidance)
        if wan.low_dit is None:
            return high
        is_default = plan.guidance == self.manifest.guidance
        low_guidance = wan.low_guidance if is_default and wan.low_guidance is not None else plan.guidance
        low = guided(wan.low_dit, texts, low_guidance)
        assert wan.boundary is not None, "a model of two experts has a boundary"
        return two_experts(high, low, wan.boundary, self.shown_times)

    def regime(self, plan: Plan, t: float) -> int:
        """As with one backbone, and 2 more where the expert for high noise answers."""
        is_high = self.wan.boundary is not None and is_above(
            torch.tensor(t), self.wan.boundary, self.shown_times
        )
        return super().regime(plan, t) + 2 * is_high

    def image_channels(self, images: Images, plan: Plan) -> Float[Tensor, "1 c2 lf lh lw"]:
        """What Wan shows beside the noisy latents: which frames are given, and the latents of a clip of these and grey.

        The mask has one channel for each of the frames of a latent; the first latent has one frame, whose mask fills them all.
        """
        height, width, factor = plan.canvas_height, plan.canvas_width, self.vae.config.temporal_factor
        given = torch.zeros(plan.canvas_frames, device=self.device)
        shown = dict(zip((0, plan.canvas_frames - 1), images.all))

        def clip() -> Iterator[Tensor]:
            for start in range(0, plan.canvas_frames, IMAGE_FRAMES):
                piece = torch.zeros(
                    1, 3, min(IMAGE_FRAMES, plan.canvas_frames - start), height, width, device=self.device
                )
                for place, image in shown.items():
                    if 0 <= place - start < piece.shape[2]:
                        piece[:, :, place - start : place - start + 1] = self._pixels([image], plan)
                yield piece

        given[list(shown)] = 1
        encoded = [posterior.mean for posterior in self.vae.stream_encode(clip(), at_once=IMAGE_FRAMES)]
        latents = self.vae.normalise(torch.cat(encoded, dim=2))
        mask = torch.cat([given[:1].expand(factor), given[1:]]).view(-1, factor).T
        _, _, _, lh, lw = latents.shape
        return torch.cat([mask[None, :, :, None, None].expand(1, factor, -1, lh, lw), latents], dim=1)

    def _pixels(self, frames: list[np.ndarray], plan: Plan) -> Float[Tensor, "1 3 f h w"]:
        """Given frames on the canvas, in [-1, 1]. Raises `RequestError` for a size that is not the video's."""
        for frame in frames:
            if frame.shape != (plan.height, plan.width, 3):
                size = "x".join(map(str, frame.shape[1::-1]))
                raise RequestError(f"the image is {size} pixels; this video needs {plan.width}x{plan.height}")
        return on_canvas(np.stack(frames), plan).to(self.device)


def two_experts(
    high: Network, low: Network, boundary: float, shown_times: Callable[[Tensor], Tensor]
) -> Network:
    """The network that answers with `high` from the timestep `boundary * 1000` on, and with `low` below it (Wan 2.2)."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        return (high if is_above(t.max(), boundary, shown_times) else low)(x, t)

    return network


def is_above(t: Tensor, boundary: float, shown_times: Callable[[Tensor], Tensor]) -> bool:
    """Whether the time `t` is one of the expert for high noise."""
    return round(float(TIMESTEPS * shown_times(t))) >= boundary * TIMESTEPS


def dtype_for(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype of the matrices: bfloat16 where that is fast, unless `precision` says."""
    is_bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    return torch.bfloat16 if is_bf16 else torch.float32


def load_wan(
    path: Path, device: torch.device, precision: Precision = "auto", offload: Offload = "text"
) -> WanPipeline:
    """The pipeline of a model of the Wan family; see `dtype_for` and `load_wan_model`."""
    wan = load_wan_model(path, device, dtype_for(device, precision), offload=offload)
    return WanPipeline(wan, model=str(path), model_hash=file_fingerprint(path), precision=precision)
