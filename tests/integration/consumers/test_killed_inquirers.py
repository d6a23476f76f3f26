"""Inquirers that are killed again and again ask about no order more often than allowed, and forget none."""

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from sqlalchemy import Engine, select

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.database import READS_ONLY
from service.ledger.store import LedgerStore
from service.ledger.tables import asked_questions
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.ledger import make_store
from tests.support.processes import Process, Processes
from tests.support.waiting import eventually

ORDERS = 40
ROUNDS = 3
PER_DAY = 6
MIN_INTERVAL_SECONDS = 0.4

SETTINGS = f"""\
data_directory = "{{folder}}"
database_url = "{{database_url}}"

[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
min_inquiry_interval_seconds = {MIN_INTERVAL_SECONDS}
max_inquiries_per_day = {PER_DAY}
max_inquiries_per_minute = 6000
first_inquiry_repeat_seconds = 0.2
max_inquiry_repeat_seconds = 0.4

[merchants.acme.gateway]
url = "{{gateway_url}}"
ua = "ACME"
aes_key = "{AES_KEY}"
timeout_seconds = 0.5

[inquirer]
poll_seconds = 0.02
lease_seconds = 1.0
"""


def ends_well(order: str) -> bool:
    """Every other order is paid; the rest are pending for ever, and asked for as often as allowed."""
    return int(order[2:]) % 2 == 0


def names() -> list[str]:
    return [f"DK{number}" for number in range(ORDERS)]


def test_killed_inquirers_ask_no_order_too_often_and_forget_none(
    ledger_engine: Engine, tmp_path: Path, processes: Processes
) -> None:
    store = announce_all(ledger_engine)
    settings = tmp_path / "settings.toml"
    chance = random.Random()
    with AskedGateway(lambda order: "success" if ends_well(order) else "pending", seconds=0.05) as gateway:
        url = ledger_engine.url.render_as_string(hide_password=False)
        settings.write_text(SETTINGS.format(folder=tmp_path, database_url=url, gateway_url=gateway.url))

        def start() -> Process:
            return processes.start("--config", str(settings), "run", "inquirer", environment={"AMQP_URL": ""})

        for _ in range(ROUNDS):
            victims = [start(), start()]
            enough = gateway.count() + chance.randint(1, 15)
            victims[0].wait_until(lambda enough: gateway.count() >= enough or all_asked(ledger_engine), enough)
            for victim in victims:
                victim.kill()
        last = start()
        last.wait_until(lambda: all_ended(store) and all_asked(ledger_engine))
        assert last.terminate() == 0
        heard = {order: len(times) for order, times in gateway.asked().items()}

    counted = times_asked(ledger_engine)
    for order, times in counted.items():
        assert heard.get(order, 0) <= len(times), f"{order} was asked about uncounted"
        assert max(Counter(time.date() for time in times).values()) <= PER_DAY
        assert all(
            after - before >= timedelta(seconds=MIN_INTERVAL_SECONDS) for before, after in pairwise(sorted(times))
        )
    assert set(counted) == set(names())


def announce_all(engine: Engine) -> LedgerStore:
    store = make_store(
        engine, clock=lambda: datetime.now(UTC), required=Trust.QUERIED, answer_due_seconds=1, endpoints=[]
    )
    for name in names():
        store.announce(Announcement(merchant="acme", biz_order_no=name, answer_due_at=datetime.now(UTC)))
    return store


def times_asked(engine: Engine) -> dict[str, list[datetime]]:
    """When each order was asked about, as it was counted."""
    times: dict[str, list[datetime]] = defaultdict(list)
    # Else SQLite takes the write lock, which it may not get for long while several inquirers write.
    with engine.connect().execution_options(**{READS_ONLY: True}) as connection:
        for row in connection.execute(select(asked_questions)):
            times[row.biz_order_no].append(row.asked_at)
    return times


def all_asked(engine: Engine) -> bool:
    """Whether each order that never ends was asked about as often as a day allows."""
    counted = times_asked(engine)
    return all(len(counted[name]) >= PER_DAY for name in names() if not ends_well(name))


def all_ended(store: LedgerStore) -> bool:
    loaded = [store.load_order(OrderKey("acme", name)) for name in names() if ends_well(name)]
    return all(order is not None and order.state.status is OrderStatus.SUCCEEDED for order in loaded)


def test_several_inquirers_keep_to_one_rate(ledger_engine: Engine, tmp_path: Path, processes: Processes) -> None:
    store = announce_all(ledger_engine)
    settings = tmp_path / "settings.toml"
    per_second = 10
    with AskedGateway(lambda _order: "success") as gateway:
        url = ledger_engine.url.render_as_string(hide_password=False)
        text = SETTINGS.format(folder=tmp_path, database_url=url, gateway_url=gateway.url)
        settings.write_text(text.replace("per_minute = 6000", f"per_minute = {per_second * 60}"))
        for _ in range(3):
            processes.start("--config", str(settings), "run", "inquirer", environment={"AMQP_URL": ""})
        eventually(lambda: len(gateway.asked()) == ORDERS)
    times = sorted(time for order in times_asked(ledger_engine).values() for time in order)
    for first, last in zip(times, times[per_second * 2 :], strict=False):
        # What one second left unused, and one second's: never more within less.
        assert last - first >= timedelta(seconds=0.999)
    assert store.load_order(OrderKey("acme", "DK0")) is not None
