"""Ten thousand forged callbacks, and inquirers that are killed meanwhile: only the gateway's word goes out."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from service.ledger.announcements import Announcement
from service.sandbox.settings import Misbehaviour
from tests.support.callbacks import Answer, Callback
from tests.support.deployment import ROLES, Deployment, Place, first_arrivals
from tests.support.downstream import Downstream, ReceivedEvent
from tests.support.gateway import AES_KEY, UA, CountingSandbox
from tests.support.ledger import ClaimKey
from tests.support.waiting import eventually

PREFIX = "flooded"
ORDERS = 100
FORGERIES_PER_ORDER = 100
#: The orders are overdue while the gateway still calls them pending, and both in the midst of the flood.
DUE_SECONDS = 6.0
SETTLE_SECONDS = 7.0
PER_DAY = 12
PER_MINUTE = 4800
MIN_INTERVAL = timedelta(seconds=1)
#: Of the questions from then on: one about each order, and as many for the forgeries, which may take half of the rate.
IN_TIME = 2 * ORDERS
KILLS = 6

OPPOSITE = {"succeeded": "failed", "failed": "succeeded"}
#: In the gateway's words.
SPOKEN = {"succeeded": "success", "failed": "fail"}

MERCHANT = f"""
[inquirer]
poll_seconds = 0.1
lease_seconds = 4.0

[merchants.flooded]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "query"
token_keys = [{{{{ kid = "k1", key = "a token key of flooded for tests only" }}}}]
min_inquiry_interval_seconds = {MIN_INTERVAL.total_seconds()}
max_inquiries_per_day = {PER_DAY}
max_inquiries_per_minute = {PER_MINUTE}
first_inquiry_repeat_seconds = 1.0
max_inquiry_repeat_seconds = 4.0
gateway = {{{{ url = "{{url}}", ua = "{UA}", aes_key = "{AES_KEY}", timeout_seconds = 2.0 }}}}
"""


@pytest.fixture
def gateway() -> Iterator[CountingSandbox]:
    """It never calls back."""
    with CountingSandbox(misbehaviour=Misbehaviour(drop_share=1.0), settle_seconds=SETTLE_SECONDS) as gateway:
        yield gateway


@pytest.fixture
def flooded(servers: Place, own_shop: Downstream, gateway: CountingSandbox, tmp_path: Path) -> Iterator[Deployment]:
    """Everything runs, two inquirers among it; nothing is announced yet."""
    with Deployment(
        folder=tmp_path,
        place=servers,
        downstreams={"shop": own_shop},
        more_settings=MERCHANT.format(url=gateway.url),
    ) as deployment:
        deployment.prepare()
        deployment.start(*ROLES, "inquirer", "inquirer-2")
        deployment.wait_until_receiving()
        yield deployment


def test_a_flood_of_forgeries_brings_out_no_lie_and_costs_no_order_its_question(
    flooded: Deployment, own_shop: Downstream, gateway: CountingSandbox
) -> None:
    names = [f"{PREFIX}-{number}" for number in range(ORDERS)]
    due = datetime.now(UTC) + timedelta(seconds=DUE_SECONDS)
    flooded.announce(Announcement(merchant="flooded", biz_order_no=name, answer_due_at=due) for name in names)
    gateway.withhold_all(names, notify_url=lambda _: f"{flooded.url}/notify/flooded")
    truth = gateway.truth()
    with ThreadPoolExecutor(1) as thread:
        flood = thread.submit(flooded.sender.send_all, forgeries(truth))
        kill_in_turn(flooded, gateway, flood)
        answers = flood.result()
    assert sum(answer.acknowledged for answer in answers) == ORDERS * FORGERIES_PER_ORDER
    eventually(lambda: told(own_shop) == truth)
    eventually(lambda: recorded_lies(flooded, truth) == ORDERS * FORGERIES_PER_ORDER)
    eventually(flooded.ledger.all_delivered)

    only_the_gateway_was_believed(own_shop, gateway)
    nobody_was_asked_about_too_often(flooded, gateway)
    overdue_orders_did_not_wait_for_the_flood(flooded, names, due)


def forgeries(truth: Mapping[str, str]) -> Iterator[Callback]:
    """Terminal, well signed, about real orders, always the opposite of the truth, and no two alike; in turns."""
    for number in range(FORGERIES_PER_ORDER):
        for name, ending in truth.items():
            yield Callback(
                biz_order_no=name,
                merchant="flooded",
                pay_status=SPOKEN[OPPOSITE[ending]],
                changes={"pay_order_no": f"FORGED-{number}"},
            )


def kill_in_turn(flooded: Deployment, gateway: CountingSandbox, flood: "Future[Sequence[Answer]]") -> None:
    """SIGKILL to one inquirer, then to the other, each some questions after the last, and start it again."""
    chance = random.Random(seed := random.randrange(2**32))
    print("seed", seed)
    for number in range(KILLS):
        enough = gateway.asked().total() + chance.randint(20, 80)
        eventually(lambda enough: gateway.asked().total() >= enough or flood.done(), enough)
        victim = ("inquirer", "inquirer-2")[number % 2]
        flooded.kill(victim)
        flooded.start(victim)


def told(shop: Downstream) -> dict[str, str]:
    """What downstream believes of each order that has ended."""
    last = {order: events[-1] for order, events in first_arrivals(shop, PREFIX).items()}
    statuses = {order: str(event.envelope["data"]["status"]) for order, event in last.items()}
    return {order: status for order, status in statuses.items() if status != "processing"}


def recorded_lies(flooded: Deployment, truth: Mapping[str, str]) -> int:
    """How many claims say that an order has ended otherwise than it did."""
    claims = flooded.ledger.count_claims(PREFIX)
    return sum(claims[ClaimKey("flooded", order, OPPOSITE[ending])] for order, ending in truth.items())


def only_the_gateway_was_believed(shop: Downstream, gateway: CountingSandbox) -> None:
    """Of each order at most that it is processing, and how it truly ended: once, and by its true payment number."""
    true_numbers = gateway.pay_order_nos()
    ending = {order: f"payment.{status}" for order, status in gateway.truth().items()}
    for order, events in first_arrivals(shop, PREFIX).items():
        assert {data(event)["trust"] for event in events} == {"query"}
        assert {data(event)["pay_order_no"] for event in events} == {true_numbers[order]}
        types = [event.type for event in events]
        assert types in ([ending[order]], ["payment.processing", ending[order]])


def nobody_was_asked_about_too_often(flooded: Deployment, gateway: CountingSandbox) -> None:
    all_heard = gateway.asked()  # before what is counted is read: the inquirers go on
    counted: dict[str, list[datetime]] = defaultdict(list)
    for question in flooded.ledger.questions(PREFIX):
        counted[question.biz_order_no].append(question.asked_at)
    for order, heard in all_heard.items():
        assert heard <= len(counted[order]), f"{order} was asked about uncounted"
    for times in counted.values():
        assert max(Counter(time.date() for time in times).values()) <= PER_DAY
        assert all(after - before >= MIN_INTERVAL for before, after in pairwise(times))


def overdue_orders_did_not_wait_for_the_flood(flooded: Deployment, names: Sequence[str], due: datetime) -> None:
    """Once they were due, each was asked about within the questions that the kept half of the rate allows."""
    asked = [question.biz_order_no for question in flooded.ledger.questions(PREFIX) if question.asked_at >= due]
    assert set(asked) == set(names)
    assert max(asked.index(name) for name in names) < IN_TIME


def data(event: ReceivedEvent) -> Mapping[str, str]:
    found: Mapping[str, str] = event.envelope["data"]
    return found
