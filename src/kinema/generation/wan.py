"""Generation with models of the Wan family, which differ in their experts, their sampling times and their
image inputs."""

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
from kinema.device import Precision, uses_bf16
from kinema.diffusion.canvas import Canvas, Network
from kinema.diffusion.schedules import time_grid
from kinema.errors import RequestError
from kinema.generation.conditioning.encode import EncodedConditions, encode_conditions, on_canvas
from kinema.generation.conditioning.layout import frame_span
from kinema.generation.job import Job
from kinema.generation.pipeline import Pipeline, interval_of
from kinema.generation.plan import Plan
from kinema.generation.request import Request
from kinema.generation.result import OnStep
from kinema.generation.sampling.windows import num_windows
from kinema.models.dit import TIMESTEPS, DiT
from kinema.models.vae import VAE
from kinema.shapes import Float

TOP, BOTTOM = 1 - 1e-6, 1e-3
"""Highest time of Wan's grid, and the lowest before 0: UniPC's log SNR is infinite at 1."""


@dataclass(frozen=True, eq=False)
class EndImages:
    """The given first frame of a video, and perhaps its last: uint8 (h, w, 3) of the video's size."""

    first: np.ndarray
    last: np.ndarray | None = None

    @property
    def all(self) -> list[np.ndarray]:
        """The given frames in order."""
        return [self.first] if self.last is None else [self.first, self.last]


