"""The inquiry queue: due inquiries are leased, and settled by fencing token.

- The transaction that leases an inquiry also counts its question and schedules the next one as if no answer came. A
  process that dies at any point has therefore asked no more than was counted, and when its lease has run out the
  gateway is asked again as scheduled.
- An answer is recorded in the transaction that settles its question: a crash loses both or neither.
- All processes together ask one merchant's gateway no more often than its rate allows.
- Of the inquiries that have only doubts, those with a new claim come before those that are repeated. About an order
  that it does not have, the gateway is asked only a few times.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.order_state import Verdict, is_answerable
from service.domain.refused_withholds import RefusalRule
from service.ledger import inquiry_limits, orders
from service.ledger.claims import last_traceparent
from service.ledger.database import read, shared_time, write
from service.ledger.inquiries import InquiryReason, InquiryState, earliest
from service.ledger.inquiry_limits import MAX_NOT_FOUND, InquiryRules, InquirySchedule, lock_rate, save_rate
from service.ledger.inquiry_questions import (
    DueInquiry,
    QuestionOutcome,
    QuestionResult,
    anything_due,
    lock_doubts,
    lock_owed,
    oldest_doubt_age,
    oldest_owed_age,
    record_asked,
    record_result,
    reopen_expired,
)
from service.ledger.orders import OrderRecord
from service.ledger.refused_withholds import RefusedWithholds
from service.ledger.store import LedgerStore
from service.ledger.tables import about_order, inquiries
from service.ledger.withholds import WithholdOutcome, load_withhold

_NOT_HAVING_IT = (QuestionOutcome.NOT_FOUND, QuestionOutcome.OTHER_SPELLING)
_SCHEDULE_COLUMNS = tuple(field.name for field in fields(InquirySchedule))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of a question and its inquiry."""

    #: The inquiry's state now.
    state: InquiryState
    #: What the answer did to its order; None where there was no answer.
    verdict: Verdict | None
    #: The rule by which the order of a refused withhold has ended, since no answer came; None where none has.
    ended_by: RefusalRule | None = None


