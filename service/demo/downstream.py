"""The demo's downstream systems: each takes webhooks, checks their signatures and keeps their events."""

import json
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from service.domain.claims import OrderStatus
from service.domain.events import TEST_TYPE, EventType

_MAX_BODY_BYTES = 64 * 1024
_COLOURS = {OrderStatus.SUCCEEDED: "green", OrderStatus.FAILED: "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One CloudEvent, as far as a shop cares."""

    id: str
    type: EventType
    biz_order_no: str
    sequence: int
    status: OrderStatus
    pay_order_no: str | None
    amount: str | None


class Downstream:
    """An HTTP server on a free port of 127.0.0.1; safe to look at from any thread.

    `on_event` is called for each event that is new, in the server's threads.
    """

    def __init__(self, *, secret: str, on_event: Callable[[ReceivedEvent], None] | None = None) -> None:
        self._webhook = Webhook(secret)
        self._on_event = on_event
        self._events: dict[str, ReceivedEvent] = {}
        self._repeated = 0
        self._unsigned = 0
        self._failing = False
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="downstream", daemon=True)

    @property
    def url(self) -> str:
        """What an endpoint's settings name."""
        return f"http://127.0.0.1:{self._server.server_port}/payment-events"

    @property
    def events(self) -> list[ReceivedEvent]:
        """Every event once, in the order of arrival."""
        with self._lock:
            return list(self._events.values())

    @property
    def repeated(self) -> int:
        """How many deliveries brought an event that was there already."""
        with self._lock:
            return self._repeated

    @property
    def unsigned(self) -> int:
        """How many deliveries were refused because their signature did not fit."""
        with self._lock:
            return self._unsigned

    def fail(self) -> None:
        """From now on, answer every delivery with 503."""
        self._failing = True

    def take(self, body: bytes, headers: dict[str, str]) -> HTTPStatus:
        """Take one delivery in, and answer it. An operator's test is taken, and forgotten."""
        if self._failing:
            return HTTPStatus.SERVICE_UNAVAILABLE
        try:
            self._webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError):
            with self._lock:
                self._unsigned += 1
            return HTTPStatus.UNAUTHORIZED
        envelope = json.loads(body)
        if envelope["type"] == TEST_TYPE:
            return HTTPStatus.NO_CONTENT
        event = _read(envelope)
        with self._lock:
            new = event.id not in self._events
            if new:
                self._events[event.id] = event
            else:
                self._repeated += 1
        if new and self._on_event is not None:
            self._on_event(event)
        return HTTPStatus.NO_CONTENT

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _read(envelope: dict[str, Any]) -> ReceivedEvent:
    data = envelope["data"]
    return ReceivedEvent(
        id=envelope["id"],
        type=EventType(envelope["type"]),
        biz_order_no=data["biz_order_no"],
        sequence=data["sequence"],
        status=OrderStatus(data["status"]),
        pay_order_no=data["pay_order_no"],
        amount=data["amount"],
    )


def _handler_for(downstream: Downstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(min(length, _MAX_BODY_BYTES))
            self.send_response(downstream.take(body, dict(self.headers.items())))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class EventPrinter:
    """Prints the events of a few orders, and from `show_all` on every one. Safe to call from any thread."""

    def __init__(self, console: Console, *, followed: Collection[str]) -> None:
        """`followed` are order numbers."""
        self._console = console
        self._followed: Collection[str] | None = followed
        self._width = max(map(len, followed), default=0)

    def show(self, event: ReceivedEvent) -> None:
        """Print the event, if its order is followed."""
        if self._followed is not None and event.biz_order_no not in self._followed:
            return
        colour = _COLOURS.get(event.status, "yellow")
        self._console.print(
            f"  shop heard [{colour}]{event.type.value:<18}[/] {event.biz_order_no:<{self._width}}  ¥{event.amount}",
            highlight=False,
        )

    def show_all(self) -> None:
        """From now on, print every event."""
        self._followed = None
