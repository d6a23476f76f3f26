"""Cuts the bytes that a client sends into HTTP/1.1 requests (RFC 9112, sections 6 and 7.1).

The head says how the body is framed. The body is cut out here, whole and decoded. The cost is proportional to its
bytes, however they arrive.
"""

import re
from dataclasses import dataclass

from gunicorn.config import Config
from gunicorn.http.body import CHUNK_EXT_RE

from service.serving.head import Head, HeadMalformed, check_trailers, read_head

_HEAD_END = b"\r\n\r\n"
# A line with this end is none (RFC 9112, section 2.2, lets us refuse it): we would wait for its end in vain.
_BARE_LINE_END = re.compile(rb"(?<!\r)\n")
# RFC 9112, section 7.1: whitespace (BWS) may precede an extension, and nothing else.
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*(;[^\r\n]*))?")
_MAX_CHUNK_LINE_BYTES = 1024
#: Chunks of one request, so that nobody sends 64 KiB byte by byte at a hundred times the cost.
_MAX_CHUNKS = 1024
_MAX_TRAILER_BYTES = 4096

_MALFORMED = 400
_BODY_TOO_LARGE = 413
_HEAD_TOO_LARGE = 431


class RequestRefused(Exception):
    """A request that is too large or malformed. Nothing further on its connection can be read."""

    def __init__(self, status: int, kind: str) -> None:
        """`status`: the status of the response. `kind` names the error and quotes nothing of the request."""
        super().__init__(f"{status} {kind}")
        self.status = status
        self.kind = kind

    @property
    def reason(self) -> str:
        """A constant for logs and metrics."""
        return "malformed" if self.status == _MALFORMED else "too-large"


@dataclass(slots=True, kw_only=True)
class HttpRequest:
    """A whole request."""

    head: Head
    #: Decoded if it came in chunks.
    body: bytes
    #: When its last byte was read (`time.monotonic`).
    arrived_at: float


class RequestFraming:
    """Cuts what one client sends into whole requests. Reads every byte once, however slowly they arrive."""

    def __init__(self, *, cfg: Config, max_head_bytes: int, max_body_bytes: int) -> None:
        """The limit on bodies applies to their content; a chunked body may take up four times that when sent."""
        self._cfg = cfg
        self._max_head_bytes = max_head_bytes
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._begin()

    def _begin(self) -> None:
        self._searched = 0
        self._head: Head | None = None
        # Where the body begins, and its length; None if it is chunked.
        self._body_at = 0
        self._length: int | None = None
        self._chunks: list[bytes] = []
        self._chunked_bytes = 0
        self._wants_continue = False

    @property
    def buffered_bytes(self) -> int:
        """The size of what has arrived of requests that were not taken yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self._buffer += data

    def take_request(self, now: float) -> HttpRequest | None:
        """Remove and return the first request; None while it is incomplete. Raises `RequestRefused`."""
        head = self._head or self._read_head()
        if head is None:
            return None
        if self._length is None:
            end = self._take_chunks()
            if end is None:
                return None
            body = b"".join(self._chunks)
        else:
            end = self._body_at + self._length
            if len(self._buffer) < end:
                return None
            body = bytes(self._buffer[self._body_at : end])
        request = HttpRequest(head=head, body=body, arrived_at=now)
        del self._buffer[:end]
        self._begin()
        return request

    def take_continue(self) -> bool:
        """Whether the client waits for a `100 Continue` before it sends the body; true at most once per request."""
        wanted, self._wants_continue = self._wants_continue, False
        return wanted

    def _read_head(self) -> Head | None:
        end = self._buffer.find(_HEAD_END, self._searched)
        if (end if end >= 0 else len(self._buffer)) > self._max_head_bytes:
            raise RequestRefused(_HEAD_TOO_LARGE, "head too large")
        if end < 0:
            if _BARE_LINE_END.search(self._buffer, self._searched):
                raise RequestRefused(_MALFORMED, "bare line end")
            self._searched = max(len(self._buffer) - len(_HEAD_END) + 1, 0)
            return None
        self._body_at = end + len(_HEAD_END)
        try:
            head = read_head(bytes(self._buffer[: self._body_at]), self._cfg)
        except HeadMalformed as error:
            raise RequestRefused(_MALFORMED, error.kind) from error
        if head.body_length is not None and head.body_length > self._max_body_bytes:
            raise RequestRefused(_BODY_TOO_LARGE, "body too large")
        self._head, self._length, self._wants_continue = head, head.body_length, head.expects_continue
        return head

    def _take_chunks(self) -> int | None:
        """Take the chunks that are complete; returns where the request ends, None while that has not arrived."""
        buffer = self._buffer
        if len(buffer) > self._max_head_bytes + 4 * self._max_body_bytes:
            raise RequestRefused(_BODY_TOO_LARGE, "chunks too large")
        while True:
            line_end = buffer.find(b"\r\n", self._body_at, self._body_at + _MAX_CHUNK_LINE_BYTES)
            if line_end < 0:
                too_long = len(buffer) - self._body_at >= _MAX_CHUNK_LINE_BYTES
                if too_long or _BARE_LINE_END.search(buffer, self._body_at):
                    raise RequestRefused(_MALFORMED, "InvalidChunkSize")
                return None
            size = _read_chunk_size(bytes(buffer[self._body_at : line_end]))
            if size == 0:
                return self._find_end_of_trailers(line_end)
            if self._chunked_bytes + size > self._max_body_bytes:
                raise RequestRefused(_BODY_TOO_LARGE, "body too large")
            if len(self._chunks) >= _MAX_CHUNKS:
                raise RequestRefused(_BODY_TOO_LARGE, "too many chunks")
            begin, end = line_end + 2, line_end + 2 + size
            if len(buffer) < end + 2:
                return None
            if buffer[end : end + 2] != b"\r\n":
                raise RequestRefused(_MALFORMED, "ChunkMissingTerminator")
            self._chunks.append(bytes(buffer[begin:end]))
            self._chunked_bytes += size
            self._body_at = end + 2

    def _find_end_of_trailers(self, size_line_end: int) -> int | None:
        # Without trailers, the end of the size line is the first half of the blank line.
        end = self._buffer.find(_HEAD_END, size_line_end)
        if (end if end >= 0 else len(self._buffer)) - size_line_end > _MAX_TRAILER_BYTES:
            raise RequestRefused(_MALFORMED, "LimitRequestHeaders")
        if end < 0:
            return None
        trailers = bytes(self._buffer[size_line_end + 2 : end])
        if trailers:
            try:
                check_trailers(trailers, self._cfg)
            except HeadMalformed as error:
                raise RequestRefused(_MALFORMED, error.kind) from error
        return end + len(_HEAD_END)


def _read_chunk_size(line: bytes) -> int:
    found = _CHUNK_SIZE.fullmatch(line)
    if found is None:
        raise RequestRefused(_MALFORMED, "InvalidChunkSize")
    if found[2] is not None and not CHUNK_EXT_RE.fullmatch(found[2]):
        raise RequestRefused(_MALFORMED, "InvalidChunkExtension")
    return int(found[1], 16)
