"""A look into the ledger's database from outside."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, func, select

from service.ledger.engine import READS_ONLY, make_engine
from service.ledger.tables import asked_questions, claims, deliveries, events, inquiries, orders


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
