"""Jobs: another process reads the state of a run from its folder, and continuing rewrites nothing it read."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from tests.generation.conditioning.test_tasks import FPS, clip_of
from tests.generation.recording import RecordingBackbone, recorded, with_denoiser

from kinema.errors import KinemaError, ModelError, RequestError
from kinema.generation import job as module
from kinema.generation.conditioning import tasks
from kinema.generation.job import LATENTS, REQUEST, STATE, STATUS, Job, JobStatus
from kinema.generation.request import Request

FOX = Request("a red fox runs", seed=3, width=32, height=32, frames=5, steps=8)
CLIP = dataclasses.replace(FOX, frames=None)


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(tmp_path / "job")


@pytest.fixture(autouse=True)
def _every_step_is_written(monkeypatch) -> None:
    monkeypatch.setattr(module, "STATUS_EVERY_S", 0.0)


def files_of(job: Job) -> dict[str, tuple[int, bytes]]:
    paths = [path for path in job.folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(job.folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_the_status_follows_the_run(pipeline, job):
    job.save_request(FOX)
    assert job.status() == JobStatus("queued")

    seen = []
    pipeline.continue_job(job.folder, on_step=lambda step: seen.append((step, job.status())))
    for step, status in seen:
        assert (status.state, status.phase, status.step, status.total) == (
            "running",
            step.phase,
            step.index + 1,
            step.total,
        )
    done = job.status()
    assert (done.state, done.phase, done.step, done.error) == ("done", "decode", 5, None)
    assert done.started_s is not None
    assert done.updated_s is not None
    assert done.started_s <= done.updated_s


def test_closing_the_iterator_cancels_the_job_which_continues_to_the_same_frames(pipeline, job):
    steps = pipeline.stream(FOX, job=job.folder)
    for _ in range(5):
        next(steps)
    steps.close()
    status = job.status()
    assert (status.state, status.phase, status.step, status.total) == ("cancelled", "sample", 5, 8)

    continued = []
    result = pipeline.continue_job(job.folder, on_step=continued.append)
    assert continued[0].index == 5
    assert np.array_equal(result.video.frames, pipeline.run(FOX).video.frames)


class FailingBackbone(RecordingBackbone):
    """A backbone whose first prediction raises `error`."""

    def __init__(self, backbone, error):
        super().__init__(backbone)
        self.error = error

    def predict(self, *_, **__):
        """No result."""
        raise self.error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModelError("the model\nis broken"), "the model is broken"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (
            MemoryError(),
            "out of memory for 32x32, 5 frames at 8 fps (0.62 s): ask for a smaller size or fewer frames",
        ),
    ],
    ids=["ours", "another", "memory"],
)
def test_an_error_is_one_line_in_the_status(pipeline, job, error, line):
    backbone = FailingBackbone(pipeline.denoiser.backbones["high"], error)
    with pytest.raises((KinemaError, ZeroDivisionError)):
        with_denoiser(pipeline, backbones={"high": backbone}).run(FOX, job=job.folder)
    assert (job.status().state, job.status().error) == ("failed", line)
    pipeline.continue_job(job.folder)
    assert (job.status().state, job.status().error) == ("done", None)


def test_a_folder_becomes_a_job_with_its_last_file(job, monkeypatch):
    request, inputs = tasks.extend(CLIP, clip_of(9), seconds=1, fps=FPS)
    write, written = module._write, []

    def recorded_write(path, content):
        assert not (job.folder / REQUEST).exists()
        written.append(path.name)
        write(path, content)

    monkeypatch.setattr(module, "_write", recorded_write)
    job.save_request(request, inputs)
    job.save_request(request, inputs)
    assert len(written) == 4
    assert [written[1], written[3]] == [REQUEST, REQUEST]

    (job.folder / REQUEST).unlink()
    with pytest.raises(RequestError, match="is not the folder of a job"):
        job.status()


def test_continuing_rewrites_neither_the_request_nor_the_inputs_nor_the_latents(pipeline, job):
    request, inputs = tasks.extend(CLIP, clip_of(9), seconds=1, fps=FPS)
    first = pipeline.run(request, inputs=inputs, job=job.folder)
    before = files_of(job)
    again = pipeline.continue_job(job.folder)
    assert np.array_equal(first.video.frames, again.video.frames)
    after = files_of(job)
    assert {REQUEST, LATENTS, STATUS} < set(before) == set(after)
    assert [name for name in before if before[name] != after[name]] == [STATUS]


def test_latents_that_are_saved_are_decoded_without_encoding_or_sampling(pipeline, job, monkeypatch):
    request, inputs = tasks.extend(CLIP, clip_of(9), seconds=1, fps=FPS)
    first = pipeline.run(request, inputs=inputs, job=job.folder)
    watched, backbone = recorded(pipeline)
    monkeypatch.setattr(type(pipeline.vae), "stream_encode", lambda *_, **__: pytest.fail("encoded"))
    again = watched.continue_job(job.folder)
    assert backbone.batches == []
    assert np.array_equal(first.video.frames, again.video.frames)


def test_a_copy_of_a_stopped_job_continues_from_its_state(pipeline, job, tmp_path):
    steps = pipeline.stream(FOX, job=job.folder)
    for _ in range(6):
        next(steps)
    steps.close()
    before = files_of(job)

    copied = Job(tmp_path / "attempt")
    shutil.copytree(job.folder, copied.folder, ignore=shutil.ignore_patterns(STATUS))
    assert copied.status() == JobStatus("queued")
    result = pipeline.continue_job(copied.folder)
    assert np.array_equal(result.video.frames, pipeline.run(FOX).video.frames)
    assert files_of(job) == before


def test_another_request_for_the_same_inputs_begins_anew(pipeline, job):
    pipeline.run(FOX, job=job.folder)
    job.replace_request(dataclasses.replace(FOX, steps=3))
    assert not (job.folder / LATENTS).exists()
    assert not (job.folder / STATE).exists()
    assert job.status() == JobStatus("queued")
    assert pipeline.continue_job(job.folder).plan.steps == 3


def test_a_damaged_status_is_refused_in_one_line(job):
    job.save_request(FOX)
    for text in ("torn", json.dumps({"state": "done", "extra": 1}), "[]"):
        (job.folder / STATUS).write_text(text)
        with pytest.raises(RequestError, match="is damaged"):
            job.status()


def test_the_caller_can_train_between_two_steps(pipeline):
    weight = torch.ones(3, requires_grad=True)
    steps = pipeline.stream(FOX)
    for _ in steps:
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        loss = (weight * torch.randn(3)).square().sum()
        loss.backward()
    assert weight.grad is not None
