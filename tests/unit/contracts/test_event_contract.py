"""Every event that the ledger can make is what the contract says, and nothing else is."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from service.domain.claims import Claim, ClaimSource, OrderStatus, Trust
from service.domain.events import EndpointTest, EventType, PaymentEvent, write_event, write_test
from service.domain.money import Money
from service.domain.order_state import OrderState
from service.ledger.claims import IncomingClaim
from service.ledger.decisions import Decision, EndpointRules, MerchantRules
from service.ledger.orders import OrderRecord
from service.ledger.sanitizing import sanitized
from tests.support.downstream import event_validator, shipped_event_schema

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
RULES = MerchantRules(
    required_trust=Trust.CHECKSUM,
    can_ask=True,
    answer_due_seconds=600.0,
    inquiry_horizon_seconds=86_400.0,
    time_zone=ZoneInfo("Asia/Shanghai"),
)
EVERYTHING = EndpointRules(name="all", types=frozenset(EventType))

ORDER_NUMBERS = st.text(min_size=1, max_size=128).filter(str.isprintable)
TIMES = st.datetimes(
    min_value=datetime(1, 1, 3),  # noqa: DTZ001 - hypothesis wants it so
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.timezones(),
    allow_imaginary=False,
)
CLAIMS = st.builds(
    Claim,
    merchant=st.just("acme"),
    biz_order_no=st.just("to be replaced"),
    trust=st.sampled_from(Trust),
    source=st.sampled_from(ClaimSource),
    status=st.sampled_from(OrderStatus),
    pay_order_no=st.none() | st.sampled_from(["P1", "P2"]) | st.text(),
    order_type=st.text(),
    pay_type=st.text(),
    paid_at=st.none() | TIMES,
    channel_response=st.text(),
    stated_at=st.integers(-9, 9).map(lambda minutes: NOON + timedelta(minutes=minutes)) | TIMES,
    digest=st.just("0" * 64),
    traceparent=st.none() | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", fullmatch=True),
)
AMOUNTS = st.sampled_from([(None, None), ("100.00", "yuan"), ("0.1", "yuan"), ("10000", "fen")])


def events_of(
    order_no: str,
    amount: tuple[str | None, str | None],
    claims: Sequence[Claim],
    rules: MerchantRules = RULES,
) -> list[PaymentEvent]:
    """What the ledger tells downstream after these claims about one announced order."""
    order = OrderRecord(
        merchant="acme",
        biz_order_no=order_no,
        state=OrderState(amount=None if amount[0] is None or amount[1] is None else Money(amount[0], amount[1])),
        created_at=NOON,
        updated_at=NOON,
    )
    entries = [
        IncomingClaim(position=position, claim=sanitized(_about(claim, order_no)), counted=True)
        for position, claim in enumerate(claims)
    ]
    decision = Decision(order, rules=rules, endpoints=[EVERYTHING], now=NOON)
    decision.take(entries)
    return decision.events


def _about(claim: Claim, order_no: str) -> Claim:
    values = {name: getattr(claim, name) for name in claim.__dataclass_fields__}
    return Claim(**{**values, "biz_order_no": order_no})


@pytest.fixture(scope="module")
def strict() -> Draft202012Validator:
    return event_validator(closed=True)


@pytest.fixture
def example() -> Any:
    (made,) = events_of("DK/1", ("100.00", "yuan"), [a_claim()])
    return json.loads(write_event(made))


def a_claim(**more: Any) -> Claim:
    facts: dict[str, Any] = {
        "merchant": "acme",
        "biz_order_no": "DK/1",
        "trust": Trust.CAPABILITY,
        "source": ClaimSource.CALLBACK,
        "status": OrderStatus.SUCCEEDED,
        "pay_order_no": "P1",
        "paid_at": NOON,
        "stated_at": NOON,
        "digest": "0" * 64,
    }
    return Claim(**{**facts, **more})


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("America/New_York"), ZoneInfo("Asia/Tokyo")], ids=str)
def test_a_time_of_payment_goes_out_in_the_merchants_zone_whatever_zone_it_came_in(zone: tzinfo) -> None:
    [made] = events_of(
        "DK/1",
        (None, None),
        [a_claim(paid_at=NOON.astimezone(zone))],
    )
    assert json.loads(write_event(made))["data"]["paid_at"] == "2026-01-05T20:00:00+08:00"


@pytest.mark.parametrize("end", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York"])
def test_a_time_at_the_end_of_the_calendar_costs_no_event(end: datetime, zone: str) -> None:
    rules = replace(RULES, time_zone=ZoneInfo(zone))
    [made] = events_of("DK/1", (None, None), [a_claim(paid_at=end)], rules)
    assert json.loads(write_event(made))["data"]["paid_at"]


@settings(max_examples=100)
@given(order_no=ORDER_NUMBERS, amount=AMOUNTS, claims=st.lists(CLAIMS, min_size=1, max_size=5))
def test_every_event_that_claims_can_lead_to_is_as_the_contract_says(
    strict: Draft202012Validator, order_no: str, amount: tuple[str | None, str | None], claims: Sequence[Claim]
) -> None:
    for made in events_of(order_no, amount, claims):
        event(made.type.value)
        written = json.loads(write_event(made))
        strict.validate(written)
        optional = {"rule"} if made.type is EventType.CONFLICTED else {"rule", "disputed"}
        assert set(written["data"]) == set(shipped_event_schema()["properties"]["data"]["properties"]) - optional


def test_an_event_is_written_as_the_readme_shows_it() -> None:
    told = events_of(
        "DK20190701000001",
        ("100.00", "yuan"),
        [
            a_claim(
                order_type="single_withhold",
                pay_type="baofoo_001",
                paid_at=datetime(2026, 1, 5, 20, 0, 5, tzinfo=ZoneInfo("Asia/Shanghai")),
                stated_at=NOON + timedelta(seconds=7, milliseconds=120),
            )
        ],
    )
    assert [write_event(one).decode() for one in told] == [
        '{"specversion":"1.0","id":"acme/DK20190701000001/1","source":"/merchants/acme","type":"payment.succeeded",'
        '"subject":"DK20190701000001","time":"2026-01-05T12:00:07.120000+00:00","datacontenttype":"application/json",'
        '"data":{"merchant":"acme","biz_order_no":"DK20190701000001","pay_order_no":"P1",'
        '"order_type":"single_withhold","pay_type":"baofoo_001","status":"succeeded","previous_status":"initial",'
        '"sequence":1,"paid_at":"2026-01-05T20:00:05+08:00","amount":"100.00","amount_unit":"yuan",'
        '"channel_response":"","trust":"capability","observed_at":"2026-01-05T12:00:07.120000+00:00"}}'
    ]


def test_the_bytes_of_an_event_are_those_of_every_release() -> None:
    corrected = PaymentEvent(
        type=EventType.CORRECTED,
        merchant="acme",
        biz_order_no="DK/1.2 ä%",
        sequence=12,
        status=OrderStatus.FAILED,
        previous_status=OrderStatus.SUCCEEDED,
        pay_order_no=None,
        order_type='a"b\\c/\u2028\x7f\x1f',
        pay_type="",
        paid_at=datetime(1900, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
        amount="0.10",
        amount_unit="yuan",
        channel_response="交易成功 6222****1234 😀",
        trust=Trust.QUERIED,
        observed_at=datetime(2026, 1, 5, 20, 0, 5, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01",
    )
    assert write_event(corrected).decode() == (
        '{"specversion":"1.0","id":"acme/DK%2F1%2E2%20%C3%A4%25/12","source":"/merchants/acme",'
        '"type":"payment.corrected","subject":"DK/1.2 ä%","time":"2026-01-05T20:00:05.123456+05:30",'
        '"datacontenttype":"application/json","data":{"merchant":"acme","biz_order_no":"DK/1.2 ä%","pay_order_no":null,'
        '"order_type":"a\\"b\\\\c/\u2028\x7f\\u001f","pay_type":"","status":"failed","previous_status":"succeeded",'
        '"sequence":12,"paid_at":"1899-12-31T15:54:17+00:00","amount":"0.10","amount_unit":"yuan",'
        '"channel_response":"交易成功 6222****1234 😀","trust":"query",'
        '"observed_at":"2026-01-05T20:00:05.123456+05:30"},'
        '"traceparent":"00-abababababababababababababababab-cdcdcdcdcdcdcdcd-01"}'
    )
    without_a_trace = replace(corrected, trust=Trust.CHECKSUM, paid_at=None, traceparent="")
    assert json.loads(write_event(without_a_trace)).keys() == json.loads(write_event(corrected)).keys() - {
        "traceparent"
    }
    assert json.loads(write_event(without_a_trace))["data"]["paid_at"] is None


def test_the_bytes_of_a_test_are_those_of_every_release() -> None:
    assert write_test(EndpointTest(endpoint="shop", number="5d0c", sent_at=NOON)) == (
        b'{"specversion":"1.0","id":"test:shop:5d0c","source":"/endpoints/shop","type":"payment.test",'
        b'"time":"2026-01-05T12:00:00+00:00","datacontenttype":"application/json",'
        b'"data":{"endpoint":"shop","note":"A test. It tells of no payment."}}'
    )


def test_a_time_of_a_zone_that_was_seconds_off_is_told_in_utc() -> None:
    local_mean_time = datetime(1900, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert local_mean_time.isoformat() == "1900-01-01T00:00:00+08:05:43"
    (told,) = events_of("DK1", (None, None), [a_claim(paid_at=local_mean_time)])
    assert json.loads(write_event(told))["data"]["paid_at"] == "1899-12-31T15:54:17+00:00"


def _drop(name: str) -> Callable[[Any], object]:
    return lambda data: data.pop(name)


def _set(name: str, value: object) -> Callable[[Any], object]:
    return lambda data: data.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        _drop("sequence"),
        _drop("paid_at"),
        _set("sequence", 0),
        _set("sequence", "1"),
        _set("amount", 100.0),
        _set("amount", "1e2"),
        _set("amount_unit", "dollar"),
        _set("status", "success"),
        _set("status", "failed"),
        _set("previous_status", "failed"),
        _set("paid_at", "2026-01-05 20:00:05"),
        _set("paid_at", "2026-01-05T20:00:05"),
        _set("trust", "20"),
        _set("pay_order_no", 7),
        _set("order_type", None),
    ],
)
def test_an_event_with_a_changed_field_breaks_the_contract(example: Any, change: Callable[[Any], object]) -> None:
    changed = copy.deepcopy(example)
    change(changed["data"])
    event_validator().validate(example)
    with pytest.raises(ValidationError):
        event_validator().validate(changed)


def test_consumers_are_told_to_let_further_fields_pass(example: Any) -> None:
    example["data"]["currency"] = "CNY"
    event_validator().validate(example)
    with pytest.raises(ValidationError):
        event_validator(closed=True).validate(example)


def test_the_schema_is_of_the_draft_that_it_names() -> None:
    schema = shipped_event_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


def test_the_schema_names_every_type_status_and_trust() -> None:
    properties = shipped_event_schema()["properties"]
    data = properties["data"]["properties"]
    assert properties["type"]["enum"] == [type_.value for type_ in EventType]
    assert data["status"]["enum"] == data["previous_status"]["enum"] == [status.value for status in OrderStatus]
    assert data["trust"]["enum"] == [trust.word for trust in Trust]
