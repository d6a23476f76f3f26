"""The receiver's metrics."""

from collections.abc import Collection
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.domain.claims import Trust
from service.runtime.metrics.merchants import MerchantLabel

_CONFIRM_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class ReceiverMetrics:
    """The receiver's metrics, made once and shared by all of its processes. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry, merchants: Collection[str]) -> None:
        """`merchants`: the configured slugs; every other one is counted as `unknown`."""
        self._label = MerchantLabel(merchants)
        # The series of each counter by its labels' values: prometheus-client takes ten times as long to look them up.
        self._series: dict[tuple[Counter | str, ...], Counter] = {}
        self._callbacks = Counter(
            "payment_callbacks_received",
            "Callbacks answered, by outcome and, where they were read, by how far their origin was proven.",
            ["merchant", "outcome", "reason", "trust"],
            registry=registry,
        )
        self._dialects = Counter(
            "payment_callbacks_sign_dialect",
            "Callbacks with a valid sign, by the JSON dialect in which it is valid.",
            ["merchant", "dialect"],
            registry=registry,
        )
        self._cut = Counter(
            "payment_callbacks_requests_cut",
            "Requests that ended before the application saw them, by reason.",
            ["reason"],
            registry=registry,
        )
        #: How long the queue took to confirm a callback, or to fail.
        self.confirm_seconds = Histogram(
            "payment_callbacks_confirm_seconds",
            "Time until the queue confirmed a callback, or failed to.",
            buckets=_CONFIRM_BUCKETS_SECONDS,
            registry=registry,
        )
        #: Callbacks that are being answered now.
        self.in_flight = Gauge(
            "payment_callbacks_in_flight",
            "Callbacks being answered now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        # All workers measure the same file, so the newest value is right, and not the sum.
        self._spool_messages = Gauge(
            "payment_callbacks_spool_messages",
            "Callbacks kept while the broker is away.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._spool_bytes = Gauge(
            "payment_callbacks_spool_bytes",
            "Size of the callbacks kept while the broker is away.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        # A time and not an age: it stays true when no process is left to update it.
        self._spool_oldest = Gauge(
            "payment_callbacks_spool_oldest_timestamp_seconds",
            "When the oldest callback in the spool came in; 0 where it is empty.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def count_callback(self, merchant: str, *, outcome: str, reason: str = "", trust: Trust | None = None) -> None:
        """Count an answered callback; `reason` is a constant word, "" for success; `trust` where it was read."""
        proven = "" if trust is None else trust.word
        self._count(self._callbacks, self._label.of(merchant), outcome, reason, proven)

    def count_dialect(self, merchant: str, dialect: str) -> None:
        """Count a callback whose sign is valid in this dialect."""
        self._count(self._dialects, self._label.of(merchant), dialect)

    def count_cut(self, reason: str) -> None:
        """Count a request that the server itself ended: too slow, too large, or not HTTP."""
        self._cut.labels(reason).inc()

    def set_spool_depth(self, *, messages: int, size_bytes: int, oldest_at: datetime | None) -> None:
        """Set how much the spool holds, and since when (aware)."""
        self._spool_messages.set(messages)
        self._spool_bytes.set(size_bytes)
        self._spool_oldest.set(0 if oldest_at is None else oldest_at.timestamp())

    def _count(self, counter: Counter, *labels: str) -> None:
        series = self._series.get((counter, *labels))
        if series is None:
            series = self._series[counter, *labels] = counter.labels(*labels)
        series.inc()
