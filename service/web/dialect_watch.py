"""Notices when a gateway begins to sign in another way: a release of theirs that nobody announced."""

import structlog

from service.metrics import ReceiverMetrics

_log = structlog.get_logger(__name__)


class DialectWatch:
    """Counts which dialect each merchant's signs fit, and warns when it changes. Safe to use from many threads."""

    def __init__(self, *, metrics: ReceiverMetrics) -> None:
        self._metrics = metrics
        self._last: dict[tuple[str, str], str] = {}

    def saw(self, *, merchant: str, kind: str, dialect: str) -> None:
        """A callback's sign fitted in `dialect`. `kind` is the body's: JSON and forms differ and may alternate."""
        self._metrics.count_dialect(merchant, dialect)
        before = self._last.get((merchant, kind))
        if before == dialect:
            return
        self._last[merchant, kind] = dialect
        if before is not None:
            _log.warning("sign_dialect_changed", merchant=merchant, kind=kind, before=before, now=dialect)
