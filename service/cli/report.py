"""`payment-callbacks report`: how complete each day was, per merchant, and every order that is not final."""

import csv
import json
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime
from zoneinfo import ZoneInfo

import click
from rich.text import Text

from service.api.response_schemas import ReportSchema
from service.cli.ledger_access import open_ledger
from service.cli.options import log_to_stderr, settings_of
from service.cli.order_tables import show_attention
from service.cli.pages import print_json
from service.cli.tables import add_row, make_console, make_table, time_text
from service.domain.masking import escape_controls
from service.ledger.reports import Report, Reports

#: Printed with every report: its limits.
NOTE = (
    "The report counts orders that became known on the day, with their present state. Refused callbacks are counted on "
    "the day they came. The receiver reports them every few seconds: if it is killed, the last ones are missing here, "
    "but its log has each (callback_refused)."
)
#: The exit status where a person has to look at something.
UNEXPLAINED = 3
_COUNTS = (
    *("orders", "announced", "called_back", "asked", "answered", "recovered", "still_open", "in_dispute"),
    *("conflicts", "unexplained"),
)
_NOT_CONFIGURED = "callbacks were refused because their address names no configured merchant (unknown-merchant)"
_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command()
@click.option("--day", type=_DAY, help="One day, in each merchant's own time zone. The default is yesterday.")
@click.option("--since", type=_DAY, help="The first of several days.")
@click.option("--until", type=_DAY, help="The last of several days, included. The default is yesterday.")
@click.option("--merchant", "only", multiple=True, help="Only this merchant; may be repeated.")
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.pass_context
def report(
    context: click.Context,
    day: datetime | None,
    since: datetime | None,
    until: datetime | None,
    only: tuple[str, ...],
    format_: str,
) -> None:
    """Report how complete each day was: orders by status with their sums, and every order that is not final.

    It also names what waits for a person now. The exit status is 3 if a person has to look at anything: at an order
    that is not final, has not been acknowledged, and is not being asked about, or at an item of `orders attention`.

    Callbacks that changed nothing or were refused are counted by reason. The lag is the time from the gateway's
    pay_time to the event.
    """
    log_to_stderr()
    settings = settings_of(context)
    if unknown := set(only) - set(settings.merchants):
        raise click.UsageError(f"not configured: {', '.join(sorted(unknown))}")
    if day and (since or until):
        raise click.UsageError("use either --day, or --since and --until")
    if since and until and since > until:
        raise click.UsageError("--until is before --since: swap them")
    with open_ledger(settings) as engine:
        whole = Reports(engine=engine).read_report(
            {slug: ZoneInfo(merchant.time_zone) for slug, merchant in settings.merchants.items()},
            since=_date(day or since),
            until=_date(day or until),
            only=only,
        )
    show: Mapping[str, Callable[[Report], None]] = {"table": _print_table, "json": _print_json, "csv": _print_csv}
    show[format_](whole)
    if not whole.explained:
        context.exit(UNEXPLAINED)


def _date(time: datetime | None) -> date | None:
    return None if time is None else time.date()


def _print_table(whole: Report) -> None:
    console = make_console()
    table = make_table("", "day", "merchant", *_words(_COUNTS), "refused", "lag median", "lag p99")
    sums = make_table("By final status", "day", "merchant", "status", "orders", "amount")
    callbacks = make_table("Callbacks", "day", "merchant", "first", "last")
    unfinished = make_table("Not final", "day", "merchant", "biz_order_no", "status", "amount", "explanation")
    for day in whole.days:
        of_day = (f"{day.day}", day.merchant)
        counts = [str(getattr(day, name)) for name in _COUNTS]
        lags = [_seconds(day.lags.median_seconds), _seconds(day.lags.p99_seconds)]
        add_row(table, *of_day, *counts, str(sum(day.refused.values())), *lags)
        for one in day.statuses:
            amount = "unknown" if one.amount is None else f"{one.amount} {one.amount_unit}"
            add_row(sums, *of_day, one.status.value, str(one.orders), amount)
        if day.first_callback_at:
            add_row(callbacks, *of_day, time_text(day.first_callback_at), time_text(day.last_callback_at))
        for order in day.open_orders:
            amount = f"{order.amount} {order.amount_unit}" if order.amount else ""
            status = f"{order.status.value}{' (conflicted)' if order.conflicted else ''}"
            add_row(unfinished, *of_day, order.biz_order_no, status, amount, order.explanation)
    for part in (table, sums, callbacks, unfinished):
        if part.row_count:
            console.print(part)
    for day in whole.days:
        if day.still_open > len(day.open_orders):
            console.print(
                f"{day.day} {day.merchant}: {day.still_open - len(day.open_orders)} open orders are not named."
            )
        for became, reasons in (("changed nothing", day.not_counted), ("were refused", day.refused)):
            for reason, number in reasons.items():
                console.print(Text(escape_controls(f"{day.day} {day.merchant}: {number} callbacks {became}: {reason}")))
    if whole.refused_for_no_merchant:
        console.print(f"{whole.refused_for_no_merchant} {_NOT_CONFIGURED}")
    if whole.attention:
        show_attention(whole.attention, title="Waiting for a person now")
    click.echo(NOTE, err=True)


def _print_json(whole: Report) -> None:
    print_json(ReportSchema(), whole, note=NOTE)


def _print_csv(whole: Report) -> None:
    days = ReportSchema().dump(whole)["days"]
    writer = csv.DictWriter(sys.stdout, list(days[0]) if days else [], lineterminator="\n")
    writer.writeheader()
    for day in days:
        # JSON in one cell each: reasons are not known beforehand, and may hold any character.
        writer.writerow(
            {
                name: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
                for name, value in day.items()
            }
        )
    if whole.refused_for_no_merchant:
        click.echo(f"{whole.refused_for_no_merchant} {_NOT_CONFIGURED}", err=True)
    if whole.attention:
        click.echo(f"{len(whole.attention)} items wait for a person: payment-callbacks orders attention", err=True)


def _words(names: tuple[str, ...]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
