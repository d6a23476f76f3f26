"""Forged orders: all claims about them are forgeable, and the gateway does not have them. They are removed in time.

Anyone who knows a merchant's address can invent order numbers. Each costs a claim, an inquiry and up to five questions,
none of which is ever needed again. An order is removed only where it has no row (so it was neither announced nor the
subject of a trusted claim), its inquiry has ended as not found, no claim came since, and nobody has made a proposal
about it. A later claim about it opens a new inquiry within the merchant's share for doubts, as with any invented
number. Why and how: `docs/decisions/0007-two-due-times-per-inquiry.md`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, Table, delete, select, tuple_, update

from service.domain.claims import OrderKey, Trust
from service.ledger import orders
from service.ledger.database import read, wait_at_most, write
from service.ledger.errors import LedgerContended
from service.ledger.inquiries import InquiryState
from service.ledger.tables import about_order, asked_questions, claims, inquiries, inquiry_rates, proposals

# The number of orders that are looked up at once; each is then removed in its own transaction.
_LOOKED_UP_AT_ONCE = 100
# The number of an order's claims that are removed in one transaction: anyone can make any number of them.
_REMOVED_AT_ONCE = 1000
# Other work on such an order takes precedence.
_LOCK_MILLISECONDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The numbers of orders and claims that were removed."""

    orders: int = 0
    claims: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(orders=self.orders + other.orders, claims=self.claims + other.claims)


class Forgeries:
    """Forged orders of every merchant. Safe to share between threads; any number of processes may remove at once.

    Each transaction is short, concerns one order, and gives way to other work on that order.
    """

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def remove(
        self, *, before: datetime, max_kept: int | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Removed:
        """Remove orders that have been forged ones since before then and, per merchant, the oldest beyond `max_kept`.

        A `max_kept` of None keeps any number. May be stopped at any point; `stop` is called between two orders. Raises
        LedgerUnavailable.
        """
        removed = Removed()
        for merchant in read(self._engine, _asked_merchants):
            while keys := self._find(merchant, before, max_kept):
                progress = False
                for key in keys:
                    if stop():
                        return removed
                    done = self._remove(key)
                    progress |= done is not None
                    removed += done or Removed()
                if not progress:
                    break  # other processes work on all of them
        return removed

    def _find(self, merchant: str, before: datetime, max_kept: int | None) -> Sequence[OrderKey]:
        return read(self._engine, lambda connection: _find(connection, merchant, before, max_kept))

    def _remove(self, key: OrderKey) -> Removed | None:
        try:
            return write(self._engine, lambda connection: _remove(connection, key))
        except LedgerContended:
            return None


def _asked_merchants(connection: Connection) -> Sequence[str]:
    """Every merchant whose gateway was ever asked, including those that are no longer configured."""
    return connection.execute(select(inquiry_rates.c.merchant).order_by(inquiry_rates.c.merchant)).scalars().all()


def _find(connection: Connection, merchant: str, before: datetime, max_kept: int | None) -> Sequence[OrderKey]:
    since = inquiries.c.unknown_since
    of_merchant = (inquiries.c.merchant == merchant) & since.is_not(None)
    is_due = since < before
    if max_kept is not None:
        newest_too_many = select(since).where(of_merchant).order_by(since.desc()).offset(max_kept).limit(1)
        until = connection.execute(newest_too_many).scalar_one_or_none()
        if until is not None and until >= before:
            is_due = since <= until
    found = select(inquiries.c.biz_order_no).where(of_merchant, is_due).order_by(since).limit(_LOOKED_UP_AT_ONCE)
    return [OrderKey(merchant, biz_order_no) for biz_order_no in connection.execute(found).scalars()]


def _remove(connection: Connection, key: OrderKey) -> Removed | None:
    """Remove the order, or a part of it; None where another process works on it."""
    wait_at_most(connection, milliseconds=_LOCK_MILLISECONDS)
    # Orders are always locked before inquiries. From here on nobody can announce it, and no claim about it can count.
    if not orders.hold_absent(connection, key):
        return _keep(connection, key)
    removed = _remove_held(connection, key)
    orders.release_absent(connection, key)
    return removed


def _remove_held(connection: Connection, key: OrderKey) -> Removed | None:
    """Remove an order that has no row and cannot get one meanwhile."""
    own = about_order(inquiries, key) & (inquiries.c.state == InquiryState.NOT_FOUND.value)
    since = connection.execute(
        select(inquiries.c.unknown_since)
        .where(own, inquiries.c.unknown_since.is_not(None))
        .with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if since is None:
        return None
    if _is_proven(connection, key) or _any_row(connection, proposals, key):
        return _keep(connection, key)
    last = select(claims.c.recorded_at).where(about_order(claims, key)).order_by(claims.c.id.desc()).limit(1)
    last_said = connection.execute(last).scalar_one_or_none()
    if last_said is not None and last_said > since:
        connection.execute(update(inquiries).where(own).values(unknown_since=last_said))
        return Removed()
    removed = _remove_rows(connection, claims, key)
    _remove_rows(connection, asked_questions, key)
    if _any_row(connection, claims, key) or _any_row(connection, asked_questions, key):
        return Removed(claims=removed)
    connection.execute(delete(inquiries).where(own))
    return Removed(orders=1, claims=removed)


def _keep(connection: Connection, key: OrderKey) -> Removed | None:
    """Mark the order as not forged, so that it is not looked at again."""
    own = select(*inquiries.primary_key).where(about_order(inquiries, key)).with_for_update(skip_locked=True)
    kept = update(inquiries).where(tuple_(*inquiries.primary_key).in_(own)).values(unknown_since=None)
    return Removed() if connection.execute(kept).rowcount else None


def _is_proven(connection: Connection, key: OrderKey) -> bool:
    """Whether there is a claim of proven origin, although it could not be read or was not trusted enough."""
    proven = select(claims.c.id).where(about_order(claims, key), claims.c.trust > int(Trust.CHECKSUM)).limit(1)
    return connection.execute(proven).first() is not None


def _remove_rows(connection: Connection, table: Table, key: OrderKey) -> int:
    identity = tuple(table.primary_key)
    some = select(*identity).where(about_order(table, key)).limit(_REMOVED_AT_ONCE).with_for_update(skip_locked=True)
    return connection.execute(delete(table).where(tuple_(*identity).in_(some))).rowcount


def _any_row(connection: Connection, table: Table, key: OrderKey) -> bool:
    return connection.execute(select(*table.primary_key).where(about_order(table, key)).limit(1)).first() is not None
