"""A run as an iterator: all events, then the result. Its exceptions are raised, and closing ends it."""

import threading

import pytest

from kinema.generation.events import iterate


def test_events_come_in_order_and_the_result_last():
    def run(report):
        for i in range(3):
            report(i)
        return "done"

    assert list(iterate(run)) == [0, 1, 2, "done"]


def test_the_run_waits_while_an_event_is_looked_at():
    done = []

    def run(report):
        for i in range(3):
            done.append(i)
            report(i)

    for event in iterate(run):
        if event is not None:
            assert done == list(range(event + 1))


def test_what_a_run_raises_is_raised_to_the_consumer():
    def run(report):
        report(1)
        raise ValueError("in the run")

    events = iterate(run)
    assert next(events) == 1
    with pytest.raises(ValueError, match="in the run"):
        next(events)


def test_closing_ends_the_run_and_its_finally_has_run():
    seen = []

    def run(report):
        try:
            while True:
                report("again")
        except Exception:
            seen.append("caught")
        finally:
            seen.append("finally")

    before = threading.active_count()
    events = iterate(run)
    assert next(events) == next(events) == "again"
    events.close()
    assert seen == ["finally"]
    assert threading.active_count() == before


def test_an_error_may_be_an_event():
    error = ValueError("only shown")
    assert list(iterate(lambda report: report(error))) == [error, None]
