"""`payment-callbacks run`: one role, or all of them on one machine.

Each role imports what it runs, and nothing that it never calls.
"""

import atexit
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from consumers.signals import end_on_signals, stop_on_signals
from service.cli.options import settings_of, settings_path_of
from service.config.settings import Settings
from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import BrokerUnavailable, MessagingError
from service.runtime.log_stream import LineCounts, LogStream
from service.runtime.logs import Logger, OrderNumberMask, configure_logs, log_uncaught_errors
from service.runtime.metrics.logs import LogMetrics
from service.runtime.tracing import EMBEDDED, NO_TRACING, RABBITMQ, Tracing, TracingUnusable, tracing_factory

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from sqlalchemy import Engine

    from service.gateway.client import GatewayClients

_ROLES = ("receiver", "ledger", "inquirer", "dispatcher")
_RETRY_SECONDS = 2.0
_TOPOLOGY_SECONDS = 3.0
#: `run all`: how long the roles have after SIGTERM, beyond the drain. It covers the time in which a role notices that
#: the database is frozen.
_GRACE_SECONDS = 20.0
#: How long a process waits for its log to be written when it ends.
_DRAIN_SECONDS = 1.0
_LOG_METRICS = f"{__name__}.log_metrics"
_ORDER_NUMBERS = f"{__name__}.order_numbers"

log = Logger(__name__)


@click.group()
@click.pass_context
def run(context: click.Context) -> None:
    """Run a role until SIGTERM. Any number of processes of each role may run at once."""
    context.meta[_ORDER_NUMBERS] = OrderNumberMask()
    context.meta[_LOG_METRICS] = _take_over_output(context.meta[_ORDER_NUMBERS])


@run.command()
@click.pass_context
def receiver(context: click.Context) -> None:
    """Receive callbacks: the endpoint behind notify_url, under gunicorn."""
    end_on_signals()
    # Its settings may lack what only other roles need, so warnings are left to them.
    settings = settings_of(context, with_database=False)
    context.meta[_ORDER_NUMBERS].show(settings.order_number_patterns)
    make_tracing = _tracing_factory(context, settings)
    # The receiver does not depend on the broker: without it, it answers `fail` or uses the spool.
    declaring = threading.Thread(target=_declare_topology_once, args=(settings,), daemon=True)
    declaring.start()
    # Meanwhile: importing takes as long as the broker does.
    from service.bootstrap.messaging import make_callback_publisher, require_queue_files
    from service.receiver.server import ReceiverServer
    from service.runtime.clock import now

    require_queue_files(settings)
    declaring.join()  # gunicorn forks, and a fork must not take place while another thread works
    ReceiverServer(
        merchants=settings.merchants,
        make_publisher=partial(make_callback_publisher, settings),
        clock=now,
        settings=settings.receiver,
        log_metrics=context.meta[_LOG_METRICS],
        make_tracing=make_tracing,
    ).run()


@run.command()
@click.pass_context
def ledger(context: click.Context) -> None:
    """Apply queued callbacks to the ledger."""
    from prometheus_client import CollectorRegistry

    from consumers.totals import adding_totals
    from service.bootstrap.ledger_role import (
        LEDGER_POOL_SIZE,
        make_dead_letter_keeper,
        make_ledger_consumer,
        make_ledger_sampler,
        pruning_forged_orders,
        reporting_queue_depth,
    )
    from service.bootstrap.messaging import declare_topology
    from service.cli.ledger_access import engine_of
    from service.ledger.totals import TotalsStore

    settings = _settings(context)
    tracing = _start_tracing(context, settings)
    stop = _stop_event()
    engine = engine_of(settings, pool_size=LEDGER_POOL_SIZE)
    try:
        ready = _await_schema(settings, engine, stop) and _wait_until_ready(lambda: declare_topology(settings), stop)
    except MessagingError as error:
        raise click.ClickException(str(error)) from error
    if ready:
        registry = CollectorRegistry()
        _expose_metrics(context, registry, settings.ledger.metrics_bind)
        with (
            make_ledger_sampler(settings, engine, registry).running(),
            pruning_forged_orders(settings, engine),
            make_dead_letter_keeper(settings, engine).running(),
            reporting_queue_depth(settings, engine),
            adding_totals(TotalsStore(engine=engine), registry=registry),
        ):
            # What exists by now stays. Without this, full collections would go through it again: a tenth of the work.
            gc.freeze()
            make_ledger_consumer(settings, engine, registry, tracing).run(stop)


