"""What callers did against the gateway's document: in the log, and kept for the admin pages."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from service.domain.masking import mask_personal
from service.gateway.strict_json import JsonValue
from service.sandbox.document_rules import Breach, text_of

_log = structlog.get_logger(__name__)

#: So many are kept; older ones are only counted.
_KEPT_BREACHES = 1000
_LONGEST_TEXT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBreach:
    """One breach of the document, with the request that it was in."""

    #: ISO 8601.
    at: str
    ua: str
    method: str
    request_id: str
    #: The name to switch it off by under `[strictness]`; "" where none does.
    rule: str
    #: The document's heading.
    section: str
    #: What was found and what is allowed, in English. Quotes no value of the request.
    detail: str
    #: Whether the request was refused for it.
    refused: bool


class BreachLog:
    """Every breach that was found. Safe to use from many threads."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._breaches: deque[RecordedBreach] = deque(maxlen=_KEPT_BREACHES)
        self._counts = Counter(breaches_refused=0, breaches_served=0)
        self._lock = threading.Lock()

    def record(self, breach: Breach, envelope: Mapping[str, JsonValue], *, refused: bool) -> None:
        """Log and keep a breach in the request with this envelope."""
        recorded = RecordedBreach(
            at=self._clock().isoformat(),
            ua=_shown(envelope, "ua"),
            method=_shown(envelope, "method"),
            request_id=_shown(envelope, "requestId"),
            rule=breach.rule or "",
            section=breach.section,
            detail=breach.english,
            refused=refused,
        )
        with self._lock:
            self._breaches.append(recorded)
            self._counts["breaches_refused" if refused else "breaches_served"] += 1
        _log.warning(
            "document_rule_broken",
            ua=recorded.ua,
            method=recorded.method,
            request_id=recorded.request_id,
            rule=recorded.rule,
            section=recorded.section,
            detail=recorded.detail,
            refused=refused,
        )

    def breaches(self) -> list[RecordedBreach]:
        """The latest ones, oldest first."""
        with self._lock:
            return list(self._breaches)

    def counts(self) -> dict[str, int]:
        """How many breaches there were, by whether their requests were refused for them."""
        with self._lock:
            return dict(self._counts)


def _shown(envelope: Mapping[str, JsonValue], name: str) -> str:
    # The caller's own words, which may be anything.
    return mask_personal(text_of(envelope, name))[:_LONGEST_TEXT]
