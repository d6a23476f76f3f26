"""Samples: shown while they are known, and not after that."""

import threading
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry

from consumers.sampler import Sample, Sampler
from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import BrokerUnavailable
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

Answer = Mapping[str, float] | Exception


class Gauge:
    """Something that can be measured, or cannot, as a test says; and what was last shown of it."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.answer = answer
        self.shown: Mapping[str, float] | None = None
        self.taken = 0
        self.sample = Sample(name=name, measure=self._measure, show=self._show)

    def _measure(self) -> Mapping[str, float]:
        self.taken += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _show(self, measured: Mapping[str, float]) -> None:
        self.shown = measured


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def queues() -> Gauge:
    return Gauge("queues", {"ledger": 3.0})


@pytest.fixture
def conflicts() -> Gauge:
    return Gauge("conflicts", {"acme": 1.0})


@pytest.fixture
def watched(registry: CollectorRegistry, queues: Gauge, conflicts: Gauge) -> Iterator[None]:
    """While the test lasts, both are sampled as fast as possible."""
    with Sampler([queues.sample, conflicts.sample], registry=registry, every_seconds=0.001).running():
        yield


def failures(registry: CollectorRegistry, sample: str) -> float:
    found = registry.get_sample_value("payment_callbacks_samples_failed_total", {"sample": sample})
    assert found is not None
    return found


@pytest.mark.usefixtures("watched")
def test_what_changes_is_shown_anew(queues: Gauge) -> None:
    eventually(lambda: queues.shown == {"ledger": 3.0})
    queues.answer = {"ledger": 4.0}
    eventually(lambda: queues.shown == {"ledger": 4.0})


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    "error", [BrokerUnavailable("away"), LedgerUnavailable("away"), ZeroDivisionError("a bug")], ids=repr
)
def test_what_cannot_be_measured_is_not_shown_until_it_can(
    registry: CollectorRegistry, queues: Gauge, error: Exception
) -> None:
    eventually(lambda: queues.shown)
    queues.answer = error
    eventually(lambda: queues.shown == {})
    eventually(lambda: failures(registry, "queues") > 1)
    queues.answer = {"ledger": 5.0}
    eventually(lambda: queues.shown == {"ledger": 5.0})


@pytest.mark.usefixtures("watched")
def test_a_sample_that_fails_hides_no_other(registry: CollectorRegistry, queues: Gauge, conflicts: Gauge) -> None:
    queues.answer = BrokerUnavailable("away")
    eventually(lambda: failures(registry, "queues") > 1)
    conflicts.answer = {"acme": 2.0}
    eventually(lambda: conflicts.shown == {"acme": 2.0})
    assert failures(registry, "conflicts") == 0


def test_the_end_waits_for_no_sample(registry: CollectorRegistry) -> None:
    begun, released = threading.Event(), threading.Event()

    def hang() -> Mapping[str, float]:
        begun.set()
        released.wait(HANGS_AFTER_SECONDS)
        return {}

    sample = Sample(name="queues", measure=hang, show=lambda _: None)
    with Sampler([sample], registry=registry).running():
        assert begun.wait(HANGS_AFTER_SECONDS)
    assert not released.is_set()
    released.set()


def test_no_sample_is_taken_after_the_end(registry: CollectorRegistry, queues: Gauge) -> None:
    before = set(threading.enumerate())
    with Sampler([queues.sample], registry=registry, every_seconds=0.001).running():
        eventually(lambda: queues.taken > 1)
    eventually(lambda: set(threading.enumerate()) <= before)
