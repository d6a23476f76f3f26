"""What all pages share: lists as tables and as CSV, times in the reader's zone, and the command that does the same."""

import csv
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, available_timezones

from flask import Response, g, render_template, request, session, url_for
from flask_babel import LazyString, get_locale, gettext
from marshmallow import ValidationError
from werkzeug.exceptions import BadRequest, Forbidden
from werkzeug.wrappers import Response as BaseResponse

from service.config.settings import ApiScope
from service.console.people import Person
from service.domain.masking import escape_controls, mask_personal
from service.ledger.cursors import Placed, next_cursor, read_cursor

#: How many items a list shows; a CSV has up to so many.
PAGE_ITEMS, CSV_ITEMS = 50, 10_000

_Item = TypeVar("_Item")
_Place = TypeVar("_Place")


def me() -> Person:
    """Who sent the request. `app` has checked that somebody is signed in."""
    person: Person = g.person
    return person


def require(scope: ApiScope) -> Person:
    """Who sent the request. Raises Forbidden where they do not have the scope."""
    person = me()
    if not person.may(scope):
        raise Forbidden
    return person


def command(*words: str) -> str:
    """A command that shows or does the same."""
    return shlex.join(["payment-callbacks", *words])


def options(**values: str | None) -> list[str]:
    """Options of a command, without those that have no value: `pay_type="x"` is `--pay-type x`."""
    return [word for name, value in values.items() if value for word in (f"--{name.replace('_', '-')}", value)]


def shown(text: object) -> str:
    """A text for people: personal data is masked, and each character that cannot be seen is written out."""
    return escape_controls(mask_personal(str(text)))


def zone() -> ZoneInfo:
    """The reader's time zone."""
    return ZoneInfo(session.get("time_zone") or g.default_time_zone)


def local_time(time: datetime | None) -> str:
    """A time in the reader's zone, to the second; "" where there is none."""
    return "" if time is None else f"{time.astimezone(zone()):%Y-%m-%d %H:%M:%S}"


def field_time(time: datetime) -> str:
    """A time as a browser's field takes it, in the reader's zone, to the minute."""
    return f"{time.astimezone(zone()):%Y-%m-%dT%H:%M}"


def read_time(text: str) -> datetime:
    """A time as a browser's field writes it, in the reader's zone, or one with a zone. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=zone())


def read_window(given: Mapping[str, str]) -> tuple[datetime | None, datetime | None, Mapping[str, str]]:
    """The times `since` and `until` of a form, None where it has none, and what is wrong with them by the field."""
    times: dict[str, datetime | None] = {}
    errors = {}
    for name in ("since", "until"):
        try:
            times[name] = read_time(given[name]) if given.get(name) else None
        except ValueError:
            errors[name] = gettext("Enter a date and a time.")
    since, until = times.get("since"), times.get("until")
    if since and until and since >= until:
        errors["until"] = gettext("This has to be later than the start.")
    return since, until, errors


def order_url(merchant: str, number: str) -> str:
    """The page of an order. Its number is a parameter: browsers take a path of dots for another one."""
    return url_for("orders.show", merchant=merchant, number=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[_Item]):
    """A column of a list."""

    title: LazyString
    value: Callable[[_Item], object]
    #: Where a cell leads to.
    link: Callable[[_Item], str] | None = None
    #: Whether it holds identifiers, which are never masked: a person has to copy them.
    is_identifier: bool = False
    #: Whether its numbers are lined up on the right.
    is_number: bool = False

    def look(self, item: _Item) -> str:
        """The class of a cell in the style sheet; "" for a plain text."""
        if self.is_number or self.is_identifier:
            return "number" if self.is_number else "identifier"
        return "time" if isinstance(self.value(item), datetime) else ""

    def text(self, item: _Item) -> str:
        """A cell."""
        value = self.value(item)
        if isinstance(value, datetime):
            return local_time(value)
        text = "" if value is None else str(value)
        return escape_controls(text) if self.is_identifier else shown(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[_Item]):
    """One page of a list, which a template or a CSV shows."""

    columns: Sequence[Column[_Item]]
    items: Sequence[_Item]
    #: The address of the next page; None on the last one.
    next_url: str | None = None

    @property
    def filled_columns(self) -> Sequence[Column[_Item]]:
        """The columns in which any of the items has a value. A page has no room for the others; a file has."""
        return [column for column in self.columns if any(column.text(item) for item in self.items)]

    @property
    def csv_url(self) -> str:
        """The list as a file."""
        return url_with(format="csv", after=None)

    def to_csv(self, name: str) -> Response:
        """The list as a file for a spreadsheet. Times are RFC 3339 in the reader's zone."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([str(column.title) for column in self.columns])
        for item in self.items:
            writer.writerow([_spreadsheet_text(column, item) for column in self.columns])
        # The byte order mark makes Excel read UTF-8.
        response = Response("\ufeff" + text.getvalue(), content_type="text/csv; charset=utf-8")
        response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
        return response


