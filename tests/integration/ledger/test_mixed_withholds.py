"""Many orders at a sandbox that refuses some, loses the answers of others, and does not find some for hours.

No order that is paid, or may be, is ever called failed, and each that was refused ends. `make test-refusals` sends
10,000.
"""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from service.charging.announce import Announcer, OrderDraft
from service.charging.bulkhead import Bulkhead
from service.charging.withhold import Payer, Withholder
from service.config.secrets import Secret
from service.config.settings import GatewaySettings, MerchantSettings
from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.refused_withholds import RefusalRules
from service.gateway.client import GatewayClient, GatewayClients, make_client
from service.gateway.errors import CallFailed
from service.gateway.order_claims import claim_from_query
from service.ledger.attention import AttentionFilter, AttentionKind, AttentionList
from service.ledger.inquiry_questions import DueInquiry, QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.refused_withholds import Suspension
from service.ledger.store import LedgerStore
from service.ledger.withholds import WithholdOutcome, Withholds
from service.sandbox.server import SandboxServer
from service.sandbox.settings import Account, SandboxSettings, Timing
from tests.support.gateway import AES_KEY, NOT_FOUND, WITHHOLD
from tests.support.ledger import Clock, LedgerView, MakeInquiryQueue, MakeStore, end_refused

ORDERS = int(os.environ.get("REFUSAL_TEST_ORDERS", "100"))
# It takes a minute of CPU for each thousand.
DATABASES = ["postgresql"] if ORDERS <= 100 else ["postgresql", "sqlite"]
HOUR = 3600
HIDDEN_SECONDS = 12 * HOUR

SUCCEEDED = (OrderStatus.SUCCEEDED, Trust.QUERIED)
FAILED = (OrderStatus.FAILED, Trust.QUERIED)
PROCESSING = (OrderStatus.PROCESSING, Trust.QUERIED)
ENDED = (OrderStatus.FAILED, Trust.RULE)
#: Of each twenty orders: the sandbox's words for them, and what becomes of them. The rest is accepted and paid.
KINDS = [
    ("refuse", ENDED),
    ("refuse", ENDED),
    ("deny", SUCCEEDED),
    ("deny-fail", FAILED),
    ("deny-stuck", PROCESSING),
    ("deny-unseen-slow", SUCCEEDED),
    ("deny-unseen-slow-fail", FAILED),
    ("lost", SUCCEEDED),
    ("lost-unseen-slow", SUCCEEDED),
    ("broken-fail", FAILED),
    ("unseen-slow", SUCCEEDED),
]
PAYER = Payer(
    name=str(WITHHOLD["name"]),
    id_card_number=str(WITHHOLD["id_card_number"]),
    mobile=str(WITHHOLD["mobile"]),
    bank_card_number=str(WITHHOLD["bank_card_number"]),
)
RULES = RefusalRules(messages=["余额不足"], not_found_times=8, not_found_hours=24, max_per_hour=ORDERS)


def name(number: int) -> str:
    words = KINDS[number % 20][0] if number % 20 < len(KINDS) else "success"
    return f"DK{number}-silent-{words}"


def expected(number: int) -> tuple[OrderStatus, Trust]:
    return KINDS[number % 20][1] if number % 20 < len(KINDS) else SUCCEEDED


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    return make_store(required=Trust.QUERIED, horizon_seconds=72 * HOUR)


@pytest.fixture
def queue(store: LedgerStore, make_inquiry_queue: MakeInquiryQueue) -> InquiryQueue:
    # Few questions cover the hours, so that the test is quick.
    return make_inquiry_queue(store, refusal_rules=RULES, first_repeat_seconds=3 * HOUR, max_repeat_seconds=3 * HOUR)


@pytest.fixture
def sandbox(clock: Clock) -> Iterator[SandboxServer]:
    settings = SandboxSettings(
        accounts=[Account(ua="ACME", aes_key=Secret(AES_KEY), pay_types=frozenset({"baofoo_001"}))],
        bind="127.0.0.1:0",
        timing=Timing(settle_seconds=60, slow_settle_seconds=HIDDEN_SECONDS),
    )
    with SandboxServer(settings=settings, clock=clock) as server:
        yield server


