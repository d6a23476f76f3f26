"""Callbacks that never come, and callbacks that lie: what goes out is what the gateway answers when it is asked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.ledger.announcements import Announcement
from service.sandbox.settings import Misbehaviour
from tests.support.callbacks import mint_token
from tests.support.deployment import ROLES, TERMINAL, Deployment, Place, first_arrivals
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, UA, CountingSandbox
from tests.support.waiting import eventually

PREFIX = "alone"
ORDERS = 40
TOKEN_KEY = "a token key of asked for tests only"

MERCHANT = f"""
[inquirer]
poll_seconds = 0.1

[merchants.asked]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{{{ kid = "k1", key = "{TOKEN_KEY}" }}}}]
least_inquiry_interval_seconds = 0.5
first_inquiry_repeat_seconds = 0.5
most_inquiry_repeat_seconds = 1.0
gateway = {{{{ url = "{{url}}", ua = "{UA}", aes_key = "{AES_KEY}", timeout_seconds = 5.0 }}}}
"""

Ask = Callable[..., tuple[Deployment, CountingSandbox]]


@pytest.fixture
def ask(find_place: Callable[[], Place], own_shop: Downstream, tmp_path: Path) -> Iterator[Ask]:
    """Starts everything against a sandbox of this misbehaviour, announces the orders and charges them."""
    with ExitStack() as running:

        def start(misbehaviour: Misbehaviour, *, due_seconds: float) -> tuple[Deployment, CountingSandbox]:
            gateway = running.enter_context(CountingSandbox(misbehaviour=misbehaviour, settle_seconds=2.0))
            deployment = running.enter_context(
                Deployment(
                    folder=tmp_path,
                    place=find_place(),
                    downstreams={"shop": own_shop},
                    more_settings=MERCHANT.format(url=gateway.url),
                )
            )
            deployment.prepare()
            deployment.start(*ROLES, "inquirer")
            deployment.wait_until_receiving()
            names = [f"{PREFIX}-{number}" for number in range(ORDERS)]
            due = datetime.now(UTC) + timedelta(seconds=due_seconds)
            deployment.announce(Announcement(merchant="asked", biz_order_no=name, answer_due_at=due) for name in names)
            gateway.withhold_all(names, notify_url=lambda name: f"{deployment.url}/notify/asked/{token(name)}")
            return deployment, gateway

        yield start


def test_with_every_callback_dropped_each_order_reaches_its_true_status(ask: Ask, own_shop: Downstream) -> None:
    deployment, gateway = ask(Misbehaviour(drop_share=1.0), due_seconds=1.0)
    truth = gateway.truth()
    eventually(lambda: ended(own_shop) == one_true_end_each(gateway))
    assert gateway.sandbox.counters.counts()["callbacks_sent"] == 0
    for name, status in truth.items():
        recorded = deployment.ledger.order(name)
        assert recorded is not None
        assert (recorded.status, recorded.conflicted) == (status, False)
        assert {claim.source for claim in deployment.ledger.claims_about(name)} == {"query"}


def test_a_gateway_whose_callbacks_lie_is_believed_only_when_it_is_asked(ask: Ask, own_shop: Downstream) -> None:
    """The lies come on the orders' own notify_urls, and long before anything is overdue."""
    deployment, gateway = ask(Misbehaviour(lie_share=1.0), due_seconds=3600.0)
    eventually(lambda: len({lie.biz_order_no for lie in gateway.sandbox.counters.lies()}) == ORDERS)
    eventually(lambda: ended(own_shop) == one_true_end_each(gateway))
    eventually(lambda: deployment.ledger.count_deliveries("open") == 0)
    assert ended(own_shop) == one_true_end_each(gateway)
    for name in gateway.truth():
        verdicts = {claim.verdict for claim in deployment.ledger.claims_about(name) if claim.source == "callback"}
        assert verdicts == {"untrusted"}


def ended(shop: Downstream) -> dict[str, list[str]]:
    """Every end that downstream was told of, corrections too, by order."""
    return {
        order: [event.envelope["data"]["status"] for event in events if event.type in TERMINAL]
        for order, events in first_arrivals(shop, PREFIX).items()
    }


def one_true_end_each(gateway: CountingSandbox) -> dict[str, list[str]]:
    return {order: [status] for order, status in gateway.truth().items()}


def token(name: str) -> str:
    return mint_token(kid="k1", key=TOKEN_KEY, merchant="asked", biz_order_no=name)
