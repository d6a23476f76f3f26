"""Events as signed HTTP webhooks, after the Standard Webhooks convention (https://www.standardwebhooks.com)."""

import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from urllib.parse import urlsplit

from standardwebhooks import Webhook
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Timeout
from urllib3.exceptions import HTTPError

from consumers.sinks.retry_after import parse_retry_after
from consumers.sinks.sink import DeliveryFailed, EndpointGone, OutgoingEvent
from service.deadline import DeadlineHTTPPool, DeadlineHTTPSPool
from service.events import CONTENT_TYPE
from service.settings import EndpointSettings
from service.traceparent import TRACEPARENT

_GONE = 410
# A host may have several addresses, and each may take this share of the time limit to connect.
_CONNECT_SHARE = 0.5
# Of a response only the status counts. This much is read so that the connection can be used again; a longer one is cut.
_MOST_RESPONSE_BYTES = 16 * 1024


class WebhookSink:
    """Posts the stored event to one URL, signed with each of the endpoint's secrets.

    `webhook-id` is the event's id. The convention signs `id.timestamp.body` and so forbids a dot in the id; ours
    percent-encode it. `clock` gives the aware time that `webhook-timestamp` says.

    The whole exchange takes `timeout_seconds` at most, however slowly the response drips in. Redirects are refused,
    since a URL that moved is for an operator to change, and certificates are verified.
    """

    def __init__(self, *, endpoint: EndpointSettings, clock: Callable[[], datetime]) -> None:
        self._signers = [Webhook(secret.reveal()) for secret in endpoint.secrets]
        self._clock = clock
        self._timeout_seconds = endpoint.timeout_seconds
        url = urlsplit(endpoint.url)
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._pool = _pool(url.scheme, url.hostname or "", url.port, connections=endpoint.concurrency)
        self._user_agent = f"payment-callbacks/{version('payment-callbacks')}"

    def send(self, event: OutgoingEvent) -> str:
        """Post the event; see `Sink.send`. Any 2xx is success, whatever the body says."""
        timeout = Timeout(connect=self._timeout_seconds * _CONNECT_SHARE, total=self._timeout_seconds)
        try:
            response = self._pool.urlopen(
                "POST",
                self._target,
                body=event.body,
                headers=self._headers(event),
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except HTTPError as error:
            # Its text names the host and, at times, what was read; the kind alone says enough and quotes nothing.
            raise DeliveryFailed(f"no answer: {_kind(error)}") from error
        _finish(response)
        self._judge(response)
        return f"the endpoint answered {response.status}"

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()

    def _headers(self, event: OutgoingEvent) -> Mapping[str, str]:
        now = self._clock()
        body = event.body.decode()
        signatures = [signer.sign(event.id, now, body) for signer in self._signers]
        trace = {} if event.traceparent is None else {TRACEPARENT: event.traceparent}
        return {
            **trace,
            "content-type": CONTENT_TYPE,
            "user-agent": self._user_agent,
            "webhook-id": event.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _judge(self, response: BaseHTTPResponse) -> None:
        status = response.status
        if 200 <= status < 300:
            return
        if status == _GONE:
            raise EndpointGone("the endpoint answered 410 Gone")
        if 300 <= status < 400:
            raise DeliveryFailed(f"the endpoint answered {status}: redirects are not followed, change its url")
        retry_after = parse_retry_after(response.headers.get("retry-after"), now=self._clock())
        raise DeliveryFailed(f"the endpoint answered {status}", retry_after_seconds=retry_after)


def _pool(scheme: str, host: str, port: int | None, *, connections: int) -> HTTPConnectionPool:
    if scheme == "https":
        # One context for all connections: making it reads every trusted certificate.
        return DeadlineHTTPSPool(host, port, maxsize=connections, ssl_context=ssl.create_default_context())
    return DeadlineHTTPPool(host, port, maxsize=connections)


def _finish(response: BaseHTTPResponse) -> None:
    """Read a short body to its end, so that the connection can be kept; else close it. The status is known already."""
    try:
        rest = response.read(_MOST_RESPONSE_BYTES + 1)
    except (HTTPError, ValueError):  # the latter for a chunk of negative size, which urllib3 lets pass
        response.close()
        return
    if len(rest) > _MOST_RESPONSE_BYTES:
        response.close()
    response.release_conn()


def _kind(error: HTTPError) -> str:
    cause = error.__cause__ or error.__context__
    return f"{type(error).__name__} ({type(cause).__name__})" if cause else type(error).__name__
