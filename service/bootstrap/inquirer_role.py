"""The role `inquirer`."""

from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.inquirer import Inquirer
from consumers.sampler import Sample, Sampler
from service.bootstrap.ledger import make_inquiry_queue
from service.config.settings import Settings
from service.domain.claims import ClaimSource
from service.gateway.client import GatewayClients
from service.runtime.clock import now
from service.runtime.metrics.inquirer import InquirerBacklogMetrics, InquirerMetrics
from service.runtime.metrics.merchants import ClaimMetrics, show_gateways
from service.runtime.tracing import NO_TRACING, Tracing


def make_inquirer(
    settings: Settings,
    engine: Engine,
    registry: CollectorRegistry,
    gateways: GatewayClients,
    tracing: Tracing = NO_TRACING,
) -> Inquirer:
    """The role `inquirer`. It queries the usable gateways; inquiries of the other merchants stay open."""
    show_gateways(registry, usable=gateways.usable, unusable=gateways.unusable)
    return Inquirer(
        queue=make_inquiry_queue(settings, engine),
        merchants=settings.merchants,
        gateways=gateways.usable,
        settings=settings.inquirer,
        metrics=InquirerMetrics(registry=registry),
        claim_metrics=ClaimMetrics(
            registry=registry,
            merchants=settings.merchants,
            source=ClaimSource.QUERY,
            clock=now,
        ),
        tracing=tracing,
    )


def make_inquirer_sampler(settings: Settings, engine: Engine, registry: CollectorRegistry) -> Sampler:
    """The periodic measurements of the role `inquirer`. Uses one connection of `engine`."""
    metrics, queue = InquirerBacklogMetrics(registry=registry), make_inquiry_queue(settings, engine)
    # Including merchants whose gateway cannot be used: their inquiries are due too.
    asked = [slug for slug, merchant in settings.merchants.items() if merchant.gateway]
    samples: list[Sample[Any]] = [
        Sample(name="due-inquiries", measure=lambda: queue.oldest_due_ages(asked), show=metrics.oldest_due.show),
        Sample(name="refusal-rules", measure=queue.count_suspensions, show=metrics.suspensions.show),
    ]
    return Sampler(samples, registry=registry)


def inquirer_pool_size(settings: Settings) -> int:
    """The most database connections that the inquirer, its sampler and its totals use at once."""
    return sum(merchant.gateway is not None for merchant in settings.merchants.values()) + 2
