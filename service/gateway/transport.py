"""One POST to the gateway and its raw answer. TLS is all that vouches for either: answers are not even signed."""

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from service.config.settings import GatewaySettings
from service.config.url_syntax import UrlMalformed, split_http_url
from service.gateway.errors import (
    CallbackRefused,
    CertificatesUnusable,
    NotSent,
    OutcomeUnknown,
    PlainHttpRefused,
    UrlUnusable,
)
from service.gateway.strict_json import JsonValue, read_object
from service.runtime.http_client import HttpClient, NoResponse

_MAX_ANSWER_BYTES = 64 * 1024
_HEADERS = {"Content-Type": "application/json;charset=UTF-8", "Accept": "application/json"}


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
    """Posts to one gateway's URL, each over a connection of its own. Safe to share between threads.

    An answer that belongs to another call could bind one person's card to another person. Certificates are verified,
    against `ca_certificates` alone where they are set; redirects are not followed, and of proxies only `proxy` counts.
    """

    def __init__(self, *, settings: GatewaySettings) -> None:
        """Connects to nothing yet. Raises `UrlUnusable`, `PlainHttpRefused` and `CertificatesUnusable`."""
        try:
            url = urlsplit(settings.url)
            if not settings.allow_plain_http:
                _require_tls(url, through_proxy=settings.proxy is not None)
            url = split_http_url(settings.url)
        except UrlMalformed as error:
            raise UrlUnusable(f"the gateway {error}") from error
        except ValueError:  # which quotes the URL
            raise UrlUnusable("the gateway's url cannot be read") from None
        trust = _trust(settings.ca_certificates) if url.scheme == "https" else None
        self._poster = HttpClient(url, connections=0, most_bytes=_MAX_ANSWER_BYTES, trust=trust, proxy=settings.proxy)

    def post(self, content: bytes, *, timeout_seconds: float) -> RawAnswer:
        """Send one JSON document once; the whole exchange takes `timeout_seconds` at most.

        Raises `NotSent` where the body never left, `OutcomeUnknown` where it did and no whole answer came.
        """
        try:
            answer = self._poster.post(content, headers=_HEADERS, timeout_seconds=timeout_seconds)
        except NoResponse as error:
            if error.begun:
                raise OutcomeUnknown(f"no answer came, or too slowly: {error}") from error
            raise NotSent(f"the gateway cannot be reached: {error}") from error
        if answer.content is None:
            raise OutcomeUnknown(answer.fault)
        return RawAnswer(status=answer.status, content=answer.content)


def _require_tls(url: SplitResult, *, through_proxy: bool) -> None:
    if not _keeps_secrets(url.scheme, url.hostname):
        raise PlainHttpRefused("the gateway's url has to start with https://; plain http is for loopback only")
    if url.scheme == "http" and through_proxy:
        raise PlainHttpRefused("the gateway's url has to start with https://: a proxy can read plain http")


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
