"""Publishers, subscribers and dead letters: of RabbitMQ, or of the embedded queue if the settings name no broker.

Of pika and the embedded queue, only what the settings need is imported.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from service.bootstrap.files import find_data_file
from service.config.settings import Settings
from service.domain.depths import QUEUE, DepthReport
from service.messaging.blocking_publisher import BlockingPublisher
from service.messaging.interface import AsyncPublisher, DeadLetters, Subscriber
from service.messaging.rabbitmq import topology
from service.runtime.clock import now

if TYPE_CHECKING:
    from service.messaging.rabbitmq.publisher import RabbitPublisher
    from service.messaging.sqlite.queue import Depth, EmbeddedQueue
    from service.runtime.metrics.receiver import ReceiverMetrics

_QUEUE_FILE = "callbacks.sqlite3"


def make_callback_publisher(
    settings: Settings, metrics: "ReceiverMetrics", loop: asyncio.AbstractEventLoop
) -> AsyncPublisher:
    """The publisher of a receiver's worker, on its loop: RabbitMQ, with the spool if enabled, or the embedded queue."""
    if not settings.broker.urls:
        from service.messaging.sqlite.queue import EmbeddedPublisher

        return EmbeddedPublisher(queue=_embedded_queue(settings), loop=loop)
    publisher = _rabbit_publisher(settings, "receiver", loop)
    publisher.start()
    if not settings.spool.enabled:
        return publisher
    from service.messaging.sqlite.spool import SpoolingPublisher, SpoolReporter

    forward_to, spool = make_rabbit_publisher(settings, "spool"), make_spool(settings)
    reporter = SpoolReporter(publisher=forward_to, spool=spool, clock=now)

    def show_depth(depth: "Depth") -> None:
        metrics.set_spool_depth(messages=depth.messages, size_bytes=depth.bytes, oldest_at=depth.oldest_at)
        reporter.report(depth)

    return SpoolingPublisher(
        loop=loop,
        inner=publisher,
        forward_to=forward_to,
        spool=spool,
        max_bytes=settings.spool.max_bytes,
        on_depth=show_depth,
    )


def require_queue_files(settings: Settings) -> None:
    """Make the folder of the embedded queue or the spool, if a receiver uses one. Raises DataDirectoryUnusable.

    For a receiver's master: if its workers were the first to see that the folder is unusable, they would only die.
    """
    if not settings.broker.urls or settings.spool.enabled:
        find_data_file(settings, _QUEUE_FILE)


def make_spool(settings: Settings) -> "EmbeddedQueue":
    """The spool of the receivers of this machine, for callbacks while RabbitMQ is away."""
    return _open_queue(find_data_file(settings, "spool.sqlite3"))


def make_subscriber(settings: Settings) -> Subscriber:
    """The subscriber of the ledger's consumer."""
    if not settings.broker.urls:
        from service.messaging.sqlite.queue import EmbeddedSubscriber

        return EmbeddedSubscriber(queue=_embedded_queue(settings))
    from service.messaging.rabbitmq.subscriber import RabbitSubscriber

    return RabbitSubscriber(
        urls=_urls(settings),
        connection_name="ledger",
        prefetch=settings.broker.prefetch,
        dead_letter_publisher=make_rabbit_publisher(settings, "ledger-dead-letters"),
    )


def make_dead_letters(settings: Settings) -> DeadLetters:
    """The dead letters of the queue."""
    if not settings.broker.urls:
        from service.messaging.sqlite.dead_letters import EmbeddedDeadLetters

        return EmbeddedDeadLetters(queue=_embedded_queue(settings))
    from service.messaging.rabbitmq.dead_letters import RabbitDeadLetters

    return RabbitDeadLetters(urls=_urls(settings), publisher=make_rabbit_publisher(settings, "dead-letters-replay"))


def declare_topology(settings: Settings, *, timeout_seconds: float = 10.0) -> None:
    """Declare exchanges, queues and bindings on the broker. Does nothing for the embedded queue. Safe to repeat.

    Raises `BrokerUnavailable`, or `TopologyMismatch` if one of our names is in use with other properties.
    """
    if settings.broker.urls:
        topology.declare(_urls(settings), timeout_seconds=timeout_seconds)


def make_message_counter(settings: Settings) -> Callable[[], Mapping[str, int]]:
    """Counts the messages that wait in each queue. Between two calls, the function holds nothing open."""
    if settings.broker.urls:
        return partial(topology.count_messages, _urls(settings))
    file = find_data_file(settings, _QUEUE_FILE)

    def count() -> Mapping[str, int]:
        with _opened(file) as queue:
            return queue.count_messages()

    return count


def make_queue_report(settings: Settings) -> Callable[[], DepthReport]:
    """Measures how much waits in the callbacks' queue. The function raises `MessagingError`, and holds nothing open."""
    file = None if settings.broker.urls else find_data_file(settings, _QUEUE_FILE)

    def measure() -> DepthReport:
        if file is None:
            name, messages = topology.LEDGER_QUEUE, topology.count_messages(_urls(settings))["ledger"]
            oldest_at = None  # RabbitMQ does not say how old its messages are
        else:
            with _opened(file) as queue:
                name, depth = str(file), queue.depth()
            messages, oldest_at = depth.messages, depth.oldest_at
        return DepthReport(
            reporter=QUEUE, name=f"queue {name}", messages=messages, oldest_at=oldest_at, reported_at=now()
        )

    return measure


def make_rabbit_publisher(settings: Settings, connection_name: str) -> BlockingPublisher:
    """A publisher for callers that wait. It has its own connection, called `connection_name` at the broker."""
    return BlockingPublisher(partial(_rabbit_publisher, settings, connection_name), name=connection_name)


def _rabbit_publisher(settings: Settings, connection_name: str, loop: asyncio.AbstractEventLoop) -> "RabbitPublisher":
    from service.messaging.rabbitmq.publisher import RabbitPublisher

    return RabbitPublisher(
        loop=loop, urls=_urls(settings), connection_name=connection_name, max_in_flight=settings.broker.max_in_flight
    )


def _embedded_queue(settings: Settings) -> "EmbeddedQueue":
    return _open_queue(find_data_file(settings, _QUEUE_FILE))


@contextmanager
def _opened(file: Path) -> Iterator["EmbeddedQueue"]:
    queue = _open_queue(file)
    try:
        yield queue
    finally:
        queue.close(timeout_seconds=0.0)


def _open_queue(file: Path) -> "EmbeddedQueue":
    from service.messaging.sqlite.queue import EmbeddedQueue

    return EmbeddedQueue(path=file)


def _urls(settings: Settings) -> Sequence[str]:
    return [url.reveal() for url in settings.broker.urls]
