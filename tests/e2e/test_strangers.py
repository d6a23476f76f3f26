"""What strangers write: it is not quoted anywhere, and what they invent is not kept for ever."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest

from service.sandbox.settings import Misbehaviour
from tests.support.api import TOKEN, ApiCaller, order_path
from tests.support.callbacks import Callback
from tests.support.deployment import Deployment, Place, token_of
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, NOT_FOUND, UA, CountingSandbox
from tests.support.processes import answers
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

CARD, MOBILE, NAME, LATIN_NAME = "6222021234567890128", "13800138000", "欧阳测试", "Wang Xiaoming"
SECRETS = (CARD, MOBILE, NAME, LATIN_NAME, "Xiaoming", "bearer-token-of-a-caller")
FORMATS = ("table", "json", "csv")


def quoted(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text or secret in text.encode().decode("unicode_escape")]


def test_words_that_nobody_knows_are_quoted_nowhere(deployment: Deployment, api: ApiCaller, order: str) -> None:
    words = [CARD, MOBILE, NAME, LATIN_NAME, f"{NAME} {CARD}"]
    names: dict[str, list[str]] = {"acme": [], "open": []}  # by token, and by nobody
    for merchant, names_there in names.items():
        by_token = merchant == "acme"
        for field in ("pay_status", "order_type", "pay_type"):
            for word in (*words, "Xiaoming"[by_token:]):
                name = f"{order} {merchant} {len(names_there)}"
                token = token_of(merchant, name) if by_token else ""
                callback = Callback(biz_order_no=name, merchant=merchant, token=token, changes={field: word})
                assert deployment.sender.send(callback).acknowledged
                names_there.append(name)
    orders = [(merchant, name) for merchant, names_there in names.items() for name in names_there]
    eventually(lambda: all(deployment.ledger.claims_about(name) for _, name in orders))

    shown = [api.get(order_path(merchant, name)).value for merchant, name in orders]
    assert all(history["claims"] for history in shown)
    told = [json.dumps(shown, ensure_ascii=False)]
    today = datetime.now(ZoneInfo("Asia/Shanghai"))
    for arguments in (
        *(["report", "--day", f"{today:%Y-%m-%d}", "--format", format_] for format_ in FORMATS),
        *(["orders", "show", merchant, names[merchant][position]] for merchant in names for position in (0, -1)),
    ):
        done = deployment.command(*arguments)
        # What cannot be read waits for a person, so the report exits with 3.
        assert done.returncode == (3 if arguments[0] == "report" else 0)
        told.append(done.stdout + done.stderr)
    assert [quoted(text) for text in told] == [[]] * len(told)
    assert "****" in told[0]
    assert quoted(deployment.output) == []


MERCHANT = f"""
[inquirer]
poll_seconds = 0.1

[merchants.asked]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{{{ kid = "k1", key = "a token key of asked for tests only" }}}}]
min_inquiry_interval_seconds = 0.1
first_inquiry_repeat_seconds = 0.05
max_inquiry_repeat_seconds = 0.2

[merchants.asked.gateway]
url = "{{url}}"
ua = "{UA}"
aes_key = "{AES_KEY}"
not_found_messages = ["{NOT_FOUND}"]
"""


@pytest.fixture(params=["rabbitmq and postgresql", "embedded"])
def asked(request: pytest.FixtureRequest, own_shop: Downstream, tmp_path: Path) -> Iterator[Deployment]:
    """Every role runs, and keeps no forged order that is over; the gateway knows of no order."""
    place = Place() if request.param == "embedded" else request.getfixturevalue("servers")
    with (
        CountingSandbox(misbehaviour=Misbehaviour(), settle_seconds=60) as gateway,
        Deployment(
            folder=tmp_path, place=place, downstreams={"shop": own_shop}, more_settings=MERCHANT.format(url=gateway.url)
        ) as deployment,
    ):
        settings = deployment.settings_file
        settings.write_text(settings.read_text().replace("[ledger]\n", "[ledger]\nmax_forged_orders = 0\n"))
        deployment.prepare()
        deployment.start("receiver", "dispatcher", "inquirer")
        deployment.start("ledger", module="tests.support.hasty_roles")
        deployment.wait_until_receiving()
        yield deployment


def test_orders_that_a_stranger_invented_go_without_a_person_and_announced_ones_stay(asked: Deployment) -> None:
    names = [f"invented-{number}" for number in range(20)]
    announced = asked.command("orders", "announce", "asked", "announced")
    assert announced.returncode == 0, announced.stderr
    for name in (*names, "announced"):
        assert asked.sender.send(Callback(biz_order_no=name, merchant="asked")).acknowledged
    eventually(lambda: len(asked.ledger.claims_about("announced")) == 1)
    eventually(lambda: "forged_orders_removed" in asked.output)
    eventually(lambda: not any(asked.ledger.claims_about(name) for name in names))
    assert not any(asked.ledger.inquiries_about(name) for name in names)
    assert len(asked.ledger.claims_about("announced")) == 1
    assert asked.ledger.order("announced") is not None


# The API's server itself.


def answer_to(url: str, request: bytes, *, ended: bool) -> bytes:
    """Everything that comes back on one connection, up to its end; `ended` is whether the client says that it ends."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=HANGS_AFTER_SECONDS) as sock:
        sock.sendall(request)
        if ended:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    return answer


