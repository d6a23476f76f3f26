"""The role `dispatcher`."""

from contextlib import AbstractContextManager
from functools import partial

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.dispatcher import Dispatcher
from consumers.endpoint_test import sending_tests
from consumers.sampler import Sample, Sampler
from consumers.sinks.amqp import AmqpSink
from consumers.sinks.sink import Sink
from consumers.sinks.webhook import WebhookSink
from service.bootstrap.messaging import make_rabbit_publisher
from service.config.endpoints import AmqpSettings, AnyEndpoint, WebhookSettings
from service.config.settings import Settings
from service.ledger.endpoint_tests import EndpointTests
from service.ledger.endpoints import Pauses
from service.ledger.outbox import Outbox
from service.runtime.clock import now
from service.runtime.metrics.dispatcher import DispatcherBacklogMetrics, DispatcherMetrics
from service.runtime.tracing import NO_TRACING, Tracing


def make_dispatcher(
    settings: Settings, engine: Engine, registry: CollectorRegistry, tracing: Tracing = NO_TRACING
) -> Dispatcher:
    """The role `dispatcher`."""
    return Dispatcher(
        outbox=Outbox(engine=engine),
        sinks={endpoint.name: make_sink(settings, endpoint, tracing) for endpoint in settings.endpoints},
        endpoints=settings.endpoints,
        settings=settings.dispatcher,
        metrics=DispatcherMetrics(registry=registry, endpoints=[endpoint.name for endpoint in settings.endpoints]),
        clock=now,
    )


def make_sink(settings: Settings, endpoint: AnyEndpoint, tracing: Tracing = NO_TRACING) -> Sink:
    """The sink that delivers events to one endpoint."""
    match endpoint:
        case WebhookSettings():
            return WebhookSink(endpoint=endpoint, clock=now, tracing=tracing)
        case AmqpSettings():
            publisher = make_rabbit_publisher(settings, f"dispatcher-{endpoint.name}")
            return AmqpSink(publisher=publisher, timeout_seconds=endpoint.timeout_seconds, tracing=tracing)


def make_dispatcher_sampler(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Sampler:
    """The periodic measurements of the role `dispatcher`. Uses one connection of `engine`."""
    metrics, outbox = DispatcherBacklogMetrics(registry=registry), Outbox(engine=engine)
    pauses = Pauses(engine=engine, clock=now)
    names = [endpoint.name for endpoint in settings.endpoints]
    samples = [
        Sample(name="undelivered", measure=lambda: outbox.oldest_open_ages(names), show=metrics.oldest.show),
        Sample(name="paused-endpoints", measure=lambda: pauses.ages(names), show=metrics.paused.show),
    ]
    return Sampler(samples, registry=registry)


def sending_endpoint_tests(settings: Settings, engine: Engine) -> AbstractContextManager[None]:
    """What sends the tests that operators request. Uses one connection of `engine`."""
    sinks = {endpoint.name: partial(make_sink, settings, endpoint) for endpoint in settings.endpoints}
    return sending_tests(EndpointTests(engine=engine), sinks=sinks, clock=now)


def dispatcher_pool_size(settings: Settings) -> int:
    """The most database connections that the dispatcher, its sampler, its totals and operators' requests use."""
    return len(settings.endpoints) + 4
