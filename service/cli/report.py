"""`payment-callbacks report`: how complete a day was, per merchant."""

import csv
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.ledger_access import open_ledger
from service.cli.options import settings_of
from service.ledger.reports import DayReport, Reports
from service.logs import configure_logs

#: Said with every report that a person reads, and in the JSON: what it cannot know.
NOTE = (
    "Counted are the orders that became known on the day, as they stand now. Callbacks that the receiver refused "
    "(sign, token, form) reach no ledger and are not in here: its metric payment_callbacks_received_total has them by "
    'merchant and reason (outcome="refused"), and its log has each.'
)
_COUNTS = ("orders", "announced", "called_back", "asked", "answered", "still_open", "conflicts")
_FORMATS = ("table", "json", "csv")


@click.command()
@click.option(
    "--day",
    required=True,
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="The day, in each merchant's own time zone.",
)
@click.option("--merchant", "only", multiple=True, help="Only this one; may be given more than once.")
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.pass_context
def report(context: click.Context, day: datetime, only: tuple[str, ...], format_: str) -> None:
    """Report how complete a day was: orders announced, called back, asked for, answered, still open.

    Callbacks that changed nothing are counted by why. The lag is from the gateway's pay_time to the event that
    downstream is told of it by.
    """
    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())
    settings = settings_of(context)
    if unknown := set(only) - set(settings.merchants):
        raise click.UsageError(f"not configured: {', '.join(sorted(unknown))}")
    with open_ledger(settings) as engine:
        reports = Reports(engine=engine)
        days = [
            reports.read_day(slug, since=since, until=until)
            for slug, merchant in sorted(settings.merchants.items())
            if not only or slug in only
            for since, until in [_bounds(day, ZoneInfo(merchant.time_zone))]
        ]
    {"table": _print_table, "json": _print_json, "csv": _print_csv}[format_](f"{day:%Y-%m-%d}", days)


def _bounds(day: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    # Midnight to midnight by the calendar: where clocks change, a day has 23 or 25 hours.
    following = day + timedelta(days=1)
    return day.replace(tzinfo=zone), following.replace(tzinfo=zone)


def _print_table(day: str, reports: Sequence[DayReport]) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    table = Table(title=day, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in ("merchant", *_COUNTS, "lag median", "lag p99"):
        table.add_column(name.replace("_", " "), justify="left" if name == "merchant" else "right")
    for report_ in reports:
        counts = [str(getattr(report_, name)) for name in _COUNTS]
        lags = [_seconds(report_.lags.median_seconds), _seconds(report_.lags.p99_seconds)]
        table.add_row(Text(report_.merchant), *counts, *lags)
    console.print(table)
    for report_ in reports:
        for reason, callbacks in report_.not_counted.items():
            words = "".join(character if character.isprintable() else "·" for character in reason)
            console.print(Text(f"{report_.merchant}: {callbacks} callbacks changed nothing: {words}"))
    click.echo(NOTE, err=True)


def _print_json(day: str, reports: Sequence[DayReport]) -> None:
    rows = [{**_row(day, report_), "not_counted": dict(report_.not_counted)} for report_ in reports]
    click.echo(json.dumps({"day": day, "note": NOTE, "merchants": rows}, ensure_ascii=False, indent=2))


def _print_csv(day: str, reports: Sequence[DayReport]) -> None:
    names = ["day", "merchant", *_COUNTS, "lag_median_seconds", "lag_p99_seconds", "lag_orders", "not_counted"]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for report_ in reports:
        # One cell, for reasons are not known beforehand; JSON, for they hold any character.
        reasons = json.dumps(dict(report_.not_counted), ensure_ascii=False)
        writer.writerow({**_row(day, report_), "not_counted": reasons})


def _row(day: str, report_: DayReport) -> dict[str, Any]:
    return {
        "day": day,
        "merchant": report_.merchant,
        **{name: getattr(report_, name) for name in _COUNTS},
        "lag_median_seconds": report_.lags.median_seconds,
        "lag_p99_seconds": report_.lags.p99_seconds,
        "lag_orders": report_.lags.orders,
    }


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
