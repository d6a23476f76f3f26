"""Notices when a gateway begins to sign in another way: a release of theirs that nobody announced."""

import structlog

from service.metrics.receiver import ReceiverMetrics

_log = structlog.get_logger(__name__)


class DialectWatch:
    """Counts which dialect each merchant's signs fit, and warns of a new one. Safe to use from many threads."""

    def __init__(self, *, metrics: ReceiverMetrics) -> None:
        self._metrics = metrics
        self._seen: dict[tuple[str, str], tuple[str, ...]] = {}

    def saw(self, *, merchant: str, kind: str, dialect: str) -> None:
        """A callback's sign fitted in `dialect`. `kind` is the body's: JSON and forms differ and may alternate.

        Each dialect is new once: a gateway whose servers differ must not fill the log.
        """
        self._metrics.count_dialect(merchant, dialect)
        before = self._seen.get((merchant, kind), ())
        if dialect in before:
            return
        self._seen[merchant, kind] = (*before, dialect)
        if before:
            _log.warning("sign_dialect_changed", merchant=merchant, kind=kind, before=before[-1], now=dialect)
