"""The loop: batch, loss, backward, step, average; once in a while a sample and a checkpoint.

It stops at once on Ctrl-C or SIGTERM, saves, and goes on bit for bit when started again: weights, average and optimizer come from
the checkpoint, and batch and noise of a step depend on nothing but (seed, step).
"""

import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kinema.config import to_dict
from kinema.data.seeds import batches, torch_rng
from kinema.device import autocast, describe, peak_memory_bytes, pick_device, synchronize
from kinema.errors import KinemaError, OutputError, TrainingError
from kinema.training import checkpoint
from kinema.training.ema import EMA
from kinema.training.optimizer import build_optimizers
from kinema.training.report import Report
from kinema.training.task import TrainingTask, to_device

log = logging.getLogger(__name__)


def train(part: TrainingTask, out: Path) -> bool:
    """Train a part into the run folder `out`; True when all steps are done, False when it was asked to stop.

    A run folder holds log.jsonl, samples/, the last checkpoints and, at the end, export/: the averaged model in its release form.
    Raises `TrainingError` when the folder holds a run of another recipe, or when too many steps in a row are not finite.
    """
    run = part.recipe.run
    device = pick_device(run.device)
    _claim(out)
    log.info("%s on %s", out, describe(device))
    part.prepare(out, device)
    model = part.model.to(device).train()
    optimizers = build_optimizers(model, part.recipe.optimizer)
    ema = EMA(model, run.ema_decay)

    recipe = to_dict(part.recipe)
    step, bad_steps, seconds = 0, 0, 0.0
    found = checkpoint.latest(out)
    if found is not None:
        state = checkpoint.read_state(found)
        assert state is not None, "latest() returns whole checkpoints only"
        _same_recipe(found, state["recipe"], recipe)
        checkpoint.load(found, model, ema.model, optimizers)
        step, bad_steps, seconds = state["step"], state["bad_steps"], state["seconds"]
        log.info("going on from step %d of %d", step, run.steps)

    def save() -> None:
        state = {"recipe": recipe, "bad_steps": bad_steps, "seconds": seconds}
        checkpoint.save(out, step, model, ema.model, optimizers, state, keep=run.keep_checkpoints)

    params = [p for group in optimizers for g in group.param_groups for p in g["params"]]
    consecutive = 0
    saved_at = step
    with Report(out, start=step, num_steps=run.steps, every=run.log_every) as report, _StopSignal() as stop:
        for batch in batches(part.batch, step, run.steps, num_workers=run.num_workers):
            started = time.perf_counter()
            factor = part.recipe.optimizer.factor(step, run.steps)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = factor * group["peak_lr"]
            with autocast(device, run.precision):
                loss, metrics = part.loss(model, to_device(batch, device), torch_rng(run.seed, "loss", step))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(params, part.recipe.optimizer.clip_norm, foreach=True)
            finite = bool(torch.isfinite(loss.detach() + norm))
            if finite:
                for optimizer in optimizers:
                    optimizer.step()
                ema.update(model, step)
                consecutive = 0
            else:
                bad_steps, consecutive = bad_steps + 1, consecutive + 1
                log.warning(
                    "step %d is not finite (loss %s, gradient norm %s) and is skipped",
                    step + 1,
                    loss.item(),
                    norm.item(),
                )
                if consecutive >= run.max_bad_steps:
                    raise TrainingError(
                        f"{consecutive} steps in a row were not finite, the last is step {step + 1}; lower optimizer.lr"
                    )
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            step += 1
            seconds += time.perf_counter() - started
            if finite:
                report.add(
                    step,
                    {"loss": loss.detach(), **metrics},
                    norm=norm.item(),
                    lr=factor * part.recipe.optimizer.lr,
                )
            if step % run.save_every == 0 or step == run.steps or stop.asked:
                save()
                saved_at = step
            if step % run.sample_every == 0 or step == run.steps:
                _sample(part, ema, out, step, device)
            if stop.asked:
                report.flush(step)
                break
    if step < run.steps:
        log.info(
            "stopped and saved at step %d of %d; the same command goes on from there", saved_at, run.steps
        )
        return False
    training = {
        "steps": step,
        "seconds": round(seconds, 1),
        "seed": run.seed,
        "skipped_steps": bad_steps,
        "recipe": recipe,
    }
    part.export(ema.model, out / "export", device, training)
    log.info("done: %s (%.0f s of training)", out / "export", seconds)
    return True


def measure(part: TrainingTask, *, repeats: int = 2) -> list[dict[str, Any]]:
    """For every kind of step of a part: name, tokens, seconds per step and peak memory in bytes, by taking a few on random data."""
    run = part.recipe.run
    device = pick_device(run.device)
    model = part.model.to(device).train()
    optimizers = build_optimizers(model, part.recipe.optimizer)
    rows = []
    for name, batch, tokens in part.plan():
        times = []
        for repeat in range(repeats + 1):
            synchronize(device)
            started = time.perf_counter()
            with autocast(device, run.precision):
                loss, _ = part.loss(model, to_device(batch, device), torch_rng("plan", repeat))
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            synchronize(device)
            times.append(time.perf_counter() - started)
        rows.append(
            {
                "name": name,
                "tokens": tokens,
                "seconds": min(times[1:]),
                "peak_bytes": peak_memory_bytes(device),
            }
        )
    return rows


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write the run folder {out}: {error.strerror}") from error
    free = shutil.disk_usage(out).free
    if free < 2**28:
        raise OutputError(f"{out} has {free / 2**20:.0f} MiB of disk left; checkpoints need at least 256 MiB")


MAY_CHANGE = tuple(
    f"run.{name}"
    for name in (
        "steps",
        "log_every",
        "save_every",
        "sample_every",
        "keep_checkpoints",
        "max_bad_steps",
        "num_workers",
        "device",
    )
)
"""Settings that a run may go on with in another value: they do not say what a step does."""


def _same_recipe(path: Path, old: dict[str, Any], new: dict[str, Any], where: str = "") -> None:
    """Refuse to go on with other settings than `MAY_CHANGE`."""
    for key in sorted({*old, *new}):
        name = f"{where}{key}"
        if name in MAY_CHANGE:
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            _same_recipe(path, before, after, f"{name}.")
        elif before != after:
            raise TrainingError(
                f"{path} was trained with {name} = {before}, not {after}: use another --out, or --init-from for its weights"
            )


def _sample(part: TrainingTask, ema: EMA, out: Path, step: int, device: torch.device) -> None:
    """A picture is worth no run: what goes wrong with it is said, and training goes on."""
    try:
        (out / "samples").mkdir(exist_ok=True)
        part.sample(ema.model, out / "samples" / f"{step:08d}.png", device)
    except (KinemaError, OSError) as error:
        log.warning("no sample of step %d: %s", step, error)


class _StopSignal:
    """Turns SIGINT and SIGTERM into a wish that the loop reads after its step; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_StopSignal":
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True
        log.info("stopping after this step")
