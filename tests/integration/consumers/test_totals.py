"""What a role's metrics count reaches the totals, also when the database was away, and at the end."""

from collections.abc import Mapping
from datetime import timedelta

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from consumers.totals import adding_totals
from service.domain.claims import ClaimSource, OrderStatus
from service.domain.order_state import Verdict
from service.ledger.errors import LedgerUnavailable
from service.ledger.totals import Counted, Resolution, Series, TotalsStore, read_totals
from service.runtime.clock import now
from service.runtime.metrics.dispatcher import DispatcherMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from tests.support.claims import NOON, a_claim
from tests.support.waiting import eventually


class _AwayAtFirst(TotalsStore):
    """The totals of a database that is away at the first call."""

    calls = 0

    def add(self, gains: Mapping[Counted, int], *, process: str) -> None:
        self.calls += 1
        if self.calls == 1:
            raise LedgerUnavailable("the database is away")
        super().add(gains, process=process)


def totals_of(engine: Engine, series: Series) -> Mapping[tuple[str, ...], int]:
    """The sums of a series by merchant, endpoint and outcome."""
    # The hour may end between two steps of a test.
    since, until = now() - timedelta(hours=2), now() + timedelta(hours=1)
    by = ("merchant", "endpoint", "outcome")
    found = read_totals(engine, series, since=since, until=until, resolution=Resolution.HOUR, by=by)
    return {labels: sum(point.value for point in points) for labels, points in found.items()}


def delivered(engine: Engine) -> int:
    """What was delivered to "shop"."""
    return totals_of(engine, Series.DELIVERIES).get(("", "shop", "delivered"), 0)


def test_every_count_is_added_once(ledger_engine: Engine) -> None:
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry=registry, endpoints=["shop"])
    store = _AwayAtFirst(engine=ledger_engine)
    metrics.count_delivery("shop", outcome="delivered")
    with adding_totals(store, registry=registry, every_seconds=0.02):
        eventually(lambda: delivered(ledger_engine) == 1)
        metrics.count_delivery("shop", outcome="delivered")
        eventually(lambda: delivered(ledger_engine) == 2)
    assert store.calls == 3, "something was written where nothing was counted"


def test_lags_are_those_of_claims_that_made_a_status_final(ledger_engine: Engine) -> None:
    registry = CollectorRegistry()
    metrics = ClaimMetrics(
        registry=registry, merchants=["acme"], source=ClaimSource.CALLBACK, clock=lambda: NOON + timedelta(seconds=90)
    )
    with adding_totals(TotalsStore(engine=ledger_engine), registry=registry):
        for seconds_ago in (85, 89, 3690):
            paid_at = NOON + timedelta(seconds=90 - seconds_ago)
            metrics.observe_final_status(a_claim(paid_at=paid_at), Verdict.APPLIED)
        # Its clock is ahead of ours.
        metrics.observe_final_status(a_claim(OrderStatus.FAILED, paid_at=NOON + timedelta(hours=1)), Verdict.CORRECTED)
        for claim, verdict in (
            (a_claim(), Verdict.APPLIED),
            (a_claim(OrderStatus.PROCESSING, paid_at=NOON), Verdict.APPLIED),
            (a_claim(paid_at=NOON), Verdict.DUPLICATE),
            (a_claim(paid_at=NOON), Verdict.UNTRUSTED),
        ):
            metrics.observe_final_status(claim, verdict)
    assert eventually(totals_of, ledger_engine, Series.LAGS) == {
        ("acme", "", "1.0"): 1,
        ("acme", "", "120.0"): 2,
        ("acme", "", "7200.0"): 1,
    }


def test_what_was_counted_last_is_added_at_the_end(ledger_engine: Engine) -> None:
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry=registry, endpoints=["shop"])
    with adding_totals(TotalsStore(engine=ledger_engine), registry=registry, every_seconds=3600.0):
        metrics.count_delivery("shop", outcome="delivered")
    eventually(lambda: delivered(ledger_engine) == 1)