class WanPipeline(Pipeline):
    """A model of the Wan family that is ready to generate."""

    def __init__(self, wan: WanModel, *, model: str, model_hash: str, precision: Precision = "auto") -> None:
        """All networks must be on one device. Raises `ModelError` if the components do not fit together."""
        self.wan = wan
        super().__init__(
            wan.dit, wan.vae, wan.text, wan.manifest, model=model, model_hash=model_hash, precision=precision
        )
        self.images: EndImages | None = None

    def with_images(self, first: np.ndarray, last: np.ndarray | None = None) -> "WanPipeline":
        """This pipeline for videos that begin with the frame `first` (and end with `last`), uint8 (h, w, 3)
        of the video's size.

        Raises `RequestError` if the model takes no image, or needs a last one too.
        """
        variant = VARIANTS[self.wan.variant]
        if not self.wan.takes_image and not self.manifest.time_per_token:
            raise RequestError(
                f"{self.manifest.name} generates from prompts alone: leave the image out, or use an "
                "image-to-video model"
            )
        if variant.last_image and last is None:
            raise RequestError(f"{self.manifest.name} joins a first and a last image: give both")
        if self.manifest.time_per_token and last is not None:
            raise RequestError(
                f"{self.manifest.name} was trained with a first image only: leave the last one out"
            )

        pipeline = copy.copy(self)
        pipeline.images = EndImages(first, last)
        return pipeline

    def backbones(self) -> dict[str, DiT]:
        """The expert for high noise (or the only backbone), and the one for low noise."""
        if self.wan.low_dit is None:
            return {"high": self.wan.dit}
        return {"high": self.wan.dit, "low": self.wan.low_dit}

    def plan(self, request: Request) -> Plan:
        """What this model will do for `request`. Raises `RequestError` for what it cannot do, a missing image
        included."""
        plan = super().plan(request)
        if self.wan.takes_image:
            self._check_images(plan)
        return plan

    def _check_images(self, plan: Plan) -> None:
        """Raise `RequestError` unless the conditions of an image-to-video model are a first picture and at
        most a last one."""
        name, conditions = self.manifest.name, plan.request.conditions
        firsts = {frame_span(condition, plan.frames, plan.fps)[0] for condition in conditions}
        is_still = [
            condition.seconds is None and condition.strength == 0 and not condition.is_limited
            for condition in conditions
        ]
        if plan.request.loop or not all(is_still) or not firsts <= {0, plan.frames - 1}:
            raise RequestError(
                f"{name} generates a video from its first picture, and from its last: "
                f"leave loops and other clips and pictures out"
            )
        if self.images is None and 0 not in firsts:
            raise RequestError(f"{name} makes videos from an image: give the first frame")
        if self.images is not None and conditions:
            raise RequestError(f"{name} already has its images: leave the request's pictures out")

        has_last = len(firsts) > 1 or (self.images is not None and self.images.last is not None)
        if VARIANTS[self.wan.variant].last_image and not has_last:
            raise RequestError(f"{name} joins a first and a last image: give both")
        if has_last and plan.canvas_frames != plan.frames:
            raise RequestError(f"{plan.frames} frames cannot end with an image: use {plan.canvas_frames}")

        if num_windows(plan) > 1:
            longest = plan.temporal_factor * (plan.window - 1) + 1
            raise RequestError(
                f"{name} makes at most {longest} frames of one prompt from an image, not {plan.frames}: "
                "ask for fewer"
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
        """See `Pipeline.sample`. The canvas of an image-to-video model is empty: its images are concatenated
        to the latents."""
        if conditions is None:
            conditions = encode_conditions(plan, {}, self.vae, self.device)

        if self.images is not None and not self.wan.takes_image:
            latents = self.vae.encode(self._pixels([self.images.first], plan)).mean
            canvas = conditions.canvas.paint_frames(self.vae.normalise(latents), 0)
            conditions = replace(conditions, canvas=canvas)
        elif self.images is None and self.wan.takes_image:
            pictures = [conditions.kept[frame].pixels for frame in sorted(conditions.kept)]
            free = tuple(replace(condition, strength=1.0) for condition in plan.request.conditions)
            free_plan = super().plan(replace(plan.request, conditions=free))
            empty = EncodedConditions(Canvas.empty(tuple(conditions.canvas.clean.shape), device=self.device))
            pipeline = self.with_images(*pictures)
            return pipeline.sample(free_plan, conditions=empty, on_step=on_step, job=job)
        return super().sample(plan, conditions=conditions, on_step=on_step, job=job)

    def times(self, plan: Plan, start: float) -> Float[Tensor, " u"]:
        """The times of the flow form of UniPC in Wan and diffusers: `plan.steps` times from 1 on, then 0.001,
        then 0."""
        # The first time is limited to below 1 after the shift, not before it.
        return time_grid(plan.steps, shift=plan.shift, start=start, bottom=BOTTOM).clamp(max=TOP)

    def model_times(self, t: Tensor) -> Tensor:
        """Whole timesteps: Wan's samplers truncate them, so its networks receive no others at inference."""
        return torch.floor(TIMESTEPS * t) / TIMESTEPS

    def channels_in(self, vae: VAE) -> int:
        """Channels of the latents, and for an image-to-video model those of the image latents and of their
        mask."""
        image = vae.config.z_dim + vae.config.temporal_factor if self.wan.takes_image else 0
        return vae.config.z_dim + image

    def network(self, plan: Plan, prompt: str | None = None, *, first_frame: int = 0) -> Network:
        """The guided estimate of x0. A model of two experts uses the one for the current time."""
        wan = self.wan
        negative = plan.request.negative_prompt or NEGATIVE_PROMPT
        texts = self.clip.encode_prompts([plan.request.prompt if prompt is None else prompt, negative])
        states, channels = None, None
        if self.images is not None and wan.takes_image:
            channels = self.image_channels(self.images, plan)
            states = None if wan.images is None else wan.images.encode(self.images.all)

        guided = partial(
            self.guided,
            interval=interval_of(plan),
            first_frame=first_frame,
            images=states,
            image_channels=channels,
        )
        high = guided(wan.dit, texts, plan.guidance)
        if wan.low_dit is None:
            return high

        is_default = plan.guidance == self.manifest.guidance
        low_guidance = wan.low_guidance if is_default and wan.low_guidance is not None else plan.guidance
        low = guided(wan.low_dit, texts, low_guidance)
        assert wan.boundary is not None, "a model of two experts has a boundary"
        return two_experts(high, low, wan.boundary, self.model_times)

    def regime(self, plan: Plan, t: float) -> int:
        """The id of `Pipeline.regime`, plus 2 where the expert for high noise makes the estimate."""
        boundary = self.wan.boundary
        is_high = boundary is not None and is_high_noise(torch.tensor(t), boundary, self.model_times)
        return super().regime(plan, t) + 2 * is_high

    def image_channels(self, images: EndImages, plan: Plan) -> Float[Tensor, "1 c2 lf lh lw"]:
        """The channels that Wan concatenates to the noisy latents: a mask of the given frames, and the
        latents of a clip of these frames on grey.

        The mask has one channel for each frame of a latent. The first latent has one frame, whose mask fills
        all channels.
        """
        height, width, factor = plan.canvas_height, plan.canvas_width, self.vae.config.temporal_factor
        by_frame = dict(zip((0, plan.canvas_frames - 1), images.all))

        def chunks() -> Iterator[Tensor]:
            for start in range(0, plan.canvas_frames, IMAGE_FRAMES):
                length = min(IMAGE_FRAMES, plan.canvas_frames - start)
                chunk = torch.zeros(1, 3, length, height, width, device=self.device)
                for frame, image in by_frame.items():
                    if 0 <= frame - start < length:
                        chunk[:, :, frame - start : frame - start + 1] = self._pixels([image], plan)
                yield chunk

        encoded = [posterior.mean for posterior in self.vae.stream_encode(chunks(), at_once=IMAGE_FRAMES)]
        latents = self.vae.normalise(torch.cat(encoded, dim=2))

        given = torch.zeros(plan.canvas_frames, device=self.device)
        given[list(by_frame)] = 1
        mask = torch.cat([given[:1].expand(factor), given[1:]]).view(-1, factor).T
        _, _, _, lh, lw = latents.shape
        return torch.cat([mask[None, :, :, None, None].expand(1, factor, -1, lh, lw), latents], dim=1)

    def _pixels(self, frames: list[np.ndarray], plan: Plan) -> Float[Tensor, "1 3 f h w"]:
        """Given frames on the canvas, in [-1, 1]. Raises `RequestError` for a size that is not the
        video's."""
        for frame in frames:
            if frame.shape != (plan.height, plan.width, 3):
                size = "x".join(map(str, frame.shape[1::-1]))
                raise RequestError(f"the image is {size} pixels; this video needs {plan.width}x{plan.height}")
        return on_canvas(np.stack(frames), plan).to(self.device)


def two_experts(
    high: Network, low: Network, boundary: float, model_times: Callable[[Tensor], Tensor]
) -> Network:
    """A network that uses `high` from the timestep `boundary * 1000` on, and `low` below it (Wan 2.2)."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        return (high if is_high_noise(t.max(), boundary, model_times) else low)(x, t)

    return network


def is_high_noise(t: Tensor, boundary: float, model_times: Callable[[Tensor], Tensor]) -> bool:
    """Whether the expert for high noise makes the estimate at time `t`."""
    return round(float(TIMESTEPS * model_times(t))) >= boundary * TIMESTEPS


def dtype_for(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype of the weight matrices: the one that `precision` names, or bfloat16 where it is fast."""
    return torch.bfloat16 if uses_bf16(device, precision) else torch.float32


def load_wan(
    path: Path, device: torch.device, precision: Precision = "auto", offload: Offload = "text"
) -> WanPipeline:
    """The pipeline of a model of the Wan family. See `load_wan_model` for `offload` and the errors."""
    wan = load_wan_model(path, device, dtype_for(device, precision), offload=offload)
    return WanPipeline(wan, model=str(path), model_hash=file_fingerprint(path), precision=precision)
