"""A gateway that never calls back: every announced order reaches its true status, and downstream, by inquiry alone."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.bootstrap.gateways import make_gateway_clients
from service.bootstrap.ledger import make_ledger_engine, make_store
from service.config.reading import load_settings
from service.config.secrets import Secret
from service.config.settings import Settings
from service.gateway.errors import OutcomeUnknown
from service.gateway.messages import SingleWithholdArgs
from service.gateway.notify_addresses import make_tokens
from service.ledger.announcements import Announcement
from service.ledger.schema import schema_is_current
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, Misbehaviour, SandboxSettings, Timing
from tests.support.http_server import ScriptedServer
from tests.support.ledger import LedgerView
from tests.support.processes import Processes, find_free_port
from tests.support.waiting import eventually

ORDERS = 40
AES_KEY = "0123456789abcdef"
PAY_TYPE = "baofoo_001"
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

SETTINGS = f"""\
data_directory = "data"

[receiver]
bind = "127.0.0.1:{{port}}"
public_url = "http://127.0.0.1:{{port}}"

[merchants.acme]
pay_types = ["{PAY_TYPE}"]
amount_unit = "yuan"
token_keys = [{{{{ kid = "k1", key = "a token key of acme for tests only" }}}}]
answer_due_seconds = 1.0
least_inquiry_interval_seconds = 0.5
first_inquiry_repeat_seconds = 0.5
most_inquiry_repeat_seconds = 1.0
most_inquiries_per_minute = 6000

[merchants.acme.gateway]
url = "{{gateway}}"
ua = "ACME"
aes_key = "{AES_KEY}"
not_found_messages = ["订单不存在"]

[inquirer]
poll_seconds = 0.1

[[endpoints]]
name = "shop"
kind = "webhook"
url = "{{shop}}"
secrets = ["{WEBHOOK_SECRET}"]
"""


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """Drops every callback; a third of the orders fails, and some withholds lose their answer."""
    settings = SandboxSettings(
        accounts=(Account(ua="ACME", aes_key=Secret(AES_KEY), pay_types=frozenset({PAY_TYPE})),),
        bind="127.0.0.1:0",
        timing=Timing(settle_seconds=3.0),
        misbehaviour=Misbehaviour(drop_share=1.0, lose_answer_share=0.2),
        fail_share=0.3,
    )
    with SandboxServer(settings=settings, clock=lambda: datetime.now(UTC)) as server:
        yield server


def withhold(settings: Settings, biz_order_no: str) -> SingleWithholdArgs:
    merchant = settings.merchants["acme"]
    token = make_tokens(merchant).mint(biz_order_no)
    return SingleWithholdArgs(
        biz_order_no=biz_order_no,
        amount="10.00",
        name="张三",
        id_card_number="11010519491231002X",
        mobile="13800138000",
        bank_card_number="6222021234567890128",
        pay_type=PAY_TYPE,
        notify_url=f"{settings.receiver.public_url}/notify/acme/{token}",
    )


def test_every_announced_order_reaches_its_true_status_by_inquiry_alone(
    tmp_path: Path, processes: Processes, sandbox: SandboxServer
) -> None:
    file = tmp_path / "payment-callbacks.toml"
    with ScriptedServer() as shop:
        file.write_text(SETTINGS.format(port=find_free_port(), gateway=sandbox.url, shop=shop.url))
        settings = load_settings(file, {})
        surroundings = {"AMQP_URL": "", "DATABASE_URL": ""}
        running = processes.start("--config", str(file), "run", "all", environment=surroundings)
        ledger = LedgerView(url=f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite3'}")
        names = [f"DK{number}" for number in range(ORDERS)]
        send_all(settings, names)

        truth = {order.biz_order_no: order.script.ending.value for order in sandbox.sandbox.book.all()}
        assert set(truth) == set(names)
        expected = {name: "succeeded" if truth[name] == "success" else "failed" for name in names}

        def told() -> dict[str, str]:
            events = [json.loads(request.body) for request in shop.requests]
            return {event["subject"]: event["data"]["status"] for event in events}

        running.wait_until(lambda: told() == expected)
        assert running.terminate() == 0
        assert {name: ledger.order(name).status for name in names} == expected
        assert all(claim.source == "query" for name in names for claim in ledger.claims_about(name))
        ledger.close()


def send_all(settings: Settings, names: list[str]) -> None:
    """Announce and send the orders; whose answer is lost is left to the inquirer."""
    engine = make_ledger_engine(settings)
    store = make_store(settings, engine)
    client = make_gateway_clients(settings).usable["acme"]
    lost = 0
    eventually(lambda: schema_is_current(engine))
    for name in names:
        store.announce(Announcement(merchant="acme", biz_order_no=name, amount="10.00", amount_unit="yuan"))
        try:
            client.withhold(withhold(settings, name))
        except OutcomeUnknown:
            lost += 1
    assert lost, "no answer was lost"
    engine.dispose()
