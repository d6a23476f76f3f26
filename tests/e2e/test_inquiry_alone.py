"""Callbacks that never come, and callbacks that lie: what goes out is what the gateway answers when it is asked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from service.ledger.announcements import Announcement
from service.sandbox.settings import Misbehaviour
from tests.support.callbacks import mint_token
from tests.support.deployment import ROLES, TERMINAL, Deployment, Place, first_arrivals
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, UA, CountingSandbox
from tests.support.waiting import eventually

ORDERS = 40
TOKEN_KEY = "a token key of asked for tests only"
#: Each merchant has a gateway of its own.
MERCHANTS = {"silent": Misbehaviour(drop_share=1.0), "lying": Misbehaviour(lie_share=1.0)}

INQUIRER = """
[inquirer]
poll_seconds = 0.1
"""
MERCHANT = f"""
[merchants.{{name}}]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{{{ kid = "k1", key = "{TOKEN_KEY}" }}}}]
min_inquiry_interval_seconds = 0.5
first_inquiry_repeat_seconds = 0.5
max_inquiry_repeat_seconds = 1.0
gateway = {{{{ url = "{{url}}", ua = "{UA}", aes_key = "{AES_KEY}", timeout_seconds = 5.0 }}}}
"""


class Asked:
    """Every role, and the merchants above; charges their orders."""

    def __init__(self, *, deployment: Deployment, shop: Downstream, gateways: dict[str, CountingSandbox]) -> None:
        self.deployment = deployment
        self.shop = shop
        self.gateways = gateways

    def charge(self, merchant: str, *, due_seconds: float) -> dict[str, str]:
        """Announce and charge orders whose numbers begin with the merchant's name. Says how each will truly end."""
        names = [f"{merchant}-{number}" for number in range(ORDERS)]
        due = datetime.now(UTC) + timedelta(seconds=due_seconds)
        self.deployment.announce(
            Announcement(merchant=merchant, biz_order_no=name, answer_due_at=due) for name in names
        )
        address = f"{self.deployment.url}/notify/{merchant}"
        self.gateways[merchant].withhold_all(names, notify_url=lambda name: f"{address}/{token(merchant, name)}")
        return dict(self.gateways[merchant].truth())

    def ends(self, merchant: str) -> dict[str, list[str]]:
        """Every end that downstream was told of, corrections too, by order."""
        return {
            order: [event.envelope["data"]["status"] for event in events if event.type in TERMINAL]
            for order, events in first_arrivals(self.shop, merchant).items()
        }


@pytest.fixture(scope="module")
def asked(find_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with ExitStack() as running:
        shop = running.enter_context(Downstream())
        gateways = {
            name: running.enter_context(CountingSandbox(misbehaviour=misbehaviour, settle_seconds=2.0))
            for name, misbehaviour in MERCHANTS.items()
        }
        merchants = [MERCHANT.format(name=name, url=gateway.url) for name, gateway in gateways.items()]
        deployment = running.enter_context(
            Deployment(
                folder=tmp_path_factory.mktemp("asked"),
                place=find_place(),
                downstreams={"shop": shop},
                more_settings=INQUIRER + "".join(merchants),
            )
        )
        deployment.prepare()
        deployment.start(*ROLES, "inquirer")
        deployment.wait_until_receiving()
        yield Asked(deployment=deployment, shop=shop, gateways=gateways)


def test_with_every_callback_dropped_each_order_reaches_its_true_status(asked: Asked) -> None:
    truth = asked.charge("silent", due_seconds=1.0)
    eventually(lambda: asked.ends("silent") == one_end_each(truth))
    assert asked.gateways["silent"].sandbox.counters.counts()["callbacks_sent"] == 0
    for name, status in truth.items():
        recorded = asked.deployment.ledger.order(name)
        assert recorded is not None
        assert (recorded.status, recorded.conflicted) == (status, False)
        assert {claim.source for claim in asked.deployment.ledger.claims_about(name)} == {"query"}


def test_a_gateway_whose_callbacks_lie_is_believed_only_when_it_is_asked(asked: Asked) -> None:
    """The lies come on the orders' own notify_urls, and long before anything is overdue."""
    truth = asked.charge("lying", due_seconds=3600.0)
    lies = asked.gateways["lying"].sandbox.counters.lies
    eventually(lambda: len({lie.biz_order_no for lie in lies()}) == ORDERS)
    eventually(lambda: asked.ends("lying") == one_end_each(truth))
    eventually(asked.deployment.ledger.all_delivered)
    assert asked.ends("lying") == one_end_each(truth)
    for name in truth:
        claims = asked.deployment.ledger.claims_about(name)
        assert {claim.verdict for claim in claims if claim.source == "callback"} == {"untrusted"}


def one_end_each(truth: dict[str, str]) -> dict[str, list[str]]:
    return {order: [status] for order, status in truth.items()}


def token(merchant: str, name: str) -> str:
    return mint_token(kid="k1", key=TOKEN_KEY, merchant=merchant, biz_order_no=name)
