"""The totals behind charts, of real processes, on both foundations."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.callbacks import Callback
from tests.support.deployment import Deployment, Place
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.waiting import eventually

_ASKED = """
[merchants.asked]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
gateway = {{ url = "{url}", ua = "ASKED", aes_key = "{key}", timeout_seconds = 5.0 }}

[inquirer]
poll_seconds = 0.1
"""
_ROLES = ("receiver", "ledger", "inquirer", "dispatcher")


@pytest.fixture
def asking(find_place: Callable[[], Place], own_shop: Downstream, tmp_path: Path) -> Iterator[Deployment]:
    """A running deployment. Its merchant "asked" believes only its gateway, by which every order is paid."""
    with (
        AskedGateway(lambda _order: "success", pay_type="baofoo_001") as gateway,
        Deployment(
            folder=tmp_path,
            place=find_place(),
            downstreams={"shop": own_shop},
            more_settings=_ASKED.format(url=gateway.url, key=AES_KEY),
        ) as deployment,
    ):
        deployment.prepare()
        deployment.start(*_ROLES)
        deployment.wait_until_receiving()
        yield deployment


def _totals(deployment: Deployment, series: str, *labels: str, value: str = "value") -> Counter[tuple[str, ...]]:
    by = [word for label in labels for word in ("--by", label)]
    since = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    done = deployment.command("totals", series, "--since", since, "--json", *by)
    assert done.returncode == 0, done.stderr
    sums: Counter[tuple[str, ...]] = Counter()
    for point in json.loads(done.stdout)["points"]:
        sums[tuple(point[label] for label in labels)] += point[value]
    return +sums


def test_what_the_roles_count_is_in_the_totals_once_they_have_ended(asking: Deployment, own_shop: Downstream) -> None:
    sender = asking.sender
    for number in range(3):
        assert sender.send(asking.callback(f"DK{number}")).acknowledged
    assert sender.send(asking.callback("DK0")).acknowledged
    assert sender.send(Callback(biz_order_no="DK9", merchant="asked")).acknowledged
    assert sender.send(asking.callback("DK0", sent_by=lambda _: "{")).status == 400
    eventually(lambda: len({event.id for event in own_shop.received}) == 4)
    # It tells what it has refused when it ends, and the ledger records that.
    assert asking.role("receiver").terminate() == 0
    eventually(lambda: asking.ledger.count_refused() == 1)
    for role in _ROLES[1:]:
        assert asking.role(role).terminate() == 0
    assert _totals(asking, "claims", "merchant", "source", "outcome") == {
        ("acme", "callback", "applied"): 3,
        ("acme", "callback", "duplicate"): 1,
        ("asked", "callback", "untrusted"): 1,
        ("asked", "query", "applied"): 1,
    }
    assert _totals(asking, "refusals", "merchant", "outcome") == {("acme", "not-json"): 1}
    assert _totals(asking, "questions", "merchant", "outcome") == {("asked", "answered"): 1}
    delivered = _totals(asking, "deliveries", "endpoint", "outcome")
    assert delivered["shop", "delivered"] == 4
    # The gateway's answer does not say when the order was paid.
    assert _totals(asking, "lags", value="orders") == {(): 3}
