"""The internal API and the operator's commands, together with all other roles."""

import csv
import io
import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.support.api import TOKEN, ApiCaller, order_path
from tests.support.callbacks import Callback
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.processes import answers
from tests.support.waiting import eventually

PERSON = {
    "name": "欧阳测试",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
}


def run(deployment: Deployment, *arguments: str) -> str:
    done = deployment.command(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def call_back(deployment: Deployment, order: str, notify_url: str, *, merchant: str = "acme") -> None:
    callback = Callback(biz_order_no=order, merchant=merchant, token=notify_url.rpartition("/")[2])
    assert deployment.sender.send(callback).acknowledged


def test_an_announced_order_is_called_back_and_delivered_and_the_api_shows_its_history(
    deployment: Deployment, api: ApiCaller, shop: Downstream, order: str
) -> None:
    (announced,) = api.announce({"merchant": "acme", "biz_order_no": order, "amount": "10.50"}).value["orders"]
    call_back(deployment, order, announced["notify_url"])
    eventually(lambda: shop.about(order))
    eventually(lambda: _deliveries(api, order).get("shop") == "delivered")
    history = api.get(order_path("acme", order)).value
    assert (history["order"]["status"], history["order"]["trust"]) == ("succeeded", "capability")
    assert [(claim["source"], claim["verdict"]) for claim in history["claims"]] == [("callback", "applied")]
    (event,) = [event for event in shop.received if event.biz_order_no == order]
    assert (event.envelope["data"]["amount"], event.envelope["data"]["amount_unit"]) == ("10.50", "yuan")


def _deliveries(api: ApiCaller, order: str) -> dict[str, str]:
    history = api.get(order_path("acme", order)).value
    return {delivery["endpoint"]: delivery["state"] for event in history["events"] for delivery in event["deliveries"]}


def test_the_commands_show_what_the_api_did_and_vice_versa(deployment: Deployment, api: ApiCaller, order: str) -> None:
    (announced,) = api.announce({"merchant": "acme", "biz_order_no": order}).value["orders"]
    assert run(deployment, "orders", "announce", "acme", order).strip() == announced["notify_url"]
    word = ("--by", "Li", "--reason", "seen on the statement", "--yes")
    assert "applied" in run(deployment, "orders", "resolve", "acme", order, "failed", *word)
    (claim,) = api.get(order_path("acme", order)).value["claims"]
    assert (claim["stated_by"], claim["reason"]) == ("Li (command line)", "seen on the statement")
    eventually(lambda: set(_deliveries(api, order).values()) == {"delivered"})
    told = json.loads(run(deployment, "orders", "show", "acme", order, "--json"))
    assert told == api.get(order_path("acme", order)).value
    shown = run(deployment, "orders", "show", "acme", order)
    assert "Li (command line): seen on the statement" in shown
    assert order in run(deployment, "orders", "list", "--merchant", "acme", "--status", "failed")


def test_the_daily_report_counts_orders_and_callbacks(
    deployment: Deployment, api: ApiCaller, shop: Downstream, order: str
) -> None:
    """The only orders of this merchant in the deployment."""
    names = [f"{order} {number}" for number in range(3)]
    announced = api.announce(*({"merchant": "other", "biz_order_no": name} for name in names)).value["orders"]
    call_back(deployment, names[0], announced[0]["notify_url"], merchant="other")
    eventually(lambda: shop.about(names[0]))
    today = datetime.now(ZoneInfo("Asia/Shanghai"))
    report = json.loads(
        run(deployment, "report", "--merchant", "other", "--day", f"{today:%Y-%m-%d}", "--format", "json")
    )
    [other] = report["days"]
    assert (other["announced"], other["called_back"], other["still_open"]) == (3, 1, 2)
    assert other["lag_orders"] == 1
    assert [one["biz_order_no"] for one in other["open_orders"]] == names[1:]
    assert all(one["explained"] for one in other["open_orders"])  # a callback may still come
    assert report["explained"]
    assert api.get(f"/v1/report?since={today:%Y-%m-%d}&merchant=other").value["days"] == [other]
    nothing = deployment.command("report", "--day", "2020-01-01", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(nothing.stdout)))
    assert {row["merchant"] for row in rows} >= {"acme", "ask"}
    assert {row["orders"] for row in rows} == {"0"}


def test_pruning_removes_old_payloads_only(deployment: Deployment) -> None:
    today = datetime.now(UTC)
    assert run(deployment, "prune", "--before", f"{today - timedelta(days=1):%Y-%m-%d}") == "pruned: 0\n"
    assert run(deployment, "prune", "--keep-days", "1") == "pruned: 0\n"


def test_personal_data_that_the_api_is_given_is_neither_logged_nor_kept_in_any_file(
    fresh_deployment: Deployment, order: str
) -> None:
    api = ApiCaller(url=fresh_deployment.give_api())
    fresh_deployment.start(*ROLES, "api")
    fresh_deployment.role("api").wait_until(lambda: answers(f"{api.url}/healthz"))
    body = {"merchant": "ask", "biz_order_no": order, "amount": "1.00", "pay_type": "baofoo_001", **PERSON}
    answer = api.post("/v1/withholds", body)
    assert (answer.status, answer.value["outcome"]) == (502, "not-done")
    assert api.post("/v1/withholds", {**body, "amount": "x"}).status == 422
    assert api.post("/v1/cards", {**PERSON, "merchant": "ask", "pay_type": "baofoo_001"}).status == 502
    api.close()
    assert fresh_deployment.role("api").terminate() == 0
    assert order in fresh_deployment.output
    # The logs, and the database where it is a file.
    files = set(fresh_deployment.settings_file.parent.parent.rglob("*")) - {fresh_deployment.settings_file}
    kept = b"".join(file.read_bytes() for file in files if file.is_file())
    assert order.encode() in kept
    assert [value for value in (*PERSON.values(), TOKEN) if value.encode() in kept] == []


def test_without_tokens_the_api_does_not_start_and_says_why(deploy: Callable[[Place], Deployment]) -> None:
    refused = deploy(Place()).command("run", "api")
    assert refused.returncode == 1
    assert "set [[api.tokens]]" in refused.stderr


def test_the_api_exits_with_0_after_ctrl_c(deploy: Callable[[Place], Deployment]) -> None:
    deployment = deploy(Place())
    url = deployment.give_api()
    deployment.start("api")
    api = deployment.role("api")
    api.wait_until(lambda: answers(f"{url}/healthz"))
    api.signal(signal.SIGINT)
    assert api.wait() == 0
