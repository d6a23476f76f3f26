"""Queues, filled with what a receiver would put into them, and emptied."""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pika
from pika.adapters.blocking_connection import BlockingChannel
from rich.console import Console

from tests.benchmarks.callbacks import send_at_rate, write_callbacks
from tests.benchmarks.installation import Installation
from tests.benchmarks.measuring import a_progress
from tests.support.callbacks import Callback

#: Of the ledger, as `topology declare` makes it.
OURS = "payment.callbacks.ledger"
#: Of every peer.
THEIRS = "callbacks"

# What was under way when a sender ended comes in later; so a queue is empty when nothing more has come for so long.
_EMPTY_AFTER_SECONDS = 0.5
_ACKED_TOGETHER = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A callback's message, of which the same is made about other orders."""

    queue: str
    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes
    biz_order_no: str


def take_our_pattern(installation: Installation, folder: Path) -> Pattern:
    """Send a callback to a receiver, and take the message that it has published out of the queue."""
    callbacks = write_callbacks(folder / "pattern.txt", 1, prefix="pattern")
    with installation.running("receiver"):
        send_at_rate(installation.url, callbacks, per_second=10, count=1)
    with _channel(installation.environment["AMQP_URL"]) as channel:
        method, properties, body = channel.basic_get(OURS, auto_ack=True)
    assert method is not None, "the receiver has queued nothing"
    assert properties is not None
    assert body is not None
    return Pattern(
        queue=OURS,
        exchange=method.exchange,
        routing_key=method.routing_key,
        properties=properties,
        body=body,
        biz_order_no=callbacks.order_numbers[0],
    )


def make_their_pattern() -> Pattern:
    """What the peers' receivers publish: the callback's fields, as JSON."""
    callback = Callback(biz_order_no="pattern", changes={"channel_response": "交易成功"})
    return Pattern(
        queue=THEIRS,
        exchange="",
        routing_key=THEIRS,
        properties=pika.BasicProperties(delivery_mode=2),
        body=json.dumps(dict(callback.fields)).encode(),
        biz_order_no=callback.biz_order_no,
    )


def fill(amqp_url: str, pattern: Pattern, order_numbers: Sequence[str], *, console: Console) -> None:
    """Publish the pattern's message about each order, and wait until all are in the queue."""
    count(amqp_url, pattern.queue)
    with _channel(amqp_url) as channel, a_progress(console) as progress:
        for order in progress.track(order_numbers, description="filling the queue"):
            if order is order_numbers[-1]:
                # A queue takes what comes over one channel in its order: with the last all are confirmed.
                channel.confirm_delivery()
            body = pattern.body.replace(pattern.biz_order_no.encode(), order.encode())
            channel.basic_publish(pattern.exchange, pattern.routing_key, body, pattern.properties)


def empty(amqp_url: str, queue: str) -> list[str]:
    """Take everything out of a queue: the order numbers, as often as they were in it."""
    order_numbers: list[str] = []
    with _channel(amqp_url) as channel:
        channel.basic_qos(prefetch_count=2 * _ACKED_TOGETHER)
        for method, _, body in channel.consume(queue, inactivity_timeout=_EMPTY_AFTER_SECONDS):
            if method is None or body is None:
                break
            order_numbers.append(json.loads(body)["biz_order_no"])
            if len(order_numbers) % _ACKED_TOGETHER == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
        channel.basic_ack(0, multiple=True)
    return order_numbers


def empty_file(path: Path) -> list[str]:
    """Take everything out of an embedded queue: the order numbers, as often as they were in it."""
    order_numbers: list[str] = []
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        while taken := connection.execute("DELETE FROM message RETURNING body").fetchall():
            order_numbers += [json.loads(body)["biz_order_no"] for (body,) in taken]
            time.sleep(_EMPTY_AFTER_SECONDS)
    return order_numbers


def count(amqp_url: str, queue: str) -> int:
    """How many messages are ready in a queue of the service or of a peer, which is declared where it is not there."""
    with _channel(amqp_url) as channel:
        if queue == THEIRS:
            channel.queue_declare(THEIRS, durable=True, arguments={"x-queue-type": "quorum"})
        return int(channel.queue_declare(queue, passive=True).method.message_count)


@contextmanager
def _channel(amqp_url: str) -> Iterator[BlockingChannel]:
    with closing(pika.BlockingConnection(pika.URLParameters(amqp_url))) as connection:
        yield connection.channel()
