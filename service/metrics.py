"""What Prometheus can read of a role. One class per role; made once per process family and passed in."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, start_http_server, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

#: The label of merchants that are not configured: what outsiders send must not make new time series.
UNKNOWN_MERCHANT = "unknown"

_CONFIRM_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_ANSWER_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)


class ReceiverMetrics:
    """The receiver's metrics. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry, merchants: Collection[str]) -> None:
        """`merchants`: the configured slugs; every other one is counted as `unknown`."""
        self._merchants = frozenset(merchants)
        self._callbacks = Counter(
            "payment_callbacks_received",
            "Callbacks answered, by what became of them.",
            ["merchant", "outcome", "reason"],
            registry=registry,
        )
        self._dialects = Counter(
            "payment_callbacks_sign_dialect",
            "Callbacks with a fitting sign, by the way of writing JSON that it fits.",
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
        #: Callbacks that are being answered at this moment.
        self.in_flight = Gauge(
            "payment_callbacks_in_flight",
            "Callbacks being answered now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        # Every worker sees the same file, so the newest word is the right one, not the sum.
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

    def count_callback(self, merchant: str, *, outcome: str, reason: str = "") -> None:
        """One callback was answered; `reason` is a constant word, "" where all went well."""
        self._callbacks.labels(self._label(merchant), outcome, reason).inc()

    def count_dialect(self, merchant: str, dialect: str) -> None:
        """One callback's sign fitted in this dialect."""
        self._dialects.labels(self._label(merchant), dialect).inc()

    def count_cut(self, reason: str) -> None:
        """One request was ended by the server itself: too slow, too large, or not HTTP."""
        self._cut.labels(reason).inc()

    def set_spool_depth(self, *, messages: int, size_bytes: int) -> None:
        """How much the spool holds now."""
        self._spool_messages.set(messages)
        self._spool_bytes.set(size_bytes)

    def _label(self, merchant: str) -> str:
        return merchant if merchant in self._merchants else UNKNOWN_MERCHANT


class InquirerMetrics:
    """The inquirer's metrics. Safe to use from many threads."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self._asked = Counter(
            "payment_callbacks_inquiries_asked",
            "Questions asked, by what came of them: answered, not-found or no-answer.",
            ["merchant", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "payment_callbacks_inquiry_seconds",
            "Time until the gateway answered, or was given up.",
            ["merchant"],
            buckets=_ANSWER_BUCKETS_SECONDS,
            registry=registry,
        )
        self._parked_by_us = Counter(
            "payment_callbacks_inquiries_given_up",
            "Inquiries that this process asked to their horizon in vain.",
            ["merchant"],
            registry=registry,
        )
        self._parked = Gauge(
            "payment_callbacks_inquiries_parked",
            "Orders that were asked about in vain and wait for a person. Alert above 0.",
            ["merchant"],
            registry=registry,
        )
        self._oldest_due = Gauge(
            "payment_callbacks_inquiries_oldest_due_seconds",
            "How long the question that is due longest has waited.",
            ["merchant"],
            registry=registry,
        )

    def count_question(self, merchant: str, *, outcome: str, seconds: float) -> None:
        """One question was asked and settled."""
        self._asked.labels(merchant, outcome).inc()
        self._seconds.labels(merchant).observe(seconds)

    def count_parked(self, merchant: str) -> None:
        """One inquiry was given up."""
        self._parked_by_us.labels(merchant).inc()

    def set_backlog(self, merchant: str, *, oldest_due_seconds: float, parked: int) -> None:
        """How far behind the merchant's inquiries are, by the database: the same in every process."""
        self._oldest_due.labels(merchant).set(oldest_due_seconds)
        self._parked.labels(merchant).set(parked)


def expose(registry: CollectorRegistry, *, host: str, port: int) -> None:
    """Serve a registry's metrics on a daemon thread. Raises OSError where the port is taken."""
    start_http_server(port, host, registry)


def share_between_processes(directory: Path) -> None:
    """Keep the values of all metrics made from now on in files in `directory`, one set per process.

    For a master that forks workers: call it in the master, before any metric is made.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # The library chooses at its import, from the environment; here importing decides nothing.
    values.ValueClass = values.MultiProcessValue(_ProcessId())  # type: ignore[no-untyped-call]


def forget_process(pid: int, directory: Path) -> None:
    """Drop the gauges of a process that has ended; its counts stay in the sums."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def expose_shared(directory: Path, *, host: str, port: int) -> None:
    """Serve the sums over all processes that share `directory`, on a daemon thread of this one.

    The process may go on forking: no fork happens in the middle of a scrape. Raises OSError where the port is taken.
    """
    registry = CollectorRegistry()
    collector = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]
    registry.register(_BetweenForks(collector))
    start_http_server(port, host, registry)


class _ProcessId:
    """`os.getpid`, asked once per process: every counter asks at every increment, 9 % of what a callback costs."""

    def __init__(self) -> None:
        self._read()
        os.register_at_fork(after_in_child=self._read)

    def __call__(self) -> int:
        return self._pid

    def _read(self) -> None:
        self._pid = os.getpid()


class _BetweenForks(Collector):
    """Collects while no fork is under way: a child must not inherit what a scraping thread has half done."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lock = Lock()
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
        )

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            return list(self._collector.collect())
