"""Refused withholds: their orders end by the merchants' rules, unless anything speaks against it.

A merchant's rules are suspended while there is reason to doubt its gateway's "not found". The reasons for all of this:
`docs/decisions/0018-refused-withholds-end-by-rule.md`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from service.domain.claims import Claim, ClaimSource, OrderKey, OrderStatus, Trust
from service.domain.refused_withholds import RefusalRule, RefusalRules, claim_from_rule
from service.ledger import orders
from service.ledger.inquiry_limits import lock_rate
from service.ledger.inquiry_questions import is_in_other_spelling, not_found_times
from service.ledger.tables import about_order, about_same_order, claims, inquiries, withholds
from service.ledger.tables import orders as orders_table

#: How long a rule stays suspended after one of its ends was corrected.
SUSPENDED_AFTER_CORRECTION = timedelta(days=1)
#: How long a refused withhold is watched for claims that contradict the refusal. Inquiries mostly end before.
WATCHED_FOR = timedelta(days=30)

#: Whether a claim, believed or not, shows that the gateway has the order, or may have it.
CONTRADICTS_REFUSAL = or_(
    claims.c.status.is_(None),
    claims.c.status != OrderStatus.FAILED.value,
    claims.c.source == ClaimSource.QUERY.value,
)

#: Whether no person has decided the status of an order.
NOT_BY_OPERATOR = or_(orders_table.c.trust.is_(None), orders_table.c.trust < int(Trust.OPERATOR))


class Suspension(StrEnum):
    """Why a merchant's rules end no order at present."""

    #: The gateway does not have an order that it accepted, or that it said was processing or succeeded.
    MISSING_ORDER = "missing-order"
    #: An order that a rule had ended was paid after all.
    CORRECTION = "correction"
    #: The rules have ended as many orders in the last hour as they may, and others wait.
    MAX_PER_HOUR = "max-per-hour"


class RefusedWithholds:
    """Ends orders by the rules that merchants have switched on. Safe to share between threads."""

    def __init__(self, *, rules: Mapping[str, RefusalRules], apply: Callable[[Connection, Claim], object]) -> None:
        """`rules` of each merchant that has some on. `apply` records a claim in the transaction that it is given."""
        self._rules = rules
        self._apply = apply

    def has_rules(self, merchant: str) -> bool:
        """Whether the merchant has rules on."""
        return merchant in self._rules

    def values_of_refusal(self, merchant: str, message: str, *, refused_at: datetime) -> Mapping[str, Any]:
        """The columns of a withhold that the gateway answered with -1 and `message` (unmasked)."""
        rules = self._rules.get(merchant)
        rule = None if rules is None else rules.choose(message)
        if rules is None or rule is None:
            return {"refused_at": refused_at}
        wait = timedelta() if rule is RefusalRule.MESSAGE else rules.usual_duration
        return {"refused_at": refused_at, "rule": rule.value, "rule_due_at": refused_at + wait}

    def end_if_due(self, connection: Connection, order: OrderKey, *, now: datetime) -> RefusalRule | None:
        """End the order if its withhold was refused and a rule says so; the rule that ended it.

        It stays open if anybody has said that the gateway has it, and waits while the rules are suspended: call this
        again after each question. Call it before the order's inquiry is locked. It costs one query where no withhold
        was refused, and nothing where the merchant has no rules on.
        """
        rules = self._rules.get(order.merchant)
        if rules is None:
            return None
        refused = about_order(withholds, order) & withholds.c.refused_at.is_not(None) & withholds.c.ended_at.is_(None)
        row = connection.execute(select(withholds).where(refused)).one_or_none()
        rule = None if row is None else _find_due_rule(connection, order, row, rules)
        if rule is None:
            return None
        # Claims about the order wait for this lock, and leases of inquiries for the next one.
        known = orders.lock(connection, [order])[order]
        if known.state.trust is not None or known.state.conflicted or _is_contradicted(connection, order):
            return None
        lock_rate(connection, order.merchant)
        own = update(withholds).where(refused)
        if _is_suspended(connection, order.merchant, rules, now):
            is_later = or_(withholds.c.rule_due_at.is_(None), withholds.c.rule_due_at > now)
            connection.execute(own.where(is_later).values(rule=rule.value, rule_due_at=now))
            return None
        self._apply(connection, claim_from_rule(order, rule, reason=rules.explain(rule), stated_at=now))
        connection.execute(own.values(rule=rule.value, ended_at=now))
        return rule

    def count_suspensions(self, connection: Connection, *, now: datetime) -> Mapping[tuple[str, str], float]:
        """By merchant and `Suspension`: how many orders are the reason for it or, at the limit, wait; 0 for none."""
        return {
            (merchant, suspension.value): count
            for merchant, rules in self._rules.items()
            for suspension, count in {
                Suspension.MISSING_ORDER: _count_missing(connection, merchant),
                Suspension.CORRECTION: _count_corrected(connection, merchant, now),
                Suspension.MAX_PER_HOUR: _count_waiting(connection, merchant, now)
                if _count_ended(connection, merchant, now) >= rules.max_per_hour
                else 0,
            }.items()
        }


