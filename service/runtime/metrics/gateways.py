"""Whether each merchant's gateway can be spoken to at all, by its settings."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Gauge


def show_gateways(registry: CollectorRegistry, *, usable: Collection[str], unusable: Collection[str]) -> None:
    """Tell Prometheus which merchants this process has left out; that changes only when it is started again."""
    gauge = Gauge(
        "payment_callbacks_gateway_unusable",
        "1 where the settings of the merchant's gateway cannot be used, so that nothing is sent or asked; else 0.",
        ["merchant"],
        registry=registry,
    )
    for merchant in usable:
        gauge.labels(merchant).set(0)
    for merchant in unusable:
        gauge.labels(merchant).set(1)
