"""The merchants' gateways."""

from collections.abc import Sequence

from service.config.settings import Settings
from service.gateway.client import GatewayClients, make_clients
from service.runtime.clock import now
from service.runtime.tracing import NO_TRACING, Tracing


def make_gateway_clients(settings: Settings, tracing: Tracing = NO_TRACING) -> GatewayClients:
    """The clients of all gateways, and the errors of those whose settings cannot be used."""
    return make_clients(settings.merchants.values(), clock=now, tracing=tracing)


def describe_unusable(gateways: GatewayClients) -> Sequence[str]:
    """One line per gateway whose settings cannot be used: the place, and the error."""
    return [f"merchants.{merchant}.gateway: {error}" for merchant, error in gateways.unusable.items()]
