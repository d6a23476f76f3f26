from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.demo.downstream import ReceivedEvent
from service.demo.evidence import Evidence, Falsehood, Statement
from service.demo.report import measure
from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import OrderState, Verdict
from service.ledger.claims import ClaimRecord
from service.ledger.histories import OrderHistory
from service.ledger.orders import OrderRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAID = Statement(OrderStatus.SUCCEEDED, "SB1")
UNPAID = Statement(OrderStatus.FAILED, "SB1")
FORGERY = Falsehood(biz_order_no="D1", statement=UNPAID)
LIE = Falsehood(biz_order_no="D1", statement=UNPAID)


def event(
    type_: Any = EventType.SUCCEEDED,
    *,
    sequence: int = 1,
    status: Any = OrderStatus.SUCCEEDED,
    pay_order_no: str = "SB1",
) -> ReceivedEvent:
    return ReceivedEvent(
        id=f"demo/D1/{sequence}",
        type=type_,
        biz_order_no="D1",
        sequence=sequence,
        status=status,
        pay_order_no=pay_order_no,
        amount="10.00",
    )


def claim(
    verdict: Any,
    *,
    status: Any = OrderStatus.FAILED,
    pay_order_no: str = "SB1",
    trust: Any = Trust.CHECKSUM,
    source: Any = ClaimSource.CALLBACK,
) -> ClaimRecord:
    return ClaimRecord(
        verdict=verdict,
        trust=trust,
        source=source,
        status=status,
        pay_order_no=pay_order_no,
        order_type="single_withhold",
        pay_type="demo_001",
        amount=None,
        amount_unit=None,
        paid_at=None,
        channel_response="",
        unknown_fields={},
        missing_fields=(),
        stated_at=NOW,
        recorded_at=NOW,
        quarantine=None,
        stated_by="",
        reason="",
    )


def history(
    *claims: Any, status: Any = OrderStatus.SUCCEEDED, pay_order_no: str = "SB1", conflicted: bool = False
) -> OrderHistory:
    state = OrderState(status=status, pay_order_no=pay_order_no, conflicted=conflicted)
    order = OrderRecord(merchant="demo", biz_order_no="D1", state=state, created_at=NOW, updated_at=NOW)
    return OrderHistory(order=order, claims=claims, events=(), inquiry=None, questions=())


def answer(verdict: Any = Verdict.APPLIED, *, status: Any = OrderStatus.SUCCEEDED) -> Any:
    return claim(verdict, status=status, trust=Trust.QUERIED, source=ClaimSource.QUERY)


def callback(verdict: Any = Verdict.UNTRUSTED, *, trust: Any = Trust.CAPABILITY) -> Any:
    return claim(verdict, status=OrderStatus.SUCCEEDED, trust=trust)


def evidence(**changes: Any) -> Evidence:
    good = {
        "order_nos": ["D1"],
        "truths": {"D1": PAID},
        "events": [event()],
        "histories": {"D1": history()},
        "forgeries": [FORGERY],
        "lies": [],
    }
    return Evidence(**{**good, **changes})


def test_nothing_is_wrong_if_shop_ledger_and_gateway_agree() -> None:
    found = evidence()
    assert (found.wrong_orders(), found.missing_orders(), found.orders_with_several_terminal_events()) == ([], [], [])
    assert found.believed_forgeries() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"truths": {}},
        {"truths": {"D1": UNPAID}},
        {"events": []},
        {"events": [event(EventType.FAILED, status=OrderStatus.FAILED)]},
        {"events": [event(pay_order_no="FORGED1")]},
        {"events": [event(EventType.PROCESSING, status=OrderStatus.PROCESSING)]},
        {"histories": {}},
        {"histories": {"D1": history(status=OrderStatus.FAILED)}},
        {"histories": {"D1": history(pay_order_no="FORGED1")}},
    ],
)
def test_an_order_is_wrong_where_shop_ledger_or_gateway_differ(changes: Any) -> None:
    assert evidence(**changes).wrong_orders() == ["D1"]


def test_the_last_event_counts_in_whatever_order_they_arrived() -> None:
    processing = event(EventType.PROCESSING, sequence=1, status=OrderStatus.PROCESSING)
    assert evidence(events=[event(sequence=2), processing]).wrong_orders() == []


