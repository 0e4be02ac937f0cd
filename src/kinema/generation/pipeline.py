"""The pipeline: from a request to a video.

request -> plan -> canvas -> sampler around the guided backbone -> latents (saved) -> streaming decoder ->
video
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.shipped import SHIPPED
from kinema.device import is_out_of_memory
from kinema.diffusion.canvas import with_canvas
from kinema.diffusion.samplers import SAMPLERS, SamplerStep, Walk
from kinema.diffusion.step_cache import with_cache
from kinema.errors import ModelError, RequestError
from kinema.generation.conditioning.clips import Inputs
from kinema.generation.conditioning.encode import (
    EncodedConditions,
    describe_inputs,
    encode_conditions,
    kept_pixels,
)
from kinema.generation.events import iterate
from kinema.generation.job import Job, SamplingState
from kinema.generation.output.blend import compose
from kinema.generation.output.provenance import metadata, provenance
from kinema.generation.output.quality import FrameMetric, QualityMonitor
from kinema.generation.plan import Plan, make_plan
from kinema.generation.request import Request
from kinema.generation.result import OnStep, Result, Step
from kinema.generation.sampling.circular import circular_network, decode_loop, roll_offsets
from kinema.generation.sampling.denoiser import Denoiser, GuidedRun
from kinema.generation.sampling.noise import START, STEP, latent_noise
from kinema.generation.sampling.windows import WindowSample, cut_window, insert_sample, num_windows
from kinema.models.clip import CLIP
from kinema.models.pixels import from_uint8, to_uint8
from kinema.models.vae import VAE
from kinema.prompts.reading import PromptReport
from kinema.registry import lookup
from kinema.shapes import Float, UInt8
from kinema.video import Video, VideoWriter
from kinema.video.writing import LOSSY

log = logging.getLogger(__name__)

AT_ONCE = (2, 1)
"""Latent frames that are decoded at once. The next number is used if memory runs out."""
SAVE_EVERY = 4
"""Sampler steps between two saves of the sampling state."""
OVERVIEW_FRAMES = 33
STREAMED = frozenset(LOSSY)
"""Suffixes of the formats that are written while the video is decoded."""
Consume = Callable[[Plan, Iterator[np.ndarray]], Video]
"""Collects or writes the frames of a result, and returns the video or an overview of it."""


class Pipeline:
    """A model that is ready to generate: backbone, VAE and text encoder on one device."""

    def __init__(
        self,
        denoiser: Denoiser,
        vae: VAE,
        *,
        model: str = SHIPPED,
        model_hash: str,
        metrics: Mapping[str, FrameMetric] | None = None,
    ) -> None:
        """All networks must be on one device. `model` is the model's name in requests.

        `metrics` measure each window of a long result, for its quality report; a CLIP adds its similarity.
        """
        self.denoiser, self.vae = denoiser, vae
        self.vae.precision = denoiser.precision
        self.manifest, self.text_encoder = denoiser.manifest, denoiser.text_encoder
        self.model = model
        self.model_hash = model_hash
        self.device = denoiser.device
        clip = self.text_encoder
        own = {"clip_similarity": partial(similarity, clip)} if isinstance(clip, CLIP) else {}
        self.metrics: Mapping[str, FrameMetric] = {**own, **(metrics or {})}
        self.schedule = denoiser.schedule

    def with_metrics(self, metrics: Mapping[str, FrameMetric]) -> "Pipeline":
        """This pipeline with more metrics of each window."""
        both = {**self.metrics, **metrics}
        return Pipeline(self.denoiser, self.vae, model=self.model, model_hash=self.model_hash, metrics=both)

    def plan(self, request: Request) -> Plan:
        """What this model will do for `request`; no network runs. Raises `RequestError` for what it cannot
        do."""
        request = replace(request, model=self.model)
        plan = make_plan(request, self.manifest, temporal_factor=self.vae.config.temporal_factor)
        self.denoiser.check(plan)
        return plan

    def read_prompt(self, prompt: str) -> PromptReport:
        """How this model's text encoder reads a prompt."""
        return self.text_encoder.read_prompt(prompt)

    def generate(
        self, request: Request, *, inputs: Inputs | None = None, job: Path | None = None
    ) -> Iterator[Step | Result]:
        """A `Step` for each unit of work, and the `Result` last. Closing the iterator cancels the run.

        The run is in a thread that waits while the caller handles a step. See `run` for `inputs`, `job` and
        errors.
        """
        return iterate(lambda report: self.run(request, inputs=inputs, on_step=report, job=job))

    @torch.inference_mode()
    def run(
        self,
        request: Request,
        *,
        inputs: Inputs | None = None,
        on_step: OnStep | None = None,
        job: Path | None = None,
    ) -> Result:
        """The video of `request`.

        `inputs` are the clips and pictures that the request's conditions name. `on_step` is called after each
        unit of work; an exception in it ends the run. With `job`, a folder, the run can be continued from
        there (see `continue_job`). Equal requests give equal bytes on one machine with one number of threads.

        Raises `RequestError` for a request that the model cannot fulfil or that exceeds the memory,
        `OutputError` for a job folder that cannot be written, and `ModelError` with the step for a number
        that is not finite.
        """
        return self._run(request, inputs or {}, _collected, on_step, job)

    @torch.inference_mode()
    def write(
        self,
        request: Request,
        path: Path,
        *,
        inputs: Inputs | None = None,
        on_step: OnStep | None = None,
        job: Path | None = None,
    ) -> Result:
        """Like `run`, but the video is written to `path` while it is decoded, in constant memory for any
        length.

        The result's `video` is then an overview: at most `OVERVIEW_FRAMES` frames, evenly spaced.
        """
        return self._run(request, inputs or {}, partial(self._write_frames, path), on_step, job)

    @torch.inference_mode()
    def continue_job(
        self, folder: Path, *, path: Path | None = None, on_step: OnStep | None = None
    ) -> Result:
        """The result of an interrupted job. Its latents equal those of an uninterrupted run, byte for byte.

        With `path` the video is written there, as by `write`. Raises `RequestError` for a folder that is not
        a job, or is another model's, and the errors of `run`.
        """
        job = Job(folder)
        request = job.request()
        consume = _collected if path is None else partial(self._write_frames, path)
        return self._run(request, job.inputs(request), consume, on_step, folder, is_continued=True)

    def _run(
        self,
        request: Request,
        inputs: Inputs,
        consume: "Consume",
        on_step: OnStep | None,
        job: Path | None,
        is_continued: bool = False,
    ) -> Result:
        start_s = time.perf_counter()
        plan = self.plan(request)
        notes, warnings = describe_inputs(plan, inputs), list[str]()
        cache_counts: dict[str, int] = {}
        if plan.request.cache is not None:
            on_step = _counted(on_step, cache_counts)
        folder = Job(job) if job is not None else None
        if folder is not None and not is_continued:
            folder.save_request(plan.request, inputs)

        with _memory_errors(plan):
            if folder is not None and folder.is_sampled:
                latents = folder.latents(model_hash=self.model_hash).to(self.device)
                kept = kept_pixels(plan, inputs)
            else:
                conditions = encode_conditions(plan, inputs, self.vae, self.device)
                latents = self.sample(plan, conditions=conditions, on_step=on_step, job=folder)
                kept = conditions.kept
                if folder is not None:
                    folder.save_latents(latents, model_hash=self.model_hash)

            monitor = QualityMonitor(plan, kept, self.metrics)
            frames = compose(self.frames(latents, plan, on_step=on_step, warnings=warnings), kept)
            video = consume(plan, monitor.over(frames))

        report = monitor.report | ({"cache": cache_counts} if cache_counts else {})
        return Result(
            video,
            plan,
            self.read_prompt(plan.request.prompt),
            self.manifest.name,
            self.model_hash,
            self._similarity(video, plan.request.prompt),
            time.perf_counter() - start_s,
            tuple(notes),
            tuple(warnings),
            report,
        )

    @torch.inference_mode()
    def sample(
        self,
        plan: Plan,
        *,
        conditions: EncodedConditions | None = None,
        on_step: OnStep | None = None,
        job: Job | None = None,
    ) -> Float[Tensor, "c lf lh lw"]:
        """The clean, normalised latents of the plan's canvas.

        With `job`, sampling continues from the state that is saved there, and saves its state every few
        steps. Raises `ModelError` if a step gives a number that is not finite.
        """
        if conditions is None:
            conditions = encode_conditions(plan, {}, self.vae, self.device)
        canvas = conditions.canvas
        state = job.state(model_hash=self.model_hash) if job is not None else None
        state = state or SamplingState()
        latents = canvas.clean if state.latents is None else state.latents.to(self.device)

        run = self.denoiser.for_run([plan], [conditions.pictures])
        progress = _Progress(self, plan, on_step, job, state)
        for index in range(state.window, num_windows(plan)):
            window = cut_window([plan], index, canvas, latents)
            if window.canvas.first_time > 0:
                latents = insert_sample(latents, window, self._sample_window(plan, run, window, progress))
            progress.finish_window(latents)
        return latents[0]

    def _sample_window(
        self, plan: Plan, run: GuidedRun, window: WindowSample, progress: "_Progress"
    ) -> Float[Tensor, "1 c lf lh lw"]:
        """The sampled latents of one window."""
        canvas, state = window.canvas, progress.state
        _, c, num_latents, lh, lw = canvas.clean.shape

        def noise(stream: str, step: int) -> Tensor:
            drawn = latent_noise(plan.request.seed, stream, window.latent_frames, (c, lh, lw), step)
            return drawn.unsqueeze(0).to(self.device)

        times = self.denoiser.times(plan, canvas.first_time)
        start = noise(START, 0)
        x = canvas.at(times[0], start, self.schedule) if state.x is None else state.x.to(self.device)
        state.memory = [tensor.to(self.device) for tensor in state.memory]
        state.cache.tensors = [tensor.to(self.device) for tensor in state.cache.tensors]
        progress.num_steps = len(times) - 1

        network = run.network(window.prompts, first_frame=window.first_coordinate)
        if window.is_loop:
            segment = max(1, plan.window - 1)
            network = circular_network(network, segment, roll_offsets(times, num_latents - 1))
        if plan.request.cache is not None:
            network = with_cache(
                network,
                plan.request.cache,
                [state.cache],
                last=float(times[-2]),
                regime=partial(self.denoiser.regime, plan),
            )
        denoise = with_canvas(network, canvas, self.schedule, start, native=self.manifest.time_per_token)
        walk = Walk(
            times,
            self.schedule,
            noise=partial(noise, STEP),
            first_step=state.next_step,
            memory=state.memory,
        )
        for step in lookup(SAMPLERS, plan.sampler, kind="sampler")(denoise, x, walk):
            progress.finish_step(step)
            x = step.x
        return canvas.finish(x)

    @torch.inference_mode()
    def decode(
        self, latents: Float[Tensor, "c lf lh lw"], plan: Plan, *, on_step: OnStep | None = None
    ) -> Video:
        """The decoded video of the plan, cropped to the centre of the canvas. See `frames`."""
        return _collected(plan, self.frames(latents, plan, on_step=on_step))

    def frames(
        self,
        latents: Float[Tensor, "c lf lh lw"],
        plan: Plan,
        *,
        on_step: OnStep | None = None,
        warnings: list[str] | None = None,
    ) -> Iterator[np.ndarray]:
        """The decoded frames of the plan's video, uint8 (h, w, 3), one by one; a few latent frames are
        decoded at a time.

        If memory runs out, decoding restarts with fewer latent frames at once, resumes at the next frame, and
        adds a line to `warnings` and the log. Raises `ModelError` for a pixel that is not finite.
        """
        num_yielded = 0
        for at_once in AT_ONCE:
            try:
                for index, frame in enumerate(self._decoded_frames(latents, plan, on_step, at_once)):
                    if index >= num_yielded:
                        yield frame
                        num_yielded += 1
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or at_once == AT_ONCE[-1]:
                    raise
                warning = (
                    f"out of memory while decoding {at_once} latents at once: decoded again in smaller pieces"
                )
                log.warning("%s", warning)
                if warnings is not None:
                    warnings.append(warning)

    def _decoded_frames(
        self, latents: Tensor, plan: Plan, on_step: OnStep | None, at_once: int
    ) -> Iterator[np.ndarray]:
        start_s = time.perf_counter()
        top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
        chunks: Iterator[tuple[Tensor, bool]]
        if plan.request.loop:
            chunks, first, total = decode_loop(self.vae, latents, at_once), 0, plan.frames
        else:
            decoded = self.vae.stream_decode([self.vae.denormalise(latents.unsqueeze(0))], at_once=at_once)
            chunks, first, total = ((chunk, True) for chunk in decoded), plan.canvas_first, plan.canvas_frames

        start = 0
        for chunk, is_result in chunks:
            stop = start + chunk.shape[2]
            if not bool(torch.isfinite(chunk).all()):
                raise ModelError(
                    f"frames {start} to {stop - 1} have pixels that are not finite: the VAE of "
                    f"{self.manifest.name} is damaged"
                )
            if not is_result:
                continue

            inside = chunk[0, :, max(0, first - start) : max(0, first + plan.frames - start)]
            yield from to_uint8(inside[:, :, top : top + plan.height, left : left + plan.width])
            start = stop
            if on_step is not None:
                on_step(Step("decode", stop - 1, total, time.perf_counter() - start_s))

    def _write_frames(self, path: Path, plan: Plan, frames: Iterator[np.ndarray]) -> Video:
        """Write the frames to `path`, and return an overview of them, or the whole video for a format that is
        not streamed."""
        values = metadata(provenance(plan, model_name=self.manifest.name, model_hash=self.model_hash))
        if path.suffix.lower() not in STREAMED:
            video = _collected(plan, frames)
            video.save(path, metadata=values)
            return video

        spaced = np.linspace(0, plan.frames - 1, min(plan.frames, OVERVIEW_FRAMES))
        chosen = set(spaced.round().astype(int).tolist())
        overview = []
        with VideoWriter(path, plan.fps, plan.width, plan.height, metadata=values) as writer:
            for index, frame in enumerate(frames):
                writer.write(frame[None])
                if index in chosen:
                    overview.append(frame.copy())  # a view would keep the whole decoded chunk alive
        return Video(np.stack(overview), plan.fps * len(overview) / plan.frames)

    def _similarity(self, video: Video, prompt: str) -> float | None:
        clip = self.text_encoder
        return similarity(clip, video.frames, prompt) if isinstance(clip, CLIP) else None


