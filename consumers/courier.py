"""One endpoint's courier: claims what is due to it, sends it, and settles how that went.

- Claiming and settling are short transactions; sending happens outside of any, on a pool of the endpoint's own. A few
  rounds are claimed ahead, so that nobody waits for the database between two events; what is not sent after all (at
  shutdown, or because the endpoint asks for a pause) is given back, and no try is counted.
- A crash, or a database that goes away between the two, lets the lease run out, and the event is sent again under the
  same id. Whoever comes too late to settle is told by the fencing number, and changes nothing.
- Of one order only the lowest open event can be claimed, so its next one waits until this one is delivered or parked.
- Retry-After is granted up to `most_retry_seconds`, and to the whole endpoint: it speaks of the server, not an event.
- An endpoint that an operator has paused gets nothing new: none of its events can be claimed, and those that were
  claimed ahead of the pause are given back within a second.
- 410 Gone stops the courier for `most_retry_seconds`; then it asks once more. The event stays due and keeps its place.
  Parking it would reorder its order's events, and switching the endpoint off for good would let one wrong answer of a
  proxy silence a system that waits for money. That is an operator's to do, who can take the endpoint out.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import datetime

import structlog

from consumers.faults import describe_fault, frames_of
from consumers.patience import Patience, Stopping
from consumers.sinks.sink import DeliveryFailed, EndpointGone, OutgoingEvent, Sink
from service.backoff import exponential
from service.ledger.errors import LeaseLost
from service.ledger.outbox import DueDelivery, Outbox
from service.metrics.dispatcher import DispatcherMetrics
from service.settings import DispatcherSettings, EndpointSettings
from service.traceparent import trace_id_of

_log = structlog.get_logger()

# While the database is away.
_FIRST_RETRY_SECONDS = 0.5
_MOST_RETRY_SECONDS = 15.0
# At shutdown, on top of the endpoint's own time limit.
_GRACE_SECONDS = 2.0
# More would not make it faster, and a process that is killed keeps others from what it has claimed.
_MOST_ROUNDS_AHEAD = 4
# While something is claimed ahead: how often it is asked whether an operator has paused the endpoint since.
_LOOK_SECONDS = 1.0


class Courier:
    """Tells one endpoint, in the calling thread; up to `endpoint.concurrency` events are under way at once."""

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
        # Where all of a window take their whole time limit, the lease of the last one must still hold.
        rounds = int(settings.lease_seconds / endpoint.timeout_seconds) - 1
        self._window = endpoint.concurrency * max(1, min(rounds, _MOST_ROUNDS_AHEAD))
        self._log = _log.bind(endpoint=endpoint.name)
        # Claimed, and not begun; each with the time at which its lease surely holds no more.
        self._ahead: deque[tuple[DueDelivery, float]] = deque()
        self._under_way: dict[Future[None], DueDelivery] = {}
        self._paused_until = -math.inf
        self._looked_at = self._monotonic()

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; then let what is being sent end, within its time limit, and settle it.

        May be called again after it has raised: what was under way comes back when its lease has run out.
        """
        patience = Patience(stop=stop, first_seconds=_FIRST_RETRY_SECONDS, most_seconds=_MOST_RETRY_SECONDS)
        self._ahead.clear()
        self._under_way.clear()
        senders = ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix=f"send-{self._endpoint.name}")
        try:
            with suppress(Stopping):
                while not stop.is_set():
                    self._heed_operators(patience)
                    self._claim(patience)
                    self._begin(senders)
                    self._settle(self._wait(stop), senders, patience)
                self._give_back(patience)
                self._settle(self._drain(), senders, patience)
        finally:
            senders.shutdown(wait=False, cancel_futures=True)
            if self._under_way:
                self._log.warning("deliveries_left_under_way", count=len(self._under_way))

    def _heed_operators(self, patience: Patience) -> None:
        """Give back what was claimed before the endpoint was paused. That no more is claimed is the outbox's doing."""
        if not self._ahead or self._monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        if patience.insist(lambda: self._outbox.is_paused(self._endpoint.name)):
            self._log.info("endpoint_paused", given_back=len(self._ahead))
            self._give_back(patience)
        self._looked_at = self._monotonic()

    def _claim(self, patience: Patience) -> None:
        """Fill the window once half of it is free. The next look is due when one is done, or after `poll_seconds`."""
        free = self._window - len(self._ahead) - len(self._under_way)
        if free < max(1, self._window // 2) or self._paused:
            return
        lease_ends, claimed = patience.insist(lambda: self._lease(limit=free))
        self._ahead += [(delivery, lease_ends) for delivery in claimed]

    def _lease(self, *, limit: int) -> tuple[float, Sequence[DueDelivery]]:
        """What is due, and until when it is ours by our own clock: no later than by the database's."""
        lease_seconds = self._settings.lease_seconds
        lease_ends = self._monotonic() + lease_seconds
        return lease_ends, self._outbox.claim_due(
            endpoint=self._endpoint.name, limit=limit, lease_seconds=lease_seconds
        )

    def _begin(self, senders: ThreadPoolExecutor) -> None:
        while self._ahead and len(self._under_way) < self._endpoint.concurrency:
            delivery, lease_ends = self._ahead.popleft()
            if lease_ends <= self._monotonic():
                # The database was away for long, or this process was frozen: by now another may have sent it, and what
                # comes after it.
                self._tell_lost(delivery)
                continue
            self._under_way[senders.submit(self._send, delivery)] = delivery

    def _send(self, delivery: DueDelivery) -> None:
        began = time.monotonic()
        try:
            self._sink.send(_outgoing(delivery))
        finally:
            self._metrics.observe_send(self._endpoint.name, time.monotonic() - began)

    def _give_back(self, patience: Patience) -> None:
        if self._ahead:
            patience.insist(lambda: self._outbox.release([delivery for delivery, _ in self._ahead]))
            self._ahead.clear()

    @property
    def _paused(self) -> bool:
        return self._monotonic() < self._paused_until

    def _wait(self, stop: threading.Event) -> Collection[Future[None]]:
        if not self._under_way:
            stop.wait(self._settings.poll_seconds)
            return ()
        return wait(self._under_way, timeout=self._settings.poll_seconds, return_when=FIRST_COMPLETED).done

    def _drain(self) -> Collection[Future[None]]:
        return wait(self._under_way, timeout=self._endpoint.timeout_seconds + _GRACE_SECONDS).done

    def _settle(self, done: Collection[Future[None]], senders: ThreadPoolExecutor, patience: Patience) -> None:
        outcomes = [(self._under_way.pop(sent), sent.exception()) for sent in done]
        delivered = [delivery for delivery, error in outcomes if error is None]
        failed = [(delivery, error, self._judge(delivery, error)) for delivery, error in outcomes if error is not None]
        if self._paused:
            self._give_back(patience)
        # Before the database is waited for, and after the failures were judged: they may ask for a pause.
        self._begin(senders)
        if delivered:
            for lost in patience.insist(lambda: self._outbox.settle_delivered(delivered)):
                self._tell_lost(lost)
            for delivery in delivered:
                self._tell_delivered(delivery)
        for delivery, error, wait_seconds in failed:
            self._settle_failed(delivery, error, wait_seconds, patience)

    def _settle_failed(
        self, delivery: DueDelivery, error: BaseException, wait_seconds: float, patience: Patience
    ) -> None:
        reason = _reason(error)
        try:
            if delivery.attempt >= self._endpoint.max_attempts:
                patience.insist(lambda: self._outbox.park(delivery, error=reason))
                self._count("parked")
                self._log.error("event_parked", **_told(delivery), attempt=delivery.attempt, reason=reason)
                return
            patience.insist(lambda: self._outbox.retry_in(delivery, wait_seconds, error=reason))
            self._count("failed")
            self._log.warning(
                "delivery_failed",
                **_told(delivery),
                attempt=delivery.attempt,
                reason=reason,
                retry_in_seconds=round(wait_seconds, 3),
            )
        except LeaseLost:
            self._tell_lost(delivery)

    def _tell_delivered(self, delivery: DueDelivery) -> None:
        self._count("delivered")
        if delivery.observed_at is not None:
            lag = self._clock() - delivery.observed_at
            self._metrics.observe_lag(self._endpoint.name, lag.total_seconds())
        self._log.info("event_delivered", **_told(delivery), attempt=delivery.attempt)

    def _tell_lost(self, delivery: DueDelivery) -> None:
        self._count("lease-lost")
        self._log.warning("lease_lost", **_told(delivery))

    def _count(self, outcome: str) -> None:
        self._metrics.count_delivery(self._endpoint.name, outcome=outcome)

    def _judge(self, delivery: DueDelivery, error: BaseException) -> float:
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
            self._log.error("sink_fails", **_told(delivery), reason=describe_fault(error), frames=frames_of(error))
        elif error.retry_after_seconds is not None:
            granted = min(error.retry_after_seconds, most)
            self._pause(granted)
            return max(granted, backoff)
        return backoff

    def _pause(self, seconds: float) -> None:
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


def _told(delivery: DueDelivery) -> dict[str, str | None]:
    """What every log line about a delivery says of it."""
    return {"event_id": delivery.event_id, "trace_id": trace_id_of(delivery.traceparent)}


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, DeliveryFailed | EndpointGone) else describe_fault(error)
