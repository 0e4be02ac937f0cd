"""The canvas mix: the backbone trains on every canvas task from the first step on.

A canvas task is a function that marks the known latents of a clip. Known tokens have time 0 and hold clean
latents. The loss is taken over the others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinema.config import check_range
from kinema.errors import ConfigError
from kinema.registry import lookup
from kinema.shapes import Bool

Grid = tuple[int, int, int]


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def text_only(grid: Grid, generator: torch.Generator) -> Bool[Tensor, "lf lh lw"]:
    """Nothing is known: text to video."""
    return torch.zeros(grid, dtype=torch.bool)


def beginning(grid: Grid, generator: torch.Generator) -> Bool[Tensor, "lf lh lw"]:
    """The first latents are known: image to video, forward extension. Half of the time only the first one."""
    known = torch.zeros(grid, dtype=torch.bool)
    is_one = torch.rand((), generator=generator) < 0.5
    num_known = 1 if is_one else _integer(1, max(1, grid[0] - 1), generator)
    known[:num_known] = True
    return known & (grid[0] > 1)


def ending(grid: Grid, generator: torch.Generator) -> Bool[Tensor, "lf lh lw"]:
    """The last latents are known: backward extension. Half of the time at most two."""
    known = torch.zeros(grid, dtype=torch.bool)
    if grid[0] > 1:
        is_short = torch.rand((), generator=generator) < 0.5
        max_known = min(2, grid[0] - 1) if is_short else grid[0] - 1
        known[-_integer(1, max_known, generator) :] = True
    return known


def both_ends(grid: Grid, generator: torch.Generator) -> Bool[Tensor, "lf lh lw"]:
    """The first latent and the last ones are known: connection, first and last frame. At least one stays
    unknown."""
    known = ending(grid, generator)
    known[:1] = grid[0] > 2
    known[1:2] &= grid[0] < 3
    return known


def some_frames(grid: Grid, generator: torch.Generator) -> Bool[Tensor, "lf lh lw"]:
    """Random latent frames are known: keyframes, storyboards. At least one frame stays unknown."""
    frames = torch.rand(grid[0], generator=generator) < 0.4
    frames[_integer(0, grid[0] - 1, generator)] = False
    return frames.view(-1, 1, 1).expand(grid).clone()


def region(grid: Grid, generator: torch.Generator) -> Bool[Tensor, "lf lh lw"]:
    """All but a rectangle is known in every frame: inpainting, editing a region."""
    known = torch.ones(grid, dtype=torch.bool)
    corners = []
    for size in grid[1:]:
        side = _integer(max(1, size // 4), max(1, 3 * size // 4), generator)
        start = _integer(0, size - side, generator)
        corners.append(slice(start, start + side))
    known[:, corners[0], corners[1]] = False
    return known


CANVAS_TASKS: dict[str, Callable[[Grid, torch.Generator], Tensor]] = {
    "text": text_only,
    "beginning": beginning,
    "ending": ending,
    "both_ends": both_ends,
    "some_frames": some_frames,
    "region": region,
    "noise_per_frame": text_only,
}
"""In `noise_per_frame` nothing is known, and every frame has its own time (diffusion forcing, Chen et al.
2024)."""


@dataclass(frozen=True)
class CanvasMix:
    """The share of each canvas task, and of batches that are windows from the end of clips (no image latent,
    lf >= 1).

    Windows have their own shares, because a window of a long video has known latents next to it, except in
    loops. Raises `ConfigError` for shares that do not add up to 1.
    """

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {
            "text": 0.6,
            "beginning": 0.12,
            "ending": 0.05,
            "both_ends": 0.05,
            "some_frames": 0.05,
            "region": 0.05,
            "noise_per_frame": 0.08,
        }
    )
    windows: float = 0.1
    window_tasks: Mapping[str, float] = field(
        default_factory=lambda: {
            "text": 0.25,
            "beginning": 0.25,
            "ending": 0.35,
            "both_ends": 0.1,
            "noise_per_frame": 0.05,
        }
    )

    def __post_init__(self) -> None:
        for shares in (self.tasks, self.window_tasks):
            for name in shares:
                lookup(CANVAS_TASKS, name, kind="canvas task")
            if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
                raise ConfigError(
                    f"shares of the canvas tasks add up to {sum(shares.values()):g}; they must add up to 1"
                )
        check_range(self, ("windows",), 0, 1)

    def draw(self, generator: torch.Generator, *, is_window: bool = False) -> str:
        """The name of a random canvas task."""
        shares = self.window_tasks if is_window else self.tasks
        names = list(shares)
        weights = torch.tensor([shares[name] for name in names])
        return names[int(torch.multinomial(weights, 1, generator=generator))]
