"""`payment-callbacks report`: how complete a day was, per merchant."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.escaping import escape_controls
from service.cli.ledger_access import open_ledger
from service.cli.options import log_to_stderr, settings_of
from service.ledger.reports import DayReport, Reports

#: Printed with every report: its limits.
NOTE = (
    "The report counts orders that became known on the day, with their present state. Refused callbacks are counted on "
    "the day they came. The receiver reports them every few seconds: if it is killed, the last ones are missing here, "
    "but its log has each (callback_refused)."
)
_COUNTS = ("orders", "announced", "called_back", "asked", "answered", "still_open", "conflicts")
_NOT_CONFIGURED = "callbacks were refused because their address names no configured merchant (unknown-merchant)"
_FORMATS = ("table", "json", "csv")


@click.command()
@click.option(
    "--day",
    required=True,
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="The day, in each merchant's own time zone.",
)
@click.option("--merchant", "only", multiple=True, help="Only this merchant; may be repeated.")
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.pass_context
def report(context: click.Context, day: datetime, only: tuple[str, ...], format_: str) -> None:
    """Report how complete a day was: orders announced, called back, queried, answered, still open.

    Callbacks that changed nothing or were refused are counted by reason. The lag is the time from the gateway's
    pay_time to the event.
    """
    log_to_stderr()
    settings = settings_of(context)
    if unknown := set(only) - set(settings.merchants):
        raise click.UsageError(f"not configured: {', '.join(sorted(unknown))}")
    with open_ledger(settings) as engine:
        reports = Reports(engine=engine)
        merchants = [
            reports.read_day(slug, day.date(), time_zone=ZoneInfo(merchant.time_zone))
            for slug, merchant in sorted(settings.merchants.items())
            if not only or slug in only
        ]
        whole = _Report(day=day.date(), merchants=merchants, unknown_merchant=reports.refused_for_nobody(day.date()))
    {"table": _print_table, "json": _print_json, "csv": _print_csv}[format_](whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What is printed."""

    day: date
    merchants: Sequence[DayReport]
    #: Callbacks refused because their address named no configured merchant.
    unknown_merchant: int


def _print_table(whole: _Report) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(title=f"{whole.day}", title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in ("merchant", *_COUNTS, "refused", "lag median", "lag p99"):
        table.add_column(name.replace("_", " "), justify="left" if name == "merchant" else "right")
    for merchant in whole.merchants:
        counts = [str(getattr(merchant, name)) for name in _COUNTS]
        lags = [_seconds(merchant.lags.median_seconds), _seconds(merchant.lags.p99_seconds)]
        table.add_row(Text(merchant.merchant), *counts, str(sum(merchant.refused.values())), *lags)
    console.print(table)
    for merchant in whole.merchants:
        for became, reasons in (("changed nothing", merchant.not_counted), ("were refused", merchant.refused)):
            for reason, callbacks in reasons.items():
                console.print(Text(f"{merchant.merchant}: {callbacks} callbacks {became}: {escape_controls(reason)}"))
    if whole.unknown_merchant:
        console.print(Text(f"{whole.unknown_merchant} {_NOT_CONFIGURED}"))
    click.echo(NOTE, err=True)


def _print_json(whole: _Report) -> None:
    rows = [
        {
            **_row(whole.day, merchant),
            "not_counted": dict(merchant.not_counted),
            "refused_by_reason": dict(merchant.refused),
        }
        for merchant in whole.merchants
    ]
    document = {
        "day": f"{whole.day}",
        "note": NOTE,
        "merchants": rows,
        "refused_for_no_merchant": whole.unknown_merchant,
    }
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def _print_csv(whole: _Report) -> None:
    names = ["day", "merchant", *_COUNTS, "refused", "lag_median_seconds", "lag_p99_seconds", "lag_orders"]
    writer = csv.DictWriter(sys.stdout, [*names, "not_counted", "refused_by_reason"], lineterminator="\n")
    writer.writeheader()
    for merchant in whole.merchants:
        # JSON in one cell each: reasons are not known beforehand, and may hold any character.
        reasons = {"not_counted": merchant.not_counted, "refused_by_reason": merchant.refused}
        cells = {name: json.dumps(dict(by_reason), ensure_ascii=False) for name, by_reason in reasons.items()}
        writer.writerow({**_row(whole.day, merchant), **cells})
    if whole.unknown_merchant:
        click.echo(f"{whole.unknown_merchant} {_NOT_CONFIGURED}", err=True)


def _row(day: date, merchant: DayReport) -> dict[str, Any]:
    return {
        "day": f"{day}",
        "merchant": merchant.merchant,
        **{name: getattr(merchant, name) for name in _COUNTS},
        "refused": sum(merchant.refused.values()),
        "lag_median_seconds": merchant.lags.median_seconds,
        "lag_p99_seconds": merchant.lags.p99_seconds,
        "lag_orders": merchant.lags.orders,
    }


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
