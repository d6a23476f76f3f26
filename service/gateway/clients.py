"""The merchants' gateways: a client for each whose settings can be used, and why the others' cannot."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from service.config.settings import GatewaySettings, MerchantSettings
from service.gateway.client import GatewayClient
from service.gateway.errors import GatewayError
from service.gateway.messages import AmountUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClients:
    """What came of the settings of every merchant that has a gateway, by merchant."""

    usable: Mapping[str, GatewayClient]
    unusable: Mapping[str, GatewayError]


def make_client(
    merchant: MerchantSettings, gateway: GatewaySettings, *, clock: Callable[[], datetime]
) -> GatewayClient:
    """Speaks in the merchant's name to its `gateway`. Raises a `GatewayError` where those settings cannot be used."""
    return GatewayClient(
        settings=gateway, amount_unit=AmountUnit(merchant.amount_unit), pay_types=merchant.pay_types, clock=clock
    )


def make_clients(merchants: Iterable[MerchantSettings], *, clock: Callable[[], datetime]) -> GatewayClients:
    """A client for each merchant with a gateway; one merchant's mistake is no other's."""
    usable, unusable = {}, {}
    for merchant in merchants:
        if merchant.gateway is None:
            continue
        try:
            usable[merchant.slug] = make_client(merchant, merchant.gateway, clock=clock)
        except GatewayError as error:
            unusable[merchant.slug] = error
    return GatewayClients(usable=usable, unusable=unusable)
