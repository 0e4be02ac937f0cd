"""A whole evaluation: prompts, clips, readings, figures. Stopped at any time it goes on: what is in its folder is not made again.

out/settings.json   model, sampling and stage; another evaluation needs another folder
out/clips/          the generated clips, each with the request that made it inside
out/trust.json      what the oracle reads rightly of this stage through this VAE
out/report.json     every figure, and every clip's answers
out/index.html      the same to look at
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kinema.checkpoints.folders import PARTS, load_oracle
from kinema.checkpoints.shipped import shipped_oracle
from kinema.config import to_dict
from kinema.errors import OutputError, RequestError, VideoError
from kinema.evaluation import physics
from kinema.evaluation.alignment import score
from kinema.evaluation.run_folder import claim
from kinema.evaluation.samples import (
    SPLITS,
    ClipFormat,
    Sample,
    Split,
    draw_samples,
    stage_of,
    true_clip,
    world_of,
)
from kinema.evaluation.trust import (
    OracleAccuracy,
    check_vocabulary,
    grade_reading,
    measure_oracle_accuracy,
    scored_slots,
    vae_round_trip,
)
from kinema.evaluation.vae_clip_metrics import clip_scores, read_real_clip, vae_psnr
from kinema.files import read_json, sha256_of, write_json
from kinema.generation.output.provenance import metadata, read_provenance
from kinema.generation.pipeline import Pipeline
from kinema.generation.request import Request
from kinema.models.clip import CLIP
from kinema.models.oracle import LEAST_FRAMES, Oracle, Reading
from kinema.models.vae import VAE
from kinema.video import Video
from kinema.worlds import StageConfig, StageWorld

OnProgress = Callable[[str, int, int], None]
CLIP_QUALITY = 12
"""x264's CRF of the clips in the folder: no loss that the oracle or an eye would see."""
SAVE_EVERY = 25
"""Clips on which the oracle was tried, of which no more are lost when it is stopped."""
NOT_IN_VOCABULARY = "not in this model's vocabulary"


@dataclass(frozen=True)
class PromptsConfig:
    """How many prompts of each split, how they are sampled (None: the model's defaults), and how much the networks are tried on."""

    prompts: int = 200
    splits: tuple[Split, ...] = SPLITS
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    shift: float | None = None
    num_fresh: int = 200
    num_round_trips: int = 200
    num_vae_clips: int = 16
    num_clip_clips: int = 256
    real_clip: Path | None = None

    def __post_init__(self) -> None:
        if self.prompts < 1:
            raise RequestError(f"{self.prompts} prompts are no sample: use 1 or more")
        if not self.splits:
            raise RequestError("no split to draw prompts from: use held_out, seen or both")
        if min(self.num_fresh, self.num_round_trips, self.num_vae_clips, self.num_clip_clips) < 1:
            raise RequestError("the oracle, the VAE and the CLIP are tried on 1 clip or more each")


