"""The end of a sampler's steps, for the tests."""

from torch import Tensor

from kinema.diffusion.samplers import SAMPLERS, Denoise, Noise, Sampler, Walk
from kinema.diffusion.schedules import Schedule


def end(
    sampler: str | Sampler,
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    schedule: Schedule,
    noise: Noise | None = None,
) -> Tensor:
    """The sample at `times[-1]` from the sample `x` at `times[0]`."""
    function = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    *_, last = function(denoise, x, Walk(times, schedule, noise=noise))
    return last.x