@run.command()
@click.pass_context
def inquirer(context: click.Context) -> None:
    """Query the gateways about orders that are unconfirmed, overdue or in doubt."""
    from prometheus_client import CollectorRegistry

    from consumers.totals import adding_totals
    from service.bootstrap.inquirer_role import inquirer_pool_size, make_inquirer, make_inquirer_sampler
    from service.cli.ledger_access import engine_of
    from service.ledger.totals import TotalsStore

    settings = _settings(context)
    tracing = _start_tracing(context, settings)
    stop = _stop_event()
    gateways = _make_gateways(
        settings, tracing, wanted=[slug for slug, merchant in settings.merchants.items() if merchant.gateway]
    )
    engine = engine_of(settings, pool_size=inquirer_pool_size(settings))
    if _await_schema(settings, engine, stop):
        registry = CollectorRegistry()
        asking = make_inquirer(settings, engine, registry, gateways, tracing)
        _expose_metrics(context, registry, settings.inquirer.metrics_bind)
        with (
            make_inquirer_sampler(settings, engine, registry).running(),
            adding_totals(TotalsStore(engine=engine), registry=registry),
        ):
            asking.run(stop)


@run.command()
@click.pass_context
def dispatcher(context: click.Context) -> None:
    """Deliver events to the endpoints."""
    from prometheus_client import CollectorRegistry

    from consumers.maintenance import replaying
    from consumers.totals import adding_totals
    from service.bootstrap.dispatcher_role import (
        dispatcher_pool_size,
        make_dispatcher,
        make_dispatcher_sampler,
        sending_endpoint_tests,
    )
    from service.cli.ledger_access import engine_of
    from service.ledger.replays import Replays
    from service.ledger.totals import TotalsStore

    settings = _settings(context)
    tracing = _start_tracing(context, settings)
    stop = _stop_event()
    engine = engine_of(settings, pool_size=dispatcher_pool_size(settings))
    if _await_schema(settings, engine, stop):
        if any(endpoint.needs_broker for endpoint in settings.endpoints):
            # Only once: a missing broker must not delay webhooks.
            _declare_topology_once(settings)
        registry = CollectorRegistry()
        _expose_metrics(context, registry, settings.dispatcher.metrics_bind)
        with (
            make_dispatcher_sampler(settings, engine, registry).running(),
            replaying(Replays(engine=engine)),
            sending_endpoint_tests(settings, engine),
            adding_totals(TotalsStore(engine=engine), registry=registry),
        ):
            gc.freeze()  # as in the ledger's role
            make_dispatcher(settings, engine, registry, tracing).run(stop)


@run.command()
@click.pass_context
def api(context: click.Context) -> None:
    """Serve the internal API, under gunicorn: announce, send, show and resolve orders."""
    from service.api.server import ApiWorker
    from service.bootstrap.api_role import make_api
    from service.cli.ledger_access import engine_of
    from service.serving.threads import serve_on_threads

    settings = _settings(context)
    if not settings.api.tokens:
        raise click.ClickException("the API has no callers: set [[api.tokens]], each with a name, a token and scopes")
    make_tracing = _tracing_factory(context, settings)
    # Logged here once, and not by each worker.
    _make_gateways(settings, NO_TRACING, wanted=settings.merchants)
    end_on_signals()
    engine = engine_of(settings)
    _await_schema(settings, engine, threading.Event())
    # Close all connections before gunicorn forks: processes must not share one.
    engine.dispose()
    serve_on_threads(
        # One more than there are threads, for the readiness check.
        make_app=lambda drain: make_api(
            settings,
            engine_of(settings, pool_size=settings.api.threads + 1),
            drain,
            context.meta[_LOG_METRICS],
            make_tracing(),
        ),
        settings=settings.api,
        worker=ApiWorker,
        name="payment-callbacks-api",
    )


