"""Traces: one connected tree from the callback to the webhook, as a collector gets it from the real roles."""

import json
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import urllib3

from tests.support.api import TOKEN
from tests.support.callbacks import Callback
from tests.support.collector import CollectedSpan, Collector
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, WITHHOLD, AskedGateway
from tests.support.processes import answers
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

_ASKED = """
[merchants.asked]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
token_keys = [{{ kid = "k1", key = "a token key of asked, for tests only" }}]
gateway = {{ url = "{url}", ua = "ASKED", aes_key = "{key}", timeout_seconds = 5.0 }}

[inquirer]
poll_seconds = 0.1
"""
_WITHHOLD = {name: value for name, value in WITHHOLD.items() if name != "biz_data"}
_CALLERS_SPAN = "00f067aa0ba902b7"
# A span as (service, kind, name), and those below it.
Tree = tuple[str, str, str, Sequence[Any]]


class Traced:
    """A deployment each of whose roles sends its traces to one collector."""

    def __init__(self, deployment: Deployment, collector: Collector, shop: Downstream, api_url: str) -> None:
        self.deployment = deployment
        self.collector = collector
        self.shop = shop
        self._api_url = api_url

    def send(self, callback: Callback) -> None:
        """Send a callback, which must be acknowledged."""
        assert self.deployment.sender.send(callback).acknowledged

    def call_api(self, method: str, path: str, traceparent: str, body: Mapping[str, object] | None = None) -> int:
        """The status of the API's response."""
        headers = {"Authorization": f"Bearer {TOKEN}", "traceparent": traceparent, "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        response = urllib3.request(
            method, self._api_url + path, headers=headers, body=content, retries=False, timeout=HANGS_AFTER_SECONDS
        )
        return response.status

    def await_span(self, trace_id: str, name: str, **attributes: object) -> CollectedSpan:
        """The first span of a trace that has this name and these attributes."""

        def found() -> CollectedSpan | None:
            spans = self.collector.trace(trace_id)
            alike = (span for span in spans if span.name == name and attributes.items() <= span.attributes.items())
            return next(alike, None)

        return eventually(found, why=lambda: self.collector.trace(trace_id))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def traced(find_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with (
        Collector() as collector,
        Downstream() as shop,
        AskedGateway(lambda _order: "success", pay_type="baofoo_001") as gateway,
        Deployment(
            folder=tmp_path_factory.mktemp("traced"),
            place=find_place(),
            downstreams={"shop": shop},
            more_settings=_ASKED.format(url=gateway.url, key=AES_KEY),
        ) as deployment,
    ):
        deployment.prepare()
        api_url = deployment.give_api(workers=1)
        deployment.start(*ROLES, "inquirer", "api", environment=collector.environment)
        deployment.wait_until_receiving()
        deployment.role("api").wait_until(lambda: answers(f"{api_url}/healthz"))
        yield Traced(deployment, collector, shop, api_url)


@pytest.fixture
def trace_id() -> str:
    return secrets.token_hex(16)


def _sampled(trace_id: str) -> str:
    return f"00-{trace_id}-{_CALLERS_SPAN}-01"


def _tree(spans: Sequence[CollectedSpan], parent_id: str = _CALLERS_SPAN) -> list[Tree]:
    """The spans below one span, each with those below it; those that are alike once."""
    below: dict[str, Tree] = {}
    for span in spans:
        if span.parent_id == parent_id:
            role = span.service.removeprefix("payment-callbacks-")
            one = (role, span.kind, span.name, _tree(spans, span.span_id))
            below[repr(one)] = one
    return [below[key] for key in sorted(below)]


def test_one_trace_goes_from_the_callback_through_queue_and_ledger_to_the_retried_webhook(
    traced: Traced, order: str, trace_id: str
) -> None:
    collector, shop = traced.collector, traced.shop
    refused = shop.refused
    shop.fail()
    traced.send(traced.deployment.callback(order, traceparent=_sampled(trace_id)))
    eventually(lambda: shop.refused > refused)
    shop.recover()
    (event,) = eventually(lambda: shop.about(order))
    delivered = traced.await_span(trace_id, "POST", **{"http.response.status_code": 204})
    sent: list[Tree] = [("dispatcher", "CLIENT", "POST", [])]
    if traced.deployment.place.amqp_url:
        traced.await_span(trace_id, "publish payment.status")
        sent.append(("dispatcher", "PRODUCER", "publish payment.status", []))
    processed = traced.await_span(trace_id, "process payment.callbacks.ledger")
    received = traced.await_span(trace_id, "POST /notify/<merchant>/<token>")
    assert _tree(collector.trace(trace_id)) == [
        (
            *("receiver", "SERVER", "POST /notify/<merchant>/<token>"),
            [
                (
                    *("receiver", "PRODUCER", "publish payment.callbacks"),
                    [("ledger", "CONSUMER", "process payment.callbacks.ledger", sent)],
                )
            ],
        )
    ]
    # Each try is a span of its own, and the webhook says which.
    tries = [span for span in collector.trace(trace_id) if span.name == "POST"]
    failed = [span for span in tries if span.failed]
    assert failed
    assert [span for span in tries if not span.failed] == [delivered]
    assert {span.attributes["error.type"] for span in failed} == {"503"}
    assert event.headers["traceparent"] == f"{delivered.traceparent}-01"
    assert event.envelope["traceparent"] == f"{processed.traceparent}-01"
    system = "rabbitmq" if traced.deployment.place.amqp_url else "sqlite"
    assert processed.attributes == {
        "messaging.system": system,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "payment.callbacks.ledger",
        "payment.merchant": "acme",
        "payment.verdict": "applied",
    }
    assert received.attributes == {
        "http.request.method": "POST",
        "http.route": "/notify/<merchant>/<token>",
        "http.response.status_code": 200,
        "payment.merchant": "acme",
    }
    assert delivered.attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": shop.port,
        "http.response.status_code": 204,
        "payment.merchant": "acme",
        "payment.endpoint": "shop",
        "cloudevents.event_type": "payment.succeeded",
    }


