"""The dispatcher: delivers the outbox's events with one worker per endpoint, so that none waits for another.

A worker leases due deliveries, sends their events, and settles the results.

- Leases and settlements are short transactions about many events. Events are sent outside of any, in a fixed number of
  threads of the endpoint's own. These send what is leased ahead while the worker settles what they have sent, so no
  thread waits for the database between two events. What is not sent after all (at shutdown, because the endpoint asks
  for a pause, or because the lease might end before the time limit of sending) is released, and no try is counted.
- After a crash, or when the database becomes unavailable between the two, the lease runs out, and the event is sent
  again under the same id. A settlement that comes too late has an old fencing token and changes nothing.
- Only the lowest open event of an order can be leased, so the next one waits until it is delivered or parked.
- Retry-After is granted up to `max_retry_seconds`, and to the whole endpoint: it is about the server, not the event.
- An endpoint at which everything fails is tried with `concurrency` events at a time and pauses of `poll_seconds`, until
  it accepts one. Otherwise it would cost the other endpoints as much as if it accepted all events.
- An endpoint that an operator has paused gets nothing new: none of its events can be leased, and those that were leased
  before the pause are released within a second.
- 410 Gone stops the worker for `max_retry_seconds`; then it tries once more. The event stays due and keeps its place.
  Parking it would reorder its order's events. Switching the endpoint off for good would let one wrong answer of a proxy
  silence a system that waits for money; an operator can remove the endpoint.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import fmean

from consumers.faults import describe_fault, frames_of
from consumers.outages import Retrier
from consumers.sinks.sink import DeliveryFailed, EndpointGone, Sink
from consumers.threads import GRACE_SECONDS, Leased, WorkerPool, lease_jobs, run_leased, supervise
from service.config.endpoints import EndpointSettings
from service.config.settings import DispatcherSettings
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.runtime.backoff import exponential
from service.runtime.logs import Logger
from service.runtime.metrics.dispatcher import DispatcherMetrics
from service.runtime.traceparent import trace_id_of

_log = Logger(__name__)

# As much is leased ahead as is sent in this time, within these bounds per thread. A lease of few events costs as much
# as one of many, and a process that is killed keeps others from what it has leased.
_AHEAD_SECONDS = 0.5
_FEW_ROUNDS = 4
_MAX_ROUNDS = 64
# Results of this time, or this many of them, are settled together.
_SETTLE_SECONDS = 0.02
_MAX_SETTLED = 128
# The first wait when nothing more is due; it doubles up to `poll_seconds`.
_FIRST_POLL_SECONDS = 0.01
# After so many failed tries in a row, everything is taken to fail.
_MANY_FAILURES = 20
# How often the outbox is asked whether an operator has paused the endpoint, while something is leased ahead.
_PAUSE_CHECK_SECONDS = 1.0


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
                supervise(self._loops, stop)
            else:
                _log.warning("no_endpoints")
                stop.wait()
        finally:
            for sink in self._sinks:
                sink.close()


@dataclass(frozen=True, slots=True)
class _Try:
    """The result of a delivery: it was sent, it failed, or it was not tried."""

    delivery: DueDelivery
    #: How long it took; None where it was not tried.
    seconds: float | None = None
    error: Exception | None = None
    #: Seconds until the next try, where it failed.
    wait_seconds: float = 0.0


_Pool = WorkerPool[Leased[DueDelivery], _Try]


class EndpointWorker:
    """Delivers one endpoint's events, up to `endpoint.concurrency` at once."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        sink: Sink,
        endpoint: EndpointSettings,
        settings: DispatcherSettings,
        metrics: DispatcherMetrics,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is for measuring how late an event is; all waiting goes by `monotonic`."""
        self._outbox = outbox
        self._sink = sink
        self._endpoint = endpoint
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        # Even where every event takes its whole time limit, the lease of the last one should still hold.
        self._min_rounds = max(1, min(int(settings.lease_seconds / endpoint.timeout_seconds) - 1, _FEW_ROUNDS))
        self._log = _log.bind(endpoint=endpoint.name)
        # The mean time of the events that were settled last.
        self._typical_seconds = math.inf
        # Rounds since something was last leased.
        self._quiet_rounds = 0
        # Guards what the pool's threads learn about the endpoint.
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._paused_until = -math.inf
        self._pause_checked_at = self._monotonic()

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; then let what is being sent end, within its time limit, and settle it.

        May be called again after it has raised.
        """

        def turn(pool: _Pool, retrier: Retrier) -> None:
            self._check_pause(pool, retrier)
            self._lease(pool, retrier)
            self._settle(self._collect(pool, stop), pool, retrier)

        def finish(pool: _Pool, retrier: Retrier) -> None:
            self._release(pool, retrier)
            self._settle(pool.collect(wait_seconds=self._endpoint.timeout_seconds + GRACE_SECONDS), pool, retrier)

        pool: _Pool = WorkerPool(
            lambda leased: self._try(leased, stop),
            threads=self._endpoint.concurrency,
            name=f"send-{self._endpoint.name}",
        )
        run_leased(stop, pool, turn=turn, finish=finish)

    def _check_pause(self, pool: _Pool, retrier: Retrier) -> None:
        """Release what was leased before an operator paused the endpoint; the outbox leases nothing more."""
        if not pool.waiting or self._monotonic() - self._pause_checked_at < _PAUSE_CHECK_SECONDS:
            return
        if retrier.call(lambda: self._outbox.is_paused(self._endpoint.name)):
            self._log.info("endpoint_paused", released=pool.waiting)
            self._release(pool, retrier)
        self._pause_checked_at = self._monotonic()

    def _lease(self, pool: _Pool, retrier: Retrier) -> None:
        """Fill the window once more than half of it is free."""
        self._quiet_rounds += 1
        window = self._window
        free = window - pool.unfinished
        if free <= window // 2 or self._paused:
            return
        if leased := retrier.call(lambda: self._lease_due(limit=free)):
            self._quiet_rounds = 0
            pool.add(leased)

    @property
    def _window(self) -> int:
        """How many deliveries may be leased at once, including those under way."""
        if self._failures_in_a_row >= _MANY_FAILURES:
            return self._endpoint.concurrency
        seconds = max(self._typical_seconds, _AHEAD_SECONDS / _MAX_ROUNDS)
        return self._endpoint.concurrency * max(self._min_rounds, int(_AHEAD_SECONDS / seconds))

    def _lease_due(self, *, limit: int) -> Sequence[Leased[DueDelivery]]:
        lease = partial(self._outbox.lease_due, endpoint=self._endpoint.name, limit=limit)
        return lease_jobs(lease, lease_seconds=self._settings.lease_seconds, monotonic=self._monotonic)

    def _try(self, leased: Leased[DueDelivery], stop: threading.Event) -> _Try:
        """Send it, in a thread of the pool. A pause that the endpoint asks for holds from the next event on."""
        delivery = leased.job
        # After the lease has run out, another process may have sent the event and later ones.
        outlasts_sending = leased.ends_at - self._monotonic() >= self._endpoint.timeout_seconds
        if stop.is_set() or self._paused or not outlasts_sending:
            return _Try(delivery)
        began = time.monotonic()
        error, wait_seconds = None, 0.0
        try:
            self._sink.send(delivery)
        except Exception as failure:  # noqa: BLE001 -- a bug in the sink must not keep the endpoint's other events
            error, wait_seconds = failure, self._judge(delivery, failure)
        self._count_in_a_row(error)
        seconds = time.monotonic() - began
        self._metrics.observe_send(self._endpoint.name, seconds)
        return _Try(delivery, seconds, error, wait_seconds)

    def _collect(self, pool: _Pool, stop: threading.Event) -> Sequence[_Try]:
        """The results since. Waits no longer than until it is time to look for due deliveries."""
        # Shortly after something was due, more is likely to be due.
        doubled = _FIRST_POLL_SECONDS * 2.0 ** min(self._quiet_rounds, 10)
        wait_seconds = min(doubled, self._settings.poll_seconds)
        if not pool.unfinished:
            stop.wait(wait_seconds)
        tried = pool.collect(wanted=1, wait_seconds=wait_seconds)
        if not tried or not pool.unfinished:
            return tried
        return [*tried, *pool.collect(wanted=_MAX_SETTLED, wait_seconds=_SETTLE_SECONDS)]

    def _settle(self, tried: Sequence[_Try], pool: _Pool, retrier: Retrier) -> None:
        sent = [one for one in tried if one.seconds is not None]
        if sent:
            self._typical_seconds = fmean(one.seconds or 0.0 for one in sent)
        unsent = [one.delivery for one in tried if one.seconds is None]
        if unsent or self._paused:
            self._release(pool, retrier, unsent)
        if delivered := [one.delivery for one in sent if one.error is None]:
            lost = retrier.call(lambda: self._outbox.settle_delivered(delivered))
            for delivery in delivered:
                self._report_delivered(delivery)
            self._report_lost(lost)
        if failed := [self._failed(one.delivery, one.error, one.wait_seconds) for one in sent if one.error is not None]:
            lost = retrier.call(lambda: self._outbox.settle_failed(failed))
            lost_keys = {delivery.key for delivery in lost}
            for failure in failed:
                if failure.delivery.key not in lost_keys:
                    self._report_failed(failure)
            self._report_lost(lost)

    def _release(self, pool: _Pool, retrier: Retrier, unsent: Sequence[DueDelivery] = ()) -> None:
        """Release what was not tried, and what has not begun."""
        released = [*unsent, *(leased.job for leased in pool.take_back())]
        if released:
            retrier.call(lambda: self._outbox.release(released))

    def _failed(self, delivery: DueDelivery, error: Exception, wait_seconds: float) -> FailedDelivery:
        is_last = delivery.attempt >= self._endpoint.max_attempts
        return FailedDelivery(delivery=delivery, error=_reason(error), wait_seconds=None if is_last else wait_seconds)

    def _report_delivered(self, delivery: DueDelivery) -> None:
        self._count("delivered")
        if delivery.observed_at is not None:
            lag = self._clock() - delivery.observed_at
            self._metrics.observe_lag(self._endpoint.name, lag.total_seconds())
        self._log.info("event_delivered", **_log_fields(delivery), attempt=delivery.attempt)

    def _report_failed(self, failed: FailedDelivery) -> None:
        fields = {**_log_fields(failed.delivery), "attempt": failed.delivery.attempt, "reason": failed.error}
        if failed.wait_seconds is None:
            self._count("parked")
            self._log.error("delivery_parked", **fields)
        else:
            self._count("failed")
            self._log.warning("delivery_failed", **fields, retry_in_seconds=round(failed.wait_seconds, 3))

    def _report_lost(self, lost: Sequence[DueDelivery]) -> None:
        for delivery in lost:
            self._count("lease-lost")
            self._log.warning("lease_lost", **_log_fields(delivery))

    def _count(self, outcome: str) -> None:
        self._metrics.count_delivery(self._endpoint.name, outcome=outcome)

    def _judge(self, delivery: DueDelivery, error: Exception) -> float:
        """Seconds until the event's next try. Pauses the endpoint where the error is about the endpoint as a whole."""
        most = self._endpoint.max_retry_seconds
        if isinstance(error, EndpointGone):
            self._log.error("endpoint_gone", retry_in_seconds=most)
            self._pause(most)
            return most
        backoff = exponential(
            delivery.attempt,
            first_seconds=self._endpoint.initial_retry_seconds,
            max_seconds=most,
            jitter=1.0,
            random=random.random(),  # noqa: S311 -- spreads load, keeps no secret
        )
        if not isinstance(error, DeliveryFailed):
            # A bug in the sink, perhaps with this event only: it must not keep the endpoint's other events.
            self._log.error(
                "sink_failed", **_log_fields(delivery), reason=describe_fault(error), frames=frames_of(error)
            )
        elif error.retry_after_seconds is not None:
            granted = min(error.retry_after_seconds, most)
            self._pause(granted)
            return max(granted, backoff)
        return backoff

    def _count_in_a_row(self, error: Exception | None) -> None:
        """Pause after each failure where everything fails."""
        with self._lock:
            failures = self._failures_in_a_row
            self._failures_in_a_row = 0 if error is None else failures + 1
        if error is not None and failures + 1 >= _MANY_FAILURES:
            self._pause(self._settings.poll_seconds)
            if failures + 1 == _MANY_FAILURES:
                self._log.warning("endpoint_failing", failures_in_a_row=_MANY_FAILURES)
        elif failures >= _MANY_FAILURES:
            self._log.info("endpoint_recovered", failures_in_a_row=failures)

    @property
    def _paused(self) -> bool:
        return self._monotonic() < self._paused_until

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, self._monotonic() + seconds)


def _log_fields(delivery: DueDelivery) -> dict[str, str | int | None]:
    """The fields of every log line about a delivery."""
    return {"event_id": delivery.event_id, "trace_id": trace_id_of(delivery.traceparent)}


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, DeliveryFailed | EndpointGone) else describe_fault(error)
