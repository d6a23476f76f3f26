"""Orders and their histories as tables, for people."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from service.cli.tables import add_row, make_console, make_table, time_text
from service.ledger.attention import AttentionItem
from service.ledger.claims import ClaimRecord
from service.ledger.histories import OrderHistory
from service.ledger.inquiries import InquiryReason, InquiryRecord
from service.ledger.inquiry_questions import AskedQuestion
from service.ledger.orders import OrderRecord
from service.ledger.proposals import ProposalRecord


def show_orders(records: Sequence[OrderRecord]) -> None:
    """Print a line per order."""
    table = make_table("", "merchant", "biz_order_no", "status", "trust", "amount", "pay_order_no", "updated")
    for record in records:
        add_row(
            table,
            record.merchant,
            record.biz_order_no,
            _status(record),
            _trust(record),
            _amount(record),
            record.state.pay_order_no or "",
            time_text(record.updated_at),
        )
    make_console().print(table)


def show_attention(items: Sequence[AttentionItem], *, title: str = "") -> None:
    """Print a line per item that waits for a person."""
    table = make_table(title, "item", "since", "amount", "cause", "detail", "acknowledged", "next step")
    for item in items:
        amount = f"{item.amount} {item.amount_unit}" if item.amount else ""
        acknowledged = f"{item.acknowledged_by}: {item.note}" if item.acknowledged_at else ""
        detail = item.detail
        if item.orders > 1:
            detail += f": {item.orders} orders"
        elif item.events > 1:
            detail += f": {item.events} events"
        add_row(table, item.id, time_text(item.since), amount, item.cause, detail, acknowledged, item.next_step)
    make_console().print(table)


def show_proposals(records: Sequence[ProposalRecord]) -> None:
    """Print a line per proposal."""
    table = make_table(
        *("Proposals", "no", "proposed", "by", "status", "amount", "pay_type", "pay_order_no", "paid", "reason"),
        *("sequence", "state", "decided", "by"),
    )
    for record in records:
        add_row(
            table,
            str(record.id),
            time_text(record.proposed_at),
            record.proposed_by,
            record.status.value,
            _amount(record),
            record.pay_type,
            record.pay_order_no or "",
            time_text(record.paid_at),
            record.reason,
            str(record.sequence),
            record.state.value,
            time_text(record.decided_at),
            ": ".join(word for word in (record.decided_by, record.decision_reason) if word),
        )
    make_console().print(table)


def show_history(history: OrderHistory) -> None:
    """Print everything around one order, personal data masked."""
    console = make_console()
    if history.order is None:
        console.print("It has no status: no trusted claim names it.")
    else:
        console.print(_order(history.order))
        if history.order.state.conflicted:
            console.print(_disputed(history.order))
    if (sent := history.withhold) is not None:
        table = make_table("Sent from here", "sent", "by", "outcome", "known", "ended by rule", "requestId", "detail")
        times = time_text(sent.settled_at), time_text(sent.ended_at)
        add_row(table, time_text(sent.sent_at), sent.sent_by, sent.outcome.value, *times, sent.request_id, sent.detail)
        console.print(table)
    console.print(_claims(history.claims))
    if history.claims_left_out:
        console.print(f"{history.claims_left_out} older claims that never counted are left out.")
    if history.proposals:
        show_proposals(history.proposals)
    if history.inquiry is not None:
        console.print(_inquiry(history.inquiry))
    if history.questions:
        console.print(_questions(history.questions))
    console.print(_events(history))


def _order(record: OrderRecord) -> Table:
    table = make_table(
        "Order",
        "merchant",
        "biz_order_no",
        "status",
        "trust",
        "amount",
        "pay_type",
        "pay_order_no",
        "paid",
        "announced",
        "sequence",
    )
    announced = [time_text(record.announced_at)]
    # What was asked for, where the order has something else now.
    if record.state.announced_pay_type not in ("", record.state.pay_type):
        announced.append(record.state.announced_pay_type)
    if record.announced_amount not in (None, record.amount):
        announced.append(f"{record.announced_amount} {record.amount_unit}")
    add_row(
        table,
        record.merchant,
        record.biz_order_no,
        _status(record),
        _trust(record),
        _amount(record),
        record.state.pay_type,
        record.state.pay_order_no or "",
        time_text(record.paid_at),
        ", ".join(announced),
        str(record.sequence),
    )
    return table


def _disputed(record: OrderRecord) -> Table:
    table = make_table("In dispute", "field", "stands", "contradicted by")
    for field, values in record.state.disputed_values.items():
        add_row(table, field, values.stands, values.other)
    return table


def _claims(records: Iterable[ClaimRecord]) -> Table:
    table = make_table(
        "Claims", "stated", "source", "trust", "status", "outcome", "amount", "pay_type", "pay_order_no", "says"
    )
    for claim in records:
        words = [claim.quarantine or "", claim.channel_response]
        if claim.missing_fields:
            words += [f"without {', '.join(claim.missing_fields)}"]
        if claim.stated_by:
            words += [f"{claim.stated_by}: {claim.reason}"]
        add_row(
            table,
            time_text(claim.stated_at),
            claim.source.value,
            claim.trust.word,
            claim.status.value if claim.status else "?",
            claim.verdict.value,
            _amount(claim),
            # What nobody knows is masked in the quarantine's text.
            "" if claim.quarantine else claim.pay_type,
            claim.pay_order_no or "",
            "; ".join(word for word in words if word),
        )
    return table


def _inquiry(record: InquiryRecord) -> Table:
    table = make_table("Inquiry", "opened", "state", "reasons", "asked", "last", "due", "given up")
    add_row(
        table,
        time_text(record.opened_at),
        record.state.value,
        _reasons(record.reasons),
        str(record.attempts),
        time_text(record.last_asked_at),
        time_text(record.due_at),
        time_text(record.horizon_at),
    )
    return table


def _questions(asked: Iterable[AskedQuestion]) -> Table:
    table = make_table("Questions", "asked", "reasons", "outcome", "seconds", "requestId", "detail")
    for question in asked:
        add_row(
            table,
            time_text(question.asked_at),
            _reasons(question.reasons),
            question.outcome.value if question.outcome else "",
            "" if question.seconds is None else f"{question.seconds:.3f}",
            question.request_id,
            question.detail,
        )
    return table


def _events(history: OrderHistory) -> Table:
    table = make_table("Events", "made", "no", "type", "endpoint", "state", "tries", "settled", "last error")
    for event in history.events:
        made = (time_text(event.created_at), str(event.sequence), event.type.value)
        if not event.deliveries:
            add_row(table, *made, "no endpoint", *[""] * 4)
        for delivery in event.deliveries:
            settled = time_text(delivery.settled_at)
            add_row(
                table, *made, delivery.endpoint, delivery.state, str(delivery.attempts), settled, delivery.last_error
            )
    return table


def _status(record: OrderRecord) -> str:
    return f"{record.state.status.value}{' (conflicted)' if record.state.conflicted else ''}"


def _amount(record: OrderRecord | ClaimRecord | ProposalRecord) -> str:
    return f"{record.amount} {record.amount_unit}" if record.amount else ""


def _trust(record: OrderRecord) -> str:
    return "" if record.state.trust is None else record.state.trust.word


def _reasons(reasons: InquiryReason) -> str:
    return ", ".join(reason.name.lower() for reason in reasons if reason.name)
