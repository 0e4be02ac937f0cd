"""The pipeline: a request becomes a canvas, the canvas is sampled, and its latents are decoded to a video.

request -> plan -> canvas -> sampler around the guided DiT -> latents (saved) -> streaming decoder -> Video
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from kinema.checkpoints.adapters import LoRAFile, merge_lora, read_lora
from kinema.checkpoints.folders import Manifest
from kinema.device import Precision, autocast, is_out_of_memory
from kinema.diffusion.canvas import Network, with_canvas
from kinema.diffusion.guidance import JOINT_TOKENS, classifier_free
from kinema.diffusion.objectives import Prediction, to_x0
from kinema.diffusion.samplers import SAMPLERS, SamplerState
from kinema.diffusion.schedules import SCHEDULES, time_grid
from kinema.diffusion.step_cache import with_cache
from kinema.errors import ModelError, RequestError
from kinema.files import sha256_of
from kinema.generation.conditioning.clips import Inputs
from kinema.generation.conditioning.encode import EncodedConditions, describe_inputs, encode_conditions
from kinema.generation.events import iterate
from kinema.generation.job import Job, SamplingState
from kinema.generation.output.blend import compose
from kinema.generation.output.provenance import metadata, provenance
from kinema.generation.output.quality import FrameMetric, QualityMonitor
from kinema.checkpoints.shipped import SHIPPED
from kinema.generation.plan import Plan, make_plan
from kinema.generation.request import Request
from kinema.generation.sampling.circular import decode_loop, circular_network, rolls
from kinema.generation.sampling.noise import START, STEP, latent_noise
from kinema.generation.sampling.windows import WindowSample, cut_window, num_windows, insert_sample
from kinema.models.clip import CLIP
from kinema.models.conditioning import TextEncoder, TextStates
from kinema.models.dit import DiT, PreparedText, apply_to_grid
from kinema.models.pixels import from_uint8, to_uint8
from kinema.models.vae import VAE
from kinema.nn.attention import attention_kernel
from kinema.prompts.reading import PromptReport, read_prompt
from kinema.registry import lookup
from kinema.shapes import Float
from kinema.video import Video, VideoWriter
from kinema.video.writing import LOSSY

log = logging.getLogger(__name__)

FIRST_TIME_OF_NOISE = 0.999
"""Where sampling begins for a model that predicts noise, whose x0 is not defined at t = 1 (diffusers begins there too)."""
AT_ONCE = (2, 1)
"""Latent frames that are decoded at once; the next number when memory runs out."""
SAVE_EVERY = 4
"""Steps of the sampler between two saves of where it stands."""
OVERVIEW_FRAMES = 33
STREAMED = frozenset(LOSSY)
OnStep = Callable[["Step"], None]
Consume = Callable[[Plan, Iterator[np.ndarray]], Video]
"""What becomes of the frames of a result as they come."""


@dataclass(frozen=True, eq=False)
class Step:
    """One piece of work done: a step of the sampler, or a few frames decoded."""

    phase: Literal["sample", "decode"]
    index: int
    """Which step, or which frame of the canvas, is done; counted from 0, so that the stage ends with `total - 1`."""
    total: int
    seconds: float
    """Since the stage began."""
    x0: Tensor | None = None
    """While sampling, the window's present estimate of the clean latents (c, lf, lh, lw), on the model's device: what a preview shows."""
    num_computed: int | None = None
    """With a cache, how often the network has been asked so far, in all windows."""


@dataclass(frozen=True, eq=False)
class Result:
    """A video, and all that is known of how it was made."""

    video: Video
    plan: Plan
    prompt: PromptReport
    model_name: str
    model_hash: str
    similarity: float | None
    """How well the model's own CLIP finds that the video fits the prompt, -1 to 1: for choosing among seeds, not among models.

    None for a model without a CLIP.
    """
    seconds: float
    """Taken in all, on the clock of the wall."""
    notes: tuple[str, ...] = ()
    """What was done to the inputs, and anything else that the user should know, a line each."""
    report: dict[str, Any] = field(default_factory=dict)
    """Joins, loop and drift in numbers (`kinema.generation.output.quality.QualityMonitor.report`), and as "cache" how many estimates were computed."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to make this video again; it travels in the file."""
        return provenance(self.plan, model_name=self.model_name, model_hash=self.model_hash)

    def save(self, path: str | Path) -> Path:
        """Write the video, with its provenance inside; the suffix of `path` says which kind of file."""
        return self.video.save(path, metadata=metadata(self.provenance))


