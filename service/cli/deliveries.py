"""`payment-callbacks deliveries`: which events wait for which endpoint, and how often each was tried."""

import json
from collections.abc import Sequence

import click
from marshmallow import ValidationError

from service.api.request_schemas import MAX_LISTED, read_delivery_cursor, write_delivery_cursor
from service.api.response_schemas import DeliveryListSchema
from service.cli.ledger_access import open_ledger
from service.cli.options import log_to_stderr, settings_of
from service.cli.tables import add_row, make_console, make_table, time_text
from service.domain.claims import OrderKey
from service.ledger.endpoints import DeliveryFilter, DeliveryPlace, DeliveryState, ListedDelivery, list_deliveries

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, like the API.")


@click.group()
def deliveries() -> None:
    """Deliveries: one per event and endpoint. `replay` delivers events again."""
    log_to_stderr()


@deliveries.command(name="list")
@click.option("--endpoint", help="Only those to this endpoint.")
@click.option("--state", type=click.Choice([state.value for state in DeliveryState]), help="Only those in this state.")
@click.option("--order", type=(str, str), metavar="MERCHANT BIZ_ORDER_NO", help="Only those of this order.")
@click.option("--after", help="Where the previous page ended: the value that it printed.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, MAX_LISTED))
@_AS_JSON
@click.pass_context
def list_(
    context: click.Context,
    endpoint: str | None,
    state: str | None,
    order: tuple[str, str] | None,
    after: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List deliveries, those of the oldest events first: all that are open or parked, or those of one order."""
    chosen = DeliveryFilter(
        endpoint=endpoint,
        state=None if state is None else DeliveryState(state),
        order=None if order is None else OrderKey(*order),
        after=None if after is None else _read_place(after),
    )
    if not chosen.is_narrow:
        raise click.UsageError("name --state open, --state parked, or an --order")
    with open_ledger(settings_of(context)) as engine:
        page = list_deliveries(engine, chosen, limit=limit)
    _print(page, following=write_delivery_cursor(page[-1]) if len(page) == limit else None, as_json=as_json)


@deliveries.command()
@click.argument("event_id")
@_AS_JSON
@click.pass_context
def show(context: click.Context, event_id: str, as_json: bool) -> None:
    """Show the deliveries of one event: to which endpoints, how often each was tried, and its last error."""
    with open_ledger(settings_of(context)) as engine:
        found = list_deliveries(engine, DeliveryFilter(event_id=event_id), limit=MAX_LISTED)
    if not found:
        raise click.ClickException(
            f"there is no delivery of an event {event_id!r}: `orders show` lists an order's events. An event that no "
            "endpoint receives has no delivery."
        )
    _print(found, following=None, as_json=as_json)


def _print(found: Sequence[ListedDelivery], *, following: str | None, as_json: bool) -> None:
    if as_json:
        shown = DeliveryListSchema().dump({"deliveries": found, "next": following})
        click.echo(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    table = make_table("", "event", "type", "endpoint", "state", "tries", "made", "due", "settled", "last error")
    for delivery in found:
        add_row(
            table,
            delivery.event_id,
            delivery.type.value,
            delivery.endpoint,
            delivery.state,
            str(delivery.attempts),
            time_text(delivery.created_at),
            time_text(delivery.due_at) if delivery.state == DeliveryState.OPEN else "",
            time_text(delivery.settled_at),
            delivery.last_error,
        )
    make_console().print(table)
    if following:
        click.echo(f"There may be more: --after {following}", err=True)


def _read_place(cursor: str) -> DeliveryPlace:
    try:
        return read_delivery_cursor(cursor)
    except ValidationError as error:
        raise click.UsageError("--after is not the end of an earlier page") from error
