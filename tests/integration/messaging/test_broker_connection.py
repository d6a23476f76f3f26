import threading
from collections.abc import Callable, Iterator

import pytest
from pika.channel import Channel

from service.messaging.loop_thread import LoopThread
from service.messaging.rabbitmq.connection import BrokerConnection
from tests.support.waiting import eventually


class _Watcher:
    """What a publisher or subscriber would be told."""

    def __init__(self) -> None:
        self.opened: list[Channel] = []
        self.downs: list[str] = []
        self.mistake: Exception | None = None

    def on_open(self, channel: Channel) -> None:
        self.opened.append(channel)
        mistake, self.mistake = self.mistake, None
        if mistake is not None:
            raise mistake


@pytest.fixture
def watcher() -> _Watcher:
    return _Watcher()


@pytest.fixture
def thread() -> LoopThread:
    return LoopThread("test-connection")


@pytest.fixture
def hold(watcher: _Watcher, thread: LoopThread) -> Iterator[Callable[[str], BrokerConnection]]:
    made: list[BrokerConnection] = []

    def make(url: str) -> BrokerConnection:
        made.append(
            BrokerConnection(urls=[url], connection_name="test", on_open=watcher.on_open, on_down=watcher.downs.append)
        )
        made[-1].start(thread.start())
        return made[-1]

    yield make
    for connection in made:
        thread.close(connection.close(), timeout_seconds=5)


Hold = Callable[[str], BrokerConnection]


def test_a_callback_that_fails_costs_the_connection_and_not_the_thread(
    hold: Hold, watcher: _Watcher, amqp_url: str
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a mistake")

    connection = hold(amqp_url)
    eventually(lambda: len(watcher.opened) == 1)

    connection.call_soon(fail)

    eventually(lambda: len(watcher.opened) == 2)
    assert watcher.downs == ["internal error: ZeroDivisionError('a mistake')"]


def test_a_failure_while_opening_is_retried(hold: Hold, watcher: _Watcher, amqp_url: str) -> None:
    watcher.mistake = ZeroDivisionError("a mistake")

    hold(amqp_url)

    eventually(lambda: len(watcher.opened) == 2)
    assert len(watcher.downs) == 1


def test_closing_ends_the_thread(hold: Hold, thread: LoopThread, watcher: _Watcher, amqp_url: str) -> None:
    connection = hold(amqp_url)
    eventually(lambda: watcher.opened)

    thread.close(connection.close(), timeout_seconds=5)
    thread.close(connection.close(), timeout_seconds=5)

    assert "test-connection" not in {thread.name for thread in threading.enumerate()}
    connection.call_soon(lambda: None)


def test_closing_is_prompt_while_no_broker_can_be_reached(
    hold: Hold, thread: LoopThread, watcher: _Watcher, free_port: int
) -> None:
    connection = hold(f"amqp://127.0.0.1:{free_port}/")
    eventually(lambda: watcher.downs)

    thread.close(connection.close(), timeout_seconds=5)

    assert "test-connection" not in {thread.name for thread in threading.enumerate()}