PERSON = f'{{"name": "{NAME}", "mobile": "{MOBILE}", "bank_card_number": "{CARD}"}}'.encode()
HEAD = f"POST /v1/cards HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
JSON = b"Content-Type: application/json\r\n"
BROKEN = {
    "a body without its length": HEAD + JSON + b"\r\n" + PERSON + b"\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer bearer-token-of-a-caller\r\n\r\n",
    "a header with a blank before its colon": b"GET / HTTP/1.1\r\nX : bearer-token-of-a-caller\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n bearer-token-of-a-caller\r\n\r\n",
    "a request line that is none": PERSON + b"\r\n\r\n",
    "a method that is none": f"{MOBILE}{{}} / HTTP/1.1\r\n\r\n".encode(),
    "a version that is none": f"GET / {MOBILE}\r\n\r\n".encode(),
    "a version that nobody speaks": f"GET /v1/orders/{CARD} HTTP/9.9\r\nHost: a\r\n\r\n".encode(),
    "a target that is too long": b"GET /" + CARD.encode() * 500 + b" HTTP/1.1\r\n\r\n",
    "a header that is too long": b"GET / HTTP/1.1\r\nX: " + CARD.encode() * 1000 + b"\r\n\r\n",
    "a coding that nobody knows": f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {MOBILE}\r\n\r\n".encode(),
    "a length that is none": f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MOBILE}x\r\n\r\n".encode(),
    "an expectation that nobody meets": f"POST / HTTP/1.1\r\nHost: a\r\nExpect: {MOBILE}\r\n\r\n".encode(),
    "a chunk whose size is none": HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + PERSON + b"\r\n0\r\n\r\n",
    "a chunk that is too long": HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n3\r\n" + PERSON + b"\r\n0\r\n\r\n",
    "chunks without an end": HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n3f\r\n" + PERSON,
}


@pytest.fixture(scope="module")
def api_alone(
    find_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, str]]:
    with Deployment(folder=tmp_path_factory.mktemp("api"), place=find_place(), downstreams={}) as deployment:
        deployment.prepare()
        url = deployment.give_api(workers=1)
        deployment.start("api")
        deployment.role("api").wait_until(lambda: answers(f"{url}/healthz"))
        yield deployment, url


def test_half_sent_requests_do_not_block_other_clients(api_alone: tuple[Deployment, str]) -> None:
    _, url = api_alone
    address = urlsplit(url)
    with ExitStack() as clients:
        for number in range(60):
            client = clients.enter_context(socket.create_connection((address.hostname or "", address.port or 0)))
            body = b"Content-Length: 100\r\n\r\nhalf" if number % 2 else b""
            client.sendall(b"POST /v1/orders HTTP/1.1\r\nHost: api\r\n" + body)
        for _ in range(5):
            assert answers(f"{url}/healthz")
        assert answers(f"{url}/v1/orders?merchant=acme", status=401)


def test_a_request_that_cannot_be_read_is_answered_with_a_problem_and_quoted_nowhere(
    api_alone: tuple[Deployment, str],
) -> None:
    deployment, url = api_alone
    for what, request in BROKEN.items():
        raw = answer_to(url, request, ended=what == "chunks without an end")
        # The first answer may be one to what could be read; the last is to what could not.
        head, _, body = raw[raw.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        status = int(head.split()[1])
        assert 400 <= status < 500, what
        assert b"application/problem+json" in head, what
        assert json.loads(body)["status"] == status, what
        assert quoted(raw.decode()) == [], what
    eventually(lambda: "request_cut" in deployment.output)
    assert TOKEN not in deployment.output
    assert quoted(deployment.output) == []
    assert answers(f"{url}/healthz")
