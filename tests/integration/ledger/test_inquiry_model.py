"""Inquiries as a model: leases, fencing, limits and late answers, with crashes between any two steps.

The gateway of the model never lies, but processes answer late, die, and are asked about orders that strangers have
invented. What is believed must be what the gateway knows, and no question may be lost or asked too often.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Row, select

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.forgeries import Forgeries
from service.ledger.inquiries import InquiryReason, InquiryState, earliest
from service.ledger.inquiry_limits import InquiryRules
from service.ledger.inquiry_questions import DueInquiry, QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.tables import inquiries
from tests.support.claims import AUTHOR, a_claim
from tests.support.ledger import Clock, end_refused, make_sqlite_ledger, make_store
from tests.support.model import LIVES, Fate, ModelLedger, fates, run_model

ORDERS = ("DK1", "DK2")
LEASE_SECONDS = 60
RULES = InquiryRules(
    min_interval_seconds=10,
    max_per_day=6,
    max_per_minute=12,
    overdue_share=0.5,
    first_repeat_seconds=20,
    max_repeat_seconds=1800,
)
#: What each state of an order may be followed by, at the gateway.
NEXT = {
    None: (OrderStatus.PROCESSING,),
    OrderStatus.PROCESSING: (OrderStatus.SUCCEEDED, OrderStatus.FAILED),
}
RANK = {OrderStatus.INITIAL: 0, OrderStatus.PROCESSING: 1, OrderStatus.SUCCEEDED: 2, OrderStatus.FAILED: 2}

processes = st.sampled_from([0, 1])
orders = st.sampled_from(ORDERS)


@dataclass(frozen=True)
class Asked:
    """What a process knows of the gateway's answer."""

    result: QuestionResult
    status: OrderStatus | None
    asked_at: datetime


@dataclass
class Held:
    """An inquiry in the memory of a process."""

    inquiry: DueInquiry
    lease: int
    asked: Asked | None = None


@dataclass
class Order:
    """What is true of one order, and which questions about it were counted."""

    #: At the gateway, oldest first; empty where it has no such order.
    statuses: list[OrderStatus] = field(default_factory=list)
    announced: bool = False
    #: What the ledger last believed: it never goes back.
    believed: OrderStatus = OrderStatus.INITIAL
    #: When a question was leased, and whether the order was owed an answer.
    questions: list[tuple[datetime, bool]] = field(default_factory=list)
    #: Who may settle the inquiry, and until when nobody else gets it.
    lease: int | None = None
    lease_until: datetime | None = None