@run.command()
@click.pass_context
def console(context: click.Context) -> None:
    """Serve the operators' console for browsers, under gunicorn."""
    from service.bootstrap.console_role import make_console
    from service.cli.ledger_access import engine_of
    from service.console.server import ConsoleWorker
    from service.serving.threads import serve_on_threads

    settings = _settings(context)
    if not settings.console.session_keys:
        raise click.ClickException(
            "the console cannot keep sessions: set console.session_keys; make a key with `payment-callbacks keys new`"
        )
    _require_openid(settings)
    end_on_signals()
    engine = engine_of(settings)
    _await_schema(settings, engine, threading.Event())
    engine.dispose()  # before gunicorn forks, as in the API's role
    serve_on_threads(
        make_app=lambda drain: make_console(
            settings, engine_of(settings, pool_size=settings.console.threads + 1), drain, context.meta[_LOG_METRICS]
        ),
        settings=settings.console,
        worker=ConsoleWorker,
        name="payment-callbacks-console",
    )


@run.command(name="all")
@click.pass_context
def run_all(context: click.Context) -> None:
    """Run every role on this machine as a child process, and restart those that die."""
    from service.bootstrap.messaging import require_queue_files
    from service.cli.ledger_access import migration_engine_of
    from service.ledger.schema import migrate
    from service.runtime.supervisor import supervise

    settings = _settings(context)
    _tracing_factory(context, settings)  # a mistake ends this command; its children would be started for ever
    if settings.console.session_keys:
        _require_openid(settings)
    stop = _stop_event()
    require_queue_files(settings)
    engine = migration_engine_of(settings)
    if not _wait_until_ready(lambda: migrate(engine), stop):
        return
    engine.dispose()
    path = str(settings_path_of(context))
    drains = {"receiver": settings.receiver.drain_seconds}
    if settings.api.tokens:
        drains["api"] = settings.api.drain_seconds
    if settings.console.session_keys:
        drains["console"] = settings.console.drain_seconds
    names = [*_ROLES, *(role for role in drains if role not in _ROLES)]
    supervise(
        {name: ("--config", path, "run", name) for name in names},
        stop,
        grace_seconds=max(drains.values()) + _GRACE_SECONDS,
    )


def _take_over_output(order_numbers: OrderNumberMask) -> LogMetrics:
    """Write to standard output and error through buffers from now on, so that no role waits for them or fails."""
    counts = LineCounts()

    def log_gap(lines: int) -> None:
        log.warning("log_lines_lost", lines=lines)

    streams = [LogStream(descriptor, counts=counts, on_gap=log_gap) for descriptor in (1, 2)]
    sys.stdout, sys.stderr = streams
    configure_logs(stream=sys.stdout, human=sys.stdout.isatty(), counts=counts, order_numbers=order_numbers)
    log_uncaught_errors()
    atexit.register(_drain, streams)
    return LogMetrics(lost=counts.lost, escaped=counts.escaped)


def _drain(streams: Sequence[LogStream]) -> None:
    deadline = time.monotonic() + _DRAIN_SECONDS
    for stream in streams:
        stream.drain(timeout_seconds=max(0.0, deadline - time.monotonic()))


def _settings(context: click.Context) -> Settings:
    settings = settings_of(context)
    context.meta[_ORDER_NUMBERS].show(settings.order_number_patterns)
    for warning in settings.warnings():
        log.warning("settings_warning", warning=warning)
    return settings


