"""Keeps a book of paid orders from the events on RabbitMQ: every payment is booked once, whatever is repeated or late.

Needs Python 3.11 and `pip install pika`. To run it:

    AMQP_URL=amqp://user:password@localhost BOOK=book.sqlite3 python orders_by_queue.py

Kill it whenever you like: what it has not acknowledged is delivered again. Where the book is in a database server, any
number of these processes may share a queue; docs/consumers-guide.md says what to change for PostgreSQL.
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
# The queue is ours: its name, what it is bound to, and how long it may become.
QUEUE = "shop.payments"
DEAD_LETTERS = "shop.payments.dead"
BINDING = "acme.*.*"  # <merchant>.<order_type>.<status>; `#` is everything
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
    """The message is no event of ours; delivering it again would not make it one."""


def take(book: sqlite3.Connection, body: bytes) -> str:
    """Book one event, and say what became of it: its id and its effect are committed together, or neither is."""
    event_id, type_, data = read(body)
    if type_ == TEST:
        return "a test"  # by the operator; it tells of no payment
    order = (data["merchant"], data["biz_order_no"])
    with book:  # one transaction: committed here, rolled back by any exception
        if book.execute("INSERT INTO seen VALUES (?) ON CONFLICT DO NOTHING", (event_id,)).rowcount == 0:
            return "seen before"
        # Of one order the highest sequence holds. Gaps are no reason to wait: they are events that we did not ask for.
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
            return "disputed"  # nothing more is done about this order until a later event says what is true
        # Whatever the type, `status` is what holds now; so payment.corrected needs no code of its own.
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
    """The event's id, its type and its data. Further fields may come one day, and are not ours to refuse."""
    try:
        event = json.loads(body)
        data = event["data"]
        if event["type"] == TEST:
            return event["id"], TEST, data
        {data[name] for name in ("merchant", "biz_order_no", "sequence", "status", "amount", "amount_unit")}
        return event["id"], event["type"], data
    except (ValueError, KeyError, TypeError) as error:
        raise NotAnEvent(repr(error)) from error


def consume(channel: BlockingChannel, book: sqlite3.Connection) -> None:
    """Take events until the connection breaks."""
    channel.queue_declare(DEAD_LETTERS, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        QUEUE,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": DEAD_LETTERS,
        },
    )
    channel.queue_bind(QUEUE, EXCHANGE, BINDING)
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
    """Consume for ever. Trouble with the database ends the process; whoever runs it starts it again."""
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
