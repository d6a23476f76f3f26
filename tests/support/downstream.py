"""Downstream systems: one that takes our webhooks, the examples of the guide, and the contracts they are given."""

import copy
import json
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from standardwebhooks import Webhook, WebhookVerificationError

from service.contracts.shipped import ASYNCAPI, PAYMENT_EVENT, read_shipped
from tests.support.http_server import LocalServer, SilentHandler
from tests.support.processes import Process, Processes, answers, find_free_port

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
        """ "" for an operator's test, which is about no order."""
        return str(self.envelope.get("subject", ""))

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


_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

#: (biz_order_no, 1 for a payment that was booked and -1 for one that was taken back), in the order of booking.
Bookings = Sequence[tuple[str, int]]


class QueueExample:
    """`orders_by_queue.py`: takes events from a queue of its own into a SQLite file."""

    def __init__(self, *, processes: Processes, amqp_url: str, folder: Path) -> None:
        self._book = folder / "book.sqlite3"
        self.process: Process = processes.start_command(
            sys.executable,
            _EXAMPLES / "orders_by_queue.py",
            environment={"AMQP_URL": amqp_url, "BOOK": str(self._book)},
            name="orders_by_queue",
        )

    def wait_until_ready(self) -> None:
        """Wait until its queue is bound."""
        self.process.wait_until(lambda: "waiting for events" in self.process.output)

    @property
    def bookings(self) -> Bookings:
        with closing(sqlite3.connect(self._book)) as book:
            return book.execute("SELECT biz_order_no, direction FROM bookings ORDER BY rowid").fetchall()

    def count(self, outcome: str) -> int:
        """How often it said so of an event."""
        return self.process.output.count(f": {outcome}\n")


class WebhookExample:
    """`orders-by-webhook.mjs`: takes signed webhooks into a journal."""

    def __init__(self, *, processes: Processes, folder: Path) -> None:
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.journal = folder / "book.jsonl"
        self.process: Process = processes.start_command(
            "node",
            _EXAMPLES / "orders-by-webhook.mjs",
            environment={
                "WEBHOOK_SECRETS": f"whsec_{'A' * 40} {WEBHOOK_SECRET}",
                "BOOK": str(self.journal),
                "PORT": str(port),
                "PATH": os.environ["PATH"],
            },
            name="orders-by-webhook",
        )

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        self.process.wait_until(lambda: answers(self.url, status=405))

    @property
    def bookings(self) -> Bookings:
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [(json.loads(one["order"])[1], one["direction"]) for one in entries if one["direction"]]

    def count(self, outcome: str) -> int:
        """How often it said so of an event."""
        return self.process.output.count(f": {outcome}\n")


_ASYNCAPI_SCHEMA = Path(__file__).parents[1] / "vectors" / "asyncapi" / "asyncapi-3.0.0.schema.json"
_FORMATS = FormatChecker(formats=[])
# RFC 3339, section 5.6; Python reads more than that.
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(_RFC_3339.fullmatch(value)) and datetime.fromisoformat(value).tzinfo is not None


_FORMATS.checks("date-time", raises=ValueError)(_is_date_time)


def shipped_event_schema() -> Any:
    """The events' JSON Schema, as the package ships it."""
    return json.loads(read_shipped(PAYMENT_EVENT))


def shipped_asyncapi() -> Any:
    """The AsyncAPI document, as the package ships it."""
    return json.loads(read_shipped(ASYNCAPI))


def event_validator(*, closed: bool = False) -> Draft202012Validator:
    """Checks events as consumers may; `closed` refuses what the schema does not name, as nobody else should."""
    schema = shipped_event_schema()
    return Draft202012Validator(_closed(schema) if closed else schema, format_checker=_FORMATS)


def asyncapi_faults(document: Any) -> list[str]:
    """What is wrong with an AsyncAPI 3.0.0 document, by AsyncAPI's own JSON Schema."""
    validator = Draft7Validator(json.loads(_ASYNCAPI_SCHEMA.read_text()))
    return [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(document)]


def payload_validator(document: Any, channel: str, message: str) -> Draft7Validator:
    """Checks the payload of one message of a channel, with AsyncAPI's default dialect."""
    payload = document["channels"][channel]["messages"][message]["payload"]
    return Draft7Validator({**payload, "components": document["components"]}, format_checker=_FORMATS)


def _closed(schema: Any) -> Any:
    closed = copy.deepcopy(schema)
    for one in (closed, closed["properties"]["data"]):
        assert one["additionalProperties"] is True, "consumers are told to ignore what is new"
        one["additionalProperties"] = False
    return closed
