"""The database stops while a withhold is under way."""

import json

import pytest

from tests.support.api import ApiCaller, order_path
from tests.support.http_server import Answer, Request, ScriptedServer
from tests.support.ledger import LedgerDatabases
from tests.support.postgresql import Database

WITHHOLD = {
    "merchant": "acme",
    "biz_order_no": "DK1",
    "amount": "10.00",
    "pay_type": "baofoo_001",
    "name": "张三丰",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
}


@pytest.fixture
def ledger_url(own_postgresql: Database, ledger_databases: LedgerDatabases) -> str:
    return ledger_databases.make(own_postgresql.cluster)


def test_a_withhold_whose_outcome_could_not_be_recorded_is_inquired_and_never_sent_again(
    api: ApiCaller, gateway: ScriptedServer, own_postgresql: Database
) -> None:
    def take_and_lose_the_database(_: Request) -> Answer:
        own_postgresql.stop()
        response = {"biz_order_no": "DK1", "pay_status": "pending"}
        return Answer(body=json.dumps({"status": "1", "message": "", "response": response}).encode())

    gateway.behave = take_and_lose_the_database
    lost = api.post("/v1/withholds", WITHHOLD)
    assert (lost.status, lost.value["outcome"]) == (503, "unknown")
    own_postgresql.start()
    again = api.post("/v1/withholds", WITHHOLD)
    assert (again.status, again.value["outcome"]) == (202, "sending")
    assert api.get(order_path("acme", "DK1")).value["inquiry"]["reasons"] == ["overdue", "unknown_outcome"]
    assert len(gateway.requests) == 1
