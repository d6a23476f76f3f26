"""Orders and their histories as tables, for people."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.ledger.asked_questions import AskedQuestion
from service.ledger.claim_rows import ClaimRecord
from service.ledger.histories import OrderHistory
from service.ledger.inquiries import InquiryReason, InquiryRecord
from service.ledger.orders import OrderRecord
from service.masking import mask_personal

# Where nobody looks at it, it may be as wide as it needs.
_WIDTH_OF_A_PIPE = 240


def show_orders(records: Sequence[OrderRecord]) -> None:
    """Print a line per order."""
    table = _table("", "merchant", "biz_order_no", "status", "trust", "amount", "pay_order_no", "updated")
    for record in records:
        amount = f"{record.amount} {record.amount_unit}" if record.amount else ""
        _add(
            table,
            record.merchant,
            record.biz_order_no,
            _status(record),
            _trust(record),
            amount,
            record.state.pay_order_no or "",
            _time(record.updated_at),
        )
    _console().print(table)


def show_history(history: OrderHistory) -> None:
    """Print everything around one order, personal data masked."""
    console = _console()
    if history.order is None:
        console.print("Nobody who is believed has spoken of it; it has no status.")
    else:
        console.print(_order(history.order))
    if (sent := history.withhold) is not None:
        table = _table("Sent from here", "sent", "by", "outcome", "known", "requestId", "detail")
        known = _time(sent.settled_at)
        _add(table, _time(sent.sent_at), sent.sent_by, sent.outcome.value, known, sent.request_id, sent.detail)
        console.print(table)
    console.print(_claims(history.claims))
    if history.inquiry is not None:
        console.print(_inquiry(history.inquiry))
    if history.questions:
        console.print(_questions(history.questions))
    console.print(_events(history))


def _order(record: OrderRecord) -> Table:
    table = _table(
        "Order", "merchant", "biz_order_no", "status", "trust", "amount", "pay_order_no", "paid", "announced"
    )
    amount = f"{record.amount} {record.amount_unit}" if record.amount else ""
    _add(
        table,
        record.merchant,
        record.biz_order_no,
        _status(record),
        _trust(record),
        amount,
        record.state.pay_order_no or "",
        _time(record.paid_at),
        _time(record.announced_at),
    )
    return table


def _claims(records: Iterable[ClaimRecord]) -> Table:
    table = _table("Claims", "stated", "source", "trust", "status", "outcome", "pay_order_no", "says")
    for claim in records:
        words = [claim.quarantine or "", claim.channel_response]
        if claim.stated_by:
            words += [f"{claim.stated_by}: {claim.reason}"]
        _add(
            table,
            _time(claim.stated_at),
            claim.source.value,
            claim.trust.word,
            claim.status.value if claim.status else "?",
            claim.verdict.value,
            claim.pay_order_no or "",
            "; ".join(word for word in words if word),
        )
    return table


def _inquiry(record: InquiryRecord) -> Table:
    table = _table("Inquiry", "opened", "state", "reasons", "asked", "last", "due", "given up")
    _add(
        table,
        _time(record.opened_at),
        record.state.value,
        _reasons(record.reasons),
        str(record.attempts),
        _time(record.last_asked_at),
        _time(record.due_at),
        _time(record.horizon_at),
    )
    return table


def _questions(asked: Iterable[AskedQuestion]) -> Table:
    table = _table("Questions", "asked", "reasons", "outcome", "seconds", "requestId", "detail")
    for question in asked:
        _add(
            table,
            _time(question.asked_at),
            _reasons(question.reasons),
            question.outcome.value if question.outcome else "",
            "" if question.seconds is None else f"{question.seconds:.3f}",
            question.request_id,
            question.detail,
        )
    return table


def _events(history: OrderHistory) -> Table:
    table = _table("Events", "made", "no", "type", "endpoint", "state", "tries", "settled", "last error")
    for event in history.events:
        made = (_time(event.created_at), str(event.sequence), event.type.value)
        if not event.deliveries:
            _add(table, *made, "nobody wants it")
        for delivery in event.deliveries:
            settled = _time(delivery.settled_at)
            _add(table, *made, delivery.endpoint, delivery.state, str(delivery.attempts), settled, delivery.last_error)
    return table


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    # As plain text: it is partly the gateway's, which must move no cursor and mark nothing up.
    table.add_row(*(Text("".join(c if c.isprintable() else "·" for c in mask_personal(cell))) for cell in cells))


def _status(record: OrderRecord) -> str:
    return f"{record.state.status.value}{' (conflicted)' if record.state.conflicted else ''}"


def _trust(record: OrderRecord) -> str:
    return "" if record.state.trust is None else record.state.trust.word


def _reasons(reasons: InquiryReason) -> str:
    return ", ".join(reason.name.lower() for reason in reasons if reason.name)


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}Z"
