import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from service.domain.claims import Trust
from service.messaging.codec import decode_claim
from service.messaging.errors import BrokerUnavailable, ConfirmTimeout
from service.serving.http import ARRIVED_AT
from tests.support.callbacks import signed_body
from tests.support.receiver import callback

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def post(receiver: Any, path: Any, body: Any, **options: Any) -> Any:
    return receiver.client.post(path, data=body, content_type="application/json", **options)


def test_a_queued_callback_gets_the_merchants_acknowledgement(receiver: Any) -> None:
    sent = callback("order-1")
    answer = post(receiver, sent.path, sent.body)
    assert (answer.status_code, answer.text) == (200, "success by-capability")
    assert answer.content_type == "text/plain"
    claim = decode_claim(receiver.publisher.messages[0])
    assert (claim.merchant, claim.biz_order_no, claim.trust) == ("by-capability", "order-1", Trust.CAPABILITY)
    assert claim.stated_at.isoformat() == "2026-07-01T04:05:06+00:00"


def test_nothing_is_acknowledged_before_the_queue_has_confirmed(unconfirmed: Any) -> None:
    sent = callback("order-1")
    answer = post(unconfirmed, sent.path, sent.body)
    assert (answer.status_code, answer.text) == (503, "fail")
    assert unconfirmed.log("callback_unconfirmed")["detail"] == "the broker is gone"
    assert unconfirmed.metric(
        "payment_callbacks_received_total", merchant="by-capability", outcome="unconfirmed", reason="NotConfirmed"
    )


@pytest.mark.parametrize(
    ("merchant", "trust"),
    [
        ("by-checksum", Trust.CHECKSUM),
        ("by-query", Trust.CHECKSUM),
        ("by-capability", None),
        ("by-query-and-token", None),
    ],
)
def test_without_a_token_a_callback_is_believed_by_its_sign_at_most(receiver: Any, merchant: str, trust: Any) -> None:
    answer = post(receiver, f"/notify/{merchant}", callback("order-1").body)
    if trust is None:
        assert answer.status_code == 400
        assert receiver.log("callback_refused")["reason"] == "missing-token"
    else:
        assert answer.status_code == 200
        assert decode_claim(receiver.publisher.messages[0]).trust is trust


def test_a_merchant_that_requires_a_token_takes_a_callback_with_one(receiver: Any) -> None:
    merchant = "by-query-and-token"
    answer = post(receiver, callback("order-1", merchant=merchant).path, callback("order-1", merchant=merchant).body)
    assert answer.status_code == 200
    assert decode_claim(receiver.publisher.messages[0]).trust is Trust.CAPABILITY


@pytest.mark.parametrize("merchant", ["by-checksum", "by-query", "by-capability"])
def test_a_wrong_token_is_refused_whatever_trust_is_required(receiver: Any, merchant: str) -> None:
    forged = callback("order-1", merchant=merchant).path[:-4] + "AAAA"
    answer = post(receiver, forged, callback("order-1", merchant=merchant).body)
    assert answer.status_code == 400
    assert receiver.log("callback_refused")["reason"] in ("forged-token", "malformed-token")
    assert not receiver.publisher.messages


def test_another_merchants_token_is_refused(receiver: Any) -> None:
    token = callback("order-1", merchant="by-query").token
    answer = post(receiver, f"/notify/by-capability/{token}", callback("order-1").body)
    assert answer.status_code == 400
    assert receiver.log("callback_refused")["reason"] == "forged-token"


def test_a_token_opens_no_other_order_than_its_own(receiver: Any) -> None:
    answer = post(receiver, callback("order-1").path, callback("order-2").body)
    assert answer.status_code == 400
    assert receiver.log("callback_refused")["reason"] == "token-of-another-order"
    assert not receiver.publisher.messages


def test_a_forged_token_is_refused_before_the_body_is_read(receiver: Any) -> None:
    answer = post(receiver, "/notify/by-capability/k1.b3JkZXI.AAAA", b"\xff not even text")
    assert answer.status_code == 400
    assert receiver.log("callback_refused")["reason"] == "forged-token"


