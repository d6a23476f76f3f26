"""The embedded queue's file, opened as often as a test likes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.messaging.sqlite.queue import EmbeddedQueue

OpenQueue = Callable[[], EmbeddedQueue]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue's file will be."""
    return tmp_path / "queue.sqlite"


@pytest.fixture
def open_queue(path: Path) -> Iterator[OpenQueue]:
    """Opens the same file again and again, as several processes would; all are closed after the test."""
    opened: list[EmbeddedQueue] = []

    def make() -> EmbeddedQueue:
        opened.append(EmbeddedQueue(path))
        return opened[-1]

    yield make
    for queue in opened:
        queue.close(timeout_seconds=5)
