"""Reads the head of a request: the request line and the headers (RFC 9112).

gunicorn's parser decides what is a valid head. Nearly all heads have a plain form, which is read here with one pattern
at a tenth of the cost. The pattern matches nothing that needs a decision by gunicorn; a test compares the two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

# Within gunicorn's limits: 4,094 bytes for the request line, 100 fields, and 8,190 bytes for each.
_PLAIN_HEAD = re.compile(
    rb"(GET|HEAD|POST) (/(?!/)[\w.~%/-]{0,2000}+)(?:\?([\w.~%/=&+:;,@!$*-]{0,2000}+))? HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]{1,100}+:[ \t]{0,100}+[ -~]{0,4000}+\r\n){0,100}+)\r\n",
    re.ASCII,
)
# Fields that need a decision by gunicorn, and fields that need one if they come more than once.
_COMPLEX_FIELDS = frozenset({"TRANSFER-ENCODING", "EXPECT"})
_SINGLE_FIELDS = frozenset({"HOST", "CONTENT-TYPE", "CONTENT-LENGTH", "CONNECTION"})
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)


class HeadMalformed(Exception):
    """The bytes are not a valid head. `kind` names the error and quotes nothing of the request."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(slots=True, kw_only=True)
class Head:
    """The request line and the headers of a request."""

    method: str
    #: The request target as it was sent, and its two parts, still encoded.
    uri: str
    path: str
    query: str
    version: tuple[int, int]
    #: In the order in which they came, with names in upper case. A name may come more than once.
    headers: Sequence[tuple[str, str]]
    #: The number of bytes in the body; None if it comes in chunks.
    body_length: int | None
    #: Whether the client waits for a `100 Continue` before it sends the body.
    expects_continue: bool
    #: Whether the client wants the connection to end with the answer.
    closes: bool


def read_head(data: bytes, cfg: Config) -> Head:
    """Read a whole head, which includes the blank line at its end. Raises `HeadMalformed`."""
    return _read_plain_head(data) or _read_any_head(data, cfg)


def check_trailers(data: bytes, cfg: Config) -> None:
    """Check the lines between the last chunk and the blank line of a chunked body. Raises `HeadMalformed`."""
    if data.count(b"\n") != data.count(b"\r\n"):
        raise HeadMalformed("InvalidHeader")
    try:
        _parse(b"POST / HTTP/1.1\r\n\r\n", cfg).parse_headers(data, from_trailer=True)
    except ParseException as error:
        raise HeadMalformed(type(error).__name__) from error


def _read_plain_head(data: bytes) -> Head | None:
    """The same as gunicorn would read; None if gunicorn has to decide."""
    found = _PLAIN_HEAD.fullmatch(data)
    if found is None:
        return None
    method, path, query, lines = (part.decode("latin-1") if part else "" for part in found.groups())
    headers = []
    singles = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.upper(), value.strip(" \t")
        if name in _COMPLEX_FIELDS or name in singles:
            return None
        if name in _SINGLE_FIELDS:
            singles[name] = value
        headers.append((name, value))
    length = singles.get("CONTENT-LENGTH", "0")
    if not _LENGTH.fullmatch(length):
        return None
    return Head(
        method=method,
        uri=path if found[3] is None else f"{path}?{query}",
        path=path,
        query=query,
        version=(1, 1),
        headers=headers,
        body_length=int(length),
        expects_continue=False,
        closes=singles.get("CONNECTION", "").lower() == "close",
    )


def _read_any_head(data: bytes, cfg: Config) -> Head:
    try:
        parsed = _parse(data, cfg)
    except (ParseException, NoMoreData) as error:
        raise HeadMalformed(type(error).__name__) from error
    return Head(
        method=parsed.method,
        uri=parsed.uri,
        path=parsed.path,
        query=parsed.query,
        version=parsed.version,
        headers=parsed.headers,
        body_length=_body_length(parsed),
        expects_continue=parsed._expected_100_continue,
        closes=parsed.should_close(),
    )


def _parse(data: bytes, cfg: Config) -> Request:
    # Without the client's address, which gunicorn would check for each request although no proxy is trusted.
    return Request(cfg, IterUnreader([data]), "")


def _body_length(parsed: Request) -> int | None:
    reader = parsed.body.reader
    if isinstance(reader, LengthReader):
        return int(reader.length)
    codings = [value.lower() for name, value in parsed.headers if name == "TRANSFER-ENCODING"]
    if not isinstance(reader, ChunkedReader) or codings != ["chunked"]:
        # gunicorn accepts compressed chunks, and leaves it to the application to decompress them.
        raise HeadMalformed("UnsupportedTransferCoding")
    return None
