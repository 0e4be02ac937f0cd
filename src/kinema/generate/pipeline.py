"""The pipeline: a request becomes a canvas, the canvas is sampled, and its latents are decoded to a video.

request -> plan -> canvas -> sampler around the guided DiT -> latents (saved) -> streaming decoder -> Video
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from kinema import config
from kinema.device import Precision, autocast, pick_device
from kinema.diffusion.canvas import Canvas, Network, with_canvas
from kinema.diffusion.guidance import classifier_free
from kinema.diffusion.objective import Prediction, to_x0
from kinema.diffusion.samplers import SAMPLERS
from kinema.diffusion.schedule import SCHEDULES, time_grid
from kinema.errors import ModelError, RequestError
from kinema.generate.events import iterate
from kinema.generate.job import Job
from kinema.generate.noise import START, STEP, place_noise
from kinema.generate.progress import progress_bar
from kinema.generate.prompt import PromptReport, read_prompt
from kinema.generate.provenance import metadata, provenance
from kinema.generate.request import SHIPPED, Plan, Request, make_plan
from kinema.lookup import lookup
from kinema.models.clip import CLIP
from kinema.models.dit import DiT, PreparedText, apply_to_grid
from kinema.models.lora import LoRAFile, merge_lora, read_lora
from kinema.models.pixels import from_uint8, to_uint8
from kinema.models.text import TextEncoder, TextStates
from kinema.models.vae import VAE
from kinema.models.weights import Manifest, load_clip, load_dit, load_manifest, load_vae, model_hash, resolve_model, sha256_of
from kinema.shapes import Float
from kinema.video import Video
from kinema.wan.model import is_wan

log = logging.getLogger(__name__)

JOINT_TOKENS = 4096
"""Up to this many tokens both halves of guidance go through the DiT as one batch: measured 1.06 times as fast on a CPU at 320
tokens, and more where a small batch leaves the device idle. Beyond it the device is full anyway and the batch only costs memory."""
FIRST_TIME_OF_NOISE = 0.999
"""Where sampling begins for a model that predicts noise, whose x0 is not defined at t = 1 (diffusers begins there too)."""
OnStep = Callable[["Step"], None]


@dataclass(frozen=True, eq=False)
class Step:
    """One piece of work done: a step of the sampler, or a few frames decoded."""

    stage: Literal["sample", "decode"]
    index: int
    """Which step, or which frame of the canvas, is done; counted from 0, so that the stage ends with `total - 1`."""
    total: int
    seconds: float
    """Since the stage began."""
    x0: Tensor | None = None
    """While sampling, the present estimate of the clean latents (c, lf, lh, lw), on the model's device: what a preview shows."""


@dataclass(frozen=True, eq=False)
class Result:
    """A video, and all that is known of how it was made."""

    video: Video
    plan: Plan
    prompt: PromptReport
    model_name: str
    model_hash: str
    similarity: float | None
    """How well the model's own CLIP finds that the video fits the prompt, -1 to 1: for choosing among seeds, not among models."""
    seconds: float
    """Taken in all, on the clock of the wall."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What is needed to make this video again; it travels in the file."""
        return provenance(self.plan, model_name=self.model_name, model_hash=self.model_hash)

    def save(self, path: str | Path) -> Path:
        """Write the video, with its provenance inside; the suffix of `path` says which kind of file."""
        return self.video.save(path, metadata=metadata(self.provenance))


