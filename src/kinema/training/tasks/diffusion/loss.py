"""The loss of a backbone on clips of any sizes, packed into one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor

from kinema.diffusion.objectives import Prediction, TimestepSampling, add_noise, draw_times, target
from kinema.diffusion.schedules import SCHEDULES, Schedule
from kinema.distributed.ranks import Share
from kinema.models.backbone import Backbone
from kinema.models.conditioning import Conditioning
from kinema.models.patches import Patch
from kinema.registry import lookup
from kinema.shapes import Bool, Float
from kinema.training.canvas_mix import CANVAS_TASKS, CanvasMix

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""From a number and a generator to that many training times in (0, 1]."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise schedule, the prediction target, and the distribution of the training timesteps."""

    schedule: str = "linear"
    prediction: Prediction = "velocity"
    timestep_sampling: TimestepSampling = "logit_normal"
    timestep_shift: float = 1.0

    def __post_init__(self) -> None:
        lookup(SCHEDULES, self.schedule, kind="noise schedule")

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` training times in (0, 1]."""
        return draw_times(count, generator, sampling=self.timestep_sampling, shift=self.timestep_shift)

    def make_schedule(self) -> Schedule:
        """The noise schedule."""
        return lookup(SCHEDULES, self.schedule, kind="noise schedule")()


class LatentGroup(NamedTuple):
    """Clips of one size whose noise is drawn together, on the CPU.

    `first_frame` is the time coordinate of the first latent: 0 for an image latent, >= 1 for the window of a
    longer video. `tails` holds the last `tail_lengths[i]` latents of clip i, right-aligned, as they are
    encoded as the known end of a canvas.
    """

    latents: Float[Tensor, "b z lf lh lw"]
    first_frame: int = 0
    tails: Float[Tensor, "b z tail lh lw"] | None = None
    tail_lengths: Tensor | None = None


class Canvases(NamedTuple):
    """What a group of clips shows the network: the known latents, the content of the known ones and each
    latent's time."""

    known: Bool[Tensor, "b 1 lf lh lw"]
    clean: Float[Tensor, "b z lf lh lw"]
    times: Float[Tensor, "b 1 lf lh lw"]
    tasks: list[str]


def draw_canvases(
    group: LatentGroup, mix: CanvasMix, draw: DrawTimes, patch: Patch, generator: torch.Generator
) -> Canvases:
    """A canvas task for each clip of a group. `known` is constant within a patch."""
    x0 = group.latents
    b, _, lf, lh, lw = x0.shape
    clean, known = x0.clone(), torch.zeros(b, 1, lf, lh, lw, dtype=torch.bool)
    t = rearrange(draw(b, generator), "b -> b 1 1 1 1").expand(b, 1, lf, lh, lw).clone()

    tasks = [mix.draw(generator, is_window=group.first_frame > 0) for _ in range(b)]
    for i, task in enumerate(tasks):
        mask = CANVAS_TASKS[task]((lf // patch[0], -(-lh // patch[1]), -(-lw // patch[2])), generator)
        for axis, size in enumerate(patch):
            mask = mask.repeat_interleave(size, dim=axis)
        known[i, 0] = mask[:lf, :lh, :lw]

        if task == "noise_per_frame":
            t[i, 0] = rearrange(draw(lf, generator), "lf -> lf 1 1")
        if task in ("ending", "both_ends") and group.tails is not None and group.tail_lengths is not None:
            tail = int(group.tail_lengths[i])
            if tail and bool(known[i, 0, -tail:].all()) and not bool(known[i, 0, -tail - 1].all()):
                clean[i, :, -tail:] = group.tails[i, :, -tail:]
    return Canvases(known, clean, t, tasks)


def packed_loss(
    backbone: Backbone,
    groups: Sequence[LatentGroup],
    conditioning: Conditioning,
    config: DiffusionConfig,
    mix: CanvasMix,
    draw: DrawTimes,
    generator: torch.Generator,
    share: Share,
) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """Mean squared error of the prediction over the unknown latents of all clips, each latent with equal
    weight. The metric `text` is the error of the text-to-video clips.

    `groups` are the clips of all ranks. Every rank draws the canvases and the noise of all of them, as one
    rank does, and predicts those of its `share`. `conditioning` has an entry for each clip of the share. The
    mean of the results over all ranks is the error of the whole batch.
    """
    device, schedule = conditioning.text.states.device, config.make_schedule()
    noisy: list[Tensor] = []
    times: list[Tensor] = []
    unknown: list[Tensor] = []
    wanted: list[Tensor] = []
    tasks: list[str] = []
    num_unknown = 0

    for group in groups:
        known, clean, t, drawn = draw_canvases(group, mix, draw, backbone.patch, generator)
        noise = torch.randn(group.latents.shape, generator=generator)
        num_unknown += int((~known).sum())

        own = [i for i in range(len(drawn)) if len(tasks) + i in share.clips]
        parts = (group.latents, noise, known, clean, t)
        x0, noise, known, clean, t = (
            (part if len(own) == len(drawn) else part[own]).to(device) for part in parts
        )
        noisy += torch.where(known, clean, add_noise(x0, noise, t, schedule))
        times += t.masked_fill(known, 0)
        unknown += ~known
        wanted += target(config.prediction, x0, noise, t, schedule)
        tasks += drawn

    first_frames = [group.first_frame for group in groups for _ in group.latents]
    own_frames = [first_frames[i] for i in share.clips]
    outputs = backbone.predict_packed(noisy, times, conditioning.split(), own_frames)
    errors = [
        reduce((output.float() - each).square(), "c lf lh lw -> 1 lf lh lw", "mean")
        for output, each in zip(outputs, wanted, strict=True)
    ]

    total = torch.stack([(error * mask).sum() for error, mask in zip(errors, unknown)]).sum()
    scale = share.num_shares if share.counts else 0
    loss = scale * total / max(1, num_unknown)
    num_text = tasks.count("text")
    if not num_text:
        return loss, {}
    from_text = [
        error.detach().mean() if tasks[i] == "text" else error.new_zeros(())
        for i, error in zip(share.clips, errors)
    ]
    return loss, {"text": scale * torch.stack(from_text).sum() / num_text}
