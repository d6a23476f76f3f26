"""Logging: one JSON object per line, or coloured lines for a terminal.

Logging never changes what the service does: a line that cannot be rendered or written is counted, and nothing raises.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, TextIO

from service.domain.masking import mask_personal
from service.domain.order_numbers import may_be_card_number
from service.runtime.log_stream import UNRENDERABLE, UNWRITABLE, LineCounts, LogStream

#: Fields whose values must not appear in any log, whoever logs them.
SENSITIVE_FIELDS = frozenset({"args", "bank_card_number", "id_card_number", "key", "mobile", "name", "token"})

#: Fields that hold an order number. That of an event's id is between two slashes.
ORDER_NUMBER_FIELDS = frozenset({"biz_order_no", "pay_order_no", "event_id"})

_MASK = "…"
# Values of these types have no fields of their own.
_PLAIN = frozenset({str, int, float, bool, type(None)})
# Colours of terminals (ECMA-48, section 8.3.117).
_COLOURS = {"info": 32, "warning": 33, "error": 31, "critical": 31}


class Logger:
    """Logs events: a constant name, and its data in fields. `exc_info` adds an exception's traceback.

    The lines go through the logger of the same name in `logging`, as those of libraries do.
    """

    def __init__(self, name: str, fields: Mapping[str, object] | None = None) -> None:
        """`fields` are added to every line."""
        self._logger = logging.getLogger(name)
        self._fields = fields or {}

    def bind(self, **fields: object) -> "Logger":
        """A logger that adds these fields to every line, too."""
        return Logger(self._logger.name, {**self._fields, **fields})

    def info(self, event: str, /, **fields: object) -> None:
        """Log what happens in normal operation."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log what an operator should look at some time."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log what failed."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log the exception that is being handled."""
        self._log(logging.ERROR, event, {**fields, "exc_info": sys.exc_info()})

    def critical(self, event: str, /, **fields: object) -> None:
        """Log a fault of the program."""
        self._log(logging.CRITICAL, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            error = fields.pop("exc_info", None)
            if isinstance(error, BaseException):
                error = (type(error), error, error.__traceback__)
            record = logging.LogRecord(self._logger.name, level, "", 0, event, None, error)
            record.fields = {**self._fields, **fields}
            self._logger.handle(record)


class OrderNumberMask:
    """Masks order numbers that may be bank card numbers in log lines. Safe to use from many threads."""

    def __init__(self) -> None:
        self._patterns: Mapping[str, re.Pattern[str]] = {}

    def show(self, patterns: Mapping[str, re.Pattern[str]]) -> None:
        """Show the order numbers of these merchants where the whole number matches the merchant's pattern."""
        self._patterns = patterns

    def apply(self, line: dict[str, Any]) -> dict[str, Any]:
        """Mask the order numbers of one line in place, and return it."""
        for field in ORDER_NUMBER_FIELDS.intersection(line):
            value = line[field]
            parts = value.split("/") if isinstance(value, str) else [""]
            for number in filter(may_be_card_number, parts):
                # An event's id begins with its merchant.
                pattern = self._patterns.get(parts[0] if field == "event_id" else line.get("merchant", ""))
                if pattern is None or not pattern.fullmatch(number):
                    line[field] = line[field].replace(number, mask_personal(number))
        return line


def configure_logs(
    *,
    stream: TextIO | LogStream,
    human: bool,
    counts: LineCounts | None = None,
    order_numbers: OrderNumberMask | None = None,
) -> None:
    """Send all log lines of this process to `stream`, including those of libraries that use `logging`.

    `human` writes coloured lines instead of JSON. `counts` counts lines that are lost. `order_numbers` knows which
    order numbers are shown although they may be card numbers; None: none. Call it at the start of the process; a second
    call replaces the first. Lines below INFO are dropped, of Alembic those below WARNING, of pika those below CRITICAL.
    """
    mask = order_numbers or OrderNumberMask()
    write = _render_for_terminal if human else _render_json
    handler = _LinesHandler(stream, lambda line: write(mask.apply(line)), counts or LineCounts())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    # pika logs six errors and more for each failed attempt to connect; service.messaging logs one line with the reason.
    # Alembic logs the kind of database twice for each check of the schema.
    for library, level in (("pika", logging.CRITICAL), ("alembic", logging.WARNING)):
        logging.getLogger(library).setLevel(level)


def log_uncaught_errors() -> None:
    """Log uncaught errors of any thread or finalizer, which Python would write to standard error."""

    def log_error(
        where: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # There is no error where Python is short of memory. SystemExit is how a thread may end itself.
        if error is not None and kind is not SystemExit:
            Logger(__name__).critical("error_uncaught", where=where, exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        log_error(f"thread {args.thread.name if args.thread else ''}", *args[:3])

    def in_finalizer(args: "sys.UnraisableHookArgs") -> None:
        # Python 3.14 names a `__del__` only in its message.
        finalized = args.object
        where = args.err_msg if finalized is None else getattr(finalized, "__qualname__", type(finalized).__name__)
        log_error(f"finalizer {where}", args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = partial(log_error, "main thread")
    threading.excepthook, sys.unraisablehook = in_thread, in_finalizer


class _LinesHandler(logging.Handler):
    """Writes every record as one line. A record that cannot be rendered becomes a line that says so."""

    def __init__(self, stream: TextIO | LogStream, render: Callable[[dict[str, Any]], str], counts: LineCounts) -> None:
        super().__init__()
        self._stream = stream
        self._render = render
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._render(_read_record(record))
        except Exception as error:  # noqa: BLE001 - a logged value must not break what is being logged
            self._counts.add(UNRENDERABLE)
            # An object that is logged in place of a text may be what cannot be rendered.
            event = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
            line = _render_json({**_describe(record, event), "unrenderable": type(error).__name__})
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The plain stream of a command raises; the command goes on all the same.
            self._counts.add(UNWRITABLE)


def _read_record(record: logging.LogRecord) -> dict[str, Any]:
    fields: Mapping[str, Any] | None = getattr(record, "fields", None)
    if fields is None:
        line = {**_describe(record, record.getMessage()), "logger": record.name}
    else:
        line = {**_masked(fields), **_describe(record, record.msg)}
    if record.exc_info and record.exc_info[0]:
        # A plain traceback: one with local variables would show sensitive values.
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    return line


def _describe(record: logging.LogRecord, event: str) -> dict[str, Any]:
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
    return {"event": event, "level": record.levelname.lower(), "timestamp": time.removesuffix("+00:00") + "Z"}


def _masked(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if SENSITIVE_FIELDS.isdisjoint(fields) and _PLAIN.issuperset(map(type, fields.values())):
        return fields  # most lines; masking them would be a third of their cost
    return {
        name: _MASK if name in SENSITIVE_FIELDS else _masked(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }


# A value that contains itself raises RecursionError, and so becomes a line that cannot be rendered.
_render_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=repr).encode


def _render_for_terminal(line: dict[str, Any]) -> str:
    time, level, event = (line.pop(name) for name in ("timestamp", "level", "event"))
    exception = line.pop("exception", None)
    fields = "".join(f" \33[36m{name}\33[0m={value!r}" for name, value in line.items())
    text = f"\33[2m{time}\33[0m [\33[{_COLOURS.get(level, 0)}m{level:<8}\33[0m] \33[1m{event}\33[0m{fields}"
    return text if exception is None else f"{text}\n{exception}"