def test_a_batch_has_a_trace_of_its_own_that_is_linked_with_those_of_its_callbacks(
    traced: Traced, order: str, trace_id: str
) -> None:
    traced.send(traced.deployment.callback(order, traceparent=_sampled(trace_id)))
    processed = traced.await_span(trace_id, "process payment.callbacks.ledger")
    (batch_id,) = processed.links

    def batches() -> list[CollectedSpan]:
        return [span for span in traced.collector.spans if span.span_id == batch_id]

    (batch,) = eventually(batches)
    assert (batch.name, batch.kind, batch.parent_id) == ("record payment.callbacks.ledger", "CONSUMER", "")
    assert processed.span_id in batch.links
    assert len(batch.links) == batch.attributes["messaging.batch.message_count"]
    assert batch.trace_id != trace_id


def test_an_inquiry_and_what_it_changes_are_in_the_trace_of_the_callback_that_was_not_believed(
    traced: Traced, order: str, trace_id: str
) -> None:
    traced.send(Callback(biz_order_no=order, merchant="asked", traceparent=_sampled(trace_id)))
    (event,) = eventually(lambda: traced.shop.about(order))
    asked = traced.await_span(trace_id, "inquiry")
    traced.await_span(trace_id, "POST", **{"payment.endpoint": "shop"})
    answered = traced.await_span(trace_id, "POST", **{"http.response.status_code": 200})
    traced.await_span(trace_id, "POST /notify/<merchant>")
    below: list[Tree] = [("dispatcher", "CLIENT", "POST", []), ("inquirer", "CLIENT", "POST", [])]
    if traced.deployment.place.amqp_url:
        traced.await_span(trace_id, "publish payment.status")
        below.insert(1, ("dispatcher", "PRODUCER", "publish payment.status", []))
    ((*_, [(*_, [processed])]),) = _tree(traced.collector.trace(trace_id))
    process = ("ledger", "CONSUMER", "process payment.callbacks.ledger")
    assert processed == (*process, [("inquirer", "INTERNAL", "inquiry", below)])
    assert (asked.attributes, answered.parent_id) == (
        {"payment.merchant": "asked", "payment.outcome": "answered"},
        asked.span_id,
    )
    assert event.envelope["traceparent"] == f"{asked.traceparent}-01"


def test_a_trace_that_its_caller_does_not_sample_goes_on_and_is_not_sent(
    traced: Traced, order: str, trace_id: str
) -> None:
    traced.send(traced.deployment.callback(order, traceparent=_sampled(trace_id).removesuffix("01") + "00"))
    (event,) = eventually(lambda: traced.shop.about(order))
    assert event.headers["traceparent"].startswith(f"00-{trace_id}-")
    assert event.headers["traceparent"].endswith("-00")
    # What is sent later has arrived, so this has not been sent.
    later = secrets.token_hex(16)
    traced.send(traced.deployment.callback(f"{order} later", traceparent=_sampled(later)))
    traced.await_span(later, "POST", **{"payment.endpoint": "shop"})
    assert traced.collector.trace(trace_id) == []


def test_a_callback_without_a_trace_begins_one_and_its_log_lines_name_it(traced: Traced, order: str) -> None:
    traced.send(traced.deployment.callback(order))
    (event,) = eventually(lambda: traced.shop.about(order))
    trace_id = event.headers["traceparent"].split("-")[1]
    assert traced.await_span(trace_id, "POST /notify/<merchant>/<token>").parent_id == ""
    receiver, ledger = traced.deployment.role("receiver"), traced.deployment.role("ledger")
    # A log is written in the background.
    eventually(lambda: trace_id in _trace_ids(receiver.output, "callback_acknowledged"))
    eventually(lambda: trace_id in _trace_ids(ledger.output, "claim_recorded"))


def _trace_ids(output: str, said: str) -> set[str]:
    return {json.loads(line)["trace_id"] for line in output.splitlines() if f'"{said}"' in line}


