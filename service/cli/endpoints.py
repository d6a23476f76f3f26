"""`payment-callbacks endpoints`: how they stand, whether one takes events, and a pause for one that must not."""

import getpass
import os
import sys

import click

from consumers.endpoint_test import send_test_event
from service.bootstrap.dispatcher_role import make_sink
from service.cli.endpoint_tables import print_endpoints_json, show_endpoints
from service.cli.ledger_access import open_ledger
from service.cli.options import settings_of
from service.cli.tables import time_text
from service.config.settings import EndpointSettings, Settings
from service.ledger.endpoints import Pauses, read_endpoint_states
from service.runtime.clock import now
from service.runtime.logs import configure_logs


@click.group()
def endpoints() -> None:
    """See how the endpoints stand, test one, or pause and resume what is sent to it."""
    configure_logs(stream=sys.stderr, human=sys.stderr.isatty())


@endpoints.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """List endpoints: what each hears of, what waits for it, what it took last, and whether it is paused.

    Those that something waits for and that are in the settings no more are listed too: nobody delivers to them.
    """
    settings = settings_of(context)
    with open_ledger(settings) as engine:
        states = read_endpoint_states(engine, [endpoint.name for endpoint in settings.endpoints])
    show = print_endpoints_json if as_json else show_endpoints
    show(settings.endpoints, states, now=now())


@endpoints.command()
@click.argument("name")
@click.pass_context
def test(context: click.Context, name: str) -> None:
    """Send a signed test to an endpoint now, once, and say what comes back. Ends with 1 where it is not taken.

    Its type is payment.test, and it tells of no payment. It goes past every queue of events, also while the endpoint is
    paused, and uses neither the ledger nor a dispatcher.
    """
    settings = settings_of(context)
    sink = make_sink(settings, _endpoint(settings, name))
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
@click.option("--reason", required=True, help="Why. Shown to whoever lists endpoints.")
@click.option("--by", help="Who wants it; without it, whoever runs this.")
@click.pass_context
def pause(context: click.Context, name: str, reason: str, by: str | None) -> None:
    """Send an endpoint nothing until it is resumed.

    Every dispatcher heeds it within seconds, and after a restart, too. What is under way ends as it may; everything
    else waits in its order, and no try is counted.
    """
    if not reason.strip():
        raise click.UsageError("--reason must say something")
    settings = settings_of(context)
    _endpoint(settings, name)
    paused_by = (by or "").strip() or _whoever_runs_this()
    with open_ledger(settings) as engine:
        pauses = Pauses(engine=engine, clock=now)
        stands = pauses.pause(name, by=paused_by, reason=reason.strip())
    click.echo(f"{name} is paused since {time_text(stands.paused_at)} by {stands.paused_by}: {stands.reason}")


@endpoints.command()
@click.argument("name")
@click.pass_context
def resume(context: click.Context, name: str) -> None:
    """Send an endpoint its events again, those that have waited first. Harmless where it is not paused."""
    settings = settings_of(context)
    with open_ledger(settings) as engine:
        ended = Pauses(engine=engine, clock=now).resume(name)
        (state, *_) = read_endpoint_states(engine, [name])
    if ended is None:
        _endpoint(settings, name)
        click.echo(f"{name} was not paused")
        return
    click.echo(
        f"{name} is resumed; it was paused since {time_text(ended.paused_at)} by {ended.paused_by}: {ended.reason}. "
        f"Events that wait for it: {state.open}"
    )


def _endpoint(settings: Settings, name: str) -> EndpointSettings:
    for endpoint in settings.endpoints:
        if endpoint.name == name:
            return endpoint
    known = ", ".join(endpoint.name for endpoint in settings.endpoints) or "none"
    raise click.UsageError(f"no endpoint is called {name}; the settings know {known}")


def _whoever_runs_this() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need have no name; which of the two depends on Python's release
        return f"uid {os.getuid()}"
