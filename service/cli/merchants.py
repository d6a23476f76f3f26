"""Which merchant a command speaks for."""

from typing import NamedTuple

import click

from service.config.settings import GatewaySettings, MerchantSettings, Settings

#: `--merchant`, for `choose`.
merchant_option = click.option("--merchant", help="Its slug; may be left out where only one merchant has a gateway.")


class Chosen(NamedTuple):
    """A merchant that has a gateway, and the gateway."""

    merchant: MerchantSettings
    gateway: GatewaySettings


def choose(settings: Settings, slug: str | None) -> Chosen:
    """The merchant of that slug, or the only one that has a gateway. Raises `click.UsageError`."""
    able = [Chosen(merchant, merchant.gateway) for merchant in settings.merchants.values() if merchant.gateway]
    chosen = [one for one in able if slug in (None, one.merchant.slug)]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(one.merchant.slug for one in able) or "none"
    raise click.UsageError(f"name a merchant that has a gateway, by --merchant; those that have one: {names}")
