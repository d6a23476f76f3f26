"""Publishing to RabbitMQ with confirms, on an asyncio loop."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from service.messaging.errors import BrokerUnavailable, ConfirmTimeout, NotConfirmed, Rejected, Unroutable
from service.messaging.interface import Message, OnSettled
from service.messaging.rabbitmq.connection import BrokerConnection
from service.messaging.rabbitmq.properties import to_properties
from service.runtime.logs import Logger

#: While no confirms come, one publish per this many seconds is let through to find out whether they come again.
_PROBE_SECONDS = 1.0
#: An open connection without any confirm for this long is replaced. A channel that was opened before the loss of its
#: queue's leader was noticed may wait for the leader for ever, or refuse everything (RabbitMQ 3.10, quorum queues); a
#: new channel does not. If a queue is just full, reconnecting now and then does no harm.
_SILENT_SECONDS = 8.0

_log = Logger(__name__)


class _Pending:
    """One publish that is not settled yet."""

    __slots__ = ("message", "on_settled", "properties", "returned", "settled", "timer")

    def __init__(self, message: Message, on_settled: OnSettled) -> None:
        self.message = message
        self.properties = to_properties(message)
        self.on_settled = on_settled
        self.returned: str | None = None
        self.settled = False
        self.timer: asyncio.TimerHandle | None = None


class RabbitPublisher:
    """Publishes mandatory, persistent messages over one connection; see `AsyncPublisher`.

    It connects on the first `submit` or `start`. At most `max_in_flight` publishes are pending; further ones are
    refused. Publishing fails at once, so that no request waits in vain, while the broker is away or blocks publishers
    (a memory or disk alarm), and after a confirm has timed out until one comes again. A publish waits for a connection,
    until its own deadline, only until the first attempt to connect has ended. A connection on which no confirm comes
    any more, although messages are sent, is replaced.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        urls: Sequence[str],
        connection_name: str,
        max_in_flight: int = 1000,
    ) -> None:
        self._loop = loop
        self._connection = BrokerConnection(
            urls=urls, connection_name=connection_name, on_open=self._on_open, on_down=self._on_down
        )
        self._max_in_flight = max_in_flight
        self._pending = 0
        self._idle = asyncio.Event()
        # Publishes that wait for the first connection.
        self._unsent: deque[_Pending] = deque()
        self._closed = False
        self._down: str | None = None
        self._blocked: str | None = None
        self._probe_at: float | None = None
        # When a publish first timed out or was refused since the last confirm.
        self._silent_since: float | None = None
        # The channel, once it is in confirm mode; its delivery tags begin at 1.
        self._channel: Channel | None = None
        self._unconfirmed: dict[int, _Pending] = {}
        self._next_tag = 1

    def start(self) -> None:
        """Connect now, before the first publish."""
        self._connection.start(self._loop)

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Publish; see `AsyncPublisher.submit`.

        It is settled with `BrokerUnavailable` (not sent), `Unroutable`, `Rejected`, `ConfirmTimeout`, or a plain
        `NotConfirmed` if the connection was lost meanwhile.
        """
        refusal = self._refusal()
        if refusal is not None:
            on_settled(BrokerUnavailable(refusal))
            return
        self.start()
        pending = _Pending(message, on_settled)
        pending.timer = self._loop.call_at(deadline, self._give_up, pending)
        self._pending += 1
        if self._channel is None:
            self._unsent.append(pending)
        else:
            self._send(pending)

    async def close(self, *, timeout_seconds: float) -> None:
        """Refuse new messages, wait for the confirms of pending ones, then close the connection."""
        self._closed = True
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._pending:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        await self._connection.close()

    def _refusal(self) -> str | None:
        """Why publishing would fail now; None if it would not."""
        if self._closed:
            return "the publisher is closed"
        if self._down is not None:
            return f"no connection to the broker: {self._down}"
        if self._blocked is not None:
            return f"the broker blocks publishers: {self._blocked}"
        if self._pending >= self._max_in_flight:
            return f"{self._pending} messages wait for their confirms already"
        if self._probe_at is not None:
            if time.monotonic() < self._probe_at:
                return "the broker has not confirmed anything since a confirm timed out"
            self._probe_at = time.monotonic() + _PROBE_SECONDS
        return None

    def _settle(self, pending: _Pending, error: NotConfirmed | None) -> None:
        if pending.settled:
            return
        pending.settled = True
        if pending.timer is not None:
            pending.timer.cancel()
        self._pending -= 1
        if not self._pending:
            self._idle.set()
        pending.on_settled(error)

    def _give_up(self, pending: _Pending) -> None:
        if self._channel is None:
            self._settle(pending, BrokerUnavailable("no connection to the broker within the time limit"))
            return
        self._probe_at = time.monotonic() + _PROBE_SECONDS
        if self._silent_too_long():
            self._drop_silent()
        self._settle(pending, ConfirmTimeout("no confirm within the time limit; the message may or may not be queued"))

    def _silent_too_long(self) -> bool:
        """Record that a publish was not confirmed; says, once, whether none has been for too long."""
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        too_long = now - self._silent_since >= _SILENT_SECONDS
        if too_long:
            self._silent_since = None
        return too_long

    def _drop_silent(self) -> None:
        self._connection.drop(f"no confirm in {_SILENT_SECONDS} s")

    def _on_open(self, channel: Channel) -> None:
        channel.connection.add_on_connection_blocked_callback(self._on_blocked)
        channel.connection.add_on_connection_unblocked_callback(self._on_unblocked)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._on_ready(channel))

    def _on_ready(self, channel: Channel) -> None:
        self._forget_channel("the channel was renewed")
        self._channel = channel
        self._next_tag = 1
        self._down = self._blocked = self._probe_at = self._silent_since = None
        unsent, self._unsent = self._unsent, deque()
        for pending in unsent:
            if not pending.settled:
                self._send(pending)

    def _on_down(self, reason: str) -> None:
        self._down = reason
        self._forget_channel(reason)
        self._fail_unsent(reason)

    def _on_blocked(self, _connection: object, frame: Any) -> None:
        self._blocked = reason = frame.method.reason or "no reason given"
        self._fail_unsent(f"the broker blocks publishers: {reason}")
        self._fail_unconfirmed(f"the broker blocks publishers: {reason}")

    def _on_unblocked(self, _connection: object, _frame: object) -> None:
        self._blocked = self._probe_at = self._silent_since = None

    def _forget_channel(self, reason: str) -> None:
        """Settle what this channel has not confirmed: no other channel will, because delivery tags are per channel."""
        self._channel = None
        self._fail_unconfirmed(reason)
        self._unconfirmed.clear()

    def _fail_unsent(self, reason: str) -> None:
        unsent, self._unsent = self._unsent, deque()
        for pending in unsent:
            self._settle(pending, BrokerUnavailable(f"not sent: {reason}"))

    def _fail_unconfirmed(self, reason: str) -> None:
        for pending in list(self._unconfirmed.values()):
            self._settle(pending, NotConfirmed(f"sent, but no confirm will be waited for: {reason}"))

    def _send(self, pending: _Pending) -> None:
        if self._channel is None or not self._channel.is_open:
            self._settle(pending, BrokerUnavailable("not sent: the channel is closing"))
            return
        message = pending.message
        try:
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, pending.properties, mandatory=True
            )
        except (AMQPError, ValueError) as error:  # nothing was sent: a name that is too long, a lone surrogate
            self._settle(pending, Rejected(f"the message cannot be written as AMQP: {error!r}"))
            return
        self._unconfirmed[self._next_tag] = pending
        self._next_tag += 1

    def _on_return(
        self, _channel: Channel, method: Basic.Return, properties: pika.BasicProperties, _body: bytes
    ) -> None:
        # A return carries no tag. It comes before its own confirm, so it is for the oldest publish with that id.
        for pending in self._unconfirmed.values():
            if pending.returned is None and pending.message.message_id == properties.message_id:
                pending.returned = method.reply_text or "returned"
                return

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        if isinstance(method, Basic.Nack):
            refused = Rejected("the broker refused the message: its queue is full, or a node is in trouble")
            for pending in self._take(method.delivery_tag, multiple=method.multiple):
                self._settle(pending, refused)
            if self._silent_too_long():
                self._drop_silent()
            return
        self._probe_at = self._silent_since = None
        for pending in self._take(method.delivery_tag, multiple=method.multiple):
            if pending.returned is None:
                self._settle(pending, None)
            else:
                self._connection.declare_topology()
                self._settle(pending, _unroutable(pending))

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
        "The topology is declared again now. If this goes on, `payment-callbacks topology declare` says why."
    )
