"""Floods of forged callbacks against a merchant that believes only what its gateway answers."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import count, islice, pairwise
from typing import Any

from sqlalchemy import Engine, select

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.inquiries import InquiryState
from service.ledger.inquiry_limits import MAX_NOT_FOUND
from service.ledger.inquiry_questions import QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.tables import asked_questions, events, inquiries, orders
from tests.support.claims import NOON, a_claim
from tests.support.ledger import MakeInquiryQueue, MakeStore

ORDERS = 200
FORGERIES = 10_000
INVENTED = 60
PER_DAY = 8
PER_MINUTE = 120
DUE_SECONDS = 600.0
STEP_SECONDS = 1.0
# Half of the rate is kept, so this is how long it takes to ask for every overdue order once, and two rounds of looking.
IN_TIME = timedelta(seconds=ORDERS / (PER_MINUTE / 2) * 60 + 2 * STEP_SECONDS)


class Truth:
    """What the gateway knows: every order ends some time after it was announced."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        draw = random.Random(11)
        names = [f"DK{number}" for number in range(ORDERS)]
        self.ending = {name: draw.choice([OrderStatus.SUCCEEDED, OrderStatus.FAILED]) for name in names}
        self._ends_at = {name: NOON + timedelta(seconds=draw.uniform(300, 700)) for name in names}

    def status(self, order: str) -> OrderStatus:
        """What it answers now."""
        return self.ending[order] if self._clock() >= self._ends_at[order] else OrderStatus.PROCESSING

    def answer(self, order: str) -> Claim:
        return a_claim(self.status(order), Trust.QUERIED, order=order, stated_at=self._clock())


def forgeries(ending: Mapping[str, OrderStatus], clock: Callable[[], datetime]) -> Iterator[Claim]:
    """Terminal, well signed, about real orders, and always the opposite of the truth; no two alike."""
    opposite = {OrderStatus.SUCCEEDED: OrderStatus.FAILED, OrderStatus.FAILED: OrderStatus.SUCCEEDED}
    names = list(ending)
    for number in count():
        order = names[number % ORDERS]
        yield a_claim(
            opposite[ending[order]], Trust.CHECKSUM, order=order, pay_order_no=f"FORGED{number}", stated_at=clock()
        )


