import socket
from collections.abc import Iterator
from typing import Any

import pytest

from service.serving.worker import Connection, WaitingConnections


def connection() -> Connection:
    unused: Any = None
    return Connection(sock=socket.socket(), client=("192.0.2.1", 1), framing=unused, worker=unused)


@pytest.fixture
def three() -> Iterator[Any]:
    connections = [connection() for _ in range(3)]
    yield connections
    for each in connections:
        each._sock.close()


def test_no_connection_is_due_before_its_time_is_up(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=60)
    for each in three:
        waiting.add(each)
    assert waiting.take_due() == []
    assert 59 < waiting.seconds_to_next(at_most=100) <= 60
    assert waiting.seconds_to_next(at_most=1) == 1


def test_those_whose_time_is_up_are_taken_once_and_in_order(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=0)
    for each in three:
        waiting.add(each)
    assert waiting.seconds_to_next(at_most=1) == 0
    assert waiting.take_due() == three
    assert waiting.take_due() == []


def test_a_connection_that_begins_again_waits_behind_the_others(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=0)
    for each in (*three, three[0]):
        waiting.add(each)
    assert waiting.take_due() == [three[1], three[2], three[0]]


def test_a_removed_connection_is_never_due(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=0)
    for each in three:
        waiting.add(each)
    waiting.remove(three[1])
    waiting.remove(three[1])
    assert waiting.take_due() == [three[0], three[2]]


def test_a_cap_shortens_every_time_also_of_those_that_come_later(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=60)
    for each in three:
        waiting.add(each)
    waiting.cap(0.0)
    assert waiting.take_due() == three
    waiting.add(three[0])
    assert waiting.take_due() == [three[0]]


def test_a_cap_lengthens_no_time(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=60)
    waiting.add(three[0])
    before = three[0].deadline
    waiting.cap(before + 100)
    waiting.add(three[1])
    assert three[0].deadline == before
    assert three[1].deadline <= before + 100


def test_the_oldest_can_be_taken_before_its_time(three: Any) -> None:
    waiting = WaitingConnections(timeout_seconds=60)
    assert waiting.take_oldest() is None
    for each in three:
        waiting.add(each)
    assert [waiting.take_oldest() for _ in range(4)] == [*three, None]
