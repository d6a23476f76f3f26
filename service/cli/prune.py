"""`payment-callbacks prune`: forget what gateways and channels said, once it is old enough."""

import sys
from datetime import UTC, datetime

import click

from service.bootstrap.ledger import make_store
from service.cli.ledger_access import open_ledger
from service.cli.options import settings_of
from service.clock import now
from service.logs import configure_logs


@click.command()
@click.option(
    "--before",
    required=True,
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="A day, in UTC: what was recorded before it is pruned.",
)
@click.pass_context
def prune(context: click.Context, before: datetime) -> None:
    """Remove the payloads of old claims: the channel's words and fields that nobody named, for they hold personal data.

    Orders, claims and events stay: without them a replayed old callback would pay again. Harmless to repeat, to stop
    at any point, and to run while everything else does.
    """
    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())
    settings = settings_of(context)
    day = before.replace(tzinfo=UTC)
    if day > now():
        raise click.UsageError("--before lies ahead: it would remove what is needed today")
    with open_ledger(settings) as engine:
        pruned = make_store(settings, engine).prune(before=day)
    click.echo(f"pruned: {pruned}")