def test_a_flood_of_forgeries_makes_no_event_and_delays_no_overdue_order(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Any, ledger_engine: Engine
) -> None:
    store = make_store(required=Trust.QUERIED)
    queue = make_inquiry_queue(store, max_per_day=PER_DAY, max_per_minute=PER_MINUTE)
    truth = Truth(clock)
    for order in truth.ending:
        store.announce(Announcement(merchant="acme", biz_order_no=order))
    # It begins before the first order is overdue, and goes on while all of them are.
    flood = forgeries(truth.ending, clock)
    owed_first_at: dict[str, datetime] = {}
    per_minute: Counter[int] = Counter()
    for step in range(int(3600 / STEP_SECONDS)):
        if step % 15 == 0 and step < 750:
            store.record(list(islice(flood, FORGERIES // 50)))
        while asked := queue.lease_due("acme", limit=50, lease_seconds=60):
            for inquiry in asked:
                name = inquiry.order.biz_order_no
                if inquiry.owed:
                    owed_first_at.setdefault(name, clock())
                reply = QuestionResult(outcome=QuestionOutcome.ANSWERED, request_id="", seconds=0.0)
                queue.settle(inquiry, reply, claim=truth.answer(name))
            per_minute[int(step * STEP_SECONDS // 60)] += len(asked)
        if step * STEP_SECONDS > 750 and _all_ended(ledger_engine):
            break
        clock.forward(STEP_SECONDS)

    with ledger_engine.connect() as connection:
        statuses = {row.biz_order_no: row.status for row in connection.execute(select(orders))}
        told = connection.execute(select(events.c.biz_order_no, events.c.status, events.c.body)).all()
        times = connection.execute(select(asked_questions.c.biz_order_no, asked_questions.c.asked_at)).all()
    assert statuses == {name: status.value for name, status in truth.ending.items()}
    terminal = {row.biz_order_no: row.status for row in told if OrderStatus(row.status).terminal}
    assert terminal == statuses
    assert not any(b"FORGED" in row.body for row in told)
    assert all(Counter(row.biz_order_no for row in told)[name] <= 2 for name in statuses)

    per_day: Counter[tuple[str, str]] = Counter()
    by_order: dict[str, list[datetime]] = defaultdict(list)
    for name, at in times:
        per_day[name, at.date().isoformat()] += 1
        by_order[name].append(at)
    assert max(per_day.values()) <= PER_DAY
    for asked_at in by_order.values():
        ordered = sorted(asked_at)
        assert all(after - before >= timedelta(seconds=10) for before, after in pairwise(ordered))
    assert max(per_minute.values()) <= PER_MINUTE + PER_MINUTE / 60

    due = NOON + timedelta(seconds=DUE_SECONDS)
    assert len(owed_first_at) > ORDERS / 4, "hardly an order was overdue"
    assert max(owed_first_at.values()) <= due + IN_TIME


def test_orders_of_a_flood_keep_their_questions_for_the_time_when_they_are_overdue(
    make_store: MakeStore, make_inquiry_queue: MakeInquiryQueue, clock: Any
) -> None:
    store = make_store(required=Trust.QUERIED)
    queue = make_inquiry_queue(store, max_per_day=PER_DAY)
    store.announce(Announcement(merchant="acme", biz_order_no="DK0"))
    for number in range(100):
        store.record([a_claim(OrderStatus.FAILED, Trust.CHECKSUM, order="DK0", pay_order_no=f"FORGED{number}")])
        queue.lease_due("acme", limit=1, lease_seconds=1)
        clock.forward(5)
    clock.forward(100)
    (overdue,) = queue.lease_due("acme", limit=1, lease_seconds=1)
    assert (overdue.order, overdue.owed) == (OrderKey("acme", "DK0"), True)


def test_invented_orders_do_not_keep_true_ones_waiting_once_each_was_asked_about(
    make_store: MakeStore,
    make_inquiry_queue: MakeInquiryQueue,
    clock: Any,
    ledger_engine: Engine,
    parked_inquiries: Callable[[], int],
) -> None:
    store = make_store(required=Trust.QUERIED)
    queue = make_inquiry_queue(store, max_per_minute=PER_MINUTE)
    # Of all that follows, nothing was announced and nothing has a token.
    store.record([a_claim(trust=Trust.CHECKSUM, order=f"F{number}") for number in range(INVENTED)])
    came_at: dict[str, datetime] = {}
    waits: dict[str, timedelta] = {}
    invented: Counter[str] = Counter()
    for step in range(4 * INVENTED):
        if step % 4 == 0:
            name = f"DK{step}"
            came_at[name] = clock()
            store.record([a_claim(trust=Trust.CHECKSUM, order=name)])
        _ask_all(queue, clock, came_at=came_at, waits=waits, invented=invented)
        clock.forward(STEP_SECONDS)
    assert waits.keys() == came_at.keys(), "a true order was not asked about"
    first_round = timedelta(seconds=INVENTED / (PER_MINUTE / 2) * 60 + INVENTED / 4 + 2 * STEP_SECONDS)
    assert max(waits.values()) <= first_round
    in_second_round = [wait for name, wait in waits.items() if came_at[name] > NOON + 2 * first_round]
    assert max(in_second_round) <= timedelta(seconds=2 * STEP_SECONDS)

    while _any_open(ledger_engine):
        clock.forward(60)
        _ask_all(queue, clock, came_at=came_at, waits=waits, invented=invented)
    assert set(invented.values()) == {MAX_NOT_FOUND}
    assert parked_inquiries() == 0
    with ledger_engine.connect() as connection:
        known = set(connection.execute(select(orders.c.biz_order_no)).scalars())
    assert known == came_at.keys()


def _ask_all(
    queue: InquiryQueue,
    clock: Any,
    *,
    came_at: Mapping[str, datetime],
    waits: dict[str, timedelta],
    invented: Counter[str],
) -> None:
    """Have a gateway asked that knows those orders alone which truly came."""
    while asked := queue.lease_due("acme", limit=50, lease_seconds=60):
        for inquiry in asked:
            name = inquiry.order.biz_order_no
            if name in came_at:
                waits[name] = clock() - came_at[name]
                reply = QuestionResult(outcome=QuestionOutcome.ANSWERED, request_id="", seconds=0.0)
                answer = a_claim(trust=Trust.QUERIED, order=name, stated_at=clock())
                queue.settle(inquiry, reply, claim=answer)
            else:
                invented[name] += 1
                queue.settle(inquiry, QuestionResult(outcome=QuestionOutcome.NOT_FOUND, request_id="", seconds=0.0))


def _any_open(engine: Engine) -> bool:
    is_open = select(inquiries.c.fence).where(inquiries.c.state == InquiryState.OPEN.value).limit(1)
    with engine.connect() as connection:
        return connection.execute(is_open).first() is not None


def _all_ended(engine: Engine) -> bool:
    waiting = select(orders.c.biz_order_no).where(orders.c.status.in_(["initial", "processing"])).limit(1)
    with engine.connect() as connection:
        return connection.execute(waiting).first() is None
