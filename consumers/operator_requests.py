"""Carries out what operators request through the ledger, beside a dispatcher's deliveries."""

import threading
from contextlib import AbstractContextManager

from consumers.threads import repeated
from service.ledger.replays import Replays

#: A round that finds nothing reads one index that is nearly always empty.
EVERY_SECONDS = 1.0


class OperatorRequests:
    """Carries out replays, on a thread of its own; any number of processes may do so at once.

    A failed round is repeated after the pause, whatever the error.
    """

    def __init__(self, *, replays: Replays, every_seconds: float = EVERY_SECONDS) -> None:
        self._replays = replays
        self._every_seconds = every_seconds

    def running(self) -> AbstractContextManager[None]:
        """Carry them out while the `with` lasts. What is under way at its end is not waited for; it is atomic."""
        return repeated(
            self._carry_out,
            name="operator-requests",
            every_seconds=self._every_seconds,
            failure="operator_requests_failed",
        )

    def _carry_out(self, over: threading.Event) -> None:
        while not over.is_set() and self._replays.carry_on():
            pass
