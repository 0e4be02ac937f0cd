"""The training loop: batch, loss, backward, step, average; now and then a sample and a checkpoint.

Ctrl-C or SIGTERM saves and stops. A run that is started again continues bit for bit: weights, average and
optimizer state come from the checkpoint, and the batch and the noise of a step depend on nothing but (seed,
step).
"""

import logging
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kinema.config import from_dict, to_dict
from kinema.data.seeds import Batch, batches, torch_rng
from kinema.device import (
    autocast,
    describe_device,
    device_of_rank,
    peak_memory_bytes,
    pick_device,
    synchronize,
)
from kinema.distributed.group import Group, open_group
from kinema.distributed.ranks import Ranks
from kinema.distributed.sharding import WholeModel, parallelize, whole
from kinema.errors import ConfigError, KinemaError, OutputError, TrainingError
from kinema.training import checkpoint
from kinema.training.ema import EMA
from kinema.training.optimizer import build_optimizers
from kinema.training.renamed_keys import with_current_keys
from kinema.training.report import Report
from kinema.training.task import ParallelTask, RunConfig, TrainingTask, to_device

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 2**28
"""Free disk space that a run needs at its start."""


@dataclass
class _Counters:
    """Steps done, non-finite steps among them, and the seconds they took."""

    step: int = 0
    bad_steps: int = 0
    seconds: float = 0.0


def train(task: TrainingTask, out: Path) -> bool:
    """Train a task in the run folder `out`; True when all steps are done, False when it was stopped before.

    A run folder holds log.jsonl, samples/, the last checkpoints and, at the end, export/: the averaged model
    in its release form. Under torchrun every rank calls this. Raises `OutputError` when the folder cannot be
    written, and `TrainingError` when it holds a run of another recipe, when too many steps in a row are not
    finite, or when a rank does not answer.
    """
    parallel = task.recipe.parallel
    ranks = Ranks.of(parallel)
    if not ranks.is_alone and not isinstance(task, ParallelTask):
        raise ConfigError(
            f"task = '{task.recipe.task}' is trained by one process, not by {ranks.size} ranks: start it "
            "without torchrun"
        )
    device = device_of_rank(pick_device(task.recipe.run.device), ranks.local_index)
    if ranks.is_first:
        _check_folder(out)
    with open_group(ranks, device, parallel.timeout_s) as group:
        if isinstance(task, ParallelTask) and not ranks.is_alone:
            log.info("%s: %s", task.describe_batch(), ranks.describe())
        return _train(task, out, device, group)


def _train(task: TrainingTask, out: Path, device: torch.device, group: Group) -> bool:
    """`train` on one rank of `group`."""
    run, optimizer_config = task.recipe.run, task.recipe.optimizer
    log.info("%s on %s", out, describe_device(device))
    task.prepare(out, device)
    group.wait()
    model = task.model.to(device).train()
    ema = EMA(model, run.ema_decay)
    average = WholeModel(ema.model, group.mesh)
    parallelize(model, group.mesh, group.sequence)
    parallelize(ema.model, group.mesh)
    optimizers = build_optimizers(model, optimizer_config)
    recipe = to_dict(task.recipe)
    done = _resume(out, task, recipe, model, ema, optimizers, group)

    params = [p for optimizer in optimizers for group_ in optimizer.param_groups for p in group_["params"]]
    consecutive = 0
    with _report(out, done.step, run, group) as report, _StopSignal() as stop:
        for batch in batches(task.batch, done.step, run.steps, num_workers=run.num_workers):
            started = time.perf_counter()
            group.step = done.step
            lr_factor = optimizer_config.factor(done.step, run.steps)
            _set_lr(optimizers, lr_factor)
            loss, metrics = _backward(
                task, model, batch, torch_rng(run.seed, "loss", done.step), device, group
            )
            norm = whole(nn.utils.clip_grad_norm_(params, optimizer_config.clip_norm, foreach=True))

            is_finite = bool(torch.isfinite(loss + norm))
            if is_finite:
                for optimizer in optimizers:
                    optimizer.step()
                ema.update(model, done.step)
                consecutive = 0
            else:
                done.bad_steps, consecutive = done.bad_steps + 1, consecutive + 1
                _skip_step(done.step + 1, loss, norm, consecutive, run.max_bad_steps)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            done.step += 1
            done.seconds += time.perf_counter() - started

            if is_finite and report is not None:
                lr = lr_factor * optimizer_config.lr
                report.add(done.step, {"loss": loss, **metrics}, norm=norm.item(), lr=lr)
            is_stopped = group.any(stop.is_requested)
            if done.step % run.save_every == 0 or done.step == run.steps or is_stopped:
                state = {"recipe": recipe, "bad_steps": done.bad_steps, "seconds": done.seconds}
                checkpoint.save(
                    out, done.step, model, ema.model, optimizers, state, group, keep=run.keep_checkpoints
                )
            if done.step % run.sample_every == 0 or done.step == run.steps:
                _sample(task, average, out, done.step, device, group)
            if is_stopped:
                if report is not None:
                    report.flush(done.step)
                break

    return _export(task, average, out, done, recipe, device, group)


