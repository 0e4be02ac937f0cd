"""Prompt following, physics, VAE and CLIP of a model, against the truth of its world.

An interrupted run continues.

out/settings.json   model, sampling and world; a run with other settings needs another folder
out/clips/          the generated clips, each with its request in its metadata
out/trust.json      the oracle's accuracy on this world and through this VAE
out/report.json     all scores, and the answers of every clip
out/index.html      the same as a page
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.checkpoints.components import format_of
from kinema.checkpoints.shipped import shipped_oracle
from kinema.config import to_dict
from kinema.errors import OutputError, RequestError, VideoError
from kinema.evaluation import physics
from kinema.evaluation.alignment import alignment_rows
from kinema.evaluation.run_folder import (
    CLIP_QUALITY,
    OnProgress,
    SamplingOptions,
    claim_folder,
    reported,
    run_settings,
)
from kinema.evaluation.samples import (
    SPLITS,
    ClipFormat,
    PromptSplit,
    Sample,
    draw_samples,
    trained_world,
    true_clip,
    world_of,
)
from kinema.evaluation.trust import (
    OracleAccuracy,
    grade_reading,
    load_checked_oracle,
    measure_oracle_accuracy,
    scored_slots,
)
from kinema.evaluation.vae_clip_metrics import (
    GROUP_SIZE,
    clip_scores,
    read_real_clip,
    rendered_groups,
    vae_psnr,
    vae_round_trip,
)
from kinema.files import read_json, sha256_of, write_json
from kinema.generation.output.provenance import metadata, read_provenance
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.clip import CLIP
from kinema.models.oracle import MIN_FRAMES, Oracle, Reading
from kinema.video import Video
from kinema.worlds import World

SAVE_EVERY = 25
"""Clips after which the accuracy of the oracle that is measured so far is saved."""
FIRST_VAE_SEED = 5 * 10**9
"""The first seed of the clips on which the VAE is measured."""
NOT_IN_VOCABULARY = "not in this model's vocabulary"


@dataclass(frozen=True, kw_only=True)
class PromptsConfig(SamplingOptions):
    """Prompts of each split, how they are sampled, and the number of clips for other measurements."""

    prompts: int = 200
    splits: tuple[PromptSplit, ...] = SPLITS
    frames: int | None = None
    num_fresh: int = 200
    num_round_trips: int = 200
    num_vae_clips: int = 16
    num_clip_clips: int = 256
    real_clip: Path | None = None

    def __post_init__(self) -> None:
        if self.prompts < 1:
            raise RequestError(f"prompts={self.prompts}: use at least 1")
        if not self.splits:
            raise RequestError("splits is empty: use held_out, seen or both")
        for name in ("num_fresh", "num_round_trips", "num_vae_clips", "num_clip_clips"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name}={getattr(self, name)}: use at least 1")

    def request(self, prompt: str, seed: int) -> Request:
        """The request of a prompt."""
        return Request(prompt, frames=self.frames, seed=seed, **self.request_fields)


def evaluate_prompts(
    pipeline: Pipeline,
    config: PromptsConfig,
    out: Path,
    *,
    oracle_folder: Path | None = None,
    trust_file: Path | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> dict[str, Any]:
    """All scores of a model as plain JSON, also written to `out / "report.json"`.

    `trust_file` stores the oracle's accuracy, which several runs with one model may share (default: in
    `out`).

    Raises, before any generation, `ModelError` if the model or the oracle does not know the world,
    `ConfigError` if nothing of the world was held out, `RequestError` for an invalid request or clips too
    short to read, `VideoError` for a short real clip, and `OutputError` if the folder cannot be written or
    belongs to another run.
    """
    world = trained_world(pipeline.manifest)
    oracle = load_checked_oracle(pipeline, world, oracle_folder)
    plan = pipeline.plan(config.request("any", 0))
    clip_format = ClipFormat(plan.height, plan.width, plan.frames, plan.fps)
    _check_length(oracle, clip_format)
    drawn = [draw_samples(world, split, config.prompts, clip_format) for split in config.splits]
    samples = [sample for split in drawn for sample in split]
    real_clip = read_real_clip(config.real_clip, clip_format) if config.real_clip else None

    names = ("width", "height", "frames", "steps", "sampler", "guidance", "shift")
    settings = run_settings(pipeline, world, plan.request, names)
    claim_folder(out, settings)

    run = _PromptsRun(pipeline, oracle, world, clip_format, config, out, on_progress)
    run.generate(samples)
    oracle_file = (oracle_folder or shipped_oracle()) / format_of(Oracle).weights
    accuracy = run.oracle_accuracy(sha256_of(oracle_file), trust_file or out / "trust.json")
    readings = run.read(samples)

    slots = scored_slots(world)
    report = {
        **settings,
        "oracle": {"trust": asdict(accuracy), "failures": accuracy.failures},
        "splits": {
            split: _alignment(
                [one for one in readings if one.sample.split == split], slots, relative=not accuracy.failures
            )
            for split in config.splits
        },
        "clips": [_clip_row(one, slots) for one in readings],
        **run.physics_and_flicker(readings),
        **run.vae_and_clip(real_clip),
    }
    write_json(out / "report.json", report)
    return report


def _check_length(oracle: Oracle, clip_format: ClipFormat) -> None:
    if len(oracle.chosen_frames(clip_format.num_frames, clip_format.fps)) < MIN_FRAMES:
        shortest = int((MIN_FRAMES - 1) * clip_format.fps / oracle.config.fps) + 1
        raise RequestError(
            f"{clip_format.num_frames} frames at {clip_format.fps:g} fps are too short for the oracle "
            f"to read motion: use at least {shortest}"
        )


@dataclass(frozen=True, eq=False)
class _ClipReading:
    """Readings of one clip: slots and tracks, the law of its verb, and the flicker if the camera is still."""

    reading: Reading
    law: physics.LawResult | None
    flicker: float | None


@dataclass(frozen=True, eq=False)
class _SampleReadings:
    """Readings of the generated and the true clip, and the law of the true clip after a VAE round trip."""

    sample: Sample
    generated: _ClipReading
    true: _ClipReading
    law_after_vae: physics.LawResult | None


@dataclass(frozen=True, eq=False)
class _PromptsRun:
    """One run: the model, the oracle that reads its clips, and the folder that keeps them."""

    pipeline: Pipeline
    oracle: Oracle
    world: World
    clip_format: ClipFormat
    config: PromptsConfig
    out: Path
    on_progress: OnProgress

    def clip_file(self, sample: Sample) -> Path:
        return self.out / "clips" / f"{sample.name}.mp4"

    def generate(self, samples: Sequence[Sample]) -> None:
        """Generate the clips that are missing.

        Raises `OutputError` for an existing clip of another model or prompt.
        """
        for sample in reported(samples, "generating", self.on_progress):
            file = self.clip_file(sample)
            if file.exists():
                stored = read_provenance(file) or {}
                identity = (stored.get("model_hash"), stored.get("request", {}).get("prompt"))
                if identity != (self.pipeline.model_hash, sample.prompt):
                    raise OutputError(
                        f"{file} is not of this model and the prompt '{sample.prompt}': "
                        "delete it, or use another --out"
                    )
                continue

            result = self.pipeline.run(self.config.request(sample.prompt, sample.seed))
            result.video.save(file, metadata=metadata(result.provenance), quality=CLIP_QUALITY)

    def oracle_accuracy(self, oracle_hash: str, file: Path) -> OracleAccuracy:
        """The oracle's accuracy, from `file` if it was measured with the same settings.

        Partial results are saved there too.
        """
        counts = {"num_fresh": self.config.num_fresh, "num_round_trips": self.config.num_round_trips}
        key = {
            "oracle": oracle_hash,
            "model": self.pipeline.model_hash,
            "format": asdict(self.clip_format),
            "world": {"name": self.world.name, **to_dict(self.world.config)},
            **counts,
        }

        stored = read_json(file) if file.exists() else {}
        if stored.get("key") != key:
            stored = {"key": key, "grades": {}}
        if "trust" in stored:
            return OracleAccuracy(**stored["trust"])

        done, total = 0, sum(counts.values())

        def on_clip() -> None:
            nonlocal done
            done += 1
            if done == len(stored["grades"]) and done % SAVE_EVERY == 0:
                write_json(file, stored)
            self.on_progress("measuring the oracle", done, total)

        accuracy = measure_oracle_accuracy(
            self.oracle,
            self.world,
            self.pipeline.vae,
            self.clip_format,
            **counts,
            grades=stored["grades"],
            on_clip=on_clip,
        )
        write_json(file, {"key": key, "trust": asdict(accuracy)})
        return accuracy

    def read(self, samples: Sequence[Sample]) -> list[_SampleReadings]:
        """The readings of all samples."""
        worlds = {split: world_of(self.world, split) for split in self.config.splits}
        items = reported(samples, "reading", self.on_progress)
        return [self._read_sample(worlds[sample.split], sample) for sample in items]

    def _read_sample(self, world: World, sample: Sample) -> _SampleReadings:
        file = self.clip_file(sample)
        frames = Video.read(file).frames
        true_frames = true_clip(world, sample.seed, self.clip_format).frames
        if frames.shape != true_frames.shape:
            raise VideoError(
                f"{file} is not a clip of this evaluation: its shape is {frames.shape}; delete it"
            )

        generated, true = (self._read_clip(clip, sample) for clip in (frames, true_frames))
        law_after_vae = None
        if true.law is not None:
            law_after_vae = self._read_clip(vae_round_trip(self.pipeline.vae, true_frames), sample).law
        return _SampleReadings(sample, generated, true, law_after_vae)

    def _read_clip(self, frames: np.ndarray, sample: Sample) -> _ClipReading:
        fps = self.clip_format.fps
        (reading,) = self.oracle.read([frames], fps)
        flicker = None
        if sample.truth.get("camera") == "still":
            flicker = physics.flicker(frames, reading.x, reading.y, reading.size)
        return _ClipReading(
            reading, physics.check_law(self.oracle, frames, reading, sample.truth, fps), flicker
        )

    def physics_and_flicker(self, readings: Sequence[_SampleReadings]) -> dict[str, Any]:
        """Per law, the scores (`physics.summarize_law`) or the reason for none; and the mean flicker."""
        verbs = self.world.slots.get("verb", ())
        laws: dict[str, Any] = {}
        for law, governed in physics.LAWS.items():
            found = [
                one for one in readings if one.generated.law is not None and one.generated.law.law == law
            ]
            if not set(governed) & set(verbs):
                laws[law] = NOT_IN_VOCABULARY
            elif found:
                laws[law] = physics.summarize_law(
                    law,
                    [one.generated.law for one in found],
                    [one.true.law for one in found],
                    [one.law_after_vae for one in found],
                )
            elif law == "momentum" and self.oracle.config.num_tracks < 2:
                laws[law] = "this oracle follows one object"
            else:
                laws[law] = "no prompt asked for it"

        flicker = {
            "model": _mean([one.generated.flicker for one in readings]),
            "ceiling": _mean([one.true.flicker for one in readings]),
        }
        return {"physics": laws, "flicker": flicker}

    def vae_and_clip(self, real_clip: np.ndarray | None) -> dict[str, Any]:
        """PSNR of the VAE and scores of the CLIP, on held-out combinations if they are evaluated.

        A model with another text encoder has no scores of a CLIP.
        """
        split: PromptSplit = "held_out" if "held_out" in self.config.splits else "seen"
        world = world_of(self.world, split)

        seeds = [FIRST_VAE_SEED + i for i in range(self.config.num_vae_clips)]
        clips = [true_clip(world, seed, self.clip_format).frames for seed in seeds]
        vae: dict[str, Any] = {
            "num": len(clips),
            "split": split,
            "psnr_db": vae_psnr(self.pipeline.vae, reported(clips, "measuring the VAE", self.on_progress)),
        }
        if real_clip is not None:
            vae["real_clip_psnr_db"] = vae_psnr(self.pipeline.vae, [real_clip])

        clip = self.pipeline.text_encoder
        if not isinstance(clip, CLIP):
            return {"vae": vae}
        num_clips = self.config.num_clip_clips
        scores = clip_scores(clip, rendered_groups(world, self.clip_format, num_clips))
        num = -(-num_clips // GROUP_SIZE) * GROUP_SIZE
        return {"vae": vae, "clip": {"split": split, "num": num, **scores}}


def _alignment(
    readings: Sequence[_SampleReadings], slots: Sequence[str], *, relative: bool
) -> dict[str, Any]:
    generated = [one.generated.reading for one in readings]
    true = [one.true.reading for one in readings]
    asked = [one.sample.asked for one in readings]
    return {
        "num": len(readings),
        "slots": alignment_rows(generated, true, asked, slots, relative=relative),
    }


def _clip_row(one: _SampleReadings, slots: Sequence[str]) -> dict[str, Any]:
    reading, truth = one.generated.reading, one.sample.truth
    return {
        "name": one.sample.name,
        "split": one.sample.split,
        "prompt": one.sample.prompt,
        "truth": {slot: str(truth[slot]) for slot in slots},
        "read": {slot: reading.answers[slot] for slot in slots},
        "right": grade_reading(reading, one.sample.asked, slots),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None
