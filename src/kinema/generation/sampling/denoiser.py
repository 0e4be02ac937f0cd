"""The denoiser of a model: the guided estimate of x0 by its backbones, composed when the model is loaded.

model and plan -> GuidedRun -> Network
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from kinema.checkpoints.families.base import Expert, LoadedModel, SamplingRules
from kinema.checkpoints.manifest import Manifest
from kinema.device import Precision, autocast
from kinema.diffusion.canvas import Network
from kinema.diffusion.guidance import JOINT_TOKENS, classifier_free
from kinema.diffusion.objectives import Prediction, to_x0
from kinema.diffusion.schedules import SCHEDULES, Schedule, time_grid
from kinema.errors import ModelError
from kinema.generation.plan import Plan
from kinema.generation.sampling.picture_channels import PictureChannels
from kinema.models.autoencoder import Autoencoder
from kinema.models.backbone import Backbone
from kinema.models.conditioning import Conditioning, TextEncoder, TextStates
from kinema.models.dit import TIMESTEPS
from kinema.nn.attention import attention_kernel
from kinema.registry import lookup
from kinema.shapes import Float

Halves = tuple[Any, Any, Any]
"""What a backbone prepared with the prompts, with the negative prompts, and with both in one batch."""
FIRST_TIME_OF_NOISE = 0.999
"""First sampling time of a model that predicts noise, whose x0 is undefined at t = 1 (as in diffusers)."""


@dataclass(frozen=True, eq=False)
class Denoiser:
    """The guided estimate of x0 by one backbone, or by two experts that share the sampling times.

    Matrix products have `precision`, and attention uses the kernel `attention`
    (`kinema.nn.attention.ATTENTION_KERNELS`): both apply inside the calls of the networks only.
    """

    backbones: Mapping[Expert, Backbone]
    text_encoder: TextEncoder
    manifest: Manifest
    rules: SamplingRules
    pictures: PictureChannels | None = None
    """The picture input of the backbones, beside the canvas."""
    size_vector: Callable[[int, int], Sequence[float]] | None = None
    """See `LoadedModel`."""
    precision: Precision = "auto"
    attention: str = "auto"

    @classmethod
    def of(cls, model: LoadedModel, *, precision: Precision = "auto", attention: str = "auto") -> "Denoiser":
        """The denoiser of a loaded model. Raises `ModelError` if its components do not fit together."""
        pictures = PictureChannels.of(model)
        denoiser = cls(
            model.backbones,
            model.text_encoder,
            model.manifest,
            model.rules,
            pictures,
            model.size_vector,
            precision,
            attention,
        )
        check_components(denoiser, model.vae)
        return denoiser

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of the model."""
        return lookup(SCHEDULES, self.manifest.schedule, kind="noise schedule")()

    @property
    def device(self) -> torch.device:
        """The device of the backbones."""
        return next(cast(nn.Module, self.backbones["high"]).parameters()).device

    def check(self, plan: Plan) -> None:
        """Raise `RequestError` for a plan with other conditions than the backbones take."""
        if self.pictures is not None:
            self.pictures.check(plan, self.manifest.name)

    def times(self, plan: Plan, start: float) -> Float[Tensor, " u"]:
        """The sampler's times for a canvas whose tokens start at noise level `start` or below.

        The first time is limited after the shift, not before it (as in Wan and diffusers).
        """
        if self.rules.grid is not None:
            return self.rules.grid.times(plan.steps, start=start)
        top = FIRST_TIME_OF_NOISE if self.manifest.prediction == "noise" else 1.0
        times = time_grid(plan.steps, shift=plan.shift, start=start, top=top, bottom=self.rules.last_time)
        return times.clamp(max=self.rules.highest_time)

    def model_times(self, t: Tensor) -> Tensor:
        """The times that the backbones receive for the sampler's times `t`."""
        return torch.floor(TIMESTEPS * t) / TIMESTEPS if self.rules.whole_timesteps else t

    def expert(self, t: Tensor) -> Expert:
        """The backbone that makes the estimate where the highest time of a token is `t` (Wan 2.2)."""
        boundary = self.rules.boundary
        if boundary is None or round(float(TIMESTEPS * self.model_times(t))) >= boundary * TIMESTEPS:
            return "high"
        return "low"

    def regime(self, plan: Plan, t: float) -> int:
        """An id of the networks that make the estimate at time `t`, so that forecasts do not mix them."""
        low, high = interval_of(plan)
        has_experts = len(self.backbones) > 1
        return int(low <= t <= high) + 2 * (has_experts and self.expert(torch.tensor(t)) == "high")

    def for_run(self, plans: Sequence[Plan], pictures: Sequence[Sequence[np.ndarray]]) -> "GuidedRun":
        """The networks of a run that samples the videos of `plans` as one batch.

        `pictures` holds for each plan the frames that are given, uint8 (h, w, 3) of the video's size, in
        order. They are encoded here, once.
        """
        if self.pictures is None:
            return GuidedRun(self, tuple(plans))
        with self.computing():
            pairs = zip(pictures, plans, strict=True)
            channels = [self.pictures.channels(own, plan, self.device) for own, plan in pairs]
            states = [given for own in pictures if (given := self.pictures.states(own)) is not None]
        images = TextStates.cat(states) if states else None
        return GuidedRun(self, tuple(plans), torch.cat(channels), images)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The precision and the attention kernel of the networks."""
        with autocast(self.device, self.precision), attention_kernel(self.attention):
            yield


@dataclass(frozen=True, eq=False)
class GuidedRun:
    """The networks of one run. What they prepare for a prompt is kept for the next windows with it."""

    denoiser: Denoiser
    plans: tuple[Plan, ...]
    channels: Float[Tensor, "b c2 lf lh lw"] | None = None
    """What is concatenated to the latents of each video."""
    images: TextStates | None = None
    """Hidden states of the pictures of each video."""
    _prepared: dict[tuple[str, ...], dict[Expert, Halves]] = field(default_factory=dict, init=False)

    def network(self, prompts: Sequence[str], *, first_frame: int = 0) -> Network:
        """The guided estimate of x0 with one prompt for each plan.

        `first_frame` is the time coordinate of the first latent frame. Raises `RequestError` for a prompt
        that is too long.
        """
        key = tuple(prompts)
        if key not in self._prepared:
            self._prepared.clear()  # the keys and values of one prompt can take gigabytes
            self._prepared[key] = self._prepare(prompts)

        prepared = self._prepared[key].items()
        experts = {name: self._guided(name, halves, first_frame) for name, halves in prepared}
        if len(experts) == 1:
            return experts["high"]
        return lambda x, t: experts[self.denoiser.expert(t.max())](x, t)

    def _prepare(self, prompts: Sequence[str]) -> dict[Expert, Halves]:
        """The conditioning of all prompts, prepared by every backbone."""
        # Without a negative prompt, guidance moves away from the empty text, which stood for dropped
        # captions in training.
        rules = self.denoiser.rules
        negative = [plan.request.negative_prompt or rules.negative_prompt for plan in self.plans]
        with self.denoiser.computing():
            texts = self.denoiser.text_encoder.encode_prompts([*prompts, *negative]).split()
            halves = [
                Conditioning(TextStates.cat(half), self.images, self._vectors(), channels=self.channels)
                for half in (texts[: len(prompts)], texts[len(prompts) :])
            ]
            both = Conditioning.cat(halves)
            return {
                name: (backbone.prepare(halves[0]), backbone.prepare(halves[1]), backbone.prepare(both))
                for name, backbone in self.denoiser.backbones.items()
            }

    def _vectors(self) -> Float[Tensor, "b v"] | None:
        """The vector of each video that depends on its size."""
        size_vector = self.denoiser.size_vector
        if size_vector is None:
            return None
        rows = [list(size_vector(plan.canvas_height, plan.canvas_width)) for plan in self.plans]
        return torch.tensor(rows, device=self.denoiser.device)

    def _guided(self, name: Expert, halves: Halves, first_frame: int) -> Network:
        """The estimate of x0 by one backbone, guided at the times of the plans' interval."""
        denoiser, backbone = self.denoiser, self.denoiser.backbones[name]
        conditional, unconditional, both = halves

        def estimate(x: Tensor, t: Tensor, prepared: Any) -> Tensor:
            """The estimate of x0 at one time per token, in float32."""
            with denoiser.computing():
                output = backbone.predict(x, denoiser.model_times(t), prepared, first_frame)
            prediction = cast(Prediction, denoiser.manifest.prediction)
            return to_x0(prediction, output.float(), x, t, denoiser.schedule)

        def pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            if x[:, 0].numel() // prod(backbone.patch) > JOINT_TOKENS:
                return estimate(x, t, conditional), estimate(x, t, unconditional)
            with_prompt, without = estimate(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            return with_prompt, without

        return classifier_free(
            partial(estimate, prepared=conditional),
            partial(estimate, prepared=unconditional),
            self.guidance(name),
            interval=interval_of(self.plans[0]),
            pair=pair,
        )

    def guidance(self, name: Expert) -> float | Tensor:
        """The scale of guidance of a backbone: one for all plans, or one for each."""
        manifest, own = self.denoiser.manifest, self.denoiser.rules.low_guidance
        scales = [
            own if name == "low" and own is not None and plan.guidance == manifest.guidance else plan.guidance
            for plan in self.plans
        ]
        if len(set(scales)) == 1:
            return scales[0]
        return torch.tensor(scales, device=self.denoiser.device).view(-1, 1, 1, 1, 1)


def interval_of(plan: Plan) -> tuple[float, float]:
    """Lowest and highest time with guidance."""
    return plan.request.guidance_interval or (0.0, 1.0)


def check_components(denoiser: Denoiser, vae: Autoencoder) -> None:
    """Raise `ModelError` if the components of a model do not fit together."""
    manifest, pictures = denoiser.manifest, denoiser.pictures
    needed = vae.config.z_dim + (0 if pictures is None else pictures.num_channels)
    wrong = []
    for backbone in denoiser.backbones.values():
        pairs = {
            "the backbone's in_channels and its input channels": (backbone.in_channels, needed),
            "the backbone's out_channels and the VAE's z_dim": (backbone.out_channels, vae.config.z_dim),
            "the backbone's text_width and the text encoder's": (
                backbone.text_width,
                denoiser.text_encoder.text_width,
            ),
        }
        wrong += [f"{what} are {left} and {right}" for what, (left, right) in pairs.items() if left != right]
        if backbone.patch[0] != 1:
            wrong.append(
                f"the backbone's patches are {backbone.patch[0]} latent frames long, but a canvas may have "
                "any number of them"
            )
        if manifest.time_per_token and not backbone.time_per_token:
            wrong.append("the manifest has one time per token, and the backbone one per clip")
    if manifest.side_multiple % vae.config.spatial_factor:
        wrong.append(
            f"sides are multiples of {manifest.side_multiple} pixels, but a latent of the VAE has "
            f"{vae.config.spatial_factor}"
        )
    if wrong:
        raise ModelError(f"the components of {manifest.name} do not fit together: {'; '.join(wrong)}")
