"""Orders: what is believed of each, as a value and as a row."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Row, Select, delete, literal, select, tuple_

from service.domain.claims import IdentityField, OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.domain.order_state import Dispute, OrderState
from service.ledger.bulk import PLANNED_ANEW, GivenRows, insert_new, insert_or_update
from service.ledger.errors import ClaimUnstorable
from service.ledger.sanitizing import escaped
from service.ledger.tables import about_order, orders

_KEY = (orders.c.merchant, orders.c.biz_order_no)
_NEVER_SEEN = datetime(1970, 1, 1, tzinfo=UTC)


class OrderPlace(NamedTuple):
    """An order's place in the list of last changed orders."""

    updated_at: datetime
    merchant: str
    biz_order_no: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    """All that is stored about one order."""

    merchant: str
    biz_order_no: str
    state: OrderState = field(default_factory=OrderState)
    #: The number of its last event; 0 before the first.
    sequence: int = 0
    paid_at: datetime | None = None
    #: What was asked for, whatever was claimed since: an exact string in `amount_unit`; None unless announced.
    announced_amount: str | None = None
    #: Each field that was ever in dispute, whether or not that is settled.
    disputed_fields: frozenset[str] = frozenset()
    #: None for an order that is known by its callbacks alone.
    announced_at: datetime | None = None
    #: When the gateway is asked about an announced order that has no terminal status by then.
    answer_due_at: datetime | None = None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def unknown(cls, key: OrderKey, *, now: datetime) -> Self:
        """An order about which nothing has been said yet."""
        return cls(merchant=key.merchant, biz_order_no=key.biz_order_no, created_at=now, updated_at=now)

    @property
    def key(self) -> OrderKey:
        """What names the order."""
        return OrderKey(self.merchant, self.biz_order_no)

    @property
    def place(self) -> OrderPlace:
        """Its place in the list of last changed orders."""
        return OrderPlace(self.updated_at, *self.key)

    @property
    def amount(self) -> str | None:
        """The amount as it stands, an exact string in `amount_unit`; None where nobody has stated one."""
        return None if self.state.amount is None else self.state.amount.text

    @property
    def amount_unit(self) -> str | None:
        """The unit of `amount`: "yuan" or "fen"."""
        return None if self.state.amount is None else self.state.amount.unit

    @property
    def stated_amounts(self) -> Sequence[Money]:
        """Every amount that was announced or that claims state, also one in dispute; empty where nobody has said."""
        unit = self.amount_unit
        if self.state.amount is None or unit is None:
            return []
        announced = [] if self.announced_amount is None else [self.announced_amount]
        disputed = [one.other for one in self.state.disputed if one.field == IdentityField.AMOUNT]
        return [self.state.amount, *(Money(text, unit) for text in (*announced, *disputed))]

    @property
    def settled(self) -> bool:
        """Whether it has a terminal status that is not in conflict, so that nothing further is expected.

        What a rule has ended is not settled: the gateway has not said so, and goes on being asked.
        """
        state = self.state
        return state.status.terminal and not state.conflicted and state.trust is not Trust.RULE


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    """Which orders to list; None is no filter."""

    merchant: str | None = None
    status: OrderStatus | None = None
    conflicted: bool | None = None
    #: An exact amount, whatever its unit; "100" and "100.00" are the same.
    amount: str | None = None
    updated_since: datetime | None = None
    updated_before: datetime | None = None
    #: Only orders that are listed after this place.
    after: OrderPlace | None = None


def insert_missing(connection: Connection, records: Collection[OrderRecord]) -> set[OrderKey]:
    """Insert a row for each order that has none yet; the keys of those inserted. Existing rows stay as they are.

    Inserted rows are locked until the transaction ends. Call it before `lock`, in every transaction: then two batches
    never wait for each other at once.
    """
    rows = [_to_row(record) for record in sorted(records, key=lambda record: record.key)]
    made = insert_new(connection, orders, rows, returning=_KEY)
    return {OrderKey(row.merchant, row.biz_order_no) for row in made}


def hold_absent(connection: Connection, key: OrderKey) -> bool:
    """Keep others from creating the order until the transaction ends; False where it has a row already.

    A row that does not exist can be locked only by inserting it. Call `release_absent` before the transaction ends, or
    the row stays.
    """
    return bool(insert_missing(connection, [OrderRecord.unknown(key, now=_NEVER_SEEN)]))


def release_absent(connection: Connection, key: OrderKey) -> None:
    """Remove the row that `hold_absent` has inserted in this transaction, and which nobody else has seen."""
    connection.execute(delete(orders).where(about_order(orders, key)))


def lock(connection: Connection, keys: Collection[OrderKey]) -> dict[OrderKey, OrderRecord]:
    """Lock and load the orders that exist, until the transaction ends. They are locked in the order of their keys."""
    if not keys:
        return {}
    given, statement = _lock(connection.dialect.name)
    rows = connection.execute(statement, given.parameter(keys))
    return {record.key: record for record in map(_from_row, rows)}


def load(connection: Connection, key: OrderKey) -> OrderRecord | None:
    """The order; None where it has no row."""
    query = select(orders).where(about_order(orders, key))
    row = connection.execute(query).one_or_none()
    return None if row is None else _from_row(row)


