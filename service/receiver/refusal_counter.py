"""Counts refused callbacks for the daily report, and publishes the counts to the ledger through the queue."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo

from service.domain.refusals import RefusalCount
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.codec import encode_refusals
from service.messaging.errors import NotConfirmed
from service.messaging.interface import AsyncPublisher
from service.runtime.logs import Logger

#: Between two publishes. A process that is killed loses what it has not published.
INTERVAL_SECONDS = 10.0
_PUBLISH_SECONDS = 2.0

# Merchant, day, reason.
_Key = tuple[str, date, str]

_log = Logger(__name__)


class RefusalCounter:
    """Counts one process's refusals by merchant, day and reason. Safe to use from many threads; make it after a fork.

    The receiver has no database, and anybody can make it refuse requests, so a refusal costs no message: every few
    seconds, one message carries all totals that have changed. They are totals and not differences, so a message that
    comes twice, late or never does no harm once the next one arrives.
    """

    def __init__(
        self,
        *,
        publisher: AsyncPublisher | BlockingPublisher,
        time_zones: Mapping[str, tzinfo],
        clock: Callable[[], datetime],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """`time_zones` by merchant; for all others, days are in UTC. `clock` returns the present time, aware."""
        self._publisher = publisher
        self._time_zones = time_zones
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._process = uuid.uuid4().hex
        self._counting = threading.Lock()
        # All totals, and those that the queue has confirmed.
        self._totals: dict[_Key, int] = {}
        self._published: dict[_Key, int] = {}

    def count(self, merchant: str | None, reason: str) -> None:
        """Count one refused callback; `merchant` is None where its address names no configured merchant."""
        day = self._clock().astimezone(self._time_zones.get(merchant or "", UTC)).date()
        key = (merchant or "", day, reason)
        with self._counting:
            self._totals[key] = self._totals.get(key, 0) + 1

    async def run(self) -> None:
        """Publish at intervals, for ever."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            self.publish()

    async def close(self) -> None:
        """Publish what is left, within a few seconds; the publisher must be open. Safe to call twice."""
        settled = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.publish(on_settled=lambda: loop.call_soon_threadsafe(settled.set))
        await settled.wait()

    def publish(self, *, on_settled: Callable[[], object] = lambda: None) -> None:
        """Publish what has changed since the queue last confirmed. What it does not confirm, the next call repeats.

        `on_settled` is called within a few seconds, confirmed or not, on the thread on which the publisher settles.
        """
        with self._counting:
            changed = {key: total for key, total in self._totals.items() if self._published.get(key) != total}
        if not changed:
            on_settled()
            return
        counts = [
            RefusalCount(merchant=merchant, day=day, reason=reason, process=self._process, callbacks=total)
            for (merchant, day, reason), total in changed.items()
        ]

        def settle(error: NotConfirmed | None) -> None:
            if error is None:
                self._record_published(changed)
            else:
                _log.info("refusals_unconfirmed", counts=len(counts), reason=type(error).__name__)
            on_settled()

        self._publisher.submit(encode_refusals(counts), deadline=time.monotonic() + _PUBLISH_SECONDS, on_settled=settle)

    def _record_published(self, published: Mapping[_Key, int]) -> None:
        newest = max(day for _, day, _ in published)
        with self._counting:
            self._published.update(published)
            # Forget published days that are over. Yesterday stays: merchants' days do not all end at the same time.
            for key in [key for key, total in self._published.items() if self._is_over(key, total, newest)]:
                del self._totals[key], self._published[key]

    def _is_over(self, key: _Key, published: int, newest: date) -> bool:
        return (newest - key[1]).days > 1 and self._totals[key] == published