def _tracing_factory(context: click.Context, settings: Settings) -> Callable[[], Tracing]:
    """What makes the tracing of a process of this role. A mistake in the OTEL_* variables ends the command."""
    queue_system = RABBITMQ if settings.broker.urls else EMBEDDED
    try:
        return tracing_factory(os.environ, role=context.command.name or "", queue_system=queue_system)
    except TracingUnusable as error:
        raise click.ClickException(str(error)) from error


def _require_openid(settings: Settings) -> None:
    from service.bootstrap.console_role import OpenIdUnusable, require_openid

    try:
        require_openid(settings)
    except OpenIdUnusable as error:
        raise click.ClickException(str(error)) from error


def _start_tracing(context: click.Context, settings: Settings) -> Tracing:
    """The tracing of this process. The last spans are sent when the command ends."""
    tracing = _tracing_factory(context, settings)()
    context.call_on_close(tracing.close)
    return tracing


def _make_gateways(settings: Settings, tracing: Tracing, *, wanted: Collection[str]) -> "GatewayClients":
    """Make the clients of the merchants' gateways, and log an error for each gateway whose settings cannot be used.

    One merchant's mistake keeps only its own payments waiting. If no client of the `wanted` merchants can be made, the
    command ends with a line for each.
    """
    from service.bootstrap.gateways import describe_unusable, make_gateway_clients

    gateways = make_gateway_clients(settings, tracing)
    if gateways.unusable and gateways.unusable.keys() >= set(wanted):
        raise click.ClickException("\n".join(describe_unusable(gateways)))
    for merchant, error in gateways.unusable.items():
        log.error("gateway_unusable", merchant=merchant, reason=str(error))
    return gateways


def _expose_metrics(context: click.Context, registry: "CollectorRegistry", bind: str) -> None:
    """Serve the role's metrics at `bind`, unless it is "".

    Call it when the role's work can begin, not earlier: rollouts and the alert for an absent role take an open port for
    a role that works.
    """
    from service.runtime.metrics.exposition import expose, name_role

    role = context.command.name or ""
    name_role(registry, role)
    registry.register(context.meta[_LOG_METRICS])
    if bind:
        try:
            expose(registry, bind=bind)
        except OSError as error:
            raise click.ClickException(f"{role}.metrics_bind {bind}: {error}") from error


def _stop_event() -> threading.Event:
    stop = threading.Event()
    stop_on_signals(stop)
    return stop


class _NotReady(Exception):
    """Something that the role needs exists, but is not ready."""


def _await_schema(settings: Settings, engine: "Engine", stop: threading.Event) -> bool:
    """Wait until the ledger has this release's schema. Returns False if a signal comes first.

    An embedded ledger is migrated here. `payment-callbacks migrate` migrates other databases, once per release.
    """
    from service.ledger.schema import migrate

    prepare = _require_schema if settings.database_url else migrate
    return _wait_until_ready(lambda: prepare(engine), stop)


def _declare_topology_once(settings: Settings) -> None:
    """Try it once, for roles that can work without a broker. The ledger's role retries."""
    from service.bootstrap.messaging import declare_topology

    try:
        declare_topology(settings, timeout_seconds=_TOPOLOGY_SECONDS)
    except MessagingError as error:
        log.warning("topology_declaration_failed", reason=str(error))


def _require_schema(engine: "Engine") -> None:
    from service.ledger.schema import schema_is_current

    if not schema_is_current(engine):
        raise _NotReady("the database does not have this release's schema: run `payment-callbacks migrate`")


def _wait_until_ready(action: Callable[[], None], stop: threading.Event) -> bool:
    """Retry the action until the database or the broker is available. Returns False if a signal comes first."""
    while not stop.is_set():
        try:
            action()
        except (LedgerUnavailable, BrokerUnavailable, _NotReady) as error:
            log.warning("waiting_to_start", reason=str(error), retry_in_seconds=_RETRY_SECONDS)
            stop.wait(_RETRY_SECONDS)
        else:
            return True
    return False
