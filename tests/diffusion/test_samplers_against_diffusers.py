"""Samplers against diffusers, step by step: both are fed the same sequence of network outputs from the same
noise.
"""

import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from kinema.diffusion.objectives import Prediction, target, to_x0
from kinema.diffusion.samplers import Noise, SamplerStep, Walk, ddim, ddpm, dpmpp_2m, euler, unipc
from kinema.diffusion.schedules import DDPMTable, Linear, Schedule, time_grid

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 4, 3, 5, 6)


def outputs(num_steps: int) -> list[Tensor]:
    """Network outputs with structure: a smooth path plus a little roughness, so that high orders matter and
    nothing explodes.
    """
    generator = torch.Generator().manual_seed(7)
    base, drift = torch.randn(2, *SHAPE, generator=generator)
    return [
        base + drift * i / num_steps + 0.1 * torch.randn(SHAPE, generator=generator) for i in range(num_steps)
    ]


def theirs(
    scheduler, given: list[Tensor], x: Tensor, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Samples after each step of a diffusers scheduler whose times are set."""
    options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    steps = []
    for t, output in zip(scheduler.timesteps, given, strict=True):
        x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        steps.append(x)
    return steps


def ours(
    sampler: Callable[..., Iterator[SamplerStep]],
    given: list[Tensor],
    x: Tensor,
    times: Tensor,
    schedule: Schedule,
    prediction: Prediction,
    noise: Noise | None = None,
    **options,
) -> list[Tensor]:
    """Samples after each step of one of our samplers."""
    queue = iter(given)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return to_x0(prediction, next(queue), x, t, schedule)

    return [step.x for step in sampler(denoise, x, Walk(times, schedule, noise=noise), **options)]


def assert_equal_steps(mine: list[Tensor], reference: list[Tensor], tolerance: float) -> None:
    assert len(mine) == len(reference)
    for a, b in zip(mine, reference):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


NOISE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("num_steps", [4, 20])
def test_euler_is_flow_match_euler(num_steps: int, shift: float):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(num_steps, sigmas=torch.linspace(1, 0, num_steps + 1)[:-1].tolist())
    times = time_grid(num_steps, shift=shift)
    torch.testing.assert_close(times, scheduler.sigmas)
    given = outputs(num_steps)
    reference = theirs(scheduler, given, NOISE)
    assert_equal_steps(ours(euler, given, NOISE, times, Linear(), "velocity"), reference, 1e-5)
    assert_equal_steps(ours(ddim, given, NOISE, times, Linear(), "velocity"), reference, 1e-5)


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("num_steps", [4, 14, 15, 20])
def test_dpmpp_2m_is_dpm_solver_multistep_on_its_flow_grid(num_steps: int, shift: float):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    scheduler.set_timesteps(num_steps)
    times = time_grid(num_steps, shift=shift, top=0.999)
    torch.testing.assert_close(times, scheduler.sigmas)
    given = outputs(num_steps)
    assert_equal_steps(
        ours(dpmpp_2m, given, NOISE, times, Linear(), "velocity"), theirs(scheduler, given, NOISE), 2e-5
    )


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 20])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_is_unipc_multistep_on_its_flow_grid(order: int, num_steps: int, shift: float):
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        solver_order=order,
        disable_corrector=[],
    )
    scheduler.set_timesteps(num_steps)
    times = time_grid(num_steps, shift=shift, bottom=0.001)
    torch.testing.assert_close(times, scheduler.sigmas)
    given = outputs(num_steps)
    mine = ours(unipc, given, NOISE, scheduler.sigmas, Linear(), "velocity", order=order)
    assert_equal_steps(mine, theirs(scheduler, given, NOISE), 5e-5)


@pytest.mark.parametrize(
    ("prediction", "name"), [("noise", "epsilon"), ("x0", "sample"), ("v", "v_prediction")]
)
@pytest.mark.parametrize("curve", ["linear", "sqrt_linear"])
def test_ddim_is_ddim_on_the_table_of_ddpm(prediction: Prediction, name: str, curve):
    schedule = DDPMTable(curve=curve)
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4,
        beta_end=2e-2,
        beta_schedule={"linear": "linear", "sqrt_linear": "scaled_linear"}[curve],
        prediction_type=name,
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(10)
    times = time_grid(10)
    torch.testing.assert_close((scheduler.timesteps + 1) / 1000, times[:-1])
    given = consistent(prediction, times, schedule)
    assert_equal_steps(
        ours(ddim, given, NOISE, times, schedule, prediction), theirs(scheduler, given, NOISE), 1e-4
    )


@pytest.mark.parametrize(
    ("prediction", "name"), [("noise", "epsilon"), ("x0", "sample"), ("v", "v_prediction")]
)
def test_ddpm_is_ddpm_on_its_own_table(prediction: Prediction, name: str):
    schedule = DDPMTable()
    scheduler = diffusers.DDPMScheduler(prediction_type=name, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    times = time_grid(10)
    given = consistent(prediction, times, schedule)
    source = torch.Generator().manual_seed(5)
    draws = [torch.randn(SHAPE, generator=source) for _ in range(10)]
    mine = ours(ddpm, given, NOISE, times, schedule, prediction, noise=lambda step: draws[step])
    assert_equal_steps(mine, theirs(scheduler, given, NOISE, torch.Generator().manual_seed(5)), 1e-4)


def test_dpmpp_2m_is_dpm_solver_multistep_on_the_table_of_ddpm():
    scheduler = diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    times, schedule = time_grid(10), DDPMTable()
    given = consistent("noise", times, schedule)
    assert_equal_steps(
        ours(dpmpp_2m, given, NOISE, times, schedule, "noise"), theirs(scheduler, given, NOISE), 1e-3
    )


def consistent(prediction: Prediction, times: Tensor, schedule: Schedule) -> list[Tensor]:
    """Outputs that a network might give: the target for a slowly changing x0 and the noise that we start
    from.
    """
    x0s = [0.5 * output for output in outputs(len(times) - 1)]
    return [target(prediction, x0, NOISE, t, schedule) for x0, t in zip(x0s, times)]
