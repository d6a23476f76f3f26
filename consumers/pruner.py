"""The pruner: removes forged orders at intervals, beside the ledger's work."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from consumers.threads import repeated
from service.ledger.forgeries import Forgeries
from service.runtime.logs import Logger

_log = Logger(__name__)

#: A round that finds nothing reads part of one index per merchant.
EVERY_SECONDS = 15.0


class Pruner:
    """Removes forged orders again and again, on a thread of its own; any number of processes may do so at once.

    A failed round is repeated after the pause, whatever the error: the disk must not fill up because of one failure.
    """

    def __init__(
        self,
        *,
        forgeries: Forgeries,
        keep: timedelta,
        most_kept: int,
        clock: Callable[[], datetime],
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        """`keep`: how long a forged order is kept; `most_kept`: how many of each merchant."""
        self._forgeries = forgeries
        self._keep = keep
        self._most_kept = most_kept
        self._clock = clock
        self._every_seconds = every_seconds

    def running(self) -> AbstractContextManager[None]:
        """Prune while the `with` lasts. The removal that is under way at its end is not waited for; it is atomic."""
        return repeated(self._prune, name="pruner", every_seconds=self._every_seconds, failure="pruning_failed")

    def _prune(self, over: threading.Event) -> None:
        removed = self._forgeries.remove(before=self._clock() - self._keep, most_kept=self._most_kept, stop=over.is_set)
        if removed.claims or removed.orders:
            _log.info("forged_orders_removed", orders=removed.orders, claims=removed.claims)
