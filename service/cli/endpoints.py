"""`payment-callbacks endpoints`: list endpoints, test one, pause and resume deliveries to it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from consumers.endpoint_test import send_test_event
from service.bootstrap.dispatcher_role import make_sink
from service.cli.ledger_access import author_of, open_ledger
from service.cli.options import find_endpoint, log_to_stderr, settings_of
from service.cli.tables import add_row, make_console, make_table, time_text
from service.config.endpoints import AnyEndpoint
from service.ledger.endpoints import EndpointState, Pauses, read_endpoint_states
from service.runtime.clock import now

#: The kind of an endpoint that only the ledger knows.
_NOT_IN_SETTINGS = "not in the settings"


@click.group()
def endpoints() -> None:
    """List endpoints, test one, or pause and resume deliveries to it."""
    log_to_stderr()


@endpoints.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List endpoints: the events of each, its open deliveries, its last delivery, and whether it is paused.

    An endpoint that is no longer in the settings is listed too while deliveries to it are open: nothing delivers them.
    """
    settings = settings_of(context)
    with open_ledger(settings) as engine:
        states = read_endpoint_states(engine, [endpoint.name for endpoint in settings.endpoints])
    print_ = _print_json if as_json else _print_table
    print_(settings.endpoints, states, now=now())


@endpoints.command()
@click.argument("name")
@click.pass_context
def test(context: click.Context, name: str) -> None:
    """Send one signed test event to an endpoint now, and print its answer. The exit status is 1 if it is not accepted.

    The event has the type payment.test and concerns no payment. It is sent at once, also while the endpoint is paused,
    and uses neither the ledger nor a dispatcher.
    """
    settings = settings_of(context)
    sink = make_sink(settings, find_endpoint(settings, name))
    try:
        outcome = send_test_event(sink, endpoint=name, clock=now)
    finally:
        sink.close()
    said = f"{name}: {outcome.answer}, in {outcome.seconds:.3f} s ({outcome.event_id})"
    if not outcome.accepted:
        raise click.ClickException(said)
    click.echo(said)


@endpoints.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why. `endpoints list` shows it.")
@click.option("--by", help="Who pauses it. The default is the user who runs this.")
@click.pass_context
def pause(context: click.Context, name: str, reason: str, by: str | None) -> None:
    """Stop deliveries to an endpoint until it is resumed.

    Every dispatcher obeys within seconds, and after a restart too. Deliveries that are under way still end. All others
    wait in their order, and no attempt is counted.
    """
    author = author_of(by, reason)
    settings = settings_of(context)
    find_endpoint(settings, name)
    with open_ledger(settings) as engine:
        stored = Pauses(engine=engine, clock=now).pause(name, author=author)
    click.echo(f"{name} is paused since {time_text(stored.paused_at)} by {stored.paused_by}: {stored.reason}")


@endpoints.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why. The audit keeps it.")
@click.option("--by", help="Who resumes it. The default is the user who runs this.")
@click.pass_context
def resume(context: click.Context, name: str, reason: str, by: str | None) -> None:
    """Resume deliveries to an endpoint, the oldest first. Does nothing if it is not paused."""
    author = author_of(by, reason)
    settings = settings_of(context)
    with open_ledger(settings) as engine:
        ended = Pauses(engine=engine, clock=now).resume(name, author=author)
        (state, *_) = read_endpoint_states(engine, [name])
    if ended is None:
        find_endpoint(settings, name)
        click.echo(f"{name} was not paused")
        return
    click.echo(
        f"{name} is resumed; it was paused since {time_text(ended.paused_at)} by {ended.paused_by}: {ended.reason}. "
        f"Events that wait for it: {state.open}"
    )


def _print_table(endpoints: Sequence[AnyEndpoint], states: Sequence[EndpointState], *, now: datetime) -> None:
    """Print a line per endpoint, and one below for each that is paused. `now` is aware."""
    known = {endpoint.name: endpoint for endpoint in endpoints}
    table = make_table(
        "",
        "endpoint",
        "kind",
        "address",
        "event types",
        "open",
        "oldest",
        "failing since",
        "parked",
        "last delivered",
        "last error",
    )
    for state in states:
        endpoint = known.get(state.endpoint)
        add_row(
            table,
            f"{state.endpoint}{' (paused)' if state.pause else ''}",
            endpoint.kind if endpoint else _NOT_IN_SETTINGS,
            endpoint.address if endpoint else "",
            _filters(endpoint),
            str(state.open),
            "" if state.oldest_open_at is None else _age(state.oldest_open_at, now),
            time_text(state.failing_since),
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


def _print_json(endpoints: Sequence[AnyEndpoint], states: Sequence[EndpointState], *, now: datetime) -> None:
    """Print the same as JSON."""
    known = {endpoint.name: endpoint for endpoint in endpoints}
    rows = [_row(known.get(state.endpoint), state, now) for state in states]
    click.echo(json.dumps({"endpoints": rows}, ensure_ascii=False, indent=2))


def _row(endpoint: AnyEndpoint | None, state: EndpointState, now: datetime) -> Mapping[str, Any]:
    return {
        "endpoint": state.endpoint,
        "kind": endpoint.kind if endpoint else None,
        "address": endpoint.address if endpoint else None,
        "types": sorted(endpoint.types) if endpoint else None,
        "merchants": sorted(endpoint.merchants) if endpoint and endpoint.merchants is not None else None,
        "open": state.open,
        "oldest_open_seconds": None if state.oldest_open_at is None else _seconds(state.oldest_open_at, now),
        "parked": state.parked,
        "last_delivered_at": _iso(state.last_delivered_at),
        "last_error": state.last_error,
        "failing_since": _iso(state.failing_since),
        "paused": None
        if state.pause is None
        else {
            "since": _iso(state.pause.paused_at),
            "by": state.pause.paused_by,
            "reason": state.pause.reason,
        },
    }


def _filters(endpoint: AnyEndpoint | None) -> str:
    if endpoint is None:
        return ""
    types = ", ".join(sorted(type_.value.removeprefix("payment.") for type_ in endpoint.types))
    return types if endpoint.merchants is None else f"{types}; of {', '.join(sorted(endpoint.merchants))}"


def _age(since: datetime, now: datetime) -> str:
    """The time since then, in its two largest units: `3 d 4 h`."""
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
