"""What the other packages may expect of a queue, be it RabbitMQ or the embedded one."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from service.messaging.errors import NotConfirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to publish. It is always persistent and mandatory."""

    exchange: str
    #: Dot-separated words without user data: order numbers may contain any character and are never part of it.
    routing_key: str
    body: bytes
    message_id: str
    #: Kind and version of the body, e.g. `payment-callbacks.claim.v1` (the AMQP `type` property).
    type: str
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: RabbitMQ drops the message once a queue has held it for that long; None: never.
    expires_after_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message handed to a consumer, which must settle it exactly once, through the same subscriber."""

    message: Message
    #: How often it was handed out before; 0 the first time.
    previous_deliveries: int
    #: Opaque to everyone but the subscriber.
    handle: object


#: Gets the outcome of one publish: None once the message is safely queued, else why that is not known.
OnSettled = Callable[[NotConfirmed | None], None]


class AsyncPublisher(Protocol):
    """Publishes messages without waiting. It belongs to one asyncio loop: call it on the thread of that loop only."""

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Begin to publish; `on_settled` is called once, on the loop, no later than `deadline` (`time.monotonic`).

        It may be called before `submit` returns, and must not raise. After a `ConfirmTimeout` the message may or may
        not be queued.
        """

    async def close(self, *, timeout_seconds: float) -> None:
        """Refuse new messages, wait for pending ones, then close connections and threads. Safe to call twice."""


class Publisher(Protocol):
    """Publishes messages and waits. Safe to call from many threads at once; make it after a fork."""

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return once the message is safely queued (confirmed by the broker, or fsynced).

        Else raises a `NotConfirmed` within `timeout_seconds`: then the message may or may not be queued.
        """

    def close(self, *, timeout_seconds: float) -> None:
        """Wait for pending messages, then close threads and connections. Safe to call twice."""


class Subscriber(Protocol):
    """Consumes the callbacks' queue, for one thread. A message stays queued until it is acknowledged."""

    def receive(self, *, max_messages: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `max_messages`, as soon as there is one; empty if none arrives within `wait_seconds`.

        A broker that is away is not an error: the subscriber reconnects by itself, and nothing arrives meanwhile.
        """

    def holds(self, delivery: Delivery) -> bool:
        """Whether the delivery still belongs to this subscriber. Else the queue hands the message out again."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Remove the messages from the queue.

        Deliveries of a connection or lease that is gone are ignored: the queue hands them out again.
        """

    def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        """Move one message to the dead letters with the reason in a header, then acknowledge it.

        Raises `NotConfirmed` if the dead letters did not take it; it is then still in the queue.
        """

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Return unprocessed messages to the queue at once, for another consumer (at shutdown)."""

    def close(self) -> None:
        """Stop receiving; unsettled messages go back to the queue. Safe to call twice."""


def dead_letter_id(message: Message) -> str:
    """The name of a message among the dead letters: its id, or a digest of its body where it has none to be typed."""
    if message.message_id and message.message_id.isprintable():
        return message.message_id
    return f"sha256-{hashlib.sha256(message.body).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be applied, and why."""

    #: Its name: see `dead_letter_id`.
    id: str
    message: Message
    reason: str
    #: When it was dead-lettered, aware.
    died_at: datetime


class DeadLetters(Protocol):
    """The messages that need a person's decision. One process at a time may call a method.

    Every method raises MessagingError.
    """

    def list(self, *, limit: int) -> Sequence[DeadLetter]:
        """Up to `limit`, oldest first. They stay dead letters."""

    def replay(self, ids: Collection[str]) -> Collection[str]:
        """Publish the named ones to the callbacks' queue again and, once confirmed, drop them. Returns those found.

        After an error in between, these are the ones that were done before it.
        """

    def drop(self, ids: Collection[str]) -> Collection[str]:
        """Delete the named ones for good. Returns the ids that were found. After an error: as for `replay`."""
