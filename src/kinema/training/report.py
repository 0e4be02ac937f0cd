"""What a run says of itself: a line or a bar in the terminal, log.jsonl for programs, TensorBoard where it is installed."""

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

log = logging.getLogger(__name__)


class Report:
    """Collects the metrics of steps and gives their mean every `every` steps."""

    def __init__(self, folder: Path, *, start: int, num_steps: int, every: int):
        self.folder, self.start, self.num_steps, self.every = folder, start, num_steps, every
        self.sums: dict[str, list[torch.Tensor]] = {}
        self.since = time.perf_counter()
        self.file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self.board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self.bar: Any = None
        if sys.stderr.isatty() and importlib.util.find_spec("rich"):
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns)
            self.task = self.bar.add_task("", total=num_steps, completed=start)
            self.bar.start()

    def add(self, step: int, metrics: Mapping[str, torch.Tensor | float], **values: float) -> None:
        """Note the metrics of the step just taken (counted from 1); metrics may be tensors, read only when a mean is due."""
        for name, value in {**metrics, **values}.items():
            self.sums.setdefault(name, []).append(torch.as_tensor(value).detach().float().cpu())
        if self.bar:
            self.bar.update(self.task, completed=step)
        if step % self.every == 0 or step == self.num_steps:
            self.flush(step)

    def flush(self, step: int) -> None:
        """Write the means since the last call."""
        if not self.sums:
            return
        count = max(len(values) for values in self.sums.values())
        means = {name: torch.stack(values).mean().item() for name, values in self.sums.items()}
        means["seconds_per_step"] = (time.perf_counter() - self.since) / count
        self.file.write(
            json.dumps({"step": step, **{name: round(value, 6) for name, value in means.items()}}) + "\n"
        )
        self.file.flush()
        line = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        if self.board:
            for name, value in means.items():
                self.board.add_scalar(name, value, step)
        if self.bar:
            self.bar.update(self.task, description=line)
        else:
            log.info("step %d of %d  %s", step, self.num_steps, line)
        self.sums, self.since = {}, time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if self.bar:
            self.bar.stop()
        if self.board:
            self.board.close()
