"""The dispatcher: delivers the outbox's events with one worker per endpoint, so that none waits for another."""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import structlog

from consumers.endpoint_worker import EndpointWorker
from consumers.sinks.sink import Sink
from consumers.thread_supervisor import ThreadSupervisor
from service.config.settings import DispatcherSettings, EndpointSettings
from service.ledger.outbox import Outbox
from service.runtime.metrics.dispatcher import DispatcherMetrics

_log = structlog.get_logger()

_RESTART_SECONDS = 5.0


class Dispatcher:
    """Delivers every endpoint's events. Any number of processes may do so at once.

    The outbox's engine needs a connection per endpoint, since all of them may lease or settle at the same moment.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        sinks: Mapping[str, Sink],
        endpoints: Sequence[EndpointSettings],
        settings: DispatcherSettings,
        metrics: DispatcherMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        """`sinks` by the endpoint's name, one for each of `endpoints`; they are closed at the end of `run`."""
        self._sinks = [sinks[endpoint.name] for endpoint in endpoints]
        self._loops = {
            endpoint.name: EndpointWorker(
                outbox=outbox,
                sink=sinks[endpoint.name],
                endpoint=endpoint,
                settings=settings,
                metrics=metrics,
                clock=clock,
            ).run
            for endpoint in endpoints
        }

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set and what is being sent has ended, within the endpoints' time limits."""
        try:
            if self._loops:
                ThreadSupervisor(self._loops, restart_seconds=_RESTART_SECONDS).run(stop)
            else:
                _log.warning("no_endpoints")
                stop.wait()
        finally:
            for sink in self._sinks:
                sink.close()
