"""Webhooks to a real server that answers well, badly, slowly or not at all."""

import base64
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from consumers.sinks.sink import DeliveryFailed, EndpointGone
from consumers.sinks.webhook import WebhookSink
from service.config.endpoints import WebhookSettings
from service.config.secrets import Secret
from service.domain.claims import OrderStatus, Trust
from service.domain.events import EventType, PaymentEvent, SerializedEvent, write_event
from tests.support.http_server import EVERY_INTERIM, NEVER_SECONDS, Answer, Interim, ScriptedServer
from tests.support.processes import find_free_port


def make_event(biz_order_no: str = "20260301-7") -> SerializedEvent:
    event = PaymentEvent(
        type=EventType.SUCCEEDED,
        merchant="acme",
        biz_order_no=biz_order_no,
        sequence=2,
        status=OrderStatus.SUCCEEDED,
        previous_status=OrderStatus.PROCESSING,
        pay_order_no="P7",
        order_type="withhold",
        pay_type="12",
        paid_at=None,
        amount="12.30",
        amount_unit="yuan",
        channel_response="交易成功",
        trust=Trust.QUERIED,
        observed_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    return SerializedEvent(
        event_id=event.id,
        type=event.type.value,
        merchant=event.merchant,
        order_type=event.order_type,
        status=event.status.value,
        body=write_event(event),
    )


def make_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as made:
        yield made


@pytest.fixture
def secrets() -> list[str]:
    return [make_secret(), make_secret()]


def make_sink(
    url: str,
    *secrets: str,
    timeout_seconds: float = 30.0,
    lag: float = 0.0,
    max_retry_seconds: float = 3600.0,
) -> WebhookSink:
    endpoint = WebhookSettings(
        name="shop",
        url=url,
        secrets=[Secret(secret) for secret in secrets or [make_secret()]],
        timeout_seconds=timeout_seconds,
        max_retry_seconds=max_retry_seconds,
    )
    return WebhookSink(endpoint=endpoint, clock=lambda: datetime.now(UTC) - timedelta(seconds=lag))


@pytest.fixture
def sink(server: ScriptedServer, secrets: list[str]) -> Iterator[WebhookSink]:
    made = make_sink(server.url + "?tenant=1", *secrets)
    yield made
    made.close()


@pytest.fixture
def hasty_sink(server: ScriptedServer) -> Iterator[WebhookSink]:
    """For what is to run into the time limit."""
    made = make_sink(server.url, timeout_seconds=1.5)
    yield made
    made.close()


def test_the_stored_bytes_arrive_as_a_structured_cloudevent(sink: WebhookSink, server: ScriptedServer) -> None:
    event = make_event()
    sink.send(event)
    [request] = server.requests
    assert request.body == event.body
    assert request.path == "/events?tenant=1"
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == event.event_id == json.loads(request.body)["id"]


def test_each_of_two_secrets_verifies_what_was_sent(
    sink: WebhookSink, server: ScriptedServer, secrets: list[str]
) -> None:
    sink.send(make_event())
    [request] = server.requests
    for secret in secrets:
        assert Webhook(secret).verify(request.body, dict(request.headers))["subject"] == "20260301-7"
    with pytest.raises(WebhookVerificationError):
        Webhook(make_secret()).verify(request.body, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(secrets[0]).verify(request.body + b" ", dict(request.headers))


@pytest.mark.parametrize("biz_order_no", ["a.b/c%2F d", "订单.7", "x.1700000000.y", "~._-", "a\u00a0b"])
def test_an_id_verifies_and_holds_no_dot_whatever_the_order_number(
    sink: WebhookSink, server: ScriptedServer, secrets: list[str], biz_order_no: str
) -> None:
    sink.send(make_event(biz_order_no))
    [request] = server.requests
    assert "." not in request.headers["webhook-id"]
    assert Webhook(secrets[0]).verify(request.body, dict(request.headers))["subject"] == biz_order_no


def test_the_timestamp_is_that_of_the_try(server: ScriptedServer, secrets: list[str]) -> None:
    late = make_sink(server.url, *secrets, lag=600)
    late.send(make_event())
    [request] = server.requests
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secrets[0]).verify(request.body, dict(request.headers))
    late.close()


def test_a_connection_is_kept_for_the_next_event(sink: WebhookSink, server: ScriptedServer) -> None:
    server.behave = lambda _request: Answer(body=b'{"ok":true}')
    for _ in range(3):
        sink.send(make_event())
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(sink: WebhookSink, server: ScriptedServer, status: int) -> None:
    server.behave = lambda _request: Answer(status=status)
    sink.send(make_event())


@pytest.mark.parametrize("status", [400, 401, 404, 408, 425, 500, 502, 503, 504])
def test_an_error_status_is_a_failure_that_says_no_more_than_the_status(
    sink: WebhookSink, server: ScriptedServer, status: int
) -> None:
    server.behave = lambda _request: Answer(status=status, body="张三 6222021234561234".encode())
    with pytest.raises(DeliveryFailed) as failure:
        sink.send(make_event())
    assert str(failure.value) == f"the endpoint answered {status}"
    assert failure.value.retry_after_seconds is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(sink: WebhookSink, server: ScriptedServer, status: int) -> None:
    server.behave = lambda _request: Answer(status=status, headers={"location": server.url})
    with pytest.raises(DeliveryFailed, match="redirects are not followed"):
        sink.send(make_event())
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_handed_on(sink: WebhookSink, server: ScriptedServer, status: int) -> None:
    server.behave = lambda _request: Answer(status=status, headers={"retry-after": "17"})
    with pytest.raises(DeliveryFailed) as failure:
        sink.send(make_event())
    assert failure.value.retry_after_seconds == 17


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (" 0 ", 0),
        ("7200", 7200),
        ("7201", 7200),
        ("9" * 400, 7200),
        ("Sun, 01 Mar 2020 11:00:00 GMT", 0),
        ("Sun, 99 Mar 2020 11:00:00 GMT", 0),
        ("Sat, 01 Mar 9998 11:00:00 GMT", 7200),
    ],
)
def test_retry_after_is_granted_up_to_the_most_pause(server: ScriptedServer, value: str, seconds: float) -> None:
    assert retry_after(server, value) == seconds


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/Los_Angeles"])
@pytest.mark.parametrize(
    "form",
    [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%a, %d %b %Y %H:%M:%S +0000",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%c",
        "%a %b %d %H:%M:%S %Y",
    ],
)
def test_a_date_says_the_same_wherever_we_are(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, zone: str, form: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    asked = retry_after(server, (datetime.now(UTC) + timedelta(seconds=1800)).strftime(form))
    monkeypatch.undo()
    time.tzset()
    assert asked is not None
    assert 1000 < asked <= 1800


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "1.5",
        "-5",
        "Sun, 01 Foo 2026 12:00:00 GMT",
        f"Sun, 01 Mar {10**20} 12:00:00 GMT",
        "Sun, 01 Mar 99999 12:00:00 GMT",
        "9" * 5000,
        "17, 18",
        "nan",
        "inf",
        "0x10",
    ],
)
def test_a_retry_after_that_cannot_be_read_counts_as_absent(server: ScriptedServer, value: str) -> None:
    assert retry_after(server, value) is None


