"""The webhook sink: signed HTTP requests after the Standard Webhooks convention (https://www.standardwebhooks.com)."""

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import urlsplit

from standardwebhooks import Webhook
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from consumers.sinks.sink import DeliveryFailed, EndpointGone
from service.config.endpoints import WebhookSettings
from service.domain.events import CONTENT_TYPE, SerializedEvent
from service.runtime.http_client import HttpClient, HttpResponse, NoResponse
from service.runtime.traceparent import TRACEPARENT
from service.runtime.tracing import NO_TRACING, Tracing

_GONE = 410
# Only the status of a response counts. This much of it is read so that the connection can be reused; the rest is cut.
_MAX_RESPONSE_BYTES = 16 * 1024

_IN_WORDS = {
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "NewConnectionError": "no connection",
    "NameResolutionError": "the host's name is not found",
    "SSLError": "no encrypted connection",
}


class WebhookSink:
    """Posts the stored event to one URL, signed with each of the endpoint's secrets.

    `webhook-id` is the event's id. The convention signs `id.timestamp.body`, so an id must have no dot; ours
    percent-encode it. `clock` gives the aware time for `webhook-timestamp`.

    Request and response together take `timeout_seconds` at most, however slowly the response arrives. Certificates are
    verified. Redirects are refused: an operator has to change the URL.
    """

    def __init__(
        self, *, endpoint: WebhookSettings, clock: Callable[[], datetime], tracing: Tracing = NO_TRACING
    ) -> None:
        self._signers = [Webhook(secret.reveal()) for secret in endpoint.secrets]
        self._clock = clock
        self._timeout_seconds = endpoint.timeout_seconds
        self._name = endpoint.name
        self._tracing = tracing
        self._url = urlsplit(endpoint.url)
        self._client = HttpClient(self._url, connections=endpoint.concurrency, max_bytes=_MAX_RESPONSE_BYTES)
        self._retry_after = Retry(retry_after_max=math.ceil(endpoint.max_retry_seconds))

    def send(self, event: SerializedEvent) -> str:
        """Post the event; see `Sink.send`. Any 2xx is success, whatever the body says."""
        try:
            with self._tracing.call(self._url, event.traceparent) as span:
                span.set("payment.merchant", event.merchant)
                span.set("payment.endpoint", self._name)
                span.set("cloudevents.event_type", event.type)
                headers = self._headers(event, span.traceparent)
                answer = self._client.post(event.body, headers=headers, timeout_seconds=self._timeout_seconds)
                span.end(status=answer.status)
        except NoResponse as error:
            raise DeliveryFailed(f"{_IN_WORDS.get(error.kind, 'no answer')}: {error}") from error
        self._judge(answer)
        return f"the endpoint answered {answer.status}"

    def close(self) -> None:
        """Close the kept connections."""
        self._client.close()

    def _headers(self, event: SerializedEvent, traceparent: str | None) -> Mapping[str, str]:
        now = self._clock()
        body = event.body.decode()
        signatures = [signer.sign(event.event_id, now, body) for signer in self._signers]
        trace = {} if traceparent is None else {TRACEPARENT: traceparent}
        return {
            **trace,
            "content-type": CONTENT_TYPE,
            "webhook-id": event.event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _judge(self, answer: HttpResponse) -> None:
        status = answer.status
        if 200 <= status < 300:
            return
        if status == _GONE:
            raise EndpointGone("the endpoint answered 410 Gone")
        if 300 <= status < 400:
            raise DeliveryFailed(f"the endpoint answered {status}: redirects are not followed, change its url")
        retry_after_seconds = self._read_retry_after(answer.headers.get("retry-after"))
        raise DeliveryFailed(f"the endpoint answered {status}", retry_after_seconds=retry_after_seconds)

    def _read_retry_after(self, value: str | None) -> float | None:
        """Seconds from now, `max_retry_seconds` at most (RFC 9110, section 10.2.3); None where it cannot be read."""
        if value is None:
            return None
        try:
            return self._retry_after.parse_retry_after(value)
        except (InvalidHeader, ValueError, OverflowError):  # the last two: numbers beyond every calendar
            return None
