"""The W3C Trace Context header `traceparent` (https://www.w3.org/TR/trace-context/, section 3.2).

It joins every log line about one callback, from the receiver to the webhook. What the gateway sends is kept; else the
receiver makes one. No spans are made here, so it is handed on unchanged.
"""

import random
import re

#: The name of the HTTP header, of the message header and of the CloudEvents extension.
TRACEPARENT = "traceparent"

_PATTERN = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)
# Not sampled: nobody records spans of it.
_FLAGS = "00"


def parse_traceparent(header: str | None) -> str | None:
    """The header as version 00 writes it; None where there is none or it is not well-formed.

    A later version's further parts are cut off, as section 4.3 asks of who knows only version 00.
    """
    found = _PATTERN.fullmatch(header or "")
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    return f"00-{found['trace']}-{found['parent']}-{found['flags']}"


def new_traceparent() -> str:
    """The first of a new trace."""
    # All zeros are no valid id. Ids are no secrets, and forked processes are seeded anew.
    trace, parent = random.randrange(1, 2**128), random.randrange(1, 2**64)  # noqa: S311
    return f"00-{trace:032x}-{parent:016x}-{_FLAGS}"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace's id, 32 hex digits, for logs; None where the header is absent or not well-formed."""
    parsed = parse_traceparent(traceparent)
    return None if parsed is None else parsed.split("-")[1]
