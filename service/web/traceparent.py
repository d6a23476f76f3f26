"""The W3C Trace Context header `traceparent` (https://www.w3.org/TR/trace-context/, section 3.2)."""

import re

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)


def parse_traceparent(header: str | None) -> str | None:
    """The header as version 00 writes it; None where there is none or it is not well-formed.

    A later version's further parts are cut off, as section 4.3 asks of who knows only version 00.
    """
    found = _TRACEPARENT.fullmatch(header or "")
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    return f"00-{found['trace']}-{found['parent']}-{found['flags']}"
