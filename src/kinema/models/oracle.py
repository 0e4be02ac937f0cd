"""The oracle: a small network that reads the slots of a caption and the tracks of the objects from a clip.

A few convolutions per frame take the colours and their difference from the mean of the clip. A heat map
locates the centre of each track. The features at the centre give the object and its size, the rest of the
image gives the scene, and convolutions over time, on positions, speeds and features, give the event.
Positions are trained against the tracks of the world, so motion is read from geometry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinema.errors import ConfigError, RequestError
from kinema.models.pixels import from_uint8
from kinema.nn.parameters import use_muon
from kinema.shapes import Float

FROM_OBJECT, FROM_SCENE = ("noun", "size"), ("ground", "sky")
"""Slots that the object alone or the rest of the image answers. The event answers all others."""
MIN_FRAMES = 5
"""Frames that are needed to read motion."""
HEAT_STRIDE = 4
"""Pixels from one cell of a heat map to the next."""


@dataclass(frozen=True)
class OracleConfig:
    """Sizes of an oracle. Raises `ConfigError` for sizes that do not fit together."""

    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The possible answers by slot. A recipe leaves them to the world."""
    num_tracks: int = 1
    """1: the subject, or the centre of several subjects. 2: also the object that it acts on."""
    width: int = 32
    """Channels of the first layer. The other widths are multiples of it."""
    short_side_px: int = 64
    fps: float = 4.0
    """Frames per second at which slots are read."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_tracks <= 2:
            raise ConfigError(
                f"num_tracks={self.num_tracks} must be 1 (the subject) or 2 (also the object that it acts on)"
            )
        if self.width < 8 or self.width % 8 or self.short_side_px < 16 or self.fps <= 0:
            raise ConfigError(
                f"width={self.width} must be a multiple of 8, short_side_px={self.short_side_px} at least 16 "
                f"and fps={self.fps:g} positive"
            )


@dataclass(frozen=True, eq=False)
class OracleOutput:
    """The answers of the network for b clips of f frames with k tracks, and the features behind them."""

    logits: dict[str, Tensor]
    """Scores (b, answers) of every slot."""
    positions: Float[Tensor, "b f k 2"]
    """(x, y) as fractions of width and height."""
    log_sizes: Float[Tensor, "b f k"]
    """Logarithm of the longest side as a fraction of the short side of the image."""
    visible: Float[Tensor, "b f k"]
    """Logits of being visible."""
    heat: Float[Tensor, "b f k lh lw"]
    """Logits over cells that lie every `HEAT_STRIDE` pixels."""
    frames: Float[Tensor, "b f d1"]
    """Features of every frame, with the geometry of its tracks."""
    wholes: Float[Tensor, "b 3 d2"]
    """Features of the object, the scene and the event of the clip."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The answers for one clip by slot, and its tracks in stage units (height 1, y down) as arrays (f, k)."""

    answers: dict[str, str]
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    visible: np.ndarray


class ConvBlock(nn.Module):
    """Half the height and width, then a residual 3x3 convolution."""

    uses_muon = True

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
        self.halve_norm = nn.GroupNorm(8, wide)
        self.refine = nn.Conv2d(wide, wide, 3, padding=1)
        self.refine_norm = nn.GroupNorm(8, wide)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        """Features at the resolution of the stride."""
        x = F.relu(self.halve_norm(self.halve(x)))
        return x + F.relu(self.refine_norm(self.refine(x)))


