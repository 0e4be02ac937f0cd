"""The pipeline: from a request to a video.

request -> plan -> canvas -> sampler around the guided backbone -> latents (saved) -> streaming decoder ->
video
"""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.shipped import SHIPPED
from kinema.device import is_out_of_memory
from kinema.errors import ModelError, RequestError
from kinema.generation.batch import BatchItem, ItemRun, check_batch
from kinema.generation.conditioning.clips import Inputs
from kinema.generation.conditioning.encode import EncodedConditions, encode_conditions, kept_pixels
from kinema.generation.job import SamplingState
from kinema.generation.output.blend import compose
from kinema.generation.output.decode import Decoder, FrameSink
from kinema.generation.output.provenance import provenance
from kinema.generation.output.quality import FrameMetric, QualityMonitor, shown_object, similarity
from kinema.generation.plan import Plan, make_plan
from kinema.generation.request import Request
from kinema.generation.result import Failure, OnStep, Result, Step
from kinema.generation.sampling.denoiser import Denoiser
from kinema.generation.sampling.sample import WindowStep, sample_windows
from kinema.models.autoencoder import Autoencoder
from kinema.models.clip import CLIP
from kinema.prompts.objects import with_objects
from kinema.prompts.reading import PromptReport
from kinema.shapes import Float
from kinema.video import Video

Event = Step | Result | Failure
SAVE_EVERY = 4
"""Sampler steps between two saves of the sampling state."""


