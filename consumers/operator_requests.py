"""Carries out what operators request through the ledger, beside a dispatcher's deliveries."""

import threading
from contextlib import AbstractContextManager

from consumers.faults import describe_fault, frames_of
from consumers.threads import repeated
from service.ledger.errors import LedgerUnavailable
from service.ledger.replays import Replays
from service.runtime.logs import Logger

_log = Logger(__name__)

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
        return repeated(self._carry_out, name="operator-requests", every_seconds=self._every_seconds)

    def _carry_out(self, over: threading.Event) -> None:
        try:
            while not over.is_set() and self._replays.carry_on():
                pass
        except LedgerUnavailable as error:
            _log.warning("operator_requests_failed", error=type(error).__name__, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not end all replays
            _log.error("operator_requests_failed", reason=describe_fault(error), frames=frames_of(error))