def evaluate_prompts(
    pipeline: Pipeline,
    config: PromptsConfig,
    out: Path,
    *,
    oracle_folder: Path | None = None,
    trust_file: Path | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Every figure of a model, also written to `out / "report.json"`; plain JSON.

    `trust_file` is where the oracle's own figures are kept, which several evaluations of one model may share (default: in `out`).

    Raises before any work `ModelError` for a model or an oracle that does not know the stage, `ConfigError` for a stage of which nothing
    was held out, `RequestError` for clips that cannot be sampled or are too short to be read, and `OutputError` for a folder that cannot
    be written or holds another evaluation.
    """
    manifest = pipeline.manifest
    stage = stage_of(manifest)
    oracle = load_oracle(oracle_folder, device=pipeline.device)
    check_vocabulary(oracle, stage, manifest.name)
    plan = pipeline.plan(_request(config, "any", 0))
    shown = ClipFormat(plan.height, plan.width, plan.frames, plan.fps)
    if len(oracle.chosen_frames(plan.frames, plan.fps)) < LEAST_FRAMES:
        least = int((LEAST_FRAMES - 1) * plan.fps / oracle.config.fps) + 1
        raise RequestError(
            f"{plan.frames} frames at {plan.fps:g} fps are too short for motion to be read: use at least {least}"
        )
    samples = {split: draw_samples(stage, split, config.prompts, shown) for split in config.splits}
    real = read_real_clip(config.real_clip, shown) if config.real_clip else None
    request = plan.request.to_dict()
    settings = {
        "model": manifest.name,
        "model_hash": pipeline.model_hash,
        "sampling": {
            name: request[name]
            for name in ("width", "height", "frames", "steps", "sampler", "guidance", "shift")
        },
        "stage": to_dict(stage),
    }
    claim(out, settings)
    every = [sample for split in config.splits for sample in samples[split]]
    for done, sample in enumerate(every):
        on_progress("generating", done, len(every))
        _generate(pipeline, config, sample, out)
    on_progress("generating", len(every), len(every))
    trust = _trust(
        oracle, oracle_folder, pipeline, stage, shown, config, trust_file or out / "trust.json", on_progress
    )
    slots = scored_slots(stage)
    report: dict[str, Any] = {
        **settings,
        "oracle": {"trust": asdict(trust), "failures": trust.failures},
        "splits": {},
        "clips": [],
    }
    seen: list[_Seen] = []
    for split in config.splits:
        world = world_of(stage, split)
        looked = []
        for sample in samples[split]:
            looked.append(_look(oracle, pipeline.vae, world, sample, shown, _clip_file(out, sample)))
            on_progress("reading", len(seen) + len(looked), len(every))
        readings, true_readings = [one.made.reading for one in looked], [one.true.reading for one in looked]
        truths = [one.sample.truth for one in looked]
        report["splits"][split] = {
            "num": len(looked),
            "slots": score(readings, true_readings, truths, slots, relative=not trust.failures),
        }
        seen += looked
    report["physics"] = _physics(seen, stage, oracle)
    report["flicker"] = {
        "model": _mean([one.made.flicker for one in seen]),
        "ceiling": _mean([one.true.flicker for one in seen]),
    }
    report |= _towers(pipeline, stage, shown, config, real, on_progress)
    for one in seen:
        truth = {slot: str(one.sample.truth[slot]) for slot in slots}
        answers = {slot: one.made.reading.answers[slot] for slot in slots}
        verdict = grade_reading(one.made.reading, one.sample.truth, slots)
        about = {"name": one.sample.name, "split": one.sample.split, "prompt": one.sample.prompt}
        report["clips"].append({**about, "truth": truth, "read": answers, "right": verdict})
    write_json(out / "report.json", report)
    return report


@dataclass(frozen=True, eq=False)
class _Look:
    """What was read of one clip: slots and tracks, the laws of its verb, and the flicker where the camera stands still."""

    reading: Reading
    laws: dict[str, Any]
    flicker: float | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """A generated clip, the true one with the same prompt, and where its verb has laws what is left of them after the model's VAE."""

    sample: Sample
    made: _Look
    true: _Look
    after_vae: dict[str, Any]


def _request(config: PromptsConfig, prompt: str, seed: int) -> Request:
    return Request(
        prompt,
        width=config.width,
        height=config.height,
        frames=config.frames,
        seed=seed,
        steps=config.steps,
        sampler=config.sampler,
        guidance=config.guidance,
        shift=config.shift,
    )


def _clip_file(out: Path, sample: Sample) -> Path:
    return out / "clips" / f"{sample.name}.mp4"


def _generate(pipeline: Pipeline, config: PromptsConfig, sample: Sample, out: Path) -> None:
    """The clip of a sample in the folder; one that is there must be of the same prompt, for the settings are the folder's."""
    file = _clip_file(out, sample)
    if file.exists():
        made = read_provenance(file) or {}
        if (made.get("model_hash"), made.get("request", {}).get("prompt")) != (
            pipeline.model_hash,
            sample.prompt,
        ):
            raise OutputError(
                f"{file} is not of this model and the prompt '{sample.prompt}': delete it, or use another --out"
            )
        return
    result = pipeline.run(_request(config, sample.prompt, sample.seed))
    result.video.save(file, metadata=metadata(result.provenance), quality=CLIP_QUALITY)


def _trust(
    oracle: Oracle,
    folder: Path | None,
    pipeline: Pipeline,
    stage: StageConfig,
    shown: ClipFormat,
    config: PromptsConfig,
    file: Path,
    on_progress: OnProgress,
) -> OracleAccuracy:
    """Measured once, and kept in `file` with all that it depends on; every so many clips what is measured until then."""
    counts = {"num_fresh": config.num_fresh, "num_round_trips": config.num_round_trips}
    oracle_hash = sha256_of((folder or shipped_oracle()) / PARTS[Oracle].weights)
    key = {
        "oracle": oracle_hash,
        "model": pipeline.model_hash,
        "shown": asdict(shown),
        "stage": to_dict(stage),
        **counts,
    }
    kept = read_json(file) if file.exists() else {}
    if kept.get("key") != key:
        kept = {"key": key, "verdicts": {}}
    if "trust" in kept:
        return OracleAccuracy(**kept["trust"])
    done, total = 0, config.num_fresh + config.num_round_trips

    def on_clip() -> None:
        nonlocal done
        done += 1
        if done == len(kept["verdicts"]) and done % SAVE_EVERY == 0:
            write_json(file, kept)
        on_progress("trying the oracle", done, total)

    trust = measure_oracle_accuracy(
        oracle, stage, pipeline.vae, shown, **counts, verdicts=kept["verdicts"], on_clip=on_clip
    )
    write_json(file, {"key": key, "trust": asdict(trust)})
    return trust


def _look(oracle: Oracle, vae: VAE, world: StageWorld, sample: Sample, shown: ClipFormat, file: Path) -> _Seen:
    video = Video.read(file)
    if video.frames.shape != (shown.num_frames, shown.height, shown.width, 3):
        raise VideoError(
            f"{file} is not a clip of this evaluation: it has the shape {video.frames.shape}; delete it"
        )
    true = true_clip(world, sample.seed, shown)
    made_look, true_look = (
        _look_at(oracle, frames, sample, shown.fps) for frames in (video.frames, true.frames)
    )
    after_vae = _look_at(oracle, vae_round_trip(vae, true.frames), sample, shown.fps).laws if true_look.laws else {}
    return _Seen(sample, made_look, true_look, after_vae)


def _look_at(oracle: Oracle, frames: np.ndarray, sample: Sample, fps: float) -> _Look:
    (reading,) = oracle.read([frames], fps)
    is_still = sample.truth["camera"] == "still"
    moved = physics.flicker(frames, reading.x, reading.y, reading.size) if is_still else None
    return _Look(reading, physics.laws(oracle, frames, reading, sample.truth, fps), moved)


def _physics(seen: Sequence[_Seen], stage: StageConfig, oracle: Oracle) -> dict[str, Any]:
    """By law: how many clips were asked for it, the share that keeps it, and the same of the renderer, before and after the model's VAE.

    In place of these a line that says why there are none.
    """
    verbs = StageWorld(replace(stage, split="all")).vocabulary().verbs
    report: dict[str, Any] = {}
    for law, of in physics.LAWS.items():
        if not set(of) & set(verbs):
            report[law] = NOT_IN_VOCABULARY
            continue
        found = [(one.made.laws, one.true.laws) for one in seen if law in one.made.laws]
        if not found:
            report[law] = (
                "this oracle follows one object"
                if law == "momentum" and oracle.config.num_tracks < 2
                else "no prompt asked for it"
            )
            continue
        row: dict[str, Any] = {
            "num": len(found),
            "model": _share([a[law] for a, _ in found]),
            "ceiling": _share([b[law] for _, b in found]),
            "after_vae": _share([one.after_vae[law] for one in seen if law in one.after_vae]),
        }
        if law == "gravity":
            fits = [a for a, _ in found if a["fit"] >= physics.LEAST_FIT]
            row |= {
                "num_fitted": len(fits),
                "median_gravity": _median([a["g"] for a in fits]),
                "world_gravity": physics.GRAVITY,
            }
            for verb in of:
                low, high = physics.RESTITUTION[verb]
                bounces = [a["e"] for a in fits if a["verb"] == verb]
                row[f"{verb}_restitution"] = {"median": _median(bounces), "world": [low, high]}
        if law == "rolling":
            row |= {
                "num_read": sum(a["read"] for a, _ in found),
                "median_ratio": _median([a["ratio"] for a, _ in found if a["read"]]),
            }
        report[law] = row
    return report


def _towers(
    pipeline: Pipeline,
    stage: StageConfig,
    shown: ClipFormat,
    config: PromptsConfig,
    real: np.ndarray | None,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """PSNR of the VAE and scores of the CLIP, on clips of held-out combinations where there are any."""
    assert isinstance(pipeline.clip, CLIP), "a model that knows the stage has a CLIP"
    split: Split = "held_out" if "held_out" in config.splits else "seen"
    world = world_of(stage, split)
    clips = [true_clip(world, 5 * 10**9 + i, shown).frames for i in range(config.num_vae_clips)]
    done = 0

    def on_clip() -> None:
        nonlocal done
        done += 1
        on_progress("trying the VAE", done, len(clips))

    vae: dict[str, Any] = {
        "num": len(clips),
        "split": split,
        "psnr_db": vae_psnr(pipeline.vae, clips, on_clip),
    }
    if real is not None:
        vae["real_clip_psnr_db"] = vae_psnr(pipeline.vae, [real])
    return {
        "vae": vae,
        "clip": {"split": split, **clip_scores(pipeline.clip, world, shown, config.num_clip_clips)},
    }


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None
