"""`payment-callbacks prune`: forget what gateways and channels said, once it is old enough."""

import sys
from datetime import UTC, datetime, timedelta

import click

from service.bootstrap.ledger import make_store
from service.cli.ledger_access import open_ledger
from service.cli.options import settings_of
from service.runtime.clock import now
from service.runtime.logs import configure_logs


@click.command()
@click.option(
    "--before",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="A day, in UTC: what was recorded before it is pruned.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=1),
    help="In place of --before, for a schedule: what was recorded so many days ago, or longer, is pruned.",
)
@click.pass_context
def prune(context: click.Context, before: datetime | None, keep_days: int | None) -> None:
    """Remove the payloads of old claims: the channel's words, and words and fields that nobody knows, for they hold
    personal data.

    Orders, their claims and events stay: without them a replayed old callback would pay again. Of forged orders, which
    the gateway does not have, nothing stays. Harmless to repeat, to stop at any point, and to run while everything else
    does.
    """
    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())
    settings = settings_of(context)
    until = _until(before, keep_days)
    with open_ledger(settings) as engine:
        pruned = make_store(settings, engine).prune(before=until)
    click.echo(f"pruned: {pruned}")


def _until(before: datetime | None, keep_days: int | None) -> datetime:
    if before and keep_days is None:
        day = before.replace(tzinfo=UTC)
        if day > now():
            raise click.UsageError("--before lies ahead: it would remove what is needed today")
        return day
    if keep_days and before is None:
        return now() - timedelta(days=keep_days)
    raise click.UsageError("say --before or --keep-days")
