"""The oracle: a small network that reads from a clip what a caption would say of it, slot by slot, and where everyone is.

Per frame a few convolutions see the colours and how they differ from the clip's mean. A heat map finds each track's centre, the
features there say what it is and how large, the rest of the picture says where it is, and convolutions over time, which see places,
speeds and features, say what happens. Places are trained against the world's own tracks, so motion is read from geometry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from kinema.errors import ConfigError, RequestError
from kinema.models.pixels import from_uint8
from kinema.nn.parameters import use_muon
from kinema.shapes import Float

SLOTS = ("noun", "count", "verb", "direction", "ground", "sky", "size", "camera")
FROM_OBJECT, FROM_SCENE = ("noun", "size"), ("ground", "sky")
MIN_FRAMES = 5
HEAT_STRIDE = 4


@dataclass(frozen=True)
class OracleConfig:
    """`slots` holds the possible answers by slot; a recipe leaves them to the world. `fps` is the rate at which frames are looked at."""

    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_tracks: int = 1
    """Places that are followed: the subject (the centre of all of them when there are several), and what it acts on."""
    width: int = 32
    """Channels of the first layer; the others are multiples of it."""
    short_side_px: int = 64
    fps: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_tracks <= 2:
            raise ConfigError(
                f"num_tracks={self.num_tracks} must be 1 (the subject) or 2 (and what it acts on)"
            )
        if self.width < 8 or self.width % 8 or self.short_side_px < 16 or self.fps <= 0:
            raise ConfigError(
                f"width={self.width} must be a multiple of 8, short_side_px={self.short_side_px} at least 16 and fps={self.fps:g} positive"
            )
        if self.slots and set(self.slots) != set(SLOTS):
            raise ConfigError(f"slots are {', '.join(sorted(self.slots))}; needed are {', '.join(SLOTS)}")


@dataclass(frozen=True, eq=False)
class OracleOutput:
    """What the network says of b clips of f frames with k tracks.

    `places` are (x, y) as shares of width and height; `log_sizes` the logarithm of the longest side as a share of the picture's short
    side; `visible` are logits of being seen; `heat` are logits over cells that lie every `HEAT_STRIDE` pixels. `frames` and `wholes` are
    what the answers are read from: features of every frame with the geometry of its tracks, and of the thing, the place and the event.
    """

    logits: dict[str, Tensor]
    places: Float[Tensor, "b f k 2"]
    log_sizes: Float[Tensor, "b f k"]
    visible: Float[Tensor, "b f k"]
    heat: Float[Tensor, "b f k lh lw"]
    frames: Float[Tensor, "b f d1"]
    wholes: Float[Tensor, "b 3 d2"]


@dataclass(frozen=True, eq=False)
class Reading:
    """What is read from one clip: an answer per slot, and tracks in stage units (height 1, y down), arrays (f, k)."""

    answers: dict[str, str]
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    visible: np.ndarray


class ConvBlock(nn.Module):
    """Halves the picture, then refines it with a residual 3x3 convolution."""

    uses_muon = True

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(narrow, wide, 3, stride=2, padding=1)
        self.halve_norm = nn.GroupNorm(8, wide)
        self.refine = nn.Conv2d(wide, wide, 3, padding=1)
        self.refine_norm = nn.GroupNorm(8, wide)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        x = F.relu(self.halve_norm(self.halve(x)))
        return x + F.relu(self.refine_norm(self.refine(x)))


class Oracle(nn.Module):
    """See the file's docstring. Clips are read in any shape; `prepare` brings them to the trained scale."""

    def __init__(self, config: OracleConfig) -> None:
        super().__init__()
        if not config.slots:
            raise ConfigError(
                "an oracle needs the possible answers of every slot; take them from a world's vocabulary"
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
                name: nn.Linear(deep + (tracks if name in FROM_OBJECT else 0), len(config.slots[name]))
                for name in SLOTS
            }
        )

    def forward(self, video: Float[Tensor, "b 3 f h w"]) -> OracleOutput:
        """What is seen in clips in [-1, 1] as `prepare` leaves them."""
        b, _, _, h, w = video.shape
        both = torch.cat([video, video - video.mean(dim=2, keepdim=True)], dim=1)
        x = rearrange(both, "b c f h w -> (b f) c h w").contiguous(memory_format=torch.channels_last)
        middle = self.middle_block(F.relu(self.stem_norm(self.stem(x))))
        deep = self.deep_block(middle)
        fine = middle + F.interpolate(self.lateral_block(deep), size=middle.shape[-2:])
        heat = self.heat_head(F.relu(self.heat_block(fine)))
        weights = heat.flatten(2).softmax(dim=-1).view_as(heat)
        places = torch.stack([expectation(weights, 3, w), expectation(weights, 2, h)], dim=-1)
        coarse = F.adaptive_avg_pool2d(weights, deep.shape[-2:])
        coarse = coarse / coarse.sum(dim=(2, 3), keepdim=True)
        what = torch.cat(
            [torch.einsum("nkhw,nchw->nkc", coarse, deep), torch.einsum("nkhw,nchw->nkc", weights, fine)],
            dim=-1,
        )
        objects = F.relu(self.object_block(what))
        log_sizes, visible = self.object_head(objects).unbind(-1)
        half = deep.shape[2] // 2
        scene = torch.cat([deep[:, :, :half].mean(dim=(2, 3)), deep[:, :, half:].mean(dim=(2, 3))], dim=-1)

        def by_clip(values: Tensor) -> Tensor:
            return rearrange(values, "(b f) ... -> b f ...", b=b)

        places, log_sizes, visible, objects, scene = (
            by_clip(v) for v in (places, log_sizes, visible, objects, scene)
        )
        speeds = F.pad(places.diff(dim=1), (0, 0, 0, 0, 1, 0)) * 8
        geometry = torch.cat([places * 2 - 1, speeds, log_sizes.unsqueeze(-1), visible.unsqueeze(-1)], dim=-1)
        now = torch.cat([torch.cat([objects, geometry], dim=-1).flatten(2), scene], dim=-1)
        steps = rearrange(F.relu(self.time_in_block(now)), "b f d -> b d f")
        steps = steps + F.relu(self.time_block(steps))
        steps = steps + F.relu(self.far_time_block(steps))
        event = F.relu(self.event_block(torch.cat([steps.mean(dim=-1), steps.amax(dim=-1)], dim=-1)))
        looks = F.relu(self.thing_block(objects.mean(dim=1).flatten(1)))
        thing = torch.cat([looks, log_sizes.mean(dim=1)], dim=-1)
        place = F.relu(self.scene_block(scene.mean(dim=1)))
        frames = torch.cat([rearrange(steps, "b d f -> b f d"), geometry.flatten(2)], dim=-1)
        source = {
            name: thing if name in FROM_OBJECT else place if name in FROM_SCENE else event for name in SLOTS
        }
        logits = {name: head(source[name]) for name, head in self.heads.items()}
        return OracleOutput(
            logits,
            places,
            log_sizes,
            visible,
            by_clip(heat),
            frames,
            torch.stack([looks, place, event], dim=1),
        )

    def prepare(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b 3 f h2 w2"]:
        """Clips area-resized so that their short side has the trained number of pixels."""
        h, w = video.shape[-2:]
        side = self.config.short_side_px
        size = (round(h * side / min(h, w)), round(w * side / min(h, w)))
        if size == (h, w):
            return video
        b = video.shape[0]
        pixels = F.interpolate(rearrange(video, "b c f h w -> (b f) c h w"), size=size, mode="area")
        return rearrange(pixels, "(b f) c h w -> b c f h w", b=b)

    def chosen_frames(self, num_frames: int, fps: float) -> list[int]:
        """Which frames of a clip are looked at for the slots: every 1/fps seconds, from the first."""
        pace = fps / self.config.fps
        count = int((num_frames - 1) / pace + 1e-6) + 1
        return [round(i * pace) for i in range(count)]

    @torch.inference_mode()
    def read(self, clips: Sequence[np.ndarray], fps: float, *, batch: int = 16) -> list[Reading]:
        """What is read from clips, uint8 (f, h, w, 3) of one size each; tracks have an entry for every frame.

        Raises `RequestError` for a clip too short for motion.
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
        slots = self(video[:, :, chosen])
        every = slots if len(chosen) == num_frames else self(video)
        aspect, unit = width / height, min(1.0, width / height)
        best = {name: logits.argmax(dim=-1).tolist() for name, logits in slots.logits.items()}
        readings = []
        for i in range(len(clips)):
            places = every.places[i].float().cpu().numpy()
            readings.append(
                Reading(
                    answers={name: self.config.slots[name][indices[i]] for name, indices in best.items()},
                    x=places[..., 0] * aspect,
                    y=places[..., 1],
                    size=every.log_sizes[i].float().exp().cpu().numpy() * unit,
                    visible=every.visible[i].float().sigmoid().cpu().numpy(),
                )
            )
        return readings


def expectation(weights: Float[Tensor, "n k lh lw"], axis: int, num_pixels: int) -> Float[Tensor, "n k"]:
    """The mean place of a heat map along an axis, as a share of the picture; cell i is centred on pixel `HEAT_STRIDE` * i."""
    cells = torch.arange(weights.shape[axis], device=weights.device, dtype=weights.dtype)
    share = (HEAT_STRIDE * cells + 0.5) / num_pixels
    return (weights.sum(dim=5 - axis) * share).sum(dim=-1)


def heat_target(
    places: Float[Tensor, "n 2"], lh: int, lw: int, height: int, width: int
) -> Float[Tensor, "n lh lw"]:
    """Heat maps whose expectation is exactly `places` (shares of width and height): bilinear weights on the four nearest cells."""

    def along(share: Tensor, num_cells: int, num_pixels: int) -> Tensor:
        cell = ((share * num_pixels - 0.5) / HEAT_STRIDE).clamp(0, num_cells - 1)
        grid = torch.arange(num_cells, device=share.device, dtype=share.dtype)
        return (1 - (cell.unsqueeze(-1) - grid).abs()).clamp(min=0)

    across, down = along(places[:, 0], lw, width), along(places[:, 1], lh, height)
    return repeat(down, "n lh -> n lh lw", lw=lw) * repeat(across, "n lw -> n lh lw", lh=lh)


def _chunks(clips: Sequence[np.ndarray], batch: int) -> list[list[np.ndarray]]:
    """Clips in order, at most `batch` neighbours of one size at a time."""
    edges = [0, *(i for i, (a, b) in enumerate(pairwise(clips), 1) if a.shape != b.shape), len(clips)]
    return [
        list(clips[i : min(i + batch, stop)])
        for start, stop in pairwise(edges)
        for i in range(start, stop, batch)
    ]