class Pipeline:
    """A model, ready to generate: DiT, VAE and CLIP on one device."""

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
            "the DiT's in_channels and the channels it is shown": (dit.config.in_channels, self.channels_in(vae)),
            "the DiT's out_channels and the VAE's z_dim": (dit.config.out_channels, vae.config.z_dim),
            "the DiT's text_dim and the text encoder's width": (dit.config.text_dim, clip.text_width),
        }
        wrong = [f"{what} are {left} and {right}" for what, (left, right) in pairs.items() if left != right]
        if multiple % space:
            wrong.append(f"sides are multiples of {multiple} pixels, but a latent of the VAE has {space}")
        if dit.config.patch[0] != 1:
            wrong.append(f"the DiT's patches are {dit.config.patch[0]} latent frames long, but a canvas may have any number of them")
        if wrong:
            raise ModelError(f"the parts of {manifest.name} do not fit together: {'; '.join(wrong)}")
        self.dit, self.vae, self.clip = dit.eval(), vae.eval(), clip
        self.manifest = manifest
        self.model = model
        self.model_hash = model_hash
        self.precision = precision
        self.has_token_times = True
        self.device = next(dit.parameters()).device
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

    def generate(self, request: Request, *, job: Path | None = None) -> Iterator[Step | Result]:
        """A `Step` for each piece of work, and the `Result` last. Closing the iterator cancels the rest.

        The work is done in a thread that waits while the caller looks at a step. For `job`, see `run`.
        """
        return iterate(lambda report: self.run(request, on_step=report, job=job))

    @torch.inference_mode()
    def run(self, request: Request, *, on_step: OnStep | None = None, job: Path | None = None) -> Result:
        """The video of `request`. `on_step` is called after each piece of work, and what it raises ends the run.

        With `job`, a folder, the request and the latents are kept there, the latents before they are decoded. Equal requests give equal
        bytes on one machine with one number of threads. Raises `RequestError` for a request that this model cannot fulfil,
        or that memory is too small for, `OutputError` for a job folder that cannot be written, and `ModelError`, naming the step, when a
        number is not finite.
        """
        begun = time.perf_counter()
        plan = self.plan(request)
        folder = Job(job) if job is not None else None
        if folder is not None:
            folder.save_request(plan.request)
        with _memory_errors(plan):
            latents = self.sample(plan, on_step=on_step)
            if folder is not None:
                folder.save_latents(latents, model_hash=self.model_hash)
            video = self.decode(latents, plan, on_step=on_step)
        return self._result(plan, video, begun)

    @torch.inference_mode()
    def decode_job(self, folder: Path, *, on_step: OnStep | None = None) -> Result:
        """The video of a job whose latents have been saved; raises `RequestError` when they have not, or by another model."""
        begun = time.perf_counter()
        job = Job(folder)
        plan = self.plan(job.request())
        latents = job.latents(model_hash=self.model_hash).to(self.device)
        with _memory_errors(plan):
            video = self.decode(latents, plan, on_step=on_step)
        return self._result(plan, video, begun)

    @torch.inference_mode()
    def sample(self, plan: Plan, *, on_step: OnStep | None = None) -> Float[Tensor, "c lf lh lw"]:
        """The clean, normalised latents of the plan's canvas. Raises `ModelError` when a step gives a number that is not finite."""
        begun = time.perf_counter()
        canvas = self.empty_canvas(plan)
        _, *shape = canvas.clean.shape
        c, lf, lh, lw = shape

        def noise(stream: str, step: int) -> Tensor:
            return place_noise(plan.request.seed, stream, range(lf), (c, lh, lw), step).unsqueeze(0).to(self.device)

        def took(index: int, x: Tensor, x0: Tensor) -> None:
            if not bool(torch.isfinite(x).all()):
                raise ModelError(
                    f"step {index + 1} of {plan.steps} gave numbers that are not finite: {self.manifest.name} is damaged "
                    f"(look with 'kinema models'), or guidance={plan.guidance:g} with the sampler '{plan.sampler}' is too much for it"
                )
            if on_step is not None:
                on_step(Step("sample", index, plan.steps, time.perf_counter() - begun, x0[0]))

        times = self.times(plan)
        start = noise(START, 0)
        with autocast(self.device, self.precision):
            network = self.network(plan)
            x = lookup(SAMPLERS, plan.sampler, kind="sampler")(
                with_canvas(network, canvas, self.schedule, start, native=self.has_token_times),
                canvas.at(times[0], start, self.schedule),
                times,
                self.schedule,
                noise=partial(noise, STEP),
                on_step=took,
            )
        return canvas.finish(x)[0]

    def times(self, plan: Plan) -> Float[Tensor, " u"]:
        """The times that the sampler visits."""
        return time_grid(plan.steps, shift=plan.shift, top=FIRST_TIME_OF_NOISE if self.manifest.prediction == "noise" else 1.0)

    def empty_canvas(self, plan: Plan) -> Canvas:
        """The canvas of text-to-video: nothing is known."""
        return Canvas.empty((1, self.vae.config.z_dim, *self._grid(plan)), device=self.device)

    def network(self, plan: Plan) -> Network:
        """The guided estimate of x0 for the prompts of `plan`; their keys and values are made once, here."""
        # Without a negative prompt guidance moves away from the empty text, which stands for dropped captions in training.
        texts = self.clip.encode_prompts([plan.request.prompt, plan.request.negative_prompt])
        return self.guided(self.dit, texts, plan, plan.guidance)

    def guided(
        self,
        dit: DiT,
        texts: TextStates,
        plan: Plan,
        guidance: float,
        *,
        images: TextStates | None = None,
        beside: Float[Tensor, "1 c2 lf lh lw"] | None = None,
    ) -> Network:
        """The estimate of x0 by `dit` for two prompts, what to follow and what to move away from.

        `images` are states of still images, for a backbone that takes them; `beside` are channels shown to it below those of the latents.
        """
        conditional, unconditional = (dit.prepare_text(text, images) for text in texts.split())
        both = PreparedText.cat([conditional, unconditional])

        def pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            with_prompt, without = self.estimate(dit, torch.cat([x, x]), torch.cat([t, t]), both, beside).chunk(2)
            return with_prompt, without

        num_tokens = prod(self._grid(plan)) // prod(dit.config.patch)
        return classifier_free(
            lambda x, t: self.estimate(dit, x, t, conditional, beside),
            lambda x, t: self.estimate(dit, x, t, unconditional, beside),
            guidance,
            pair=pair if num_tokens <= JOINT_TOKENS else None,
        )

    @torch.inference_mode()
    def decode(self, latents: Float[Tensor, "c lf lh lw"], plan: Plan, *, on_step: OnStep | None = None) -> Video:
        """The plan's video: decoded a few latent frames at a time, cropped to the middle of the picture and the first frames, as uint8.

        Raises `ModelError` when a pixel is not finite.
        """
        begun = time.perf_counter()
        top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
        frames = np.empty((plan.frames, plan.height, plan.width, 3), dtype=np.uint8)
        start = 0
        for piece in self.vae.stream_decode([self.vae.denormalise(latents.unsqueeze(0))]):
            stop = start + piece.shape[2]
            if not bool(torch.isfinite(piece).all()):
                raise ModelError(
                    f"frames {start} to {stop - 1} have pixels that are not finite: the VAE of {self.manifest.name} is damaged"
                )
            visible = piece[0, :, : max(0, plan.frames - start), top : top + plan.height, left : left + plan.width]
            frames[start:stop] = to_uint8(visible)
            start = stop
            if on_step is not None:
                on_step(Step("decode", stop - 1, plan.canvas_frames, time.perf_counter() - begun))
        return Video(frames, plan.fps)

    def _grid(self, plan: Plan) -> tuple[int, int, int]:
        """Size (lf, lh, lw) of the plan's latents."""
        space, pace = self.vae.config.spatial_factor, self.vae.config.temporal_factor
        return (plan.canvas_frames - 1) // pace + 1, plan.canvas_height // space, plan.canvas_width // space

    def estimate(self, dit: DiT, x: Tensor, t: Tensor, text: PreparedText, beside: Tensor | None = None) -> Tensor:
        """The estimate of x0 by `dit` at one time per latent, in float32."""
        shown = x if beside is None else torch.cat([x, beside.expand(len(x), -1, -1, -1, -1)], dim=1)
        output = apply_to_grid(dit, shown, self.shown_times(t), text)
        return to_x0(cast(Prediction, self.manifest.prediction), output.float(), x, t, self.schedule)

    def shown_times(self, t: Tensor) -> Tensor:
        """The times that the backbone is told when they are `t`."""
        return t

    def channels_in(self, vae: VAE) -> int:
        """Channels that the backbone is shown: those of the latents."""
        return vae.config.z_dim

    def _result(self, plan: Plan, video: Video, begun: float) -> Result:
        prompt = plan.request.prompt
        similarity = None
        if isinstance(self.clip, CLIP):
            similarity = self.clip.similarity(from_uint8([video.frames]).to(self.device), [prompt]).item()
        seconds = time.perf_counter() - begun
        return Result(video, plan, self.read_prompt(prompt), self.manifest.name, self.model_hash, similarity, seconds)