class Inquiries(RuleBasedStateMachine):
    """Two inquirers, one gateway, and two orders that may be announced, forged or both."""

    def __init__(self, ledger: ModelLedger) -> None:
        super().__init__()
        ledger.empty()
        self.ledger = ledger
        self.clock = Clock()
        self.store = make_store(ledger.engine, clock=self.clock, horizon_seconds=7200)
        self.queue = InquiryQueue(
            engine=ledger.engine,
            store=self.store,
            rules={"acme": RULES},
            refusals=end_refused(self.store),
            clock=lambda _: self.clock(),
            chance=lambda: 0.0,
        )
        self.forgeries = Forgeries(engine=ledger.engine)
        self.numbers = count(1)
        self.model = {order: Order() for order in ORDERS}
        self.questions: list[tuple[datetime, bool]] = []
        self.memory: list[list[Held]] = [[], []]

    # ---- what happens ----

    @rule(order=orders, fate=fates)
    def announce(self, order: str, fate: Fate) -> None:
        """An order is announced; again, where it was before."""
        announcement = Announcement(merchant="acme", biz_order_no=order)
        if self.ledger.call(lambda: self.store.announce(announcement), fate):
            self.model[order].announced = True

    @precondition(lambda self: any(one.announced for one in self.model.values()))
    @rule(order=orders, end=st.integers(0, 1))
    def gateway_moves(self, order: str, end: int) -> None:
        """The gateway gets an order that was announced, or its payment ends."""
        self.clock.forward(1)
        self._move(order, end)

    @precondition(lambda self: any(one.statuses for one in self.model.values()))
    @rule(order=orders, place=st.integers(0, 1), fate=fates)
    def call_back(self, order: str, place: int, fate: Fate) -> None:
        """A true callback comes in on the order's own address, perhaps late or once more."""
        if not (statuses := self.model[order].statuses):
            return
        self.clock.forward(1)
        claim = a_claim(statuses[place % len(statuses)], order=order, stated_at=self.clock())
        self.ledger.call(lambda: self.store.record([claim]), fate)

    @rule(order=orders, status=st.sampled_from(OrderStatus), fate=fates)
    def forge(self, order: str, status: OrderStatus, fate: Fate) -> None:
        """A stranger sends a callback that nobody has sent before."""
        self.clock.forward(1)
        words = f"forgery {next(self.numbers)}"
        claim = a_claim(status, Trust.CHECKSUM, order=order, stated_at=self.clock(), channel_response=words)
        self.ledger.call(lambda: self.store.record([claim]), fate)

    @rule(order=orders, fate=fates)
    def inquire(self, order: str, fate: Fate) -> None:
        """An operator wants to know."""
        key = OrderKey("acme", order)
        self.ledger.call(lambda: self.store.inquire(key, InquiryReason.OPERATOR, author=AUTHOR), fate)

    @precondition(lambda self: any(_is_under_way(row) for row in self._rows().values()))
    @rule(process=processes, limit=st.integers(1, 2), fate=fates)
    def lease(self, process: int, limit: int, fate: Fate) -> None:
        """An inquirer leases what is due."""
        results = self.ledger.call(lambda: self.queue.lease_due("acme", limit=limit, lease_seconds=LEASE_SECONDS), fate)
        for leased in results:
            held = [self._leased(inquiry) for inquiry in leased]
        if results and fate.lives:
            self.memory[process] += held
        self._end(process, fate)

    @precondition(lambda self: self._waiting(asked=False))
    @rule(place=st.integers(0, 3), answered=st.booleans())
    def ask(self, place: int, answered: bool) -> None:
        """An inquirer asks the gateway, perhaps long after its lease has ended."""
        self.clock.forward(1)
        unasked = self._waiting(asked=False)
        self._ask(unasked[place % len(unasked)][1], answered=answered)

    @precondition(lambda self: self._waiting(asked=True))
    @rule(place=st.integers(0, 3), fate=fates)
    def settle(self, place: int, fate: Fate) -> None:
        """An inquirer settles a question, perhaps long after it was answered."""
        asked = self._waiting(asked=True)
        self._settle(*asked[place % len(asked)], fate)

    @precondition(lambda self: any(self.memory))
    @rule(process=processes)
    def crash(self, process: int) -> None:
        """An inquirer dies between two calls."""
        self.memory[process].clear()

    @rule(seconds=st.sampled_from([LEASE_SECONDS, 10, 600, 3600, 86_400]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.forward(seconds)

    @precondition(lambda self: any(row.unknown_since is not None for row in self._rows().values()))
    @rule(fate=fates)
    def remove_forgeries(self, fate: Fate) -> None:
        """Forged orders are removed, with all that was counted about them."""
        self.ledger.call(lambda: self.forgeries.remove(before=self.clock()), fate)
        left = self._rows()
        for order, one in self.model.items():
            if order not in left:
                one.questions.clear()

    # ---- what must hold ----

    @invariant()
    def only_the_truth_is_believed(self) -> None:
        for order, truth in self.model.items():
            if (believed := self.store.load_order(OrderKey("acme", order))) is None:
                assert not truth.announced
                continue
            assert not believed.state.conflicted
            latest = truth.statuses[-1] if truth.statuses else OrderStatus.INITIAL
            assert believed.state.status in (OrderStatus.INITIAL, *truth.statuses)
            assert RANK[truth.believed] <= RANK[believed.state.status] <= RANK[latest]
            truth.believed = believed.state.status

    @invariant()
    def who_is_owed_an_answer_has_an_inquiry(self) -> None:
        rows = self._rows()
        for order, truth in self.model.items():
            row, known = rows.get(order), self.store.load_order(OrderKey("acme", order))
            if row is None or row.state != InquiryState.ASKING:
                truth.lease = truth.lease_until = None
            if known is not None and not known.state.status.terminal:
                assert row is not None
                assert row.state in (InquiryState.OPEN, InquiryState.ASKING, InquiryState.PARKED)
                assert earliest(row.due_at, row.doubt_due_at) is not None
            if row is not None and row.state == InquiryState.ANSWERED:
                assert known is not None
                assert known.state.status.terminal

    def teardown(self) -> None:
        """All processes die, and one new inquirer starts: every order ends as at the gateway, or waits for a person."""
        for memory in self.memory:
            memory.clear()
        for order, one in self.model.items():
            if one.statuses:
                self._move(order, 0)
        rounds = 0
        while due := [_next_time(row) for row in self._rows().values() if _is_under_way(row)]:
            rounds += 1
            assert rounds < 300, "a question is asked again and again, or never"
            self.clock.forward(max(5.0, (min(due) - self.clock()).total_seconds()))
            self.lease(process=0, limit=10, fate=LIVES)
            for held in list(self.memory[0]):
                self._ask(held, answered=True)
                self._settle(0, held, LIVES)
            self.only_the_truth_is_believed()
            self.who_is_owed_an_answer_has_an_inquiry()
        parked = self.store.list_inquiries("acme", InquiryState.PARKED, after="", limit=10)
        for_a_person = {key.biz_order_no for key, _ in parked}
        for order, truth in self.model.items():
            if truth.announced and order not in for_a_person:
                known = self.store.load_order(OrderKey("acme", order))
                assert known is not None
                assert known.state.status is truth.statuses[-1]
            history = self.store.order_history(OrderKey("acme", order))
            assert [event.sequence for event in history.events] == list(range(1, len(history.events) + 1))
            assert len(history.events) <= len(truth.statuses)

    # ---- the model ----

    def _leased(self, inquiry: DueInquiry) -> Held:
        order, now = self.model[inquiry.order.biz_order_no], self.clock()
        assert order.lease_until is None or order.lease_until <= now, "leased although another still has it"
        order.lease, order.lease_until = next(self.numbers), now + timedelta(seconds=LEASE_SECONDS)
        order.questions.append((now, inquiry.owed))
        self.questions.append((now, inquiry.owed))
        today = [owed for at, owed in order.questions if at.date() == now.date()]
        assert len(today) <= RULES.max_per_day
        assert today.count(False) <= RULES.max_doubts_per_day
        if len(order.questions) > 1:
            assert now - order.questions[-2][0] >= timedelta(seconds=RULES.min_interval_seconds)
        _check_rate([at for at, _ in self.questions], RULES.max_per_minute)
        _check_rate([at for at, owed in self.questions if not owed], RULES.max_doubts_per_minute)
        return Held(inquiry=inquiry, lease=order.lease)

    def _ask(self, held: Held, *, answered: bool) -> None:
        statuses = self.model[held.inquiry.order.biz_order_no].statuses
        outcome = QuestionOutcome.ANSWERED if statuses else QuestionOutcome.NOT_FOUND
        held.asked = Asked(
            result=QuestionResult(
                outcome=outcome if answered else QuestionOutcome.NO_ANSWER, request_id="r", seconds=0.1
            ),
            status=statuses[-1] if statuses and answered else None,
            asked_at=self.clock(),
        )

    def _settle(self, process: int, held: Held, fate: Fate) -> None:
        assert held.asked is not None
        asked, order = held.asked, held.inquiry.order.biz_order_no
        claim = None
        if asked.status is not None:
            claim = a_claim(asked.status, Trust.QUERIED, order=order, stated_at=asked.asked_at)
        before, is_holder = self._rows().get(order), self.model[order].lease == held.lease
        results = self.ledger.call(lambda: self.queue.settle(held.inquiry, asked.result, claim=claim), fate)
        after = self._rows().get(order)
        if not results or before is None:
            assert after == before
        elif is_holder:
            assert after is not None
            self._check_settled(held, before, after)
        elif claim is None:
            assert after == before, "an old lease has changed the inquiry"
        else:
            assert after is not None
            # The answer itself counts, whoever brings it. It may close the inquiry, or be a reason to ask again.
            assert (
                (after.fence, after.state) == (before.fence, before.state)
                or after.raised > before.raised
                or (after.state == InquiryState.ANSWERED)
            )
        if fate.lives:
            self.memory[process].remove(held)
        self._end(process, fate)

    def _check_settled(self, held: Held, before: Row[Any], after: Row[Any]) -> None:
        assert held.asked is not None
        assert after.state != InquiryState.ASKING
        assert after.lease_until is None
        status = held.asked.status
        if before.raised > held.inquiry.raised:
            due = earliest(after.due_at, after.doubt_due_at)
            too_late = due is not None and due > after.horizon_at
            assert after.state == InquiryState.OPEN or (too_late and after.state == InquiryState.PARKED), "forgotten"
        elif status is not None and status.terminal:
            assert after.state == InquiryState.ANSWERED
        elif status is not None or held.asked.result.outcome is QuestionOutcome.NO_ANSWER:
            assert after.state in (InquiryState.OPEN, InquiryState.PARKED)

    def _move(self, order: str, end: int) -> None:
        one = self.model[order]
        possible = NEXT.get(one.statuses[-1] if one.statuses else None, ())
        if one.announced and possible:
            one.statuses.append(possible[end % len(possible)])

    def _rows(self) -> dict[str, Row[Any]]:
        with self.ledger.engine.connect() as connection:
            return {row.biz_order_no: row for row in connection.execute(select(inquiries))}

    def _waiting(self, *, asked: bool) -> list[tuple[int, Held]]:
        """Which process holds which inquiries that it has asked about, or has not."""
        return [
            (number, held)
            for number, memory in enumerate(self.memory)
            for held in memory
            if (held.asked is not None) is asked
        ]

    def _end(self, process: int, fate: Fate) -> None:
        if not fate.lives:
            self.memory[process].clear()


def _is_under_way(row: Row[Any]) -> bool:
    return row.state in (InquiryState.OPEN, InquiryState.ASKING)


def _next_time(row: Row[Any]) -> datetime:
    """When the inquiry may be leased next."""
    time = row.lease_until if row.state == InquiryState.ASKING else earliest(row.due_at, row.doubt_due_at)
    assert time is not None
    return time


def _check_rate(asked: Sequence[datetime], max_per_minute: float) -> None:
    """The questions up to the last one were never more than the rate allows."""
    interval = timedelta(minutes=1) / max_per_minute
    for place, since in enumerate(asked):
        assert len(asked) - place <= (asked[-1] - since) // interval + 1


def test_inquiries_are_what_the_model_says(tmp_path: Path) -> None:
    run_model(Inquiries, url=make_sqlite_ledger(tmp_path / "ledger.db"), runs=12, steps=40)
