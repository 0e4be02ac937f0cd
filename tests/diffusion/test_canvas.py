"""The canvas: known tokens stay bit for bit, edited ones start where they should, and the network sees one
time per token.
"""

import pytest
import torch
from tests.diffusion.sampling import end
from torch import Tensor

from kinema.diffusion.canvas import Canvas, with_canvas
from kinema.diffusion.samplers import SAMPLERS
from kinema.diffusion.schedules import SCHEDULES, Cosine, Linear, Schedule, time_grid

SHAPE = (2, 3, 4, 5, 6)
ALL = [pytest.param(schedule(), id=name) for name, schedule in SCHEDULES.items()]
CLEAN, NOISE = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in that mixes neighbours and depends on every token's time."""
    assert x.shape == SHAPE
    assert t.shape == (SHAPE[0], 1, *SHAPE[2:])
    return 0.5 * torch.tanh(x + x.mean(dim=(2, 3, 4), keepdim=True)) * (1 - 0.3 * t)


def draw(step: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1000 + step))


def frame(index: int) -> Tensor:
    """Where latent frame `index` is."""
    where = torch.zeros(SHAPE[0], 1, *SHAPE[2:], dtype=torch.bool)
    where[:, :, index] = True
    return where


def first_frame() -> Canvas:
    return Canvas.empty(SHAPE).paint(CLEAN, frame(0))


def mask(seed: int = 1) -> Tensor:
    return torch.rand(SHAPE[0], 1, *SHAPE[2:], generator=torch.Generator().manual_seed(seed)) < 0.4


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize("name", SAMPLERS)
def test_known_tokens_come_back_bit_for_bit(name: str, schedule: Schedule, native: bool):
    canvas = Canvas.empty(SHAPE).paint(CLEAN, mask())
    denoise = with_canvas(network, canvas, schedule, NOISE, native=native)
    result = canvas.finish(end(name, denoise, NOISE, time_grid(4), schedule, draw))
    where = canvas.known.expand(SHAPE)
    assert torch.equal(result[where], CLEAN[where])
    assert torch.isfinite(result).all()
    assert not torch.isclose(result[~where], CLEAN[~where]).any(dim=0).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_empty_canvas_changes_nothing(name: str):
    def plain(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t.expand(SHAPE[0], 1, *SHAPE[2:]))

    canvas, times = Canvas.empty(SHAPE), time_grid(5, shift=3.0)
    for native in (True, False):
        denoise = with_canvas(network, canvas, Linear(), NOISE, native=native)
        painted = end(name, denoise, canvas.at(times[0], NOISE, Linear()), times, Linear(), draw)
        assert torch.equal(painted, end(name, plain, NOISE, times, Linear(), draw))
        assert torch.equal(canvas.finish(painted), painted)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_full_canvas_gives_what_was_painted(name: str):
    canvas = Canvas.empty(SHAPE).paint(CLEAN, torch.tensor(True))
    denoise = with_canvas(network, canvas, Linear(), NOISE)
    result = end(name, denoise, NOISE, time_grid(5), Linear(), draw)
    torch.testing.assert_close(result, CLEAN)
    assert torch.equal(canvas.finish(result), CLEAN)
    assert canvas.first_time == 0


@pytest.mark.parametrize("schedule", ALL)
def test_network_sees_known_tokens_clean_at_time_zero(schedule: Schedule):
    seen: list[float] = []

    def check(x: Tensor, t: Tensor) -> Tensor:
        assert torch.equal(x[:, :, 0], CLEAN[:, :, 0])
        assert (t[:, :, 0] == 0).all()
        assert t[:, :, 1:].unique().numel() == 1
        seen.append(float(t.max()))
        return network(x, t)

    times = time_grid(5)
    end("ddim", with_canvas(check, first_frame(), schedule, NOISE), NOISE, times, schedule)
    assert seen == times[:-1].tolist()


@pytest.mark.parametrize("schedule", ALL)
def test_networks_without_a_time_per_token_see_known_tokens_at_the_current_noise(schedule: Schedule):
    def check(x: Tensor, t: Tensor) -> Tensor:
        assert t.unique().numel() == 1
        now = t.flatten()[0]
        torch.testing.assert_close(
            x[:, :, 0], schedule.alpha(now) * CLEAN[:, :, 0] + schedule.sigma(now) * NOISE[:, :, 0]
        )
        return network(x, t)

    end(
        "ddim",
        with_canvas(check, first_frame(), schedule, NOISE, native=False),
        NOISE,
        time_grid(5),
        schedule,
    )


