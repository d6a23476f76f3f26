"""Gateways to test against, requests to them, and what gateways of other languages have sent."""

import json
import secrets
import threading
import time
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3

from service.config.secrets import Secret
from service.gateway.bodies import read_object
from service.gateway.cipher import ArgsCipher, RequestDialect
from service.gateway.client import QueriedOrder
from service.gateway.requests import sign_request
from service.sandbox.gateway import SandboxAnswer
from service.sandbox.requests import HttpRequest
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, Misbehaviour, SandboxSettings, Timing
from tests.support.http_server import Answer, Request, ScriptedServer
from tests.support.processes import Process, Processes, answers, find_free_port
from tests.support.waiting import HANGS_AFTER_SECONDS

WITHHOLD: Mapping[str, Any] = {
    "amount": "10.00",
    "name": "张三",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
    "biz_data": [],
    "pay_type": "baofoo_001",
}


class GatewayCaller:
    """One account's requests."""

    def __init__(self, *, url: str, ua: str, key: str, dialect: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._ua = ua
        self._key = key
        self._dialect = RequestDialect.from_settings(dialect or {})
        self._cipher = ArgsCipher(key=key, dialect=self._dialect)

    def envelope(self, method: str, args: Mapping[str, Any]) -> dict[str, str]:
        """A signed request."""
        sealed = self._cipher.seal(args)
        return {
            "ua": self._ua,
            "args": sealed,
            "method": method,
            "requestId": secrets.token_hex(8),
            "timestamp": "1562000000",
            "sign": sign_request(
                ua=self._ua,
                key=self._key,
                method=method,
                args=sealed,
                dialect=self._dialect,
            ),
        }

    def post(self, envelope: Mapping[str, Any] | bytes) -> urllib3.BaseHTTPResponse:
        """Send anything at all."""
        body = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        return urllib3.request(
            "POST", self._url, body=body, headers=headers, retries=False, timeout=HANGS_AFTER_SECONDS
        )

    def call(self, method: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The decoded answer."""
        response = self.post(self.envelope(method, args))
        assert response.status == 200, response.data
        answer: dict[str, Any] = response.json()
        return answer

    def withhold(self, biz_order_no: str, **changes: Any) -> dict[str, Any]:
        """single-withhold with good arguments, but for `changes`; None leaves one out."""
        args = {"biz_order_no": biz_order_no, **WITHHOLD, **changes}
        return self.call("single-withhold", {name: value for name, value in args.items() if value is not None})

    def query(self, biz_order_no: str) -> dict[str, Any]:
        """single-order-query."""
        return self.call("single-order-query", {"biz_order_no": biz_order_no})


def status_of(queried: QueriedOrder) -> str:
    """The gateway's status of an order that it has."""
    assert queried.order is not None
    return queried.order.pay_status


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
        self.sandbox.answer = self._count_and_answer  # type: ignore[method-assign]

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


_JUDGE_SCRIPT = Path(__file__).parents[1] / "judge" / "gateway.php"
_JUDGE_WORKERS = "4"

JUDGE_UA = "JUDGED"
JUDGE_KEY = "a key of 16 char"
JUDGE_PAY_TYPE = "baofoo_001"


class Judge:
    """One running PHP gateway; `processes` ends it."""

    def __init__(self, processes: Processes, *, folder: Path, environment: Mapping[str, str]) -> None:
        """`environment`: what the script is told of its dialect."""
        self.url = f"http://127.0.0.1:{find_free_port()}"
        self._state_file = folder / "judge-state.json"
        told = {
            "JUDGE_STATE": str(self._state_file),
            "JUDGE_UA": JUDGE_UA,
            "JUDGE_KEY": JUDGE_KEY,
            "JUDGE_PAY_TYPE": JUDGE_PAY_TYPE,
            "PHP_CLI_SERVER_WORKERS": _JUDGE_WORKERS,
            **environment,
        }
        address = self.url.removeprefix("http://")
        self.process: Process = processes.start_command(
            "php", "-S", address, _JUDGE_SCRIPT, environment=told, name="judge"
        )
        self.process.wait_until(lambda: answers(f"{self.url}/"))

    @property
    def calls(self) -> list[str]:
        """The methods of the requests that it understood, in order."""
        return [call["method"] for call in self._state["calls"]]

    @property
    def request_ids(self) -> list[str]:
        """Of the same requests."""
        return [call["requestId"] for call in self._state["calls"]]

    def verification_code(self, unique_code: str) -> str:
        """What the card's owner was sent."""
        code: str = self._state["bindings"][unique_code]["code"]
        return code

    def order(self, biz_order_no: str) -> Mapping[str, str]:
        """An order as the gateway has it."""
        found: Mapping[str, str] = self._state["orders"][biz_order_no]
        return found

    def settle(self, biz_order_no: str, pay_status: str, *, channel_response: str = "") -> Mapping[str, str]:
        """Make the order terminal and have it called back; how the receiver answered: `status` line and `body`."""
        wish = {"biz_order_no": biz_order_no, "pay_status": pay_status, "channel_response": channel_response}
        answer: Mapping[str, str] = urllib3.request(
            "POST", f"{self.url}/settle", json=wish, timeout=HANGS_AFTER_SECONDS
        ).json()
        return answer

    @property
    def _state(self) -> Mapping[str, Any]:
        state: Mapping[str, Any] = json.loads(self._state_file.read_text())
        return state


_VECTORS = Path(__file__).parents[1] / "vectors" / "vectors.json"


def load_vectors(kind: str) -> list[dict[str, Any]]:
    """Every case of a kind ("callback" or "request"), each `*_b64` decoded to bytes and named without the suffix."""
    return [_decode(case) for case in json.loads(_VECTORS.read_text()) if case["kind"] == kind]


def _decode(case: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removesuffix("_b64"): b64decode(value) if name.endswith("_b64") else value for name, value in case.items()
    }
