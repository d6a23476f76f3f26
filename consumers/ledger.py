"""From the queue to the ledger."""

import threading
import time
from collections import Counter
from collections.abc import Sequence

import structlog

from consumers.runner import Runner
from service.claims import Claim
from service.ledger.store import LedgerStore
from service.messaging.codec import decode_claim
from service.messaging.contract import Message, Subscriber
from service.settings import LedgerSettings

_log = structlog.get_logger()


class LedgerConsumer:
    """Records what the queue holds, batch by batch. Any number of processes may do so at once."""

    def __init__(self, *, subscriber: Subscriber, store: LedgerStore, settings: LedgerSettings) -> None:
        self._runner = Runner(
            subscriber=subscriber,
            handler=_ClaimRecorder(store=store),
            batch_size=settings.batch_size,
            first_retry_seconds=settings.first_retry_seconds,
            most_retry_seconds=settings.most_retry_seconds,
        )

    def run(self, stop: threading.Event) -> None:
        """Consume in the calling thread until `stop` is set, then close the subscriber."""
        self._runner.run(stop)


class _ClaimRecorder:
    """The runner's handler: one batch, one transaction."""

    def __init__(self, *, store: LedgerStore) -> None:
        self._store = store

    def decode(self, message: Message) -> Claim:
        return decode_claim(message)

    def apply(self, items: Sequence[Claim]) -> None:
        began = time.monotonic()
        verdicts = Counter(verdict.value for verdict in self._store.record(items))
        _log.info(
            "claims_recorded", claims=len(items), verdicts=dict(verdicts), seconds=round(time.monotonic() - began, 4)
        )