def test_an_order_without_a_terminal_event_is_missing() -> None:
    processing = event(EventType.PROCESSING, status=OrderStatus.PROCESSING)
    assert evidence(events=[processing]).missing_orders() == ["D1"]


def test_two_terminal_events_of_an_order_are_reported() -> None:
    assert evidence(events=[event(sequence=1), event(sequence=2)]).orders_with_several_terminal_events() == ["D1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"events": [event(EventType.FAILED, status=OrderStatus.FAILED), event(sequence=2)]},
        {"histories": {"D1": history(status=OrderStatus.FAILED)}},
        {"histories": {"D1": history(claim(Verdict.APPLIED))}},
        {"histories": {"D1": history(claim(Verdict.CONFLICT))}},
    ],
)
def test_a_forgery_is_believed_if_it_changed_something(changes: Any) -> None:
    assert evidence(**changes).believed_forgeries() == [FORGERY]


def test_a_forgery_that_was_only_recorded_is_not_believed() -> None:
    assert evidence(histories={"D1": history(claim(Verdict.UNTRUSTED))}).believed_forgeries() == []


def test_a_false_callback_is_believed_if_it_changed_something() -> None:
    believed = {"D1": history(claim(Verdict.APPLIED, trust=Trust.CAPABILITY))}
    written_down = {"D1": history(claim(Verdict.UNTRUSTED, trust=Trust.CAPABILITY))}
    assert evidence(lies=[LIE, LIE], histories=believed).orders_believed_lied() == ["D1"]
    assert evidence(lies=[LIE], histories=written_down).orders_believed_lied() == []


def test_a_refused_forgery_does_not_count_for_a_false_callback_of_the_gateway() -> None:
    believed = {"D1": history(claim(Verdict.APPLIED, trust=Trust.CAPABILITY))}
    refused = replace(FORGERY, refused=True)
    assert evidence(forgeries=[refused], lies=[LIE], histories=believed).believed_forgeries() == []
    assert evidence(forgeries=[FORGERY], lies=[LIE], histories=believed).believed_forgeries() == [FORGERY]
    assert evidence(forgeries=[refused], lies=[], histories=believed).believed_forgeries() == [refused]


@pytest.mark.parametrize(
    ("claims", "silent"),
    [
        ([], True),
        ([answer()], True),
        ([callback(trust=Trust.CHECKSUM), answer()], True),
        ([callback()], False),
        ([callback(), answer()], False),
    ],
)
def test_an_order_has_no_callback_unless_one_came_on_its_own_address(claims: Any, silent: bool) -> None:
    assert evidence(histories={"D1": history(*claims)}).orders_without_callback() == (["D1"] if silent else [])


@pytest.mark.parametrize(
    ("changes", "recovered"),
    [
        ({}, True),
        ({"histories": {"D1": history(answer(), callback())}}, False),
        ({"histories": {"D1": history()}}, False),
        ({"histories": {"D1": history(answer(status=OrderStatus.PROCESSING))}}, False),
        ({"histories": {"D1": history(answer(Verdict.STALE))}}, False),
        ({"truths": {"D1": UNPAID}}, False),
        ({"events": []}, False),
    ],
)
def test_an_order_is_recovered_if_an_answer_alone_settled_it(changes: Any, recovered: bool) -> None:
    asked = {"histories": {"D1": history(answer())}}
    assert evidence(**{**asked, **changes}).recovered_orders() == (["D1"] if recovered else [])


@pytest.mark.parametrize(
    ("histories", "is_open"),
    [
        ({"D1": history()}, False),
        ({"D1": history(status=OrderStatus.PROCESSING)}, True),
        ({"D1": history(conflicted=True)}, True),
        ({}, True),
    ],
)
def test_an_order_is_open_until_the_ledger_has_settled_it(histories: Any, is_open: bool) -> None:
    assert evidence(histories=histories).open_orders() == (["D1"] if is_open else [])


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"events": []}, False),
        ({"histories": {"D1": history(claim(Verdict.APPLIED))}}, False),
        ({"histories": {"D1": history(conflicted=True)}}, False),
    ],
)
def test_the_report_is_good_only_if_every_figure_is(changes: Any, good: bool) -> None:
    counts = Counter({"callbacks_sent": 1, "acknowledged": 1})
    report = measure(evidence(**changes), counts, unknown=0, repeated=0, unsigned=0, seconds=1.0)
    assert report.good is good
