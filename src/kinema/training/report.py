"""The log of a run: a progress bar or a line in the terminal, log.jsonl, and TensorBoard where it is
installed."""

import importlib.util
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from kinema.terminal import ProgressBars

log = logging.getLogger(__name__)


class Report:
    """Collects the metrics of steps and logs their means every `every` steps."""

    def __init__(self, folder: Path, *, start: int, num_steps: int, every: int):
        self.start, self.num_steps, self.every = start, num_steps, every
        self.values: dict[str, list[torch.Tensor]] = {}
        self.since = time.perf_counter()
        self.line = ""
        self.file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self.bars = ProgressBars(transient=False)
        self.board: Any = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)

    def add(self, step: int, metrics: Mapping[str, torch.Tensor | float], **values: float) -> None:
        """Add the metrics of a step, counted from 1."""
        for name, value in {**metrics, **values}.items():
            self.values.setdefault(name, []).append(torch.as_tensor(value).detach().float().cpu())
        self.bars.show("training", step, self.num_steps, self.line)
        if step % self.every == 0 or step == self.num_steps:
            self.flush(step)

    def flush(self, step: int) -> None:
        """Log the means since the last call."""
        if not self.values:
            return

        count = max(len(values) for values in self.values.values())
        means = {name: torch.stack(values).mean().item() for name, values in self.values.items()}
        means["seconds_per_step"] = (time.perf_counter() - self.since) / count
        row = {"step": step, **{name: round(value, 6) for name, value in means.items()}}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        if self.board:
            for name, value in means.items():
                self.board.add_scalar(name, value, step)

        self.line = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        if self.bars.is_drawn:
            self.bars.show("training", step, self.num_steps, self.line)
        else:
            log.info("step %d of %d  %s", step, self.num_steps, self.line)
        self.values, self.since = {}, time.perf_counter()

    def __enter__(self) -> Self:
        self.bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self.bars.__exit__()
        if self.board:
            self.board.close()
