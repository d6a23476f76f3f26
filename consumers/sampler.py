"""The sampler: measures at intervals what no event shows, beside a role's work and independently of it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry

from consumers.faults import describe_fault, frames_of
from consumers.threads import repeated
from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import MessagingError
from service.runtime.logs import Logger
from service.runtime.metrics.samples import SampleMetrics

#: A label, or several.
Labels = TypeVar("Labels", str, tuple[str, ...])

_log = Logger(__name__)

#: Half of the usual time between two scrapes of Prometheus.
EVERY_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Generic[Labels]):
    """One thing to measure."""

    name: str
    #: The present values by label. Raises LedgerUnavailable or MessagingError where they cannot be known.
    measure: Callable[[], Mapping[Labels, float]]
    #: Replaces what was shown before; an empty mapping shows nothing.
    show: Callable[[Mapping[Labels, float]], None]


class Sampler:
    """Takes its samples one after the other, again and again, on a thread of its own.

    What cannot be measured is not shown at all: an old value would pass for a new one. A failed sample is counted and
    taken again in the next round, whatever the error: if a bug ended the sampler, its last values would stay up.
    """

    def __init__(
        self, samples: Sequence[Sample[Any]], *, registry: CollectorRegistry, every_seconds: float = EVERY_SECONDS
    ) -> None:
        """`registry` gets the count of failures."""
        self._samples = samples
        self._metrics = SampleMetrics(registry=registry, samples=[sample.name for sample in samples])
        self._every_seconds = every_seconds

    def running(self) -> AbstractContextManager[None]:
        """Take samples while the `with` lasts. A sample that is under way at its end is not waited for."""
        return repeated(self._take_all, name="sampler", every_seconds=self._every_seconds, failure="sampler_failed")

    def _take_all(self, _over: threading.Event) -> None:
        for sample in self._samples:
            self._take(sample)

    def _take(self, sample: Sample[Any]) -> None:
        try:
            sample.show(sample.measure())
        except (LedgerUnavailable, MessagingError) as error:
            self._show_nothing(sample)
            _log.warning("sample_failed", sample=sample.name, error=type(error).__name__, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a bug in one sample must not hide the others
            self._show_nothing(sample)
            _log.error("sample_failed", sample=sample.name, reason=describe_fault(error), frames=frames_of(error))

    def _show_nothing(self, sample: Sample[Any]) -> None:
        sample.show({})
        self._metrics.count_failure(sample.name)
