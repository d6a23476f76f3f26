"""From the outbox to the sinks: one courier per endpoint, so that none waits for another."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime

import structlog

from consumers.courier import Courier
from consumers.faults import describe_fault, frames_of
from consumers.sinks.sink import Sink
from service.ledger.outbox import Outbox
from service.settings import DispatcherSettings, EndpointSettings

_log = structlog.get_logger()

_RESTART_SECONDS = 5.0


class Dispatcher:
    """Delivers every endpoint's events. Any number of processes may do so at once.

    The outbox's engine needs a connection per endpoint, since all of them may claim or settle at the same moment.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        sinks: Mapping[str, Sink],
        endpoints: Sequence[EndpointSettings],
        settings: DispatcherSettings,
        clock: Callable[[], datetime],
    ) -> None:
        """`sinks` by the endpoint's name, one for each of `endpoints`; they are closed at the end of `run`."""
        self._sinks = [sinks[endpoint.name] for endpoint in endpoints]
        self._couriers = {
            endpoint.name: Courier(
                outbox=outbox, sink=sinks[endpoint.name], endpoint=endpoint, settings=settings, clock=clock
            )
            for endpoint in endpoints
        }

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set and what is being sent has ended, within the endpoints' time limits."""
        try:
            if self._couriers:
                self._run_couriers(stop)
            else:
                _log.warning("no_endpoints")
                stop.wait()
        finally:
            for sink in self._sinks:
                sink.close()

    def _run_couriers(self, stop: threading.Event) -> None:
        with ThreadPoolExecutor(len(self._couriers), thread_name_prefix="courier") as threads:
            running = {threads.submit(courier.run, stop): name for name, courier in self._couriers.items()}
            while running:
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(ended)
                    if _broke(ended, name) and not stop.is_set():
                        running[threads.submit(self._run_again, name, stop)] = name

    def _run_again(self, name: str, stop: threading.Event) -> None:
        if not stop.wait(_RESTART_SECONDS):
            self._couriers[name].run(stop)


def _broke(ended: Future[None], name: str) -> bool:
    """Whether a courier ended by a bug of ours. Only this endpoint may suffer from it, so the others run on."""
    error = ended.exception()
    if error is None:
        return False
    _log.error(
        "courier_broke",
        endpoint=name,
        reason=describe_fault(error),
        frames=frames_of(error),
        again_in_seconds=_RESTART_SECONDS,
    )
    return True
