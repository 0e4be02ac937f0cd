"""Batches: each result of a batch is that of its single run, up to rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.generation.conditioning.test_tasks import FPS, clip_of
from tests.generation.recording import RecordingBackbone, recorded, with_denoiser

from kinema.errors import ModelError, RequestError
from kinema.generation.batch import BatchItem
from kinema.generation.conditioning import tasks
from kinema.generation.job import Job
from kinema.generation.plan import batch_key
from kinema.generation.request import Request
from kinema.generation.result import Failure, Result, Step
from kinema.video import Video

FOX = Request("a red fox runs", seed=3, width=48, height=32, steps=3)
OTHERS = [
    FOX,
    replace(FOX, prompt="the blue ball rolls down a hill", seed=4, guidance=2.0),
    replace(FOX, prompt="a bee", seed=4, negative_prompt="blue"),
]
LONG = [replace(request, width=32, frames=37, steps=4, anchor=True, sampler="unipc") for request in OTHERS]
CLIP = replace(FOX, prompt="")


def latents_of(pipeline, requests, tmp_path, name):
    """The latents that a batch of requests with job folders ends with."""
    items = [BatchItem(request, job=tmp_path / name / str(i)) for i, request in enumerate(requests)]
    assert all(isinstance(result, Result) for result in pipeline.run_many(items))
    return [Job(item.job).latents(model_hash=pipeline.model_hash) for item in items]


@pytest.mark.parametrize(
    "requests",
    [
        OTHERS,
        LONG,
        [replace(request, frames=16, loop=True) for request in OTHERS],
        [replace(request, sampler="ddpm") for request in OTHERS],
        [replace(request, steps=12, cache=0.3) for request in OTHERS],
        [replace(request, guidance_interval=(0.3, 0.9)) for request in OTHERS],
        [replace(request, guidance=1.0, negative_prompt="") for request in OTHERS],
    ],
    ids=["text", "windows", "loop", "ddpm", "cache", "interval", "no guidance"],
)
def test_the_latents_of_a_batch_are_those_of_single_runs(pipeline, requests, tmp_path):
    single = [pipeline.sample(pipeline.plan(request)) for request in requests]
    for one, batched in zip(single, latents_of(pipeline, requests, tmp_path, "batch")):
        torch.testing.assert_close(batched, one, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(single[0], single[1], atol=1e-2)


def test_a_batch_is_one_call_of_the_backbone_per_step(pipeline):
    pipeline, backbone = recorded(pipeline)
    pipeline.run_many(OTHERS)
    assert backbone.batches == [6, 6, 6]


def test_the_frames_of_a_batch_are_those_of_single_runs_within_a_level(pipeline, tmp_path):
    paths = [tmp_path / f"{i}.mkv" for i in range(3)]
    results = pipeline.run_many([BatchItem(request, path=path) for request, path in zip(LONG, paths)])
    for request, path, result in zip(LONG, paths, results):
        single = pipeline.run(request)
        frames = Video.read(path).frames
        assert np.abs(frames.astype(int) - single.video.frames).max() <= 1
        assert result.path == path
        assert result.plan == single.plan
        assert result.similarity == pytest.approx(single.similarity, abs=0.05)
        assert [window["prompt"] for window in result.report["windows"]] == [request.prompt] * 4


def test_every_request_of_a_batch_keeps_its_own_clip(pipeline):
    works = [
        tasks.extend(replace(CLIP, seed=seed), clip_of(9, seed=seed), seconds=1, fps=FPS) for seed in (1, 2)
    ]
    results = pipeline.run_many([BatchItem(request, inputs) for request, inputs in works])
    for seed, result, (request, inputs) in zip((1, 2), results, works):
        assert np.array_equal(result.video.frames[:9], clip_of(9, seed=seed).frames)
        single = pipeline.run(request, inputs=inputs).video.frames
        assert np.abs(result.video.frames.astype(int) - single).max() <= 1


def test_edits_of_different_regions_are_one_batch(pipeline):
    regions = [(0, 0, 16, 16), (16, 16, 32, 16)]
    works = [
        tasks.edit(FOX, clip_of(9, seed=seed), strength=0.6, region=region, fps=FPS)
        for seed, region in enumerate(regions)
    ]
    results = pipeline.run_many([BatchItem(request, inputs) for request, inputs in works])
    for result, (request, inputs) in zip(results, works):
        single = pipeline.run(request, inputs=inputs).video.frames
        assert np.abs(result.video.frames.astype(int) - single).max() <= 1


def test_steps_of_a_batch_name_their_request(pipeline):
    *events, first, second, third = pipeline.stream_many(OTHERS)
    sampled = [(event.item, event.index) for event in events if event.phase == "sample"]
    assert sampled == [(item, index) for index in range(3) for item in range(3)]
    assert all(isinstance(event, Step) for event in events)
    assert [result.item for result in (first, second, third)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 64}, r"size \(size: 64x32 and 48x32\)"),
        ({"steps": 4}, "steps"),
        ({"sampler": "ddim"}, "sampler"),
        ({"guidance": 1.0}, r"guidance \(guidance: off and on\)"),
        ({"cache": 0.1}, "cache"),
        ({"loop": True, "frames": 8}, "frames, loop"),
        ({"shift": 3.3}, "shift"),
    ],
    ids=str,
)
def test_requests_that_do_not_fit_into_one_batch_are_refused(pipeline, change, named):
    other = replace(FOX, **change)
    assert batch_key(pipeline.plan(other)) != batch_key(pipeline.plan(FOX))
    with pytest.raises(RequestError, match=f"request 2 cannot be in one batch .* differ in .*{named}"):
        pipeline.run_many([FOX, other])


def test_an_empty_batch_is_refused(pipeline):
    with pytest.raises(RequestError, match="at least one request"):
        pipeline.run_many([])


def test_prompts_seeds_and_guidance_scales_do_not_change_the_key(pipeline):
    assert len({batch_key(pipeline.plan(request)) for request in OTHERS}) == 1


class DamagedBackbone(RecordingBackbone):
    """A backbone whose second prediction is not a number for the second clip."""

    def predict(self, *given, **options):
        """The result of the backbone, damaged."""
        output = super().predict(*given, **options).clone()
        if len(self.batches) == 2:
            output[1] = float("nan")
        return output


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_request_that_fails_does_not_end_the_others(pipeline, tmp_path, guidance):
    requests = [replace(request, guidance=guidance, negative_prompt="") for request in OTHERS]
    items = [BatchItem(request, job=tmp_path / str(i)) for i, request in enumerate(requests)]
    backbone = DamagedBackbone(pipeline.denoiser.backbones["high"])
    first, second, third = with_denoiser(pipeline, backbones={"high": backbone}).run_many(items)

    assert isinstance(second, Failure)
    assert isinstance(second.error, ModelError)
    assert "step 2 of 3" in str(second.error)
    assert [Job(item.job).status().state for item in items] == ["done", "failed", "done"]
    for request, result in ((requests[0], first), (requests[2], third)):
        single = pipeline.run(request).video.frames
        assert np.abs(result.video.frames.astype(int) - single).max() <= 1


def test_a_batch_that_was_stopped_continues_together_or_one_by_one(pipeline, tmp_path):
    requests = [replace(request, steps=9) for request in OTHERS[:2]]
    items = [BatchItem(request, job=tmp_path / str(i)) for i, request in enumerate(requests)]
    events = pipeline.stream_many(items)
    for _ in range(10):
        next(events)
    events.close()
    assert [Job(item.job).status().state for item in items] == ["cancelled"] * 2

    alone = pipeline.continue_job(items[0].job)
    assert np.abs(alone.video.frames.astype(int) - pipeline.run(requests[0]).video.frames).max() <= 1
    with pytest.raises(RequestError, match="continue them one by one"):
        pipeline.run_many([BatchItem.of_job(item.job) for item in items])
    assert Job(items[1].job).status().state == "failed"


def test_jobs_that_stopped_at_one_step_continue_as_a_batch(pipeline, tmp_path):
    requests = [replace(request, steps=9) for request in OTHERS[:2]]
    items = [BatchItem(request, job=tmp_path / str(i)) for i, request in enumerate(requests)]
    events = pipeline.stream_many(items)
    for _ in range(10):
        next(events)
    events.close()

    whole = pipeline.run_many(requests)
    seen = []
    continued = pipeline.run_many([BatchItem.of_job(item.job) for item in items], on_step=seen.append)
    assert seen[0].index == 5
    for one, other in zip(whole, continued):
        assert np.array_equal(one.video.frames, other.video.frames)
