"""A downstream system: an HTTP server that takes our webhooks as its owner would, and remembers them."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.local_server import LocalServer, SilentHandler

#: What `payment-callbacks keys new --webhook` prints.
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One verified webhook, as often as it came."""

    id: str
    headers: Mapping[str, str]
    envelope: Mapping[str, Any]

    @property
    def type(self) -> str:
        return str(self.envelope["type"])

    @property
    def biz_order_no(self) -> str:
        return str(self.envelope["subject"])

    @property
    def sequence(self) -> int:
        return int(self.envelope["data"]["sequence"])


class Downstream(LocalServer):
    """Listens on a free port of 127.0.0.1. Healthy until told otherwise; what it refuses it does not remember."""

    def __init__(self) -> None:
        self._received: list[ReceivedEvent] = []
        self._unverified: list[str] = []
        self._refused = 0
        self._lock = threading.Lock()
        self._status = 204
        self._released = threading.Event()
        self._released.set()
        self._webhook = Webhook(WEBHOOK_SECRET)
        downstream = self

        class Handler(SilentHandler):
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed in the midst of it
                    self.close_connection = True
                    return
                status = downstream._take({name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", "0")
                self.end_headers()

        super().__init__(Handler)

    @property
    def url(self) -> str:
        """Where it takes webhooks."""
        return f"{self.origin}/payment-events"

    @property
    def received(self) -> Sequence[ReceivedEvent]:
        """Every event that it has answered with success, repeats too, in order. All of them bore a good signature."""
        with self._lock:
            assert not self._unverified, f"webhooks that do not verify: {self._unverified}"
            return list(self._received)

    @property
    def refused(self) -> int:
        """How many webhooks it has failed so far."""
        with self._lock:
            return self._refused

    def about(self, biz_order_no: str) -> Sequence[ReceivedEvent]:
        """The events of one order, each id once, in the order in which they came first."""
        events: dict[str, ReceivedEvent] = {}
        for event in self.received:
            if event.biz_order_no == biz_order_no:
                events.setdefault(event.id, event)
        return list(events.values())

    def fail(self, status: int = 503) -> None:
        """Answer everything with an error from now on."""
        self._status = status

    def hang(self) -> None:
        """Take requests and answer none from now on."""
        self._status = 503
        self._released.clear()

    def recover(self) -> None:
        """Be healthy again. Requests that hang are failed."""
        self._released.set()
        self._status = 204

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        super().__exit__(kind, error, trace)

    def _take(self, headers: Mapping[str, str], body: bytes) -> int:
        status = self._status
        self._released.wait()
        if status != 204:
            with self._lock:
                self._refused += 1
            return status
        try:
            self._webhook.verify(body, dict(headers))
        except (WebhookVerificationError, ValueError) as error:
            with self._lock:
                self._unverified.append(f"{error!r} {headers} {body!r}")
            return 400
        with self._lock:
            self._received.append(ReceivedEvent(id=headers["webhook-id"], headers=headers, envelope=json.loads(body)))
        return status
