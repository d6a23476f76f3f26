"""From due inquiries to real gateways: isolation of slow and dead ones, and what counts as an answer."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, update

from consumers import threads
from consumers.inquirer import Inquirer
from service.bootstrap.inquirer_role import make_inquirer_sampler
from service.config.reading import parse_settings
from service.config.secrets import Secret
from service.config.settings import GatewaySettings, InquirerSettings, MerchantSettings
from service.domain.claims import ClaimSource, OrderKey, OrderStatus, Trust
from service.gateway.client import GatewayClient, QueriedOrder
from service.gateway.errors import OutcomeUnknown
from service.gateway.messages import OrderStatement
from service.gateway.requests import AmountUnit
from service.ledger.announcements import Announcement
from service.ledger.database import make_engine
from service.ledger.decisions import MerchantRules
from service.ledger.inquiries import InquiryReason, InquiryState
from service.ledger.inquiry_limits import InquiryRules
from service.ledger.inquiry_questions import QuestionOutcome
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from service.ledger.tables import inquiries
from service.runtime.metrics.inquirer import InquirerMetrics
from service.runtime.metrics.merchants import ClaimMetrics
from tests.support.claims import a_claim
from tests.support.gateway import AES_KEY, NOT_FOUND, AskedGateway
from tests.support.ledger import end_refused
from tests.support.postgresql import Database
from tests.support.processes import find_free_port, running
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually

MERCHANTS = ("acme", "other")
PAY_TYPES = frozenset({"bank"})
RULES = MerchantRules(
    required_trust=Trust.QUERIED, can_ask=True, answer_due_seconds=0.01, inquiry_horizon_seconds=86_400
)
LIMITS: Mapping[str, Any] = {
    "min_interval_seconds": 0.05,
    "max_per_day": 1000,
    "max_per_minute": 60_000,
    "overdue_share": 0.5,
    "first_repeat_seconds": 0.05,
    "max_repeat_seconds": 0.2,
}


def now() -> datetime:
    return datetime.now(UTC)


def make_ledger(engine: Engine) -> LedgerStore:
    return LedgerStore(engine=engine, rules=dict.fromkeys(MERCHANTS, RULES), endpoints=[], clock=now)


@pytest.fixture
def store(ledger_engine: Engine) -> LedgerStore:
    """Two merchants, both of which believe what their gateway answers and nothing else."""
    return make_ledger(ledger_engine)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make_inquirer_on(registry: CollectorRegistry) -> Callable[..., Inquirer]:
    def make(
        engine: Engine,
        store: LedgerStore,
        gateways: Mapping[str, GatewayClient],
        *,
        queue: InquiryQueue | None = None,
        lease_seconds: float = 2 * HANGS_AFTER_SECONDS,
        **limits: Any,
    ) -> Inquirer:
        rules = dict.fromkeys(MERCHANTS, InquiryRules(**{**LIMITS, **limits}))
        return Inquirer(
            queue=queue or InquiryQueue(engine=engine, store=store, rules=rules, refusals=end_refused(store)),
            merchants={
                slug: MerchantSettings(slug=slug, pay_types=PAY_TYPES, amount_unit="yuan") for slug in MERCHANTS
            },
            gateways=gateways,
            settings=InquirerSettings(poll_seconds=0.02, lease_seconds=lease_seconds),
            metrics=InquirerMetrics(registry=registry),
            claim_metrics=ClaimMetrics(registry=registry, merchants=MERCHANTS, source=ClaimSource.QUERY, clock=now),
        )

    return make


@pytest.fixture
def make_inquirer(
    ledger_engine: Engine, store: LedgerStore, make_inquirer_on: Callable[..., Inquirer]
) -> Callable[..., Inquirer]:
    return partial(make_inquirer_on, ledger_engine, store)


def reached(url: str, *, timeout_seconds: float = HANGS_AFTER_SECONDS) -> GatewayClient:
    settings = GatewaySettings(
        url=url,
        ua="ACME",
        aes_key=Secret(AES_KEY),
        not_found_messages=[NOT_FOUND],
        timeout_seconds=timeout_seconds,
    )
    return GatewayClient(settings=settings, amount_unit=AmountUnit.YUAN, pay_types=PAY_TYPES, clock=now)


def announce(store: LedgerStore, count: int, *, merchant: str = "acme") -> None:
    for number in range(count):
        store.announce(Announcement(merchant=merchant, biz_order_no=f"DK{number}", answer_due_at=now()))


def statuses(store: LedgerStore, count: int, *, merchant: str = "acme") -> list[OrderStatus]:
    loaded = [store.load_order(OrderKey(merchant, f"DK{number}")) for number in range(count)]
    return [order.state.status for order in loaded if order is not None]


def test_orders_that_are_never_called_back_reach_their_true_status(
    store: LedgerStore, make_inquirer: Callable[..., Inquirer]
) -> None:
    truth = ["success" if number % 3 else "fail" for number in range(40)]
    hidden = threading.Event()

    def status_of(order: str) -> str:
        return truth[int(order[2:])] if hidden.is_set() else "pending"

    announce(store, 40)
    with AskedGateway(status_of) as gateway, running(make_inquirer({"acme": reached(gateway.url)})):
        eventually(lambda: set(statuses(store, 40)) == {OrderStatus.PROCESSING})
        hidden.set()
        expected = [OrderStatus.SUCCEEDED if status == "success" else OrderStatus.FAILED for status in truth]
        eventually(lambda: statuses(store, 40) == expected)


@pytest.mark.parametrize("trouble", ["hangs", "dead"])
def test_a_gateway_in_trouble_delays_no_other_merchant(
    store: LedgerStore, make_inquirer: Callable[..., Inquirer], trouble: str
) -> None:
    announce(store, 10)
    announce(store, 10, merchant="other")
    with (
        AskedGateway(lambda _order: "success") as well,
        AskedGateway(lambda _order: "success", seconds=60) as hangs,
    ):
        url = hangs.url if trouble == "hangs" else f"http://127.0.0.1:{find_free_port()}/"
        gateways = {"acme": reached(url, timeout_seconds=1.0), "other": reached(well.url)}
        with running(make_inquirer(gateways)):
            eventually(lambda: set(statuses(store, 10, merchant="other")) == {OrderStatus.SUCCEEDED})
            eventually(lambda: store.order_history(OrderKey("acme", "DK0")).questions)
    assert set(statuses(store, 10)) == {OrderStatus.INITIAL}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(None, QuestionOutcome.NOT_FOUND), ("pending", QuestionOutcome.ANSWERED)],
)
def test_what_the_gateway_answers_is_kept_with_the_question(
    store: LedgerStore, make_inquirer: Callable[..., Inquirer], answer: str | None, outcome: QuestionOutcome
) -> None:
    announce(store, 1)
    key = OrderKey("acme", "DK0")
    with AskedGateway(lambda _order: answer) as gateway, running(make_inquirer({"acme": reached(gateway.url)})):
        eventually(lambda: [q for q in store.order_history(key).questions if q.outcome is not None])
    question = store.order_history(key).questions[0]
    assert question.outcome is outcome
    assert question.request_id
    assert question.reasons is InquiryReason.OVERDUE


def test_one_question_is_one_request_also_where_no_answer_comes(
    store: LedgerStore, make_inquirer: Callable[..., Inquirer]
) -> None:
    announce(store, 1)
    key = OrderKey("acme", "DK0")
    with AskedGateway(lambda _order: "success", seconds=60) as gateway:
        with running(make_inquirer({"acme": reached(gateway.url, timeout_seconds=0.3)}, max_per_day=3)):
            eventually(lambda: len(store.order_history(key).questions) == 3)
            eventually(lambda: all(question.outcome for question in store.order_history(key).questions))
        assert gateway.count() == 3


def test_at_shutdown_what_is_being_asked_is_waited_for_and_settled(
    store: LedgerStore, make_inquirer: Callable[..., Inquirer]
) -> None:
    announce(store, 3)
    with AskedGateway(lambda _order: "success", seconds=0.5) as gateway:
        with running(make_inquirer({"acme": reached(gateway.url)})):
            eventually(lambda: gateway.count() == 3)
        assert set(statuses(store, 3)) == {OrderStatus.SUCCEEDED}


def test_an_answer_ends_a_conflict(store: LedgerStore, make_inquirer: Callable[..., Inquirer]) -> None:
    early = now()
    store.record([a_claim(trust=Trust.QUERIED, order="DK0", stated_at=early)])
    store.record([a_claim(OrderStatus.FAILED, Trust.QUERIED, order="DK0", stated_at=early, pay_order_no="P2")])
    conflicted = store.load_order(OrderKey("acme", "DK0"))
    assert conflicted is not None
    assert conflicted.state.conflicted
    with AskedGateway(lambda _order: "fail") as gateway, running(make_inquirer({"acme": reached(gateway.url)})):
        eventually(lambda: statuses(store, 1) == [OrderStatus.FAILED])
    inquiry = store.order_history(OrderKey("acme", "DK0")).inquiry
    assert inquiry is not None
    assert inquiry.state is InquiryState.ANSWERED


def test_a_postgresql_that_goes_away_leaves_no_order_unasked(
    own_postgresql: Database, make_inquirer_on: Callable[..., Inquirer]
) -> None:
    engine = make_engine(own_postgresql.url, pool_size=2)
    migrate(engine)
    store = make_ledger(engine)
    announce(store, 60)
    with AskedGateway(lambda _order: "success", seconds=0.05) as gateway:
        # Where the lease was committed and the answer lost, the question is asked once the lease has run out.
        asking = make_inquirer_on(engine, store, {"acme": reached(gateway.url, timeout_seconds=2.0)}, lease_seconds=5.0)
        with running(asking):
            eventually(lambda: gateway.count() > 10)
            own_postgresql.kill()
            own_postgresql.start()
            eventually(lambda: len(gateway.asked()) == 60)
        assert set(statuses(store, 60)) == {OrderStatus.SUCCEEDED}
    engine.dispose()


class BuggyGateway(GatewayClient):
    """Breaks on one order."""

    def __init__(self) -> None:
        self.timeout_seconds = 1

    def query(self, biz_order_no: str, *, max_tries: int = 1) -> QueriedOrder:
        if biz_order_no == "DK0":
            raise ZeroDivisionError
        order = OrderStatement(biz_order_no=biz_order_no, pay_order_no="P1", pay_status="success")
        return QueriedOrder(order=order, message="", asked_at=now(), request_id="r")


def test_a_bug_with_one_order_keeps_no_other_from_its_answer(
    store: LedgerStore, make_inquirer: Callable[..., Inquirer]
) -> None:
    announce(store, 5)
    with running(make_inquirer({"acme": BuggyGateway()})):
        eventually(lambda: statuses(store, 5)[1:] == [OrderStatus.SUCCEEDED] * 4)
        eventually(lambda: store.order_history(OrderKey("acme", "DK0")).questions[0].outcome)
    question = store.order_history(OrderKey("acme", "DK0")).questions[0]
    assert (question.outcome, question.detail) == (QuestionOutcome.NO_ANSWER, "ZeroDivisionError: ")


class SilentGateway(GatewayClient):
    """Never answers."""

    def __init__(self) -> None:
        self.timeout_seconds = 1

    def query(self, biz_order_no: str, *, max_tries: int = 1) -> QueriedOrder:
        raise OutcomeUnknown("silence")


def test_what_is_asked_and_given_up_is_counted(
    ledger_engine: Engine, make_inquirer: Callable[..., Inquirer], registry: CollectorRegistry
) -> None:
    impatient = replace(RULES, inquiry_horizon_seconds=0.01)
    store = LedgerStore(engine=ledger_engine, rules={"acme": impatient}, endpoints=[], clock=now)
    store.inquire(OrderKey("acme", "DK0"), InquiryReason.OPERATOR)
    with running(make_inquirer({"acme": SilentGateway()})):
        eventually(lambda: sample(registry, "given_up_total") == 1.0)
    assert sample(registry, "asked_total", outcome="no-answer") == 1.0


def test_how_long_the_longest_due_inquiry_has_waited_is_shown_and_one_that_waits_for_a_person_is_not_due(
    ledger_engine: Engine, store: LedgerStore, registry: CollectorRegistry, tmp_path: Path
) -> None:
    store.inquire(OrderKey("acme", "DK0"), InquiryReason.OPERATOR)
    with ledger_engine.begin() as connection:
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        connection.execute(update(inquiries).values(state="parked", due_at=long_ago))
    store.inquire(OrderKey("acme", "DK1"), InquiryReason.OPERATOR)
    settings = parse_settings(WATCHED, {}, name="test", folder=tmp_path)
    with make_inquirer_sampler(settings, ledger_engine, registry).running():
        eventually(lambda: (sample(registry, "oldest_due_seconds", kind="owed") or 0) > 0)
    assert (sample(registry, "oldest_due_seconds", kind="owed") or 0) < _A_YEAR_SECONDS
    assert sample(registry, "oldest_due_seconds", kind="doubt") == 0.0


_A_YEAR_SECONDS = 365 * 24 * 60 * 60

WATCHED = """
[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
gateway = { url = "http://127.0.0.1:9/", ua = "ACME", aes_key = "0123456789abcdef" }
"""


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"payment_callbacks_inquiries_{name}", {"merchant": "acme", **labels})


class BreakingQueue(InquiryQueue):
    """Its first claim meets a bug."""

    broken = False

    def lease_due(self, merchant: str, *, limit: int, lease_seconds: float) -> Any:
        if not self.broken:
            self.broken = True
            raise ZeroDivisionError
        return super().lease_due(merchant, limit=limit, lease_seconds=lease_seconds)


def test_an_asker_that_breaks_is_started_again(
    ledger_engine: Engine,
    store: LedgerStore,
    make_inquirer: Callable[..., Inquirer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "_RESTART_SECONDS", 0.01)
    announce(store, 1)
    rules = {"acme": InquiryRules(**LIMITS)}
    queue = BreakingQueue(engine=ledger_engine, store=store, refusals=end_refused(store), rules=rules)
    with (
        AskedGateway(lambda _order: "success") as gateway,
        running(make_inquirer({"acme": reached(gateway.url)}, queue=queue)),
    ):
        eventually(lambda: statuses(store, 1) == [OrderStatus.SUCCEEDED])
    assert queue.broken


def test_without_gateways_it_waits_for_its_end(make_inquirer: Callable[..., Inquirer]) -> None:
    with running(make_inquirer({})):
        pass
