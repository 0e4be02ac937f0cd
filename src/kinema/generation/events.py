"""An iterator over the events that a function reports."""

from collections.abc import Callable, Iterator
from queue import Queue
from threading import Semaphore, Thread
from typing import TypeVar

E = TypeVar("E")
R = TypeVar("R")


class _Closed(BaseException):
    """Raised inside a run whose iterator has been closed. It is not an `Exception`, so no handler on the way
    stops it."""


def iterate(run: Callable[[Callable[[E], None]], R]) -> Iterator[E | R]:
    """The events that `run` passes to its argument, and finally its result. An exception of `run` is raised
    here.

    `run` is in a thread that waits while the caller handles an event, so only one of the two runs at a time.
    Closing the iterator, or leaving it by an exception, ends `run` at its current event, and its `finally`
    blocks are executed before `close` returns.
    """
    messages: Queue[tuple[str, E | R | BaseException]] = Queue()
    resume = Semaphore(0)
    is_closed = False

    def report(event: E) -> None:
        messages.put(("event", event))
        resume.acquire()
        if is_closed:
            raise _Closed

    def work() -> None:
        try:
            messages.put(("result", run(report)))
        except BaseException as error:
            messages.put(("error", error))

    worker = Thread(target=work, name="kinema-run", daemon=True)
    worker.start()
    try:
        while True:
            kind, value = messages.get()
            if isinstance(value, BaseException) and kind == "error":
                raise value
            yield value  # type: ignore[misc]
            if kind == "result":
                return
            resume.release()
    finally:
        is_closed = True
        resume.release()
        worker.join()
