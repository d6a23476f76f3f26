"""Retries while the database or the broker is unavailable."""

import threading
from collections.abc import Callable

import pytest

from consumers.outages import Retrier, Stopped
from service.ledger.errors import LedgerContended, LedgerUnavailable, SchemaOutdated
from service.messaging.errors import BrokerUnavailable, Rejected, Unroutable


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def retrier(stop: threading.Event) -> Retrier:
    return Retrier(stop=stop, first_seconds=0.001, max_seconds=0.002)


def failing(*errors: Exception) -> Callable[[], str]:
    remaining = list(errors)

    def action() -> str:
        if remaining:
            raise remaining.pop(0)
        return "done"

    return action


@pytest.mark.parametrize(
    "error", [LedgerUnavailable, LedgerContended, SchemaOutdated, BrokerUnavailable, Rejected, Unroutable]
)
def test_trouble_of_the_database_or_the_queue_is_waited_for(retrier: Retrier, error: type[Exception]) -> None:
    assert retrier.call(failing(error("away"), error("away"), error("away"))) == "done"


def test_any_other_error_passes_through_at_once(retrier: Retrier) -> None:
    with pytest.raises(KeyError):
        retrier.call(failing(KeyError("bug")))


def test_waiting_ends_when_a_stop_is_asked_for(stop: threading.Event) -> None:
    retrier = Retrier(stop=stop, first_seconds=3600, max_seconds=3600)

    def fail() -> None:
        threading.Timer(0.01, stop.set).start()
        raise LedgerUnavailable("away")

    with pytest.raises(Stopped):
        retrier.call(fail)


def test_one_try_is_made_even_after_a_stop_was_asked_for(retrier: Retrier, stop: threading.Event) -> None:
    stop.set()
    assert retrier.call(failing()) == "done"
    with pytest.raises(Stopped):
        retrier.call(failing(LedgerUnavailable("away")))


def test_pauses_grow_to_the_most_and_not_beyond(stop: threading.Event) -> None:
    retrier = Retrier(stop=stop, first_seconds=1, max_seconds=10)
    for attempt, whole in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (1000, 10)]:
        assert whole / 2 <= retrier.pause_after(attempt) <= whole
