"""Anyone can make the callback's sign, so anyone may come; what they get is a plain failure, or no belief."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from service.domain.claims import Trust
from tests.support.callbacks import Answer, Callback, php
from tests.support.deployment import Deployment, token_of
from tests.support.downstream import Downstream
from tests.support.processes import answers
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


def _forgeries(order: str) -> dict[str, Callback]:
    """Callbacks of a forger who knows everything but our keys, for a merchant that requires `capability`."""
    failed = Callback(biz_order_no=order, pay_status="fail", token=token_of("acme", order))
    kid, number, mac = failed.token.split(".")
    return {
        "no token": replace(failed, token=""),
        "no token at all": replace(failed, token="x"),
        "token with another proof": replace(failed, token=f"{kid}.{number}.{mac[:-8]}AAAAAAAA"),
        "token with an unknown key": replace(failed, token=f"k9.{number}.{mac}"),
        "token of another order": replace(failed, token=token_of("acme", "another")),
        "token of another merchant": replace(failed, token=token_of("other", order)),
        "merchant that nobody knows": replace(failed, merchant="nobody"),
        "wrong sign": replace(failed, signed_by=lambda fields: php({**fields, "pay_status": "success"})),
        "no JSON": replace(failed, sent_by=lambda _: "{"),
        "no order": replace(failed, sent_by=lambda _: "{}"),
    }


def test_no_forgery_harms_an_order_whose_merchant_requires_capability(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    forgeries = deployment.sender.send_all(_forgeries(order).values())
    assert not any(answer.acknowledged for answer in forgeries)
    assert deployment.sender.send(deployment.callback(order)).acknowledged
    eventually(lambda: shop.about(order))
    deployment.sender.send_all(_forgeries(order).values())
    _settle(deployment, shop, order)
    assert [event.type for event in shop.about(order)] == ["payment.succeeded"]
    assert len(deployment.ledger.claims_about(order)) == 1


def test_the_answer_to_a_refused_callback_never_says_why(deployment: Deployment, order: str) -> None:
    refused = {name: _seen(deployment.sender.send(forged)) for name, forged in _forgeries(order).items()}
    assert set(refused.values()) == {(400, b"fail", "text/plain", "keep-alive")}, refused


def test_no_token_and_no_card_number_is_in_any_output(deployment: Deployment, shop: Downstream, order: str) -> None:
    true = deployment.callback(order, changes={"channel_response": "卡 6222021234561234"})
    sent = [true, *_forgeries(order).values()]
    deployment.sender.send_all(sent)
    for request in (
        f"GET /notify/acme/{true.token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        f"POST //notify/acme/{true.token}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        f"POST /notify/acme/{true.token} HTTP/9.9\r\n\r\n",
        f"nonsense /notify/acme/{true.token}\r\n\r\n",
        f"POST /notify/acme/{true.token} HTTP/1.1\r\nHost: x\r\n{true.token}\r\n\r\n",
    ):
        assert b"200 OK" not in _send_raw(deployment, request)
    eventually(lambda: shop.about(order))
    output = deployment.output
    proofs = {callback.token.rpartition(".")[2] for callback in sent if "." in callback.token}
    assert "callback_acknowledged" in output
    assert "callback_refused" in output
    assert [proof for proof in proofs if proof in output] == []
    assert "6222021234561234" not in output


def test_a_forged_fail_never_masks_a_true_success(deployment: Deployment, shop: Downstream, order: str) -> None:
    """Where `checksum` is enough, the forgery is believed, until the callback on the minted address corrects it."""
    forged = Callback(biz_order_no=order, merchant="open", pay_status="fail")
    true = deployment.callback(order, merchant="open")
    for callback in (forged, true, forged):
        assert deployment.sender.send(callback).acknowledged
    _settle(deployment, shop, order)
    eventually(lambda: [event.type for event in shop.about(order)] == ["payment.failed", "payment.corrected"])
    data = shop.about(order)[-1].envelope["data"]
    assert (data["status"], data["previous_status"], data["trust"]) == ("succeeded", "failed", "capability")


def test_a_forged_pending_with_a_false_pay_order_no_harms_nothing(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    forged = Callback(biz_order_no=order, merchant="open", pay_status="pending", changes={"pay_order_no": "PAY-forged"})
    for callback in (forged, deployment.callback(order, merchant="open"), forged):
        assert deployment.sender.send(callback).acknowledged
    _settle(deployment, shop, order)
    eventually(lambda: [event.type for event in shop.about(order)] == ["payment.processing", "payment.succeeded"])
    assert shop.about(order)[-1].envelope["data"]["pay_order_no"] == f"PAY-{order}"
    recorded = deployment.ledger.order(order)
    assert recorded is not None
    assert (recorded.status, recorded.conflicted) == ("succeeded", False)


def test_a_forged_copy_that_comes_first_does_not_swallow_the_true_callback(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    true = deployment.callback(order, merchant="open")
    for callback in (replace(true, token=""), true):
        assert deployment.sender.send(callback).acknowledged
    _settle(deployment, shop, order)
    assert [claim.trust for claim in deployment.ledger.claims_about(order)] == [Trust.CHECKSUM, Trust.CAPABILITY]
    recorded = deployment.ledger.order(order)
    assert recorded is not None
    assert recorded.trust == Trust.CAPABILITY
    eventually(lambda: [event.type for event in shop.about(order)] == ["payment.succeeded"])


@pytest.mark.parametrize("status", ["success", "fail", "pending"])
def test_below_the_required_trust_nothing_is_believed_and_the_gateway_is_to_be_asked(
    deployment: Deployment, shop: Downstream, order: str, status: str
) -> None:
    minted = deployment.callback(order, merchant="ask", pay_status=status)
    for callback in (replace(minted, token=""), minted):
        assert deployment.sender.send(callback).acknowledged
    _settle(deployment, shop, order)
    assert [claim.verdict for claim in deployment.ledger.claims_about(order)] == ["untrusted", "untrusted"]
    assert deployment.ledger.order(order) is None
    assert shop.about(order) == []
    (inquiry,) = deployment.ledger.inquiries_about(order)
    assert inquiry.state == "open"


def test_where_the_gateway_is_asked_a_wrong_token_is_refused_all_the_same(deployment: Deployment, order: str) -> None:
    wrong = Callback(biz_order_no=order, merchant="ask", token=token_of("acme", order))
    assert deployment.sender.send(wrong).status == 400


def test_costly_requests_keep_no_true_callback_from_its_acknowledgement(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    requests = [_in_one_byte_chunks(), _form_of_control_characters()]
    orders = [f"{order} {number}" for number in range(20)]
    with ThreadPoolExecutor(4) as strangers:
        hostile = [strangers.submit(_begin_of_answer, deployment, requests[number % 2]) for number in range(40)]
        answered = [deployment.sender.send(deployment.callback(order)) for order in orders]
        refused = {begin.result()[:12] for begin in hostile}
    assert all(answer.acknowledged for answer in answered)
    assert refused <= {b"HTTP/1.1 400", b"HTTP/1.1 413"}
    for order in orders:
        eventually(shop.about, order)


_HEAD = b"POST /notify/acme HTTP/1.1\r\nHost: receiver\r\n"
_FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


def _in_one_byte_chunks() -> bytes:
    return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 45_000 + b"0\r\n\r\n"


def _form_of_control_characters() -> bytes:
    body = b"sign=0123456789abcdef0123456789abcdef&biz_order_no=x&pay_status=&note=" + b"\b\x7f\f\x01\\" * 13_000
    return _HEAD + _FORM + b"Content-Length: %d\r\n\r\n" % len(body[: 64 * 1024]) + body[: 64 * 1024]


def _begin_of_answer(deployment: Deployment, request: bytes) -> bytes:
    with _connect(deployment) as client:
        with suppress(OSError):  # it may be answered before its end
            client.sendall(request)
        return client.recv(64)


def _settle(deployment: Deployment, shop: Downstream, order: str) -> None:
    """Wait until a true callback that comes now is told: what was queued before it has been dealt with."""
    later = f"{order} later"
    assert deployment.sender.send(deployment.callback(later)).acknowledged
    eventually(lambda: shop.about(later))


def _seen(answer: Answer) -> tuple[int, bytes, str | None, str | None]:
    """Whatever a forger gets to see, but for the date."""
    return answer.status, answer.body, answer.headers.get("Content-Type"), answer.headers.get("Connection")


def _send_raw(deployment: Deployment, request: str) -> bytes:
    with _connect(deployment) as connection:
        connection.sendall(request.encode())
        received = b""
        while chunk := connection.recv(4096):
            received += chunk
    assert answers(deployment.url + "/healthz")
    return received


def _connect(deployment: Deployment) -> socket.socket:
    host, port = deployment.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=HANGS_AFTER_SECONDS)
