"""An order's history, also under a flood of forged claims."""

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.claims import MAX_UNCOUNTED, Resolution
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim

KEY = OrderKey("acme", "DK1")


def flood(store: LedgerStore, count: int) -> None:
    store.record([a_claim(trust=Trust.CHECKSUM, pay_order_no=f"FORGED{number}") for number in range(count)])


def test_of_claims_that_never_counted_the_newest_are_loaded_and_the_others_counted(store: LedgerStore) -> None:
    flood(store, MAX_UNCOUNTED + 1)
    store.record([a_claim(OrderStatus.FAILED, Trust.CHECKSUM, pay_order_no="NEWEST")])
    history = store.order_history(KEY)
    assert (len(history.claims), history.claims_left_out) == (MAX_UNCOUNTED, 2)
    assert history.claims[-1].pay_order_no == "NEWEST"
    assert history.order is None


def test_none_that_counted_is_left_out_and_no_answer_and_no_persons_word_either(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING)])
    store.record([a_claim(None, Trust.QUERIED, quarantine="unknown pay_status")])
    store.resolve(Resolution(order=KEY, status=OrderStatus.FAILED, stated_by="Li", reason="the bank says so"))
    flood(store, MAX_UNCOUNTED + 5)
    history = store.order_history(KEY)
    trusted = [claim.trust for claim in history.claims if claim.trust is not Trust.CHECKSUM]
    assert trusted == [Trust.CAPABILITY, Trust.QUERIED, Trust.OPERATOR]
    assert [claim.trust for claim in history.claims[:3]] == trusted
    assert history.claims_left_out == 5


def test_what_a_callback_lacked_stays_with_its_claim(store: LedgerStore) -> None:
    lacking = a_claim(missing_fields=("pay_time", "channel_response"))
    store.record([lacking, a_claim(OrderStatus.PROCESSING)])
    recorded = {claim.status: claim.missing_fields for claim in store.order_history(KEY).claims}
    assert recorded == {
        OrderStatus.SUCCEEDED: ("pay_time", "channel_response"),
        OrderStatus.PROCESSING: (),
    }


def test_nothing_is_left_out_where_nobody_floods(store: LedgerStore) -> None:
    flood(store, 3)
    history = store.order_history(KEY)
    assert (len(history.claims), history.claims_left_out) == (3, 0)


def test_an_order_is_known_once_anybody_spoke_of_it(store: LedgerStore) -> None:
    assert not store.knows(KEY)
    flood(store, 1)
    assert store.knows(KEY)
    store.announce(Announcement(merchant="acme", biz_order_no="DK2"))
    assert store.knows(OrderKey("acme", "DK2"))