def _find_due_rule(
    connection: Connection, order: OrderKey, withhold: Row[Any], rules: RefusalRules
) -> RefusalRule | None:
    if withhold.rule == RefusalRule.MESSAGE and rules.messages:
        return RefusalRule.MESSAGE
    if rules.not_found_times is None:
        return None
    is_absent = rules.is_absent(refused_at=withhold.refused_at, not_found_at=not_found_times(connection, order))
    return RefusalRule.NOT_FOUND if is_absent else None


def _is_contradicted(connection: Connection, order: OrderKey) -> bool:
    if is_in_other_spelling(connection, order):
        return True
    about = about_order(claims, order)
    return connection.execute(select(claims.c.id).where(about, CONTRADICTS_REFUSAL).limit(1)).first() is not None


def _is_suspended(connection: Connection, merchant: str, rules: RefusalRules, now: datetime) -> bool:
    return bool(
        _count_ended(connection, merchant, now) >= rules.max_per_hour
        or _count_missing(connection, merchant)
        or _count_corrected(connection, merchant, now)
    )


def _count_ended(connection: Connection, merchant: str, now: datetime) -> int:
    """How many orders of the merchant its rules have ended in the last hour."""
    ended = withholds.c.ended_at > now - timedelta(hours=1)
    return _count(connection, select(func.count()).where(withholds.c.merchant == merchant, ended))


def _count_missing(connection: Connection, merchant: str) -> int:
    """How many orders of the merchant its gateway does not have although it must; what a person settled is left out."""
    missing = select(func.count()).select_from(inquiries).join(orders_table, about_same_order(inquiries))
    return _count(
        connection,
        missing.where(inquiries.c.merchant == merchant, inquiries.c.missing_since.is_not(None), NOT_BY_OPERATOR),
    )


def _count_corrected(connection: Connection, merchant: str, now: datetime) -> int:
    """How many orders of the merchant a rule ended and somebody has said are paid, lately."""
    corrected = (
        withholds.c.ended_at.is_not(None)
        & (orders_table.c.status == OrderStatus.SUCCEEDED.value)
        & (orders_table.c.updated_at > now - SUSPENDED_AFTER_CORRECTION)
    )
    return _count(connection, _count_refused(merchant).where(corrected, withholds.c.ended_at > now - WATCHED_FOR))


def _count_waiting(connection: Connection, merchant: str, now: datetime) -> int:
    """How many orders of the merchant its rules would have ended by now."""
    waits = withholds.c.ended_at.is_(None) & (withholds.c.rule_due_at <= now) & orders_table.c.trust.is_(None)
    recent = withholds.c.rule.is_not(None) & (withholds.c.refused_at > now - WATCHED_FOR)
    return _count(connection, _count_refused(merchant).where(waits, recent))


def _count_refused(merchant: str) -> Any:
    query = select(func.count()).select_from(withholds).join(orders_table, about_same_order(withholds))
    return query.where(withholds.c.merchant == merchant)


def _count(connection: Connection, query: Any) -> int:
    return int(connection.execute(query).scalar_one())
