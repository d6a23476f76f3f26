"""`payment-callbacks config`: print an example of the settings, or check a file."""

from collections.abc import Sequence
from importlib.resources import files

import click

from service.cli.options import settings_of, settings_path_of
from service.config.secrets import Secret
from service.config.settings import Settings
from service.ledger.errors import DriverMissing


@click.group()
def config() -> None:
    """Print an example of the settings, or check yours."""


@config.command()
def example() -> None:
    """Print a commented example to start from."""
    click.echo(files("service.cli").joinpath("example.toml").read_text(encoding="utf-8"), nl=False)


@config.command()
@click.pass_context
def check(context: click.Context) -> None:
    """Check the settings. The exit status is 1 for mistakes, and 0 for warnings."""
    settings = settings_of(context)
    for warning in settings.warnings():
        click.echo(f"warning: {warning}", err=True)
    if mistakes := _find_unusable_gateways(settings):
        raise click.ClickException("\n".join(f"{settings_path_of(context)}: {mistake}" for mistake in mistakes))
    if settings.database_url:
        _require_driver(settings.database_url)
    queue = "RabbitMQ" if settings.broker.urls else f"embedded queue in {settings.data_directory}"
    ledger = "database_url" if settings.database_url else f"SQLite in {settings.data_directory}"
    click.echo(f"{settings_path_of(context)}: good. Queue: {queue}. Ledger: {ledger}.")
    for merchant in settings.merchants.values():
        pattern = merchant.order_number_pattern
        numbers = (
            f"order numbers that match {pattern.pattern} are shown everywhere"
            if pattern
            else "without order_number_pattern, an order number that may be a bank card number is masked in logs"
        )
        click.echo(f"merchant {merchant.slug}: requires {merchant.required_trust.word}; {numbers}")
    for endpoint in settings.endpoints:
        types = ", ".join(sorted(endpoint.types))
        click.echo(f"endpoint {endpoint.name}: {endpoint.kind} to {endpoint.address}, {types}")


def _require_driver(url: Secret) -> None:
    """The URL itself was checked with the settings."""
    from service.ledger.database_url import find_libpq_url, require_driver

    try:
        if find_libpq_url(url.reveal()) is not None:
            require_driver()
    except DriverMissing as error:
        raise click.ClickException(f"database_url: {error}") from error


def _find_unusable_gateways(settings: Settings) -> Sequence[str]:
    if not any(merchant.gateway for merchant in settings.merchants.values()):
        return ()
    from service.bootstrap.gateways import describe_unusable, make_gateway_clients

    return describe_unusable(make_gateway_clients(settings))
