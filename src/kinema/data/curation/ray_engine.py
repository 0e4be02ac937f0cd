"""An engine on Ray, for builds on several machines. This is the only file that imports ray.

Each work item is a Ray task that runs the item in a child process, as on one machine, so a file that hangs or
crashes FFmpeg does not take a Ray worker down. The paths of the files must be the same on every machine.
Results return to the machine that runs the build; only that one writes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from kinema.data.curation.engine import StepFunction, WorkItem, WorkOutcome, run_in_child
from kinema.errors import DataError

IN_FLIGHT_PER_CPU = 2


class RayEngine:
    """The Ray cluster at `address`, or a local one that is started for the build. Raises `DataError` without
    ray.
    """

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

    def run(self, function: StepFunction, items: Iterable[WorkItem]) -> Iterator[WorkOutcome]:
        """One outcome for every item, in order of completion. Ray repeats items of a machine that is lost."""
        remote = self.ray.remote(run_in_child)
        max_in_flight = IN_FLIGHT_PER_CPU * max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        waiting = iter(items)
        in_flight: list[Any] = []

        while True:
            while len(in_flight) < max_in_flight:
                item = next(waiting, None)
                if item is None:
                    break
                in_flight.append(remote.remote(function, item))
            if not in_flight:
                return
            ready, in_flight = self.ray.wait(in_flight, num_returns=1)
            yield from self.ray.get(ready)
