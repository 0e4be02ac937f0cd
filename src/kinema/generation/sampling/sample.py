"""Sampling of a batch of canvases, window by window, as a generator of steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kinema.diffusion.canvas import Canvas, with_canvas
from kinema.diffusion.samplers import SAMPLERS, SamplerStep, Walk
from kinema.diffusion.step_cache import with_cache
from kinema.errors import RequestError
from kinema.generation.conditioning.encode import EncodedConditions
from kinema.generation.job import SamplingState
from kinema.generation.plan import Plan
from kinema.generation.sampling.circular import circular_network, roll_offsets
from kinema.generation.sampling.denoiser import Denoiser, GuidedRun
from kinema.generation.sampling.noise import START, STEP, latent_noise
from kinema.generation.sampling.windows import WindowSample, cut_window, insert_sample, num_windows
from kinema.registry import lookup
from kinema.shapes import Float


@dataclass(frozen=True, eq=False)
class WindowStep:
    """A step of the sampler within a window."""

    step: SamplerStep
    """The step of the whole batch."""
    num_steps: int
    """Steps of the window."""
    index: int
    """The step over all windows."""
    total: int
    """Steps of all windows."""


def sample_windows(
    denoiser: Denoiser,
    plans: Sequence[Plan],
    conditions: Sequence[EncodedConditions],
    states: Sequence[SamplingState],
) -> Iterator[WindowStep | None]:
    """The steps that sample the canvases of `plans`, which have one `batch_key`. None after each window.

    `states` hold where each clip is, and are updated before each item is yielded: new ones begin, saved ones
    resume. At the end `latents` of each state is the clean, normalised canvas (1, c, lf, lh, lw). Raises
    `RequestError` for states of different steps.
    """
    if len({(state.window, state.next_step, state.x is None) for state in states}) > 1:
        raise RequestError("the jobs of a batch stopped at different steps: continue them one by one")

    plan, device = plans[0], denoiser.device
    whole = _batch([given.canvas for given in conditions])
    networks = denoiser.for_run(plans, [given.pictures for given in conditions])
    latents = _joined([state.latents for state in states], device)
    latents = whole.clean if latents is None else latents

    for index in range(states[0].window, num_windows(plan)):
        window = cut_window(plans, index, whole, latents)
        if window.canvas.first_time > 0:
            yield from _window_steps(denoiser, networks, plans, window, states)
            x = _joined([state.x for state in states], device)
            assert x is not None, "a window has at least one step"
            latents = insert_sample(latents, window, window.canvas.finish(x))
        for state, row in zip(states, latents.split(1)):
            state.finish_window(row)
        yield None

    for state, row in zip(states, latents.split(1)):
        state.latents = row


def _window_steps(
    denoiser: Denoiser,
    networks: GuidedRun,
    plans: Sequence[Plan],
    window: WindowSample,
    states: Sequence[SamplingState],
) -> Iterator[WindowStep]:
    """The steps of the sampler within one window."""
    plan, canvas, schedule, device = plans[0], window.canvas, denoiser.schedule, denoiser.device
    _, c, num_latents, lh, lw = canvas.clean.shape

    def noise(stream: str, step: int) -> Float[Tensor, "b c lf lh lw"]:
        seeds = [plan.request.seed for plan in plans]
        frames, shape = window.latent_frames, (c, lh, lw)
        return torch.stack([latent_noise(seed, stream, frames, shape, step) for seed in seeds]).to(device)

    times = denoiser.times(plan, canvas.first_time)
    start = noise(START, 0)
    x = _joined([state.x for state in states], device)
    x = canvas.at(times[0], start, schedule) if x is None else x

    network = networks.network(window.prompts, first_frame=window.first_coordinate)
    if window.is_loop:
        segment = max(1, plan.window - 1)
        network = circular_network(network, segment, roll_offsets(times, num_latents - 1))
    if plan.request.cache is not None:
        caches = [state.cache for state in states]
        for cache in caches:
            cache.tensors = [tensor.to(device) for tensor in cache.tensors]
        regime = partial(denoiser.regime, plan)
        network = with_cache(network, plan.request.cache, caches, last=float(times[-2]), regime=regime)

    memory = [torch.cat(rows).to(device) for rows in zip(*(state.memory for state in states))]
    walk = Walk(times, schedule, noise=partial(noise, STEP), first_step=states[0].next_step, memory=memory)
    denoise = with_canvas(network, canvas, schedule, start, native=denoiser.manifest.time_per_token)
    before, total = states[0].window * walk.num_steps, num_windows(plan) * walk.num_steps
    for step in lookup(SAMPLERS, plan.sampler, kind="sampler")(denoise, x, walk):
        for i, state in enumerate(states):
            state.finish_step(step, i)
        yield WindowStep(step, walk.num_steps, before + step.i, total)


def _batch(canvases: Sequence[Canvas]) -> Canvas:
    """The canvases of all clips as one batch."""
    if len(canvases) == 1:
        return canvases[0]
    parts = [(canvas.clean, canvas.known, canvas.start) for canvas in canvases]
    return Canvas(*(torch.cat(tensors) for tensors in zip(*parts)))


def _joined(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    """The tensors of all clips as one batch, or None where a clip has none."""
    given = [tensor.to(device) for tensor in tensors if tensor is not None]
    return torch.cat(given) if given else None
