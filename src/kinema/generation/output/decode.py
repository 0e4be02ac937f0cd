"""Decoding of latents to the frames of results, a few latent frames at a time, and where the frames go."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import tee
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from kinema.device import is_out_of_memory
from kinema.errors import ModelError
from kinema.generation.output.provenance import metadata
from kinema.generation.plan import Plan
from kinema.generation.sampling.circular import decode_loop
from kinema.models.autoencoder import Autoencoder
from kinema.models.pixels import to_uint8
from kinema.shapes import Float
from kinema.video import Video, VideoWriter
from kinema.video.writing import LOSSY

log = logging.getLogger(__name__)

AT_ONCE = (2, 1)
"""Latent frames that are decoded at once. The next number is used if memory runs out."""
OVERVIEW_FRAMES = 33
STREAMED = frozenset(LOSSY)
"""Suffixes of the formats that are written while the video is decoded."""


class Decoder:
    """Decodes the latents of several results as one batch.

    Iterating gives, for each frame, the pictures of all results: uint8 (h, w, 3), cropped to the centre of
    the canvas. If memory runs out, decoding restarts with fewer latent frames at once, resumes at the next
    frame, and adds a line to `warnings` and the log. `plans` have one `batch_key`.
    """

    def __init__(
        self,
        vae: Autoencoder,
        latents: Float[Tensor, "b c lf lh lw"],
        plans: Sequence[Plan],
        *,
        model_name: str,
    ) -> None:
        self.vae, self.latents, self.plans, self.model_name = vae, latents, plans, model_name
        self.num_done = 0
        """Frames of the canvas that are decoded, or of the result for a loop."""
        self.total = plans[0].frames if plans[0].request.loop else plans[0].canvas_frames
        self.warnings: list[str] = []
        self.errors: dict[int, ModelError] = {}
        """The results with pixels that are not finite, by their index."""

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The pictures of all results, frame by frame."""
        num_yielded = 0
        for at_once in AT_ONCE:
            try:
                for index, pictures in enumerate(self._decoded(at_once)):
                    if index >= num_yielded:
                        yield pictures
                        num_yielded += 1
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or at_once == AT_ONCE[-1]:
                    raise
                warning = (
                    f"out of memory while decoding {at_once} latents at once: decoded again in smaller pieces"
                )
                log.warning("%s", warning)
                self.warnings.append(warning)

    def _decoded(self, at_once: int) -> Iterator[list[np.ndarray]]:
        plan = self.plans[0]
        first = 0 if plan.request.loop else plan.canvas_first
        start = 0
        for chunk in self._chunks(at_once):
            stop = start + chunk.shape[2]
            self._check(chunk, start, stop)
            self.num_done = stop

            inside = chunk[:, :, max(0, first - start) : max(0, first + plan.frames - start)]
            yield from map(list, zip(*(_cropped(clip, own) for clip, own in zip(inside, self.plans))))
            start = stop

    def _chunks(self, at_once: int) -> Iterator[Float[Tensor, "b 3 f h w"]]:
        """The pixels of all results, a few frames at a time. Each loop is decoded until it is seamless."""
        if not self.plans[0].request.loop:
            yield from self.vae.stream_decode([self.vae.denormalise(self.latents)], at_once=at_once)
            return
        loops = [decode_loop(self.vae, latents, at_once) for latents in self.latents]
        results = ((chunk for chunk, is_result in loop if is_result) for loop in loops)
        yield from map(torch.cat, zip(*results))

    def _check(self, chunk: Float[Tensor, "b 3 f h w"], start: int, stop: int) -> None:
        """Record the results of which a pixel is not finite."""
        for i, clip in enumerate(chunk):
            if i not in self.errors and not bool(torch.isfinite(clip).all()):
                self.errors[i] = ModelError(
                    f"frames {start} to {stop - 1} have pixels that are not finite: the VAE of "
                    f"{self.model_name} is damaged"
                )

    def split(self) -> list[Iterator[np.ndarray]]:
        """The frames of each result. Iterated together, they hold a few decoded frames in memory."""

        def of(i: int, rows: Iterator[list[np.ndarray]]) -> Iterator[np.ndarray]:
            return (pictures[i] for pictures in rows)

        return [of(i, rows) for i, rows in enumerate(tee(self, len(self.plans)))]


def _cropped(clip: Float[Tensor, "3 f h w"], plan: Plan) -> Iterator[np.ndarray]:
    """The frames of one clip in the size of its result, from the centre of the canvas."""
    top, left = (plan.canvas_height - plan.height) // 2, (plan.canvas_width - plan.width) // 2
    return iter(to_uint8(clip[:, :, top : top + plan.height, left : left + plan.width]))


class FrameSink:
    """Collects the frames of a result in memory, or writes them to `path` as they come; a context manager.

    A file is complete when the context ends, and absent after an exception.
    """

    def __init__(self, plan: Plan, path: Path | None, provenance: dict[str, object]) -> None:
        self.plan, self.path, self._metadata = plan, path, metadata(provenance)
        self.is_streamed = path is not None and path.suffix.lower() in STREAMED
        num_kept = min(plan.frames, OVERVIEW_FRAMES) if self.is_streamed else plan.frames
        self._kept = np.linspace(0, plan.frames - 1, num_kept).round().astype(int).tolist()
        self._frames = np.empty((num_kept, plan.height, plan.width, 3), dtype=np.uint8)
        self._num_written = self._num_kept = 0
        self._stack = ExitStack()

    def __enter__(self) -> "FrameSink":
        if self.path is not None and self.is_streamed:
            plan = self.plan
            writer = VideoWriter(self.path, plan.fps, plan.width, plan.height, metadata=self._metadata)
            self._writer = self._stack.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.path is not None and not self.is_streamed:
            self.video.save(self.path, metadata=self._metadata)
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: np.ndarray) -> None:
        """Take the next frame, uint8 (h, w, 3)."""
        if self.is_streamed:
            self._writer.write(frame[None])
        if self._num_written == self._kept[self._num_kept]:
            self._frames[self._num_kept] = frame
            self._num_kept += 1
        self._num_written += 1

    @property
    def video(self) -> Video:
        """The video, or, if streamed to a file, at most `OVERVIEW_FRAMES` of its frames, evenly spaced."""
        fps, num_kept = self.plan.fps, len(self._frames)
        return Video(self._frames, fps if num_kept == self.plan.frames else fps * num_kept / self.plan.frames)
