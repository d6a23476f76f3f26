"""The sample subscriber: believes signed events only, and acts on each once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from runpy import run_path
from threading import Thread

import pytest
import urllib3
from standardwebhooks.webhooks import Webhook

from service.domain.events import EndpointTest, write_test
from tests.support.compose import FOLDER
from tests.support.downstream import WEBHOOK_SECRET

_WEBHOOK = Webhook(WEBHOOK_SECRET)


class Subscriber:
    """Sends it what our dispatcher would."""

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, *, order: str, sequence: int, changed: bytes = b"") -> int:
        event = {"id": f"acme/{order}/{sequence}", "type": "payment.succeeded", "subject": order}
        return self._post(event["id"], json.dumps({**event, "data": {"sequence": sequence}}), changed=changed)

    def test(self) -> int:
        test = EndpointTest(endpoint="shop", number="1", sent_at=datetime.now(UTC))
        return self._post(test.id, write_test(test).decode())

    def _post(self, id_: str, body: str, *, changed: bytes = b"") -> int:
        now = datetime.now(UTC)
        headers = {
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": _WEBHOOK.sign(id_, now, body),
        }
        return urllib3.request("POST", self._url, body=body.encode() + changed, headers=headers, retries=False).status


@pytest.fixture
def subscriber() -> Iterator[Subscriber]:
    handler = run_path(str(FOLDER / "subscriber.py"))["Handler"]
    handler.webhook = _WEBHOOK
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield Subscriber(f"http://127.0.0.1:{server.server_port}/payment-events")
        server.shutdown()


def test_it_takes_a_signed_event_and_acts_on_it_once(
    subscriber: Subscriber, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [subscriber.send(order="DK1", sequence=2) for _ in range(2)] == [204, 204]
    assert subscriber.send(order="DK1", sequence=1) == 204
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["done"] for line in lines] == ["applied", "repeated", "overtaken"]


def test_it_takes_an_operator_s_test_and_does_nothing(
    subscriber: Subscriber, capsys: pytest.CaptureFixture[str]
) -> None:
    assert subscriber.test() == 204
    assert json.loads(capsys.readouterr().out)["done"] == "a test"


def test_it_refuses_what_was_changed_on_the_way(subscriber: Subscriber) -> None:
    assert subscriber.send(order="DK1", sequence=1, changed=b" ") == 401
