"""An answer that is decided once, whoever asks for it and whatever comes later."""

import threading
import time
from collections.abc import Iterator

import pytest

from service.serving.http import PendingResponse, WsgiResponse, call_application
from tests.support.waiting import HANGS_AFTER_SECONDS

DONE = WsgiResponse("200 OK", [("Content-Type", "text/plain")], b"done")
FAILED = WsgiResponse("503 Service Unavailable", [], b"fail")
BROKEN = WsgiResponse("500 Internal Server Error", [], b"broken")


@pytest.fixture
def outcomes() -> list[Exception | None]:
    """What `conclude` was given."""
    return []


@pytest.fixture
def pending(outcomes: list[Exception | None]) -> PendingResponse:
    return make_pending(outcomes)


def make_pending(outcomes: list[Exception | None], *, seconds: float = HANGS_AFTER_SECONDS) -> PendingResponse:
    def conclude(error: Exception | None) -> WsgiResponse:
        outcomes.append(error)
        return DONE if error is None else FAILED

    return PendingResponse(conclude, failure=BROKEN, deadline=time.monotonic() + seconds)


class WsgiServer:
    """What any WSGI server does with what an application returns."""

    def __init__(self, pending: PendingResponse) -> None:
        self.statuses: list[str] = []
        self.chunks: Iterator[bytes] = iter(pending.begin(lambda status, _headers: self.statuses.append(status)))


def test_the_first_settlement_is_the_only_one(pending: PendingResponse, outcomes: list[Exception | None]) -> None:
    told: list[WsgiResponse] = []
    pending.when_concluded(told.append)
    for error in (TimeoutError("no confirm"), None):
        pending.settle(error)
    pending.close()
    assert told == [FAILED]
    assert len(outcomes) == 1


def test_a_listener_that_comes_after_the_settlement_is_called_at_once(pending: PendingResponse) -> None:
    pending.settle(None)
    told: list[WsgiResponse] = []
    pending.when_concluded(told.append)
    assert told == [DONE]


def test_a_client_that_has_gone_makes_it_a_failure_which_a_later_confirm_does_not_change(
    pending: PendingResponse, outcomes: list[Exception | None]
) -> None:
    pending.close()
    pending.settle(None)
    assert [type(error).__name__ for error in outcomes] == ["ResponseAbandoned"]


def test_an_exception_while_it_is_concluded_is_a_definite_failure() -> None:
    def conclude(_error: Exception | None) -> WsgiResponse:
        raise ZeroDivisionError("a mistake")

    pending = PendingResponse(conclude, failure=BROKEN, deadline=time.monotonic() + HANGS_AFTER_SECONDS)
    told: list[WsgiResponse] = []
    pending.when_concluded(told.append)
    pending.settle(None)
    assert told == [BROKEN]


def test_any_other_server_waits_in_its_iteration_and_starts_the_response_then(pending: PendingResponse) -> None:
    server = WsgiServer(pending)
    threading.Timer(0.05, pending.settle, [None]).start()
    assert server.statuses == []
    assert next(server.chunks) == b"done"
    assert server.statuses == ["200 OK"]


def test_an_iteration_gives_up_at_the_deadline(outcomes: list[Exception | None]) -> None:
    pending = make_pending(outcomes, seconds=0.01)
    server = WsgiServer(pending)
    assert b"".join(server.chunks) == b"fail"
    pending.settle(None)
    assert server.statuses == ["503 Service Unavailable"]
    assert len(outcomes) == 1


def test_our_workers_get_the_pending_answer_itself_and_start_nothing(pending: PendingResponse) -> None:
    assert call_application(lambda _environ, start_response: pending.begin(start_response), {}) is pending


def test_threads_that_settle_at_once_conclude_once(outcomes: list[Exception | None]) -> None:
    pending = make_pending(outcomes)
    begin = threading.Barrier(8)

    def settle() -> None:
        begin.wait()
        pending.settle(None)

    threads = [threading.Thread(target=settle) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [None]
