"""What a queue does for the rest of the house, whichever queue it is (RabbitMQ, or the embedded one)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from service.messaging.errors import NotConfirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is published. Always persistent and mandatory."""

    exchange: str
    #: Dot-separated words without user data: order numbers may hold any character and never come here.
    routing_key: str
    body: bytes
    message_id: str
    #: Kind and version of the body, e.g. `payment-callbacks.claim.v1` (the AMQP `type` property).
    type: str
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: A queue of RabbitMQ that has held it for so long drops it; None: never.
    expires_after_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message handed to a consumer, to be settled exactly once through the subscriber that handed it out."""

    message: Message
    #: How often it was handed out before; 0 the first time.
    previous_deliveries: int
    #: The subscriber's own handle; opaque to everybody else.
    handle: object


#: What became of one publish: None once the message is safely queued, else why that is not known.
OnSettled = Callable[[NotConfirmed | None], None]


class AsyncPublisher(Protocol):
    """Puts messages into a queue without waiting. It lives on one asyncio loop and is called on its thread alone."""

    def submit(self, message: Message, *, deadline: float, on_settled: OnSettled) -> None:
        """Begin to publish; `on_settled` is called on the loop, once, by `deadline` (`time.monotonic`) at the latest.

        It may be called before `submit` returns. After a `ConfirmTimeout` the message may or may not be queued.
        `on_settled` must not raise.
        """

    async def close(self, *, timeout_seconds: float) -> None:
        """Refuse new messages, wait for what is pending, then let go of connections and threads. Safe to call twice."""


class Publisher(Protocol):
    """Puts messages into a queue and waits. Safe to call from many threads at once; made after fork."""

    def publish(self, message: Message, *, timeout_seconds: float) -> None:
        """Return once the message is safely queued (confirmed by the broker, or fsynced).

        Raises a `NotConfirmed` within `timeout_seconds`, never later: the message may or may not be queued then.
        """

    def close(self, *, timeout_seconds: float) -> None:
        """Wait for what is in flight, then let go of threads and connections. Safe to call twice."""


class Subscriber(Protocol):
    """Takes messages out of the callbacks' queue, for one thread. A message stays queued until acknowledged."""

    def receive(self, *, max_messages: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `max_messages`, as soon as there is at least one; empty where none came within `wait_seconds`.

        A broker that is away is no error: it reconnects by itself, and nothing arrives meanwhile.
        """

    def holds(self, delivery: Delivery) -> bool:
        """Whether it is known to be this one's still. Else it was taken back, and is handed out again."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Take the messages out of the queue for good.

        Deliveries of a connection or lease that is gone are passed over: the queue hands those out again.
        """

    def dead_letter(self, delivery: Delivery, *, reason: str) -> None:
        """Move one message to the dead letters with the reason in a header, then acknowledge it.

        Raises `NotConfirmed` where the dead letters did not take it: then it is still in the queue.
        """

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give unprocessed messages back at once, for another consumer (at shutdown)."""

    def close(self) -> None:
        """Stop receiving; what is unsettled goes back to the queue. Safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that could not be applied, and why."""

    #: What names it in `show`, `replay` and `drop`: the message id.
    id: str
    message: Message
    reason: str
    #: When it was put aside, aware.
    died_at: datetime


class DeadLetters(Protocol):
    """The messages put aside for a person."""

    def list(self, *, limit: int) -> Sequence[DeadLetter]:
        """Up to `limit`, oldest first, left where they are."""

    def replay(self, ids: Sequence[str]) -> int:
        """Put the named ones back into the callbacks' queue, confirmed, then drop them here; says how many."""

    def drop(self, ids: Sequence[str]) -> int:
        """Delete the named ones for good; says how many."""
