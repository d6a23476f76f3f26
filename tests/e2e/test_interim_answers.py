"""Endpoints that send interim answers: an event counts as delivered where its own final answer said so."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote

from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import WEBHOOK_SECRET
from tests.support.http_server import Answer, Interim, Request, ScriptedServer
from tests.support.waiting import eventually

ENDPOINT = f"""
[[endpoints]]
name = "{{name}}"
kind = "webhook"
url = "{{url}}"
secrets = ["{WEBHOOK_SECRET}"]
timeout_seconds = 2.0
initial_retry_seconds = 0.1
max_retry_seconds = 0.5
max_attempts = 1000
"""
REFUSED = {"interim-0", "interim-2", "interim-4", "interim-6"}
TAKEN = {"interim-1", "interim-3", "interim-5", "interim-7"}


def order_of(request: Request) -> str:
    return unquote(request.headers["webhook-id"].split("/")[1])


class Shop(ScriptedServer):
    """Sends interim answers ahead of each final one, and refuses some orders until it is told otherwise."""

    def __init__(self, interim: Interim) -> None:
        super().__init__(self._answer)
        self._interim = interim
        self.refuses = REFUSED
        self.refused: Counter[str] = Counter()

    def _answer(self, request: Request) -> Answer:
        refuses = order_of(request) in self.refuses
        self.refused[order_of(request)] += refuses
        return Answer(
            status=500 if refuses else 200, before=self._interim.content, ahead_seconds=self._interim.ahead_seconds
        )


def test_no_event_counts_as_delivered_that_an_endpoint_refused(find_place: Callable[[], Place], tmp_path: Path) -> None:
    with ExitStack() as running:
        shops = {
            name: running.enter_context(Shop(interim))
            for name, interim in (
                ("once", Interim(103)),
                ("thrice", Interim(102, 3)),
                ("ahead", Interim(103, 1, 0.2)),
            )
        }
        endpoints = "".join(ENDPOINT.format(name=name, url=shop.url) for name, shop in shops.items())
        deployment = running.enter_context(
            Deployment(folder=tmp_path, place=find_place(), downstreams={}, more_settings=endpoints)
        )
        deployment.prepare()
        deployment.start(*ROLES)
        deployment.wait_until_receiving()
        for order in sorted(REFUSED | TAKEN):
            assert deployment.sender.send(deployment.callback(order)).acknowledged
        for name, shop in shops.items():
            eventually(lambda shop: all(shop.refused[order] >= 3 for order in REFUSED), shop)
            eventually(lambda name: deployment.ledger.delivered_orders(name) == TAKEN, name)

        for shop in shops.values():
            shop.refuses = set()
        for name, shop in shops.items():
            eventually(lambda name: deployment.ledger.delivered_orders(name) == REFUSED | TAKEN, name)
            assert {order_of(request) for request in shop.requests} == REFUSED | TAKEN
