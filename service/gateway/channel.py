"""One POST to the gateway and its raw answer. TLS is all that vouches for either: answers are not even signed."""

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from service.deadline import DeadlineHTTPPool, DeadlineHTTPSPool
from service.gateway.errors import (
    CallbackRefused,
    CertificatesUnusable,
    NotSent,
    OutcomeUnknown,
    PlainHttpRefused,
    UrlUnusable,
)
from service.gateway.tokens import JsonValue, read_object
from service.settings import GatewaySettings

_MAX_ANSWER_BYTES = 64 * 1024
_MAX_CONNECTIONS = 16
# A host may have several addresses, and each may take this share of the time limit to connect.
_CONNECT_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What came back, whatever it says."""

    #: Of HTTP.
    status: int
    content: bytes

    def fields(self) -> Mapping[str, JsonValue]:
        """The answer's fields. Raises `OutcomeUnknown` for any HTTP status but 200, and for what is no JSON object."""
        if self.status != 200:
            raise OutcomeUnknown(f"the gateway answered HTTP {self.status}")
        try:
            return read_object(self.content.decode("utf-8-sig")).values
        except UnicodeDecodeError as error:
            raise OutcomeUnknown("the answer is not UTF-8") from error
        except CallbackRefused as error:
            raise OutcomeUnknown(f"the answer is no usable JSON object ({error.detail})") from error


class Channel:
    """Connections to one gateway's URL, kept open between calls. Safe to share between threads.

    Certificates are verified, against `ca_certificates` alone where they are set; redirects are not followed.
    """

    def __init__(self, *, settings: GatewaySettings) -> None:
        """Connects to nothing yet. Raises `UrlUnusable`, `PlainHttpRefused` and `CertificatesUnusable`."""
        url = _split(settings.url)
        if not settings.allow_plain_http and not _keeps_secrets(url.scheme, url.hostname):
            raise PlainHttpRefused("the gateway's url has to start with https://; plain http is for loopback only")
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        host = url.hostname or ""
        self._pool: urllib3.HTTPConnectionPool
        if url.scheme == "https":
            context = _trust(settings.ca_certificates)
            self._pool = DeadlineHTTPSPool(host, url.port, maxsize=_MAX_CONNECTIONS, ssl_context=context)
        else:
            self._pool = DeadlineHTTPPool(host, url.port, maxsize=_MAX_CONNECTIONS)

    def post(self, content: bytes, *, timeout_seconds: float) -> RawAnswer:
        """Send one JSON document once; the whole exchange takes `timeout_seconds` at most.

        Raises `NotSent` where the body never left, `OutcomeUnknown` where it did and no whole answer came.
        """
        body = _Body(content)
        try:
            response = self._pool.urlopen(
                "POST",
                self._target,
                body=body,
                headers={
                    "Content-Type": "application/json;charset=UTF-8",
                    "Content-Length": str(len(content)),
                    "Accept": "application/json",
                },
                timeout=urllib3.Timeout(connect=timeout_seconds * _CONNECT_SHARE, total=timeout_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            text = _read(response)
        except HTTPError as error:
            # Its text names the host and, at times, what was read; the kind alone says enough and quotes nothing.
            if body.begun:
                raise OutcomeUnknown(f"no answer came, or too slowly ({type(error).__name__})") from error
            raise NotSent(f"the gateway cannot be reached ({type(error).__name__})") from error
        return RawAnswer(status=response.status, content=text)

    def close(self) -> None:
        """Let go of idle connections. Safe to call twice."""
        self._pool.close()


class _Body:
    """A body that knows whether any of it was handed to the socket: before that, nothing can have been done."""

    def __init__(self, content: bytes) -> None:
        self.begun = False
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        yield self._content


def _read(response: urllib3.BaseHTTPResponse) -> bytes:
    try:
        content = response.read(_MAX_ANSWER_BYTES + 1)
    except ValueError as error:  # for a chunk of negative size, which urllib3 lets pass
        response.close()
        raise OutcomeUnknown("the answer's chunks cannot be read") from error
    if len(content) > _MAX_ANSWER_BYTES:
        # What is left of it must not be read as the next call's answer.
        response.close()
        raise OutcomeUnknown(f"the answer has more than {_MAX_ANSWER_BYTES} bytes")
    response.release_conn()
    return content


def _split(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        raise UrlUnusable(f"the gateway's url cannot be read: {error}") from error
    return url


def _trust(ca_certificates: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_certificates or None)
    except (ssl.SSLError, ValueError) as error:
        raise CertificatesUnusable("ca_certificates holds no certificates in PEM") from error


def _keeps_secrets(scheme: str, host: str | None) -> bool:
    if host is None or scheme not in ("http", "https"):
        return False
    if scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
