"""Callbacks: made, signed and sent as gateways and strangers do, without a line of the service's own code."""

import base64
import hmac
import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import md5
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import urlencode

import urllib3

from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

#: How a gateway's language writes JSON.
Writer = Callable[[Mapping[str, str]], str]

_MAX_AT_ONCE = 64


def php(fields: Mapping[str, str]) -> str:
    """PHP's json_encode without flags."""
    return json.dumps(fields, separators=(",", ":")).replace("/", r"\/")


def node(fields: Mapping[str, str]) -> str:
    """JSON.stringify."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def python(fields: Mapping[str, str]) -> str:
    """Python's json.dumps."""
    return json.dumps(fields)


def form(fields: Mapping[str, str]) -> str:
    """A form instead of JSON: bodies only."""
    return urlencode(fields)


def signed_body(fields: Mapping[str, str], *, signed_by: Writer = php, sent_by: Writer = php) -> bytes:
    """A callback's body: these fields, and the sign over them in the order of their names."""
    sign = md5(signed_by(dict(sorted(fields.items()))).encode()).hexdigest()
    return sent_by({**fields, "sign": sign}).encode()


def mint_token(*, kid: str, key: str, merchant: str, biz_order_no: str) -> str:
    """A notify_url token, by the recipe that the README gives to services of any language."""
    mac = hmac.digest(key.encode(), f"v1\n{merchant}\n{biz_order_no}".encode(), "sha256")
    order, proof = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (biz_order_no.encode(), mac))
    return f"{kid}.{order}.{proof}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One callback, ready to be sent any number of times."""

    biz_order_no: str
    pay_status: str = "success"
    merchant: str = "acme"
    #: Of the notify_url; "" for the merchant's common address.
    token: str = ""
    #: Fields that differ from those of an ordinary callback of this order.
    changes: Mapping[str, str] = field(default_factory=dict)
    #: What the sign is made over.
    signed_by: Writer = php
    #: What the body is written by.
    sent_by: Writer = php
    #: The W3C header that a gateway which traces its requests would send.
    traceparent: str | None = None

    @property
    def path(self) -> str:
        """Of its notify_url."""
        return f"/notify/{self.merchant}" + (f"/{self.token}" if self.token else "")

    @property
    def fields(self) -> Mapping[str, str]:
        """Everything but the sign."""
        return {
            "biz_order_no": self.biz_order_no,
            "pay_order_no": f"PAY-{self.biz_order_no}",
            "order_type": "single_withhold",
            "pay_type": "baofoo_001",
            "pay_status": self.pay_status,
            "pay_time": "2026-07-01 12:00:00" if self.pay_status == "success" else "",
            "channel_response": "余额不足/51" if self.pay_status == "fail" else "",
            **self.changes,
        }

    @property
    def body(self) -> bytes:
        """The request's body."""
        return signed_body(self.fields, signed_by=self.signed_by, sent_by=self.sent_by)

    @property
    def content_type(self) -> str:
        """The request's Content-Type."""
        return "application/x-www-form-urlencoded" if self.sent_by is form else "application/json;charset=UTF-8"

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the request."""
        trace = {} if self.traceparent is None else {"traceparent": self.traceparent}
        return {"Content-Type": self.content_type, **trace}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one sending."""

    callback: Callback
    #: 0 where there was no answer.
    status: int
    body: bytes
    headers: Mapping[str, str]
    seconds: float

    @property
    def acknowledged(self) -> bool:
        """Whether the gateway now stops repeating it."""
        return self.status == 200 and self.body == b"success"


class GatewaySender:
    """Sends callbacks to one receiver, many at once, each one exactly once: it never repeats by itself. Close it."""

    def __init__(self, *, url: str, timeout_seconds: float = HANGS_AFTER_SECONDS) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(maxsize=_MAX_AT_ONCE, block=True, retries=False, timeout=timeout_seconds)

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.clear()

    def send(self, callback: Callback) -> Answer:
        """Send it, and say what came back."""
        began = monotonic()
        try:
            response = self._pool.request(
                "POST",
                self._url + callback.path,
                body=callback.body,
                headers=callback.headers,
            )
        except urllib3.exceptions.HTTPError:
            return Answer(callback=callback, status=0, body=b"", headers={}, seconds=monotonic() - began)
        return Answer(
            callback=callback,
            status=response.status,
            body=response.data,
            headers=dict(response.headers),
            seconds=monotonic() - began,
        )

    def send_all(self, callbacks: Iterable[Callback]) -> Sequence[Answer]:
        """Send them all, some dozens at once; the answers in the order of the callbacks."""
        with ThreadPoolExecutor(_MAX_AT_ONCE) as threads:
            return list(threads.map(self.send, callbacks))


class Sender(Protocol):
    """Who sends a callback once, and says what came back."""

    def send(self, callback: Callback, /) -> Answer:
        """Send it."""


class Load:
    """Order after order, each a pending and a success, one of them repeated, in any order, until it is left.

    A few threads send, with a short pause after each order, so that the machine is busy and not drowned.
    """

    def __init__(
        self,
        *,
        sender: Sender,
        make_callback: Callable[..., Callback],
        prefix: str,
        threads: int = 4,
        pause_seconds: float = 0.15,
    ) -> None:
        """`make_callback` takes an order number and a `pay_status`; order numbers begin with `prefix`."""
        self._sender = sender
        self._make_callback = make_callback
        self._prefix = prefix
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    @property
    def answers(self) -> Sequence[Answer]:
        """Everything sent so far, as it was answered."""
        with self._lock:
            return list(self._answers)

    @property
    def acknowledged(self) -> Sequence[Callback]:
        """What the gateway need not repeat any more, as often as it was acknowledged."""
        return [answer.callback for answer in self.answers if answer.acknowledged]

    def wait_for_answers(self, count: int) -> Sequence[Answer]:
        """Wait until `count` more are answered, in whatever way, and return what has been answered since the call."""
        before = len(self.answers)
        eventually(lambda: len(self.answers) >= before + count)
        return self.answers[before:]

    def wait_for_acknowledgements(self, count: int) -> None:
        """Wait until `count` more are acknowledged."""
        before = len(self.acknowledged)
        eventually(lambda: len(self.acknowledged) >= before + count)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        shuffle = random.Random(number).shuffle
        for order in count(1):
            biz_order_no = f"{self._prefix}-{number}-{order}"
            statuses = ["pending", "success", "success" if order % 2 else "pending"]
            shuffle(statuses)
            for status in statuses:
                answer = self._sender.send(self._make_callback(biz_order_no, pay_status=status))
                with self._lock:
                    self._answers.append(answer)
            if self._stop.wait(self._pause_seconds):
                return
