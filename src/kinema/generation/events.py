"""A function that reports events, as an iterator over them."""

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Semaphore, Thread
from typing import TypeVar

E = TypeVar("E")
R = TypeVar("R")


class _Closed(BaseException):
    """Raised inside a run whose iterator has been closed; not an `Exception`, so that no handler on the way keeps it."""


def iterate(run: Callable[[Callable[[E], None]], R]) -> Iterator[E | R]:
    """The events that `run` passes to its argument, one by one, and last what it returns. What it raises is raised here.

    `run` works in a thread of its own that waits while an event is being looked at, so at most one of the two ever works.
    Closing the iterator (or leaving it by an exception) ends `run` at the event where it waits; its `finally` blocks have run by then.
    """
    said: Queue[tuple[str, E | R | BaseException]] = Queue()
    go_on = Semaphore(0)
    is_closed = False

    def report(event: E) -> None:
        said.put(("event", event))
        go_on.acquire()
        if is_closed:
            raise _Closed

    def work() -> None:
        try:
            said.put(("result", run(report)))
        except BaseException as error:
            said.put(("error", error))

    worker = Thread(target=work, name="kinema-run", daemon=True)
    worker.start()
    try:
        while True:
            kind, value = said.get()
            if isinstance(value, BaseException) and kind == "error":
                raise value
            yield value  # type: ignore[misc]
            if kind == "result":
                return
            go_on.release()
    finally:
        is_closed = True
        go_on.release()
        worker.join()
