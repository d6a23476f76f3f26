"""The head of a request: request line and headers, as RFC 9112 has them.

gunicorn's parser is the judge of what is a good head. A head in the plain form in which nearly all arrive is read here,
at a tenth of the cost: by one pattern that takes nothing about which gunicorn would have to decide. A test holds the
two to each other.
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
# How the body is framed, or what is to come of the connection: gunicorn decides. A field that may come once only, too.
_JUDGED_FIELDS = frozenset({"TRANSFER-ENCODING", "EXPECT"})
_SINGLE_FIELDS = frozenset({"HOST", "CONTENT-TYPE", "CONTENT-LENGTH", "CONNECTION"})
_LENGTH = re.compile(r"[0-9]{1,15}", re.ASCII)


class HeadMalformed(Exception):
    """The bytes are no good head. `kind` names the error and quotes nothing of the request."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(slots=True, kw_only=True)
class Head:
    """What a head says."""

    method: str
    #: The request's target as it came, and its two parts, still encoded.
    uri: str
    path: str
    query: str
    version: tuple[int, int]
    #: Names in upper case, in the order in which they came; a name may come again.
    headers: Sequence[tuple[str, str]]
    #: How many bytes the body has; None where it comes in chunks.
    body_length: int | None
    #: Whether the client waits for a `100 Continue` before it sends the body.
    expects_continue: bool
    #: Whether the client wants the connection to end with the answer.
    closes: bool


def read_head(data: bytes, cfg: Config) -> Head:
    """`data`: a whole head, with the blank line at its end. Raises `HeadMalformed`."""
    return _read_plain_head(data) or _read_any_head(data, cfg)


def check_trailers(data: bytes, cfg: Config) -> None:
    """Judge the lines between a chunked body's last chunk and its blank line. Raises `HeadMalformed`."""
    if data.count(b"\n") != data.count(b"\r\n"):
        raise HeadMalformed("InvalidHeader")
    try:
        _parse(b"POST / HTTP/1.1\r\n\r\n", cfg).parse_headers(data, from_trailer=True)
    except ParseException as error:
        raise HeadMalformed(type(error).__name__) from error


def _read_plain_head(data: bytes) -> Head | None:
    """What gunicorn would read; None where it has to decide."""
    found = _PLAIN_HEAD.fullmatch(data)
    if found is None:
        return None
    method, path, query, lines = (part.decode("latin-1") if part else "" for part in found.groups())
    headers = []
    singles = {}
    for line in lines.split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.upper(), value.strip(" \t")
        if name in _JUDGED_FIELDS or name in singles:
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
    # Not the address: gunicorn would read it for each request, to see whether it may set headers that none may.
    return Request(cfg, IterUnreader([data]), "")


def _body_length(parsed: Request) -> int | None:
    reader = parsed.body.reader
    if isinstance(reader, LengthReader):
        return int(reader.length)
    codings = [value.lower() for name, value in parsed.headers if name == "TRANSFER-ENCODING"]
    if not isinstance(reader, ChunkedReader) or codings != ["chunked"]:
        # gunicorn takes compressed chunks, and leaves their decoding to the application.
        raise HeadMalformed("UnsupportedTransferCoding")
    return None
