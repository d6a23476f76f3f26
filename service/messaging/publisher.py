"""Confirmed publishing to RabbitMQ: one connection per process, shared by all of its threads."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from service.messaging.connection import BrokerConnection
from service.messaging.contract import Message
from service.messaging.envelope import to_properties
from service.messaging.errors import BrokerUnavailable, ConfirmTimeout, NotConfirmed, Rejected, Unroutable

#: While confirms stay away, one publish per this many seconds is let through to find out whether they come again.
_PROBE_SECONDS = 1.0
#: A connection that is open and brings no confirm for as long is given up for another. A channel that was opened before
#: the loss of its queue's leader was noticed may wait for that for ever, or refuse everything (RabbitMQ 3.10, quorum
#: queues); a new one does not. Where a queue is just full, connecting anew now and then does no harm.
_SILENT_SECONDS = 8.0


class _Pending:
    """One publish that a thread waits for."""

    __slots__ = ("abandoned", "error", "message", "properties", "returned", "settled")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.properties = to_properties(message)
        self.settled = threading.Event()
        self.error: NotConfirmed | None = None
        self.returned: str | None = None
        self.abandoned = False

    def settle(self, error: NotConfirmed | None) -> None:
        if not self.settled.is_set():
            self.error = error
            self.settled.set()


class RabbitPublisher:
    """Publishes mandatory, persistent messages and waits for the broker's confirm, over one asynchronous connection.

    The connection is made by a thread of its own on first use, hence after fork. At most `max_in_flight` publishes wait
    at once; one more is refused. Where the broker is away or blocks publishers (a memory or disk alarm), or where a
    confirm has timed out and none has come since, publishing fails at once, so that no request waits for nothing.
    Only before the very first connection attempt has ended does it wait for that, within its own time limit.
    A connection on which no confirm comes any more, although messages are sent, is given up for a new one.
    """

    def __init__(self, *, urls: Sequence[str], connection_name: str, max_in_flight: int = 1000) -> None:
        self._connection = BrokerConnection(
            urls=urls, connection_name=connection_name, on_open=self._on_open, on_down=self._on_down
        )
        self._max_in_flight = max_in_flight
        # Guards everything down to the next comment.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting = 0
        self._outgoing: deque[_Pending] = deque()
        self._drain_scheduled = False
        self._ready = False
        self._closed = False
        self._down: str | None = None
        self._blocked: str | None = None
        self._probe_at: float | None = None
        # When the first of all publishes since the last confirm was not confirmed in time, or refused.
        self._silent_since: float | None = None
        # Touched on the connection's thread alone.
        self._channel: Channel | None = None
        self._unconfirmed: dict[int, _Pending] = {}
        self._next_tag = 1

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return once the broker has confirmed the message; see `Publisher.publish`.

        Raises `BrokerUnavailable` (not sent), `Unroutable`, `Rejected`, `ConfirmTimeout`, or a plain `NotConfirmed`
        where the connection was lost in between.
        """
        pending = _Pending(message)
        self._connection.start()
        schedule = self._enqueue(pending)
        try:
            if schedule:
                self._connection.call_soon(self._drain)
            if not pending.settled.wait(timeout_seconds):
                self._give_up(pending, timeout_seconds)
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._idle.notify_all()
        if pending.error is not None:
            raise pending.error

    def close(self, *, timeout_seconds: float) -> None:
        """Refuse new messages, wait for the confirms of those in flight, then close the connection."""
        deadline = time.monotonic() + timeout_seconds
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: not self._waiting, timeout_seconds)
        self._connection.close(timeout_seconds=max(deadline - time.monotonic(), 0.1))

    def _enqueue(self, pending: _Pending) -> bool:
        """Put it in line; says whether the caller has to schedule a drain."""
        with self._lock:
            self._refuse_where_hopeless()
            self._waiting += 1
            self._outgoing.append(pending)
            schedule = self._ready and not self._drain_scheduled
            self._drain_scheduled = self._drain_scheduled or schedule
            return schedule

    def _refuse_where_hopeless(self) -> None:
        if self._closed:
            raise BrokerUnavailable("the publisher is closed")
        if self._down is not None:
            raise BrokerUnavailable(f"no connection to the broker: {self._down}")
        if self._blocked is not None:
            raise BrokerUnavailable(f"the broker blocks publishers: {self._blocked}")
        if self._waiting >= self._max_in_flight:
            raise BrokerUnavailable(f"{self._waiting} messages wait for their confirms already")
        if self._probe_at is not None:
            if time.monotonic() < self._probe_at:
                raise BrokerUnavailable("the broker has not confirmed anything since a confirm timed out")
            self._probe_at = time.monotonic() + _PROBE_SECONDS

    def _give_up(self, pending: _Pending, timeout_seconds: float) -> None:
        with self._lock:
            if pending.settled.is_set():
                return
            pending.abandoned = True
            if not self._ready:
                raise BrokerUnavailable(f"no connection to the broker within {timeout_seconds} s")
            self._probe_at = time.monotonic() + _PROBE_SECONDS
            if self._silent_too_long():
                self._connection.call_soon(self._drop_silent)
        raise ConfirmTimeout(f"no confirm within {timeout_seconds} s; the message may or may not be queued")

    def _silent_too_long(self) -> bool:
        """One more publish was not confirmed; says, once, whether none has been for too long. Call it with the lock."""
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        too_long = now - self._silent_since >= _SILENT_SECONDS
        if too_long:
            self._silent_since = None
        return too_long

    # On the connection's thread from here on.

    def _drop_silent(self) -> None:
        self._connection.drop(f"no confirm in {_SILENT_SECONDS} s")

    def _on_open(self, channel: Channel) -> None:
        channel.connection.add_on_connection_blocked_callback(self._on_blocked)
        channel.connection.add_on_connection_unblocked_callback(self._on_unblocked)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        self._channel = channel
        self._next_tag = 1
        with self._lock:
            self._ready = True
            self._down = self._blocked = self._probe_at = self._silent_since = None
        self._drain()

    def _on_down(self, reason: str) -> None:
        self._channel = None
        with self._lock:
            self._ready = self._drain_scheduled = False
            self._down = reason
        self._fail_pending(reason)

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        with self._lock:
            self._blocked = frame.method.reason or "no reason given"
        self._fail_pending(f"the broker blocks publishers: {self._blocked}")

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        with self._lock:
            self._blocked = self._probe_at = self._silent_since = None

    def _fail_pending(self, reason: str) -> None:
        with self._lock:
            unsent, self._outgoing = self._outgoing, deque()
        sent = list(self._unconfirmed.values())
        if self._channel is None:
            self._unconfirmed.clear()
        for pending in unsent:
            pending.settle(BrokerUnavailable(f"not sent: {reason}"))
        for pending in sent:
            pending.settle(NotConfirmed(f"sent, but no confirm will be waited for: {reason}"))

    def _drain(self) -> None:
        with self._lock:
            self._drain_scheduled = False
            count = len(self._outgoing)
        for _ in range(count):
            pending = self._outgoing.popleft()
            if not pending.abandoned:
                self._send(pending)

    def _send(self, pending: _Pending) -> None:
        if self._channel is None or not self._channel.is_open:
            pending.settle(BrokerUnavailable("not sent: the channel is closing"))
            return
        message = pending.message
        try:
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, pending.properties, mandatory=True
            )
        except (AMQPError, ValueError) as error:  # before a byte was sent: too long a name, a lone surrogate
            pending.settle(Rejected(f"the message cannot be written as AMQP: {error!r}"))
            return
        self._unconfirmed[self._next_tag] = pending
        self._next_tag += 1

    def _on_return(
        self, _channel: Channel, method: Basic.Return, properties: pika.BasicProperties, _body: bytes
    ) -> None:
        # A return carries no tag. It comes before its own confirm, so the oldest of that id is the one.
        for pending in self._unconfirmed.values():
            if pending.returned is None and pending.message.message_id == properties.message_id:
                pending.returned = method.reply_text or "returned"
                return

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        if isinstance(method, Basic.Nack):
            for pending in self._take(method.delivery_tag, multiple=method.multiple):
                pending.settle(Rejected("the broker refused the message: its queue is full, or a node is in trouble"))
            with self._lock:
                silent_too_long = self._silent_too_long()
            if silent_too_long:
                self._drop_silent()
            return
        with self._lock:
            self._probe_at = self._silent_since = None
        for pending in self._take(method.delivery_tag, multiple=method.multiple):
            pending.settle(None if pending.returned is None else _unroutable(pending))

    def _take(self, delivery_tag: int, *, multiple: bool) -> Iterable[_Pending]:
        if not multiple:
            return [self._unconfirmed.pop(delivery_tag)]
        tags = []
        for tag in self._unconfirmed:  # in the order of sending
            if tag > delivery_tag:
                break
            tags.append(tag)
        return [self._unconfirmed.pop(tag) for tag in tags]


def _unroutable(pending: _Pending) -> Unroutable:
    message = pending.message
    return Unroutable(
        f"no queue is bound to exchange {message.exchange!r} for {message.routing_key!r} ({pending.returned}). "
        "Run `payment-callbacks topology declare`."
    )