def test_a_request_to_the_api_is_in_the_trace_of_its_caller_and_so_is_the_withhold_that_it_sends(
    traced: Traced, order: str, trace_id: str
) -> None:
    body = {"merchant": "ask", "biz_order_no": order, **_WITHHOLD}
    status = traced.call_api("POST", "/v1/withholds", _sampled(trace_id), body)
    served = traced.await_span(trace_id, "POST /v1/withholds")
    sent = traced.await_span(trace_id, "POST")
    assert _tree(traced.collector.trace(trace_id)) == [
        ("api", "SERVER", "POST /v1/withholds", [("api", "CLIENT", "POST", [])])
    ]
    assert served.attributes["http.response.status_code"] == status
    # Nobody listens at the gateway's address.
    assert (sent.failed, sent.attributes["error.type"]) == (True, "NoResponse")
    assert traced.call_api("GET", "/healthz", _sampled(trace_id)) == 200
    assert traced.call_api("GET", f"/v1/{order[:2]}", _sampled(trace_id)) == 404
    assert traced.await_span(trace_id, "GET").attributes["http.response.status_code"] == 404
    # Probes make no spans.
    assert Counter(span.kind for span in traced.collector.trace(trace_id)) == {"SERVER": 2, "CLIENT": 1}


def test_nothing_personal_and_no_token_is_ever_sent_to_the_collector(traced: Traced, trace_id: str) -> None:
    card, mobile, name, number = "6222021234567890128", "13800138000", "张三", "ORDER-OF-ZHANGSAN"
    minted = traced.deployment.callback(
        number, changes={"channel_response": f"{name} {card} {mobile}", "holder": name}, traceparent=_sampled(trace_id)
    )
    traced.send(minted)
    traced.await_span(trace_id, "POST", **{"payment.endpoint": "shop"})
    refused = secrets.token_hex(16)
    for stranger in (
        Callback(biz_order_no=number, merchant=mobile, traceparent=_sampled(refused)),
        Callback(biz_order_no=number, token=f"k1.{card}.{mobile}", traceparent=_sampled(refused)),
    ):
        assert traced.deployment.sender.send(stranger).status == 400
    body = {"merchant": "ask", "biz_order_no": number, **_WITHHOLD}
    assert (body["name"], body["bank_card_number"], body["mobile"]) == (name, card, mobile)
    traced.call_api("POST", "/v1/withholds?who=" + mobile, _sampled(refused), body)
    traced.call_api(mobile, f"/v1/orders/ask/{number}", _sampled(refused))
    traced.await_span(refused, "POST /notify/<merchant>/<token>", **{"payment.refusal": "forged-token"})
    traced.await_span(refused, "_OTHER")
    traced.await_span(refused, "POST")
    sent = b"".join(request.body for request in list(traced.collector.requests))
    for secret in (card, mobile, name, number, minted.token, TOKEN, body["id_card_number"], AES_KEY):
        assert str(secret).encode() not in sent, secret


def test_a_collector_that_hangs_or_is_away_costs_no_callback_and_is_reported_once(
    deploy: Callable[..., Deployment], own_shop: Downstream
) -> None:
    with Collector() as collector:
        healthy, collector.behave = collector.behave, collector.hang
        deployment = deploy(Place())
        # So few spans fit that most are dropped.
        limits = {
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
        }
        deployment.start(*ROLES, environment={**collector.environment, **limits})
        deployment.wait_until_receiving()
        answers = deployment.sender.send_all([deployment.callback(f"DK{number}") for number in range(100)])
        assert all(answer.acknowledged for answer in answers)
        eventually(lambda: len({event.id for event in own_shop.received}) == 100)
        ledger = deployment.role("ledger")
        eventually(lambda: "traces_not_sent" in ledger.output)
        collector.behave = healthy
        deployment.sender.send(deployment.callback("DK-after"))
        eventually(lambda: "traces_sent_again" in ledger.output)
        assert ledger.output.count("traces_not_sent") == 1
        collector.behave = collector.hang
        for role in ROLES:
            deployment.role(role).signal(signal.SIGTERM)
        for role in ROLES:
            assert deployment.role(role).wait() == 0


def test_the_last_spans_are_sent_when_a_role_ends(deploy: Callable[..., Deployment]) -> None:
    with Collector() as collector:
        deployment = deploy(Place())
        variables = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_SERVICE_NAME": "payments"}
        deployment.start("receiver", environment={**collector.environment, **variables})
        deployment.wait_until_receiving()
        assert deployment.sender.send(deployment.callback("DK1")).acknowledged
        assert collector.spans == []
        deployment.role("receiver").signal(signal.SIGTERM)
        assert deployment.role("receiver").wait() == 0
        assert {(span.service, span.name) for span in collector.spans} == {
            ("payments", "POST /notify/<merchant>/<token>"),
            ("payments", "publish payment.callbacks"),
        }


@pytest.mark.parametrize("role", ["ledger", "receiver", "all"])
def test_a_role_that_cannot_send_the_traces_it_is_asked_for_ends_at_once_and_says_why(
    deploy: Callable[..., Deployment], role: str
) -> None:
    done = deploy(Place()).command("run", role, environment={"OTEL_TRACES_EXPORTER": "zipkin"})
    assert done.returncode == 1
    assert "OTEL_TRACES_EXPORTER is 'zipkin': only `otlp` and `none` are known" in done.stderr
