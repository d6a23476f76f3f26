"""`payment-callbacks topology`: declare exchanges and queues on RabbitMQ."""

import click

from service.bootstrap.messaging import declare_topology
from service.cli.options import settings_of
from service.messaging.errors import MessagingError


@click.group()
def topology() -> None:
    """Exchanges and queues on RabbitMQ."""


@topology.command()
@click.pass_context
def declare(context: click.Context) -> None:
    """Declare exchanges, queues and bindings. Safe to repeat. The roles do it too when they start."""
    settings = settings_of(context)
    if not settings.broker.urls:
        raise click.ClickException("no broker.urls (or AMQP_URL) are set: the embedded queue needs no topology")
    try:
        declare_topology(settings)
    except MessagingError as error:
        raise click.ClickException(str(error)) from error
    click.echo("Declared.")
