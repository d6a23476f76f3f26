"""The W3C Trace Context header `traceparent` (https://www.w3.org/TR/trace-context/, section 3.2).

It connects all log lines about one callback, from the receiver to the webhook. The receiver keeps the header that the
gateway sends, or makes one. Without traces (see `tracing`) the service passes the header on unchanged.
"""

import random
import re

#: The name of the HTTP header, of the message header and of the CloudEvents extension.
TRACEPARENT = "traceparent"

_PATTERN = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)
# Not sampled: no spans are recorded.
_FLAGS = "00"


def parse_traceparent(header: str | None) -> str | None:
    """The header in version 00; None where it is absent or not well-formed.

    Further parts of a later version are cut off, as section 4.3 asks of implementations of version 00.
    """
    found = _PATTERN.fullmatch(header or "")
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    return f"00-{found['trace']}-{found['parent']}-{found['flags']}"


def new_traceparent() -> str:
    """The header that begins a new trace."""
    # All zeros would be invalid. Ids are not secret, and forked processes are seeded anew.
    trace, parent = random.randrange(1, 2**128), random.randrange(1, 2**64)  # noqa: S311
    return f"00-{trace:032x}-{parent:016x}-{_FLAGS}"


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id, 32 hex digits, for logs; None where the header is absent or not well-formed."""
    parsed = parse_traceparent(traceparent)
    return None if parsed is None else parsed.split("-")[1]
