"""Keeps a book of paid orders from the events on RabbitMQ. Each payment is booked once, even if its events repeat.

Needs Python 3.11 and `pip install pika`. To run it:

    AMQP_URL=amqp://user:password@localhost BOOK=book.sqlite3 python orders_by_queue.py

You can kill it at any time: RabbitMQ redelivers what it has not acknowledged. If the book is in a database server, any
number of these processes may share a queue. docs/consumers-guide.md says what to change for PostgreSQL.
"""

import json
import logging
import os
import sqlite3
import time

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

EXCHANGE = "payment.status"
# Our own queue: we choose its name and its binding.
QUEUE = "shop.payments"
DEAD_LETTERS = "shop.payments.dead"
BINDING = "acme.*.*"  # <merchant>.<order_type>.<status>; `#` matches everything
TEST = "payment.test"
PREFETCH = 50
PAUSE_SECONDS = 1.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (event_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS orders (
    merchant TEXT, biz_order_no TEXT, sequence INTEGER NOT NULL, status TEXT NOT NULL,
    disputed BOOLEAN NOT NULL, booked BOOLEAN NOT NULL, PRIMARY KEY (merchant, biz_order_no)
);
CREATE TABLE IF NOT EXISTS bookings (
    event_id TEXT PRIMARY KEY, merchant TEXT NOT NULL, biz_order_no TEXT NOT NULL,
    amount TEXT, amount_unit TEXT, direction INTEGER NOT NULL  -- 1 books the payment, -1 takes it back
);
"""

log = logging.getLogger("orders")


class NotAnEvent(Exception):
    """The message is not one of these events, so it must not be delivered again."""


def take(book: sqlite3.Connection, body: bytes) -> str:
    """Book one event and return what was done. Its id and its effect are committed together."""
    event_id, type_, data = read(body)
    if type_ == TEST:
        return "a test"  # sent by an operator; it is about no payment
    order = (data["merchant"], data["biz_order_no"])
    with book:  # one transaction: committed here, rolled back by any exception
        if book.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (event_id,)).rowcount == 0:
            return "seen before"
        # For each order, the highest sequence counts. Do not wait for gaps: they are events that we did not ask for.
        book.execute("INSERT INTO orders VALUES (?, ?, 0, 'initial', FALSE, FALSE) ON CONFLICT DO NOTHING", order)
        disputed = type_ == "payment.conflicted"
        news = book.execute(
            "UPDATE orders SET sequence = ?, status = ?, disputed = ?"
            " WHERE merchant = ? AND biz_order_no = ? AND sequence < ?",
            (data["sequence"], data["status"], disputed, *order, data["sequence"]),
        )
        if news.rowcount == 0:
            return "late"
        if disputed:
            return "disputed"  # do nothing more about this order until a later event says what is true
        # `status` is the current status, whatever the type. So payment.corrected needs no code of its own.
        paid = data["status"] == "succeeded"
        changed = book.execute(
            "UPDATE orders SET booked = ? WHERE merchant = ? AND biz_order_no = ? AND booked <> ?", (paid, *order, paid)
        )
        if changed.rowcount == 0:
            return "nothing to book"
        booking = (event_id, *order, data["amount"], data["amount_unit"], 1 if paid else -1)
        book.execute("INSERT INTO bookings VALUES (?, ?, ?, ?, ?, ?)", booking)
        return "booked" if paid else "taken back"


def read(body: bytes) -> tuple[str, str, dict]:
    """Return the event's id, type and data. Unknown fields are allowed: later versions may add some."""
    try:
        event = json.loads(body)
        data = event["data"]
        if event["type"] == TEST:
            return event["id"], TEST, data
        {data[name] for name in ("merchant", "biz_order_no", "sequence", "status", "amount", "amount_unit")}
        return event["id"], event["type"], data
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnEvent(repr(error)) from error


def declare(channel: BlockingChannel) -> None:
    """Declare the queue of the events and that of the dead letters. Safe to repeat."""
    # Without a limit of its own, RabbitMQ 4 removes a message from its queue after 20 deliveries. A process that starts
    # again and again while its database is away soon has as many.
    kept = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments=kept)
    dead_letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD_LETTERS}
    channel.queue_declare(QUEUE, durable=True, arguments={**kept, **dead_letters})
    channel.queue_bind(QUEUE, EXCHANGE, BINDING)


def consume(channel: BlockingChannel, book: sqlite3.Connection) -> None:
    """Book events until the connection breaks."""
    declare(channel)
    channel.basic_qos(prefetch_count=PREFETCH)
    log.info("waiting for events")
    for method, properties, body in channel.consume(QUEUE):
        try:
            log.info("%s: %s", properties.message_id, take(book, body))
        except NotAnEvent:
            log.exception("%s: to the dead letters", properties.message_id)
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)  # after the commit, never before


def main() -> None:
    """Consume for ever. An error of the database ends the process; its supervisor starts it again."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("pika").setLevel(logging.WARNING)
    book = sqlite3.connect(os.environ["BOOK"], isolation_level="IMMEDIATE")
    book.executescript(SCHEMA)
    while True:
        try:
            connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
            consume(connection.channel(), book)
        except AMQPError as error:
            log.warning("no broker, or no exchange yet: %r", error)
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
