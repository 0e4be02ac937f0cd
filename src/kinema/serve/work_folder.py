"""The folder of a job that runs, which a successor continues from.

Its name holds the job's token, so that a worker which lost its lease never writes into its successor's.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from kinema.errors import RequestError
from kinema.generation.batch import BatchItem
from kinema.generation.job import LATENTS, REQUEST, STATE, STATUS, Job
from kinema.generation.request import Request
from kinema.serve.blobs import Blobs
from kinema.serve.intake import load_clip
from kinema.serve.store.base import Claim
from kinema.video import Video

STATES = "states"


@dataclass
class WorkFolder:
    """The folder of one claim: `job/` and the video that is written."""

    root: Path
    """The folder of all jobs on this machine."""
    claim: Claim
    blobs: Blobs
    pushed: dict[str, int] = field(default_factory=dict)
    """Time of change of each file of the job that is in the bucket."""

    @property
    def path(self) -> Path:
        """The folder of this claim."""
        return self.root / self.claim.id / str(self.claim.token)

    @property
    def job(self) -> Path:
        """The job folder of the pipeline."""
        return self.path / "job"

    @property
    def video(self) -> Path:
        """The file that the video is written to."""
        return self.path / "video.mp4"

    def take_over(self, model_hash: str) -> BatchItem | None:
        """The item that continues from the latest earlier claim, or None if there is nothing to continue."""
        if self.claim.token == 1 or not (self._copy_earlier() or self._pull_earlier()):
            return None
        job = Job(self.job)
        try:
            job.state(model_hash=model_hash)
            if job.is_sampled:
                job.latents(model_hash=model_hash)
            return BatchItem.of_job(self.job, path=self.video)
        except RequestError:  # damaged, or made by another model: begin anew
            shutil.rmtree(self.job)
            return None

    def new(self, request: Request) -> BatchItem:
        """The item of a request that begins, with its clips."""
        return BatchItem(request, self.inputs(), self.video, self.job)

    def inputs(self) -> dict[str, Video]:
        """The clips of the request by content hash."""
        return {media: self._input(media, key) for media, key in self.claim.inputs.items()}

    def _input(self, media: str, key: str) -> Video:
        local = self.blobs.local_path(key) or self.blobs.fetch(key, self.path / "inputs" / f"{media}.npz")
        return load_clip(local)

    def _copy_earlier(self) -> bool:
        """Whether the job of an earlier claim on this machine was copied."""
        earlier = [folder for folder in self.path.parent.glob("*") if folder.name.isdigit()]
        earlier = [folder for folder in earlier if int(folder.name) < self.claim.token]
        for folder in sorted(earlier, key=lambda folder: int(folder.name), reverse=True):
            if (folder / "job" / REQUEST).is_file():
                ignored = shutil.ignore_patterns(STATUS, "*.partial")
                shutil.copytree(folder / "job", self.job, ignore=ignored, dirs_exist_ok=True)
                return True
        return False

    def _pull_earlier(self) -> bool:
        """Whether the job that an earlier claim on another machine pushed was fetched."""
        if self.blobs.folder is not None:
            return False
        prefix = f"{STATES}/{self.claim.id}/"
        keys = [blob.key.removeprefix(prefix) for blob in self.blobs.keys(prefix)]
        tokens = {int(key.split("/")[0]) for key in keys if key.endswith(f"/{REQUEST}")}
        if not tokens:
            return False
        latest = f"{max(tokens)}/"
        for key in keys:
            if key.startswith(latest):
                self.blobs.fetch(prefix + key, self.job / key.removeprefix(latest))
        return True

    def push(self) -> None:
        """Store what changed in the job in the bucket, for a successor on another machine.

        `request.json`, the mark of a complete job, comes last.
        """
        if self.blobs.folder is not None:
            return
        inputs = [file.relative_to(self.job).as_posix() for file in self.job.glob("inputs/*.safetensors")]
        for name in [*inputs, STATE, LATENTS, REQUEST]:
            file = self.job / name
            changed = file.stat().st_mtime_ns if file.is_file() else 0
            if changed and self.pushed.get(name) != changed:
                self.blobs.put(f"{STATES}/{self.claim.id}/{self.claim.token}/{name}", file)
                self.pushed[name] = changed

    def remove(self) -> None:
        """Delete the folders of all claims of this job."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
        if self.blobs.folder is None:
            self.blobs.delete_all(f"{STATES}/{self.claim.id}/")
