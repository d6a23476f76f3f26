"""A payment by another channel or of another amount than asked for never goes out as the one that was asked for."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from service.ledger.announcements import Announcement
from tests.support.callbacks import Callback, mint_token
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.waiting import eventually

TOKEN_KEY = "the token key of these merchants, for tests only"
SETTINGS = f"""
[merchants.asked]
pay_types = ["baofoo_001", "kuaiqian_002"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{{{ kid = "k1", key = "{TOKEN_KEY}" }}}}]
min_inquiry_interval_seconds = 0.1
first_inquiry_repeat_seconds = 0.1
gateway = {{{{ url = "{{gateway}}", ua = "ASKED", aes_key = "{AES_KEY}", allow_plain_http = true }}}}

[merchants.mute]
pay_types = ["baofoo_001", "kuaiqian_002"]
amount_unit = "yuan"
amount_field = {{{{ name = "total", unit = "fen" }}}}
token_keys = [{{{{ kid = "k1", key = "{TOKEN_KEY}" }}}}]

[[endpoints]]
name = "books"
kind = "webhook"
url = "{{books}}"
secrets = ["{WEBHOOK_SECRET}"]
types = ["payment.succeeded", "payment.failed", "payment.corrected", "payment.conflicted"]
timeout_seconds = 2.0
"""


@pytest.fixture(scope="module")
def _disputing(
    find_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, Downstream]]:
    with (
        AskedGateway(lambda _: "success", pay_type="kuaiqian_002") as gateway,
        Downstream() as books,
        Deployment(
            folder=tmp_path_factory.mktemp("disputing"),
            place=find_place(),
            downstreams={},
            more_settings=SETTINGS.format(gateway=gateway.url, books=books.url),
        ) as deployment,
    ):
        deployment.prepare()
        deployment.start(*ROLES, "inquirer")
        deployment.wait_until_receiving()
        yield deployment, books


@pytest.fixture
def deployment(_disputing: tuple[Deployment, Downstream]) -> Deployment:
    """Runs with the merchants "asked", whose gateway has every order paid by kuaiqian_002, and "mute"."""
    return _disputing[0]


@pytest.fixture
def books(_disputing: tuple[Deployment, Downstream]) -> Downstream:
    """Receives conflicts, too."""
    return _disputing[1]


def succeed(deployment: Deployment, order: str, merchant: str, **changes: str) -> None:
    token = mint_token(kid="k1", key=TOKEN_KEY, merchant=merchant, biz_order_no=order)
    said = {"pay_order_no": f"P{order}", **changes}
    callback = Callback(biz_order_no=order, merchant=merchant, token=token, changes=said)
    assert deployment.sender.send(callback).acknowledged


def announce(deployment: Deployment, order: str, merchant: str) -> None:
    announced = Announcement(
        merchant=merchant, biz_order_no=order, pay_type="baofoo_001", amount="100.00", amount_unit="yuan"
    )
    deployment.announce([announced])


def await_events(books: Downstream, order: str, *types: str) -> Sequence[dict[str, Any]]:
    """The events' data, once the order has exactly these."""
    eventually(lambda: [event.type for event in books.about(order)] == [f"payment.{type_}" for type_ in types])
    return [dict(event.envelope["data"]) for event in books.about(order)]


def shown(deployment: Deployment, order: str, merchant: str) -> Any:
    done = deployment.command("orders", "show", merchant, order, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_success_by_another_channel_than_announced_is_a_conflict_until_the_gateway_has_confirmed_it(
    deployment: Deployment, books: Downstream, order: str
) -> None:
    announce(deployment, order, "asked")
    succeed(deployment, order, "asked", pay_type="kuaiqian_002")
    conflicted, succeeded = await_events(books, order, "conflicted", "succeeded")
    assert (conflicted["status"], conflicted["pay_type"]) == ("initial", "baofoo_001")
    assert conflicted["disputed"] == {"pay_type": {"stands": "baofoo_001", "other": "kuaiqian_002"}}
    assert (succeeded["pay_type"], succeeded["trust"]) == ("kuaiqian_002", "query")
    stored = shown(deployment, order, "asked")["order"]
    assert (stored["pay_type"], stored["announced_pay_type"]) == ("kuaiqian_002", "baofoo_001")


def test_two_successes_by_two_channels_are_a_conflict(deployment: Deployment, books: Downstream, order: str) -> None:
    succeed(deployment, order, "mute", pay_type="baofoo_001")
    await_events(books, order, "succeeded")
    succeed(deployment, order, "mute", pay_type="kuaiqian_002")
    _, conflicted = await_events(books, order, "succeeded", "conflicted")
    assert conflicted["disputed"] == {"pay_type": {"stands": "baofoo_001", "other": "kuaiqian_002"}}


def test_a_success_of_another_amount_waits_for_a_person_who_sees_both_amounts(
    deployment: Deployment, books: Downstream, order: str
) -> None:
    announce(deployment, order, "mute")
    succeed(deployment, order, "mute", total="1")
    [conflicted] = await_events(books, order, "conflicted")
    assert (conflicted["status"], conflicted["amount"]) == ("initial", "100.00")
    assert conflicted["disputed"] == {"amount": {"stands": "100.00", "other": "0.01"}}
    table = deployment.command("orders", "show", "mute", order, environment={"COLUMNS": "250"}).stdout
    assert "In dispute" in table
    assert "0.01" in table

    evidence = ("--by", "Li", "--reason", "on the bank's statement", "--amount", "0.01", "--yes")
    done = deployment.command("orders", "resolve", "mute", order, "succeeded", *evidence)
    assert done.returncode == 0, done.stderr
    _, succeeded = await_events(books, order, "conflicted", "succeeded")
    assert succeeded["amount"] == "0.01"
    stored = shown(deployment, order, "mute")["order"]
    assert (stored["amount"], stored["announced_amount"], stored["conflicted"]) == ("0.01", "100.00", False)
