"""A look into the ledger's database from outside, and whether what was promised has arrived."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, func, select

from service.ledger.engine import READS_ONLY, make_engine
from service.ledger.tables import asked_questions, claims, deliveries, events, inquiries, orders
from tests.support.callbacks import Callback
from tests.support.downstream import Downstream, ReceivedEvent
from tests.support.waiting import eventually


class ClaimKey(NamedTuple):
    """What an ordinary callback amounts to in the ledger."""

    merchant: str
    biz_order_no: str
    status: str | None


class LedgerView:
    """Reads one ledger; close it."""

    def __init__(self, *, url: str) -> None:
        self._engine = make_engine(url).execution_options(**{READS_ONLY: True})

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def claims_about(self, biz_order_no: str) -> Sequence[Row[Any]]:
        """The order's claims, oldest first."""
        return self._all(select(claims).where(claims.c.biz_order_no == biz_order_no).order_by(claims.c.id))

    def order(self, biz_order_no: str) -> Row[Any] | None:
        """The order's row; None where there is none."""
        found = self._all(select(orders).where(orders.c.biz_order_no == biz_order_no))
        return found[0] if found else None

    def events_about(self, biz_order_no: str) -> Sequence[Row[Any]]:
        """The order's events, in their sequence."""
        return self._all(select(events).where(events.c.biz_order_no == biz_order_no).order_by(events.c.sequence))

    def inquiries_about(self, biz_order_no: str) -> Sequence[Row[Any]]:
        """The question due about the order, if there is one."""
        return self._all(select(inquiries).where(inquiries.c.biz_order_no == biz_order_no))

    def questions(self, prefix: str) -> Sequence[Row[Any]]:
        """Every question about orders whose numbers begin with `prefix`, oldest first, as it was counted."""
        asked = asked_questions.c
        return self._all(
            select(asked_questions).where(asked.biz_order_no.startswith(prefix)).order_by(asked.asked_at, asked.fence)
        )

    def count_claims(self, prefix: str) -> Counter[ClaimKey]:
        """How many rows there are of each claim about orders whose numbers begin with `prefix`."""
        columns = (claims.c.merchant, claims.c.biz_order_no, claims.c.status)
        query = select(*columns, func.count()).where(claims.c.biz_order_no.startswith(prefix)).group_by(*columns)
        return Counter({ClaimKey(row[0], row[1], row[2]): row[3] for row in self._all(query)})

    def count_deliveries(self, state: str) -> int:
        """How many deliveries are `open`, `delivered` or `parked`."""
        query = select(func.count()).select_from(deliveries).where(deliveries.c.state == state)
        return int(self._all(query)[0][0])

    def delivered_orders(self, endpoint: str) -> set[str]:
        """The orders of which an event counts as delivered to an endpoint."""
        columns = deliveries.c
        query = select(columns.biz_order_no).where(columns.endpoint == endpoint, columns.state == "delivered")
        return {row[0] for row in self._all(query)}

    def count_under_way(self, endpoint: str) -> int:
        """How many open deliveries to an endpoint are leased, or wait for their next try."""
        query = select(func.count()).select_from(deliveries)
        later = query.where(
            deliveries.c.endpoint == endpoint, deliveries.c.state == "open", deliveries.c.due_at > datetime.now(UTC)
        )
        return int(self._all(later)[0][0])

    def _all(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()


TERMINAL = frozenset({"payment.succeeded", "payment.failed", "payment.corrected"})

_STATUSES = {"success": "succeeded", "pending": "processing", "fail": "failed"}


def await_claims(acknowledged: Sequence[Callback], *, ledger: LedgerView, prefix: str) -> None:
    """Wait until every acknowledged callback is in the ledger; then none may be there twice."""
    promised = {claim_key(callback) for callback in acknowledged}
    assert promised, "nothing was acknowledged"

    def missing() -> Counter[ClaimKey]:
        return Counter(promised) - ledger.count_claims(prefix)

    def all_there() -> bool:
        lost = missing()
        assert not lost, f"{len(lost)} of {len(promised)} acknowledged claims are not in the ledger: {sorted(lost)[:5]}"
        return True

    eventually(all_there)
    twice = {key: count for key, count in ledger.count_claims(prefix).items() if count > 1}
    assert not twice, f"recorded more than once: {twice}"


def await_events(acknowledged: Sequence[Callback], *, ledger: LedgerView, downstream: Downstream, prefix: str) -> None:
    """Wait until every order that was paid has been told downstream; then each was told once, and in order."""
    paid = {callback.biz_order_no for callback in acknowledged if callback.pay_status == "success"}

    def all_told() -> bool:
        told = {event.biz_order_no for event in downstream.received if event.type in TERMINAL}
        untold = paid - told
        assert not untold, f"{len(untold)} of {len(paid)} paid orders were not told: {sorted(untold)[:5]}"
        return ledger.count_deliveries("open") == 0

    eventually(all_told)
    assert ledger.count_deliveries("parked") == 0
    for biz_order_no, arrived in first_arrivals(downstream, prefix).items():
        terminal = [event.id for event in arrived if event.type in TERMINAL]
        assert len(terminal) <= 1, f"{biz_order_no} has more than one terminal event: {terminal}"
        sequences = [event.sequence for event in arrived]
        assert sequences == list(range(1, len(arrived) + 1)), f"{biz_order_no} came in the order {sequences}"


def first_arrivals(downstream: Downstream, prefix: str) -> dict[str, list[ReceivedEvent]]:
    """By order number: each event once, in the order in which it came first."""
    found: dict[str, dict[str, ReceivedEvent]] = defaultdict(dict)
    for event in downstream.received:
        if event.biz_order_no.startswith(prefix):
            found[event.biz_order_no].setdefault(event.id, event)
    return {biz_order_no: list(arrived.values()) for biz_order_no, arrived in found.items()}


def claim_key(callback: Callback) -> ClaimKey:
    """What the ledger makes of a callback."""
    return ClaimKey(callback.merchant, callback.biz_order_no, _STATUSES.get(callback.pay_status))
