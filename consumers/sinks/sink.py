"""A sink: what the dispatcher needs of a kind of downstream system, and how it can fail."""

from typing import Protocol

from service.domain.events import SerializedEvent


class DeliveryFailed(Exception):
    """The endpoint did not accept the event, or did not confirm it. The text holds no personal data."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        #: How long the endpoint asks to be left alone; None where it does not.
        self.retry_after_seconds = retry_after_seconds


class EndpointGone(Exception):
    """The endpoint states that it wants no more events."""


class Sink(Protocol):
    """Sends events to one endpoint. Safe to call from many threads at once; made after fork."""

    def send(self, event: SerializedEvent) -> str:
        """Send the event and wait until the endpoint accepts it; its answer, for people.

        Raises `DeliveryFailed` or `EndpointGone` within the endpoint's time limit, or soon after it. The event may have
        been accepted all the same; the caller may send it again, which is harmless because its id is the same.
        """

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
