"""The attention list: each cause, what ends it, that counts and list agree, and acknowledgements."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.depths import QUEUE, DepthReport
from service.domain.events import EventType
from service.domain.money import Money
from service.domain.refused_withholds import RefusalRules
from service.ledger.announcements import Announcement
from service.ledger.attention import (
    GROUPED_FROM,
    PAUSED_TOO_LONG,
    SILENT_AFTER,
    WAITING_TOO_LONG,
    WITHHOLD_UNKNOWN_FOR,
    AttentionFilter,
    AttentionItem,
    AttentionKind,
    AttentionList,
    count_items,
    items_at,
    list_items,
)
from service.ledger.audit import Author
from service.ledger.claims import Resolution
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.decisions import EndpointRules
from service.ledger.depths import DepthStore
from service.ledger.endpoints import Pauses
from service.ledger.errors import AttentionItemUnknown
from service.ledger.inquiry_questions import QuestionOutcome, QuestionResult
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.proposals import ProposalRecord
from service.ledger.store import LedgerStore
from service.ledger.withholds import WithholdOutcome, Withholds
from tests.support.claims import AUTHOR, NOON, a_claim
from tests.support.ledger import end_refused

ANY = AttentionFilter(acknowledged=None)
GROUP = "disputed-field/acme/amount"
PARKED = "parked-deliveries/crm"
BY_MESSAGE = RefusalRules(messages=["余额不足"], not_found_times=None, not_found_hours=24, max_per_hour=20)
NO_ANSWER = QuestionResult(outcome=QuestionOutcome.NO_ANSWER, request_id="", seconds=0.0)


@pytest.fixture
def store(make_store: Callable[..., LedgerStore]) -> LedgerStore:
    types = {"books": EventType.SUCCEEDED, "crm": EventType.FAILED}
    return make_store(endpoints=[EndpointRules(name=name, types=frozenset([one])) for name, one in types.items()])


@pytest.fixture
def queue(store: LedgerStore, make_inquiry_queue: Callable[..., InquiryQueue]) -> InquiryQueue:
    return make_inquiry_queue(store)


@pytest.fixture
def withholds(ledger_engine: Engine, clock: Any, store: LedgerStore) -> Withholds:
    return Withholds(engine=ledger_engine, clock=clock, refusals=end_refused(store, BY_MESSAGE))


@pytest.fixture
def pauses(ledger_engine: Engine, clock: Any) -> Pauses:
    return Pauses(engine=ledger_engine, clock=clock)


def announce(store: LedgerStore, order: str) -> None:
    store.announce(Announcement(merchant="acme", biz_order_no=order, amount="100.00", amount_unit="yuan"))


def park_inquiry(store: LedgerStore, queue: InquiryQueue, clock: Any, order: str) -> None:
    announce(store, order)
    clock.forward(2 * 86_400)
    for asked in queue.lease_due("acme", limit=100, lease_seconds=60):
        queue.settle(asked, NO_ANSWER)


def conflict(store: LedgerStore, order: str, *, minute: float = 0) -> None:
    store.record([a_claim(order=order, minute=minute), a_claim(OrderStatus.FAILED, order=order, minute=minute + 1)])


def dispute_amounts(store: LedgerStore, first: int, last: int, *, amount: str = "100.00") -> None:
    """Orders D<first> to D<last> are announced at `amount` and claimed at a cent."""
    for number in range(first, last + 1):
        order = f"D{number}"
        store.announce(Announcement(merchant="acme", biz_order_no=order, amount=amount, amount_unit="yuan"))
        store.record([a_claim(order=order, amount=Money("0.01", "yuan"))])


def quarantine(store: LedgerStore, order: str, **more: Any) -> None:
    store.record([a_claim(None, order=order, quarantine="pay_status: ??", **more)])


def park_delivery(store: LedgerStore, outbox: Outbox, order: str) -> None:
    store.record([a_claim(order=order)])
    due = outbox.lease_due(endpoint="books", limit=100, lease_seconds=60)
    assert due
    outbox.settle_failed([FailedDelivery(delivery=one, error="HTTP 500", wait_seconds=None) for one in due])


def park_failures(store: LedgerStore, outbox: Outbox, first: int, last: int, *, error: str = "HTTP 503") -> None:
    """The events of orders F<first> to F<last>, which failed, are given up for crm."""
    store.record([a_claim(OrderStatus.FAILED, order=f"F{number}") for number in range(first, last + 1)])
    due = outbox.lease_due(endpoint="crm", limit=100, lease_seconds=60)
    outbox.settle_failed([FailedDelivery(delivery=one, error=error, wait_seconds=None) for one in due])


def only(attention: AttentionList, chosen: AttentionFilter = ANY) -> AttentionItem:
    (item,) = attention.list(chosen, limit=10)
    return item


def test_a_parked_inquiry_waits_with_the_amount_and_the_next_command(
    store: LedgerStore, queue: InquiryQueue, clock: Any, attention: AttentionList
) -> None:
    park_inquiry(store, queue, clock, "DK 1")
    item = only(attention)
    assert (item.kind, item.merchant, item.biz_order_no) == (AttentionKind.PARKED_INQUIRY, "acme", "DK 1")
    assert (item.amount, item.amount_unit) == ("100.00", "yuan")
    assert NOON < item.since < clock()
    assert item.next_step == "payment-callbacks orders inquire --reason REASON acme 'DK 1'"
    assert item.cause


def test_an_inquiry_that_is_parked_before_its_horizon_waits_since_its_last_question(
    store: LedgerStore, make_inquiry_queue: Callable[..., InquiryQueue], clock: Any, attention: AttentionList
) -> None:
    queue = make_inquiry_queue(store, first_repeat_seconds=2 * 86_400, max_repeat_seconds=2 * 86_400)
    announce(store, "DK1")
    clock.forward(3600)
    (asked,) = queue.lease_due("acme", limit=1, lease_seconds=60)
    queue.settle(asked, NO_ANSWER)
    assert only(attention).since == clock()


def test_an_order_number_that_begins_with_a_hyphen_is_no_option_of_the_next_command(
    store: LedgerStore, attention: AttentionList
) -> None:
    conflict(store, "-1")
    assert only(attention).next_step == "payment-callbacks orders show -- acme -1"


def test_a_conflict_waits_until_it_is_settled(store: LedgerStore, attention: AttentionList) -> None:
    conflict(store, "DK1")
    assert only(attention).kind is AttentionKind.CONFLICT
    store.record([a_claim(trust=Trust.QUERIED, minute=2)])
    assert attention.list(ANY, limit=10) == []


def test_a_conflict_waits_since_it_was_opened_whatever_is_said_of_the_order_later(
    store: LedgerStore, attention: AttentionList, clock: Any
) -> None:
    conflict(store, "DK1")
    clock.forward(60)
    store.record([a_claim(OrderStatus.FAILED, order="DK1", minute=2, channel_response="again")])
    item = only(attention)
    assert (item.since, item.detail, item.orders) == (NOON, "status", 1)


def test_many_conflicts_about_one_field_are_one_item_with_their_number_and_the_sum_of_their_amounts(
    store: LedgerStore, attention: AttentionList, clock: Any
) -> None:
    dispute_amounts(store, 1, GROUPED_FROM - 1)
    assert {item.kind for item in attention.list(ANY, limit=100)} == {AttentionKind.CONFLICT}
    clock.forward(60)
    dispute_amounts(store, GROUPED_FROM, GROUPED_FROM, amount="0.10")
    conflict(store, "DK1")  # about another field
    group, single = attention.list(ANY, limit=100)
    assert (group.id, group.kind, group.merchant, group.detail) == (
        GROUP,
        AttentionKind.DISPUTED_FIELD,
        "acme",
        "amount",
    )
    assert (group.since, group.orders) == (NOON, GROUPED_FROM)
    assert (group.amount, group.amount_unit) == (f"{100 * (GROUPED_FROM - 1)}.10", "yuan")
    assert group.next_step == f"payment-callbacks orders attention --group {GROUP}"
    assert single.id == "conflict/acme/DK1"


def test_the_orders_of_a_group_are_listed_on_request_and_again_by_themselves_once_they_are_few(
    store: LedgerStore, attention: AttentionList
) -> None:
    dispute_amounts(store, 1, GROUPED_FROM)
    orders = {f"D{number}" for number in range(1, GROUPED_FROM + 1)}
    members = attention.list(AttentionFilter(group=GROUP), limit=100)
    assert {item.biz_order_no for item in members} == orders
    assert {(item.kind, item.orders, item.amount) for item in members} == {(AttentionKind.CONFLICT, 1, "100.00")}
    assert attention.list(AttentionFilter(group="disputed-field/acme/pay_type"), limit=100) == []
    store.resolve(
        Resolution(order=OrderKey("acme", "D1"), status=OrderStatus.FAILED, stated_by="Li", reason="the bank says so")
    )
    assert {item.biz_order_no for item in attention.list(ANY, limit=100)} == orders - {"D1"}


def test_conflicts_of_several_merchants_or_fields_are_no_group(
    make_store: Callable[..., LedgerStore], attention: AttentionList
) -> None:
    store = make_store(merchants=["acme", "other"])
    dispute_amounts(store, 1, GROUPED_FROM - 1)
    for number in range(GROUPED_FROM - 1):
        conflict(store, f"DK{number}")
    other = [a_claim(order="D1", merchant="other", amount=Money(amount, "yuan")) for amount in ("1.00", "2.00")]
    store.record(other)
    listed = attention.list(ANY, limit=100)
    assert {item.kind for item in listed} == {AttentionKind.CONFLICT}
    assert len(listed) == 2 * (GROUPED_FROM - 1) + 1


def test_an_acknowledged_group_is_out_of_sight_with_its_orders_until_another_one_joins_it(
    store: LedgerStore, attention: AttentionList, clock: Any
) -> None:
    dispute_amounts(store, 1, GROUPED_FROM)
    acknowledged = attention.acknowledge(GROUP, name="Li", note="the unit is being set")
    assert (acknowledged.orders, acknowledged.amount) == (GROUPED_FROM, f"{100 * GROUPED_FROM}.00")
    assert attention.list(AttentionFilter(), limit=100) == []
    members = attention.list(AttentionFilter(group=GROUP, acknowledged=None), limit=100)
    assert {item.note for item in members} == {"the unit is being set"}
    clock.forward(60)
    dispute_amounts(store, GROUPED_FROM + 1, GROUPED_FROM + 1)
    assert only(attention, AttentionFilter()).orders == GROUPED_FROM + 1


def test_one_order_of_a_group_can_be_acknowledged_too(store: LedgerStore, attention: AttentionList) -> None:
    dispute_amounts(store, 1, GROUPED_FROM)
    attention.acknowledge(GROUP, name="Li", note="the unit is being set")
    attention.acknowledge("conflict/acme/D1", name="Han", note="the bank is asked")
    members = attention.list(AttentionFilter(group=GROUP, acknowledged=None), limit=100)
    assert Counter(item.acknowledged_by for item in members) == {"Li": GROUPED_FROM - 1, "Han": 1}


def test_a_proposal_waits_beside_what_else_waits_until_it_is_decided_or_has_lapsed(
    make_store: Callable[..., LedgerStore], attention: AttentionList
) -> None:
    store = make_store(second_person_above="1.00")
    announce(store, "DK 1")
    conflict(store, "DK 1")
    failed = Resolution(
        order=OrderKey("acme", "DK 1"), status=OrderStatus.FAILED, stated_by="Li", reason="seen", identity="li"
    )
    chosen = AttentionFilter(kind=AttentionKind.PROPOSAL)
    for end in ("withdrawn", "lapsed", "confirmed"):
        proposal = store.resolve(failed)
        assert isinstance(proposal, ProposalRecord)
        item = only(attention, chosen)
        assert (item.id, item.since) == (f"proposal/acme/DK 1/{proposal.id}", NOON)
        assert (item.amount, item.amount_unit, item.detail) == ("100.00", "yuan", "failed, by Li: seen")
        assert item.next_step == f"payment-callbacks orders confirm --proposal {proposal.id} acme 'DK 1'"
        assert attention.count()["proposal", "acme", "", "false"] == 1
        if end == "withdrawn":
            assert {one.kind for one in attention.list(ANY, limit=10)} == {
                AttentionKind.CONFLICT,
                AttentionKind.PROPOSAL,
            }
            store.withdraw(failed.order, proposal.id, author=AUTHOR)
        elif end == "lapsed":
            store.record([a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, order="DK 1", minute=9)])
        else:
            store.confirm(failed.order, proposal.id, author=replace(AUTHOR, identity="wang"))
        assert attention.list(chosen, limit=10) == []


def test_an_order_s_newest_quarantined_claim_waits_until_a_claim_counts(
    store: LedgerStore, attention: AttentionList
) -> None:
    quarantine(store, "DK1")
    quarantine(store, "DK1", trust=Trust.QUERIED)
    item = only(attention)
    assert (item.kind, item.detail) == (AttentionKind.QUARANTINED_CLAIM, "pay_status: ??")
    store.record([a_claim(trust=Trust.CHECKSUM, order="DK1")])  # anyone can send this
    assert only(attention) == item
    store.record([a_claim(trust=Trust.QUERIED, order="DK1", minute=1)])
    assert AttentionKind.QUARANTINED_CLAIM not in {one.kind for one in attention.list(ANY, limit=10)}


def test_a_quarantined_claim_waits_since_the_first_one_after_the_last_that_counted(
    store: LedgerStore, attention: AttentionList, clock: Any
) -> None:
    quarantine(store, "DK1")
    clock.forward(60)
    store.record([a_claim(OrderStatus.PROCESSING, order="DK1")])
    clock.forward(60)
    for _ in range(3):
        quarantine(store, "DK1", trust=Trust.QUERIED)
        clock.forward(60)
    item = only(attention)
    assert (item.since, item.changed_at) == (NOON + timedelta(minutes=2), NOON + timedelta(minutes=4))


def test_a_withhold_of_unknown_outcome_waits_after_a_while_until_the_gateway_is_seen_to_have_it(
    store: LedgerStore, withholds: Withholds, clock: Any, attention: AttentionList
) -> None:
    for order in ("DK1", "DK2", "DK3"):
        announce(store, order)
        withholds.begin(OrderKey("acme", order), sent_by="shop")
    withholds.settle(OrderKey("acme", "DK1"), WithholdOutcome.UNKNOWN, detail="no answer")
    withholds.settle(OrderKey("acme", "DK3"), WithholdOutcome.NOT_DONE, detail="refused")
    assert attention.list(ANY, limit=10) == []
    clock.forward(WITHHOLD_UNKNOWN_FOR.total_seconds())
    unknown, sending = attention.list(ANY, limit=10)
    assert (unknown.kind, unknown.biz_order_no, unknown.detail) == (
        AttentionKind.UNKNOWN_WITHHOLD,
        "DK1",
        "no answer",
    )
    assert sending.biz_order_no == "DK2"
    store.record([a_claim(OrderStatus.PROCESSING, order="DK1", minute=1)])
    assert only(attention).biz_order_no == "DK2"


def test_a_parked_delivery_waits_until_it_is_replayed(
    store: LedgerStore, outbox: Outbox, attention: AttentionList
) -> None:
    park_delivery(store, outbox, "DK1")
    item = only(attention)
    assert (item.kind, item.endpoint, item.detail) == (AttentionKind.PARKED_DELIVERY, "books", "HTTP 500")
    assert item.next_step == "payment-callbacks replay --endpoint books --reason REASON acme/DK1/1"
    outbox.replay_parked(endpoint="books", author=AUTHOR)
    assert attention.list(ANY, limit=10) == []


def test_many_parked_deliveries_of_one_endpoint_are_one_item_with_their_number_and_the_last_error(
    store: LedgerStore, outbox: Outbox, attention: AttentionList, clock: Any
) -> None:
    park_delivery(store, outbox, "DK1")
    park_failures(store, outbox, 1, GROUPED_FROM - 1)
    singles = attention.list(ANY, limit=100)
    assert {(item.kind, item.events) for item in singles} == {(AttentionKind.PARKED_DELIVERY, 1)}
    clock.forward(60)
    park_failures(store, outbox, GROUPED_FROM, GROUPED_FROM, error="HTTP 410")
    group, single = sorted(attention.list(ANY, limit=100), key=lambda item: item.endpoint != "crm")
    assert (group.id, group.kind, group.endpoint) == (PARKED, AttentionKind.PARKED_DELIVERIES, "crm")
    assert (group.since, group.detail, group.events, group.orders) == (NOON, "HTTP 410", GROUPED_FROM, 0)
    assert group.next_step == "payment-callbacks replay --endpoint crm --parked --reason REASON"
    assert (single.endpoint, single.kind) == ("books", AttentionKind.PARKED_DELIVERY)
    members = attention.list(AttentionFilter(group=PARKED, acknowledged=None), limit=100)
    assert {item.event_id for item in members} == {f"acme/F{number}/1" for number in range(1, GROUPED_FROM + 1)}
    outbox.replay(["acme/F1/1"], endpoint="crm", author=AUTHOR)
    assert len(attention.list(ANY, limit=100)) == GROUPED_FROM


def test_an_acknowledged_group_of_parked_deliveries_is_in_sight_again_with_the_next_one(
    store: LedgerStore, outbox: Outbox, attention: AttentionList, clock: Any
) -> None:
    park_failures(store, outbox, 1, GROUPED_FROM)
    attention.acknowledge(PARKED, name="Li", note="the shop moves")
    assert attention.list(AttentionFilter(), limit=100) == []
    clock.forward(60)
    park_failures(store, outbox, GROUPED_FROM + 1, GROUPED_FROM + 1)
    assert only(attention, AttentionFilter()).events == GROUPED_FROM + 1


def test_a_pause_waits_once_it_is_long(pauses: Pauses, clock: Any, attention: AttentionList) -> None:
    pauses.pause("books", author=Author(name="li", reason="moves house"))
    clock.forward(PAUSED_TOO_LONG.total_seconds() - 1)
    assert attention.list(ANY, limit=10) == []
    clock.forward(1)
    item = only(attention)
    assert (item.kind, item.endpoint, item.detail) == (AttentionKind.PAUSED_ENDPOINT, "books", "li: moves house")
    assert item.next_step == "payment-callbacks endpoints resume --reason REASON books"


def make_one_of_each(
    store: LedgerStore, queue: InquiryQueue, outbox: Outbox, withholds: Withholds, pauses: Pauses, clock: Any
) -> None:
    park_delivery(store, outbox, "DK1")
    park_failures(store, outbox, 1, GROUPED_FROM)
    pauses.pause("books", author=Author(name="li", reason="moves house"))
    park_inquiry(store, queue, clock, "DK2")
    conflict(store, "DK3")
    conflict(store, "DK4")
    quarantine(store, "DK5")
    announce(store, "DK6")
    withholds.begin(OrderKey("acme", "DK6"), sent_by="shop")
    dispute_amounts(store, 1, GROUPED_FROM)
    announce(store, "DK7")
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.CHECKSUM, order="DK7")])
    withholds.begin(OrderKey("acme", "DK7"), sent_by="shop")
    withholds.settle(OrderKey("acme", "DK7"), WithholdOutcome.UNKNOWN, refusal_message="余额不足")
    clock.forward(WITHHOLD_UNKNOWN_FOR.total_seconds())


def report_to(engine: Engine, clock: Any) -> None:
    """What is not in the ledger by itself: a dead letter, an old message in the queue, a spool that is silent."""
    letter = DeadLetterRecord(id="m1", reason="UndecodableMessage", died_at=NOON, body="{")
    DeadLetterStore(engine=engine).record([letter])
    now = clock()
    DepthStore(engine=engine, clock=lambda _: now).record(
        [
            DepthReport(reporter=QUEUE, name="queue", messages=1, oldest_at=now - WAITING_TOO_LONG, reported_at=now),
            DepthReport(reporter="spool-1", name="spool", messages=0, oldest_at=None, reported_at=now - SILENT_AFTER),
        ]
    )


def test_the_counts_are_those_of_the_list_in_one_transaction(
    store: LedgerStore,
    make_store: Callable[..., LedgerStore],
    queue: InquiryQueue,
    outbox: Outbox,
    withholds: Withholds,
    pauses: Pauses,
    clock: Any,
    attention: AttentionList,
    ledger_engine: Engine,
) -> None:
    make_one_of_each(store, queue, outbox, withholds, pauses, clock)
    make_store(second_person_above="1.00").resolve(
        Resolution(
            order=OrderKey("acme", "DK6"), status=OrderStatus.FAILED, stated_by="Li", reason="seen", identity="li"
        )
    )
    report_to(ledger_engine, clock)
    attention.acknowledge("conflict/acme/DK3", name="Li", note="asked the gateway")
    with ledger_engine.connect() as connection, connection.begin():
        counts = count_items(connection, clock())
        items = list_items(connection, ANY, 1000, clock())
    assert {item.kind for item in items} == set(AttentionKind)
    assert counts == Counter(
        (
            item.kind.value,
            "" if item.endpoint else item.merchant,
            item.endpoint,
            "true" if item.acknowledged_at else "false",
        )
        for item in items
    )
    assert counts["conflict", "acme", "", "true"] == counts["conflict", "acme", "", "false"] == 1
    assert counts["disputed-field", "acme", "", "false"] == 1
    assert all(item.since <= item.changed_at for item in items)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_the_members_of_groups_are_left_out_before_they_are_read(ledger_engine: Engine) -> None:
    items = items_at(NOON)
    query = select(items).where(items.c.grouped == "")
    compiled = query.compile(ledger_engine, compile_kwargs={"render_postcompile": True})
    with ledger_engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params).scalars().all()
    assert [line for line in plan if "found.grouped" in line and "Filter" in line] == []


def test_a_kind_without_items_is_counted_as_none(store: LedgerStore, attention: AttentionList) -> None:
    conflict(store, "DK1")
    counts = attention.count()
    assert counts["conflict", "acme", "", "false"] == 1
    assert {labels[0] for labels in counts} == set(AttentionKind)
    assert sum(counts.values()) == 1


def test_an_acknowledged_item_is_out_of_sight(store: LedgerStore, attention: AttentionList, clock: Any) -> None:
    conflict(store, "DK1")
    shown = only(attention, AttentionFilter())
    acknowledged = attention.acknowledge(shown.id, name="李四", note="the bank is asked")
    assert (acknowledged.acknowledged_by, acknowledged.note, acknowledged.acknowledged_at) == (
        "李四",
        "the bank is asked",
        clock(),
    )
    assert attention.list(AttentionFilter(), limit=10) == []
    assert only(attention, AttentionFilter(acknowledged=True)) == acknowledged


def test_a_delivery_that_is_parked_again_is_in_sight_again(
    store: LedgerStore, outbox: Outbox, attention: AttentionList, clock: Any
) -> None:
    park_delivery(store, outbox, "DK1")
    attention.acknowledge(only(attention).id, name="Li", note="the shop moves")
    clock.forward(60)
    outbox.replay_parked(endpoint="books", author=AUTHOR)
    due = outbox.lease_due(endpoint="books", limit=1, lease_seconds=60)
    outbox.settle_failed([FailedDelivery(delivery=due[0], error="HTTP 502", wait_seconds=None)])
    assert only(attention, AttentionFilter()).detail == "HTTP 502"


def test_only_what_waits_can_be_acknowledged(attention: AttentionList) -> None:
    with pytest.raises(AttentionItemUnknown):
        attention.acknowledge("conflict/acme/DK404", name="Li", note="?")


def test_the_list_is_read_in_pages_of_those_that_waited_longest(
    store: LedgerStore, attention: AttentionList, clock: Any
) -> None:
    orders = [f"DK{number}" for number in range(7)]
    for number, order in enumerate(orders):
        clock.forward(number % 2)  # some have waited equally long
        conflict(store, order)
    seen: list[str] = []
    place = None
    while page := attention.list(AttentionFilter(after=place), limit=2):
        seen += [item.biz_order_no for item in page]
        place = page[-1].place
    assert seen == orders


def test_the_list_is_filtered_by_merchant_and_kind(
    make_store: Callable[..., LedgerStore], attention: AttentionList
) -> None:
    store = make_store(merchants=["acme", "other"])
    conflict(store, "DK1")
    quarantine(store, "DK2", merchant="other")
    assert only(attention, AttentionFilter(merchant="other")).biz_order_no == "DK2"
    assert only(attention, AttentionFilter(kind=AttentionKind.CONFLICT)).biz_order_no == "DK1"
    assert attention.list(AttentionFilter(kind=AttentionKind.CONFLICT, merchant="other"), limit=10) == []


def test_the_time_of_every_item_is_aware(store: LedgerStore, attention: AttentionList) -> None:
    quarantine(store, "DK1")
    item = only(attention)
    assert item.since == NOON
    assert item.since.utcoffset() == timedelta()
