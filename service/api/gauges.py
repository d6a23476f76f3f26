"""What Prometheus reads here: that the role runs, which gateways it cannot use, and what its log has lost."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from service.gateway.client import GatewayClients
from service.runtime.metrics.exposition import name_role
from service.runtime.metrics.merchants import show_gateways

#: The content type of `Gauges.scrape`.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Gauges:
    """The API's metrics, the same in each worker. Safe to share between threads."""

    def __init__(self, *, gateways: GatewayClients, log_metrics: Collector) -> None:
        """`log_metrics` tell of all workers."""
        self._registry = CollectorRegistry()
        name_role(self._registry, "api")
        show_gateways(self._registry, usable=gateways.usable, unusable=gateways.unusable)
        self._registry.register(log_metrics)

    def scrape(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)
