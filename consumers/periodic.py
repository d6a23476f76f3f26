"""Work that is repeated at intervals beside a role's own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(work: Callable[[threading.Event], None], *, name: str, every_seconds: float) -> Iterator[None]:
    """Do `work` again and again while the `with` lasts, on a thread called `name`, with pauses in between.

    `work` must not raise. It gets the event that is set at the end; what is under way then is not waited for.
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
