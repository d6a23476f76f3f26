"""Endpoint tests: a signed test event is sent exactly as payment events are."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import datetime

from consumers.sinks.sink import DeliveryFailed, EndpointGone, Sink
from consumers.threads import repeated
from service.domain.events import TEST_TYPE, EndpointTest, SerializedEvent, write_test
from service.ledger.endpoint_tests import EndpointTests
from service.runtime.logs import Logger

#: Stands for the merchant in a test's routing key: no slug begins with an underscore.
TEST_WORD = "_test"
# A queue that nobody reads must not keep it, and above all not the one whose messages raise alerts.
_EXPIRES_SECONDS = 60.0
# A round that finds nothing reads one index that is nearly always empty.
_EVERY_SECONDS = 1.0

_log = Logger(__name__)


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


def sending_tests(
    tests: EndpointTests, *, sinks: Mapping[str, Callable[[], Sink]], clock: Callable[[], datetime]
) -> AbstractContextManager[None]:
    """Send the tests that operators request through the ledger while the `with` lasts.

    It has a thread of its own beside a dispatcher's deliveries, and each test has a connection of its own. Any number
    of processes may do so at once. What is under way at the end is not waited for. `sinks` makes the sink of each
    endpoint, by the endpoint's name.
    """

    def send_requested(over: threading.Event) -> None:
        while not over.is_set() and (test := tests.take(sinks.keys())):
            with closing(sinks[test.endpoint]()) as sink:
                outcome = send_test_event(sink, endpoint=test.endpoint, clock=clock)
            tests.settle(
                test.id,
                accepted=outcome.accepted,
                event_id=outcome.event_id,
                answer=outcome.answer,
                seconds=outcome.seconds,
            )
            _log.info(
                "endpoint_tested",
                endpoint=test.endpoint,
                event_id=outcome.event_id,
                accepted=outcome.accepted,
                answer=outcome.answer,
                by=test.requested_by,
            )

    return repeated(
        send_requested, name="endpoint-tests", every_seconds=_EVERY_SECONDS, failure="endpoint_tests_failed"
    )
