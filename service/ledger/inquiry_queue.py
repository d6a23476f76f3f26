"""The agenda: inquiries that are due, claimed by lease and settled by fencing number.

- A question is counted, and the next one scheduled as if no answer came, in the transaction that leases it, before it
  is sent. So a process that dies at any point has asked at most what was counted, and when its lease has run out the
  order is asked about again as scheduled.
- An answer is recorded in the transaction that settles its question: a crash loses both or none.
- Of one merchant's questions all processes together ask no more than its rate, of which a share is kept from reasons
  that anyone can give.
- Of orders that only strangers speak of, those with news come before those that are asked for again, and one that the
  gateway does not know is soon asked for no more.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, select, update

from service.domain.claims import Claim, OrderKey
from service.domain.order_state import Verdict
from service.ledger import inquiry_limits, orders
from service.ledger.claim_rows import last_traceparent
from service.ledger.clock import shared_time
from service.ledger.due_inquiries import (
    DueInquiry,
    anything_due,
    count_parked,
    lock_doubts,
    lock_owed,
    oldest_doubt_age,
    oldest_owed_age,
    reopen_expired,
)
from service.ledger.inquiries import InquiryReason, InquiryState
from service.ledger.inquiry_limits import OrderPace
from service.ledger.inquiry_outcome import after_not_found, after_question, closed_by_answer, only_strangers_ask
from service.ledger.questions import QuestionOutcome, Reply, record_asked, record_reply
from service.ledger.rates import lock_rate, save_rate
from service.ledger.rules import InquiryRules
from service.ledger.store import LedgerStore
from service.ledger.tables import inquiries
from service.ledger.transactions import read, write

_PACE = tuple(field.name for field in fields(OrderPace))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of a question."""

    #: Where the inquiry stands now.
    state: InquiryState
    #: What the answer did to its order; None where there was no answer.
    verdict: Verdict | None


