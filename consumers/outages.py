"""Repeats an action while the database or the broker is unavailable."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import NotConfirmed
from service.runtime.backoff import exponential
from service.runtime.logs import Logger

Result = TypeVar("Result")

_log = Logger(__name__)

# Half of a pause is random, so that processes that lost one database do not return to it at the same moment.
_JITTER = 0.5


class Stopped(Exception):
    """The process is asked to stop while something was retried: leave at once, and leave open work to others."""


class Retrier:
    """Repeats an action, with growing pauses, for as long as the database or the broker is unavailable.

    That says nothing about the message or event at hand: it is not given up, not released, and no try is counted. The
    pauses grow from `first_seconds` to `max_seconds`.
    """

    def __init__(self, *, stop: threading.Event, first_seconds: float = 0.5, max_seconds: float = 15.0) -> None:
        self._stop = stop
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds

    def call(self, action: Callable[[], Result]) -> Result:
        """Call `action`, which must be safe to repeat, until it succeeds; its result.

        It is called at least once, also when `stop` is set already. Raises `Stopped` where `stop` is set before it
        succeeds. All other errors of `action` pass through.
        """
        attempt = 0
        since = time.monotonic()
        while True:
            attempt += 1
            try:
                result = action()
            except (LedgerUnavailable, NotConfirmed) as error:
                failure = error
            else:
                if attempt > 1:
                    _log.info("dependency_recovered", attempts=attempt, seconds=round(time.monotonic() - since, 3))
                return result
            pause = self.pause_after(attempt)
            _log.warning(
                "dependency_unavailable",
                error=type(failure).__name__,
                reason=str(failure),
                attempt=attempt,
                retry_in_seconds=pause,
            )
            if self._stop.wait(pause):
                raise Stopped from failure

    def pause_after(self, attempt: int) -> float:
        """Seconds to wait after try number `attempt` (1, 2, 3 ...)."""
        return exponential(
            attempt,
            first_seconds=self._first_seconds,
            max_seconds=self._max_seconds,
            jitter=_JITTER,
            random=random.random(),  # noqa: S311 -- spreads load, keeps no secret
        )