def refusals() -> Any:
    good = callback("order-1")
    return {
        "unknown merchant": ("/notify/nobody", good.body),
        "unknown merchant with a token": (f"/notify/nobody/{good.token}", good.body),
        "no token": ("/notify/by-capability", good.body),
        "forged token": ("/notify/by-capability/k1.b3JkZXI.AAAA", good.body),
        "unknown key": ("/notify/by-capability/k9.b3JkZXI.AAAA", good.body),
        "no token at all": ("/notify/by-capability/%20", good.body),
        "wrong sign": (good.path, good.body.replace(b"success", b"pending")),
        "no sign": (good.path, b"{}"),
        "no JSON": (good.path, b"\xff\xfe"),
        "empty": (good.path, b""),
        "another order": (good.path, callback("order-2").body),
        "no order": ("/notify/by-query", signed_body({"pay_status": "success", "pay_order_no": "1"})),
    }


@pytest.mark.parametrize("kind", refusals())
def test_every_refusal_looks_the_same(receiver: Any, kind: Any) -> None:
    path, body = refusals()[kind]
    answer = post(receiver, path, body)
    assert (answer.status_code, answer.data, answer.content_type) == (400, b"fail", "text/plain")
    assert sorted(name for name, _ in answer.headers) == ["Content-Length", "Content-Type"]
    refused = receiver.log("callback_refused")
    assert receiver.metric(
        "payment_callbacks_received_total",
        merchant=refused["merchant"],
        outcome="refused",
        reason=refused["reason"],
    )


def test_refusals_are_counted_like_in_the_metric(receiver: Any) -> None:
    for path, body in refusals().values():
        post(receiver, path, body)
    post(receiver, callback("order-1").path, b"x" * (64 * 1024 + 1))
    post(receiver, callback("order-1").path, callback("order-1").body)
    counts = receiver.refusal_counts()
    assert sum(counts.values()) == len(refusals()) + 1
    for (merchant, reason), callbacks in counts.items():
        counted = receiver.metric(
            "payment_callbacks_received_total", merchant=merchant or "unknown", outcome="refused", reason=reason
        )
        assert counted == callbacks


def test_an_unknown_merchants_name_makes_no_time_series_and_no_log_field(receiver: Any) -> None:
    # Whoever forgets the slug puts the token in its place.
    token = callback("order-1").token
    assert post(receiver, f"/notify/{token}", callback("order-1").body).status_code == 400
    assert receiver.log("callback_refused")["merchant"] == "unknown"
    assert token not in repr(receiver.logs)


def test_a_body_over_the_bound_is_refused_as_too_large(receiver: Any) -> None:
    answer = post(receiver, callback("order-1").path, b"x" * (64 * 1024 + 1))
    assert (answer.status_code, answer.text) == (413, "fail")
    assert receiver.metric(
        "payment_callbacks_received_total", merchant="by-capability", outcome="refused", reason="too-large"
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_is_allowed(receiver: Any, method: str) -> None:
    answer = receiver.client.open(callback("order-1").path, method=method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert answer.data == (b"" if method == "HEAD" else b"fail")


@pytest.mark.parametrize("path", ["/", "/notify", "/notify/", "/notify//x", "/notify/a/b/c", "//notify/by-query"])
def test_other_addresses_are_not_found_and_not_redirected(receiver: Any, path: str) -> None:
    answer = receiver.client.post(path)
    assert (answer.status_code, answer.text) == (404, "fail")


@pytest.fixture
def loop() -> Iterator[Any]:
    with contextlib.closing(asyncio.new_event_loop()) as opened:
        yield opened


def test_a_surprise_is_a_plain_failure_and_its_traceback_stays_in_the_log(make_receiver: Any, loop: Any) -> None:
    receiver = make_receiver(loop=loop)
    receiver.publisher.mistake = RuntimeError("secret internals")
    sent = callback("order-1")
    answer = post(receiver, sent.path, sent.body)
    assert (answer.status_code, answer.text) == (500, "fail")
    assert receiver.log("request_failed")["exc_info"] is receiver.publisher.mistake
    assert receiver.metric(
        "payment_callbacks_received_total", merchant="by-capability", outcome="failed", reason="RuntimeError"
    )
    assert receiver.metric("payment_callbacks_in_flight") == 0


def test_the_traceparent_travels_with_the_claim(receiver: Any) -> None:
    sent = callback("order-1")
    post(receiver, sent.path, sent.body, headers={"traceparent": TRACEPARENT})
    assert decode_claim(receiver.publisher.messages[0]).traceparent == TRACEPARENT


def test_the_confirms_time_limit_begins_when_the_request_had_arrived(receiver: Any) -> None:
    sent = callback("order-1")
    post(receiver, sent.path, sent.body, environ_overrides={ARRIVED_AT: time.monotonic() - 0.1})
    assert 0 < receiver.publisher.timeouts[0] <= 1.9


def test_a_callback_that_waited_too_long_for_its_turn_fails_without_being_published(receiver: Any) -> None:
    sent = callback("order-1")
    answer = post(receiver, sent.path, sent.body, environ_overrides={ARRIVED_AT: time.monotonic() - 2.1})
    assert answer.status_code == 503
    assert not receiver.publisher.timeouts


def test_a_callback_whose_deadline_has_passed_is_not_even_read(receiver: Any) -> None:
    sent = callback("order-1")
    late = {ARRIVED_AT: time.monotonic() - 2.1}
    answer = post(receiver, sent.path, b"neither JSON nor signed", environ_overrides=late)
    assert (answer.status_code, answer.text) == (503, "fail")
    assert receiver.log("callback_unconfirmed")["reason"] == "ConfirmTimeout"
    assert receiver.metric(
        "payment_callbacks_received_total", merchant="by-capability", outcome="unconfirmed", reason="ConfirmTimeout"
    )


def test_an_unusual_kind_of_body_is_accepted_and_logged_once(receiver: Any) -> None:
    body = b"[" + signed_body({"biz_order_no": "a", "pay_order_no": "b", "pay_status": "success"}) + b"]"
    for _ in range(2):
        assert post(receiver, "/notify/by-query", body).status_code == 200
    assert receiver.log("callback_body_unusual")["kind"] == "json-list"


def test_the_token_is_held_to_the_order_in_every_wrapping(receiver: Any) -> None:
    sent = callback("order-1")
    text = sent.body.decode()
    for body in (f"[{text}]", json.dumps(text), urlencode({"x": text})):
        assert post(receiver, sent.path, body).status_code == 200
        assert post(receiver, callback("order-2", merchant="by-capability").path, body).status_code == 400
    assert {line.get("reason") for line in receiver.logs} >= {"token-of-another-order"}


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), ConfirmTimeout("slow")])
def test_the_reason_of_a_missing_confirm_is_counted(receiver: Any, error: Any) -> None:
    receiver.publisher.failure = error
    sent = callback("order-1")
    post(receiver, sent.path, sent.body)
    assert receiver.metric(
        "payment_callbacks_received_total",
        merchant="by-capability",
        outcome="unconfirmed",
        reason=type(error).__name__,
    )


