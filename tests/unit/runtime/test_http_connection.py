"""What one connection takes for an answer, over a pair of connected sockets."""

import socket
import time
from collections.abc import Iterator

import pytest

from service.runtime.http_connection import Connection
from tests.support.waiting import HANGS_AFTER_SECONDS

EARLY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with theirs:
        yield connection, theirs
    connection.close()


def deadline() -> float:
    return time.monotonic() + HANGS_AFTER_SECONDS


def test_a_new_connection_is_quiet_and_stays_so(ends: tuple[Connection, socket.socket]) -> None:
    assert [ends[0].is_quiet() for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("early", [b"x", EARLY, EARLY * 1000])
def test_a_connection_on_which_bytes_wait_is_not_quiet(ends: tuple[Connection, socket.socket], early: bytes) -> None:
    connection, theirs = ends
    theirs.sendall(early)
    assert [connection.is_quiet() for _ in range(3)] == [False] * 3


def test_a_connection_that_the_other_side_has_closed_is_not_quiet(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    theirs.shutdown(socket.SHUT_WR)
    assert [connection.is_quiet() for _ in range(3)] == [False] * 3


def test_a_connection_is_quiet_again_after_an_answer_that_was_read(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends
    for _ in range(2):
        theirs.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        response = connection.receive(method="POST", deadline=deadline())
        assert (response.status, response.leaves_connection_usable, response.read()) == (200, False, b"ok")
        assert response.leaves_connection_usable
        assert connection.is_quiet()


@pytest.mark.parametrize("more", [b"\n", EARLY])
def test_what_was_received_together_with_an_answer_is_noticed_after_it(
    ends: tuple[Connection, socket.socket], more: bytes
) -> None:
    connection, theirs = ends
    theirs.sendall(EARLY + more)
    response = connection.receive(method="POST", deadline=deadline())
    response.read()
    assert response.leaves_connection_usable
    assert not connection.is_quiet()


def test_a_request_that_is_not_taken_ends_at_the_deadline(ends: tuple[Connection, socket.socket]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].send(b"x" * 100_000_000, deadline=time.monotonic() + 0.1)


def test_a_response_that_is_given_up_half_way_is_closed_without_an_error(
    ends: tuple[Connection, socket.socket],
) -> None:
    """Python may close what is behind it first. Since 3.13, it reports an error of closing."""
    connection, theirs = ends
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
    response = connection.receive(method="POST", deadline=deadline())
    connection._reader.raw.close()
    response.close()
    assert response.closed
