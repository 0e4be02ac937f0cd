"""The latent canvas of a generation: the known latents, and the noise level at which every token starts.

A task paints a canvas: nothing known (text to video), a known first frame (image to video), known frames at
both ends (connect), a free region (inpainting), everything known but started part-way (editing).
`with_canvas` wraps the network, so that samplers work with one scalar time and do not depend on the task.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinema.diffusion.samplers import Denoise
from kinema.diffusion.schedules import Schedule
from kinema.shapes import Bool, Float

Network = Callable[[Tensor, Tensor], Tensor]
"""The estimate of x0 from latents `(b, c, lf, lh, lw)` and one time per token, `(b, 1, lf, lh, lw)`."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """The known part of a latent grid `(b, c, lf, lh, lw)`.

    `start` is the noise level from which a token is sampled: 1 for a free token (`clean` is not read),
    between 0 and 1 for an edited token, which starts as noisy `clean`, and 0 for a known token, which keeps
    `clean` bit for bit. `known` is `start == 0`. Build a canvas with `Canvas.empty(...)` and `paint`. Raises
    `ValueError` when shapes or values do not agree.
    """

    clean: Float[Tensor, "b c lf lh lw"]
    known: Bool[Tensor, "b 1 lf lh lw"]
    start: Float[Tensor, "b 1 lf lh lw"]

    def __post_init__(self) -> None:
        b, _, *grid = self.clean.shape
        for name in ("known", "start"):
            shape = getattr(self, name).shape
            if shape != (b, 1, *grid):
                raise ValueError(
                    f"{name} has shape {tuple(shape)}; "
                    f"a canvas of {tuple(self.clean.shape)} needs {(b, 1, *grid)}"
                )
        if bool(((self.start < 0) | (self.start > 1)).any()):
            raise ValueError(
                f"start must be in [0, 1], not {float(self.start.min()):g} to {float(self.start.max()):g}"
            )
        if not torch.equal(self.known, self.start == 0):
            raise ValueError(
                "known tokens are those with start = 0: an edited token is not known, a known one starts at 0"
            )

    @classmethod
    def empty(
        cls, shape: tuple[int, ...], *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> "Canvas":
        """A canvas `(b, c, lf, lh, lw)` without known tokens. Raises `ValueError` for another shape."""
        if len(shape) != 5 or min(shape) < 1:
            raise ValueError(f"a canvas has shape (b, c, lf, lh, lw), all 1 or more, not {tuple(shape)}")
        b, _, *grid = shape
        start = torch.ones(b, 1, *grid, device=device)
        return cls(
            torch.zeros(shape, device=device, dtype=dtype), torch.zeros_like(start, dtype=torch.bool), start
        )

    def paint(self, clean: Tensor, where: Tensor, *, start: float = 0.0) -> "Canvas":
        """This canvas with `clean` at the tokens of `where`: kept with `start` = 0, edited from a higher
        `start`.

        `clean` broadcasts to `(b, c, lf, lh, lw)` and the boolean `where` to `(b, 1, lf, lh, lw)`. Later
        paint covers earlier paint. Raises `ValueError` for `start` outside [0, 1].
        """
        if not 0 <= start <= 1:
            raise ValueError(f"start={start} must be in [0, 1]: 0 keeps, 1 frees")
        where = where.expand_as(self.start)
        clean = torch.where(where, clean.to(self.clean), self.clean)
        starts = self.start.masked_fill(where, start)
        return replace(self, clean=clean, known=starts == 0, start=starts)

    @property
    def first_time(self) -> float:
        """The highest `start` of a token, where sampling can begin (`time_grid(start=...)`). 0: all known."""
        return float(self.start.max())

    def at(self, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
        """The initial sample at time `t`: `noise` at free tokens, noisy `clean` at the others."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return torch.where(self.start == 1, noise, alpha * self.clean + sigma * noise)

    def finish(self, x: Tensor) -> Tensor:
        """The result `x` of a sampler with known tokens equal to `clean` bit for bit."""
        return torch.where(self.known, self.clean.to(x), x)


def with_canvas(
    network: Network, canvas: Canvas, schedule: Schedule, noise: Tensor, *, native: bool = True
) -> Denoise:
    """A denoiser of one scalar time around `network` that holds the tokens of the canvas.

    While t is above the `start` of a token, the input of the network is `alpha(start) * clean + sigma(start)
    * noise` with the time `start` (a known token: `clean` with time 0), and its x0 is `clean`. At and below
    `start` the token is free and has the time of the sampler. Since its x0 was `clean`, the sample of the
    sampler has moved on the path from `noise` to `clean` and is correct when the token becomes free, provided
    that sampling began with the same `noise` (`canvas.at`). A token that becomes free in the middle of the
    grid takes one step of order one, because its x0 jumps from `clean` to the estimate. A grid that begins at
    `canvas.first_time` avoids this.

    `native=False` is for models without a time per token: held tokens enter at the current time, as `alpha(t)
    * clean + sigma(t) * noise` (Lugmayr et al. 2022), and every token has the time of the sampler.
    """
    held = schedule.alpha(canvas.start) * canvas.clean + schedule.sigma(canvas.start) * noise

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        now = t.to(canvas.start)
        is_held = canvas.start < now
        if native:
            shown, times = held, torch.minimum(canvas.start, now)
        else:
            shown, times = (
                schedule.alpha(t) * canvas.clean + schedule.sigma(t) * noise,
                now.expand_as(canvas.start),
            )
        x0 = network(torch.where(is_held, shown, x).to(x.dtype), times)
        return torch.where(is_held, canvas.clean.to(x0), x0)

    return denoise
