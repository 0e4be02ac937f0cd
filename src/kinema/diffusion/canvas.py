"""The canvas of a generation: what is already known of the latent grid, and at which noise level every token starts.

A task paints a canvas: all unknown (text to video), a first frame known (image to video), frames at both ends (connect), a region
left free (inpainting), everything known but starting part-way (editing). `with_canvas` puts it around the network, so that
samplers see one scalar time and never know.
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
    """What is known of a latent grid `(b, c, lf, lh, lw)`.

    `start` is the noise level at which a token begins to be the sampler's: 1 for a free one (`clean` is not read there), between 0 and 1
    for one to edit, which starts as a noisy `clean`, and 0 for a known one, which keeps `clean` bit for bit. `known` says `start == 0`.
    Build one with `Canvas.empty(...)` and `paint`. Raises `ValueError` when the three do not agree.
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
                    f"{name} has shape {tuple(shape)}; a canvas of {tuple(self.clean.shape)} needs {(b, 1, *grid)}"
                )
        if bool(((self.start < 0) | (self.start > 1)).any()):
            raise ValueError(
                f"start must be in [0, 1], not {float(self.start.min()):g} to {float(self.start.max()):g}"
            )
        if not torch.equal(self.known, self.start == 0):
            raise ValueError(
                "known tokens are those with start = 0: a token to edit is not known, and a known one starts at 0"
            )

    @classmethod
    def empty(
        cls, shape: tuple[int, ...], *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> "Canvas":
        """A canvas `(b, c, lf, lh, lw)` where nothing is known."""
        if len(shape) != 5 or min(shape) < 1:
            raise ValueError(f"a canvas has shape (b, c, lf, lh, lw), all 1 or more, not {tuple(shape)}")
        b, _, *grid = shape
        start = torch.ones(b, 1, *grid, device=device)
        return cls(
            torch.zeros(shape, device=device, dtype=dtype), torch.zeros_like(start, dtype=torch.bool), start
        )

    def paint(self, clean: Tensor, where: Tensor, *, start: float = 0.0) -> "Canvas":
        """This canvas with `clean` at the tokens of `where`: kept with `start` = 0, edited from that noise level on with more.

        Both broadcast: `clean` to `(b, c, lf, lh, lw)` and `where`, boolean, to `(b, 1, lf, lh, lw)`. Later paint covers earlier paint.
        """
        if not 0 <= start <= 1:
            raise ValueError(f"start={start} must be in [0, 1]: 0 keeps, 1 frees")
        where = where.expand_as(self.start)
        clean = torch.where(where, clean.to(self.clean), self.clean)
        starts = self.start.masked_fill(where, start)
        return replace(self, clean=clean, known=starts == 0, start=starts)

    def paint_frames(
        self, clean: Float[Tensor, "b c k lh lw"], first_frame: int, *, start: float = 0.0
    ) -> "Canvas":
        """This canvas with the latent frames `clean` from `first_frame` on; a negative one counts from the end."""
        num_frames, length = self.clean.shape[2], clean.shape[2]
        first = first_frame + num_frames if first_frame < 0 else first_frame
        if first < 0 or first + length > num_frames:
            raise ValueError(
                f"{length} latent frames from {first_frame} on do not fit on a canvas of {num_frames}"
            )
        where = torch.zeros_like(self.known)
        where[:, :, first : first + length] = True
        whole = self.clean.clone()
        whole[:, :, first : first + length] = clean.to(self.clean)
        return self.paint(whole, where, start=start)

    @property
    def first_time(self) -> float:
        """The greatest level at which a token starts: sampling may begin there (`time_grid(start=...)`); at 0 nothing is unknown."""
        return float(self.start.max())

    def at(self, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
        """The sample with which a sampler begins at time `t`: noise where nothing is known, and noisy `clean` where something is."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return torch.where(self.start == 1, noise, alpha * self.clean + sigma * noise)

    def finish(self, x: Tensor) -> Tensor:
        """The sampler's result `x` with known tokens equal to `clean` bit for bit."""
        return torch.where(self.known, self.clean.to(x), x)


def with_canvas(
    network: Network, canvas: Canvas, schedule: Schedule, noise: Tensor, *, native: bool = True
) -> Denoise:
    """A denoiser of one scalar time that holds the canvas's tokens around `network`.

    While t is above a token's `start`, the network sees it at time `start`, as `alpha(start) * clean + sigma(start) * noise` (a known one:
    clean, at time 0), and its x0 is `clean`; at and below `start` it is free and has the sampler's time. Because the sampler is told
    `clean`, its own copy of the token moves along the path from `noise` to `clean`, and is in place when it is freed: give it
    the same `noise` to begin with (`canvas.at`). A token freed in the middle of the grid takes one step of order one there, since its
    x0 jumps from `clean` to the network's; a grid that begins at `canvas.first_time` frees editing at once.

    `native=False` is for models without a time per token: held tokens are shown at the current time, `alpha(t) * clean + sigma(t) * noise`
    (Lugmayr et al. 2022), and every token has the sampler's time.
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
