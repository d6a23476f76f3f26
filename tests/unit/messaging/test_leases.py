"""What becomes of leased messages when their consumer dies, hangs, or never hears of them."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from service.messaging.errors import ConfirmTimeout
from service.messaging.interface import Delivery
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from tests.support.messages import embedded_publisher, make_message
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

OpenQueue = Callable[[], EmbeddedQueue]

# Takes all there is, says so, and never settles it.
_CONSUMER = """
import sys, time
from pathlib import Path
from service.messaging.interface import Delivery
from service.messaging.sqlite.queue import EmbeddedSubscriber
from service.messaging.sqlite.queue import EmbeddedQueue

subscriber = EmbeddedSubscriber(queue=EmbeddedQueue(Path(sys.argv[1])), lease_seconds=60)
while True:
    for delivery in subscriber.receive(max_messages=100, wait_seconds=1):
        print(delivery.message.message_id, flush=True)
"""

StartConsumer = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start_consumer(path: Path) -> Iterator[StartConsumer]:
    """Starts a consumer as a process of its own; all are killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", _CONSUMER, str(path)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]))
        return started[-1]

    yield start
    for consumer in started:
        consumer.kill()
        consumer.communicate()


def _publish(queue: EmbeddedQueue, *ids: str) -> None:
    publisher = embedded_publisher(queue)
    for message_id in ids:
        publisher.publish(make_message(message_id), timeout_seconds=10)


def _await_taken(consumer: "subprocess.Popen[str]", *ids: str) -> None:
    assert consumer.stdout is not None
    assert [consumer.stdout.readline().strip() for _ in ids] == list(ids)


def _receive(subscriber: EmbeddedSubscriber, count: int, *, max_messages: int = 100) -> list[str]:
    """The ids of as many messages, which have all been handed out once before."""
    deliveries: list[Delivery] = []

    def enough() -> bool:
        deliveries.extend(subscriber.receive(max_messages=max_messages, wait_seconds=0.1))
        return len(deliveries) >= count

    eventually(enough)
    assert {delivery.previous_deliveries for delivery in deliveries} == {1}
    return [delivery.message.message_id for delivery in deliveries]


def test_what_a_killed_consumer_held_is_anothers_at_once(open_queue: OpenQueue, start_consumer: StartConsumer) -> None:
    _publish(open_queue(), "one", "two")
    consumer = start_consumer()
    _await_taken(consumer, "one", "two")

    consumer.send_signal(signal.SIGKILL)

    assert _receive(EmbeddedSubscriber(queue=open_queue()), 2) == ["one", "two"]


def test_what_a_frozen_consumer_holds_stays_its_own_until_it_dies(
    open_queue: OpenQueue, start_consumer: StartConsumer
) -> None:
    queue = open_queue()
    _publish(queue, "one")
    consumer = start_consumer()
    _await_taken(consumer, "one")
    consumer.send_signal(signal.SIGSTOP)
    subscriber = EmbeddedSubscriber(queue=queue)

    assert not queue.has_ready()
    _publish(queue, "two")
    [fresh] = subscriber.receive(max_messages=100, wait_seconds=HANGS_AFTER_SECONDS)
    assert fresh.message.message_id == "two"

    consumer.kill()
    assert _receive(subscriber, 1) == ["one"]


def test_of_many_survivors_one_takes_over_each_message(open_queue: OpenQueue, start_consumer: StartConsumer) -> None:
    ids = [f"m{number:02}" for number in range(40)]
    _publish(open_queue(), *ids)
    consumer = start_consumer()
    _await_taken(consumer, *ids)
    survivors = [EmbeddedSubscriber(queue=open_queue()) for _ in range(4)]

    consumer.kill()
    with ThreadPoolExecutor(len(survivors)) as threads:
        shares = threads.map(lambda survivor: _receive(survivor, 5, max_messages=5), survivors)
        taken = [message_id for share in shares for message_id in share]

    rest = EmbeddedSubscriber(queue=open_queue()).receive(max_messages=100, wait_seconds=10)
    assert sorted([*taken, *(delivery.message.message_id for delivery in rest)]) == ids


def test_what_a_closed_queue_had_leased_is_anothers(open_queue: OpenQueue) -> None:
    queue = open_queue()
    _publish(queue, "one")
    queue.lease(max_messages=1, lease_seconds=60, timeout_seconds=10)
    other = open_queue()
    assert not other.has_ready()

    queue.close(timeout_seconds=10)

    assert other.has_ready()


def test_holders_whose_lock_file_was_deleted_are_not_taken_for_dead(open_queue: OpenQueue, path: Path) -> None:
    old, new = open_queue(), open_queue()
    _publish(old, "one", "two")
    old.lease(max_messages=1, lease_seconds=60, timeout_seconds=10)
    path.with_name(path.name + ".leases").unlink()

    [second] = new.lease(max_messages=2, lease_seconds=60, timeout_seconds=10)

    assert second.message.message_id == "two"
    assert not old.has_ready()
    assert not new.has_ready()


def test_a_lease_that_names_no_holder_runs_out_by_itself(open_queue: OpenQueue, path: Path) -> None:
    queue = open_queue()
    _publish(queue, "one")
    # As a release before this one leased, and as a system without such locks does.
    _lease_without_holder(path, seconds=50)
    assert not queue.has_ready()

    _lease_without_holder(path, seconds=-1)
    assert _receive(EmbeddedSubscriber(queue=queue), 1) == ["one"]


def _lease_without_holder(path: Path, *, seconds: int) -> None:
    """Let the lease of each message end in so many seconds."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE message SET lease = 'b5f0', leased_until = unixepoch() + ?, deliveries = 1", (seconds,)
        )
        connection.commit()


def test_a_lease_that_timed_out_is_not_taken_once_the_lock_is_free(open_queue: OpenQueue, path: Path) -> None:
    queue = open_queue()
    _publish(queue, "one")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(ConfirmTimeout):
            queue.lease(max_messages=1, lease_seconds=60, timeout_seconds=0.2)
    finally:
        other.close()
    embedded_publisher(queue).publish(make_message("two"), timeout_seconds=10)  # comes after it in line

    leased = open_queue().lease(max_messages=2, lease_seconds=60, timeout_seconds=10)

    assert [item.message.message_id for item in leased] == ["one", "two"]


def test_a_lease_that_reached_a_slow_disk_after_its_caller_had_left_is_ended(open_queue: OpenQueue) -> None:
    queue = open_queue()
    _publish(queue, "one")
    other = open_queue()
    begun, first_in_line, told = threading.Event(), threading.Event(), threading.Event()

    def keep_others_waiting(_connection: object) -> None:
        begun.set()
        first_in_line.wait(HANGS_AFTER_SECONDS)

    with ThreadPoolExecutor(3) as threads:
        # Both the lease and what keeps its commit wait for this one, and come to the disk together.
        threads.submit(queue.writer.write, keep_others_waiting, timeout_seconds=20)
        assert begun.wait(HANGS_AFTER_SECONDS)
        lease = threads.submit(queue.lease, max_messages=1, lease_seconds=60, timeout_seconds=3)
        eventually(lambda: len(queue.writer._waiting) == 1)
        threads.submit(queue.writer.write, lambda _: told.wait(HANGS_AFTER_SECONDS), timeout_seconds=20)
        eventually(lambda: len(queue.writer._waiting) == 2)
        first_in_line.set()
        with pytest.raises(ConfirmTimeout):
            lease.result(timeout=HANGS_AFTER_SECONDS)
        told.set()

    # Handed out once before: it was leased indeed.
    assert _receive(EmbeddedSubscriber(queue=other), 1) == ["one"]
