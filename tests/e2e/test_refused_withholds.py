"""Withholds that the gateway refuses: they end by a rule, are not sent again, and are corrected by a success."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from service.ledger.database import make_engine
from service.ledger.tables import asked_questions, withholds
from service.sandbox.settings import Misbehaviour
from tests.support.api import ApiCaller, order_path
from tests.support.deployment import ROLES, Deployment, Place
from tests.support.downstream import Downstream
from tests.support.gateway import AES_KEY, NOT_FOUND, UA, WITHHOLD, CountingSandbox
from tests.support.processes import answers
from tests.support.waiting import eventually

# What the sandbox says of an order that it refuses, and of one that it charges all the same.
REFUSED, DENIED = "渠道拒绝", "系统繁忙"
INQUIRER = """
[inquirer]
poll_seconds = 0.1
"""
MERCHANT = f"""
[merchants.{{name}}]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
min_inquiry_interval_seconds = 0.2
first_inquiry_repeat_seconds = 0.2
max_inquiry_repeat_seconds = 1.0
max_inquiries_per_day = 10000
refused_withholds = {{{{ {{rules}} }}}}
gateway = {{{{ url = "{{url}}", ua = "{UA}", aes_key = "{AES_KEY}", not_found_messages = ["{NOT_FOUND}"] }}}}
"""
RULES = {
    "messages": f'messages = ["{REFUSED}"]',
    "mistaken": f'messages = ["{DENIED}"]',
    "patient": "not_found_times = 8, not_found_hours = 24",
}


class Charged:
    """Every role, and a merchant for each rule, at one sandbox."""

    def __init__(self, *, deployment: Deployment, books: Downstream, api: ApiCaller, sandbox: CountingSandbox) -> None:
        self.deployment = deployment
        self.books = books
        self.api = api
        self.sandbox = sandbox

    def charge(self, merchant: str, order: str) -> Any:
        """Send a withhold over the API; the answer."""
        body = {name: value for name, value in WITHHOLD.items() if name != "biz_data"}
        answer = self.api.post("/v1/withholds", {**body, "merchant": merchant, "biz_order_no": order})
        assert answer.status == 202, answer.value
        return answer.value

    def await_events(self, order: str, *types: str) -> Sequence[dict[str, Any]]:
        """The events' data, once the order has exactly these."""
        eventually(lambda: [event.type for event in self.books.about(order)] == [f"payment.{type_}" for type_ in types])
        return [dict(event.envelope["data"]) for event in self.books.about(order)]

    def history(self, merchant: str, order: str) -> Any:
        """What the API shows of the order."""
        return self.api.get(order_path(merchant, order)).value

    def age_refusal(self, order: str, *, hours: int, not_found: Sequence[int]) -> None:
        """Move the order's refusal into the past, and record that the gateway did not have it so many hours ago."""
        now = datetime.now(UTC)
        file = self.deployment.settings_file.parent / "data" / "ledger.sqlite3"
        engine = make_engine(self.deployment.place.database_url or f"sqlite:///{file}")
        with engine.begin() as connection:
            refused = update(withholds).where(withholds.c.biz_order_no == order)
            connection.execute(refused.values(refused_at=now - timedelta(hours=hours)))
            rows = [
                {
                    "merchant": "patient",
                    "biz_order_no": order,
                    "fence": -ago,
                    "asked_at": now - timedelta(hours=ago),
                    "reasons": 32,
                    "outcome": "not-found",
                    "request_id": "",
                    "seconds": 0.1,
                    "detail": NOT_FOUND,
                }
                for ago in not_found
            ]
            connection.execute(insert(asked_questions), rows)
        engine.dispose()


@pytest.fixture(scope="module")
def charged(find_place: Callable[[], Place], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Charged]:
    with ExitStack() as running:
        sandbox = running.enter_context(CountingSandbox(misbehaviour=Misbehaviour(), settle_seconds=0.5))
        books = running.enter_context(Downstream())
        merchants = [MERCHANT.format(name=name, rules=rules, url=sandbox.url) for name, rules in RULES.items()]
        deployment = running.enter_context(
            Deployment(
                folder=tmp_path_factory.mktemp("charged"),
                place=find_place(),
                downstreams={"books": books},
                more_settings=INQUIRER + "".join(merchants),
            )
        )
        deployment.prepare()
        url = deployment.give_api(workers=1)
        deployment.start(*ROLES, "inquirer", "api")
        deployment.wait_until_receiving()
        deployment.role("api").wait_until(lambda: answers(f"{url}/healthz"))
        api = ApiCaller(url=url)
        running.callback(api.close)
        yield Charged(deployment=deployment, books=books, api=api, sandbox=sandbox)


def test_a_withhold_refused_with_a_message_of_the_rule_fails_at_once_and_is_not_sent_again(charged: Charged) -> None:
    order = "DK1-refuse"
    answer = charged.charge("messages", order)
    assert (answer["outcome"], answer["order"]["status"], answer["order"]["trust"]) == ("unknown", "failed", "rule")
    [failed] = charged.await_events(order, "failed")
    assert (failed["trust"], failed["rule"], failed["amount"]) == ("rule", "refusal-message", "10.00")
    assert charged.charge("messages", order)["withhold"] == answer["withhold"]
    # The gateway goes on being asked, and nothing follows from its not having the order.
    eventually(lambda: charged.sandbox.asked()[order] >= 3)
    assert charged.history("messages", order)["inquiry"]["state"] in ("open", "asking")
    charged.await_events(order, "failed")
    done = charged.deployment.command("orders", "show", "messages", order, environment={"COLUMNS": "400"})
    assert "refusal-message: the gateway refused the withhold" in done.stdout


def test_a_withhold_that_was_refused_and_charged_all_the_same_is_corrected_by_an_answer(charged: Charged) -> None:
    order = "DK2-success-deny-silent"
    charged.charge("mistaken", order)
    failed, corrected = charged.await_events(order, "failed", "corrected")
    assert (failed["rule"], failed["status"]) == ("refusal-message", "failed")
    assert (corrected["status"], corrected["previous_status"], corrected["trust"]) == ("succeeded", "failed", "query")
    assert "rule" not in corrected


def test_a_refused_withhold_fails_once_the_gateway_has_not_had_it_for_a_day(charged: Charged) -> None:
    order = "DK3-refuse"
    assert charged.charge("patient", order)["order"]["status"] == "initial"
    eventually(lambda: charged.sandbox.asked()[order] >= 10)
    # Many answers in a short time count for nothing.
    assert charged.books.about(order) == []
    # The answer that comes now is the eighth.
    charged.age_refusal(order, hours=25, not_found=[22, 19, 16, 13, 10, 7, 4])
    [failed] = charged.await_events(order, "failed")
    assert (failed["trust"], failed["rule"]) == ("rule", "not-found")


def test_a_refused_withhold_that_the_gateway_finds_later_is_paid_and_never_failed(charged: Charged) -> None:
    order = "DK4-success-deny-unseen-slow-silent"
    assert charged.charge("patient", order)["order"]["status"] == "initial"
    [succeeded] = charged.await_events(order, "succeeded")
    assert (succeeded["previous_status"], succeeded["trust"]) == ("initial", "query")
    outcomes = [question["outcome"] for question in charged.history("patient", order)["questions"]]
    assert "not-found" in outcomes