def retry_after(server: ScriptedServer, value: str) -> float | None:
    server.behave = lambda _request: Answer(status=503, headers={"retry-after": value})
    sink = make_sink(server.url, max_retry_seconds=7200)
    with pytest.raises(DeliveryFailed) as failure:
        sink.send(make_event())
    sink.close()
    return failure.value.retry_after_seconds


STATUSES = {"first": 500, "second": 200, "third": 429, "fourth": 204}


@pytest.mark.parametrize("interim", EVERY_INTERIM, ids=str)
def test_each_event_gets_the_status_that_was_sent_for_it(server: ScriptedServer, interim: Interim) -> None:
    server.behave = lambda request: Answer(
        status=STATUSES[json.loads(request.body)["subject"]],
        before=interim.content,
        ahead_seconds=interim.ahead_seconds,
    )
    sink = make_sink(server.url)
    outcomes = [outcome_of(sink, order) for order in STATUSES]
    sink.close()
    assert outcomes == ["the endpoint answered 500", None, "the endpoint answered 429", None]
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize(("status", "count"), [(102, 1), (103, 3)])
def test_an_event_of_which_only_interim_answers_came_is_not_delivered(
    hasty_sink: WebhookSink, server: ScriptedServer, status: int, count: int
) -> None:
    server.behave = lambda _request: Answer(before=Interim(status, count).content, ahead_seconds=NEVER_SECONDS)
    assert outcome_of(hasty_sink, "first") == "no answer in time: ReadTimeoutError (TimeoutError)"
    server.behave = lambda _request: Answer(status=500)
    assert outcome_of(hasty_sink, "second") == "the endpoint answered 500"


