"""A day's report: its counts, and how late events were made."""

from collections.abc import Callable
from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from service.domain.claims import ClaimSource, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.reports import DayReport, Reports
from service.ledger.store import LedgerStore
from tests.support.claims import NOON, a_claim

DAY = timedelta(days=1)


@pytest.fixture
def read(ledger_engine: Engine) -> Callable[..., DayReport]:
    reports = Reports(engine=ledger_engine)
    return lambda: reports.read_day("acme", NOON.date(), time_zone=UTC)


def announce(store: LedgerStore, *numbers: str) -> None:
    for number in numbers:
        store.announce(Announcement(merchant="acme", biz_order_no=number))


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