class Pipeline:
    """A model, ready to generate: DiT, VAE and text encoder (of our own models the CLIP) on one device."""

    def __init__(
        self,
        dit: DiT,
        vae: VAE,
        clip: TextEncoder,
        manifest: Manifest,
        *,
        model: str = SHIPPED,
        model_hash: str,
        precision: Precision = "auto",
    ) -> None:
        """All three networks must be on one device. `model` is what a request calls this model; `precision` is that of the DiT's products.

        Raises `ModelError` when the parts do not fit together.
        """
        space, multiple = vae.config.spatial_factor, manifest.sides[2]
        pairs = {
            "the DiT's in_channels and the channels it is shown": (
                dit.config.in_channels,
                self.channels_in(vae),
            ),
            "the DiT's out_channels and the VAE's z_dim": (dit.config.out_channels, vae.config.z_dim),
            "the DiT's text_dim and the text encoder's width": (dit.config.text_dim, clip.text_width),
        }
        wrong = [f"{what} are {left} and {right}" for what, (left, right) in pairs.items() if left != right]
        if multiple % space:
            wrong.append(f"sides are multiples of {multiple} pixels, but a latent of the VAE has {space}")
        if dit.config.patch[0] != 1:
            wrong.append(
                f"the DiT's patches are {dit.config.patch[0]} latent frames long, but a canvas may have any number of them"
            )
        if wrong:
            raise ModelError(f"the parts of {manifest.name} do not fit together: {'; '.join(wrong)}")
        self.dit, self.vae, self.clip = dit.eval(), vae.eval(), clip
        if isinstance(clip, CLIP):
            clip.eval()
        self.manifest = manifest
        self.model = model
        self.model_hash = model_hash
        self.precision = precision
        self.attention = "auto"
        """The kernel by which the backbone attends, of `kinema.nn.attention.ATTENTION_KERNELS`."""
        self.device = next(dit.parameters()).device
        self.metrics: dict[str, FrameMetric] = (
            {"clip_similarity": partial(similarity, clip)} if isinstance(clip, CLIP) else {}
        )
        """What a long result is judged by, window by window, in its drift report; further models may be added."""
        self.schedule = lookup(SCHEDULES, manifest.schedule, kind="noise schedule")()

    def backbones(self) -> dict[str, DiT]:
        """The networks that an adapter may be for: one, or an expert for high noise and one for low."""
        return {"high": self.dit}

    def add_lora(self, lora: LoRAFile) -> int:
        """Merge an adapter into the backbone (into both experts unless it names one) and return how many layers it changed.

        The model's hash changes with it. Raises `ModelError` that lists what does not fit.
        """
        dits = self.backbones()
        if lora.expert is not None and len(dits) == 1:
            raise ModelError(f"{self.manifest.name} has one backbone: leave :{lora.expert} out")
        chosen = [dit for name, dit in dits.items() if lora.expert in (None, name)]
        read = [read_lora(lora.path, dit) for dit in chosen]
        for dit, adapters in zip(chosen, read):
            merge_lora(dit, adapters, lora.scale)
        line = f"{self.model_hash} {sha256_of(lora.path)} {lora.scale!r} {lora.expert}"
        self.model_hash = sha256(line.encode()).hexdigest()[:12]
        return sum(map(len, read))

    def plan(self, request: Request) -> Plan:
        """What this model will do for `request`; raises `RequestError` for what it cannot do. Costs nothing."""
        request = replace(request, model=self.model)
        return make_plan(request, self.manifest, temporal_factor=self.vae.config.temporal_factor)

    def read_prompt(self, prompt: str) -> PromptReport:
        """How this model reads a prompt."""
        if isinstance(self.clip, CLIP):
            return read_prompt(self.clip.tokenizer, prompt)
        return PromptReport(num_read=len(prompt.split()))  # an encoder of open vocabulary reads every word

    def generate(
        self, request: Request, *, inputs: Inputs | None = None, job: Path | None = None
    ) -> Iterator[Step | Result]:
        """A `Step` for each piece of work, and the `Result` last. Closing the iterator cancels the rest.

        The work is done in a thread that waits while the caller looks at a step. For `inputs` and `job`, see `run`.
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
        """The video of `request`. `on_step` is called after each piece of work, and what it raises ends the run.

        `inputs` are the clips and pictures that the request's places name. With `job`, a folder, all that is needed to go on is kept there
        (see `continue_job`), the latents before they are decoded. Equal requests give equal bytes on one machine with one number of
        threads. Raises `RequestError` for a request that this model cannot fulfil, or that memory is too small for, `OutputError` for a
        job folder that cannot be written, and `ModelError`, naming the step, when a number is not finite.
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
        """Like `run`, with the video written to `path` as it is decoded, in constant memory whatever its length.

        The result's `video` is then an overview: at most `OVERVIEW_FRAMES` frames, evenly spread.
        """
        return self._run(request, inputs or {}, partial(self._written, path), on_step, job)

    @torch.inference_mode()
    def decode_job(self, folder: Path, *, on_step: OnStep | None = None) -> Result:
        """The video of a job whose latents have been saved; raises `RequestError` when they have not, or by another model."""
        job = Job(folder)
        job.request()
        job.latents(model_hash=self.model_hash)
        return self.continue_job(folder, on_step=on_step)

    @torch.inference_mode()
    def continue_job(
        self, folder: Path, *, path: Path | None = None, on_step: OnStep | None = None
    ) -> Result:
        """The result of a job that was stopped, wherever that was: its latents are those of an uninterrupted run, byte for byte.

        With `path` it is written there, as by `write`. Raises `RequestError` for a folder that is no job, or of another model.
        """
        job = Job(folder)
        request = job.request()
        consume = _collected if path is None else partial(self._written, path)
        return self._run(request, job.inputs(request), consume, on_step, folder, goes_on=True)

    def _run(
        self,
        request: Request,
        inputs: Inputs,
        consume: "Consume",
        on_step: OnStep | None,
        job: Path | None,
        goes_on: bool = False,
    ) -> Result:
        begun = time.perf_counter()
        plan = self.plan(request)
        notes = describe_inputs(plan, inputs)
        cached: dict[str, int] = {}
        on_step = _counted(on_step, cached) if plan.request.cache is not None else on_step
        folder = Job(job) if job is not None else None
        if folder is not None and not goes_on:
            folder.save_request(plan.request, inputs)
        with _memory_errors(plan):
            conditions = encode_conditions(plan, inputs, self.vae, self.device)
            if folder is not None and folder.is_sampled:
                latents = folder.latents(model_hash=self.model_hash).to(self.device)
            else:
                latents = self.sample(plan, conditions=conditions, on_step=on_step, job=folder)
            if folder is not None:
                folder.save_latents(latents, model_hash=self.model_hash)
            watch = QualityMonitor(plan, conditions.kept, self.metrics)
            frames = compose(self.frames(latents, plan, on_step=on_step, notes=notes), conditions.kept)
            video = consume(plan, watch.over(frames))
        report = watch.report | ({"cache": cached} if cached else {})
        return self._result(plan, video, tuple(notes), report, begun)

    @torch.inference_mode()
    def sample(
        self,
        plan: Plan,
        *,
        conditions: EncodedConditions | None = None,
        on_step: OnStep | None = None,
        job: Job | None = None,
    ) -> Float[Tensor, "c lf lh lw"]:
        """The clean, normalised latents of the plan's canvas. Raises `ModelError` when a step gives a number that is not finite.

        With `job` the sampling goes on where the job stands, and where it stands is saved every few steps.
        """
        whole = (conditions if conditions is not None else encode_conditions(plan, {}, self.vae, self.device)).canvas
        state = (job.state(model_hash=self.model_hash) if job is not None else None) or SamplingState()
        latents = whole.clean if state.latents is None else state.latents.to(self.device)
        progress = _Progress(self, plan, on_step, job, state)
        for index in range(state.window, num_windows(plan)):
            piece = cut_window(plan, index, whole, latents)
            if piece.canvas.first_time > 0:
                latents = insert_sample(latents, piece, self._sample_piece(plan, piece, progress))
            progress.next_window(latents)
        return latents[0]

    def _sample_piece(self, plan: Plan, piece: WindowSample, progress: "_Progress") -> Tensor:
        canvas, state = piece.canvas, progress.state
        _, c, _, lh, lw = canvas.clean.shape

        def noise(stream: str, step: int) -> Tensor:
            return (
                latent_noise(plan.request.seed, stream, piece.latent_frames, (c, lh, lw), step)
                .unsqueeze(0)
                .to(self.device)
            )

        times = self.times(plan, canvas.first_time)
        start = noise(START, 0)
        x = canvas.at(times[0], start, self.schedule) if state.x is None else state.x.to(self.device)
        state.sampler.tensors = [tensor.to(self.device) for tensor in state.sampler.tensors]
        state.cache.tensors = [tensor.to(self.device) for tensor in state.cache.tensors]
        progress.num_steps = len(times) - 1
        with autocast(self.device, self.precision), attention_kernel(self.attention):
            network = self.network(plan, piece.prompt, first_frame=piece.first_coordinate)
            if piece.is_loop:
                network = circular_network(network, max(1, plan.window - 1), rolls(times, canvas.clean.shape[2] - 1))
            if plan.request.cache is not None:
                network = with_cache(
                    network,
                    plan.request.cache,
                    state.cache,
                    last=float(times[-2]),
                    regime=partial(self.regime, plan),
                )
            x = lookup(SAMPLERS, plan.sampler, kind="sampler")(
                with_canvas(network, canvas, self.schedule, start, native=self.manifest.time_per_token),
                x,
                times,
                self.schedule,
                noise=partial(noise, STEP),
                on_step=progress.took,
                state=state.sampler,
            )
        return canvas.finish(x)

    def times(self, plan: Plan, start: float) -> Float[Tensor, " u"]:
        """The times that the sampler visits on a canvas whose tokens begin at `start` or below."""
        top = FIRST_TIME_OF_NOISE if self.manifest.prediction == "noise" else 1.0
        return time_grid(plan.steps, shift=plan.shift, start=start, top=top)

    def network(self, plan: Plan, prompt: str | None = None, *, first_frame: int = 0) -> Network:
        """The guided estimate of x0 for the prompts of `plan`, with `prompt` in place of the plan's first one.

        `first_frame` is the time coordinate of the first latent. Keys and values of the prompts are made once, here.
        """
        # Without a negative prompt guidance moves away from the empty text, which stands for dropped captions in training.
        texts = self.clip.encode_prompts(
            [plan.request.prompt if prompt is None else prompt, plan.request.negative_prompt]
        )
        return self.guided(
            self.dit, texts, plan.guidance, interval=interval_of(plan), first_frame=first_frame
        )

    def regime(self, plan: Plan, t: float) -> int:
        """A number for what answers at the time `t`: 1 with guidance, 0 without."""
        low, high = interval_of(plan)
        return int(low <= t <= high)

    def guided(
        self,
        dit: DiT,
        texts: TextStates,
        guidance: float,
        *,
        interval: tuple[float, float] = (0.0, 1.0),
        first_frame: int = 0,
        images: TextStates | None = None,
        beside: Float[Tensor, "1 c2 lf lh lw"] | None = None,
    ) -> Network:
        """The estimate of x0 by `dit` for two prompts, what to follow and (at the times of `interval`) what to move away from.

        `images` are states of still images, for a backbone that takes them; `beside` are channels shown to it below those of the latents.
        """
        conditional, unconditional = (dit.prepare_text(text, images) for text in texts.split())
        both = PreparedText.cat([conditional, unconditional])

        def estimate(x: Tensor, t: Tensor, text: PreparedText) -> Tensor:
            """The estimate of x0 at one time per latent, in float32."""
            shown = x if beside is None else torch.cat([x, beside.expand(len(x), -1, -1, -1, -1)], dim=1)
            output = apply_to_grid(dit, shown, self.shown_times(t), text, first_frame)
            return to_x0(cast(Prediction, self.manifest.prediction), output.float(), x, t, self.schedule)

        def pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            if x[0, 0].numel() // prod(dit.config.patch) > JOINT_TOKENS:
                return estimate(x, t, conditional), estimate(x, t, unconditional)
            with_prompt, without = estimate(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
            return with_prompt, without

        alone, opposite = (partial(estimate, text=text) for text in (conditional, unconditional))
        return classifier_free(alone, opposite, guidance, interval=interval, pair=pair)

    def shown_times(self, t: Tensor) -> Tensor:
        """The times that the backbone is told when they are `t`."""
        return t

    def channels_in(self, vae: VAE) -> int:
        """Channels that the backbone is shown: those of the latents."""
        return vae.config.z_dim

    @torch.inference_mode()
    def decode(
        self, latents: Float[Tensor, "c lf lh lw"], plan: Plan, *, on_step: OnStep | None = None
    ) -> Video:
        """The plan's video as the decoder gives it, cropped to the middle of the picture; see `frames`."""
        return _collected(plan, self.frames(latents, plan, on_step=on_step))

    def frames(
        self,
        latents: Float[Tensor, "c lf lh lw"],
        plan: Plan,
        *,
        on_step: OnStep | None = None,
        notes: list[str] | None = None,
    ) -> Iterator[np.ndarray]:
        """The decoded frames of the plan's video, uint8 (h, w, 3), one by one: decoded a few latent frames at a time.

        When memory runs out it begins again in smaller pieces, says so in `notes` and the log, and goes on where it was. Raises
        `ModelError` when a pixel is not finite.
        """
        num_given = 0
        for at_once in AT_ONCE:
            try:
                for index, frame in enumerate(self._frames(latents, plan, on_step, at_once)):
                    if index >= num_given:
                        yield frame
                        num_given += 1
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or at_once == AT_ONCE[-1]:
                    raise
                said = (
                    f"out of memory while decoding {at_once} latents at once: decoded again in smaller pieces"
                )
                log.warning("%s", said)
                if notes is not None:
                    notes.append(said)

    def _frames(
        self, latents: Tensor, plan: Plan, on_step: OnStep | None, at_once: int
    ) -> Iterator[np.ndarray]:
        begun = time.perf_counter()
        top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
        pieces: Iterator[tuple[Tensor, bool]]
        if plan.request.loop:
            pieces, first, total = decode_loop(self.vae, latents, at_once), 0, plan.frames
        else:
            decoded = self.vae.stream_decode([self.vae.denormalise(latents.unsqueeze(0))], at_once=at_once)
            pieces, first, total = ((piece, True) for piece in decoded), plan.canvas_first, plan.canvas_frames
        start = 0
        for piece, is_shown in pieces:
            stop = start + piece.shape[2]
            if not bool(torch.isfinite(piece).all()):
                raise ModelError(
                    f"frames {start} to {stop - 1} have pixels that are not finite: the VAE of {self.manifest.name} is damaged"
                )
            if not is_shown:
                continue
            visible = piece[0, :, max(0, first - start) : max(0, first + plan.frames - start)]
            yield from to_uint8(visible[:, :, top : top + plan.height, left : left + plan.width])
            start = stop
            if on_step is not None:
                on_step(Step("decode", stop - 1, total, time.perf_counter() - begun))

    def _written(self, path: Path, plan: Plan, frames: Iterator[np.ndarray]) -> Video:
        """An overview of the video, which is written to `path` on its way."""
        values = metadata(provenance(plan, model_name=self.manifest.name, model_hash=self.model_hash))
        if path.suffix.lower() not in STREAMED:
            video = _collected(plan, frames)
            video.save(path, metadata=values)
            return video
        chosen = set(
            np.linspace(0, plan.frames - 1, min(plan.frames, OVERVIEW_FRAMES)).round().astype(int).tolist()
        )
        overview = []
        with VideoWriter(path, plan.fps, plan.width, plan.height, metadata=values) as writer:
            for index, frame in enumerate(frames):
                writer.write(frame[None])
                if index in chosen:
                    overview.append(frame.copy())  # a view would keep all that was decoded with it
        return Video(np.stack(overview), plan.fps * len(overview) / plan.frames)

    def _result(
        self, plan: Plan, video: Video, notes: tuple[str, ...], report: dict[str, Any], begun: float
    ) -> Result:
        prompt = plan.request.prompt
        fit = similarity(self.clip, video.frames, prompt) if isinstance(self.clip, CLIP) else None
        seconds = time.perf_counter() - begun
        return Result(
            video,
            plan,
            self.read_prompt(prompt),
            self.manifest.name,
            self.model_hash,
            fit,
            seconds,
            notes,
            report,
        )


class _Progress:
    """Counts the steps of a sampling over all of its windows, reports them, and saves where it stands."""

    def __init__(
        self, pipeline: Pipeline, plan: Plan, on_step: OnStep | None, job: Job | None, state: SamplingState
    ) -> None:
        self.pipeline, self.plan, self.on_step, self.job, self.state = pipeline, plan, on_step, job, state
        self.begun = time.perf_counter()
        self.num_steps = plan.steps

    def took(self, index: int, x: Tensor, x0: Tensor) -> None:
        """After a step of the sampler."""
        plan = self.plan
        if not bool(torch.isfinite(x).all()):
            raise ModelError(
                f"step {index + 1} of {self.num_steps} gave numbers that are not finite: {self.pipeline.manifest.name} is damaged "
                f"(look with 'kinema models'), or guidance={plan.guidance:g} with the sampler '{plan.sampler}' is too much for it"
            )
        self.state.x = x
        if self.job is not None and (index + 1) % SAVE_EVERY == 0:
            self.job.save_state(self.state, model_hash=self.pipeline.model_hash)
        if self.on_step is not None:
            done = self.state.window * self.num_steps + index
            seconds, computed = (
                time.perf_counter() - self.begun,
                None if plan.request.cache is None else self.state.cache.num_computed,
            )
            self.on_step(Step("sample", done, num_windows(plan) * self.num_steps, seconds, x0[0], computed))

    def next_window(self, latents: Tensor) -> None:
        """After a window is done and its latents are in their place."""
        self.state.window, self.state.latents = self.state.window + 1, latents
        self.state.x, self.state.sampler, self.state.cache = (
            None,
            SamplerState(),
            self.state.cache.next_canvas(),
        )
        if self.job is not None:
            self.job.save_state(self.state, model_hash=self.pipeline.model_hash)


def interval_of(plan: Plan) -> tuple[float, float]:
    """Least and greatest of the times at which there is guidance."""
    return plan.request.guidance_interval or (0.0, 1.0)


def _counted(on_step: OnStep | None, counts: dict[str, int]) -> OnStep:
    """`on_step`, which also keeps in `counts` how many of the sampler's steps there were and how many estimates were computed."""

    def count(step: Step) -> None:
        if step.num_computed is not None:
            counts.update(computed=step.num_computed, steps=step.total)
        if on_step is not None:
            on_step(step)

    return count


def similarity(clip: CLIP, frames: np.ndarray, prompt: str) -> float:
    """How well `clip` finds that frames (f, h, w, 3) fit a prompt, -1 to 1."""
    device = next(clip.parameters()).device
    return float(clip.similarity(from_uint8([frames]).to(device), [prompt]).item())


def _collected(plan: Plan, frames: Iterator[np.ndarray]) -> Video:
    """All frames of the plan's video in memory."""
    whole = np.empty((plan.frames, plan.height, plan.width, 3), dtype=np.uint8)
    for shown, frame in zip(whole, frames, strict=True):
        shown[:] = frame
    return Video(whole, plan.fps)


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