def test_an_edited_token_waits_at_its_level_and_is_then_free():
    where, start = mask(), 0.5
    canvas = Canvas.empty(SHAPE).paint(CLEAN, where, start=start)
    waiting, schedule = 0.5 * CLEAN + 0.5 * NOISE, Linear()
    inside, per_token = where.expand(SHAPE), where
    samples = {}

    def check(x: Tensor, t: Tensor) -> Tensor:
        now = float(t.max())
        if now > start:
            torch.testing.assert_close(x[inside], waiting[inside])
        assert (t[per_token] == min(now, start)).all()
        samples[now] = x
        return network(x, t)

    denoise, times = with_canvas(check, canvas, schedule, NOISE), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    x0 = denoise(NOISE, times[0])
    assert torch.equal(x0[inside], CLEAN[inside])
    result = end("ddim", denoise, NOISE, times, schedule)
    torch.testing.assert_close(samples[0.5][inside], waiting[inside])
    assert not torch.allclose(samples[0.25][inside], (0.75 * CLEAN + 0.25 * NOISE)[inside])
    assert not torch.allclose(result[inside], CLEAN[inside])


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=str)
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ddpm"])
def test_every_deterministic_sampler_brings_a_waiting_token_to_its_level(name: str, schedule: Schedule):
    canvas = Canvas.empty(SHAPE).paint(CLEAN, torch.tensor(True), start=0.4)
    reached: list[Tensor] = []

    def check(x: Tensor, t: Tensor) -> Tensor:
        reached.append(x)
        return network(x, t)

    end(
        name,
        with_canvas(check, canvas, schedule, NOISE),
        NOISE,
        torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        schedule,
    )
    level = torch.tensor(0.4)
    for x in reached[:4]:
        torch.testing.assert_close(
            x, schedule.alpha(level) * CLEAN + schedule.sigma(level) * NOISE, rtol=1e-4, atol=1e-5
        )


def test_editing_from_its_own_level_is_sampling_from_noisy_clean():
    canvas, schedule = Canvas.empty(SHAPE).paint(CLEAN, torch.tensor(True), start=0.6), Linear()
    times = time_grid(10, start=canvas.first_time)
    begin = canvas.at(times[0], NOISE, schedule)
    torch.testing.assert_close(begin, 0.4 * CLEAN + 0.6 * NOISE)

    def plain(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t.expand(SHAPE[0], 1, *SHAPE[2:]))

    edited = end("ddim", with_canvas(network, canvas, schedule, NOISE), begin, times, schedule)
    assert torch.equal(edited, end("ddim", plain, begin, times, schedule))


def test_lower_levels_stay_nearer_to_the_original():
    distances = []
    for start in (0.2, 0.5, 0.8):
        canvas = Canvas.empty(SHAPE).paint(CLEAN, torch.tensor(True), start=start)
        times = time_grid(20, start=start)
        x = canvas.at(times[0], NOISE, Linear())
        distances.append(
            float(
                (
                    end("ddim", with_canvas(network, canvas, Linear(), NOISE), x, times, Linear()) - CLEAN
                ).norm()
            )
        )
    assert distances == sorted(distances)


def test_later_paint_covers_earlier_paint():
    canvas = (
        Canvas.empty(SHAPE)
        .paint(CLEAN, torch.tensor(True))
        .paint(NOISE, mask(), start=0.5)
        .paint(CLEAN, frame(-1))
    )
    assert torch.equal(canvas.clean[:, :, -1], CLEAN[:, :, -1])
    assert canvas.known[:, :, -1].all()
    inner, where = canvas.start[:, :, :-1], mask()[:, :, :-1]
    assert torch.equal(inner, where * 0.5)
    freed = canvas.paint(CLEAN, torch.tensor(True), start=1.0)
    assert not freed.known.any()
    assert freed.first_time == 1


def test_samples_of_a_batch_do_not_touch_one_another():
    canvas = Canvas.empty(SHAPE).paint(CLEAN, mask())
    both = end("ddim", with_canvas(network, canvas, Linear(), NOISE), NOISE, time_grid(4), Linear())

    def single(x: Tensor, t: Tensor) -> Tensor:
        return network(x.expand(SHAPE), t.expand(SHAPE[0], -1, -1, -1, -1))[:1]

    for i in range(2):
        alone = Canvas(canvas.clean[i : i + 1], canvas.known[i : i + 1], canvas.start[i : i + 1])
        x = end(
            "ddim",
            with_canvas(single, alone, Linear(), NOISE[i : i + 1]),
            NOISE[i : i + 1],
            time_grid(4),
            Linear(),
        )
        torch.testing.assert_close(x, both[i : i + 1])


def test_contradictions_are_refused():
    empty = Canvas.empty(SHAPE)
    one = torch.ones_like(empty.start)
    with pytest.raises(ValueError, match="start = 0"):
        Canvas(empty.clean, empty.known, one * 0)
    with pytest.raises(ValueError, match="start = 0"):
        Canvas(empty.clean, ~empty.known, one)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        Canvas(empty.clean, empty.known, one * 1.5)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        empty.paint(CLEAN, mask(), start=-0.1)
    with pytest.raises(ValueError, match="shape"):
        Canvas.empty((3, 4, 5))
    with pytest.raises(
        (ValueError, TypeError), match=r"1, ?1, ?4"
    ):  # a TypeError where shapes are checked at every call
        Canvas(empty.clean, empty.known[:1], empty.start[:1])
