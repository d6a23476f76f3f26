"""`payment-callbacks replay`: tell an endpoint again what it was told, or never got."""

import sys

import click

from service.cli.ledger_access import open_ledger
from service.cli.options import settings_of
from service.ledger.outbox import Outbox
from service.runtime.logs import configure_logs


@click.command()
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@click.option("--endpoint", required=True, help="Its name in the settings.")
@click.option("--parked", is_flag=True, help="Everything that was given up after its last try.")
@click.pass_context
def replay(context: click.Context, event_ids: tuple[str, ...], endpoint: str, parked: bool) -> None:
    """Send events to an endpoint again: the named ones, whatever became of them, or all that are --parked.

    Event ids are in `orders show`. An event has the same id and bytes as before, so whoever dedupes by id is not told
    twice. Only events that the endpoint subscribed to when they were made can be sent to it.
    """
    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())
    settings = settings_of(context)
    names = [known.name for known in settings.endpoints]
    if endpoint not in names:
        raise click.UsageError(f"no endpoint is called {endpoint}; the settings know {', '.join(names) or 'none'}")
    if parked == bool(event_ids):
        raise click.UsageError("name event ids, or say --parked")
    with open_ledger(settings) as engine:
        outbox = Outbox(engine=engine)
        found = outbox.replay_parked(endpoint=endpoint) if parked else outbox.replay(event_ids, endpoint=endpoint)
    click.echo(f"due again: {found}")
    if found < len(set(event_ids)):
        raise click.ClickException(f"{len(set(event_ids)) - found} of the named events were never meant for {endpoint}")
