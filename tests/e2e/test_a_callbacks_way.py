"""One callback in, one status change out, whatever the gateway repeats, reorders and however it writes."""

from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from service.messaging.codec import CLAIM_V1
from service.messaging.interface import Message
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE
from tests.support.callbacks import Writer, form, node, php, python
from tests.support.deployment import Deployment
from tests.support.downstream import Downstream
from tests.support.waiting import eventually


def _await_events(shop: Downstream, order: str, *types: str) -> None:
    eventually(lambda: [event.type for event in shop.about(order)] == [f"payment.{type_}" for type_ in types])


def _await_later_order(deployment: Deployment, shop: Downstream, order: str) -> None:
    """Wait until an order that comes now has come through: whatever was queued before it has been dealt with."""
    later = f"{order} later"
    assert deployment.sender.send(deployment.callback(later)).acknowledged
    eventually(lambda: shop.about(later))


def test_a_callback_becomes_one_row_and_one_webhook_that_says_it_all(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    began = datetime.now(UTC)
    answer = deployment.sender.send(
        deployment.callback(order, changes={"channel_response": "卡 6222021234561234 成功"})
    )
    assert (answer.status, answer.body) == (200, b"success")
    assert answer.headers["Content-Type"].partition(";")[0] == "text/plain"

    eventually(lambda: shop.about(order))
    (event,) = [event for event in shop.received if event.biz_order_no == order]
    observed_at = event.envelope["time"]
    assert began < datetime.fromisoformat(observed_at) < datetime.now(UTC)
    assert event.headers["content-type"] == "application/cloudevents+json"
    assert event.envelope == {
        "specversion": "1.0",
        "id": f"acme/{quote(order, safe='').replace('.', '%2E')}/1",
        "source": "/merchants/acme",
        "type": "payment.succeeded",
        "subject": order,
        "time": observed_at,
        "datacontenttype": "application/json",
        "data": {
            "merchant": "acme",
            "biz_order_no": order,
            "pay_order_no": f"PAY-{order}",
            "order_type": "single_withhold",
            "pay_type": "baofoo_001",
            "status": "succeeded",
            "previous_status": "initial",
            "sequence": 1,
            "paid_at": "2026-07-01T12:00:00+08:00",
            "amount": None,
            "amount_unit": None,
            "channel_response": "卡 6222****1234 成功",
            "trust": "capability",
            "observed_at": observed_at,
        },
        "traceparent": event.headers["traceparent"],
    }
    (claim,) = deployment.ledger.claims_about(order)
    assert (claim.merchant, claim.status, claim.verdict) == ("acme", "succeeded", "applied")


@pytest.mark.parametrize(
    ("signed_by", "sent_by"),
    [(php, php), (node, node), (python, python), (php, python), (node, form), (php, form)],
    ids=lambda writer: writer.__name__,
)
def test_a_callback_is_understood_in_every_dialect(
    deployment: Deployment, shop: Downstream, order: str, signed_by: Writer, sent_by: Writer
) -> None:
    callback = deployment.callback(order, pay_status="fail", signed_by=signed_by, sent_by=sent_by)
    assert deployment.sender.send(callback).acknowledged
    _await_events(shop, order, "failed")
    assert shop.about(order)[0].envelope["data"]["channel_response"] == "余额不足/51"


def test_repeats_of_all_true_callbacks_make_each_event_once_and_in_order(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    statuses = ["initial", "pending", "pending", "success", "success", "pending", "initial", "success"]
    for status in statuses:
        assert deployment.sender.send(deployment.callback(order, pay_status=status)).acknowledged
    _await_later_order(deployment, shop, order)
    _await_events(shop, order, "processing", "succeeded")
    assert [event.sequence for event in shop.about(order)] == [1, 2]
    assert len(deployment.ledger.claims_about(order)) == 3


def test_a_pending_that_comes_after_its_success_changes_nothing(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    for status in ("success", "pending"):
        assert deployment.sender.send(deployment.callback(order, pay_status=status)).acknowledged
    _await_later_order(deployment, shop, order)
    _await_events(shop, order, "succeeded")
    assert [claim.verdict for claim in deployment.ledger.claims_about(order)] == ["applied", "stale"]


def test_a_thousand_identical_callbacks_at_once_are_one_claim_and_one_event(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    answers = deployment.sender.send_all([deployment.callback(order)] * 1000)
    assert [answer for answer in answers if not answer.acknowledged] == []
    _await_later_order(deployment, shop, order)
    assert len(deployment.ledger.claims_about(order)) == 1
    assert len(deployment.ledger.events_about(order)) == 1
    _await_events(shop, order, "succeeded")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pay_status": "refunded"}, "unknown pay_status 'refunded'"),
        ({"order_type": "batch"}, "unknown order_type 'batch'"),
        ({"pay_type": "another's"}, "is not this merchant's"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_only_a_person_can_read_is_acknowledged_and_kept_and_told_nobody(
    deployment: Deployment, shop: Downstream, order: str, changes: dict[str, str], reason: str
) -> None:
    assert deployment.sender.send(deployment.callback(order, changes=changes)).acknowledged
    _await_later_order(deployment, shop, order)
    (claim,) = deployment.ledger.claims_about(order)
    assert claim.verdict == "quarantined"
    assert reason in claim.quarantine
    assert deployment.ledger.events_about(order) == []
    assert shop.about(order) == []


# Messages that nobody can apply.


def _message(message_id: str, body: bytes, type_: str = CLAIM_V1) -> Message:
    return Message(exchange=CALLBACKS_EXCHANGE, routing_key="acme", body=body, message_id=message_id, type=type_)


_POISON = {
    "poison-bytes": (_message("poison-bytes", b"\x00\xff"), "body is not JSON"),
    "poison-fields": (_message("poison-fields", b'{"merchant":"acme"}'), "field 'biz_order_no' is missing"),
    "poison-version": (_message("poison-version", b"{}", "payment-callbacks.claim.v99"), "payment-callbacks.claim.v99"),
}


@pytest.fixture
def _no_dead_letters(deployment: Deployment) -> None:
    deployment.command("dead", "drop", "--all", "--yes", "--reason", "of another test")


@pytest.mark.usefixtures("_no_dead_letters")
def test_poison_among_good_callbacks_is_put_aside_with_its_reason_until_a_person_decides(
    deployment: Deployment, shop: Downstream, order: str
) -> None:
    orders = [f"{order} {number}" for number in range(len(_POISON) + 1)]
    for good, (poison, _) in zip(orders, _POISON.values(), strict=False):
        assert deployment.sender.send(deployment.callback(good)).acknowledged
        deployment.publish(poison)
    assert deployment.sender.send(deployment.callback(orders[-1])).acknowledged
    eventually(lambda: all(shop.about(good) for good in orders))

    eventually(lambda: _list(deployment).keys() == _POISON.keys())
    listed = _list(deployment)
    for message_id, (_, reason) in _POISON.items():
        assert reason in listed[message_id]
    shown = deployment.command("dead", "show", "poison-fields")
    assert '{"merchant":"acme"}' in shown.stdout

    replayed = deployment.command("dead", "replay", "poison-fields", "--reason", "mended")
    # It may have died again before the command looks.
    assert replayed.stdout in ("replayed: 1\n", "failed again: 1\n")
    eventually(lambda: _died_again(listed, _list(deployment)))

    dropped = deployment.command("dead", "drop", "--all", "--yes", "--reason", "made for a test", "--by", "Li")
    assert (dropped.returncode, dropped.stdout) == (0, f"dropped: {len(_POISON)}\n")
    assert _list(deployment) == {}
    shown = deployment.command("dead", "show", "poison-fields")
    assert "drop requested by Li (command line): made for a test" in shown.stdout
    assert shown.stdout.count("dropped") == 1
    unknown = deployment.command("dead", "replay", "poison-fields", "--reason", "?")
    assert unknown.returncode == 1
    assert "no dead letter has the id poison-fields; `payment-callbacks dead list` lists them" in unknown.stderr


def _list(deployment: Deployment) -> dict[str, str]:
    """What `dead list` prints, by id."""
    done = deployment.command("dead", "list")
    assert done.returncode == 0, done.stderr
    return dict(line.split("  ", 1) for line in done.stdout.splitlines())


def _died_again(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether only the replayed one's line is another: it has come back with a later time."""
    assert now.keys() == before.keys()
    return [message_id for message_id in before if before[message_id] != now[message_id]] == ["poison-fields"]