class Oracle(nn.Module):
    """The network of this module. It takes clips of any shape; `prepare` scales them to the trained size.

    Raises `ConfigError` without the answers of the slots.
    """

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        if not config.slots:
            raise ConfigError(
                "an oracle needs the possible answers of every slot: take them from the slots of a world"
            )
        self.config = config
        w, tracks = config.width, config.num_tracks
        deep = 4 * w
        self.stem = nn.Conv2d(6, w, 3, stride=2, padding=1)
        self.stem_norm = nn.GroupNorm(8, w)
        self.middle_block = ConvBlock(w, 2 * w)
        self.deep_block = ConvBlock(2 * w, deep)
        self.lateral_block = use_muon(nn.Conv2d(deep, 2 * w, 1))
        self.heat_block = use_muon(nn.Conv2d(2 * w, 2 * w, 3, padding=1))
        self.heat_head = nn.Conv2d(2 * w, tracks, 1)
        self.object_block = use_muon(nn.Linear(deep + 2 * w, deep))
        self.object_head = nn.Linear(deep, 2)
        self.thing_block = use_muon(nn.Linear(tracks * deep, deep))
        self.scene_block = use_muon(nn.Linear(2 * deep, deep))
        self.time_in_block = use_muon(nn.Linear(tracks * (deep + 6) + 2 * deep, deep))
        self.time_block = use_muon(nn.Conv1d(deep, deep, 3, padding=1))
        self.far_time_block = use_muon(nn.Conv1d(deep, deep, 3, padding=2, dilation=2))
        self.event_block = use_muon(nn.Linear(2 * deep, deep))
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(deep + (tracks if name in FROM_OBJECT else 0), len(answers))
                for name, answers in config.slots.items()
            }
        )

    def forward(self, video: Float[Tensor, "b 3 f h w"]) -> OracleOutput:
        """The answers for clips in [-1, 1] as `prepare` returns them."""
        b, _, _, h, w = video.shape
        deep, fine = self._features(video)
        heat = self.heat_head(F.relu(self.heat_block(fine)))
        weights = heat.flatten(2).softmax(dim=-1).view_as(heat)
        positions = torch.stack([expectation(weights, 3, w), expectation(weights, 2, h)], dim=-1)

        objects = F.relu(self.object_block(_at_centres(weights, deep, fine)))
        log_sizes, visible = self.object_head(objects).unbind(-1)
        half = deep.shape[2] // 2
        scene = torch.cat([deep[:, :, :half].mean(dim=(2, 3)), deep[:, :, half:].mean(dim=(2, 3))], dim=-1)

        positions, log_sizes, visible, objects, scene, heat = (
            rearrange(values, "(b f) ... -> b f ...", b=b)
            for values in (positions, log_sizes, visible, objects, scene, heat)
        )
        speeds = F.pad(positions.diff(dim=1), (0, 0, 0, 0, 1, 0)) * 8
        geometry = torch.cat(
            [positions * 2 - 1, speeds, log_sizes.unsqueeze(-1), visible.unsqueeze(-1)], dim=-1
        )
        states = self._over_time(objects, geometry, scene)

        event = F.relu(self.event_block(torch.cat([states.mean(dim=-1), states.amax(dim=-1)], dim=-1)))
        appearance = F.relu(self.thing_block(objects.mean(dim=1).flatten(1)))
        setting = F.relu(self.scene_block(scene.mean(dim=1)))

        return OracleOutput(
            logits=self._answers(torch.cat([appearance, log_sizes.mean(dim=1)], dim=-1), setting, event),
            positions=positions,
            log_sizes=log_sizes,
            visible=visible,
            heat=heat,
            frames=torch.cat([rearrange(states, "b d f -> b f d"), geometry.flatten(2)], dim=-1),
            wholes=torch.stack([appearance, setting, event], dim=1),
        )

    def _features(
        self, video: Float[Tensor, "b 3 f h w"]
    ) -> tuple[Float[Tensor, "n c lh lw"], Float[Tensor, "n c2 lh2 lw2"]]:
        """Features of every frame with strides of 8 and, including the first, of `HEAT_STRIDE` pixels."""
        both = torch.cat([video, video - video.mean(dim=2, keepdim=True)], dim=1)
        x = rearrange(both, "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        middle = self.middle_block(F.relu(self.stem_norm(self.stem(x))))
        deep = self.deep_block(middle)
        return deep, middle + F.interpolate(self.lateral_block(deep), size=middle.shape[-2:])

    def _over_time(
        self,
        objects: Float[Tensor, "b f k d"],
        geometry: Float[Tensor, "b f k 6"],
        scene: Float[Tensor, "b f d2"],
    ) -> Float[Tensor, "b d f"]:
        """States of every frame that depend on its neighbours in time."""
        now = torch.cat([torch.cat([objects, geometry], dim=-1).flatten(2), scene], dim=-1)
        states = rearrange(F.relu(self.time_in_block(now)), "b f d -> b d f")
        states = states + F.relu(self.time_block(states))
        return states + F.relu(self.far_time_block(states))

    def _answers(
        self, thing: Float[Tensor, "b d1"], scene: Float[Tensor, "b d2"], event: Float[Tensor, "b d3"]
    ) -> dict[str, Tensor]:
        """Logits of every slot, from the features that its answer depends on."""
        sources = (
            dict.fromkeys(self.heads, event)
            | dict.fromkeys(FROM_OBJECT, thing)
            | dict.fromkeys(FROM_SCENE, scene)
        )
        return {name: head(sources[name]) for name, head in self.heads.items()}

    def prepare(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b 3 f h2 w2"]:
        """Clips resized by area averaging so that their short side has the trained number of pixels."""
        h, w = video.shape[-2:]
        side = self.config.short_side_px
        size = (round(h * side / min(h, w)), round(w * side / min(h, w)))
        if size == (h, w):
            return video
        b = video.shape[0]
        pixels = F.interpolate(rearrange(video, "b c f h w -> (b f) c h w"), size=size, mode="area")
        return rearrange(pixels, "(b f) c h w -> b c f h w", b=b)

    def chosen_frames(self, num_frames: int, fps: float) -> list[int]:
        """Indices of the frames from which slots are read: every 1/`config.fps` seconds, from the first."""
        stride = fps / self.config.fps
        count = int((num_frames - 1) / stride + 1e-6) + 1
        return [round(i * stride) for i in range(count)]

    @torch.inference_mode()
    def read(self, clips: Sequence[np.ndarray], fps: float, *, batch: int = 16) -> list[Reading]:
        """Readings of uint8 clips (f, h, w, 3), in order. Tracks have an entry for every frame.

        Neighbouring clips of one size are read in batches of at most `batch`. Raises `RequestError` for a
        clip too short for motion.
        """
        return [reading for chunk in _chunks(clips, batch) for reading in self._read(chunk, fps)]

    def _read(self, clips: list[np.ndarray], fps: float) -> list[Reading]:
        device = next(self.parameters()).device
        num_frames, height, width = clips[0].shape[:3]
        chosen = self.chosen_frames(num_frames, fps)
        if len(chosen) < MIN_FRAMES:
            raise RequestError(
                f"a clip of {num_frames} frames at {fps:g} fps is too short for reading motion: "
                f"use at least {int((MIN_FRAMES - 1) * fps / self.config.fps + 1)} frames"
            )

        video = self.prepare(from_uint8(clips).to(device))
        at_rate = self(video[:, :, chosen])
        at_every_frame = at_rate if len(chosen) == num_frames else self(video)
        aspect = width / height
        best = {name: logits.argmax(dim=-1).tolist() for name, logits in at_rate.logits.items()}

        readings = []
        for i in range(len(clips)):
            positions = at_every_frame.positions[i].float().cpu().numpy()
            readings.append(
                Reading(
                    answers={name: self.config.slots[name][indices[i]] for name, indices in best.items()},
                    x=positions[..., 0] * aspect,
                    y=positions[..., 1],
                    size=at_every_frame.log_sizes[i].float().exp().cpu().numpy() * min(1.0, aspect),
                    visible=at_every_frame.visible[i].float().sigmoid().cpu().numpy(),
                )
            )
        return readings


def _at_centres(
    weights: Float[Tensor, "n k lh2 lw2"],
    deep: Float[Tensor, "n c lh lw"],
    fine: Float[Tensor, "n c2 lh2 lw2"],
) -> Float[Tensor, "n k d"]:
    """Deep and fine features averaged with the `weights` of each track, which sum to one."""
    coarse = F.adaptive_avg_pool2d(weights, (deep.shape[2], deep.shape[3]))
    coarse = coarse / coarse.sum(dim=(2, 3), keepdim=True)
    return torch.cat(
        [torch.einsum("nkhw,nchw->nkc", coarse, deep), torch.einsum("nkhw,nchw->nkc", weights, fine)], dim=-1
    )


def expectation(weights: Float[Tensor, "n k lh lw"], axis: int, num_pixels: int) -> Float[Tensor, "n k"]:
    """The mean position of a heat map along `axis`, as a fraction of the image.

    Cell i is centred on pixel `HEAT_STRIDE` * i.
    """
    cells = torch.arange(weights.shape[axis], device=weights.device, dtype=weights.dtype)
    share = (HEAT_STRIDE * cells + 0.5) / num_pixels
    return (weights.sum(dim=5 - axis) * share).sum(dim=-1)


def heat_target(
    positions: Float[Tensor, "n 2"], lh: int, lw: int, height: int, width: int
) -> Float[Tensor, "n lh lw"]:
    """Heat maps whose expectation is exactly `positions`, fractions of width and height.

    The weight is spread bilinearly over the four nearest cells.
    """

    def along(share: Tensor, num_cells: int, num_pixels: int) -> Tensor:
        cell = ((share * num_pixels - 0.5) / HEAT_STRIDE).clamp(0, num_cells - 1)
        grid = torch.arange(num_cells, device=share.device, dtype=share.dtype)
        return (1 - (cell.unsqueeze(-1) - grid).abs()).clamp(min=0)

    across, down = along(positions[:, 0], lw, width), along(positions[:, 1], lh, height)
    return repeat(down, "n lh -> n lh lw", lw=lw) * repeat(across, "n lw -> n lh lw", lh=lh)


def _chunks(clips: Sequence[np.ndarray], batch: int) -> list[list[np.ndarray]]:
    """Clips in order, in lists of at most `batch` neighbours of one size."""
    chunks: list[list[np.ndarray]] = []
    for clip in clips:
        if not chunks or len(chunks[-1]) == batch or chunks[-1][0].shape != clip.shape:
            chunks.append([])
        chunks[-1].append(clip)
    return chunks
