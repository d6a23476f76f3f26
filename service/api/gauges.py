"""What Prometheus reads here: when each merchant's gateway was heard of last, whichever process recorded it."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.claims import Trust
from service.gateway.clients import GatewayClients
from service.ledger.reports import Reports
from service.metrics.exposition import name_role
from service.metrics.gateways import show_gateways

#: The content type of `Gauges.scrape`.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Gauges:
    """Reads gauges from the ledger at every scrape. Safe to share between threads."""

    def __init__(self, *, reports: Reports, merchants: Mapping[str, Trust], gateways: GatewayClients) -> None:
        """`merchants` by the trust that each requires."""
        self._registry = CollectorRegistry()
        name_role(self._registry, "api")
        show_gateways(self._registry, usable=gateways.usable, unusable=gateways.unusable)
        self._registry.register(_LastClaims(reports, merchants))

    def scrape(self) -> bytes:
        """Prometheus's text format. Raises LedgerUnavailable."""
        return generate_latest(self._registry)


class _LastClaims(Collector):
    def __init__(self, reports: Reports, merchants: Mapping[str, Trust]) -> None:
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
            "When a merchant's gateway was last heard of: an answer, or a callback that not just anyone can have made.",
            labels=["merchant", "source"],
        )