def wants_csv() -> bool:
    """Whether the request is for the list as a file."""
    return request.args.get("format") == "csv"


def limit() -> int:
    """How many items the request is for."""
    return CSV_ITEMS if wants_csv() else PAGE_ITEMS


def after(kind: Callable[..., _Place]) -> _Place | None:
    """The place after which the page begins, a named tuple of this kind; None for the first page."""
    text = request.args.get("after")
    try:
        return read_cursor(kind, text) if text else None
    except ValidationError as error:
        raise BadRequest from error


def next_url(page: Sequence[Placed]) -> str | None:
    """The address of the page after this one; None where this is the last one."""
    cursor = next_cursor(page, limit=limit())
    return url_with(after=cursor) if cursor else None


def url_with(**changed: str | None) -> str:
    """This page's address with some parameters changed; None removes one."""
    # Not by `url_for`, to which some names of parameters mean something else.
    parameters = {name: value for name, value in {**request.args.to_dict(), **changed}.items() if value}
    return f"{request.path}?{urlencode(parameters)}" if parameters else request.path


def own_path(target: str) -> str:
    """`target` if it is a path of this console, else "": nobody is to be led elsewhere."""
    # Browsers take a backslash for a slash, and drop tabs and line breaks.
    leads_elsewhere = not target.startswith("/") or target.replace("\\", "/").startswith("//")
    return target if target.isprintable() and not leads_elsewhere else ""


def referring_path() -> str:
    """The path of the console's page that a form was on; "" where the browser names none."""
    # What is left of another site's address begins with no slash.
    return own_path((request.referrer or "").removeprefix(g.public_url))


def page(template: str, **values: Any) -> str:
    """A page for the browser. It may show `command`, a command that shows or does the same."""
    return render_template(template, **values)


def list_page(template: str, name: str, listing: Listing[Any], **values: Any) -> str | BaseResponse:
    """A list, as a page or as a file called `name`."""
    return listing.to_csv(name) if wants_csv() else page(template, listing=listing, **values)


def form_text(name: str, *, required: bool = True) -> str:
    """What a form's field holds, without blanks around it. Raises BadRequest where a required one is empty."""
    text = request.form.get(name, "").strip()
    if required and not text:
        raise BadRequest(name)
    return text


@cache
def time_zones() -> Sequence[str]:
    """The names of the time zones that a reader may choose."""
    return sorted(name for name in available_timezones() if "/" in name or name == "UTC")


#: What every template and macro may use.
TEMPLATE_FUNCTIONS: Mapping[str, Any] = {
    "local_time": local_time,
    "field_time": field_time,
    "shown": shown,
    "zone": zone,
    "Scope": ApiScope,
}


def template_values() -> Mapping[str, Any]:
    """What every template knows of the request."""
    return {"person": g.get("person"), "locale": str(get_locale()), "zones": time_zones()}


def _spreadsheet_text(column: Column[Any], item: Any) -> str:
    value = column.value(item)
    if isinstance(value, datetime):
        return value.astimezone(zone()).isoformat(timespec="seconds")
    text = column.text(item)
    # A spreadsheet takes these for the beginning of a formula, and the gateway chooses some of the texts.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