def test_a_new_sign_dialect_is_logged_once(receiver: Any) -> None:
    fields = {"biz_order_no": "a", "pay_order_no": "b", "pay_status": "success", "note": "é/"}
    compact = signed_body(fields)
    # Signed as above, but sent by a writer that escapes nothing: the sign fits another dialect.
    spaced = compact.replace(b"\\u00e9", "é".encode())
    for body in (compact, compact, spaced, compact, spaced):
        assert post(receiver, "/notify/by-query", body).status_code == 200
    changed = receiver.log("sign_dialect_changed")
    assert changed["merchant"] == "by-query"
    assert changed["before"] != changed["now"]
    assert receiver.metric("payment_callbacks_sign_dialect_total", merchant="by-query", dialect=changed["before"]) == 3


def test_no_proxy_header_is_believed_by_default(receiver: Any) -> None:
    post(receiver, "/notify/nobody", b"", headers={"X-Forwarded-For": "203.0.113.9"})
    assert receiver.log("callback_refused")["client"] == "127.0.0.1"


def test_the_clients_address_is_what_the_configured_number_of_proxies_says(make_receiver: Any) -> None:
    receiver = make_receiver(trusted_proxy_hops=2)
    post(receiver, "/notify/nobody", b"", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.1"})
    assert receiver.log("callback_refused")["client"] == "203.0.113.9"


def test_the_publisher_is_made_once_and_not_before_it_is_needed(receiver: Any) -> None:
    assert receiver.publisher.made == 0
    for number in range(3):
        sent = callback(f"order-{number}")
        post(receiver, sent.path, sent.body)
    assert receiver.publisher.made == 1


def test_with_a_loop_the_calling_thread_itself_publishes(make_receiver: Any, loop: Any) -> None:
    receiver = make_receiver(loop=loop)
    assert receiver.publisher.made == 1
    sent = callback("order-1")
    assert post(receiver, sent.path, sent.body).status_code == 200
    assert receiver.publisher.threads == {threading.get_ident()}
    assert receiver.publisher.made == 1


def test_a_closed_receiver_takes_nothing_more(receiver: Any) -> None:
    receiver.client.application.extensions["publisher"].close(timeout_seconds=1)
    sent = callback("order-1")
    assert post(receiver, sent.path, sent.body).status_code == 503
    assert receiver.publisher.made == 0
