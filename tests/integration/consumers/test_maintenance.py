"""The pruner beside the ledger's work: it goes on after errors, and ends with the role."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

import pytest

from consumers.maintenance import pruning
from service.ledger.errors import LedgerUnavailable
from service.ledger.forgeries import Forgeries, Removed
from tests.support.claims import NOON
from tests.support.logs import capture_logs
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


class Scripted(Forgeries):
    """Answers and raises what a test says, and then finds nothing."""

    def __init__(self, *outcomes: Removed | Exception) -> None:
        self._outcomes = list(outcomes)
        self.asked: list[tuple[datetime, int | None]] = []

    def remove(
        self, *, before: datetime, max_kept: int | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Removed:
        self.asked.append((before, max_kept))
        outcome = self._outcomes.pop(0) if self._outcomes else Removed()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def pruning_often(forgeries: Forgeries) -> AbstractContextManager[None]:
    return pruning(forgeries, keep=timedelta(days=30), max_kept=7, clock=lambda: NOON, every_seconds=0.001)


def test_it_removes_at_intervals_what_is_old_or_too_much() -> None:
    forgeries = Scripted(Removed(orders=2, claims=3))
    with capture_logs() as logs, pruning_often(forgeries):
        eventually(lambda: len(forgeries.asked) >= 3)
    assert set(forgeries.asked) == {(NOON - timedelta(days=30), 7)}
    assert [(log["event"], log["orders"], log["claims"]) for log in logs] == [("forged_orders_removed", 2, 3)]


@pytest.mark.parametrize(
    ("error", "logged"), [(LedgerUnavailable("away"), "pruning_failed"), (ValueError("a bug"), "pruning_failed")]
)
def test_a_round_that_fails_is_said_and_the_next_one_comes(error: Exception, logged: str) -> None:
    forgeries = Scripted(error)
    with capture_logs() as logs, pruning_often(forgeries):
        eventually(lambda: len(forgeries.asked) >= 2)
    assert [log["event"] for log in logs] == [logged]


def test_it_tells_a_removal_under_way_to_stop_when_the_role_ends() -> None:
    stopped = threading.Event()
    reached = threading.Event()

    class Long(Scripted):
        def remove(
            self, *, before: datetime, max_kept: int | None = None, stop: Callable[[], bool] = lambda: False
        ) -> Removed:
            reached.set()
            eventually(stop)
            stopped.set()
            return Removed()

    with pruning_often(Long()):
        assert reached.wait(HANGS_AFTER_SECONDS)
        assert not stopped.is_set()
    assert stopped.wait(HANGS_AFTER_SECONDS)