class InquiryQueue:
    """Questions that are due. Safe to share between threads; any number of processes may claim at once.

    Every method raises LedgerUnavailable while the database cannot be used; calling again is safe, though a claim that
    was committed unseen is asked only when its lease has run out.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        store: LedgerStore,
        rules: Mapping[str, InquiryRules],
        clock: Callable[[Connection], datetime] = shared_time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`rules` of every merchant whose gateway can be asked; `chance` spreads load, from 0 to below 1.

        `clock` has to tell all processes the same time.
        """
        self._engine = engine
        self._store = store
        self._rules = rules
        self._clock = clock
        self._chance = chance

    def claim_due(self, merchant: str, *, limit: int, lease_seconds: float) -> Sequence[DueInquiry]:
        """Lease at most `limit` due inquiries of a merchant, the longest due first, as far as its rate allows.

        Each allows one question. Until settled or `lease_seconds` have passed, nobody else gets them.
        """
        rules = self._rules[merchant]
        lease = timedelta(seconds=lease_seconds)
        # Looking takes no lock; most looks find nothing.
        if not read(self._engine, lambda connection: anything_due(connection, merchant, self._clock(connection))):
            return []
        return write(self._engine, lambda connection: self._claim(connection, merchant, rules, limit, lease))

    def settle(self, asked: DueInquiry, reply: Reply, *, claim: Claim | None = None) -> Settlement:
        """Record how a question went and, with an answer, what it claims; what became of both.

        It is asked again as scheduled unless its answer settled the order, and parked beyond its horizon. Where only
        strangers want to know and the gateway has said often enough that it has no such order, that is the end of it.
        A claim counts also where the lease was lost meanwhile. Raises ClaimUnstorable.
        """
        return write(self._engine, lambda connection: self._settle(connection, asked, reply, claim))

    def oldest_due_ages(self, merchants: Collection[str]) -> Mapping[tuple[str, str], float]:
        """How long each merchant's question that is due longest has waited, in seconds; 0 where none is due.

        By merchant and `owed` or `doubt`: questions that an order is owed, and those that anyone can have caused.
        """

        def measure(connection: Connection) -> Mapping[tuple[str, str], float]:
            now = self._clock(connection)
            return {
                (merchant, kind): age(connection, merchant, now).total_seconds()
                for merchant in merchants
                for kind, age in (("owed", oldest_owed_age), ("doubt", oldest_doubt_age))
            }

        return read(self._engine, measure)

    def count_parked(self, merchants: Collection[str]) -> Mapping[str, int]:
        """How many orders of each merchant were asked about to their horizon in vain and wait for a person."""
        return read(
            self._engine, lambda connection: {merchant: count_parked(connection, merchant) for merchant in merchants}
        )

    def _claim(
        self, connection: Connection, merchant: str, rules: InquiryRules, limit: int, lease: timedelta
    ) -> Sequence[DueInquiry]:
        # Whoever holds the rate's row is alone in claiming for this merchant, and may have waited for it.
        rate = lock_rate(connection, merchant)
        now = self._clock(connection)
        reopen_expired(connection, merchant, now)
        room = min(limit, rate.free(rules, now))
        owed = lock_owed(connection, merchant, now, limit=room)
        owed = self._within_daily_most(connection, owed, rules, now, owed=True)
        doubt_room = min(room, rate.free_doubts(rules, now))
        news = lock_doubts(connection, merchant, now, limit=doubt_room, repeated=False)
        news = self._within_daily_most(connection, news, rules, now, owed=False)
        repeats = lock_doubts(connection, merchant, now, limit=doubt_room, repeated=True)
        repeats = self._within_daily_most(connection, repeats, rules, now, owed=False)
        most_owed, most_doubts = inquiry_limits.split(
            room=room,
            first=len(owed),
            others=min(doubt_room, len(news) + len(repeats)),
            others_share=1 - rules.overdue_share,
            chance=self._chance(),
        )
        most_news, most_repeats = inquiry_limits.split(
            room=most_doubts,
            first=len(news),
            others=len(repeats),
            others_share=inquiry_limits.REPEATED_SHARE,
            chance=self._chance(),
        )
        owed, doubts = owed[:most_owed], [*news[:most_news], *repeats[:most_repeats]]
        if not owed and not doubts:
            return []
        due = [self._lease(connection, row, rules, now, now + lease, owed=True) for row in owed]
        due += [self._lease(connection, row, rules, now, now + lease, owed=False) for row in doubts]
        record_asked(connection, [(inquiry.order, inquiry.fence, inquiry.reasons) for inquiry in due], now=now)
        save_rate(connection, merchant, rate.used(rules, now, questions=len(due), doubts=len(doubts)))
        return due

    def _within_daily_most(
        self, connection: Connection, rows: Sequence[Row[Any]], rules: InquiryRules, now: datetime, *, owed: bool
    ) -> Sequence[Row[Any]]:
        """Those that may be asked about today. The others, which only new settings leave behind, are put off."""
        allowed = [(row, _pace(row).allowed_at(owed=owed, rules=rules, now=now)) for row in rows]
        column = "due_at" if owed else "doubt_due_at"
        for row, at in allowed:
            if at > now:
                _save(connection, OrderKey(row.merchant, row.biz_order_no), {column: at})
        return [row for row, at in allowed if at <= now]

    def _lease(
        self, connection: Connection, row: Row[Any], rules: InquiryRules, now: datetime, until: datetime, *, owed: bool
    ) -> DueInquiry:
        next_ = _pace(row).asked(owed=owed, rules=rules, now=now, chance=self._chance())
        inquiry = DueInquiry(
            order=OrderKey(row.merchant, row.biz_order_no),
            reasons=InquiryReason(row.reasons),
            owed=owed,
            attempt=next_.attempts + next_.doubt_attempts,
            due_at=next_.due_at,
            doubt_due_at=next_.doubt_due_at,
            horizon_at=row.horizon_at,
            raised=row.raised,
            fence=row.fence + 1,
            asked_at=now,
            traceparent=last_traceparent(connection, OrderKey(row.merchant, row.biz_order_no)),
        )
        leased = {
            "state": InquiryState.ASKING.value,
            "doubt_repeats": True,
            "last_asked_at": now,
            "lease_until": until,
            "fence": inquiry.fence,
        }
        _save(connection, inquiry.order, {**asdict(next_), **leased})
        return inquiry

    def _settle(self, connection: Connection, asked: DueInquiry, reply: Reply, claim: Claim | None) -> Settlement:
        order, raised_by_answer, verdict = None, False, None
        if claim is not None:
            # Orders before inquiries, as everybody locks them.
            decided = self._store.apply(connection, claim)
            order, raised_by_answer = decided.order, decided.question is not None
            [verdict] = decided.verdicts.values()
        record_reply(connection, asked, reply)
        row = connection.execute(select(inquiries).where(_is(asked.order)).with_for_update()).one_or_none()
        if row is None:
            # The lease was lost, and the order has been removed since as a forged one.
            state = InquiryState.NOT_FOUND if claim is None else InquiryState.ANSWERED
            return Settlement(state=state, verdict=verdict)
        if row.last_asked_at != asked.asked_at:
            # The lease was lost to another. The fence alone does not tell: where the order was removed as a forged one
            # and came again, it counts anew.
            return Settlement(state=InquiryState(row.state), verdict=verdict)
        raised_meanwhile = row.raised - raised_by_answer > asked.raised
        if row.fence == asked.fence and row.state == InquiryState.ASKING.value:
            known = orders.load(connection, asked.order) if reply.outcome is QuestionOutcome.NOT_FOUND else order
            if reply.outcome is QuestionOutcome.NOT_FOUND and only_strangers_ask(row, known):
                rules = self._rules[row.merchant]
                pause = inquiry_limits.pause_after_not_found(row.not_found + 1, rules=rules, chance=self._chance())
                now = self._clock(connection)
                values = after_not_found(row, known, now=now, pause=pause, raised_meanwhile=raised_meanwhile)
            else:
                values = after_question(
                    asked, row, order, raised_by_answer=raised_by_answer, raised_meanwhile=raised_meanwhile
                )
        elif closed_by_answer(asked, row, claim) and raised_meanwhile:
            values = {"state": InquiryState.OPEN.value}
        else:
            return Settlement(state=InquiryState(row.state), verdict=verdict)
        _save(connection, asked.order, {**values, "lease_until": None})
        return Settlement(state=InquiryState(values["state"]), verdict=verdict)


def _save(connection: Connection, order: OrderKey, values: Mapping[str, Any]) -> None:
    """Write an inquiry that was locked before."""
    connection.execute(update(inquiries).where(_is(order)).values(**values))


def _is(order: OrderKey) -> ColumnElement[bool]:
    return (inquiries.c.merchant == order.merchant) & (inquiries.c.biz_order_no == order.biz_order_no)


def _pace(row: Row[Any]) -> OrderPace:
    return OrderPace(**{name: row._mapping[name] for name in _PACE})