def _report(out: Path, start: int, run: RunConfig, group: Group) -> AbstractContextManager[Report | None]:
    """The log of a run on its first rank, and None on the others."""
    if not group.ranks.is_first:
        return nullcontext()
    return Report(out, start=start, num_steps=run.steps, every=run.log_every)


def _resume(
    out: Path,
    task: TrainingTask,
    recipe: dict[str, Any],
    model: nn.Module,
    ema: EMA,
    optimizers: Sequence[torch.optim.Optimizer],
    group: Group,
) -> _Counters:
    """Load the newest checkpoint of the run folder, if it has one; the counters to go on from."""
    found = checkpoint.latest(out)
    group.check_equal(found.name if found else "none", "the checkpoint")
    if found is None:
        return _Counters()

    state = checkpoint.read_state(found)
    assert state is not None, "latest() returns whole checkpoints only"
    _check_same_recipe(found, _completed(found, state["recipe"], type(task.recipe)), recipe)
    checkpoint.load(found, model, ema.model, list(optimizers))
    log.info("continuing at step %d of %d", state["step"], recipe["run"]["steps"])
    return _Counters(state["step"], state["bad_steps"], state["seconds"])


def _set_lr(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Set the learning rate of every group to `factor` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]


def _backward(
    task: TrainingTask,
    model: nn.Module,
    batch: Batch,
    generator: torch.Generator,
    device: torch.device,
    group: Group,
) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """The detached loss of a batch and its metrics, with the gradients in the parameters."""
    with autocast(device, task.recipe.run.precision):
        loss, metrics = task.loss(model, to_device(batch, device), generator)
    loss.backward()
    if group.ranks.is_alone:
        return loss.detach(), metrics
    means = group.mean({"loss": loss, **metrics})
    return torch.as_tensor(means.pop("loss"), device=device), means


def _skip_step(step: int, loss: Tensor, norm: Tensor, consecutive: int, max_bad_steps: int) -> None:
    """Log a step that is not finite. Raises `TrainingError` at the `max_bad_steps`th in a row."""
    log.warning(
        "step %d is not finite (loss %s, gradient norm %s) and is skipped", step, loss.item(), norm.item()
    )
    if consecutive >= max_bad_steps:
        raise TrainingError(
            f"{consecutive} steps in a row were not finite, the last is step {step}; lower optimizer.lr"
        )


def _export(
    task: TrainingTask,
    average: WholeModel,
    out: Path,
    done: _Counters,
    recipe: dict[str, Any],
    device: torch.device,
    group: Group,
) -> bool:
    """Export the averaged model on the first rank if all steps are done; whether they are."""
    run = task.recipe.run
    if done.step < run.steps:
        log.info(
            "stopped and saved at step %d of %d; the same command continues the run", done.step, run.steps
        )
        return False

    training = {
        "steps": done.step,
        "seconds": round(done.seconds, 1),
        "seed": run.seed,
        "skipped_steps": done.bad_steps,
        "recipe": recipe,
    }
    model = average.on(device, keep=group.ranks.is_first)
    if group.ranks.is_first:
        task.export(model, out / "export", device, training)
    group.wait()
    log.info("done: %s (%.0f s of training)", out / "export", done.seconds)
    return True


