"""What operators request over HTTP, carried out by the roles that can do it."""

from collections.abc import Iterator

import pytest

from service.messaging.codec import CLAIM_V1
from service.messaging.interface import Message
from service.messaging.rabbitmq.topology import CALLBACKS_EXCHANGE
from tests.support.api import ApiCaller
from tests.support.deployment import ROLES, Deployment
from tests.support.downstream import Downstream
from tests.support.processes import answers
from tests.support.waiting import eventually

LI = {"name": "Li", "reason": "a test"}


@pytest.fixture
def api(fresh_deployment: Deployment) -> Iterator[ApiCaller]:
    """The API of a deployment in which every role runs."""
    api = ApiCaller(url=fresh_deployment.give_api(workers=1))
    fresh_deployment.start(*ROLES, "api")
    fresh_deployment.role("api").wait_until(lambda: answers(f"{api.url}/readyz"))
    yield api
    api.close()


def test_a_dispatcher_sends_a_test_and_the_ledger_drops_a_dead_letter(
    api: ApiCaller, fresh_deployment: Deployment, own_shop: Downstream
) -> None:
    poison = Message(exchange=CALLBACKS_EXCHANGE, routing_key="acme", body=b"{}", message_id="poison", type=CLAIM_V1)
    fresh_deployment.publish(poison)
    test = api.post("/v1/endpoints/shop/test", LI).value
    eventually(lambda: api.get(f"/v1/endpoint-tests/{test['id']}").value["state"] == "accepted")
    assert [event.type for event in own_shop.received] == ["payment.test"]

    (letter,) = eventually(lambda: api.get("/v1/dead-letters").value["dead_letters"])
    assert letter["id"] == "poison"
    assert api.post("/v1/dead-letters/requests", {**LI, "ids": ["poison"], "action": "drop"}).status == 202
    eventually(lambda: api.get("/v1/dead-letters/poison").value["outcome"] == "dropped")
    fresh_deployment.assert_no_dead_letters()
    changes = api.get("/v1/audit").value["changes"]
    assert [change["action"] for change in changes] == ["drop-dead-letters", "test-endpoint"]
