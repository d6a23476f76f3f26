"""The sandbox gateway in this process: it knows the truth about every order, and counts who asks for it."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from service.config.secrets import Secret
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.strict_json import read_object
from service.sandbox.gateway import SandboxAnswer
from service.sandbox.requests import HttpRequest
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, Misbehaviour, SandboxSettings, Timing
from tests.support.gateway_caller import WITHHOLD, GatewayCaller

UA = "ASKED"
AES_KEY = "0123456789abcdef"

_STATUSES = {"success": "succeeded", "fail": "failed"}


class CountingSandbox:
    """Use it as a context manager. Half of its orders fail, `settle_seconds` after they were accepted."""

    def __init__(self, *, misbehaviour: Misbehaviour, settle_seconds: float) -> None:
        self._server = SandboxServer(
            settings=SandboxSettings(
                accounts=[Account(ua=UA, aes_key=Secret(AES_KEY), pay_types=frozenset({WITHHOLD["pay_type"]}))],
                bind="127.0.0.1:0",
                timing=Timing(settle_seconds=settle_seconds),
                misbehaviour=misbehaviour,
                fail_share=0.5,
            ),
            clock=lambda: datetime.now(UTC),
        )
        self.sandbox = self._server.sandbox
        self._cipher = ArgsCipher(key=AES_KEY, dialect=RequestDialect.from_settings({}))
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._answer = self.sandbox.answer
        self.sandbox.answer = self._count_and_answer

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return self._server.url

    def asked(self) -> Counter[str]:
        """How often it was asked about each order."""
        with self._lock:
            return Counter(self._asked)

    def withhold_all(self, names: Iterable[str], *, notify_url: Callable[[str], str]) -> None:
        """Charge these orders; `notify_url` gives each order's address."""
        caller = GatewayCaller(url=self.url, ua=UA, key=AES_KEY)
        for name in names:
            assert caller.withhold(name, notify_url=notify_url(name))["status"] == "1"

    def truth(self) -> Mapping[str, str]:
        """How each order ends, in the service's words."""
        return {order.biz_order_no: _STATUSES[order.script.ending] for order in self.sandbox.book.all()}

    def pay_order_nos(self) -> Mapping[str, str]:
        """Each order's true payment number."""
        return {order.biz_order_no: order.pay_order_no for order in self.sandbox.book.all()}

    def _count_and_answer(self, request: HttpRequest) -> SandboxAnswer:
        envelope = read_object(request.body.decode()).values
        if envelope["method"] == "single-order-query":
            order = str(self._cipher.open(str(envelope["args"]))["biz_order_no"])
            with self._lock:
                self._asked[order] += 1
        return self._answer(request)
