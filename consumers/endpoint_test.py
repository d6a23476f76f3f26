"""A trial of one endpoint: a signed test goes out by the very way of its events, and what comes back is told."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from consumers.sinks.sink import DeliveryFailed, EndpointGone, OutgoingEvent, Sink
from service.domain.event_schemas import write_test
from service.domain.events import TEST_TYPE, EndpointTest

#: In the merchant's place of a test's routing key: no slug begins with an underscore.
TEST_WORD = "_test"
# A queue that nobody reads must not keep it, least of all the one whose every message is an alert.
_EXPIRES_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTestOutcome:
    """What came of a trial."""

    event_id: str
    #: Whether the endpoint took the test as it would have to take an event.
    taken: bool
    #: What came back, or that nothing did.
    answer: str
    seconds: float


def test_endpoint(sink: Sink, *, endpoint: str, clock: Callable[[], datetime]) -> EndpointTestOutcome:
    """Send one test, once, within the endpoint's time limit. Nothing is recorded, and no delivery is touched."""
    test = EndpointTest(endpoint=endpoint, number=secrets.token_hex(8), sent_at=clock())
    event = OutgoingEvent(
        id=test.id,
        type=TEST_TYPE,
        merchant=TEST_WORD,
        order_type=endpoint,
        status="test",
        body=write_test(test),
        expires_after_seconds=_EXPIRES_SECONDS,
    )
    began = time.monotonic()
    try:
        answer, taken = sink.send(event), True
    except (DeliveryFailed, EndpointGone) as error:
        answer, taken = str(error), False
    return EndpointTestOutcome(event_id=test.id, taken=taken, answer=answer, seconds=time.monotonic() - began)
