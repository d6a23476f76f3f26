"""The tally of refused callbacks: what a day's report knows of them, told to the ledger through the queue."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo

import structlog

from service.domain.refusals import RefusalCount
from service.messaging.codec import encode_refusals
from service.messaging.errors import NotConfirmed
from service.web.process_publisher import ProcessPublisher

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
        publisher: ProcessPublisher,
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

    def count(self, merchant: str | None, reason: str) -> None:
        """One more callback was refused; `merchant` is None where its address names none that is configured."""
        day = self._clock().astimezone(self._time_zones.get(merchant or "", UTC)).date()
        key = (merchant or "", day, reason)
        with self._counting:
            self._totals[key] = self._totals.get(key, 0) + 1

    async def run(self) -> None:
        """Tell the ledger at intervals, for ever."""
        while True:
            await asyncio.sleep(self._every_seconds)
            self.tell()

    async def close(self) -> None:
        """Tell what is left while the publisher is still open: a few seconds at most. Safe to call twice."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.tell(on_told=lambda: loop.call_soon_threadsafe(told.set))
        await told.wait()

    def tell(self, *, on_told: Callable[[], object] = lambda: None) -> None:
        """Tell what has changed since the queue last confirmed; where it does not confirm, the next call tells it.

        `on_told` is called when that is settled: within a few seconds, on whatever thread the publisher settles.
        """
        with self._counting:
            changed = {key: total for key, total in self._totals.items() if self._told.get(key) != total}
        if not changed:
            on_told()
            return
        counts = [
            RefusalCount(merchant=merchant, day=day, reason=reason, process=self._process, callbacks=total)
            for (merchant, day, reason), total in changed.items()
        ]

        def settle(error: NotConfirmed | None) -> None:
            if error is None:
                self._remember(changed)
            else:
                _log.info("refusals_untold", counts=len(counts), reason=type(error).__name__)
            on_told()

        self._publisher.submit(encode_refusals(counts), deadline=time.monotonic() + _TELL_SECONDS, on_settled=settle)

    def _remember(self, told: Mapping[_Key, int]) -> None:
        newest = max(day for _, day, _ in told)
        with self._counting:
            self._told.update(told)
            # What is told and over goes. Yesterday stays: not every merchant's day ends at the same time.
            for key in [key for key, total in self._told.items() if self._is_over(key, total, newest)]:
                del self._totals[key], self._told[key]

    def _is_over(self, key: _Key, told: int, newest: date) -> bool:
        return (newest - key[1]).days > 1 and self._totals[key] == told
