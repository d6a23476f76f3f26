"""Maintenance at intervals, beside a role's work: forged orders are removed, and requested replays carried out.

Any number of processes may do either at once. A failed round is repeated after the pause, whatever the error. What is
under way at the end is not waited for: it is atomic.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from consumers.threads import repeated
from service.ledger.forgeries import Forgeries
from service.ledger.replays import Replays
from service.runtime.logs import Logger

#: A round that finds no forged order reads part of one index per merchant.
PRUNE_EVERY_SECONDS = 15.0
#: A round that finds no replay reads one index that is nearly always empty.
REPLAY_EVERY_SECONDS = 1.0

_log = Logger(__name__)


def pruning(
    forgeries: Forgeries,
    *,
    keep: timedelta,
    max_kept: int,
    clock: Callable[[], datetime],
    every_seconds: float = PRUNE_EVERY_SECONDS,
) -> AbstractContextManager[None]:
    """Remove forged orders while the `with` lasts, so that the disk does not fill up.

    `keep`: how long a forged order is kept; `max_kept`: how many of each merchant.
    """

    def prune(over: threading.Event) -> None:
        removed = forgeries.remove(before=clock() - keep, max_kept=max_kept, stop=over.is_set)
        if removed.claims or removed.orders:
            _log.info("forged_orders_removed", orders=removed.orders, claims=removed.claims)

    return repeated(prune, name="pruner", every_seconds=every_seconds, failure="pruning_failed")


def replaying(replays: Replays, *, every_seconds: float = REPLAY_EVERY_SECONDS) -> AbstractContextManager[None]:
    """Carry out the replays that operators request while the `with` lasts."""

    def carry_out(over: threading.Event) -> None:
        while not over.is_set() and replays.carry_on():
            pass

    return repeated(
        carry_out, name="operator-requests", every_seconds=every_seconds, failure="operator_requests_failed"
    )
