"""The interim answers that servers and proxies send ahead of a final one (RFC 9110, section 15.2)."""

from dataclasses import dataclass

_REASONS = {100: "Continue", 102: "Processing", 103: "Early Hints"}
#: Longer than any time limit of a test.
NEVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Interim:
    """So many of one status, and the seconds by which they are ahead of the final answer."""

    status: int
    count: int = 1
    ahead_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.count} x {self.status}, {self.ahead_seconds} s ahead"

    @property
    def content(self) -> bytes:
        """As it goes over the wire."""
        reason = _REASONS.get(self.status, "As told")
        return (f"HTTP/1.1 {self.status} {reason}\r\nLink: </a.css>; rel=preload\r\n\r\n").encode() * self.count


#: Each kind, once and several times, at once with the final answer and well ahead of it.
EVERY_INTERIM = [
    *(Interim(status, count) for status in (100, 102, 103, 199) for count in (1, 3)),
    *(Interim(status, count, 0.7) for status in (102, 103) for count in (1, 3)),
]
