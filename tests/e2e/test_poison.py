"""Messages that nobody can apply are put aside with their reason, and hold up nothing."""

import pytest

from service.messaging.codec import CLAIM_V1
from service.messaging.contract import Message
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE
from tests.support.deployment import Deployment
from tests.support.downstream import Downstream
from tests.support.waiting import eventually


def _message(message_id: str, body: bytes, type_: str = CLAIM_V1) -> Message:
    return Message(exchange=CALLBACKS_EXCHANGE, routing_key="acme", body=body, message_id=message_id, type=type_)


_POISON = {
    "poison-bytes": (_message("poison-bytes", b"\x00\xff"), "body is not JSON"),
    "poison-fields": (_message("poison-fields", b'{"merchant":"acme"}'), "field 'biz_order_no' is missing"),
    "poison-version": (_message("poison-version", b"{}", "payment-callbacks.claim.v99"), "payment-callbacks.claim.v99"),
}


@pytest.fixture
def _no_dead_letters(deployment: Deployment) -> None:
    deployment.command("dead", "drop", "--all", "--yes")


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

    replayed = deployment.command("dead", "replay", "poison-fields")
    assert (replayed.returncode, replayed.stdout) == (0, "replayed: 1\n")
    eventually(lambda: _died_again(listed, _list(deployment)))

    dropped = deployment.command("dead", "drop", "--all", "--yes")
    assert (dropped.returncode, dropped.stdout) == (0, f"dropped: {len(_POISON)}\n")
    assert _list(deployment) == {}
    unknown = deployment.command("dead", "replay", "poison-fields")
    assert unknown.returncode == 1
    assert "Traceback" not in unknown.stderr


def _list(deployment: Deployment) -> dict[str, str]:
    """What `dead list` prints, by id."""
    done = deployment.command("dead", "list")
    assert done.returncode == 0, done.stderr
    return dict(line.split("  ", 1) for line in done.stdout.splitlines())


def _died_again(before: dict[str, str], now: dict[str, str]) -> bool:
    """Whether only the replayed one's line is another: it has come back with a later time."""
    assert now.keys() == before.keys()
    return [message_id for message_id in before if before[message_id] != now[message_id]] == ["poison-fields"]
