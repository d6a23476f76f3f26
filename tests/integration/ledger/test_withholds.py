"""An order is sent once, however many requests come at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from sqlalchemy import Engine

from service.domain.claims import OrderKey, OrderStatus
from service.ledger.announcements import Announcement
from service.ledger.errors import NotAnnounced
from service.ledger.store import LedgerStore
from service.ledger.withholds import SentBefore, StatusKnown, WithholdOutcome, Withholds
from tests.support.claims import NOON, a_claim
from tests.support.ledger import end_refused

KEY = OrderKey("acme", "DK1")


@pytest.fixture
def withholds(ledger_engine: Engine, clock: Callable[[], datetime], store: LedgerStore) -> Withholds:
    store.announce(Announcement(merchant="acme", biz_order_no="DK1"))
    return Withholds(engine=ledger_engine, clock=clock, refusals=end_refused(store))


def test_of_many_who_want_to_send_an_order_one_does(withholds: Withholds) -> None:
    def begin(who: int) -> str:
        try:
            withholds.begin(KEY, sent_by=f"caller {who}")
        except SentBefore as before:
            return before.record.sent_by
        return "mine"

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(begin, range(8)))
    assert answers.count("mine") == 1
    assert set(answers) - {"mine"} == {f"caller {answers.index('mine')}"}


@pytest.mark.parametrize("outcome", [WithholdOutcome.ACCEPTED, WithholdOutcome.UNKNOWN])
def test_what_may_have_been_done_is_never_sent_again(withholds: Withholds, outcome: WithholdOutcome) -> None:
    withholds.begin(KEY, sent_by="shop")
    withholds.settle(KEY, outcome, detail="as it was", request_id="r1")
    with pytest.raises(SentBefore) as caught:
        withholds.begin(KEY, sent_by="shop")
    assert (caught.value.record.outcome, caught.value.record.detail) == (outcome, "as it was")


def test_what_a_process_died_over_is_never_sent_again(withholds: Withholds) -> None:
    withholds.begin(KEY, sent_by="shop")
    with pytest.raises(SentBefore) as caught:
        withholds.begin(KEY, sent_by="shop")
    assert caught.value.record.outcome is WithholdOutcome.SENDING


def test_what_was_surely_not_done_may_be_sent_again(withholds: Withholds) -> None:
    withholds.begin(KEY, sent_by="shop")
    withholds.settle(KEY, WithholdOutcome.NOT_DONE, detail="not reached")
    withholds.begin(KEY, sent_by="till")
    record = withholds.load(KEY)
    assert record is not None
    assert (record.outcome, record.sent_by, record.detail) == (WithholdOutcome.SENDING, "till", "")


def test_an_order_with_a_status_is_not_sent(withholds: Withholds, store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    with pytest.raises(StatusKnown):
        withholds.begin(KEY, sent_by="shop")


def test_an_order_that_is_not_announced_is_not_sent(withholds: Withholds) -> None:
    with pytest.raises(NotAnnounced):
        withholds.begin(OrderKey("acme", "DK2"), sent_by="shop")


def test_the_history_shows_who_sent_an_order_and_what_became_of_it(withholds: Withholds, store: LedgerStore) -> None:
    withholds.begin(KEY, sent_by="shop")
    withholds.settle(KEY, WithholdOutcome.ACCEPTED)
    sent = store.order_history(KEY).withhold
    assert sent is not None
    assert (sent.sent_by, sent.sent_at, sent.outcome) == ("shop", NOON, WithholdOutcome.ACCEPTED)


def test_an_order_whose_announcement_is_contradicted_is_not_sent(ledger_engine: Engine, store: LedgerStore) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no="DK2", pay_type="baofoo_001"))
    store.record([a_claim(order="DK2", pay_type="kuaiqian_002")])
    withholds = Withholds(engine=ledger_engine, clock=lambda: NOON, refusals=end_refused(store))
    with pytest.raises(StatusKnown):
        withholds.begin(OrderKey("acme", "DK2"), sent_by="shop")
    assert withholds.load(OrderKey("acme", "DK2")) is None