class Pipeline:
    """A model that is ready to generate: backbone, VAE and text encoder on one device."""

    def __init__(
        self,
        denoiser: Denoiser,
        vae: Autoencoder,
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
        """What this model will do for `request`; no network runs. Raises `RequestError` if it cannot."""
        request = replace(request, model=self.model)
        plan = make_plan(request, self.manifest, temporal_factor=self.vae.config.temporal_factor)
        self.denoiser.check(plan)
        return plan

    def read_prompt(self, prompt: str) -> PromptReport:
        """How this model's text encoder reads a prompt, and which objects it names."""
        report = self.text_encoder.read_prompt(prompt)
        return with_objects(report, self.manifest.object_names, self.manifest.max_objects)

    def stream(
        self,
        request: Request,
        *,
        inputs: Inputs | None = None,
        path: Path | None = None,
        job: Path | None = None,
    ) -> Iterator[Step | Result]:
        """A `Step` for each unit of work, and the `Result` last. Closing the iterator cancels the run.

        `inputs` are the clips and pictures that the request's conditions name. With `path` the video is
        written there while it is decoded, in constant memory for any length, and the result's `video` is an
        overview: at most `OVERVIEW_FRAMES` frames, evenly spaced. With `job`, a folder, the run can be
        continued from there (see `continue_job`). Equal requests give equal bytes on one machine with one
        number of threads.

        Raises `RequestError` for a request that the model cannot fulfil or that exceeds the memory,
        `OutputError` for a file or job folder that cannot be written, and `ModelError` with the step for a
        number that is not finite.
        """
        return _single(self.stream_many([BatchItem(request, inputs or {}, path, job)]))

    def run(
        self,
        request: Request,
        *,
        inputs: Inputs | None = None,
        on_step: OnStep | None = None,
        job: Path | None = None,
    ) -> Result:
        """The result of `stream`. `on_step` is called after each step; an exception in it ends the run."""
        return _result(self.stream(request, inputs=inputs, job=job), on_step)

    def write(
        self,
        request: Request,
        path: Path,
        *,
        inputs: Inputs | None = None,
        on_step: OnStep | None = None,
        job: Path | None = None,
    ) -> Result:
        """Like `run`, but the video is written to `path`; see `stream`."""
        return _result(self.stream(request, inputs=inputs, path=path, job=job), on_step)

    def continue_job(
        self, folder: Path, *, path: Path | None = None, on_step: OnStep | None = None
    ) -> Result:
        """The result of an interrupted job. Its latents equal those of an uninterrupted run, byte for byte.

        With `path` the video is written there, as by `write`. Raises `RequestError` for a folder that is not
        a job, or is another model's, and the errors of `stream`.
        """
        return _result(_single(self.stream_many([BatchItem.of_job(folder, path=path)])), on_step)

    def run_many(
        self, items: Sequence[Request | BatchItem], *, on_step: OnStep | None = None
    ) -> list[Result | Failure]:
        """The results of requests that are generated as one batch, in their order; see `stream_many`."""
        results: dict[int, Result | Failure] = {}
        with closing(self.stream_many(items)) as events:
            for event in events:
                if not isinstance(event, Step):
                    results[event.item] = event
                elif on_step is not None:
                    on_step(event)
        return [results[index] for index in sorted(results)]

    def stream_many(self, items: Sequence[Request | BatchItem]) -> Generator[Event, None, None]:
        """Like `stream` for requests that are generated as one batch: they have one `batch_key`.

        Each has its own prompts, seed, guidance scale, clips and job. The noise of each is that of its single
        run, and its result differs from it by rounding only. A request whose numbers are not finite yields a
        `Failure`, and the others go on. Raises `RequestError` for requests that do not fit into one batch,
        and the other errors of `stream`, which end all.
        """
        given = [BatchItem(item) if isinstance(item, Request) else item for item in items]
        with closing(self._events(given)) as events:
            # Inference mode ends at every event, so that the caller may train between two of them.
            while (event := _next(events)) is not None:
                yield event

    def _events(self, given: Sequence[BatchItem]) -> Generator[Event, None, None]:
        plans = [self.plan(item.request) for item in given]
        check_batch(plans)
        with ExitStack() as stack:
            runs = [
                stack.enter_context(ItemRun(index, item, plan, self.model_hash))
                for index, (item, plan) in enumerate(zip(given, plans))
            ]
            with _memory_errors(plans):
                try:
                    yield from self._sample(runs)
                except GeneratorExit:  # closed after a step, from which the jobs continue
                    for run in runs:
                        run.save_state()
                    raise
                yield from self._decode([run for run in runs if not run.is_failed])

    def _sample(self, runs: Sequence[ItemRun]) -> Iterator[Step | Failure]:
        """Sample the latents of all runs, or read those that are saved."""
        if all(run.is_sampled for run in runs):
            for run in runs:
                run.kept = kept_pixels(run.plan, run.item.inputs)
                run.load_latents()
            return

        plans, conditions = [run.plan for run in runs], []
        for run in runs:
            run.load_state()
            conditions.append(encode_conditions(run.plan, run.item.inputs, self.vae, self.device))
            run.kept = conditions[-1].kept

        for done in sample_windows(self.denoiser, plans, conditions, [run.state for run in runs]):
            for run in [run for run in runs if not run.is_failed]:
                if done is None:
                    run.save_state()
                elif not run.is_finite():
                    yield run.fail(self._not_finite(run.plan, done))
                else:
                    if (done.step.i + 1) % SAVE_EVERY == 0:
                        run.save_state()
                    yield run.step("sample", done.index, done.total, done.step.x0[run.index])
            if all(run.is_failed for run in runs):
                return

        for run in runs:
            run.save_latents()

    def _not_finite(self, plan: Plan, done: WindowStep) -> ModelError:
        return ModelError(
            f"step {done.step.i + 1} of {done.num_steps} gave numbers that are not finite: "
            f"{self.manifest.name} is damaged (check it with 'kinema models'), or guidance={plan.guidance:g} "
            f"with the sampler '{plan.sampler}' diverges"
        )

    def _decode(self, runs: Sequence[ItemRun]) -> Iterator[Event]:
        """Decode the latents of all runs together."""
        if not runs:
            return

        plans = [run.plan for run in runs]
        latents = torch.cat([run.latents.to(self.device) for run in runs])
        decoder = Decoder(self.vae, latents, plans, model_name=self.manifest.name)
        results = []
        for run, frames in zip(runs, decoder.split()):
            monitor = QualityMonitor(run.plan, run.kept, self.metrics)
            run.begin_decoding(FrameSink(run.plan, run.item.path, self._provenance(run.plan)), monitor)
            results.append(monitor.over(compose(frames, run.kept)))

        num_reported = 0
        for pictures in zip(*results, strict=True):
            for index, error in decoder.errors.items():
                if not runs[index].is_failed:
                    yield runs[index].fail(error)
            active = [(run, picture) for run, picture in zip(runs, pictures) if not run.is_failed]
            for run, picture in active:
                run.sink.write(picture)
            if decoder.num_done > num_reported:
                num_reported = decoder.num_done
                for run, _ in active:
                    yield run.step("decode", num_reported - 1, decoder.total)
            if not active:
                return

        for run in runs:
            if not run.is_failed:
                run.close()
                yield self._finish(run, decoder.warnings)

    def _finish(self, run: ItemRun, warnings: Sequence[str]) -> Result:
        """The result of a run that is complete."""
        plan, video = run.plan, run.sink.video
        report = self.read_prompt(plan.request.prompt)
        clip = self.text_encoder if isinstance(self.text_encoder, CLIP) else None
        return Result(
            video,
            plan,
            report,
            self.manifest.name,
            self.model_hash,
            None if clip is None else similarity(clip, video.frames, plan.request.prompt),
            time.perf_counter() - run.start_s,
            tuple(run.notes),
            tuple(warnings),
            run.monitor.report | ({"cache": run.cache_counts} if run.cache_counts else {}),
            run.item.path,
            run.index,
            None if clip is None else shown_object(clip, video.frames, [name for name, _ in report.objects]),
        )

    def _provenance(self, plan: Plan) -> dict[str, Any]:
        return provenance(plan, model_name=self.manifest.name, model_hash=self.model_hash)

    @torch.inference_mode()
    def sample(
        self, plan: Plan, *, conditions: EncodedConditions | None = None
    ) -> Float[Tensor, "c lf lh lw"]:
        """The clean, normalised latents of the plan's canvas."""
        if conditions is None:
            conditions = encode_conditions(plan, {}, self.vae, self.device)
        state = SamplingState()
        for _ in sample_windows(self.denoiser, [plan], [conditions], [state]):
            pass
        assert state.latents is not None
        return state.latents[0]

    @torch.inference_mode()
    def decode(self, latents: Float[Tensor, "c lf lh lw"], plan: Plan) -> Video:
        """The decoded video of the plan, cropped to the centre of the canvas."""
        decoder = Decoder(self.vae, latents.unsqueeze(0), [plan], model_name=self.manifest.name)
        video = Video(np.stack([pictures[0] for pictures in decoder]), plan.fps)
        if decoder.errors:
            raise decoder.errors[0]
        return video


@torch.inference_mode()
def _next(events: Iterator[Event]) -> Event | None:
    """The next event, computed without gradients. None after the last one."""
    return next(events, None)


def _single(events: Generator[Event, None, None]) -> Iterator[Step | Result]:
    """The events of a batch of one request, whose failure is raised."""
    with closing(events):
        for event in events:
            if isinstance(event, Failure):
                raise event.error
            yield event


def _result(events: Iterator[Step | Result], on_step: OnStep | None) -> Result:
    """The result at the end of `events`."""
    with closing(cast(Generator[Step | Result, None, None], events)):
        for event in events:
            if isinstance(event, Result):
                return event
            if on_step is not None:
                on_step(event)
    raise AssertionError("a run ends with a result")


@contextmanager
def _memory_errors(plans: Sequence[Plan]) -> Iterator[None]:
    """Raise `RequestError`, which names the request, when an allocation of the body fails."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        several = f"{len(plans)} videos of " if len(plans) > 1 else ""
        fewer = "a smaller batch, " if several else ""
        raise RequestError(
            f"out of memory for {several}{plans[0].text}: ask for {fewer}a smaller size or fewer frames"
        ) from error
