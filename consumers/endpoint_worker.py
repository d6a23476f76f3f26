"""One endpoint's worker: claims what is due to it, sends it, and settles how that went.

- Claiming and settling are short transactions about many events; sending happens outside of any, in a fixed number of
  threads of the endpoint's own. They work off what is claimed ahead while the worker settles what they have sent, so
  nobody waits for the database between two events. What is not sent after all (at shutdown, because the endpoint asks
  for a pause, or because its lease might end before its time limit) is given back, and no try is counted.
- A crash, or a database that goes away between the two, lets the lease run out, and the event is sent again under the
  same id. Whoever comes too late to settle is told by the fencing number, and changes nothing.
- Of one order only the lowest open event can be claimed, so its next one waits until this one is delivered or parked.
- Retry-After is granted up to `most_retry_seconds`, and to the whole endpoint: it speaks of the server, not an event.
- An endpoint at which everything fails is tried `concurrency` events at a time with pauses of `poll_seconds`, until it
  takes one. Else it would cost the other endpoints as much as if it took all of them.
- An endpoint that an operator has paused gets nothing new: none of its events can be claimed, and those that were
  claimed ahead of the pause are given back within a second.
- 410 Gone stops the worker for `most_retry_seconds`; then it asks once more. The event stays due and keeps its place.
  Parking it would reorder its order's events, and switching the endpoint off for good would let one wrong answer of a
  proxy silence a system that waits for money. That is an operator's to do, who can take the endpoint out.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

import structlog

from consumers.faults import describe_fault, frames_of
from consumers.retry import Patience, Stopping
from consumers.senders import Senders
from consumers.sinks.sink import DeliveryFailed, EndpointGone, OutgoingEvent, Sink
from service.config.settings import DispatcherSettings, EndpointSettings
from service.ledger.outbox import DueDelivery, FailedDelivery, Outbox
from service.runtime.backoff import exponential
from service.runtime.metrics.dispatcher import DispatcherMetrics
from service.runtime.traceparent import trace_id_of

_log = structlog.get_logger()

# While the database is away.
_FIRST_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 15.0
# At shutdown, on top of the endpoint's own time limit.
_GRACE_SECONDS = 2.0
# What is claimed ahead: as much as is sent in this time, within these bounds for each event that is under way. A claim
# of few events costs as much as one of many, and a process that is killed keeps others from what it has claimed.
_AHEAD_SECONDS = 0.5
_FEW_ROUNDS = 4
_MOST_ROUNDS = 64
# What is answered within this time, or until there are so many, is settled together.
_SETTLE_SECONDS = 0.02
_MOST_SETTLED = 128
# The first wait once nothing more is due; it doubles up to `poll_seconds`.
_FIRST_POLL_SECONDS = 0.01
# Where so many tries fail in a row, everything does.
_MANY_FAILURES = 20
# While something is claimed ahead: how often it is asked whether an operator has paused the endpoint since.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Leased:
    """A delivery, and the time at which its lease surely holds no more."""

    delivery: DueDelivery
    ends_at: float


@dataclass(frozen=True, slots=True)
class _Try:
    """What came of a delivery: it was sent, it failed, or it was not tried."""

    delivery: DueDelivery
    #: How long it took; None where it was not tried.
    seconds: float | None = None
    error: Exception | None = None
    #: Seconds until the next try, where it failed.
    wait_seconds: float = 0.0


_Senders = Senders[_Leased, _Try]


class EndpointWorker:
    """Delivers one endpoint's events, in the calling thread; `endpoint.concurrency` at most are under way at once."""

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
        """`clock` tells how late an event is; what is waited for goes by `monotonic`."""
        self._outbox = outbox
        self._sink = sink
        self._endpoint = endpoint
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        # Where all that is claimed take their whole time limit, the lease of the last one should still hold.
        self._least_rounds = max(1, min(int(settings.lease_seconds / endpoint.timeout_seconds) - 1, _FEW_ROUNDS))
        self._log = _log.bind(endpoint=endpoint.name)
        # How long one event takes, as the last ones did.
        self._typical_seconds = math.inf
        # Rounds since something was claimed last.
        self._quiet_rounds = 0
        # Of what the senders' threads learn of the endpoint.
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._paused_until = -math.inf
        self._looked_at = self._monotonic()

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; then let what is being sent end, within its time limit, and settle it.

        May be called again after it has raised: what was under way comes back when its lease has run out.
        """
        patience = Patience(stop=stop, first_seconds=_FIRST_RETRY_SECONDS, most_seconds=_MOST_RETRY_SECONDS)
        senders: _Senders = Senders(
            lambda leased: self._try(leased, stop),
            threads=self._endpoint.concurrency,
            name=f"send-{self._endpoint.name}",
        )
        try:
            with suppress(Stopping):
                while not stop.is_set():
                    self._heed_operators(senders, patience)
                    self._claim(senders, patience)
                    self._settle(self._collect(senders, stop), senders, patience)
                self._give_back(senders, patience)
                most_seconds = self._endpoint.timeout_seconds + _GRACE_SECONDS
                self._settle(senders.collect(wait_seconds=most_seconds), senders, patience)
        finally:
            senders.close()
            if senders.unfinished:
                self._log.warning("deliveries_left_under_way", count=senders.unfinished)

    def _heed_operators(self, senders: _Senders, patience: Patience) -> None:
        """Give back what was claimed before the endpoint was paused. That no more is claimed is the outbox's doing."""
        if not senders.waiting or self._monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        if patience.insist(lambda: self._outbox.is_paused(self._endpoint.name)):
            self._log.info("endpoint_paused", given_back=senders.waiting)
            self._give_back(senders, patience)
        self._looked_at = self._monotonic()

    def _claim(self, senders: _Senders, patience: Patience) -> None:
        """Fill the window once more than half of it is free. Looks again when one is done, or after a pause."""
        self._quiet_rounds += 1
        window = self._window
        free = window - senders.unfinished
        if free <= window // 2 or self._paused:
            return
        if leased := patience.insist(lambda: self._lease(limit=free)):
            self._quiet_rounds = 0
            senders.add(leased)

    @property
    def _window(self) -> int:
        """How many deliveries may be claimed at once, those included that are under way."""
        if self._failures_in_a_row >= _MANY_FAILURES:
            return self._endpoint.concurrency
        seconds = max(self._typical_seconds, _AHEAD_SECONDS / _MOST_ROUNDS)
        return self._endpoint.concurrency * max(self._least_rounds, int(_AHEAD_SECONDS / seconds))

    def _lease(self, *, limit: int) -> Sequence[_Leased]:
        """What is due, and until when it is ours by our own clock: no later than by the database's."""
        lease_seconds = self._settings.lease_seconds
        ends_at = self._monotonic() + lease_seconds
        claimed = self._outbox.claim_due(endpoint=self._endpoint.name, limit=limit, lease_seconds=lease_seconds)
        return [_Leased(delivery, ends_at) for delivery in claimed]

    def _try(self, leased: _Leased, stop: threading.Event) -> _Try:
        """Send it, in a thread of the senders. A pause that the endpoint asks for holds for the next one already."""
        delivery = leased.delivery
        # Once its lease has run out another may have sent it, and what comes after it.
        outlasts_sending = leased.ends_at - self._monotonic() >= self._endpoint.timeout_seconds
        if stop.is_set() or self._paused or not outlasts_sending:
            return _Try(delivery)
        began = time.monotonic()
        error, wait_seconds = None, 0.0
        try:
            self._sink.send(_outgoing(delivery))
        except Exception as failure:  # noqa: BLE001 -- a bug in the sink must not keep the endpoint's other events
            error, wait_seconds = failure, self._judge(delivery, failure)
        self._count_in_a_row(error)
        seconds = time.monotonic() - began
        self._metrics.observe_send(self._endpoint.name, seconds)
        return _Try(delivery, seconds, error, wait_seconds)

    def _collect(self, senders: _Senders, stop: threading.Event) -> Sequence[_Try]:
        """What was tried since. Waits no longer than until it is time to look for what is due."""
        # Soon after something was due, more is likely to be.
        doubled = _FIRST_POLL_SECONDS * 2.0 ** min(self._quiet_rounds, 10)
        wait_seconds = min(doubled, self._settings.poll_seconds)
        if not senders.unfinished:
            stop.wait(wait_seconds)
        tried = senders.collect(wanted=1, wait_seconds=wait_seconds)
        if not tried or not senders.unfinished:
            return tried
        return [*tried, *senders.collect(wanted=_MOST_SETTLED, wait_seconds=_SETTLE_SECONDS)]

    def _settle(self, tried: Sequence[_Try], senders: _Senders, patience: Patience) -> None:
        sent = [one for one in tried if one.seconds is not None]
        if sent:
            self._typical_seconds = fmean(one.seconds or 0.0 for one in sent)
        unsent = [one.delivery for one in tried if one.seconds is None]
        if unsent or self._paused:
            self._give_back(senders, patience, unsent)
        if delivered := [one.delivery for one in sent if one.error is None]:
            lost = patience.insist(lambda: self._outbox.settle_delivered(delivered))
            for delivery in delivered:
                self._report_delivered(delivery)
            self._report_lost(lost)
        if failed := [self._failed(one.delivery, one.error, one.wait_seconds) for one in sent if one.error is not None]:
            lost = patience.insist(lambda: self._outbox.settle_failed(failed))
            lost_keys = {delivery.key for delivery in lost}
            for failure in failed:
                if failure.delivery.key not in lost_keys:
                    self._report_failed(failure)
            self._report_lost(lost)

    def _give_back(self, senders: _Senders, patience: Patience, unsent: Sequence[DueDelivery] = ()) -> None:
        """Give back what was not tried, and what has not begun."""
        given_back = [*unsent, *(leased.delivery for leased in senders.take_back())]
        if given_back:
            patience.insist(lambda: self._outbox.release(given_back))

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
            self._log.error("event_parked", **fields)
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
        """Seconds until the event's next try, and what the error means for the endpoint as a whole."""
        most = self._endpoint.most_retry_seconds
        if isinstance(error, EndpointGone):
            self._log.error("endpoint_gone", asked_again_in_seconds=most)
            self._pause(most)
            return most
        backoff = exponential(
            delivery.attempt,
            first_seconds=self._endpoint.first_retry_seconds,
            most_seconds=most,
            jitter=1.0,
            random=random.random(),  # noqa: S311 -- spreads load, keeps no secret
        )
        if not isinstance(error, DeliveryFailed):
            # A bug of ours, in the sink or by this event: it must not keep the endpoint's other events.
            self._log.error(
                "sink_fails", **_log_fields(delivery), reason=describe_fault(error), frames=frames_of(error)
            )
        elif error.retry_after_seconds is not None:
            granted = min(error.retry_after_seconds, most)
            self._pause(granted)
            return max(granted, backoff)
        return backoff

    def _count_in_a_row(self, error: Exception | None) -> None:
        """Pause after each failure of an endpoint at which everything fails."""
        with self._lock:
            failures = self._failures_in_a_row
            self._failures_in_a_row = 0 if error is None else failures + 1
        if error is not None and failures + 1 >= _MANY_FAILURES:
            self._pause(self._settings.poll_seconds)
            if failures + 1 == _MANY_FAILURES:
                self._log.warning("endpoint_fails", failures_in_a_row=_MANY_FAILURES)
        elif failures >= _MANY_FAILURES:
            self._log.info("endpoint_takes_events_again", failures_in_a_row=failures)

    @property
    def _paused(self) -> bool:
        return self._monotonic() < self._paused_until

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, self._monotonic() + seconds)


def _outgoing(delivery: DueDelivery) -> OutgoingEvent:
    return OutgoingEvent(
        id=delivery.event_id,
        type=delivery.type.value,
        merchant=delivery.merchant,
        order_type=delivery.order_type,
        status=delivery.status.value,
        body=delivery.body,
        traceparent=delivery.traceparent,
    )


def _log_fields(delivery: DueDelivery) -> dict[str, str | int | None]:
    """What every log line about a delivery says of it."""
    return {"event_id": delivery.event_id, "trace_id": trace_id_of(delivery.traceparent)}


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, DeliveryFailed | EndpointGone) else describe_fault(error)