class InquiryQueue:
    """Due inquiries. Safe to share between threads; any number of processes may lease at once.

    Every method raises LedgerUnavailable while the database cannot be used. Calling again is safe, but an inquiry whose
    lease was committed without our knowledge is asked only after that lease has run out.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        store: LedgerStore,
        rules: Mapping[str, InquiryRules],
        refusals: RefusedWithholds,
        clock: Callable[[Connection], datetime] = shared_time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`rules` of every merchant whose gateway can be asked; `chance` (0 to below 1) spreads load.

        `clock` has to give all processes the same time.
        """
        self._engine = engine
        self._store = store
        self._rules = rules
        self._refusals = refusals
        self._clock = clock
        self._chance = chance

    def lease_due(self, merchant: str, *, limit: int, lease_seconds: float) -> Sequence[DueInquiry]:
        """Lease at most `limit` due inquiries of a merchant, the longest due first, as far as its rate allows.

        Each lease is for one question. Nobody else gets them until they are settled or `lease_seconds` have passed.
        """
        rules = self._rules[merchant]
        duration = timedelta(seconds=lease_seconds)
        # This takes no lock, and mostly finds nothing.
        if not read(self._engine, lambda connection: anything_due(connection, merchant, self._clock(connection))):
            return []
        return write(self._engine, lambda connection: self._lease_due(connection, merchant, rules, limit, duration))

    def settle(self, asked: DueInquiry, result: QuestionResult, *, claim: Claim | None = None) -> Settlement:
        """Record the result of a question and, with an answer, its claim; what became of both.

        The inquiry stays open unless the answer settled the order, and is parked beyond its horizon. One that has only
        doubts ends when the gateway has said often enough that it has no such order. The claim is recorded also where
        the lease was lost meanwhile. Without an answer, a rule may end the order of a refused withhold, whose inquiry
        stays open to its horizon all the same. Raises ClaimUnstorable.
        """
        return write(self._engine, lambda connection: self._settle(connection, asked, result, claim))

    def oldest_due_ages(self, merchants: Collection[str]) -> Mapping[tuple[str, str], float]:
        """How long each merchant's longest due inquiry has waited, in seconds; 0 where none is due.

        By merchant and kind: `owed` where the order is owed an answer, `doubt` where there are only doubts.
        """

        def measure(connection: Connection) -> Mapping[tuple[str, str], float]:
            now = self._clock(connection)
            return {
                (merchant, kind): age(connection, merchant, now).total_seconds()
                for merchant in merchants
                for kind, age in (("owed", oldest_owed_age), ("doubt", oldest_doubt_age))
            }

        return read(self._engine, measure)

    def count_suspensions(self) -> Mapping[tuple[str, str], float]:
        """Why the rules for refused withholds end nothing at present: the orders, by merchant and `Suspension`."""
        return read(
            self._engine,
            lambda connection: self._refusals.count_suspensions(connection, now=self._clock(connection)),
        )

    def _lease_due(
        self, connection: Connection, merchant: str, rules: InquiryRules, limit: int, duration: timedelta
    ) -> Sequence[DueInquiry]:
        # Only the holder of this lock leases for the merchant. It may have to wait, so it reads the clock afterwards.
        rate = lock_rate(connection, merchant)
        now = self._clock(connection)
        reopen_expired(connection, merchant, now)
        room = min(limit, rate.free(rules, now))
        owed = lock_owed(connection, merchant, now, limit=room)
        owed = self._allowed_today(connection, owed, rules, now, owed=True)
        doubt_room = min(room, rate.free_doubts(rules, now))
        news = lock_doubts(connection, merchant, now, limit=doubt_room, repeated=False)
        news = self._allowed_today(connection, news, rules, now, owed=False)
        repeats = lock_doubts(connection, merchant, now, limit=doubt_room, repeated=True)
        repeats = self._allowed_today(connection, repeats, rules, now, owed=False)
        max_owed, max_doubts = inquiry_limits.split(
            room=room,
            first=len(owed),
            others=min(doubt_room, len(news) + len(repeats)),
            others_share=1 - rules.overdue_share,
            chance=self._chance(),
        )
        max_news, max_repeats = inquiry_limits.split(
            room=max_doubts,
            first=len(news),
            others=len(repeats),
            others_share=inquiry_limits.REPEATED_SHARE,
            chance=self._chance(),
        )
        owed, doubts = owed[:max_owed], [*news[:max_news], *repeats[:max_repeats]]
        if not owed and not doubts:
            return []
        due = [self._lease(connection, row, rules, now, now + duration, owed=True) for row in owed]
        due += [self._lease(connection, row, rules, now, now + duration, owed=False) for row in doubts]
        record_asked(connection, [(inquiry.order, inquiry.fence, inquiry.reasons) for inquiry in due], now=now)
        save_rate(connection, merchant, rate.used(rules, now, questions=len(due), doubts=len(doubts)))
        return due

    def _allowed_today(
        self, connection: Connection, rows: Sequence[Row[Any]], rules: InquiryRules, now: datetime, *, owed: bool
    ) -> Sequence[Row[Any]]:
        """The rows that may be asked about today. The others (there are some after new settings) are postponed."""
        allowed = [(row, _schedule(row).allowed_at(owed=owed, rules=rules, now=now)) for row in rows]
        column = "due_at" if owed else "doubt_due_at"
        for row, at in allowed:
            if at > now:
                _save(connection, OrderKey(row.merchant, row.biz_order_no), {column: at})
        return [row for row, at in allowed if at <= now]

    def _lease(
        self, connection: Connection, row: Row[Any], rules: InquiryRules, now: datetime, until: datetime, *, owed: bool
    ) -> DueInquiry:
        next_ = _schedule(row).asked(owed=owed, rules=rules, now=now, chance=self._chance())
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

    def _settle(
        self, connection: Connection, asked: DueInquiry, result: QuestionResult, claim: Claim | None
    ) -> Settlement:
        order, raised_by_answer, verdict = None, False, None
        if claim is not None:
            # Orders are always locked before inquiries.
            decided = self._store.apply(connection, claim)
            order, raised_by_answer = decided.order, decided.inquiry is not None
            [verdict] = decided.verdicts.values()
        record_result(connection, asked, result)
        ended_by = None
        if claim is None and self._refusals.has_rules(asked.order.merchant):
            ended_by = self._refusals.end_if_due(connection, asked.order, now=self._clock(connection))
        state = self._settle_inquiry(connection, asked, result, order, raised_by_answer=raised_by_answer)
        return Settlement(state=state, verdict=verdict, ended_by=ended_by)

    def _settle_inquiry(
        self,
        connection: Connection,
        asked: DueInquiry,
        result: QuestionResult,
        order: OrderRecord | None,
        *,
        raised_by_answer: bool,
    ) -> InquiryState:
        """Settle the inquiry alone; its state now. `order` is the order after the answer; None where there was none."""
        is_answer = result.outcome is QuestionOutcome.ANSWERED
        row = connection.execute(
            select(inquiries).where(about_order(inquiries, asked.order)).with_for_update()
        ).one_or_none()
        if row is None:
            # The lease was lost, and the order has been removed as a forged one since.
            return InquiryState.ANSWERED if is_answer else InquiryState.NOT_FOUND
        if row.last_asked_at != asked.asked_at:
            # Another process has the lease. The fencing token alone does not show that: it starts again where the
            # order was removed as a forged one and came back.
            return InquiryState(row.state)
        raised_meanwhile = row.raised - raised_by_answer > asked.raised
        was_closed_by_answer = is_answer and row.state == InquiryState.ANSWERED.value and row.fence == asked.fence + 1
        if row.fence == asked.fence and row.state == InquiryState.ASKING.value:
            known = order if is_answer else orders.load(connection, asked.order)
            if result.outcome in _NOT_HAVING_IT and _has_only_doubts(row, known):
                rules = self._rules[row.merchant]
                pause = inquiry_limits.pause_after_not_found(row.not_found + 1, rules=rules, chance=self._chance())
                now = self._clock(connection)
                values = _after_not_found(row, known, now=now, pause=pause, raised_meanwhile=raised_meanwhile)
            else:
                values = _after_question(
                    asked,
                    row,
                    order,
                    raised_by_answer=raised_by_answer,
                    raised_meanwhile=raised_meanwhile,
                    is_ended=known is not None and known.state.trust is Trust.RULE,
                )
            values["missing_since"] = self._missing_since(connection, asked, result, row, known)
        elif was_closed_by_answer and raised_meanwhile:
            values = {"state": InquiryState.OPEN.value}
        else:
            return InquiryState(row.state)
        _save(connection, asked.order, {**values, "lease_until": None})
        return InquiryState(values["state"])

    def _missing_since(
        self,
        connection: Connection,
        asked: DueInquiry,
        result: QuestionResult,
        row: Row[Any],
        order: OrderRecord | None,
    ) -> datetime | None:
        """Since when the gateway does not have an order that it must have; None where it has it, or nobody knows."""
        if result.outcome is QuestionOutcome.ANSWERED:
            return None
        since: datetime | None = row.missing_since
        is_absent = result.outcome is QuestionOutcome.NOT_FOUND and self._refusals.has_rules(asked.order.merchant)
        if since is None and is_absent and order is not None:
            return asked.asked_at if _was_taken(connection, order, before=asked.asked_at) else None
        return since


