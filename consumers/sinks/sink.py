"""What a dispatcher needs of a kind of downstream, and what can go wrong there."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingEvent:
    """An event on its way out: the bytes that were stored with the order's transition, and what a sink routes by."""

    id: str
    #: CloudEvents `type`.
    type: str
    merchant: str
    #: The gateway's word, as sent; any text.
    order_type: str
    #: An `OrderStatus` value.
    status: str
    #: CloudEvents 1.0, structured JSON, UTF-8; the same on every try.
    body: bytes
    #: W3C traceparent of the callback that it is about; None where there is none.
    traceparent: str | None = None
    #: A queue that has held it for so long drops it; None: never. Webhooks know no such thing.
    expires_after_seconds: float | None = None


class DeliveryFailed(Exception):
    """The endpoint did not take the event, or never said that it did. Its text holds no personal data."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        #: How long the endpoint asks to be left alone, as it said so; None where it did not.
        self.retry_after_seconds = retry_after_seconds


class EndpointGone(Exception):
    """The endpoint says that it wants no events any more."""


class Sink(Protocol):
    """Hands events to one endpoint. Safe to call from many threads at once; made after fork."""

    def send(self, event: OutgoingEvent) -> str:
        """Return once the endpoint has taken the event, with what it said, in words for people.

        Raises `DeliveryFailed` or `EndpointGone` within the endpoint's time limit, or not long after it. The event may
        have been taken all the same: sending it again is the caller's business, and harmless since its id stays.
        """

    def close(self) -> None:
        """Let go of connections. Safe to call twice."""