@pytest.fixture
def merchant(sandbox: SandboxServer) -> MerchantSettings:
    gateway = GatewaySettings(
        url=sandbox.url, ua="ACME", aes_key=Secret(AES_KEY), not_found_messages=[NOT_FOUND], timeout_seconds=60.0
    )
    return MerchantSettings(slug="acme", pay_types=frozenset({"baofoo_001"}), amount_unit="yuan", gateway=gateway)


@pytest.fixture
def client(merchant: MerchantSettings, clock: Clock) -> GatewayClient:
    assert merchant.gateway is not None
    return make_client(merchant, merchant.gateway, clock=clock)


@pytest.fixture
def withholder(
    ledger_engine: Engine, store: LedgerStore, merchant: MerchantSettings, client: GatewayClient, clock: Clock
) -> Withholder:
    merchants = {"acme": merchant}
    return Withholder(
        announcer=Announcer(store=store, merchants=merchants, public_url="http://127.0.0.1:9", tokens={}, clock=clock),
        store=store,
        withholds=Withholds(engine=ledger_engine, clock=clock, refusals=end_refused(store, RULES)),
        merchants=merchants,
        gateways=Bulkhead(GatewayClients(usable={"acme": client}, unusable={}), max_calls=4),
    )


@pytest.mark.parametrize("ledger_url", DATABASES, indirect=True)
def test_of_many_mixed_withholds_each_refused_one_ends_and_none_that_is_paid_is_called_failed(
    store: LedgerStore,
    queue: InquiryQueue,
    withholder: Withholder,
    client: GatewayClient,
    merchant: MerchantSettings,
    clock: Clock,
    ledger_url: str,
    attention: AttentionList,
) -> None:
    def send(number: int) -> WithholdOutcome:
        draft = OrderDraft(merchant="acme", biz_order_no=name(number), amount="10.00", pay_type="baofoo_001")
        return withholder.withhold(draft, PAYER, sent_by="shop").withhold.outcome

    def ask(asked: DueInquiry) -> None:
        try:
            answer = client.query(asked.order.biz_order_no, max_tries=1)
        except CallFailed as error:
            queue.settle(
                asked, QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id=error.request_id, seconds=0)
            )
            return
        outcome = QuestionOutcome.NOT_FOUND if answer.order is None else QuestionOutcome.ANSWERED
        claim = None
        if answer.order is not None:
            claim = claim_from_query(answer.order, merchant=merchant, asked_at=answer.asked_at)
        queue.settle(asked, QuestionResult(outcome=outcome, request_id=answer.request_id, seconds=0), claim=claim)

    def ask_what_is_due() -> None:
        while due := queue.lease_due("acme", limit=1000, lease_seconds=3600):
            for _ in threads.map(ask, due):
                pass

    with ThreadPoolExecutor(4) as threads:
        outcomes = Counter(threads.map(send, range(ORDERS)))
        assert outcomes.keys() == {WithholdOutcome.ACCEPTED, WithholdOutcome.UNKNOWN}
        suspended = []
        for _ in range(34):
            clock.forward(HOUR)
            ask_what_is_due()
            suspended.append(queue.count_suspensions()["acme", Suspension.MISSING_ORDER])
        # Accepted orders were hidden, and found again.
        assert max(suspended) == ORDERS // 20
        assert suspended[-1] == 0

    wrong = {}
    for number in range(ORDERS):
        order = store.load_order(OrderKey("acme", name(number)))
        assert order is not None
        if (order.state.status, order.state.trust) != expected(number):
            wrong[name(number)] = order.state
    assert wrong == {}
    view = LedgerView(url=ledger_url)
    failed = [
        name(number)
        for number in range(ORDERS)
        if expected(number)[0] is not OrderStatus.FAILED
        and any(event.status == "failed" for event in view.events_about(name(number)))
    ]
    view.close()
    assert failed == []
    # Those that the gateway refused and has all the same are shown until they end.
    contradicted = attention.list(AttentionFilter(kind=AttentionKind.CONTRADICTED_WITHHOLD), limit=ORDERS)
    assert {item.biz_order_no for item in contradicted} == {
        name(number) for number in range(ORDERS) if expected(number) == PROCESSING
    }