def _save(connection: Connection, order: OrderKey, values: Mapping[str, Any]) -> None:
    """Update an inquiry that was locked before."""
    connection.execute(update(inquiries).where(about_order(inquiries, order)).values(**values))


def _schedule(row: Row[Any]) -> InquirySchedule:
    return InquirySchedule(**{name: row._mapping[name] for name in _SCHEDULE_COLUMNS})


def _after_question(
    asked: DueInquiry,
    row: Row[Any],
    order: OrderRecord | None,
    *,
    raised_by_answer: bool,
    raised_meanwhile: bool,
    is_ended: bool,
) -> dict[str, Any]:
    """The new values of an inquiry whose question was settled while its lease was held.

    `is_ended` says that a rule has ended the order: at the horizon, it is no person's work.
    """
    if order is not None and _is_final(order) and not raised_by_answer and not raised_meanwhile:
        return {"state": InquiryState.ANSWERED.value}
    due_at, doubt_due_at, horizon_at = row.due_at, row.doubt_due_at, row.horizon_at
    if raised_by_answer and not raised_meanwhile:
        # An answer that settles nothing is no reason to ask sooner than planned, or longer. Otherwise each would move
        # the horizon, and a gateway that always answers the same would be asked for ever.
        if asked.due_at is not None:
            due_at, horizon_at = asked.due_at, asked.horizon_at
        doubt_due_at = asked.doubt_due_at
    next_due = earliest(due_at, doubt_due_at)
    is_over = next_due is None or next_due > horizon_at
    over = InquiryState.ANSWERED if is_ended else InquiryState.PARKED
    state = over if is_over else InquiryState.OPEN
    return {"state": state.value, "due_at": due_at, "doubt_due_at": doubt_due_at, "horizon_at": horizon_at}


def _after_not_found(
    row: Row[Any], order: OrderRecord | None, *, now: datetime, pause: timedelta, raised_meanwhile: bool
) -> dict[str, Any]:
    """The new values of an inquiry that has only doubts, and whose order the gateway does not have.

    It is never parked for a person. Otherwise anyone could invent order numbers, or use old ones that the gateway has
    forgotten, and have people called. `pause` is how long to wait before the gateway is asked again.
    """
    times = row.not_found + 1
    due_at = row.doubt_due_at if raised_meanwhile else max(row.doubt_due_at, now + pause)
    # A claim that came while we asked is asked about once more in any case.
    is_over = not raised_meanwhile and (due_at > row.horizon_at or times >= MAX_NOT_FOUND)
    state = InquiryState.NOT_FOUND if is_over else InquiryState.OPEN
    unknown_since = now if is_over and order is None else None
    return {"state": state.value, "doubt_due_at": due_at, "not_found": times, "unknown_since": unknown_since}


def _has_only_doubts(row: Row[Any], order: OrderRecord | None) -> bool:
    """Whether the order is owed no answer: it is final, or it was neither announced nor the subject of a trusted claim.

    A process that changes that at this moment waits for our lock, and finds the inquiry as we leave it.
    """
    return row.due_at is None and (order is None or _is_final(order))


def _was_taken(connection: Connection, order: OrderRecord, *, before: datetime) -> bool:
    """Whether the gateway had the order before a time: it accepted the withhold, or a trusted claim said so."""
    state = order.state
    if state.trust not in (None, Trust.RULE) and state.status in (OrderStatus.PROCESSING, OrderStatus.SUCCEEDED):
        return state.as_of is None or state.as_of < before
    sent = load_withhold(connection, order.key)
    accepted_at = sent.settled_at if sent is not None and sent.outcome is WithholdOutcome.ACCEPTED else None
    return accepted_at is not None and accepted_at < before


def _is_final(order: OrderRecord) -> bool:
    """Whether no further answer could change the order: it is settled, or in a conflict that only a person settles."""
    return order.settled or (order.state.conflicted and not is_answerable(order.state))
