import asyncio
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.messaging.codec import decode_refusals
from service.messaging.errors import NotConfirmed
from service.messaging.interface import Message
from service.receiver.refusal_counter import RefusalCounter


class Queue:
    """Keeps what is published, while it is there."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.away = False

    def submit(self, message: Any, *, deadline: Any, on_settled: Any) -> None:
        if self.away:
            on_settled(NotConfirmed("the broker is away"))
        else:
            self.messages.append(message)
            on_settled(None)

    async def close(self, *, timeout_seconds: float) -> None:
        """Nothing is pending."""

    def published(self) -> Any:
        """The counts of each message, by merchant, day and reason."""
        return [
            {(count.merchant, count.day, count.reason): count.callbacks for count in decode_refusals(message)}
            for message in self.messages
        ]


class Clock:
    def __init__(self) -> None:
        # Five minutes to midnight in Shanghai.
        self.now = datetime(2026, 7, 1, 15, 55, tzinfo=UTC)

    def __call__(self) -> Any:
        return self.now


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counter(queue: Queue, clock: Clock) -> RefusalCounter:
    return RefusalCounter(publisher=queue, time_zones={"acme": ZoneInfo("Asia/Shanghai")}, clock=clock)


FIRST, SECOND = date(2026, 7, 1), date(2026, 7, 2)


def test_refusals_are_counted_by_merchant_and_reason(counter: RefusalCounter, queue: Queue) -> None:
    for merchant, reason in [("acme", "sign-mismatch")] * 2 + [("acme", "not-json"), (None, "unknown-merchant")]:
        counter.count(merchant, reason)
    counter.publish()
    assert queue.published() == [
        {
            ("acme", FIRST, "sign-mismatch"): 2,
            ("acme", FIRST, "not-json"): 1,
            ("", FIRST, "unknown-merchant"): 1,
        }
    ]


def test_a_day_ends_at_the_merchants_own_midnight(counter: RefusalCounter, queue: Queue, clock: Clock) -> None:
    counter.count("acme", "not-json")
    clock.now = datetime(2026, 7, 1, 16, 5, tzinfo=UTC)
    counter.count("acme", "not-json")
    counter.count(None, "unknown-merchant")
    counter.publish()
    assert queue.published() == [
        {("acme", FIRST, "not-json"): 1, ("acme", SECOND, "not-json"): 1, ("", FIRST, "unknown-merchant"): 1}
    ]


def test_only_what_has_changed_is_published_and_always_as_a_total(counter: RefusalCounter, queue: Queue) -> None:
    counter.count("acme", "not-json")
    counter.count("acme", "sign-mismatch")
    counter.publish()
    counter.publish()
    counter.count("acme", "not-json")
    counter.publish()
    assert queue.published()[1:] == [{("acme", FIRST, "not-json"): 2}]


def test_what_the_queue_did_not_confirm_is_published_the_next_time(counter: RefusalCounter, queue: Queue) -> None:
    queue.away = True
    counter.count("acme", "not-json")
    counter.publish()
    queue.away = False
    counter.publish()
    assert queue.published() == [{("acme", FIRST, "not-json"): 1}]


def test_each_process_counts_under_a_name_of_its_own(queue: Queue, clock: Clock) -> None:
    for _ in range(2):
        counter = RefusalCounter(publisher=queue, time_zones={}, clock=clock)
        counter.count("acme", "not-json")
        counter.publish()
    first, second = (decode_refusals(message)[0].process for message in queue.messages)
    assert first != second


def test_days_that_are_published_and_over_are_forgotten_and_others_are_not(
    counter: RefusalCounter, queue: Queue, clock: Clock
) -> None:
    counter.count("acme", "not-json")
    counter.publish()
    queue.away = True
    counter.count("acme", "nan")
    counter.publish()
    clock.now = datetime(2026, 7, 20, tzinfo=UTC)
    counter.count("acme", "not-json")
    queue.away = False
    counter.publish()
    assert queue.published()[1:] == [{("acme", FIRST, "nan"): 1, ("acme", date(2026, 7, 20), "not-json"): 1}]
    clock.now = datetime(2026, 7, 1, 12, tzinfo=UTC)
    counter.count("acme", "not-json")
    counter.publish()
    assert queue.published()[2:] == [{("acme", FIRST, "not-json"): 1}]  # and the ledger keeps what it had


def test_it_publishes_by_itself_and_closing_publishes_the_rest(queue: Queue, clock: Clock) -> None:
    counter = RefusalCounter(publisher=queue, time_zones={}, clock=clock, interval_seconds=0.05)

    async def live() -> None:
        running = asyncio.create_task(counter.run())
        counter.count("acme", "not-json")
        async with asyncio.timeout(10):
            while not queue.messages:
                await asyncio.sleep(0)
        running.cancel()
        counter.count("acme", "not-json")
        await counter.close()

    asyncio.run(live())
    assert queue.published()[-1] == {("acme", FIRST, "not-json"): 2}
