import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.messaging.errors import ConfirmTimeout, NotConfirmed, QueueFileFailed, SpoolFull
from service.messaging.sqlite.dead_letters import EmbeddedDeadLetters
from service.messaging.sqlite.queue import EmbeddedQueue, EmbeddedSubscriber
from tests.support.messages import embedded_publisher, make_message
from tests.support.waiting import HANGS_AFTER_SECONDS

OpenQueue = Callable[[], EmbeddedQueue]

# Publishes for ever, and writes each id once the publish has returned.
_WRITER = """
import sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from service.messaging.sqlite.queue import EmbeddedQueue
from tests.support.messages import embedded_publisher, make_message

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
publisher = embedded_publisher(EmbeddedQueue(path))

def publish(number):
    publisher.publish(make_message(f"{name}-{number}"), timeout_seconds=20)
    sys.stdout.write(f"{name}-{number}\\n")
    sys.stdout.flush()

with ThreadPoolExecutor(4) as threads:
    list(threads.map(publish, range(count)))
publisher.close(timeout_seconds=5)
"""


def _startwriter(path: Path, name: str, *, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def _publish(queue: EmbeddedQueue, *ids: str) -> None:
    publisher = embedded_publisher(queue)
    for message_id in ids:
        publisher.publish(make_message(message_id), timeout_seconds=5)


def _receive_ids(subscriber: EmbeddedSubscriber, *, max_messages: int = 100) -> list[str]:
    deliveries = subscriber.receive(max_messages=max_messages, wait_seconds=0.1)
    return [delivery.message.message_id for delivery in deliveries]


def _drain(queue: EmbeddedQueue) -> list[str]:
    subscriber = EmbeddedSubscriber(queue=queue)
    seen: list[str] = []
    while deliveries := subscriber.receive(max_messages=500, wait_seconds=0):
        seen.extend(delivery.message.message_id for delivery in deliveries)
        subscriber.acknowledge(deliveries)
    return seen


def test_what_was_taken_out_is_gone_from_the_file_however_sqlite_was_compiled(
    open_queue: OpenQueue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def as_compiled(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", as_compiled)
    queue = open_queue()
    _publish(queue, "one-of-a-kind")
    assert _drain(queue) == ["one-of-a-kind"]
    queue.close(timeout_seconds=5)

    assert b"one-of-a-kind" not in path.read_bytes()


def test_what_is_confirmed_survives_a_power_cut(open_queue: OpenQueue) -> None:
    def read_settings(connection: sqlite3.Connection) -> list[Any]:
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert open_queue().writer.write(read_settings, timeout_seconds=5) == ["wal", 2]


def test_a_message_comes_out_as_it_went_in(open_queue: OpenQueue) -> None:
    _publish(open_queue(), "one")

    [delivery] = EmbeddedSubscriber(queue=open_queue()).receive(max_messages=10, wait_seconds=1)

    assert delivery.message == make_message("one")
    assert delivery.previous_deliveries == 0


def test_messages_come_out_in_order_and_stay_away_once_acknowledged(open_queue: OpenQueue) -> None:
    _publish(open_queue(), "one", "two", "three")
    subscriber = EmbeddedSubscriber(queue=open_queue())

    deliveries = subscriber.receive(max_messages=2, wait_seconds=1)
    subscriber.acknowledge(deliveries)
    subscriber.close()

    assert [delivery.message.message_id for delivery in deliveries] == ["one", "two"]
    assert _receive_ids(EmbeddedSubscriber(queue=open_queue())) == ["three"]


def test_a_leased_message_is_not_leased_again(open_queue: OpenQueue) -> None:
    _publish(open_queue(), "one")
    first, second = EmbeddedSubscriber(queue=open_queue()), EmbeddedSubscriber(queue=open_queue())

    assert _receive_ids(first) == ["one"]
    assert _receive_ids(second) == []


def test_a_lease_that_ran_out_hands_the_message_to_another_and_voids_the_first_ones_acknowledgement(
    open_queue: OpenQueue,
) -> None:
    _publish(open_queue(), "one")
    slow = EmbeddedSubscriber(queue=open_queue(), lease_seconds=0)
    late = slow.receive(max_messages=1, wait_seconds=1)

    [again] = EmbeddedSubscriber(queue=open_queue()).receive(max_messages=1, wait_seconds=1)
    slow.acknowledge(late)

    assert again.previous_deliveries == 1
    assert open_queue().depth().messages == 1


def test_what_a_subscriber_still_holds_is_not_handed_to_it_again(open_queue: OpenQueue) -> None:
    queue = open_queue()
    _publish(queue, "held")
    subscriber = EmbeddedSubscriber(queue=open_queue(), lease_seconds=0)
    held = subscriber.receive(max_messages=1, wait_seconds=1)
    _publish(queue, "fresh")

    assert _receive_ids(subscriber) == ["fresh"]
    subscriber.acknowledge(held)
    assert queue.depth().messages == 1


def test_released_messages_go_to_another_at_once(open_queue: OpenQueue) -> None:
    _publish(open_queue(), "one")
    subscriber = EmbeddedSubscriber(queue=open_queue())
    subscriber.release(subscriber.receive(max_messages=1, wait_seconds=1))

    assert _receive_ids(EmbeddedSubscriber(queue=open_queue())) == ["one"]


def test_closing_gives_unsettled_messages_back(open_queue: OpenQueue) -> None:
    _publish(open_queue(), "one")
    subscriber = EmbeddedSubscriber(queue=open_queue())
    assert _receive_ids(subscriber) == ["one"]

    subscriber.close()
    subscriber.close()

    assert _receive_ids(EmbeddedSubscriber(queue=open_queue())) == ["one"]


def test_a_waiting_consumer_wakes_when_another_process_publishes(open_queue: OpenQueue) -> None:
    subscriber = EmbeddedSubscriber(queue=open_queue())
    received: list[str] = []
    consumer = threading.Thread(
        target=lambda: received.extend(
            delivery.message.message_id for delivery in subscriber.receive(max_messages=1, wait_seconds=30)
        )
    )
    consumer.start()

    _publish(open_queue(), "one")

    consumer.join(HANGS_AFTER_SECONDS)
    assert received == ["one"]


def test_dead_letters_are_listed_replayed_and_dropped(open_queue: OpenQueue) -> None:
    queue = open_queue()
    _publish(queue, "one", "two", "three")
    subscriber = EmbeddedSubscriber(queue=queue)
    for delivery in subscriber.receive(max_messages=10, wait_seconds=1):
        subscriber.dead_letter(delivery, reason=f"bad {delivery.message.message_id}")
    dead_letters = EmbeddedDeadLetters(queue=queue)

    letters = dead_letters.list(limit=2)
    assert [(letter.id, letter.reason) for letter in letters] == [("one", "bad one"), ("two", "bad two")]
    assert letters[0].message == make_message("one")
    assert letters[0].died_at.tzinfo is not None

    assert dead_letters.replay(["one", "unknown"]) == {"one"}
    assert dead_letters.drop(["two", "one"]) == {"two"}
    assert [letter.id for letter in dead_letters.list(limit=10)] == ["three"]
    assert _receive_ids(subscriber) == ["one"]


def test_threads_publish_together(open_queue: OpenQueue) -> None:
    publisher = embedded_publisher(open_queue())

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: publisher.publish(make_message(f"m{n}"), timeout_seconds=10), range(500)))

    assert sorted(_drain(open_queue())) == sorted(f"m{number}" for number in range(500))


def test_processes_publish_together_and_nothing_is_lost_or_doubled(open_queue: OpenQueue, path: Path) -> None:
    writers = [_startwriter(path, f"w{number}", count=100) for number in range(3)]
    for writer in writers:
        writer.communicate(timeout=HANGS_AFTER_SECONDS)

    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert sorted(_drain(open_queue())) == sorted(f"w{writer}-{number}" for writer in range(3) for number in range(100))


def test_every_publish_that_returned_before_a_kill_is_there(open_queue: OpenQueue, path: Path) -> None:
    writer = _startwriter(path, "w", count=100_000)
    assert writer.stdout is not None
    returned = [writer.stdout.readline().strip() for _ in range(200)]

    os.kill(writer.pid, signal.SIGKILL)
    returned += [
        line.strip() for line in writer.communicate(timeout=HANGS_AFTER_SECONDS)[0].splitlines() if line.endswith("\n")
    ]

    seen = _drain(open_queue())
    assert len(seen) == len(set(seen))
    assert set(returned) <= set(seen)


def test_a_bound_in_bytes_is_kept(open_queue: OpenQueue) -> None:
    queue = open_queue()
    embedded_publisher(queue, max_bytes=1_000).publish(make_message("one"), timeout_seconds=5)

    with pytest.raises(SpoolFull):
        embedded_publisher(queue, max_bytes=queue.depth().bytes).publish(make_message("two"), timeout_seconds=5)
    assert _drain(queue) == ["one"]
    assert queue.depth().bytes == 0


def test_the_files_are_readable_by_their_owner_alone(open_queue: OpenQueue, path: Path) -> None:
    old_mask = os.umask(0)
    try:
        _publish(open_queue(), "one")
    finally:
        os.umask(old_mask)

    files = list(path.parent.iterdir())
    assert len(files) == 4  # with SQLite's own log and index, and the lock file
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_another_holds_locked_is_a_timely_failure_and_then_works_again(
    open_queue: OpenQueue, path: Path
) -> None:
    queue = open_queue()
    _publish(queue, "one")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def locked() -> None:
        with pytest.raises(ConfirmTimeout, match="another process holds its lock"):
            embedded_publisher(queue).publish(make_message("two"), timeout_seconds=1.2)

    try:
        locked()
    finally:
        other.close()

    _publish(queue, "three")


def test_a_damaged_file_is_named(open_queue: OpenQueue, path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)

    with pytest.raises(QueueFileFailed, match=r"queue\.sqlite.*not a database"):
        _publish(open_queue(), "one")


def test_a_file_deleted_in_use_confirms_no_message_that_would_be_lost(open_queue: OpenQueue, path: Path) -> None:
    queue, reader = open_queue(), open_queue()
    _publish(queue, "a")
    assert reader.has_ready()
    for file in path.parent.glob("queue.sqlite*"):
        file.unlink()

    with pytest.raises(QueueFileFailed):
        _publish(queue, "b")
    with pytest.raises(QueueFileFailed):
        reader.has_ready()
    _publish(queue, "c")

    assert reader.has_ready()
    assert _drain(open_queue()) == ["c"]


def test_a_clock_set_back_does_not_prolong_the_lease_of_a_killed_consumer(
    open_queue: OpenQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = open_queue()
    _publish(queue, "a")
    [held] = queue.lease(max_messages=1, lease_seconds=30, timeout_seconds=5)
    assert not queue.has_ready()
    an_hour_ago = time.time() - 3600
    monkeypatch.setattr("service.messaging.sqlite.queue.time.time", lambda: an_hour_ago)

    assert queue.has_ready()
    [again] = queue.lease(max_messages=1, lease_seconds=30, timeout_seconds=5)
    assert (again.row, again.previous_leases) == (held.row, 1)
    assert not queue.has_ready()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    queue = EmbeddedQueue(tmp_path / "file" / "queue.sqlite")

    with pytest.raises(QueueFileFailed, match="file"):
        embedded_publisher(queue).publish(make_message("one"), timeout_seconds=5)
    queue.close(timeout_seconds=5)


def test_a_file_of_a_later_release_is_refused(open_queue: OpenQueue, path: Path) -> None:
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 2")
    later.close()

    with pytest.raises(QueueFileFailed, match="is of version 2"):
        _publish(open_queue(), "one")


def test_a_full_disk_is_a_clear_failure_and_publishing_goes_on_when_there_is_space(open_queue: OpenQueue) -> None:
    queue = open_queue()
    _publish(queue, "one")
    # SQLite answers as for a full disk when a file may not grow.
    queue.writer.write(lambda connection: connection.execute("PRAGMA max_page_count = 1"), timeout_seconds=5)

    def publish_much() -> None:
        for number in range(200):
            _publish(queue, f"m{number}")

    with pytest.raises(QueueFileFailed, match="disk is full"):
        publish_much()

    _publish(queue, "after")


def test_a_closed_queue_refuses(open_queue: OpenQueue) -> None:
    queue = open_queue()
    _publish(queue, "one")
    queue.close(timeout_seconds=5)
    queue.close(timeout_seconds=5)

    with pytest.raises(NotConfirmed, match="closed"):
        _publish(queue, "two")
