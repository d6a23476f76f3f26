"""A watch: measures at intervals what no event tells, beside a role's work and whether or not that goes on."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from consumers.faults import describe_fault, frames_of
from consumers.periodic import repeated
from service.ledger.errors import LedgerUnavailable
from service.messaging.errors import MessagingError
from service.runtime.metrics.samples import SampleMetrics

#: A label, or several.
Labels = TypeVar("Labels", str, tuple[str, str])

_log = structlog.get_logger()

#: Half of what Prometheus usually lets pass between two scrapes.
EVERY_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Generic[Labels]):
    """One thing to measure."""

    name: str
    #: What is there now, by label. Raises LedgerUnavailable or MessagingError where it cannot be known.
    measure: Callable[[], Mapping[Labels, float]]
    #: Takes the place of what was shown before; an empty mapping shows nothing.
    show: Callable[[Mapping[Labels, float]], None]


class Sampler:
    """Takes its looks one after the other, again and again, on a thread of its own.

    What cannot be measured is not shown at all: an old number would pass for a new one. A failed look is counted, and
    tried again at the next round, whatever it failed of: a watch that ended at a bug would leave its last numbers up.
    """

    def __init__(
        self, looks: Sequence[Sample[Any]], *, metrics: SampleMetrics, every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._looks = looks
        self._metrics = metrics
        self._every_seconds = every_seconds

    def running(self) -> AbstractContextManager[None]:
        """Sampler while the `with` lasts. A look that is under way at its end is not waited for."""
        return repeated(self._take_all, name="watch", every_seconds=self._every_seconds)

    def _take_all(self, _over: threading.Event) -> None:
        for look in self._looks:
            self._take(look)

    def _take(self, look: Sample[Any]) -> None:
        try:
            look.show(look.measure())
        except (LedgerUnavailable, MessagingError) as error:
            self._show_nothing(look)
            _log.warning("look_failed", look=look.name, error=type(error).__name__, reason=str(error))
        except Exception as error:  # noqa: BLE001 - a mistake in one look must not blind all
            self._show_nothing(look)
            _log.error("look_fails", look=look.name, reason=describe_fault(error), frames=frames_of(error))

    def _show_nothing(self, look: Sample[Any]) -> None:
        look.show({})
        self._metrics.count_failure(look.name)
