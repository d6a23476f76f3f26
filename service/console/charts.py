"""Charts of the last hour, day or week, drawn from the totals, which are some seconds late."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, request
from flask_babel import LazyString, gettext, lazy_gettext
from sqlalchemy import Engine
from werkzeug.exceptions import BadRequest

from service.console.pages import command, page
from service.console.words import QUESTIONS_IN_SHORT, REFUSALS, VERDICTS_IN_SHORT, Words
from service.ledger.totals import Resolution, Series, read_lags, read_totals

#: How much of the past a chart shows, and in which steps.
_WINDOWS = {
    "1h": (timedelta(hours=1), Resolution.FIVE_MINUTES),
    "24h": (timedelta(hours=24), Resolution.HOUR),
    "7d": (timedelta(days=7), Resolution.HOUR),
}
_WINDOW_NAMES = {"1h": lazy_gettext("1 hour"), "24h": lazy_gettext("24 hours"), "7d": lazy_gettext("7 days")}
_AS_IT_IS: Words = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Some curves over time."""

    title: LazyString
    #: The starts of the buckets, the same for each curve.
    times: Sequence[datetime]
    #: A value per bucket by the curve's name; None where there is none.
    curves: Mapping[str, Sequence[float | None]]

    @property
    def data(self) -> str:
        """What the script in the browser draws, as JSON: times in seconds since 1970."""
        series = [{"label": name, "values": list(values)} for name, values in self.curves.items()]
        times = [int(time.timestamp()) for time in self.times]
        return json.dumps({"times": times, "series": series})


def make_charts(*, engine: Engine, clock: Callable[[], datetime]) -> Blueprint:
    """The page. Its views may run on many threads at once."""
    blueprint = Blueprint("charts", __name__, url_prefix="/charts")

    @blueprint.route("")
    def show() -> str:
        window = request.args.get("window", "24h")
        if window not in _WINDOWS:
            raise BadRequest("window")
        length, resolution = _WINDOWS[window]
        until = clock()
        range_: dict[str, Any] = {"since": until - length, "until": until, "resolution": resolution}
        return page(
            "charts.html",
            window=window,
            windows=_WINDOW_NAMES,
            charts=_read(engine, range_),
            command=command("totals", "claims", "--resolution", "5m" if window == "1h" else "1h"),
        )

    return blueprint


def _read(engine: Engine, range_: Mapping[str, Any]) -> Sequence[Chart]:
    def counted(title: LazyString, series: Series, by: str, words: Words = _AS_IT_IS, **only: str) -> Chart:
        found = read_totals(engine, series, by=(by,), only=only, **range_)
        times = [point.starts_at for point in next(iter(found.values()), ())]
        # Before the first count, nothing may have been counting: that is no 0.
        first = min((point.starts_at for points in found.values() for point in points if point.value), default=None)
        return Chart(
            title=title,
            times=times,
            curves={
                str(words.get(name, name)): [
                    point.value if first and point.starts_at >= first else None for point in points
                ]
                for (name,), points in found.items()
            },
        )

    lags = read_lags(engine, **range_)
    return [
        counted(
            lazy_gettext("Callbacks by what they did"), Series.CLAIMS, "outcome", VERDICTS_IN_SHORT, source="callback"
        ),
        counted(lazy_gettext("Callbacks that were refused, by reason"), Series.REFUSALS, "outcome", REFUSALS),
        Chart(
            title=lazy_gettext("Seconds from the payment to its event"),
            times=[lag.starts_at for lag in lags],
            curves={
                gettext("median"): [lag.median_seconds for lag in lags],
                gettext("99th percentile"): [lag.p99_seconds for lag in lags],
            }
            if lags
            else {},
        ),
        counted(lazy_gettext("Tries to deliver, by endpoint"), Series.DELIVERIES, "endpoint"),
        counted(lazy_gettext("Questions to the gateway, by outcome"), Series.QUESTIONS, "outcome", QUESTIONS_IN_SHORT),
    ]