def outcome_of(sink: WebhookSink, order: str) -> str | None:
    """Why it was not delivered; None where it was."""
    try:
        sink.send(make_event(order))
    except DeliveryFailed as failure:
        return str(failure)
    return None


def test_variables_that_name_a_proxy_are_ignored(
    sink: WebhookSink, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{find_free_port()}")
    sink.send(make_event())
    assert len(server.requests) == 1


def test_410_says_that_the_endpoint_is_gone(sink: WebhookSink, server: ScriptedServer) -> None:
    server.behave = lambda _request: Answer(status=410)
    with pytest.raises(EndpointGone):
        sink.send(make_event())


def test_a_server_that_hangs_is_left_after_the_time_limit(hasty_sink: WebhookSink, server: ScriptedServer) -> None:
    server.behave = server.hang
    with pytest.raises(DeliveryFailed, match="ReadTimeoutError"):
        hasty_sink.send(make_event())


# Each byte comes well within the time limit; all of them would take longer than a test may.
DRIP = Answer(headers={"x-long": "x" * 1000}, pause_seconds=0.2)


def test_headers_that_drip_are_cut_at_the_time_limit(hasty_sink: WebhookSink, server: ScriptedServer) -> None:
    server.behave = lambda _request: DRIP
    with pytest.raises(DeliveryFailed, match="ReadTimeoutError"):
        hasty_sink.send(make_event())


def test_a_body_that_drips_after_a_success_is_cut_and_the_event_counts_as_delivered(server: ScriptedServer) -> None:
    sink = make_sink(server.url, timeout_seconds=2)
    server.behave = lambda _request: Answer(body=b"x" * 30_000, pause_seconds=0.005)
    sink.send(make_event())
    sink.close()


def test_a_long_body_is_not_read_and_costs_the_connection_only(sink: WebhookSink, server: ScriptedServer) -> None:
    server.behave = lambda _request: Answer(body=b"x" * 5_000_000)
    sink.send(make_event())
    sink.send(make_event())
    assert len({request.connection for request in server.requests}) == 2


def test_a_success_with_a_body_that_cannot_be_read_counts_as_delivered(
    hasty_sink: WebhookSink, server: ScriptedServer
) -> None:
    bodies = iter([b"-5\r\nabc", b"zz\r\nabc", b"ffffffffffffffffff\r\nabc"])
    server.behave = lambda _request: Answer(headers={"transfer-encoding": "chunked"}, body=next(bodies))
    for _ in range(3):
        hasty_sink.send(make_event())


def test_an_event_is_sent_again_over_a_new_connection_after_a_cut(
    hasty_sink: WebhookSink, server: ScriptedServer
) -> None:
    server.behave = server.hang
    with pytest.raises(DeliveryFailed):
        hasty_sink.send(make_event())
    server.behave = lambda _request: Answer()
    hasty_sink.send(make_event())


def test_a_refused_connection_is_a_failure_without_the_address_of_the_order() -> None:
    sink = make_sink(f"http://127.0.0.1:{find_free_port()}/")
    with pytest.raises(DeliveryFailed, match="no connection: NewConnectionError"):
        sink.send(make_event())
    sink.close()


def test_an_answer_that_is_no_http_is_a_failure(sink: WebhookSink, server: ScriptedServer) -> None:
    server.behave = lambda _request: Answer(status=12345)
    with pytest.raises(DeliveryFailed, match="ProtocolError"):
        sink.send(make_event())


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: ScriptedServer) -> None:
    sink = make_sink(secure.url)
    with pytest.raises(DeliveryFailed, match="SSLError"):
        sink.send(make_event())
    assert secure.requests == []
    sink.close()


def test_events_are_sent_over_tls_to_a_trusted_server(
    secure: ScriptedServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sink = make_sink(secure.url)
    sink.send(make_event())
    sink.send(make_event())
    assert len({request.connection for request in secure.requests}) == 1
    sink.close()