class BenchmarkResult(NamedTuple):
    """Time and memory of one kind of step: seconds per step and the process's peak memory."""

    name: str
    num_tokens: int
    seconds: float
    peak_bytes: int


def benchmark(task: TrainingTask, *, repeats: int = 2) -> list[BenchmarkResult]:
    """For every kind of step of a task: the fastest of `repeats` steps on random data, after one to warm
    up."""
    run, group = task.recipe.run, Group(Ranks())
    device = pick_device(run.device)
    model = task.model.to(device).train()
    optimizers = build_optimizers(model, task.recipe.optimizer)
    results = []

    for name, batch, num_tokens in task.benchmark_batches():
        times = []
        for repeat in range(repeats + 1):
            synchronize(device)
            started = time.perf_counter()
            _backward(task, model, batch, torch_rng("plan", repeat), device, group)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            synchronize(device)
            times.append(time.perf_counter() - started)
        results.append(BenchmarkResult(name, num_tokens, min(times[1:]), peak_memory_bytes(device)))
    return results


def _check_folder(out: Path) -> None:
    """Make the run folder. Raises `OutputError` when it cannot be written or the disk is nearly full."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write the run folder {out}: {error.strerror}") from error

    free = shutil.disk_usage(out).free
    if free < MIN_FREE_BYTES:
        raise OutputError(
            f"{out} has {free / 2**20:.0f} MiB of free disk space; checkpoints need at least "
            f"{MIN_FREE_BYTES / 2**20:.0f} MiB"
        )


CHANGEABLE_SETTINGS = (
    "run.steps",
    "run.log_every",
    "run.save_every",
    "run.sample_every",
    "run.keep_checkpoints",
    "run.max_bad_steps",
    "run.num_workers",
    "run.device",
    "parallel",
)
"""Settings that may differ when a run is continued: they do not change the result of a step."""


def _completed(path: Path, recipe: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """The recipe of a checkpoint with the settings that its version did not have, at their defaults.

    Raises `TrainingError` for a recipe that this version does not read.
    """
    try:
        return to_dict(from_dict(kind, with_current_keys(recipe)))
    except ConfigError as error:
        raise TrainingError(
            f"{path} was trained by another version of Kinema, whose recipe is not read here ({error}): use "
            "another --out, or --init-from to start from its weights"
        ) from error


def _check_same_recipe(path: Path, old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> None:
    """Raise `TrainingError` when the recipes differ in a setting that is not in `CHANGEABLE_SETTINGS`."""
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if name in CHANGEABLE_SETTINGS:
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            _check_same_recipe(path, before, after, f"{name}.")
        elif before != after:
            raise TrainingError(
                f"{path} was trained with {name} = {before}, not {after}: use another --out, "
                "or --init-from to start from its weights"
            )


def _sample(
    task: TrainingTask, average: WholeModel, out: Path, step: int, device: torch.device, group: Group
) -> None:
    """Write the sample of a step on the first rank. A failed sample must not stop training, so its error is
    only logged.
    """
    model = average.on(device, keep=group.ranks.is_first)
    if group.ranks.is_first:
        try:
            (out / "samples").mkdir(exist_ok=True)
            task.sample(model, out / "samples" / f"{step:08d}.png", device)
        except (KinemaError, OSError) as error:
            log.warning("no sample of step %d: %s", step, error)
    group.wait()


class _StopSignal:
    """A flag that SIGINT or SIGTERM sets, checked after each step; a second signal ends the process at
    once."""

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> "_StopSignal":
        self.before = {
            number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: object) -> None:
        if self.is_requested:
            os._exit(128 + number)
        self.is_requested = True
        log.info("stopping after this step")
