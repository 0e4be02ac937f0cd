"""The stages on Ray, for more machines than one. The only file that imports ray.

Each job is a Ray task that runs it in a child of its own, as on one machine, so a file that hangs or kills FFmpeg takes no Ray worker
with it. The paths of the files must be the same on every machine; results come back to the one that builds, which alone writes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from kinema.data.curation.engine import Job, Outcome, Stage, run_in_child
from kinema.errors import DataError

IN_FLIGHT_PER_CPU = 2


class RayEngine:
    """The cluster at `address`, or one that is started here for the length of the build. Raises `DataError` without ray."""

    def __init__(self, address: str | None = None, num_cpus: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise DataError(
                f"--ray needs ray ({error}): pip install 'kinema[ray]', or leave it out and use --workers"
            ) from error
        if not ray.is_initialized():
            ray.init(
                address=address,
                num_cpus=None if address else num_cpus,
                include_dashboard=None if address else False,
                log_to_driver=False,
            )
        self.ray = ray

    def run(self, stage: Stage, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """An outcome for every job, as they are done; a task whose machine is lost is done again by Ray."""
        remote = self.ray.remote(run_in_child)
        most = IN_FLIGHT_PER_CPU * max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        waiting = iter(jobs)
        flying: list[Any] = []
        while True:
            while len(flying) < most:
                job = next(waiting, None)
                if job is None:
                    break
                flying.append(remote.remote(stage, job))
            if not flying:
                return
            ready, flying = self.ray.wait(flying, num_returns=1)
            yield from self.ray.get(ready)
