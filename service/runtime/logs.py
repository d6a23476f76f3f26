"""Logging: one JSON object per line, or coloured lines for a terminal.

Logging never changes what the service does: a line that cannot be rendered or written is counted, and nothing raises.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

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

_log = structlog.get_logger(__name__)


class OrderNumberMask:
    """A structlog processor that masks order numbers that may be bank card numbers. Safe to use from many threads."""

    def __init__(self) -> None:
        self._patterns: Mapping[str, re.Pattern[str]] = {}

    def show(self, patterns: Mapping[str, re.Pattern[str]]) -> None:
        """Show the order numbers of these merchants where the whole number matches the merchant's pattern."""
        self._patterns = patterns

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Mask the order numbers of one line."""
        for field in ORDER_NUMBER_FIELDS.intersection(event):
            value = event[field]
            parts = value.split("/") if isinstance(value, str) else [""]
            for number in filter(may_be_card_number, parts):
                # An event's id begins with its merchant.
                pattern = self._patterns.get(parts[0] if field == "event_id" else event.get("merchant", ""))
                if pattern is None or not pattern.fullmatch(number):
                    event[field] = event[field].replace(number, mask_personal(number))
        return event


def configure_logs(
    *,
    stream: TextIO | LogStream,
    human: bool,
    counts: LineCounts | None = None,
    order_numbers: OrderNumberMask | None = None,
) -> None:
    """Send all log lines of this process to `stream`, including those of libraries that use `logging`.

    `human` writes coloured lines instead of JSON. `counts` counts lines that are lost. `order_numbers` knows which
    order numbers are shown although they may be card numbers; None: none. Call it once, at the start of the process; a
    second call replaces the first for loggers that are made afterwards. Lines below INFO are dropped, and below WARNING
    for pika and Alembic.
    """
    lines = _Lines(stream, LineCounts() if counts is None else counts)
    own: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_timestamp,
        mask_sensitive_fields,
        order_numbers or OrderNumberMask(),
    ]
    renderers = _human_renderers() if human else _json_renderers()
    structlog.configure(
        processors=[_Unfailing([*own, *renderers], lines)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*own, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = _LinesHandler(lines)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    # pika logs several lines for each reconnect attempt, and service.messaging logs its own. Alembic logs the kind of
    # database twice for each check of the schema.
    for library in ("pika", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)


def log_uncaught_errors() -> None:
    """Log uncaught errors of any thread or finalizer, which Python would write to standard error."""

    def log_error(
        where: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # There is no error where Python is short of memory. SystemExit is how a thread may end itself.
        if error is not None and kind is not SystemExit:
            _log.critical("error_uncaught", where=where, exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        log_error(f"thread {args.thread.name if args.thread else ''}", *args[:3])

    def in_finalizer(args: "sys.UnraisableHookArgs") -> None:
        where = getattr(args.object, "__qualname__", type(args.object).__name__)
        log_error(f"finalizer {where}", args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = partial(log_error, "main thread")
    threading.excepthook, sys.unraisablehook = in_thread, in_finalizer


def mask_sensitive_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor that replaces the value of every sensitive field by `…`, at any depth of mappings."""
    return dict(_masked(event))


def _masked(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if SENSITIVE_FIELDS.isdisjoint(fields) and _PLAIN.issuperset(map(type, fields.values())):
        return fields  # most lines; masking them would be a third of their cost
    return {
        name: _MASK if name in SENSITIVE_FIELDS else _masked(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }


class _Lines:
    """Writes rendered lines to the stream. structlog uses it as a logger."""

    def __init__(self, stream: TextIO | LogStream, counts: LineCounts) -> None:
        self._stream = stream
        self.counts = counts

    def write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The plain stream of a command raises; the command goes on all the same.
            self.counts.add(UNWRITABLE)

    debug = info = warning = error = critical = write


class _Unfailing:
    """Runs structlog's processors. Where they fail, the line becomes one that says so, without its fields."""

    def __init__(self, processors: Sequence[Processor], lines: _Lines) -> None:
        self._processors = processors
        self._lines = lines

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> Any:
        name = event["event"]
        line: Any = event
        try:
            for processor in self._processors:
                line = processor(logger, method, line)
        except Exception as error:  # noqa: BLE001 - a logged value must not break what is being logged
            self._lines.counts.add(UNRENDERABLE)
            return _bare_line(name, method, error)
        return line


class _LinesHandler(logging.Handler):
    """The same for records of `logging`."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - as above
            self._lines.counts.add(UNRENDERABLE)
            line = _bare_line(record.msg, record.levelname.lower(), error)
        self._lines.write(line)


def _bare_line(event: object, level: str, error: Exception) -> str:
    # An object that is logged in place of a text may be what cannot be rendered.
    name = event if isinstance(event, str) else type(event).__name__
    return json.dumps({"event": name, "level": level, "timestamp": _now(), "unrenderable": type(error).__name__})


def _add_timestamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = _now()
    return event


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def _json_renderers() -> list[Processor]:
    # Plain tracebacks: structured ones show local variables, which hold sensitive values.
    return [structlog.processors.format_exc_info, _render_json]


def _human_renderers() -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


# A value that contains itself raises RecursionError, and so becomes a line that cannot be rendered.
_write_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=repr).encode


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _write_json(event)
