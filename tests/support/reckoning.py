"""The account at the end of a disaster: what was promised against what has arrived."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.support.downstream import Downstream, ReceivedEvent
from tests.support.gateway_sender import Callback
from tests.support.ledger_view import ClaimKey, LedgerView
from tests.support.waiting import eventually

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
    for biz_order_no, events in first_arrivals(downstream, prefix).items():
        terminal = [event.id for event in events if event.type in TERMINAL]
        assert len(terminal) <= 1, f"{biz_order_no} has more than one terminal event: {terminal}"
        sequences = [event.sequence for event in events]
        assert sequences == list(range(1, len(events) + 1)), f"{biz_order_no} came in the order {sequences}"


def first_arrivals(downstream: Downstream, prefix: str) -> dict[str, list[ReceivedEvent]]:
    """By order number: each event once, in the order in which it came first."""
    found: dict[str, dict[str, ReceivedEvent]] = defaultdict(dict)
    for event in downstream.received:
        if event.biz_order_no.startswith(prefix):
            found[event.biz_order_no].setdefault(event.id, event)
    return {biz_order_no: list(events.values()) for biz_order_no, events in found.items()}


def claim_key(callback: Callback) -> ClaimKey:
    """What the ledger makes of a callback."""
    return ClaimKey(callback.merchant, callback.biz_order_no, _STATUSES.get(callback.pay_status))
