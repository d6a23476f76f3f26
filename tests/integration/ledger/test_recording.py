"""What recorded claims leave in the database, rule by rule."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Engine, select

from service.config.settings import MerchantSettings
from service.domain.claims import Claim, OrderKey, OrderStatus, Trust
from service.domain.events import EventType
from service.domain.order_state import Verdict
from service.gateway.bodies import BodyKind, JsonValue
from service.gateway.order_claims import claim_from_callback
from service.gateway.signature import VerifiedCallback
from service.ledger.decisions import EndpointRules
from service.ledger.errors import ClaimUnstorable
from service.ledger.store import LedgerStore
from service.ledger.tables import claims, orders
from tests.support.claims import NOON, a_claim
from tests.support.ledger import Count, MakeStore

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql", "pooled", "sqlite"], indirect=True)

KEY = OrderKey("acme", "DK1")
OLD_SUCCESS: Mapping[str, JsonValue] = {
    "biz_order_no": "DK1",
    "pay_order_no": "P1",
    "order_type": "single_withhold",
    "pay_type": "baofoo_001",
    "pay_status": "success",
    "pay_time": "2019-07-01T12:00:05.123+08:00",
    "channel_response": "",
}
#: Of this success, by the release before.
OLD_DIGEST = "2719f18901cd46a4eba3f9a6ff3074dca77e1048a6dd0d7c80529ae26d39f106"


def event_types(store: LedgerStore) -> list[EventType]:
    return [event.type for event in store.order_history(KEY).events]


def status(store: LedgerStore) -> OrderStatus | None:
    order = store.load_order(KEY)
    return None if order is None else order.state.status


def test_a_success_is_applied_and_queued_for_the_endpoint(store: LedgerStore) -> None:
    assert store.record([a_claim()]) == [Verdict.APPLIED]
    (event,) = store.order_history(KEY).events
    assert (event.type, event.sequence) == (EventType.SUCCEEDED, 1)
    assert [delivery.endpoint for delivery in event.deliveries] == ["books"]


def test_an_event_says_what_the_claim_said_with_the_channels_words_masked(store: LedgerStore) -> None:
    store.record([a_claim(paid_at=NOON, channel_response="余额不足 6222021234561234")])
    (event,) = store.order_history(KEY).events
    data = json.loads(event.body)["data"]
    assert data["channel_response"] == "余额不足 6222****1234"
    assert (data["status"], data["previous_status"], data["pay_order_no"]) == ("succeeded", "initial", "P1")
    assert data["paid_at"] == NOON.isoformat()


def test_the_same_callback_again_is_a_duplicate_without_a_row(store: LedgerStore, count: Count) -> None:
    store.record([a_claim()])
    assert store.record([a_claim(minute=3)]) == [Verdict.DUPLICATE]
    assert count(claims) == 1


def test_an_old_success_repeated_after_a_correction_changes_nothing_though_its_time_is_read_now(
    store: LedgerStore, count: Count
) -> None:
    repeated = claim_from_callback(
        VerifiedCallback(fields=OLD_SUCCESS, sign="a" * 32, dialect="spliced", kind=BodyKind.JSON),
        merchant=MerchantSettings(slug="acme", pay_types=frozenset({"baofoo_001"}), amount_unit="yuan"),
        trust=Trust.CAPABILITY,
        received_at=NOON + timedelta(minutes=9),
        traceparent=None,
    )
    assert repeated.paid_at is not None
    # As the release before recorded it: it could not read such a time.
    recorded = replace(repeated, digest=OLD_DIGEST, paid_at=None, stated_at=NOON)
    store.record([recorded, a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=1)])
    told = event_types(store)
    assert told == [EventType.SUCCEEDED, EventType.CORRECTED]

    assert store.record([repeated]) == [Verdict.DUPLICATE]

    assert event_types(store) == told
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.state.conflicted, count(claims)) == (OrderStatus.FAILED, False, 2)


def test_the_same_callback_twice_in_one_batch_is_one_row(store: LedgerStore, count: Count) -> None:
    assert store.record([a_claim(), a_claim(minute=1)]) == [Verdict.APPLIED, Verdict.DUPLICATE]
    assert count(claims) == 1


def test_a_repeat_among_new_claims_is_left_out_of_their_decision(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, minute=5)])
    batch = [a_claim(minute=9), a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=7)]
    # Taken as news, the repeated callback of minute 9 would be later than the answer of minute 7.
    assert store.record(batch) == [Verdict.DUPLICATE, Verdict.CORRECTED]
    assert status(store) is OrderStatus.FAILED
    assert [claim.verdict for claim in store.order_history(KEY).claims][-1] is Verdict.CORRECTED


def test_answers_to_questions_are_never_repeats(store: LedgerStore, count: Count) -> None:
    answer = a_claim(trust=Trust.QUERIED)
    store.record([answer, answer])
    store.record([answer])
    assert count(claims) == 3


def test_an_operators_word_is_kept_with_name_and_reason(store: LedgerStore) -> None:
    store.record([a_claim()])
    store.record([a_claim(OrderStatus.FAILED, Trust.OPERATOR, stated_by="li", reason="bank statement")])
    last = store.order_history(KEY).claims[-1]
    assert (last.stated_by, last.reason, last.verdict) == ("li", "bank statement", Verdict.CORRECTED)
    assert status(store) is OrderStatus.FAILED


@pytest.mark.parametrize("forged", [*OrderStatus])
def test_a_claim_below_the_required_trust_makes_no_order_and_no_event(
    store: LedgerStore, count: Count, forged: OrderStatus
) -> None:
    assert store.record([a_claim(forged, Trust.CHECKSUM)]) == [Verdict.UNTRUSTED]
    assert count(orders) == 0
    assert event_types(store) == []


def test_a_forged_fail_before_a_true_success_ends_in_succeeded(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.FAILED, Trust.CHECKSUM)])
    store.record([a_claim()])
    assert status(store) is OrderStatus.SUCCEEDED
    assert event_types(store) == [EventType.SUCCEEDED]


def test_a_forged_pending_with_a_false_pay_order_no_harms_nothing(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.PROCESSING, Trust.CHECKSUM, pay_order_no="P-forged")])
    store.record([a_claim()])
    order = store.load_order(KEY)
    assert order is not None
    assert (order.state.status, order.state.pay_order_no) == (OrderStatus.SUCCEEDED, "P1")
    assert not order.state.conflicted


@pytest.mark.parametrize("together", [True, False])
def test_a_forged_copy_before_the_true_callback_does_not_swallow_it(store: LedgerStore, together: bool) -> None:
    forged, true = a_claim(trust=Trust.CHECKSUM), a_claim()
    assert forged.digest == true.digest
    batches = [[forged, true]] if together else [[forged], [true]]
    verdicts = [verdict for batch in batches for verdict in store.record(batch)]
    assert verdicts == [Verdict.UNTRUSTED, Verdict.APPLIED]


@pytest.mark.parametrize("together", [True, False])
def test_a_copy_that_proves_more_raises_the_trust(make_store: MakeStore, together: bool) -> None:
    store = make_store(required=Trust.CHECKSUM)
    by_sign, by_token = a_claim(trust=Trust.CHECKSUM), a_claim()
    for batch in [[by_sign, by_token]] if together else [[by_sign], [by_token]]:
        store.record(batch)
    order = store.load_order(KEY)
    assert order is not None
    assert order.state.trust is Trust.CAPABILITY


def test_an_unreadable_claim_is_kept_for_a_person_and_changes_nothing(store: LedgerStore, count: Count) -> None:
    assert store.record([a_claim(None, quarantine="unknown pay_status")]) == [Verdict.QUARANTINED]
    assert store.order_history(KEY).claims[0].quarantine == "unknown pay_status"
    assert count(orders) == 0


def test_a_callback_repeated_once_the_settings_can_read_it_is_decided(store: LedgerStore) -> None:
    store.record([a_claim(quarantine="pay_type is not the merchant's")])
    assert store.record([a_claim()]) == [Verdict.APPLIED]


def test_a_callback_repeated_once_its_merchant_is_configured_is_decided(make_store: MakeStore) -> None:
    assert make_store(merchants=["other"]).record([a_claim()]) == [Verdict.QUARANTINED]
    store = make_store()
    assert "not configured" in str(store.order_history(KEY).claims[0].quarantine)
    assert store.record([a_claim(minute=5)]) == [Verdict.APPLIED]


def test_initial_makes_an_order_without_an_event(store: LedgerStore) -> None:
    store.record([a_claim(OrderStatus.INITIAL, Trust.QUERIED)])
    order = store.load_order(KEY)
    assert order is not None
    assert order.sequence == 0
    assert event_types(store) == []


def test_sequences_count_every_event_of_an_order_without_gaps(store: LedgerStore) -> None:
    store.record(
        [
            a_claim(OrderStatus.PROCESSING),
            a_claim(),
            a_claim(OrderStatus.FAILED, minute=1),
            a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=2),
        ]
    )
    told = [(event.sequence, event.type) for event in store.order_history(KEY).events]
    assert told == [
        (1, EventType.PROCESSING),
        (2, EventType.SUCCEEDED),
        (3, EventType.CONFLICTED),
        (4, EventType.CORRECTED),
    ]


def receivers(store: LedgerStore) -> list[tuple[EventType, list[str]]]:
    return [(e.type, [d.endpoint for d in e.deliveries]) for e in store.order_history(KEY).events]


def test_a_conflict_and_its_mere_end_go_only_to_endpoints_that_name_conflicts(
    make_store: MakeStore, all_types: frozenset[EventType]
) -> None:
    watch = EndpointRules(name="watch", types=all_types)
    books = EndpointRules(name="books", types=all_types - {EventType.CONFLICTED})
    store = make_store(endpoints=[books, watch])
    dispute = [a_claim(), a_claim(OrderStatus.FAILED, minute=1), a_claim(trust=Trust.QUERIED, minute=2)]
    store.record(dispute)
    assert receivers(store) == [
        (EventType.SUCCEEDED, ["books", "watch"]),
        (EventType.CONFLICTED, ["watch"]),
        (EventType.CORRECTED, ["watch"]),
    ]


def test_a_correction_of_the_status_goes_to_everybody(make_store: MakeStore, all_types: frozenset[EventType]) -> None:
    store = make_store(endpoints=[EndpointRules(name="books", types=all_types - {EventType.CONFLICTED})])
    store.record([a_claim(), a_claim(OrderStatus.FAILED, Trust.QUERIED, minute=2)])
    assert receivers(store)[-1] == (EventType.CORRECTED, ["books"])


def test_an_endpoint_receives_only_its_own_types_and_merchants(make_store: MakeStore) -> None:
    ends = frozenset({EventType.SUCCEEDED})
    store = make_store(
        endpoints=[
            EndpointRules(name="ends", types=ends),
            EndpointRules(name="others", types=ends, merchants=frozenset({"other"})),
        ]
    )
    store.record([a_claim(OrderStatus.PROCESSING), a_claim()])
    assert receivers(store) == [(EventType.PROCESSING, []), (EventType.SUCCEEDED, ["ends"])]


def test_a_nul_in_the_channels_words_costs_no_payment(store: LedgerStore) -> None:
    odd = a_claim(channel_response="ok\x00\ud800", unknown_fields={"memo": "\x00"})
    assert store.record([odd]) == [Verdict.APPLIED]
    (kept,) = store.order_history(KEY).claims
    assert kept.channel_response == "ok\\u0000\\ud800"
    assert kept.unknown_fields == {"memo": "\x00"}


@pytest.mark.parametrize("order", ["DK\x001", "DK\udc80", "", "x" * 129])
def test_an_order_number_that_cannot_be_kept_as_it_is_is_poison(store: LedgerStore, count: Count, order: str) -> None:
    with pytest.raises(ClaimUnstorable):
        store.record([a_claim(), a_claim(order=order)])
    assert count(claims) == 0


def test_the_longest_order_numbers_of_any_script_are_recorded(store: LedgerStore) -> None:
    assert store.record([a_claim(order="𠮷" * 128), a_claim(order="/?#% '\"" * 18)]) == [Verdict.APPLIED] * 2


def test_pruning_removes_payloads_and_keeps_orders(store: LedgerStore) -> None:
    store.record([a_claim(channel_response="words", unknown_fields={"memo": "x"})])
    assert store.prune(before=NOON) == 0
    assert store.prune(before=NOON.replace(hour=13)) == 1
    assert store.prune(before=NOON.replace(hour=13)) == 0
    (claim,) = store.order_history(KEY).claims
    assert (claim.channel_response, claim.unknown_fields) == ("", {})
    repeats = [a_claim(minute=90), a_claim(minute=90, channel_response="other words")]
    assert store.record(repeats) == [Verdict.DUPLICATE] * 2


@pytest.mark.parametrize("trust", [Trust.CHECKSUM, Trust.CAPABILITY])
def test_pruning_removes_words_that_nobody_knew_and_leaves_those_that_are_known(
    store: LedgerStore, ledger_engine: Engine, trust: Trust
) -> None:
    said: dict[str, Any] = {
        "order_type": "张三",
        "pay_type": "6222021234561234",
        "quarantine": "unknown order_type '张三'",
    }
    store.record([a_claim(trust=trust, **said), a_claim(trust=trust, order="DK2", channel_response="张三")])
    assert store.prune(before=NOON.replace(hour=13)) == 2
    (odd,), (known,) = store.order_history(KEY).claims, store.order_history(OrderKey("acme", "DK2")).claims
    assert (odd.order_type, odd.pay_type) == ("", "")
    assert odd.quarantine is not None
    assert (known.order_type, known.pay_type, known.quarantine) == ("withhold", "bank", None)
    with ledger_engine.connect() as connection:
        kept = [str(row) for row in connection.execute(select(claims))]
    assert not any(word in row for row in kept for word in ("张三", "6222"))
    assert store.record([a_claim(trust=trust, **said)]) == [Verdict.DUPLICATE]


def test_texts_of_a_forgeable_claim_are_shortened_and_those_of_a_trusted_claim_are_not(
    make_store: MakeStore,
) -> None:
    store = make_store(required=Trust.CAPABILITY)
    long: dict[str, Any] = {"channel_response": "x" * 60_000, "pay_type": "y" * 60_000, "pay_order_no": "z" * 1000}
    unknown = {f"field {number}": "y" * 1000 for number in range(100)}
    for trust in (Trust.CHECKSUM, Trust.CAPABILITY):
        store.record([a_claim(trust=trust, unknown_fields=unknown, **long)])
    stranger, believed = store.order_history(KEY).claims
    assert (stranger.verdict, believed.verdict) == (Verdict.UNTRUSTED, Verdict.APPLIED)
    assert stranger.channel_response == "x" * 250 + "…"
    assert len(stranger.pay_type + (stranger.pay_order_no or "")) < 600
    assert len(json.dumps(dict(stranger.unknown_fields))) < 3000
    assert (believed.channel_response, believed.unknown_fields) == (long["channel_response"], unknown)


def test_a_batch_about_known_and_unknown_orders_is_recorded_as_its_claims_are_one_by_one(
    store: LedgerStore, count: Count
) -> None:
    def batch(prefix: str) -> list[Claim]:
        return [
            claim
            for number in range(4)
            for claim in (
                a_claim(OrderStatus.PROCESSING, order=f"{prefix}{number}"),
                a_claim(OrderStatus.FAILED, Trust.CHECKSUM, order=f"{prefix}{number}", minute=1),
                a_claim(OrderStatus.SUCCEEDED, order=f"{prefix}{number}", minute=2),
            )
        ]

    def told(prefix: str) -> list[list[tuple[int, EventType]]]:
        histories = [store.order_history(OrderKey("acme", f"{prefix}{number}")) for number in range(4)]
        return [[(event.sequence, event.type) for event in history.events] for history in histories]

    store.record(batch("A")[:5])
    at_once = store.record(batch("A"))
    for claim in batch("B")[:5]:
        store.record([claim])
    assert at_once == [store.record([claim])[0] for claim in batch("B")]
    assert told("A") == told("B") == [[(1, EventType.PROCESSING), (2, EventType.SUCCEEDED)]] * 4
    assert count(claims) == 24


def test_the_texts_of_a_claim_are_kept_as_they_are_whatever_json_and_sql_make_of_them(store: LedgerStore) -> None:
    words = 'a"b\\c\n\t/{}[]null %s :x $1 \u2028 \x7f \x1b 余额不足 😀 \\u0041'
    order = '{"a":\\1} %(rows)s 号'
    store.record([a_claim(order=order, channel_response=words, pay_order_no="null", order_type="true", reason="1e5")])
    history = store.order_history(OrderKey("acme", order))
    (claim,), (event,) = history.claims, history.events
    assert (claim.channel_response, claim.pay_order_no, claim.order_type) == (words, "null", "true")
    assert claim.reason == "1e5"
    assert json.loads(event.body)["data"]["channel_response"] == words
    assert history.order is not None
    assert history.order.biz_order_no == order
    assert store.record([a_claim(OrderStatus.FAILED, Trust.QUERIED, order=order, minute=1)]) == [Verdict.CORRECTED]


def test_times_are_kept_to_the_microsecond_whatever_their_zone(store: LedgerStore) -> None:
    local_mean_time = timezone(timedelta(hours=8, minutes=5, seconds=43))
    paid_at = datetime(1, 1, 2, 3, 4, 5, 6, tzinfo=local_mean_time)
    stated_at = datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-11)))
    store.record([a_claim(paid_at=paid_at, stated_at=stated_at)])
    history = store.order_history(KEY)
    (claim,) = history.claims
    assert (claim.paid_at, claim.stated_at) == (paid_at, stated_at)
    assert history.order is not None
    assert (history.order.paid_at, history.order.state.as_of) == (paid_at, stated_at)
