"""What Prometheus reads here: when each merchant's gateway was heard of last, whichever process recorded it."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.ledger.reports import Reports

#: The content type of `Gauges.scrape`.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Gauges:
    """Reads gauges from the ledger at every scrape. Safe to share between threads."""

    def __init__(self, *, reports: Reports, merchants: Iterable[str]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_LastClaims(reports, tuple(merchants)))

    def scrape(self) -> bytes:
        """Prometheus's text format. Raises LedgerUnavailable."""
        return generate_latest(self._registry)


class _LastClaims(Collector):
    def __init__(self, reports: Reports, merchants: tuple[str, ...]) -> None:
        self._reports = reports
        self._merchants = merchants

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for (merchant, source), recorded_at in self._reports.last_claims(self._merchants).items():
            family.add_metric([merchant, source.value], recorded_at.timestamp())
        return [family]

    def _family(self) -> GaugeMetricFamily:
        # A merchant that was never heard of has no sample; alert on `time() - metric > ...` and on `absent(...)`.
        return GaugeMetricFamily(
            "payment_callbacks_last_claim_timestamp_seconds",
            "When the last claim of a merchant's gateway was recorded: a callback, trusted or not, or an answer.",
            labels=["merchant", "source"],
        )
