"""Endpoints and how they stand, for people and for programs."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import click

from service.cli.tables import add_row, make_console, make_table, time_text
from service.config.settings import EndpointSettings
from service.ledger.endpoints import EndpointState

#: In the place of the kind of an endpoint that only the ledger knows.
NOT_IN_SETTINGS = "not in the settings"


def show_endpoints(endpoints: Sequence[EndpointSettings], states: Sequence[EndpointState], *, now: datetime) -> None:
    """Print a line per endpoint, and one below for each that is paused. `now` is aware."""
    known = {endpoint.name: endpoint for endpoint in endpoints}
    table = make_table(
        "", "endpoint", "kind", "goes to", "hears of", "open", "oldest", "parked", "last delivered", "last error"
    )
    for state in states:
        endpoint = known.get(state.endpoint)
        add_row(
            table,
            f"{state.endpoint}{' (paused)' if state.pause else ''}",
            endpoint.kind if endpoint else NOT_IN_SETTINGS,
            _address(endpoint),
            _filters(endpoint),
            str(state.open),
            "" if state.oldest_open_at is None else _age(state.oldest_open_at, now),
            str(state.parked),
            time_text(state.last_delivered_at) or "never",
            state.last_error,
        )
    console = make_console()
    console.print(table)
    if pauses := [state.pause for state in states if state.pause]:
        paused = make_table("Paused", "endpoint", "since", "for", "by", "reason")
        for pause in pauses:
            since = (time_text(pause.paused_at), _age(pause.paused_at, now))
            add_row(paused, pause.endpoint, *since, pause.paused_by, pause.reason)
        console.print(paused)


def print_endpoints_json(
    endpoints: Sequence[EndpointSettings], states: Sequence[EndpointState], *, now: datetime
) -> None:
    """Print the same as JSON."""
    known = {endpoint.name: endpoint for endpoint in endpoints}
    rows = [_row(known.get(state.endpoint), state, now) for state in states]
    click.echo(json.dumps({"endpoints": rows}, ensure_ascii=False, indent=2))


def _row(endpoint: EndpointSettings | None, state: EndpointState, now: datetime) -> Mapping[str, Any]:
    return {
        "endpoint": state.endpoint,
        "kind": endpoint.kind if endpoint else None,
        "url": _address(endpoint) or None,
        "types": sorted(endpoint.types) if endpoint else None,
        "merchants": sorted(endpoint.merchants) if endpoint and endpoint.merchants is not None else None,
        "open": state.open,
        "oldest_open_seconds": None if state.oldest_open_at is None else _seconds(state.oldest_open_at, now),
        "parked": state.parked,
        "last_delivered_at": _iso(state.last_delivered_at),
        "last_error": state.last_error,
        "paused": None
        if state.pause is None
        else {
            "since": _iso(state.pause.paused_at),
            "by": state.pause.paused_by,
            "reason": state.pause.reason,
        },
    }


def _address(endpoint: EndpointSettings | None) -> str:
    """Where it is, without a query: some systems want their key there."""
    if endpoint is None or not endpoint.url:
        return ""
    url = urlsplit(endpoint.url)
    return f"{url.scheme}://{url.netloc}{url.path}{'?…' if url.query else ''}"


def _filters(endpoint: EndpointSettings | None) -> str:
    if endpoint is None:
        return ""
    types = ", ".join(sorted(type_.value.removeprefix("payment.") for type_ in endpoint.types))
    return types if endpoint.merchants is None else f"{types}; of {', '.join(sorted(endpoint.merchants))}"


def _age(since: datetime, now: datetime) -> str:
    """Whole units, the two largest: `3 d 4 h`."""
    left = round(_seconds(since, now))
    parts: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _seconds(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
