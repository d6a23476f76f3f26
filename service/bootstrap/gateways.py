"""The merchants' gateways."""

from collections.abc import Sequence

from service.config.settings import GatewaySettings, MerchantSettings, Settings
from service.gateway.client import GatewayClient, GatewayClients, make_client, make_clients
from service.runtime.clock import now


def make_gateway_client(merchant: MerchantSettings, gateway: GatewaySettings) -> GatewayClient:
    """Speaks to the merchant's gateway. Raises a `GatewayError` where its settings cannot be used."""
    return make_client(merchant, gateway, clock=now)


def make_gateway_clients(settings: Settings) -> GatewayClients:
    """A client for each merchant with a gateway, and why there is none for some."""
    return make_clients(settings.merchants.values(), clock=now)


def describe_unusable(gateways: GatewayClients) -> Sequence[str]:
    """A line for each merchant whose gateway's settings cannot be used: where they are, and why."""
    return [f"merchants.{merchant}.gateway: {error}" for merchant, error in gateways.unusable.items()]
