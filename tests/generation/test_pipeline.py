"""The pipeline with tiny random networks: equal seeds give equal bytes, sizes are exact, no work is lost."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.generation.recording import recorded, with_denoiser

import kinema
from kinema.errors import ConfigError, ModelError, OutputError, RequestError
from kinema.generation.job import LATENTS, Job
from kinema.generation.loading import load
from kinema.generation.output.provenance import read_provenance
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.generation.result import Result, Step
from kinema.generation.sampling import denoiser
from kinema.generation.sampling.denoiser import check_components
from kinema.models.dit import DiT
from kinema.models.pixels import to_uint8
from kinema.models.vae import VAE

FOX = Request("a red fox runs", seed=3)
LEVELS = {"fp32": 1, "bf16": 8}
"""Of 255, by which the pixels of two decodings differ at most when their pieces have other lengths."""


def latents_of(pipeline, request):
    return pipeline.sample(pipeline.plan(request))


@pytest.mark.portable
def test_the_same_request_gives_the_same_bytes_and_another_seed_or_prompt_does_not(pipeline, precision):
    first = latents_of(pipeline, FOX)
    assert torch.equal(latents_of(pipeline, FOX), first)
    assert not torch.allclose(latents_of(pipeline, dataclasses.replace(FOX, seed=4)), first, atol=1e-2)
    assert not torch.allclose(
        latents_of(pipeline, dataclasses.replace(FOX, prompt="the blue ball rolls")), first, atol=1e-2
    )


@pytest.mark.portable
def test_the_iterator_and_the_call_give_the_same_bytes(pipeline, precision):
    *steps, result = pipeline.stream(FOX)
    assert np.array_equal(result.video.frames, pipeline.run(FOX).video.frames)
    assert [(step.phase, step.index, step.total) for step in steps[:3]] == [
        ("sample", i, 3) for i in range(3)
    ]
    assert {step.phase for step in steps[3:]} == {"decode"}
    assert (steps[-1].index, steps[-1].total) == (8, 9)
    assert steps[0].x0.shape == (6, 3, 2, 3)


def test_both_halves_of_guidance_as_one_batch_agree_with_one_by_one(pipeline, monkeypatch, precision):
    together = latents_of(pipeline, FOX)
    monkeypatch.setattr(denoiser, "JOINT_TOKENS", 0)
    apart = latents_of(pipeline, FOX)
    assert not torch.equal(together, torch.zeros_like(together))
    tolerance = {"fp32": 1e-4, "bf16": 0.1}[precision]
    torch.testing.assert_close(together, apart, atol=tolerance, rtol=tolerance)


def test_guidance_of_one_needs_no_second_half(pipeline):
    pipeline, backbone = recorded(pipeline)
    latents_of(pipeline, dataclasses.replace(FOX, guidance=1.0))
    latents_of(pipeline, FOX)
    assert backbone.batches == [1, 1, 1, 2, 2, 2]


def test_outside_the_guidance_interval_there_is_no_second_half(pipeline):
    pipeline, backbone = recorded(pipeline)
    latents_of(pipeline, dataclasses.replace(FOX, guidance_interval=(0.5, 0.9), shift=1.0))
    assert backbone.batches == [1, 2, 1]


def test_a_cached_run_says_how_much_it_computed_and_keeps_its_threshold_in_the_file(pipeline):
    pipeline, backbone = recorded(pipeline)
    result = pipeline.run(dataclasses.replace(FOX, steps=12, cache=0.5))
    assert result.report["cache"] == {"computed": len(backbone.batches), "steps": 12}
    assert len(backbone.batches) < 12
    assert result.provenance["request"]["cache"] == 0.5
    assert "cache" not in pipeline.run(FOX).report


def test_a_negative_prompt_changes_the_result(pipeline):
    negative = dataclasses.replace(FOX, negative_prompt="blue ball")
    assert not torch.allclose(latents_of(pipeline, negative), latents_of(pipeline, FOX), atol=1e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"])
def test_every_sampler_runs_and_repeats(pipeline, sampler):
    request = dataclasses.replace(FOX, sampler=sampler, width=32, height=32, frames=5)
    assert torch.equal(latents_of(pipeline, request), latents_of(pipeline, request))


@pytest.mark.parametrize("prediction", ["noise", "x0", "velocity", "v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "ddpm"])
def test_every_prediction_and_schedule_gives_finite_latents(pipeline, prediction, schedule):
    manifest = dataclasses.replace(pipeline.manifest, prediction=prediction, schedule=schedule)
    other = with_denoiser(pipeline, manifest=manifest)
    assert torch.isfinite(latents_of(other, dataclasses.replace(FOX, width=32, height=32, frames=5))).all()


@pytest.mark.parametrize(("width", "height", "frames"), [(100, 76, 6), (48, 32, 1), (33, 47, 17)])
def test_the_asked_size_comes_out(pipeline, width, height, frames):
    result = pipeline.run(Request("a red fox", width=width, height=height, frames=frames, steps=1))
    assert result.video.frames.shape == (frames, height, width, 3)
    assert result.plan.canvas_width % 16 == 0 == result.plan.canvas_height % 16
    assert result.plan.canvas_frames % 4 == 1
    assert result.video.fps == 8.0


def test_the_middle_of_the_canvas_is_shown(pipeline):
    plan = pipeline.plan(dataclasses.replace(FOX, width=42, height=44, frames=7))
    latents = pipeline.sample(plan)
    whole = pipeline.decode(latents, pipeline.plan(dataclasses.replace(FOX, width=48, height=48, frames=9)))
    shown = pipeline.decode(latents, plan)
    assert np.array_equal(shown.frames, whole.frames[:7, 2:46, 3:45])


@pytest.mark.portable
def test_streaming_differs_from_decoding_the_whole_by_few_levels(pipeline, precision):
    plan = pipeline.plan(dataclasses.replace(FOX, frames=17))
    latents = pipeline.sample(plan)
    streamed = pipeline.decode(latents, plan).frames.astype(int)
    with torch.inference_mode():
        whole = to_uint8(pipeline.vae.decode(pipeline.vae.denormalise(latents[None]))[0]).astype(int)
    assert np.abs(whole - streamed).max() <= LEVELS[precision]


def test_latents_are_saved_before_they_are_decoded(pipeline, tmp_path):
    def stop(step):
        if step.phase == "decode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(FOX, on_step=stop, job=tmp_path / "job")
    decoded = pipeline.continue_job(tmp_path / "job")
    assert np.array_equal(decoded.video.frames, pipeline.run(FOX).video.frames)
    assert decoded.plan == pipeline.plan(FOX)


def test_a_job_is_refused_when_it_is_none_or_not_done_or_of_another_model(pipeline, tmp_path):
    with pytest.raises(RequestError, match="is not the folder of a job"):
        pipeline.continue_job(tmp_path)
    job = Job(tmp_path)
    job.save_request(FOX)
    with pytest.raises(RequestError, match="sampling has not finished"):
        job.latents(model_hash=pipeline.model_hash)
    job.save_latents(torch.zeros(6, 3, 2, 3), model_hash="another")
    with pytest.raises(RequestError, match="was made by model another"):
        pipeline.continue_job(tmp_path)
    (tmp_path / LATENTS).write_bytes(b"torn")
    with pytest.raises(RequestError, match="is damaged"):
        pipeline.continue_job(tmp_path)
    job.save_request(FOX)
    assert not (tmp_path / LATENTS).exists()


def test_a_job_folder_that_cannot_be_written_is_said_before_any_work(pipeline, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        next(pipeline.stream(FOX, job=tmp_path / "file" / "job"))


def test_numbers_that_are_not_finite_stop_the_run_and_name_the_step(model_folder):
    broken = load(model_folder)
    calls = []

    def nan_at_the_second_call(_module, _inputs, output):
        calls.append(1)
        return output * float("nan") if len(calls) == 2 else output

    broken.denoiser.backbones["high"].head.register_forward_hook(nan_at_the_second_call)
    seen = []
    with pytest.raises(ModelError, match="step 2 of 3 gave numbers that are not finite"):
        broken.run(FOX, on_step=seen.append)
    assert len(seen) == 1


def test_a_damaged_vae_is_not_a_black_video(model_folder):
    broken = load(model_folder)
    with torch.no_grad():
        broken.vae.post_quant_conv.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="frames 0 to 0 have pixels that are not finite"):
        broken.run(FOX)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_is_said_in_terms_of_the_request(pipeline, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(DiT, "predict", fail)
    with pytest.raises(RequestError, match="out of memory for 48x32, 9 frames"):
        pipeline.run(FOX)


def test_closing_the_iterator_stops_the_sampler(model_folder):
    pipeline = load(model_folder)
    calls = []
    pipeline.denoiser.backbones["high"].head.register_forward_hook(lambda *_: calls.append(1))
    events = pipeline.stream(dataclasses.replace(FOX, steps=50))
    next(events)
    events.close()
    assert len(calls) == 1


def test_an_mp4_holds_what_is_needed_to_make_it_again(pipeline, model_folder, tmp_path):
    result = pipeline.run(
        dataclasses.replace(FOX, prompt='a "red" fox runs 狐狸', width=38, height=34, frames=6)
    )
    values = read_provenance(result.save(tmp_path / "fox.mp4"))
    assert values == result.provenance
    assert values["model"] == values["request"]["model"] == "tiny"
    assert str(model_folder) not in str(values)
    assert values["size"] == [38, 34]
    assert values["canvas"] == {"size": [48, 48], "frames": 9}
    again = pipeline.run(Request(**values["request"]))
    assert np.array_equal(again.video.frames, result.video.frames)


def test_a_file_of_another_program_has_no_provenance(pipeline, tmp_path):
    video = pipeline.run(dataclasses.replace(FOX, steps=1)).video
    assert read_provenance(video.save(tmp_path / "plain.mp4")) is None


def test_the_result_says_how_the_prompt_was_read(pipeline):
    result = pipeline.run(dataclasses.replace(FOX, prompt="a red fox zzzz", steps=1))
    assert result.prompt.unknown == ("zzzz",)
    assert result.model_hash == pipeline.model_hash
    assert result.seconds > 0


def test_parts_of_different_models_are_refused(pipeline, model_folder):
    other = dataclasses.replace(pipeline.vae.config, z_dim=8, latents_mean=(), latents_std=())
    with pytest.raises(ModelError, match="z_dim are 6 and 8"):
        check_components(pipeline.denoiser, VAE(other))


def test_the_public_names(pipeline, model_folder):
    result = kinema.generate("a red fox", model=str(model_folder), steps=1, seconds=0.5)
    assert isinstance(result, Result)
    assert result.video.num_frames == 4
    assert isinstance(kinema.load(model_folder), Pipeline)
    assert kinema.Request is Request
    assert isinstance(next(kinema.load(model_folder).stream(FOX)), Step)
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        kinema.generate("a red fox", stepss=3)
    with pytest.raises(AttributeError, match="no attribute 'videos'"):
        _ = kinema.videos


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, kinema; assert 'generate' in dir(kinema); assert 'torch' not in sys.modules; "
        "assert callable(kinema.generate)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
