"""The merchants' gateways."""

from collections.abc import Sequence

from service.config.settings import Settings
from service.gateway.client import GatewayClients, make_clients
from service.runtime.clock import now


def make_gateway_clients(settings: Settings) -> GatewayClients:
    """The clients of all gateways, and the errors of those whose settings cannot be used."""
    return make_clients(settings.merchants.values(), clock=now)


def describe_unusable(gateways: GatewayClients) -> Sequence[str]:
    """One line per gateway whose settings cannot be used: the place, and the error."""
    return [f"merchants.{merchant}.gateway: {error}" for merchant, error in gateways.unusable.items()]
