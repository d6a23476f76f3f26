"""What the gateway says of an order, as a `Claim`: its spellings end here.

The document has the spellings; what it leaves open (time format, unknown words) is decided in favour of hearing of a
payment: only a callback whose order cannot be told is refused, and what cannot be understood waits for a person.
"""

from collections.abc import Collection
from datetime import datetime, tzinfo

import structlog

from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.masking import mask_unknown_word
from service.gateway.digests import digest_statement
from service.gateway.errors import CallbackRefused, MessageInvalid, Problem, Refusal
from service.gateway.messages import OrderAnswer, OrderStatement
from service.gateway.pay_times import read_pay_time
from service.gateway.schemas import CALLBACK
from service.gateway.signature import VerifiedCallback

_log = structlog.get_logger(__name__)

#: The gateway's `pay_status` (document: 3, 4, 5). `wait_pay` comes from queries only, and is taken anywhere.
STATUSES = {
    "success": OrderStatus.SUCCEEDED,
    "fail": OrderStatus.FAILED,
    "initial": OrderStatus.INITIAL,
    "pending": OrderStatus.PROCESSING,
    "wait_pay": OrderStatus.PROCESSING,
}
#: The gateway's `order_type`s (document: 5). Answers to queries have none.
ORDER_TYPES = frozenset({"single_withhold"})

_LONGEST_QUOTE = 40


def claim_from_callback(
    verified: VerifiedCallback,
    *,
    merchant: str,
    pay_types: Collection[str],
    time_zone: tzinfo,
    trust: Trust,
    received_at: datetime,
    traceparent: str | None,
) -> Claim:
    """What a callback says, as far as `trust` goes.

    `pay_types` are the merchant's, `time_zone` is that of the gateway's `pay_time`, `received_at` is aware. Raises
    `CallbackRefused` where a field that is needed is missing or the order number is none.
    """
    try:
        statement = CALLBACK.read(verified.fields)
    except MessageInvalid as error:
        absent = any(problem.field not in verified.fields for problem in error.problems)
        raise CallbackRefused(Refusal.MISSING_FIELD if absent else Refusal.INVALID_FIELD, str(error)) from error
    return _make_claim(
        statement,
        merchant=merchant,
        pay_types=pay_types,
        time_zone=time_zone,
        trust=trust,
        source=ClaimSource.CALLBACK,
        stated_at=received_at,
        traceparent=traceparent,
    )


def claim_from_query(
    answer: OrderAnswer,
    *,
    biz_order_no: str,
    merchant: str,
    pay_types: Collection[str],
    time_zone: tzinfo,
    asked_at: datetime,
    traceparent: str | None,
) -> Claim:
    """What the gateway answered when it was asked for `biz_order_no` at `asked_at` (aware; when asked, not answered).

    Raises `MessageInvalid` for an answer that says nothing of an order, or speaks of another one: that is no answer.
    """
    if answer.order is None:
        raise MessageInvalid("answer about an order", (Problem("response", "empty; needed is an order"),))
    if answer.order.biz_order_no != biz_order_no:
        problem = Problem("response.biz_order_no", "another order's; allowed is the one that was asked for")
        raise MessageInvalid("answer about an order", (problem,))
    return _make_claim(
        answer.order,
        merchant=merchant,
        pay_types=pay_types,
        time_zone=time_zone,
        trust=Trust.QUERIED,
        source=ClaimSource.QUERY,
        stated_at=asked_at,
        traceparent=traceparent,
    )


def _make_claim(
    statement: OrderStatement,
    *,
    merchant: str,
    pay_types: Collection[str],
    time_zone: tzinfo,
    trust: Trust,
    source: ClaimSource,
    stated_at: datetime,
    traceparent: str | None,
) -> Claim:
    status = STATUSES.get(statement.pay_status)
    paid_at = None
    if status is OrderStatus.SUCCEEDED and statement.pay_time:
        # Whatever other statuses say here is no time at which money moved.
        paid_at = read_pay_time(statement.pay_time, time_zone)
        if paid_at is None:
            _log.warning("pay_time_not_understood", merchant=merchant, characters=len(statement.pay_time))
    return Claim(
        merchant=merchant,
        biz_order_no=statement.biz_order_no,
        trust=trust,
        source=source,
        status=status,
        pay_order_no=statement.pay_order_no or None,
        order_type=statement.order_type,
        pay_type=statement.pay_type,
        paid_at=paid_at,
        channel_response=statement.channel_response,
        stated_at=stated_at,
        digest=digest_statement(statement, status=status, time_zone=time_zone),
        quarantine=_find_quarantine(statement, status, pay_types, from_stranger=trust is Trust.CHECKSUM),
        unknown_fields=statement.unknown_fields,
        missing_fields=statement.missing_fields,
        traceparent=traceparent,
    )


def _find_quarantine(
    statement: OrderStatement, status: OrderStatus | None, pay_types: Collection[str], *, from_stranger: bool
) -> str | None:
    # Masked here, since it goes into logs, reports and tables.
    def quote(word: str) -> str:
        shown = mask_unknown_word(word, from_stranger=from_stranger)
        return repr(shown if len(shown) <= _LONGEST_QUOTE else f"{shown[:_LONGEST_QUOTE]}…")

    reasons = []
    if status is None:
        reasons.append(f"unknown pay_status {quote(statement.pay_status)}")
    if statement.order_type and statement.order_type not in ORDER_TYPES:
        reasons.append(f"unknown order_type {quote(statement.order_type)}")
    if statement.pay_type and statement.pay_type not in pay_types:
        reasons.append(f"pay_type {quote(statement.pay_type)} is not this merchant's")
    return "; ".join(reasons) or None
