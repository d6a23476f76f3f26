"""Notices when a gateway begins to sign or to wrap in another way: a release of theirs that nobody announced."""

import structlog

from service.gateway.bodies import BodyKind
from service.runtime.metrics.receiver import ReceiverMetrics

_log = structlog.get_logger(__name__)

# What the document lets expect. Whatever else is taken, an operator hears of.
_EXPECTED = (BodyKind.JSON, BodyKind.FORM)


class DialectWatch:
    """Counts which dialect each merchant's signs fit, and warns of what is new. Safe to use from many threads."""

    def __init__(self, *, metrics: ReceiverMetrics) -> None:
        self._metrics = metrics
        self._seen: dict[tuple[str, BodyKind], tuple[str, ...]] = {}

    def saw(self, *, merchant: str, kind: BodyKind, dialect: str) -> None:
        """A callback's sign fitted in `dialect`. `kind` is the body's: JSON and forms differ and may alternate.

        Each dialect and each unusual kind is new once: a gateway whose servers differ must not fill the log.
        """
        self._metrics.count_dialect(merchant, dialect)
        before = self._seen.get((merchant, kind), ())
        if dialect in before:
            return
        self._seen[merchant, kind] = (*before, dialect)
        if not before and kind not in _EXPECTED:
            _log.warning("callback_body_unusual", merchant=merchant, kind=kind.value)
        if before:
            _log.warning("sign_dialect_changed", merchant=merchant, kind=kind, before=before[-1], now=dialect)
