"""The merchants' gateways for roles that speak to them: one merchant's mistake keeps only its own payments waiting."""

from collections.abc import Collection

import click
import structlog

from service.bootstrap.gateways import describe_unusable, make_gateway_clients
from service.config.settings import Settings
from service.gateway.client import GatewayClients

log = structlog.get_logger(__name__)


def make_gateways(settings: Settings, *, wanted: Collection[str]) -> GatewayClients:
    """What the settings of the gateways come to; an error is logged for each that cannot be used.

    Where that leaves none of the `wanted` merchants, it ends the command with a line for each.
    """
    gateways = make_gateway_clients(settings)
    if gateways.unusable and gateways.unusable.keys() >= set(wanted):
        raise click.ClickException("\n".join(describe_unusable(gateways)))
    for merchant, error in gateways.unusable.items():
        log.error("gateway_unusable", merchant=merchant, reason=str(error))
    return gateways
