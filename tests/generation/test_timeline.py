"""Long videos, loops, and interrupted runs."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from tests.generation.conditioning.test_tasks import FPS, REQUEST, clip_of
from tests.generation.test_pipeline import LEVELS

from kinema.errors import RequestError
from kinema.generation import pipeline as module
from kinema.generation.conditioning import tasks
from kinema.generation.conditioning.encode import KeptFrame
from kinema.generation.job import STATE, Job
from kinema.generation.output.blend import MAX_BLENDED, compose
from kinema.generation.output.decode import OVERVIEW_FRAMES
from kinema.generation.output.quality import QualityMonitor, plot_quality, summary
from kinema.generation.request import Request
from kinema.generation.sampling.circular import circular_network, decode_loop, roll_offsets
from kinema.models.pixels import to_uint8
from kinema.video import Video

LONG = Request(
    "a red fox runs", width=32, height=32, frames=37, steps=2, seed=5, anchor=True, sampler="unipc"
)


def test_a_long_video_is_made_in_windows_and_its_beginning_does_not_depend_on_its_length(pipeline, precision):
    plan = pipeline.plan(LONG)
    assert plan.text.endswith("in 4 windows of up to 17 frames")
    longer = pipeline.plan(dataclasses.replace(LONG, frames=53))
    assert torch.equal(pipeline.sample(plan), pipeline.sample(longer)[:, :10])


def test_the_anchor_is_seen_by_later_windows_only(pipeline):
    with_anchor, without = (
        pipeline.sample(pipeline.plan(dataclasses.replace(LONG, anchor=anchor, window=17)))
        for anchor in (True, False)
    )
    assert not torch.allclose(with_anchor[:, 6:], without[:, 6:], atol=1e-3)


def test_writing_gives_the_frames_of_running(pipeline, tmp_path):
    result = pipeline.write(LONG, tmp_path / "long.mkv")
    assert np.array_equal(Video.read(tmp_path / "long.mkv").frames, pipeline.run(LONG).video.frames)
    assert result.video.num_frames == OVERVIEW_FRAMES


@pytest.mark.parametrize(
    ("sampler", "stop_after", "options"),
    [
        ("unipc", 0, {}),
        ("unipc", 2, {}),
        ("unipc", 5, {}),
        ("ddpm", 3, {}),
        ("heun", 6, {}),
        ("unipc", 10, {"cache": 0.3, "steps": 8, "guidance_interval": (0.0, 0.9)}),
    ],
    ids=str,
)
def test_a_run_that_was_stopped_goes_on_to_the_same_latents(
    pipeline, tmp_path, monkeypatch, sampler, stop_after, options
):
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    request = dataclasses.replace(LONG, **{"sampler": sampler, "steps": 4, "frames": 21} | options)
    steps = itertools.count()

    def stop(step):
        if next(steps) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(request, on_step=stop, job=tmp_path)
    whole = pipeline.sample(pipeline.plan(request))
    seen = []
    pipeline.continue_job(tmp_path, on_step=seen.append)
    assert torch.equal(Job(tmp_path).latents(model_hash=pipeline.model_hash), whole)
    assert not (tmp_path / STATE).exists()
    if stop_after > 1:
        assert seen[0].index > 0  # it did not begin again


def test_an_extension_that_was_stopped_goes_on_with_its_clip(pipeline, tmp_path, precision):
    request, inputs = tasks.extend(REQUEST, clip_of(9), seconds=2, fps=FPS)

    def stop(step):
        if step.index == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(request, inputs=inputs, on_step=stop, job=tmp_path)
    frames = pipeline.continue_job(tmp_path).video.frames
    assert np.array_equal(frames, pipeline.run(request, inputs=inputs).video.frames)


def test_a_damaged_state_or_input_is_one_line(pipeline, tmp_path):
    request, inputs = tasks.extend(REQUEST, clip_of(9), seconds=1, fps=FPS)
    job = Job(tmp_path)
    job.save_request(request, inputs)
    (tmp_path / STATE).write_bytes(b"torn")
    with pytest.raises(RequestError, match="is damaged"):
        pipeline.continue_job(tmp_path)
    next((tmp_path / "inputs").iterdir()).write_bytes(b"torn")
    with pytest.raises(RequestError, match="is missing or damaged"):
        pipeline.continue_job(tmp_path)


def test_decoding_that_runs_out_of_memory_goes_on_in_smaller_pieces_with_the_same_frames(
    pipeline, monkeypatch, precision
):
    usual = pipeline.run(LONG).video.frames
    stream_decode, given = pipeline.vae.stream_decode, []

    def scarce(latents, *, at_once, clamp=False):
        for index, piece in enumerate(stream_decode(latents, at_once=at_once, clamp=clamp)):
            given.append(at_once)
            if at_once > 1 and index == 3:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            yield piece

    monkeypatch.setattr(pipeline.vae, "stream_decode", scarce)
    result = pipeline.run(LONG)
    assert np.abs(result.video.frames.astype(int) - usual).max() <= LEVELS[precision]
    assert result.warnings == (
        "out of memory while decoding 2 latents at once: decoded again in smaller pieces",
    )
    assert set(given) == {1, 2}


def test_a_loop_has_the_asked_length_and_its_decoding_repeats(pipeline, precision):
    request, _ = tasks.loop(dataclasses.replace(REQUEST, frames=16, steps=3), fps=FPS)
    plan = pipeline.plan(request)
    latents = pipeline.sample(plan)
    assert latents.shape[1] == 5
    frames = pipeline.decode(latents, plan).frames
    assert frames.shape == (16, 32, 48, 3)
    # The turn after the one that is shown is the same, so playing it again shows no seam that is not in it.
    with torch.inference_mode():
        z = pipeline.vae.denormalise(latents[None])
        turns = torch.cat([z[:, :, :1], *[z[:, :, 1:]] * 6], dim=2)
        whole = to_uint8(pipeline.vae.decode(turns)[0])
    assert np.abs(whole[-16:].astype(int) - frames).max() <= LEVELS[precision]
    assert np.abs(whole[-32:-16].astype(int) - frames).max() <= LEVELS[precision]


def test_a_loop_of_a_clip_keeps_it(pipeline):
    clip = clip_of(8)
    request, inputs = tasks.loop(dataclasses.replace(REQUEST, frames=24), clip, fps=FPS)
    frames = pipeline.run(request, inputs=inputs).video.frames
    assert np.array_equal(frames[:8], clip.frames)
    assert len(frames) == 24


def test_seconds_of_a_loop_are_rounded_to_whole_latents_and_the_plan_says_so(pipeline):
    request, _ = tasks.loop(dataclasses.replace(REQUEST, seconds=1.2), fps=FPS)
    assert pipeline.plan(request).text.startswith("48x32, 12 frames at 8 fps (1.50 s), a seamless loop")


@pytest.mark.parametrize(("k", "arc"), [(4, 4), (7, 4), (8, 3)])
def test_a_circle_is_covered_and_a_pointwise_network_is_unchanged(k, arc):
    x = torch.randn(1, 2, 1 + k, 3, 3)
    times = torch.linspace(1, 0, 9)
    ring = circular_network(lambda shown, t: 2 * shown, arc, roll_offsets(times, k))
    for t in times:
        torch.testing.assert_close(ring(x, t.expand(1, 1, 1 + k, 3, 3)), 2 * x)


def test_the_seam_of_the_ring_moves():
    assert len({roll_offsets(torch.linspace(1, 0, 21), 8)(t) for t in torch.linspace(1, 0, 21)}) == 8


def test_a_ring_rolled_by_one_latent_decodes_to_the_loop_rolled_by_four_frames(pipeline, precision):
    torch.manual_seed(0)
    latents = torch.randn(6, 5, 2, 2)
    rolled = torch.cat([latents[:, :1], latents[:, 1:].roll(1, dims=1)], dim=1)

    def turn(z):
        return np.concatenate(
            [to_uint8(piece[0]) for piece, is_shown in decode_loop(pipeline.vae, z, 1) if is_shown]
        )

    assert np.abs(turn(rolled).astype(int) - np.roll(turn(latents), 4, axis=0)).max() <= LEVELS[precision]


def test_beside_kept_frames_at_most_four_are_blended_and_standing_pixels_meet_them():
    decoded = [np.full((4, 4, 3), 100, np.uint8) for _ in range(20)]
    kept = {index: KeptFrame(np.full((4, 4, 3), 120, np.uint8)) for index in range(8, 12)}
    out = [int(frame[0, 0, 0]) for frame in compose(iter(decoded), kept)]
    assert out[8:12] == [120] * 4
    assert out[12 : 12 + MAX_BLENDED] == [120, 115, 110, 105] == out[4:8][::-1]
    assert out[:4] == [100] * 4 == out[16:]


def test_pixels_that_have_moved_are_not_pulled_towards_the_kept_frame():
    decoded = [np.full((1, 2, 3), 0, np.uint8), np.array([[[0] * 3, [250] * 3]], np.uint8)]
    kept = {0: KeptFrame(np.full((1, 2, 3), 20, np.uint8))}
    _, beside = compose(iter(decoded), kept)
    assert beside[0, :, 0].tolist() == [20, 250]


def test_a_long_result_reports_its_windows_and_joins(pipeline):
    result = pipeline.run(LONG)
    report = result.report
    assert [window["from_s"] for window in report["windows"]] == [0.0, 13 / 8, 21 / 8, 29 / 8]
    assert [join["frame"] for join in report["joins"]] == [13, 21, 29]
    frames = result.video.frames.astype(float)
    assert report["joins"][0]["error"] == pytest.approx(np.abs(frames[13] - frames[12]).mean(), abs=1e-3)
    assert report["windows"][1]["red"] == pytest.approx(frames[13:21, ..., 0].mean(), abs=1e-3)
    assert set(report["slopes"]) == {"red", "green", "blue", "contrast", "sharpness", "clip_similarity"}
    assert plot_quality(report).shape == (6 * 110 + 30, 640, 3)


def test_an_added_metric_is_in_the_report(pipeline):
    pipeline = pipeline.with_metrics({"frames": lambda frames, prompt: len(frames)})
    assert [window["frames"] for window in pipeline.run(LONG).report["windows"]] == [13, 8, 8, 8]


def test_a_metric_may_answer_in_words_which_are_counted_and_drawn(pipeline):
    answers = iter(["fox", "fox", "bee", "fox"])
    pipeline = pipeline.with_metrics({"noun": lambda frames, prompt: next(answers)})
    report = pipeline.run(LONG).report
    assert [window["noun"] for window in report["windows"]] == ["fox", "fox", "bee", "fox"]
    assert "noun" not in report["slopes"]
    assert "noun 'fox' in 3 of 4 windows" in summary(report)
    assert plot_quality(report).shape == (6 * 110 + 32 + 30, 640, 3)


def test_what_is_made_in_one_window_has_no_windows_to_report(pipeline):
    request, inputs = tasks.pictures(dataclasses.replace(REQUEST, frames=9), first=clip_of(1))
    report = pipeline.run(request, inputs=inputs).report
    assert "windows" not in report
    assert [join["frame"] for join in report["joins"]] == [1]


def test_a_loop_reports_its_seam_and_what_moves(pipeline):
    request, _ = tasks.loop(dataclasses.replace(REQUEST, frames=16), fps=FPS)
    result = pipeline.run(request)
    frames = result.video.frames.astype(float)
    assert result.report["loop"]["seam"] == pytest.approx(np.abs(frames[-1] - frames[0]).mean(), abs=1e-3)
    assert result.report["loop"]["motion"] == pytest.approx(np.abs(np.diff(frames, axis=0)).mean(), abs=1e-3)


def test_a_still_video_is_called_frozen(pipeline):
    plan = pipeline.plan(dataclasses.replace(LONG, frames=5))
    watch = QualityMonitor(plan, {}, {})
    assert len(list(watch.over(iter([np.zeros((4, 4, 3), np.uint8)] * 5)))) == 5
    assert watch.report["is_frozen"]
