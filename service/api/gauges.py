"""What Prometheus reads here: when each merchant's gateway was heard of last, whichever process recorded it."""

from collections.abc import Collection, Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.claims import ClaimSource, Trust
from service.gateway.clients import GatewayClients
from service.ledger.reports import Reports
from service.metrics.exposition import name_role
from service.metrics.gateways import show_gateways

#: The content type of `Gauges.scrape`.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Gauges:
    """Reads gauges from the ledger at every scrape. Safe to share between threads."""

    def __init__(self, *, reports: Reports, merchants: Mapping[str, Trust], gateways: GatewayClients) -> None:
        """`merchants` by the least trust of a callback that tells that their gateway speaks."""
        self._registry = CollectorRegistry()
        name_role(self._registry, "api")
        show_gateways(self._registry, usable=gateways.usable, unusable=gateways.unusable)
        self._registry.register(_LastClaims(reports, merchants, asked={*gateways.usable, *gateways.unusable}))

    def scrape(self) -> bytes:
        """Prometheus's text format. Raises LedgerUnavailable."""
        return generate_latest(self._registry)


class _LastClaims(Collector):
    def __init__(self, reports: Reports, merchants: Mapping[str, Trust], *, asked: Collection[str]) -> None:
        self._reports = reports
        self._merchants = merchants
        # A gateway that was never heard of is one to be alerted of, not one without a sample.
        self._never = {
            **{(merchant, ClaimSource.CALLBACK): 0.0 for merchant in merchants},
            **{(merchant, ClaimSource.QUERY): 0.0 for merchant in asked},
        }

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        last = {key: at.timestamp() for key, at in self._reports.last_claims(self._merchants).items()}
        for (merchant, source), timestamp in {**self._never, **last}.items():
            family.add_metric([merchant, source.value], timestamp)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "payment_callbacks_last_claim_timestamp_seconds",
            "When a merchant's gateway was last heard of, by an answer or a callback; 0 for never. Of callbacks, only"
            " those by token count where a merchant has tokens.",
            labels=["merchant", "source"],
        )
