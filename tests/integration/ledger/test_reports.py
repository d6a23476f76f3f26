"""A day's report: its counts, and how late events were made."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.attention import GROUPED_FROM, AttentionKind, AttentionList
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.reports import DayReport, Reports
from service.ledger.store import LedgerStore
from tests.support.claims import NOON, a_claim
from tests.support.ledger import MakeStore

DAY = timedelta(days=1)


@pytest.fixture
def reports(ledger_engine: Engine, clock: Callable[[], datetime]) -> Reports:
    return Reports(engine=ledger_engine, clock=lambda _: clock())


@pytest.fixture
def read(reports: Reports) -> Callable[..., DayReport]:
    return lambda: reports.read_day("acme", NOON.date(), time_zone=UTC)


def announce(store: LedgerStore, *numbers: str, amount: str | None = None) -> None:
    for number in numbers:
        unit = "yuan" if amount else None
        store.announce(Announcement(merchant="acme", biz_order_no=number, amount=amount, amount_unit=unit))


def test_a_day_without_orders_is_all_zeros(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    report = read()
    assert (report.orders, report.announced, report.still_open, report.conflicts) == (0, 0, 0, 0)
    assert (report.not_counted, report.refused, report.lags.median_seconds) == ({}, {}, None)


def test_orders_are_counted_by_how_far_they_have_come(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    announce(store, "DK1", "DK2", "DK3")
    store.record([a_claim(order="DK1"), a_claim(order="DK4", status=OrderStatus.PROCESSING)])
    store.record([a_claim(order="DK2", trust=Trust.QUERIED, status=OrderStatus.FAILED)])
    report = read()
    assert (report.orders, report.announced) == (4, 3)
    assert (report.called_back, report.answered) == (2, 1)
    assert report.still_open == 2


def test_a_conflict_counts_while_it_is_open_and_after(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    store.record([a_claim(), a_claim(OrderStatus.FAILED, minute=1)])
    assert (read().conflicts, read().still_open) == (1, 1)
    store.record([a_claim(trust=Trust.QUERIED, minute=2)])
    assert (read().conflicts, read().still_open) == (1, 0)


def test_a_conflict_that_an_announcement_opened_counts_after_it_is_settled(
    store: LedgerStore, read: Callable[[], DayReport], clock: Any
) -> None:
    store.record([a_claim(pay_type="kuaiqian_002")])
    clock.forward(60)
    store.announce(Announcement(merchant="acme", biz_order_no="DK1", pay_type="baofoo_001"))
    assert (read().conflicts, read().in_dispute) == (1, 1)
    store.record([a_claim(trust=Trust.QUERIED, minute=2, pay_type="kuaiqian_002")])
    assert (read().conflicts, read().in_dispute) == (1, 0)


def test_callbacks_that_changed_nothing_are_counted_by_why(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    store.record(
        [
            a_claim(trust=Trust.CHECKSUM),
            a_claim(trust=Trust.CHECKSUM, order="DK2"),
            a_claim(None, quarantine="unknown pay_status 'odd'"),
        ]
    )
    assert read().not_counted == {"untrusted": 2, "quarantined: unknown pay_status 'odd'": 1}


def test_reasons_that_a_forger_makes_up_do_not_flood_the_report(
    store: LedgerStore, read: Callable[[], DayReport]
) -> None:
    store.record([a_claim(None, order=f"DK{n}", quarantine=f"unknown pay_status '{n}'") for n in range(100)])
    reasons = read().not_counted
    assert len(reasons) == 21
    assert reasons["quarantined: other reasons"] == 80


def test_the_lag_is_from_the_gateways_pay_time_to_the_event(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    for number in range(1, 101):
        store.record([a_claim(order=f"DK{number}", paid_at=NOON - timedelta(seconds=number))])
    lags = read().lags
    assert (lags.median_seconds, lags.p99_seconds, lags.orders) == (50.0, 99.0, 100)


def test_orders_of_other_days_and_merchants_are_left_out(store: LedgerStore, ledger_engine: Engine) -> None:
    announce(store, "DK1")
    reports = Reports(engine=ledger_engine)
    assert reports.read_day("acme", NOON.date() - DAY, time_zone=UTC).orders == 0
    assert reports.read_day("other", NOON.date(), time_zone=UTC).orders == 0


def test_a_day_is_the_merchants_own(store: LedgerStore, ledger_engine: Engine, clock: Callable[..., object]) -> None:
    reports, shanghai = Reports(engine=ledger_engine), ZoneInfo("Asia/Shanghai")
    assert NOON.tzinfo is UTC
    clock.forward(4 * 3600)  # type: ignore[attr-defined]  # midnight there
    announce(store, "DK1")
    assert reports.read_day("acme", NOON.date(), time_zone=UTC).orders == 1
    assert reports.read_day("acme", NOON.date(), time_zone=shanghai).orders == 0
    assert reports.read_day("acme", NOON.date() + DAY, time_zone=shanghai).orders == 1


def test_it_is_known_when_each_gateway_was_heard_of_last(
    store: LedgerStore, ledger_engine: Engine, clock: Callable[..., object]
) -> None:
    reports = Reports(engine=ledger_engine)
    assert reports.last_claims({"acme": Trust.CAPABILITY}) == {}
    store.record([a_claim()])
    clock.forward(60)  # type: ignore[attr-defined]
    store.record([a_claim(order="DK2", trust=Trust.QUERIED)])
    assert reports.last_claims(dict.fromkeys(["acme", "other"], Trust.CAPABILITY)) == {
        ("acme", ClaimSource.CALLBACK): NOON,
        ("acme", ClaimSource.QUERY): NOON + timedelta(minutes=1),
    }


def test_who_forges_callbacks_does_not_hide_that_the_gateway_is_silent(
    store: LedgerStore, ledger_engine: Engine, clock: Callable[..., object]
) -> None:
    reports = Reports(engine=ledger_engine)
    store.record([a_claim()])
    clock.forward(60)  # type: ignore[attr-defined]
    store.record([a_claim(order="DK2", trust=Trust.CHECKSUM)])
    last = {least: reports.last_claims({"acme": least}) for least in Trust}
    assert last[Trust.QUERIED] == last[Trust.CAPABILITY] == {("acme", ClaimSource.CALLBACK): NOON}
    assert last[Trust.CHECKSUM] == {("acme", ClaimSource.CALLBACK): NOON + timedelta(minutes=1)}


def test_orders_are_summed_exactly_by_status(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    announce(store, "DK1", "DK2", amount="0.10")
    announce(store, "DK3", amount="0.20")
    announce(store, "DK4")
    store.record([a_claim(order="DK1"), a_claim(order="DK2"), a_claim(order="DK3"), a_claim(order="DK5")])
    assert [(one.status, one.orders, one.amount, one.amount_unit) for one in read().statuses] == [
        (OrderStatus.INITIAL, 1, None, None),
        (OrderStatus.SUCCEEDED, 1, None, None),
        (OrderStatus.SUCCEEDED, 3, "0.40", "yuan"),
    ]


def test_an_order_that_only_the_gateways_answer_ended_is_recovered(
    store: LedgerStore, read: Callable[[], DayReport]
) -> None:
    announce(store, "DK1", "DK2", "DK3")
    store.record([a_claim(order="DK1", trust=Trust.QUERIED)])
    store.record([a_claim(order="DK2"), a_claim(order="DK2", trust=Trust.QUERIED, minute=1)])
    store.record([a_claim(OrderStatus.PROCESSING, order="DK3", trust=Trust.QUERIED)])
    assert (read().recovered, read().answered) == (1, 3)


def test_the_first_and_the_last_callback_of_the_day_are_told(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    store.record([a_claim(order=f"DK{minute}", minute=minute) for minute in (3, 1, 2)])
    assert read().first_callback_at == NOON + timedelta(minutes=1)
    assert read().last_callback_at == NOON + timedelta(minutes=3)


def test_an_open_order_is_explained_while_its_answer_is_expected(
    store: LedgerStore, read: Callable[[], DayReport], clock: Any
) -> None:
    announce(store, "DK1", amount="5.00")
    clock.forward(60)
    (order,) = read().open_orders
    assert (order.biz_order_no, order.status, order.amount) == ("DK1", OrderStatus.INITIAL, "5.00")
    assert order.explained
    assert order.explanation.startswith("The gateway is asked until 2026-01-06 ")
    assert read().unexplained == 0


def test_an_order_about_which_nobody_can_ask_is_explained_until_its_callback_is_due(
    make_store: Callable[..., LedgerStore], read: Callable[[], DayReport], clock: Any
) -> None:
    announce(make_store(can_ask=False), "DK1")
    assert read().open_orders[0].explanation.startswith("A callback is awaited until 2026-01-05 12:10Z")
    assert read().unexplained == 0
    clock.forward(600)
    assert read().open_orders[0].explanation == "No callback has ended it, and nobody asks the gateway about it."
    assert read().unexplained == 1


def test_a_conflict_is_unexplained_until_somebody_acknowledges_it(
    store: LedgerStore, read: Callable[[], DayReport], reports: Reports, attention: AttentionList
) -> None:
    store.record([a_claim(), a_claim(OrderStatus.FAILED, minute=1)])
    (order,) = read().open_orders
    assert (order.biz_order_no, order.conflicted, order.explained) == ("DK1", True, False)
    assert (read().in_dispute, read().unexplained) == (1, 1)
    whole = reports.read_report({"acme": UTC}, since=NOON.date())
    assert not whole.explained
    assert [item.id for item in whole.attention] == ["conflict/acme/DK1"]
    attention.acknowledge("conflict/acme/DK1", name="Li", note="the bank is asked")
    (order,) = read().open_orders
    assert (order.explained, order.explanation) == (True, "Acknowledged by Li: the bank is asked")
    assert reports.read_report({"acme": UTC}, since=NOON.date()).explained


def test_the_orders_of_a_group_of_conflicts_are_unexplained_until_somebody_acknowledges_the_group(
    store: LedgerStore, read: Callable[[], DayReport], reports: Reports, attention: AttentionList
) -> None:
    for number in range(GROUPED_FROM):
        store.record([a_claim(order=f"DK{number}"), a_claim(OrderStatus.FAILED, order=f"DK{number}", minute=1)])
    whole = reports.read_report({"acme": UTC}, since=NOON.date())
    assert [item.id for item in whole.attention] == ["disputed-field/acme/status"]
    assert (len(read().open_orders), read().unexplained) == (GROUPED_FROM, GROUPED_FROM)
    attention.acknowledge("disputed-field/acme/status", name="Li", note="the bank is asked")
    assert {order.explanation for order in read().open_orders} == {"Acknowledged by Li: the bank is asked"}
    assert reports.read_report({"acme": UTC}, since=NOON.date()).explained


def test_an_undelivered_event_is_no_open_order_but_waits_for_a_person(
    store: LedgerStore, reports: Reports, outbox: Outbox
) -> None:
    store.record([a_claim()])
    due = outbox.lease_due(endpoint="books", limit=1, lease_seconds=60)
    outbox.settle_failed([FailedDelivery(delivery=due[0], error="HTTP 500", wait_seconds=None)])
    whole = reports.read_report({"acme": UTC}, since=NOON.date())
    assert whole.days[0].open_orders == []
    assert [item.kind for item in whole.attention] == [AttentionKind.PARKED_DELIVERY]
    assert not whole.explained


def test_what_nothing_explains_is_named_first(store: LedgerStore, read: Callable[[], DayReport]) -> None:
    announce(store, "DK1", "DK2")
    store.record([a_claim(order="DK9"), a_claim(OrderStatus.FAILED, order="DK9", minute=1)])
    assert [order.biz_order_no for order in read().open_orders] == ["DK9", "DK1", "DK2"]


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        (None, None, [4]),
        (None, date(2026, 1, 2), [2]),
        (date(2026, 1, 2), None, [2, 3, 4]),
        (date(2026, 1, 2), date(2026, 1, 3), [2, 3]),
        (date(2026, 1, 5), None, [5]),
    ],
)
def test_a_report_is_of_each_day_of_a_window_and_of_yesterday_by_default(
    reports: Reports, since: date | None, until: date | None, days: list[int]
) -> None:
    report = reports.read_report({"acme": UTC, "other": UTC}, since=since, until=until)
    assert [(day.merchant, day.day.day) for day in report.days] == [
        (merchant, day) for merchant in ("acme", "other") for day in days
    ]


def test_a_report_of_some_merchants_names_nothing_of_the_others(
    make_store: Callable[..., LedgerStore], reports: Reports
) -> None:
    store = make_store(merchants=["acme", "other"])
    store.record([a_claim(merchant="other"), a_claim(OrderStatus.FAILED, merchant="other", minute=1)])
    zones = {"acme": UTC, "other": UTC}
    assert reports.read_report(zones, since=NOON.date(), only=["acme"]).explained
    assert not reports.read_report(zones, since=NOON.date(), only=["other"]).explained


def test_orders_are_counted_by_whether_they_are_explained_when_they_are_a_day_old(
    make_store: Callable[..., LedgerStore], reports: Reports, attention: AttentionList, clock: Any
) -> None:
    store = make_store(merchants=("acme", "other"))
    store.record([a_claim(order="final"), a_claim(order="conflict")])
    store.record([a_claim(OrderStatus.FAILED, order="conflict", minute=1)])
    announce(store, "asked about")
    store.record([a_claim(order="theirs", merchant="other")])
    since, until = clock(), clock() + timedelta(minutes=5)
    clock.forward(600)
    announce(store, "too young")
    chosen = ["acme", "other", "silent"]

    def counted() -> dict[tuple[str, bool], int]:
        return {key: n for key, n in reports.count_explained(chosen, since=since, until=until).items() if n}

    assert counted() == {("acme", True): 2, ("acme", False): 1, ("other", True): 1}
    attention.acknowledge("conflict/acme/conflict", name="Li", note="the bank is asked")
    assert counted() == {("acme", True): 3, ("other", True): 1}
    assert reports.count_explained(chosen, since=since, until=until)["silent", False] == 0


def test_the_share_of_disputed_orders_is_by_merchant_and_field_and_counts_settled_disputes(
    make_store: Callable[..., LedgerStore], ledger_engine: Engine
) -> None:
    store = make_store(merchants=("acme", "other"))
    announce(store, "DK1", "DK2", "DK3", "DK4")
    store.record([a_claim(order="DK1", pay_type="a"), a_claim(order="DK1", minute=1, pay_type="b")])
    store.record([a_claim(order="DK1", trust=Trust.QUERIED, minute=2, pay_type="b")])
    store.record([a_claim(order="DK2", pay_type="a"), a_claim(OrderStatus.FAILED, order="DK2", minute=1, pay_type="b")])
    reports = Reports(engine=ledger_engine)
    ratios = reports.disputed_ratios(["acme", "other"], since=NOON - DAY)
    assert {key: ratio for key, ratio in ratios.items() if ratio} == {
        ("acme", "pay_type"): 0.5,
        ("acme", "status"): 0.25,
    }
    assert ratios["other", "amount"] == 0
    assert not any(reports.disputed_ratios(["acme"], since=NOON + DAY).values())


def test_the_days_orders_are_settled_open_or_in_conflict(store: LedgerStore, reports: Reports) -> None:
    announce(store, "DK1", "DK2")
    store.record(
        [
            a_claim(order="DK2"),
            a_claim(order="DK3", status=OrderStatus.FAILED),
            a_claim(order="DK4", status=OrderStatus.PROCESSING),
            a_claim(order="DK5"),
            a_claim(order="DK5", status=OrderStatus.FAILED, minute=1),
            a_claim(order="DK6", trust=Trust.CHECKSUM),
        ]
    )
    (day,) = reports.read_completeness({"acme": UTC})
    assert (day.merchant, day.day) == ("acme", NOON.date())
    assert (day.orders, day.settled, day.still_open, day.in_dispute) == (5, 2, 2, 1)


def test_the_day_begins_at_midnight_of_the_merchant(store: LedgerStore, reports: Reports, clock: Any) -> None:
    store.record([a_claim(order="DK1", status=OrderStatus.PROCESSING)])
    # In Shanghai, midnight is four hours after noon in London.
    clock.forward(4 * 3600)
    store.record([a_claim(order="DK2")])
    shanghai, london = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/London")
    (day,) = reports.read_completeness({"acme": shanghai})
    assert (day.day, day.orders, day.still_open) == (NOON.date() + DAY, 1, 0)
    (day,) = reports.read_completeness({"acme": london})
    assert (day.day, day.orders, day.still_open) == (NOON.date(), 2, 1)
    # What is settled today became known on another day.
    store.record([a_claim(order="DK1", minute=1)])
    assert reports.read_completeness({"acme": shanghai})[0].settled == 1


def test_each_merchant_has_its_own_day(make_store: MakeStore, reports: Reports) -> None:
    store = make_store(merchants=["acme", "globex"])
    store.record([a_claim(order="DK1"), a_claim(order="DK1", merchant="globex"), a_claim(order="DK2")])
    days = reports.read_completeness({"globex": UTC, "initech": UTC, "acme": UTC})
    assert [(day.merchant, day.orders) for day in days] == [("acme", 2), ("globex", 1), ("initech", 0)]