def listed(connection: Connection, chosen: OrderFilter, limit: int) -> Sequence[OrderRecord]:
    """At most `limit` orders, the last changed first. Raises ClaimUnstorable for a name that no order can have."""
    _require_storable(chosen.merchant or "")
    # All orders of a batch have one time, so the time alone does not order them.
    query = select(orders).order_by(orders.c.updated_at.desc(), *_KEY).limit(limit)
    if chosen.merchant is not None:
        query = query.where(orders.c.merchant == chosen.merchant)
    if chosen.status is not None:
        query = query.where(orders.c.status == chosen.status.value)
    if chosen.conflicted is not None:
        query = query.where(orders.c.conflicted if chosen.conflicted else ~orders.c.conflicted)
    if chosen.amount is not None:
        query = query.where(orders.c.amount.in_(_spellings(chosen.amount)))
    if chosen.updated_since is not None:
        query = query.where(orders.c.updated_at >= chosen.updated_since)
    if chosen.updated_before is not None:
        query = query.where(orders.c.updated_at < chosen.updated_before)
    if (place := chosen.after) is not None:
        same_time = (orders.c.updated_at == place.updated_at) & (
            tuple_(*_KEY) > tuple_(literal(place.merchant), literal(place.biz_order_no))
        )
        # An index can be used for the first condition.
        query = query.where(
            orders.c.updated_at <= place.updated_at, (orders.c.updated_at < place.updated_at) | same_time
        )
    return [_from_row(row) for row in connection.execute(query)]


def find_by_number(
    connection: Connection, number: str, merchants: Collection[str], limit: int
) -> Sequence[OrderRecord]:
    """At most `limit` orders that `merchants` call by this number, or that the gateway does, the last changed first.

    Raises ClaimUnstorable for a number that no order can have.
    """
    _require_storable(number)
    # Not sorted by the database, which might then read all orders in that order until it has found enough.
    named = orders.c.merchant.in_(list(merchants)) & (orders.c.biz_order_no == number)
    query = select(orders).where(named | (orders.c.pay_order_no == number)).limit(limit)
    found = [_from_row(row) for row in connection.execute(query)]
    return sorted(found, key=lambda order: order.updated_at, reverse=True)


def _require_storable(text: str) -> None:
    if escaped(text) != text:
        raise ClaimUnstorable("what is asked for must hold no NUL and no lone surrogate")


def _spellings(amount: str) -> Sequence[str]:
    """The ways in which a ledger may have this amount."""
    whole, _, fraction = amount.partition(".")
    fraction = fraction.rstrip("0")
    return [amount, *(f"{whole}.{fraction.ljust(digits, '0')}" for digits in (1, 2)), *([] if fraction else [whole])]


def save(connection: Connection, records: Iterable[OrderRecord]) -> None:
    """Update orders that were locked before."""
    insert_or_update(connection, orders, [_to_row(record) for record in records], unchanged=["created_at"])


@cache
def _lock(dialect: str) -> tuple[GivenRows, Select[Any]]:
    given = GivenRows(dialect)
    locked = select(orders).where(given.have_key(_KEY)).order_by(*_KEY).with_for_update(key_share=True)
    return given, locked.execution_options(**{PLANNED_ANEW: True})


def _to_row(record: OrderRecord) -> dict[str, Any]:
    state = record.state
    return {
        "merchant": record.merchant,
        "biz_order_no": record.biz_order_no,
        "status": state.status.value,
        "trust": None if state.trust is None else int(state.trust),
        "conflicted": state.conflicted,
        "pay_order_no": state.pay_order_no,
        "as_of": state.as_of,
        "sequence": record.sequence,
        "order_type": state.order_type,
        "pay_type": state.pay_type,
        "paid_at": record.paid_at,
        "amount": record.amount,
        "amount_unit": record.amount_unit,
        "disputed": json.dumps(state.disputed) if state.disputed else None,
        "disputed_fields": " ".join(sorted(record.disputed_fields)) or None,
        "announced_pay_type": state.announced_pay_type if record.announced_at else None,
        "announced_amount": record.announced_amount,
        "announced_at": record.announced_at,
        "answer_due_at": record.answer_due_at,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
    }


def _from_row(row: Row[Any]) -> OrderRecord:
    values = dict(row._mapping)
    amount, unit = values.pop("amount"), values.pop("amount_unit")
    disputed, fields = values.pop("disputed"), values.pop("disputed_fields")
    state = OrderState(
        status=OrderStatus(values.pop("status")),
        trust=None if (trust := values.pop("trust")) is None else Trust(trust),
        conflicted=values.pop("conflicted"),
        pay_order_no=values.pop("pay_order_no"),
        pay_type=values.pop("pay_type"),
        order_type=values.pop("order_type"),
        amount=None if amount is None else Money(amount, unit),
        announced_pay_type=values.pop("announced_pay_type") or "",
        disputed=tuple(Dispute(*one) for one in json.loads(disputed)) if disputed else (),
        as_of=values.pop("as_of"),
    )
    return OrderRecord(state=state, disputed_fields=frozenset((fields or "").split()), **values)
