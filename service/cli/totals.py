"""`payment-callbacks totals`: how often things happened in each hour or five minutes, as charts show it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import click

from service.cli.ledger_access import open_ledger
from service.cli.options import TIME_HELP, AwareTime, Word, log_to_stderr, settings_of
from service.cli.pages import as_json_option
from service.cli.tables import add_row, make_console, make_table, time_text
from service.ledger.totals import LABELS, Resolution, Series, read_lags, read_totals
from service.runtime.clock import now

_RESOLUTIONS = {"5m": Resolution.FIVE_MINUTES, "1h": Resolution.HOUR}
_BUCKETS = 24


@click.command()
@click.argument("series", type=Word(list(Series)))
@click.option("--since", type=AwareTime(), help=f"{TIME_HELP} The default is 24 buckets ago.")
@click.option("--until", type=AwareTime(), help="The default is now.")
@click.option("--resolution", type=click.Choice(list(_RESOLUTIONS)), default="1h", show_default=True)
@click.option(
    "--by", multiple=True, type=click.Choice(LABELS), default=["outcome"], show_default=True, help="May be repeated."
)
@click.option("--merchant", help="Only this one.")
@click.option("--endpoint", help="Only this one.")
@as_json_option
@click.pass_context
def totals(
    context: click.Context,
    series: Series,
    since: datetime | None,
    until: datetime | None,
    resolution: str,
    by: Sequence[str],
    merchant: str | None,
    endpoint: str | None,
    as_json: bool,
) -> None:
    """Show how often things happened in each hour, or in each five minutes of the last three hours.

    The figures are for charts: they are some seconds late, and a process that is killed loses its last ones. `report`
    counts the orders themselves. For the lags, from paid_at to the final status, it shows the median and the 99th
    percentile.
    """
    log_to_stderr()
    settings = settings_of(context)
    length = _RESOLUTIONS[resolution]
    until = until or now()
    since = since or length.start_of(until) - (_BUCKETS - 1) * length.length
    if since >= until:
        raise click.UsageError("--until is not after --since: swap them")
    only = {name: value for name, value in (("merchant", merchant), ("endpoint", endpoint)) if value is not None}
    with open_ledger(settings) as engine:
        if series is Series.LAGS:
            points = [asdict(lag) for lag in read_lags(engine, since=since, until=until, resolution=length, only=only)]
        else:
            found = read_totals(engine, series, since=since, until=until, resolution=length, by=by, only=only)
            points = [
                {"starts_at": point.starts_at, **dict(zip(by, labels, strict=True)), "value": point.value}
                for labels, points in found.items()
                for point in points
            ]
    if as_json:
        click.echo(json.dumps({"points": points}, default=datetime.isoformat, indent=2))
    elif points:
        table = make_table("", *points[0])
        for point in sorted(points, key=lambda point: point["starts_at"]):
            add_row(table, *map(_cell, point.values()))
        make_console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return time_text(value) if isinstance(value, datetime) else str(value)
