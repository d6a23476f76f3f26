"""A test of one endpoint: a signed test event is sent exactly as payment events are."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from consumers.sinks.sink import DeliveryFailed, EndpointGone, Sink
from service.domain.events import TEST_TYPE, EndpointTest, SerializedEvent, write_test

#: Stands for the merchant in a test's routing key: no slug begins with an underscore.
TEST_WORD = "_test"
# A queue that nobody reads must not keep it, and above all not the one whose messages raise alerts.
_EXPIRES_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTestOutcome:
    """The outcome of a test."""

    event_id: str
    #: Whether the endpoint accepted the test as it would an event.
    accepted: bool
    #: What came back, or why nothing did.
    answer: str
    seconds: float


def send_test_event(sink: Sink, *, endpoint: str, clock: Callable[[], datetime]) -> EndpointTestOutcome:
    """Send one test, once, within the endpoint's time limit. Nothing is recorded, and no delivery is touched."""
    test = EndpointTest(endpoint=endpoint, number=secrets.token_hex(8), sent_at=clock())
    event = SerializedEvent(
        event_id=test.id,
        type=TEST_TYPE,
        merchant=TEST_WORD,
        order_type=endpoint,
        status="test",
        body=write_test(test),
        expires_after_seconds=_EXPIRES_SECONDS,
    )
    began = time.monotonic()
    try:
        answer, accepted = sink.send(event), True
    except (DeliveryFailed, EndpointGone) as error:
        answer, accepted = str(error), False
    return EndpointTestOutcome(event_id=test.id, accepted=accepted, answer=answer, seconds=time.monotonic() - began)
