"""Anything with a `run(stop)`, in a thread of its own."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

_MOST_SECONDS = 30


class Runnable(Protocol):
    """A role of the service."""

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""


@contextmanager
def running(role: Runnable) -> Iterator[threading.Event]:
    """Run it while the `with` lasts; whatever it raised is raised at the end. The value is its `stop`."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(role.run, stop)
        try:
            yield stop
        finally:
            stop.set()
        done.result(timeout=_MOST_SECONDS)
