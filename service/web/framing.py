"""Where one HTTP/1.1 request ends in the bytes of a connection (RFC 9112, sections 6 and 7.1).

Only the end is found here; gunicorn's parser reads and judges the request, and it is given exactly these bytes.
"""

import re
from dataclasses import dataclass

_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$")
_TRANSFER_ENCODING = re.compile(rb"(?im)^transfer-encoding[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$")
_EXPECT = re.compile(rb"(?im)^expect[ \t]*:[ \t]*100-continue[ \t]*\r?$")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_MAX_CHUNK_LINE_BYTES = 1024
_MAX_TRAILER_BYTES = 4096


class RequestTooLarge(Exception):
    """A request's head or body goes beyond its bound. Nothing further on its connection can be read."""

    def __init__(self, status: int) -> None:
        """`status`: what HTTP answers to it."""
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class FramedRequest:
    """The bytes of one request."""

    data: bytes
    #: Whether its end is only a guess, because its framing is ambiguous or wrong: the parser will refuse it, and
    #: nothing that comes after it may be read as a request.
    broken: bool


class RequestFraming:
    """Cuts what one client sends into whole requests.

    Every byte is looked at once, however slowly they drip in.
    """

    def __init__(self, *, max_head_bytes: int, max_body_bytes: int) -> None:
        """Bodies are bounded by what they hold; a chunked one may take up four times that on the wire."""
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._searched = 0
        self._head_bytes: int | None = None
        #: The whole request's size; None for a chunked one until its end is found.
        self._total_bytes: int | None = None
        self._chunk_at = 0
        self._chunked_bytes = 0
        self._broken = False
        self._wants_continue = False

    @property
    def empty(self) -> bool:
        """Whether nothing of a request has arrived."""
        return not self._buffer

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer += data

    def take_request(self) -> FramedRequest | None:
        """The first whole request, taken out; None while it is incomplete. Raises `RequestTooLarge`."""
        if self._head_bytes is None and not self._find_head():
            return None
        if self._total_bytes is None:
            self._walk_chunks()
        if self._broken:
            return FramedRequest(data=bytes(self._buffer), broken=True)
        if self._total_bytes is None or len(self._buffer) < self._total_bytes:
            return None
        data = bytes(self._buffer[: self._total_bytes])
        del self._buffer[: self._total_bytes]
        self._begin()
        return FramedRequest(data=data, broken=False)

    def take_continue(self) -> bool:
        """Whether the client waits for a `100 Continue` before it sends the body; true at most once per request."""
        wanted, self._wants_continue = self._wants_continue, False
        return wanted

    def _find_head(self) -> bool:
        end = self._buffer.find(_HEAD_END, self._searched)
        if (end if end >= 0 else len(self._buffer)) > self._max_head_bytes:
            raise RequestTooLarge(431)
        if end < 0:
            self._searched = max(len(self._buffer) - len(_HEAD_END) + 1, 0)
            return False
        self._head_bytes = end + len(_HEAD_END)
        self._read_framing(bytes(self._buffer[: self._head_bytes]))
        return True

    def _read_framing(self, head: bytes) -> None:
        lengths = _CONTENT_LENGTH.findall(head)
        codings = _TRANSFER_ENCODING.findall(head)
        if not codings and not lengths:
            self._total_bytes = len(head)
        elif not codings and len(lengths) == 1 and _DIGITS.fullmatch(lengths[0]):
            if int(lengths[0]) > self._max_body_bytes:
                raise RequestTooLarge(413)
            self._total_bytes = len(head) + int(lengths[0])
        elif not lengths and len(codings) == 1 and codings[0].lower() == b"chunked":
            self._chunk_at = len(head)
        else:
            self._broken = True
            self._total_bytes = len(head)
        self._wants_continue = _EXPECT.search(head) is not None

    def _walk_chunks(self) -> None:
        """Go on from the last chunk that is known to be whole."""
        buffer = self._buffer
        if len(buffer) > self._max_head_bytes + 4 * self._max_body_bytes:
            raise RequestTooLarge(413)
        while True:
            line_end = buffer.find(b"\r\n", self._chunk_at, self._chunk_at + _MAX_CHUNK_LINE_BYTES)
            if line_end < 0:
                self._broken = len(buffer) - self._chunk_at >= _MAX_CHUNK_LINE_BYTES
                return
            size_line = _CHUNK_SIZE.fullmatch(buffer, self._chunk_at, line_end)
            if size_line is None:
                self._broken = True
                return
            size = int(size_line[1], 16)
            if size == 0:
                self._find_end_of_trailers(line_end)
                return
            self._chunked_bytes += size
            if self._chunked_bytes > self._max_body_bytes:
                raise RequestTooLarge(413)
            next_chunk = line_end + 2 + size + 2
            if len(buffer) < next_chunk:
                self._chunked_bytes -= size
                return
            self._chunk_at = next_chunk

    def _find_end_of_trailers(self, size_line_end: int) -> None:
        # An empty trailer section makes the size line's own end the first half of the blank line.
        end = self._buffer.find(_HEAD_END, size_line_end)
        if end >= 0:
            self._total_bytes = end + len(_HEAD_END)
        self._broken = end < 0 and len(self._buffer) - size_line_end > _MAX_TRAILER_BYTES
