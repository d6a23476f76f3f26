"""A gateway that answers single-order-query as a test tells it to, and counts what it was asked."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from service.gateway.cipher import ArgsCipher, RequestDialect
from tests.support.scripted_server import Answer, Request, ScriptedServer

AES_KEY = "0123456789abcdef"
NOT_FOUND = "订单不存在"

_FOUND = {"status": "1", "message": "成功"}


class AskedGateway:
    """Use it as a context manager. `status_of` gives an order's `pay_status`; None: the gateway knows no such order."""

    def __init__(self, status_of: Callable[[str], str | None], *, seconds: float = 0.0, pay_type: str = "bank") -> None:
        """`seconds` is how long it thinks about each question; `pay_type` is that of every order."""
        self.status_of = status_of
        self._pay_type = pay_type
        self.seconds = seconds
        self._cipher = ArgsCipher(key=AES_KEY, dialect=RequestDialect.from_settings({}))
        self._asked: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server = ScriptedServer(self._answer)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._server.url

    def asked(self) -> dict[str, Sequence[float]]:
        """When it was asked about each order, in unix seconds."""
        with self._lock:
            return {order: tuple(times) for order, times in self._asked.items()}

    def count(self) -> int:
        """How many questions there were."""
        with self._lock:
            return sum(map(len, self._asked.values()))

    def _answer(self, request: Request) -> Answer:
        envelope = json.loads(request.body)
        assert envelope["method"] == "single-order-query"
        order = str(self._cipher.open(envelope["args"])["biz_order_no"])
        with self._lock:
            self._asked[order].append(time.time())
        self._server.closing.wait(self.seconds)
        return Answer(body=json.dumps(self._speak_of(order)).encode())

    def _speak_of(self, order: str) -> dict[str, Any]:
        status = self.status_of(order)
        if status is None:
            return {"status": "-1", "message": NOT_FOUND, "response": {}}
        said = {"biz_order_no": order, "pay_order_no": f"P{order}", "pay_status": status, "pay_type": self._pay_type}
        return {**_FOUND, "response": {**said, "pay_time": "", "channel_response": ""}}
