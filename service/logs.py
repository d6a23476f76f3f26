"""How the service writes its log: one JSON object per line, or coloured lines for a person at a terminal."""

import logging
import logging.config
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

#: Fields whose values no log may show, whoever puts them there.
SENSITIVE_FIELDS = frozenset({"args", "bank_card_number", "id_card_number", "key", "mobile", "name", "token"})

_MASK = "…"


def configure_logs(*, stream: TextIO, human: bool) -> None:
    """Send every log line of this process to `stream`, those of libraries that use `logging` included.

    `human` writes coloured lines instead of JSON. Call it once, at the start of the process; a second call replaces the
    first for loggers that are made afterwards. Lines below INFO are dropped, and below
    WARNING for pika and Alembic.
    """
    own: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_sensitive_fields,
    ]
    renderers = _human_renderers() if human else _json_renderers()
    structlog.configure(
        processors=[*own, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*own, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    # Every reconnect attempt is several of pika's lines, and messaging logs its own; Alembic says twice per look at the
    # schema which database it is.
    for library in ("pika", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)


def mask_sensitive_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: puts `…` in the place of every sensitive field's value, at any depth of mappings."""
    return _masked(event)


def _masked(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _MASK if name in SENSITIVE_FIELDS else _masked(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }


def _json_renderers() -> list[Processor]:
    # Plain tracebacks: the structured ones show local variables, and those hold what no log may show.
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]


def _human_renderers() -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
