"""The book of the Python example: right in every order of arrival, and on PostgreSQL as the guide says to change it."""

import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pika
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.claims import OrderStatus, Trust
from service.domain.events import EventType, PaymentEvent, write_event
from service.messaging.rabbitmq import topology
from tests.support.postgresql import Database
from tests.support.waiting import HANGS_AFTER_SECONDS

_SOURCE = (Path(__file__).parents[3] / "docs" / "examples" / "orders_by_queue.py").read_text()
_POSTGRESQL = _SOURCE.replace("?", "%s").replace("with book:", "with book.transaction():")

STORY = (
    (EventType.PROCESSING, OrderStatus.PROCESSING),
    (EventType.SUCCEEDED, OrderStatus.SUCCEEDED),
    (EventType.CONFLICTED, OrderStatus.SUCCEEDED),
    (EventType.CORRECTED, OrderStatus.FAILED),
    (EventType.CORRECTED, OrderStatus.SUCCEEDED),
)


def load(source: str) -> ModuleType:
    example = ModuleType("orders_by_queue")
    exec(compile(source, "orders_by_queue.py", "exec"), example.__dict__)
    return example


def bodies(story: Sequence[tuple[EventType, OrderStatus]], biz_order_no: str = "DK1") -> list[bytes]:
    return [
        write_event(
            PaymentEvent(
                type=type_,
                merchant="acme",
                biz_order_no=biz_order_no,
                sequence=sequence,
                status=status,
                previous_status=OrderStatus.INITIAL,
                pay_order_no=None,
                order_type="",
                pay_type="",
                paid_at=None,
                amount="100.00",
                amount_unit="yuan",
                channel_response="",
                trust=Trust.QUERIED,
                observed_at=datetime(2026, 1, 5, tzinfo=UTC),
            )
        )
        for sequence, (type_, status) in enumerate(story, start=1)
    ]


@settings(max_examples=60)
@given(length=st.integers(1, len(STORY)), data=st.data())
def test_the_book_says_what_the_last_settled_status_says_in_every_order_of_arrival(
    length: int, data: st.DataObject
) -> None:
    story = [step for step in STORY[:length] if data.draw(st.booleans()) or step is STORY[length - 1]]
    events = bodies(story)
    arrivals = data.draw(st.permutations([*events, *data.draw(st.lists(st.sampled_from(events)))]))
    example = load(_SOURCE)
    with closing(sqlite3.connect(":memory:", isolation_level="IMMEDIATE")) as book:
        book.executescript(example.SCHEMA)
        booked = 0
        for body in arrivals:
            example.take(book, body)
            (booked,) = book.execute("SELECT coalesce(sum(direction), 0) FROM bookings").fetchone()
            assert booked in (0, 1), "money is never counted twice, on the way either"
    if story[-1][0] is not EventType.CONFLICTED:
        assert bool(booked) == (story[-1][1] is OrderStatus.SUCCEEDED)


def test_on_postgresql_several_consumers_book_every_payment_once(postgresql: Database) -> None:
    example = load(_POSTGRESQL)
    url = postgresql.url.replace("postgresql+psycopg:", "postgresql:")
    with psycopg.connect(url, autocommit=True) as book:
        book.execute(example.SCHEMA)
    events = [body for number in range(10) for body in bodies(STORY[:2], f"DK{number}")]
    together = threading.Barrier(4)

    def consume(arrivals: Sequence[bytes]) -> list[str]:
        with psycopg.connect(url, autocommit=True) as book:
            together.wait()
            return [example.take(book, body) for body in arrivals]

    with ThreadPoolExecutor(4) as consumers:
        outcomes = [*consumers.map(consume, [events, events[::-1], events, events[::-1]])]

    with psycopg.connect(url) as book:
        booked = book.execute("SELECT biz_order_no, sum(direction) FROM bookings GROUP BY biz_order_no").fetchall()
    assert sorted(booked) == [(f"DK{number}", 1) for number in range(10)]
    assert sum(outcome.count("booked") for outcome in outcomes) == 10
    assert sum(outcome.count("seen before") for outcome in outcomes) == 3 * len(events)


def test_an_event_is_still_in_its_queue_after_25_restarts_without_a_database(amqp_url: str) -> None:
    """Without a limit of its own, a queue of RabbitMQ 4 gives an event up after 20 deliveries."""
    topology.declare([amqp_url], timeout_seconds=HANGS_AFTER_SECONDS)
    example = load(_SOURCE)
    (event,) = bodies(STORY[:1])
    no_book = sqlite3.connect(":memory:")
    no_book.close()
    with closing(pika.BlockingConnection(pika.URLParameters(amqp_url))) as connection:
        channel = connection.channel()
        example.declare(channel)
        channel.confirm_delivery()
        channel.basic_publish(example.EXCHANGE, "acme.single_withhold.processing", event, mandatory=True)

    for _ in range(25):
        with (
            closing(pika.BlockingConnection(pika.URLParameters(amqp_url))) as connection,
            pytest.raises(sqlite3.ProgrammingError),
        ):
            example.consume(connection.channel(), no_book)

    with closing(pika.BlockingConnection(pika.URLParameters(amqp_url))) as connection:
        assert next(connection.channel().consume(example.QUEUE))[2] == event
