"""Work that is repeated at intervals beside a role's own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(work: Callable[[threading.Event], None], *, name: str, every_seconds: float) -> Iterator[None]:
    """Repeat `work` while the `with` lasts, on a thread called `name`, with a pause after each time.

    `work` must not raise. It gets an event that is set at the end; what is under way then is not waited for.
    """
    over = threading.Event()

    def run() -> None:
        while True:
            work(over)
            if over.wait(every_seconds):
                return

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        yield
    finally:
        over.set()
