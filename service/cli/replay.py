"""`payment-callbacks replay`: deliver events to an endpoint again."""

import click

from service.cli.ledger_access import open_ledger
from service.cli.options import find_endpoint, log_to_stderr, settings_of
from service.ledger.outbox import Outbox


@click.command()
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@click.option("--endpoint", required=True, help="Its name in the settings.")
@click.option("--parked", is_flag=True, help="All events that are parked: their last attempt failed.")
@click.pass_context
def replay(context: click.Context, event_ids: tuple[str, ...], endpoint: str, parked: bool) -> None:
    """Deliver events to an endpoint again: those that are named, whatever their state, or all that are --parked.

    `orders show` prints event ids. A replayed event has the same id and bytes as before, so a receiver that dedupes by
    id ignores it. Only events that the endpoint subscribed to when they were made can be replayed.
    """
    log_to_stderr()
    settings = settings_of(context)
    find_endpoint(settings, endpoint)
    if parked == bool(event_ids):
        raise click.UsageError("name event ids, or use --parked")
    with open_ledger(settings) as engine:
        outbox = Outbox(engine=engine)
        found = outbox.replay_parked(endpoint=endpoint) if parked else outbox.replay(event_ids, endpoint=endpoint)
    click.echo(f"due again: {found}")
    if found < len(set(event_ids)):
        raise click.ClickException(f"{len(set(event_ids)) - found} of the named events were never meant for {endpoint}")