@contextmanager
def _memory_errors(plan: Plan) -> Iterator[None]:
    """Turns running out of memory into a `RequestError` that says for what; PyTorch has no class of its own for it on a CPU."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise RequestError(f"out of memory for {plan.text}: ask for a smaller size or fewer frames") from error


def load(model: str | Path = SHIPPED, *, device: str = "auto", precision: Precision = "auto", loras: Sequence[LoRAFile] = ()) -> Pipeline:
    """The pipeline of a model: "shipped", or the path of a model folder or file. Raises `ModelError` when it is not whole.

    `loras` are adapters that are merged into its backbone, one after the other; one that does not fit is an error that lists why.
    """
    pipeline = _load(model, device, precision)
    for lora in loras:
        pipeline.add_lora(lora)
    return pipeline


def _load(model: str | Path, device: str, precision: Precision) -> Pipeline:
    place = pick_device(device)
    if is_wan(Path(model)):
        from kinema.generate.wan import load_wan

        return load_wan(Path(model), place, precision)
    folder = resolve_model(model)
    manifest = load_manifest(folder)
    parts = load_dit(folder, place), load_vae(folder, place), load_clip(folder, place)
    return Pipeline(*parts, manifest, model=str(model), model_hash=model_hash(folder), precision=precision)


_kept = lru_cache(maxsize=1)(load)


def generate(prompt: str, *, model: str | Path = SHIPPED, device: str = "auto", **options: Any) -> Result:
    """The video that shows `prompt`; `options` are the other fields of `Request`. The model stays loaded for the next call.

    In a terminal a bar shows how far it has come, and words that the model reads otherwise are logged as a warning.

    `generate("a penguin walks", seconds=2, seed=7).save("penguin.mp4")`. Raises `ConfigError` for an option that a request does not have,
    and the errors of `load` and `Pipeline.run`.
    """
    request = config.from_dict(Request, {"prompt": prompt, "model": str(model), **options})
    pipeline = _kept(request.model, device=device)
    if notice := pipeline.read_prompt(prompt).text:
        log.warning("%s", notice)
    with progress_bar() as on_step:
        return pipeline.run(request, on_step=on_step)
