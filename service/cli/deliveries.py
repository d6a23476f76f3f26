"""`payment-callbacks deliveries`: which events wait for which endpoint, and how often each was tried."""

from collections.abc import Sequence

import click

from service.api.fields import MAX_LISTED
from service.api.response_schemas import DeliveryListSchema
from service.cli.ledger_access import open_ledger
from service.cli.options import Word, log_to_stderr, settings_of
from service.cli.pages import after_option, as_json_option, limit_option, print_page
from service.cli.tables import add_row, make_console, make_table, time_text
from service.domain.claims import OrderKey
from service.ledger.endpoints import DeliveryFilter, DeliveryPlace, DeliveryState, ListedDelivery, list_deliveries


@click.group()
def deliveries() -> None:
    """Deliveries: one per event and endpoint. `replay` delivers events again."""
    log_to_stderr()


@deliveries.command(name="list")
@click.option("--endpoint", help="Only those to this endpoint.")
@click.option("--state", type=Word(DeliveryState), help="Only those in this state.")
@click.option("--order", type=(str, str), metavar="MERCHANT BIZ_ORDER_NO", help="Only those of this order.")
@after_option(DeliveryPlace)
@limit_option(50)
@as_json_option
@click.pass_context
def list_(
    context: click.Context,
    endpoint: str | None,
    state: DeliveryState | None,
    order: tuple[str, str] | None,
    after: DeliveryPlace | None,
    limit: int,
    as_json: bool,
) -> None:
    """List deliveries, those of the oldest events first: all that are open or parked, or those of one order."""
    chosen = DeliveryFilter(
        endpoint=endpoint, state=state, order=None if order is None else OrderKey(*order), after=after
    )
    if not chosen.is_narrow:
        raise click.UsageError("name --state open, --state parked, or an --order")
    with open_ledger(settings_of(context)) as engine:
        page = list_deliveries(engine, chosen, limit=limit)
    print_page(DeliveryListSchema(), "deliveries", page, limit=limit, as_json=as_json, show=_show)


@deliveries.command()
@click.argument("event_id")
@as_json_option
@click.pass_context
def show(context: click.Context, event_id: str, as_json: bool) -> None:
    """Show the deliveries of one event: to which endpoints, when and why a try has failed, and its replays."""
    with open_ledger(settings_of(context)) as engine:
        found = list_deliveries(engine, DeliveryFilter(event_id=event_id), limit=MAX_LISTED)
    if not found:
        raise click.ClickException(
            f"there is no delivery of an event {event_id!r}: `orders show` lists an order's events. An event that no "
            "endpoint receives has no delivery."
        )
    print_page(DeliveryListSchema(), "deliveries", found, limit=MAX_LISTED, as_json=as_json, show=_show_with_log)


def _show_with_log(found: Sequence[ListedDelivery]) -> None:
    _show(found)
    table = make_table("What has happened: the first step, and the last nine", "endpoint", "at", "what", "detail")
    for delivery in found:
        for step in delivery.log:
            add_row(table, delivery.endpoint, time_text(step.at), step.kind.value, step.detail)
    if table.row_count:
        make_console().print(table)


def _show(found: Sequence[ListedDelivery]) -> None:
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
