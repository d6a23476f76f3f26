"""The tally of refused callbacks: what a day's report knows of them, told to the ledger through the queue."""

import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo

import structlog

from service.messaging.contract import Publisher
from service.messaging.errors import NotConfirmed
from service.messaging.refusal_codec import encode_refusals
from service.refusals import RefusalCount

#: How long a refusal may go untold. A process that is killed takes what it had not told with it.
EVERY_SECONDS = 10.0
_TELL_SECONDS = 2.0

# Merchant, day, reason.
_Key = tuple[str, date, str]

_log = structlog.get_logger(__name__)


class RefusalTally:
    """Counts one process's refusals by merchant, day and reason. Safe to use from many threads; made after fork.

    The receiver reaches no database and refuses whatever is sent to it, so a refusal costs it no message: every few
    seconds one message carries the totals of all that has changed. They are totals and not differences, so that a
    message which came twice, late or not at all does no harm once the next one is there.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        time_zones: Mapping[str, tzinfo],
        clock: Callable[[], datetime],
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        """`time_zones` by merchant; of all others UTC's day counts. `clock` says the present time, aware."""
        self._publisher = publisher
        self._time_zones = time_zones
        self._clock = clock
        self._every_seconds = every_seconds
        self._process = uuid.uuid4().hex
        self._counting = threading.Lock()
        # All of them, and those that the queue has confirmed.
        self._totals: dict[_Key, int] = {}
        self._told: dict[_Key, int] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def count(self, merchant: str | None, reason: str) -> None:
        """One more callback was refused; `merchant` is None where its address names none that is configured."""
        day = self._clock().astimezone(self._time_zones.get(merchant or "", UTC)).date()
        key = (merchant or "", day, reason)
        with self._counting:
            self._totals[key] = self._totals.get(key, 0) + 1

    def start(self) -> None:
        """Tell the ledger at intervals from now on, on a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="refusal tally", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and tell what is left while the publisher is still open: a few seconds at most. Safe to call twice."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_TELL_SECONDS)
        self.tell()

    def tell(self) -> None:
        """Tell what has changed since the queue last confirmed; where it does not confirm, the next call tells it."""
        with self._counting:
            changed = {key: total for key, total in self._totals.items() if self._told.get(key) != total}
        if not changed:
            return
        counts = [
            RefusalCount(merchant=merchant, day=day, reason=reason, process=self._process, callbacks=total)
            for (merchant, day, reason), total in changed.items()
        ]
        try:
            self._publisher.publish(encode_refusals(counts), timeout_seconds=_TELL_SECONDS)
        except NotConfirmed as error:
            _log.info("refusals_untold", counts=len(counts), reason=type(error).__name__)
            return
        newest = max(day for _, day, _ in changed)
        with self._counting:
            self._told.update(changed)
            # What is told and over goes. Yesterday stays: not every merchant's day ends at the same time.
            for key in [key for key, told in self._told.items() if self._is_over(key, told, newest)]:
                del self._totals[key], self._told[key]

    def _is_over(self, key: _Key, told: int, newest: date) -> bool:
        return (newest - key[1]).days > 1 and self._totals[key] == told

    def _run(self) -> None:
        while not self._over.wait(self._every_seconds):
            self.tell()
