"""An endpoint that sends interim answers: an event counts as delivered where its own final answer said so."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import WEBHOOK_SECRET
from tests.support.http_server import Answer, Interim, Request, ScriptedServer
from tests.support.waiting import eventually

ENDPOINT = f"""
[[endpoints]]
name = "shop"
kind = "webhook"
url = "{{url}}"
secrets = ["{WEBHOOK_SECRET}"]
timeout_seconds = 2.0
first_retry_seconds = 0.1
most_retry_seconds = 0.5
max_attempts = 1000
"""
REFUSED = {"interim-0", "interim-2", "interim-4", "interim-6"}
TAKEN = {"interim-1", "interim-3", "interim-5", "interim-7"}


def order_of(request: Request) -> str:
    return unquote(request.headers["webhook-id"].split("/")[1])


@pytest.mark.parametrize("interim", [Interim(103), Interim(102, 3), Interim(103, 1, 0.7)], ids=str)
def test_no_event_counts_as_delivered_that_the_endpoint_refused(
    find_place: Callable[[], Place], tmp_path: Path, interim: Interim
) -> None:
    refused: Counter[str] = Counter()

    def take_some(request: Request) -> Answer:
        refused[order_of(request)] += order_of(request) in REFUSED
        status = 500 if order_of(request) in REFUSED else 200
        return Answer(status=status, before=interim.content, ahead_seconds=interim.ahead_seconds)

    with (
        ScriptedServer(take_some) as shop,
        Deployment(
            folder=tmp_path, place=find_place(), downstreams={}, more_settings=ENDPOINT.format(url=shop.url)
        ) as deployment,
    ):
        deployment.prepare()
        deployment.start(*ROLES)
        deployment.wait_until_receiving()
        for order in sorted(REFUSED | TAKEN):
            assert deployment.sender.send(deployment.callback(order)).acknowledged
        eventually(lambda: all(refused[order] >= 3 for order in REFUSED))
        eventually(lambda: deployment.ledger.delivered_orders("shop") == TAKEN)

        shop.behave = lambda _: Answer(before=interim.content, ahead_seconds=interim.ahead_seconds)
        eventually(lambda: deployment.ledger.delivered_orders("shop") == REFUSED | TAKEN)
        assert {order_of(request) for request in shop.requests} == REFUSED | TAKEN
