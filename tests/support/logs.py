"""What the service logs, as a test reads it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """The events that the service logs meanwhile, from INFO on: `event`, `level` and the fields, not masked.

    `exc_info` is the exception, where there is one.
    """
    handler, root = _Recorder(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield handler.events
    finally:
        root.setLevel(before)
        root.removeHandler(handler)


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", None)
        if fields is not None:  # else it is a library's
            error = {"exc_info": record.exc_info[1]} if record.exc_info else {}
            self.events.append({**fields, **error, "event": record.msg, "level": record.levelname.lower()})
