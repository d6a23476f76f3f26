"""`payment-callbacks prune`: remove old payloads, which hold personal data."""

from datetime import UTC, datetime, timedelta

import click

from service.bootstrap.ledger import make_store
from service.cli.ledger_access import open_ledger
from service.cli.options import log_to_stderr, settings_of
from service.runtime.clock import now


@click.command()
@click.option(
    "--before",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="A day in UTC. Payloads that were recorded before it are removed.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=1),
    help="In place of --before, for schedules: payloads that are at least this many days old are removed.",
)
@click.pass_context
def prune(context: click.Context, before: datetime | None, keep_days: int | None) -> None:
    """Remove the payloads of old claims, which hold personal data: channel messages, unknown values and fields.

    Orders, their claims and events stay: without them a replayed old callback would pay again. Forged orders, which the
    gateway does not have, are removed entirely. It is safe to repeat, to interrupt, and to run beside all roles.
    """
    log_to_stderr()
    settings = settings_of(context)
    until = _until(before, keep_days)
    with open_ledger(settings) as engine:
        pruned = make_store(settings, engine).prune(before=until)
    click.echo(f"pruned: {pruned}")


def _until(before: datetime | None, keep_days: int | None) -> datetime:
    if before and keep_days is None:
        day = before.replace(tzinfo=UTC)
        if day > now():
            raise click.UsageError("--before is in the future: it would remove payloads that are still needed")
        return day
    if keep_days and before is None:
        return now() - timedelta(days=keep_days)
    raise click.UsageError("use either --before or --keep-days")
