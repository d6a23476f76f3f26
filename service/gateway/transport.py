"""Posts to the gateway over HTTPS. Only TLS authenticates the gateway: its answers are not signed."""

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from service.config.settings import GatewaySettings
from service.config.url_syntax import UrlMalformed, split_http_url
from service.gateway.bodies import JsonValue, read_object
from service.gateway.errors import (
    CallbackRefused,
    CertificatesUnusable,
    NotSent,
    OutcomeUnknown,
    PlainHttpRefused,
    UrlUnusable,
)
from service.runtime.http_client import HttpClient, NoResponse
from service.runtime.tracing import NO_TRACING, Tracing

_MAX_ANSWER_BYTES = 64 * 1024
_HEADERS = {"Content-Type": "application/json;charset=UTF-8", "Accept": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """The gateway's HTTP response."""

    status: int
    content: bytes

    def read_fields(self) -> Mapping[str, JsonValue]:
        """The fields of the JSON object in it. Raises `OutcomeUnknown` if the status is not 200 or it holds none."""
        if self.status != 200:
            raise OutcomeUnknown(f"the gateway answered HTTP {self.status}")
        try:
            return read_object(self.content.decode("utf-8-sig")).values
        except UnicodeDecodeError as error:
            raise OutcomeUnknown("the answer is not UTF-8") from error
        except CallbackRefused as error:
            raise OutcomeUnknown(f"the answer is not a usable JSON object ({error.detail})") from error


class GatewayTransport:
    """Posts to one gateway's URL. Safe to share between threads.

    Each post has a connection of its own: an answer to another call could bind one person's card to another person.
    Certificates are verified, with `ca_certificates` alone if they are set. Redirects are not followed, and only the
    `proxy` of the settings is used.
    """

    def __init__(self, *, settings: GatewaySettings, tracing: Tracing = NO_TRACING) -> None:
        """Does not connect yet. Raises `UrlUnusable`, `PlainHttpRefused` and `CertificatesUnusable`."""
        try:
            url = urlsplit(settings.url)
            if not settings.allow_plain_http:
                _require_tls(url, through_proxy=settings.proxy is not None)
            url = split_http_url(settings.url)
        except UrlMalformed as error:
            raise UrlUnusable(f"the gateway {error}") from error
        except ValueError:  # which quotes the URL
            raise UrlUnusable("the gateway's url cannot be read") from None
        trust = _load_certificates(settings.ca_certificates) if url.scheme == "https" else None
        self._url = url
        self._tracing = tracing
        self._client = HttpClient(url, connections=0, max_bytes=_MAX_ANSWER_BYTES, trust=trust, proxy=settings.proxy)

    def post(self, content: bytes, *, timeout_seconds: float) -> HttpAnswer:
        """Post one JSON document once, within `timeout_seconds`.

        Raises `NotSent` if nothing of the request was sent, and `OutcomeUnknown` if no whole answer came.
        """
        try:
            # The gateway gets no traceparent: it is sent what its document names, and nothing else.
            with self._tracing.call(self._url) as span:
                answer = self._client.post(content, headers=_HEADERS, timeout_seconds=timeout_seconds)
                span.end(status=answer.status)
        except NoResponse as error:
            if error.begun:
                raise OutcomeUnknown(f"no answer came, or too slowly: {error}") from error
            raise NotSent(f"the gateway cannot be reached: {error}") from error
        if answer.content is None:
            raise OutcomeUnknown(answer.fault)
        return HttpAnswer(status=answer.status, content=answer.content)


def _require_tls(url: SplitResult, *, through_proxy: bool) -> None:
    if url.scheme == "https" and url.hostname is not None:
        return
    if url.scheme != "http" or not _is_loopback(url.hostname):
        raise PlainHttpRefused("the gateway's url has to start with https://; plain http is for loopback only")
    if through_proxy:
        raise PlainHttpRefused("the gateway's url has to start with https://: a proxy can read plain http")


def _load_certificates(ca_certificates: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_certificates or None)
    except (ssl.SSLError, ValueError) as error:
        raise CertificatesUnusable("ca_certificates holds no certificates in PEM") from error


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
