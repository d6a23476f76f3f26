"""Holding on: what every consumer does while the database or the broker is away."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import NotConfirmed
from service.runtime.backoff import exponential

Answer = TypeVar("Answer")

_log = structlog.get_logger()

# Half of a wait is left to chance, so that processes that lost one database do not come back to it as one.
_JITTER = 0.5


class Stopping(Exception):
    """Shutdown was asked for while something was held: leave at once, and leave what is open to others."""


class Patience:
    """Does a thing again and again, with growing pauses, as long as what it needs is away.

    Trouble with the database or the queue says nothing about the message or event in hand: nothing is given up, given
    back or counted because of it. The pauses grow from `first_seconds` to `most_seconds`.
    """

    def __init__(self, *, stop: threading.Event, first_seconds: float, most_seconds: float) -> None:
        self._stop = stop
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds

    def insist(self, action: Callable[[], Answer]) -> Answer:
        """The answer of `action`, which must be safe to repeat, once what it needs is there.

        Raises `Stopping` where `stop` is set before that; whatever else `action` raises passes through. `action` is
        tried at least once, also when `stop` is set already.
        """
        attempt = 0
        since = time.monotonic()
        while True:
            attempt += 1
            try:
                answer = action()
            except (LedgerUnavailable, NotConfirmed) as error:
                trouble = error
            else:
                if attempt > 1:
                    _log.info("trouble_over", attempts=attempt, seconds=round(time.monotonic() - since, 3))
                return answer
            pause = self.pause_after(attempt)
            _log.warning(
                "trouble", error=type(trouble).__name__, reason=str(trouble), attempt=attempt, retry_in_seconds=pause
            )
            if self._stop.wait(pause):
                raise Stopping from trouble

    def pause_after(self, attempt: int) -> float:
        """Seconds to wait after try number `attempt` (1, 2, 3 ...)."""
        return exponential(
            attempt,
            first_seconds=self._first_seconds,
            most_seconds=self._most_seconds,
            jitter=_JITTER,
            random=random.random(),  # noqa: S311 -- spreads load, keeps no secret
        )
