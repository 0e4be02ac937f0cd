"""Pixels to train on: clips of a world, drawn when they are needed, or the pixels of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from kinema.data.dataset import Dataset, open_dataset
from kinema.data.world_clips import draw_clips, to_tensor
from kinema.errors import ConfigError, DataError
from kinema.models.clip import spread_frames
from kinema.models.pixels import from_uint8
from kinema.shapes import Float
from kinema.worlds import World


class Crops(Protocol):
    """Crops of clips in [-1, 1], for networks that learn to reconstruct pixels."""

    measured_on: str
    """What `measured` returns: "held_out" or "training" clips."""

    def draw(self, rng: np.random.Generator, count: int, num_frames: int) -> Float[Tensor, "b 3 f h w"]:
        """`count` random square crops of `num_frames` frames."""

    def measured(self, count: int) -> Float[Tensor, "b 3 f h w"]:
        """At most `count` clips of one size, the same at every call."""


class WorldCrops:
    """Crops of clips of a world, whose frames have sides of `size` pixels. See `Crops`."""

    measured_on = "held_out"

    def __init__(self, world: World, *, size: int, crop: int, num_frames: int) -> None:
        if crop > size:
            raise ConfigError(f"crop = {crop} must be at most size = {size}")
        self.world, self.size, self.crop, self.num_frames = world, size, crop, num_frames

    def draw(self, rng: np.random.Generator, count: int, num_frames: int) -> Float[Tensor, "b 3 f h w"]:
        """Crops of new clips. Many small crops show more of the world than few whole frames."""
        video = self._clips("vae", [int(i) for i in rng.integers(2**40, size=count)], num_frames)
        if self.crop == self.size:
            return video
        corners = rng.integers(self.size - self.crop + 1, size=(count, 2))
        return torch.stack(
            [clip[:, :, y : y + self.crop, x : x + self.crop] for clip, (y, x) in zip(video, corners)]
        )

    def measured(self, count: int) -> Float[Tensor, "b 3 f h w"]:
        """Whole clips that training does not use."""
        return self._clips("vae-held-out", range(count), self.num_frames)

    def _clips(self, split: str, indices: Sequence[int], num_frames: int) -> Float[Tensor, "b 3 f h w"]:
        return to_tensor(
            draw_clips(self.world, split, indices, height=self.size, width=self.size, num_frames=num_frames)
        )


class DatasetCrops:
    """Crops of the clips of a data set. See `Crops`.

    Raises `DataError` for a data set without pixels, and `ConfigError` if no clip is as large and as long as
    a crop.
    """

    measured_on = "training"

    def __init__(self, folder: str, *, crop: int, num_frames: int, factors: tuple[int, int]) -> None:
        """`factors` are the spatial and the temporal factor of the VAE."""
        self.dataset = dataset_with_pixels(folder, "a VAE")
        self.crop, self.factors = crop, factors
        columns = (self.dataset.column(name) for name in ("num_frames", "height", "width"))
        self.sizes = np.stack([column.astype(int) for column in columns], axis=1)
        self.pictures = np.flatnonzero(self.sizes[:, 1:].min(axis=1) >= crop)
        self.clips = np.array([i for i in self.pictures if self.sizes[i, 0] >= num_frames], dtype=int)
        if not len(self.clips):
            frames, height, width = self.sizes.max(axis=0)
            raise ConfigError(
                f"no clip of {folder} has {num_frames} frames and sides of {crop} pixels: set "
                f"data.num_frames to at most {frames} and data.crop to at most {min(height, width)}"
            )

    def draw(self, rng: np.random.Generator, count: int, num_frames: int) -> Float[Tensor, "b 3 f h w"]:
        """Crops at random times and places of random clips."""
        crops = []
        for index in rng.choice(self.pictures if num_frames == 1 else self.clips, size=count):
            sizes = (num_frames, self.crop, self.crop)
            starts = [int(rng.integers(room - size + 1)) for room, size in zip(self.sizes[index], sizes)]
            parts = [slice(start, start + size) for start, size in zip(starts, sizes)]
            crops.append(self.dataset.pixels(int(index), *parts).numpy())
        return from_uint8(crops)

    def measured(self, count: int) -> Float[Tensor, "b 3 f h w"]:
        """The first clips, cropped to the smallest of their sizes and lengths."""
        indices, (space, time) = self.clips[:count], self.factors
        frames, *sides = (int(size) for size in self.sizes[indices].min(axis=0))
        lengths = [(frames - 1) // time * time + 1, *(side // space * space for side in sides)]
        parts = [slice(0, length) for length in lengths]
        return from_uint8([self.dataset.pixels(int(index), *parts).numpy() for index in indices])


def dataset_with_pixels(folder: str, needed_by: str) -> Dataset:
    """The data set in `folder`. Raises `DataError` if it is empty or holds no pixels, which `needed_by`
    needs.
    """
    dataset = open_dataset(Path(folder))
    if not dataset.has_pixels:
        raise DataError(
            f"{folder} holds latents and no pixels, which {needed_by} is trained on: build it again with "
            "--set pixels=true"
        )
    return dataset


def small_video(pixels: Tensor, num_frames: int, side: int) -> Float[Tensor, "3 f h w"]:
    """`num_frames` frames of a clip, uint8 (f, h, w, 3), spread evenly over it and resized to squares by area
    averaging. A clip with fewer frames repeats them.
    """
    chosen = spread_frames(len(pixels), num_frames)[0]
    if len(chosen) < num_frames:
        chosen = np.linspace(0, len(pixels) - 1, num_frames).round().astype(int).tolist()
    frames = rearrange(from_uint8([pixels[chosen].numpy()])[0], "c f h w -> f c h w")
    return rearrange(F.interpolate(frames, size=(side, side), mode="area"), "f c h w -> c f h w")