class _Progress:
    """Counts the sampler's steps over all windows, reports them, and saves the sampling state."""

    def __init__(
        self, pipeline: Pipeline, plan: Plan, on_step: OnStep | None, job: Job | None, state: SamplingState
    ) -> None:
        self.pipeline, self.plan, self.on_step, self.job, self.state = pipeline, plan, on_step, job, state
        self.start_s = time.perf_counter()
        self.num_steps = plan.steps
        self.num_windows = num_windows(plan)

    def finish_step(self, step: SamplerStep) -> None:
        """Called after every step of the sampler. Raises `ModelError` if its sample is not finite."""
        plan, index, x, x0 = self.plan, step.i, step.x, step.x0
        if not bool(torch.isfinite(x).all()):
            raise ModelError(
                f"step {index + 1} of {self.num_steps} gave numbers that are not finite: "
                f"{self.pipeline.manifest.name} is damaged "
                f"(check it with 'kinema models'), or guidance={plan.guidance:g} with the sampler "
                f"'{plan.sampler}' diverges"
            )

        self.state.x, self.state.next_step, self.state.memory = x, index + 1, list(step.memory)
        if self.job is not None and (index + 1) % SAVE_EVERY == 0:
            self.job.save_state(self.state, model_hash=self.pipeline.model_hash)
        if self.on_step is not None:
            done = self.state.window * self.num_steps + index
            total = self.num_windows * self.num_steps
            seconds = time.perf_counter() - self.start_s
            num_computed = None if plan.request.cache is None else self.state.cache.num_computed
            self.on_step(Step("sample", done, total, seconds, x0[0], num_computed))

    def finish_window(self, latents: Tensor) -> None:
        """Called after every window, with the latents of the whole canvas."""
        state = self.state
        state.window, state.latents = state.window + 1, latents
        state.x, state.next_step, state.memory, state.cache = None, 0, [], state.cache.next_canvas()
        if self.job is not None:
            self.job.save_state(state, model_hash=self.pipeline.model_hash)


def _counted(on_step: OnStep | None, counts: dict[str, int]) -> OnStep:
    """`on_step`, which also updates `counts` with the number of computed estimates and of sampler steps."""

    def count(step: Step) -> None:
        if step.num_computed is not None:
            counts.update(computed=step.num_computed, steps=step.total)
        if on_step is not None:
            on_step(step)

    return count


def similarity(clip: CLIP, frames: UInt8[np.ndarray, "f h w 3"], prompt: str) -> float:
    """The similarity of frames and a prompt by `clip`, -1 to 1."""
    device = next(clip.parameters()).device
    return float(clip.similarity(from_uint8([frames]).to(device), [prompt]).item())


def _collected(plan: Plan, frames: Iterator[np.ndarray]) -> Video:
    """All frames of the plan's video in memory."""
    collected = np.empty((plan.frames, plan.height, plan.width, 3), dtype=np.uint8)
    for row, frame in zip(collected, frames, strict=True):
        row[:] = frame
    return Video(collected, plan.fps)


@contextmanager
def _memory_errors(plan: Plan) -> Iterator[None]:
    """Raise `RequestError`, which names the request, when an allocation of the body fails."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RequestError(
            f"out of memory for {plan.text}: ask for a smaller size or fewer frames"
        ) from error
