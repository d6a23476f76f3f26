from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.config.settings import AmountField, MerchantSettings
from service.domain.claims import ClaimSource, OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.gateway.bodies import BodyKind, NumberToken
from service.gateway.errors import CallbackRefused, Refusal
from service.gateway.messages import OrderStatement
from service.gateway.order_claims import claim_from_callback, claim_from_query
from service.gateway.signature import VerifiedCallback
from tests.support.logs import capture_logs

ACME = MerchantSettings(slug="acme", pay_types=frozenset({"baofoo_001"}), amount_unit="yuan")
NOW = datetime(2026, 7, 1, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "biz_order_no": "DK1",
    "pay_order_no": "P1",
    "order_type": "single_withhold",
    "pay_type": "baofoo_001",
    "pay_status": "success",
    "pay_time": "2019-07-01 12:00:05",
    "channel_response": "",
}


def _verified(**fields: Any) -> VerifiedCallback:
    return VerifiedCallback(fields={**FIELDS, **fields}, sign="a" * 32, dialect="spliced", kind=BodyKind.JSON)


def _claim(verified: Any = None, *, trust: Any = Trust.CAPABILITY, **fields: Any) -> Any:
    return claim_from_callback(
        verified or _verified(**fields),
        merchant=ACME,
        trust=trust,
        received_at=NOW,
        traceparent="00-trace",
    )


def _without(name: Any) -> VerifiedCallback:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    return VerifiedCallback(fields=fields, sign="a" * 32, dialect="spliced", kind=BodyKind.JSON)


def _query(statement: Any) -> Any:
    return claim_from_query(statement, merchant=ACME, asked_at=NOW)


def test_a_documented_callback_becomes_a_claim() -> None:
    claim = _claim()

    assert claim.order == OrderKey("acme", "DK1")
    assert (claim.trust, claim.source, claim.stated_at) == (Trust.CAPABILITY, ClaimSource.CALLBACK, NOW)
    assert (claim.status, claim.pay_order_no, claim.quarantine) == (OrderStatus.SUCCEEDED, "P1", None)
    assert claim.paid_at == datetime(2019, 7, 1, 4, 0, 5, tzinfo=UTC)
    assert claim.traceparent == "00-trace"
    assert claim.unknown_fields == {}


@pytest.mark.parametrize(
    ("pay_status", "status"),
    [
        ("success", OrderStatus.SUCCEEDED),
        ("fail", OrderStatus.FAILED),
        ("initial", OrderStatus.INITIAL),
        ("pending", OrderStatus.PROCESSING),
        ("wait_pay", OrderStatus.PROCESSING),
    ],
)
def test_the_gateways_spelling_of_a_status_becomes_ours(pay_status: str, status: Any) -> None:
    assert _claim(pay_status=pay_status).status is status


@pytest.mark.parametrize(
    ("fields", "quarantine"),
    [
        ({"pay_status": "refunded"}, "unknown pay_status 'refunded'"),
        ({"pay_status": "SUCCESS"}, "unknown pay_status 'SUCCESS'"),
        ({"pay_status": None}, "unknown pay_status ''"),
        ({"pay_status": NumberToken("1")}, "unknown pay_status '1'"),
        ({"order_type": "batch"}, "unknown order_type 'batch'"),
        ({"pay_type": "other"}, "pay_type 'other' is not this merchant's"),
        (
            {"pay_status": "x" * 50, "pay_type": "y"},
            f"unknown pay_status '{'x' * 40}…'; pay_type 'y' is not this merchant's",
        ),
    ],
)
def test_what_is_not_known_waits_for_a_person_and_is_not_refused(fields: Any, quarantine: str) -> None:
    assert _claim(**fields).quarantine == quarantine


@pytest.mark.parametrize("trust", [Trust.CHECKSUM, Trust.CAPABILITY])
@pytest.mark.parametrize("field", ["pay_status", "order_type", "pay_type"])
@pytest.mark.parametrize("word", ["张三", "Zhang San", "6222021234561234", "13812345678", "卡6222021234561234"])
def test_an_unknown_value_is_not_quoted_if_it_may_be_personal_data(trust: Any, field: str, word: str) -> None:
    quarantine = _claim(trust=trust, **{field: word}).quarantine

    assert field in quarantine
    assert word not in quarantine
    assert "****" in quarantine


def test_an_unknown_value_of_an_unauthenticated_callback_is_never_quoted() -> None:
    assert _claim(trust=Trust.CHECKSUM, pay_status="zhangsan").quarantine == "unknown pay_status 'zh****an'"


def test_only_an_unknown_status_leaves_the_status_open() -> None:
    assert _claim(pay_status="refunded").status is None
    assert _claim(pay_type="other").status is OrderStatus.SUCCEEDED


@pytest.mark.parametrize("name", ["biz_order_no", "pay_order_no", "pay_status"])
def test_a_callback_without_a_needed_field_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(CallbackRefused, match=f"callback: {name}: missing") as refused:
        _claim(_without(name))

    assert refused.value.reason is Refusal.MISSING_FIELD


@pytest.mark.parametrize("name", ["order_type", "pay_type", "pay_time", "channel_response"])
def test_any_other_field_may_be_absent(name: str) -> None:
    claim = _claim(_without(name))

    assert claim.quarantine is None
    assert claim.status is OrderStatus.SUCCEEDED
    assert claim.missing_fields == (name,)


def test_all_that_is_missing_is_recorded_and_what_is_empty_is_not_missing() -> None:
    needed = {name: FIELDS[name] for name in ("biz_order_no", "pay_order_no", "pay_status")}
    bare = VerifiedCallback(fields=needed, sign="a" * 32, dialect="spliced", kind=BodyKind.JSON)

    assert _claim(bare).missing_fields == ("order_type", "pay_type", "pay_time", "channel_response")
    assert _claim(pay_time="", channel_response=None, order_type=[]).missing_fields == ()


@pytest.mark.parametrize("order_no", ["", None, "x" * 129, "a\nb", "a\x00", "\ud800", ["a"], True])
def test_a_callback_for_what_is_no_order_number_is_refused(order_no: Any) -> None:
    with pytest.raises(CallbackRefused, match="biz_order_no") as refused:
        _claim(biz_order_no=order_no)

    assert refused.value.reason is Refusal.INVALID_FIELD


def test_an_empty_pay_order_no_is_none() -> None:
    assert _claim(pay_order_no="").pay_order_no is None
    assert _claim(pay_order_no=None).pay_order_no is None


def test_fields_that_the_document_does_not_name_are_kept() -> None:
    claim = _claim(
        **{"shop": "7", "a.b": "x", "n": NumberToken("1.50"), "l": [None, True, {"k": "值"}], "unknown_fields": "u"}
    )

    assert claim.unknown_fields == {
        "shop": "7",
        "a.b": "x",
        "n": "1.50",
        "l": '[null,true,{"k":"值"}]',
        "unknown_fields": "u",
    }


def test_a_too_long_value_is_kept_with_a_warning_that_does_not_quote_it() -> None:
    with capture_logs() as logs:
        claim = _claim(channel_response="余" * 300)

    assert claim.channel_response == "余" * 300
    (warning,) = logs
    assert warning["event"] == "gateway_value_too_long"
    assert (warning["field"], warning["characters"]) == ("channel_response", 300)
    assert "余" not in str(warning)


def test_what_no_database_can_hold_is_replaced() -> None:
    assert _claim(channel_response="a\x00b\ud83d").channel_response == "a\ufffdb\ufffd"


NO_TIMES = [
    "0000-00-00 00:00:00",
    "2019-02-30 12:00:00",
    "2019-07/01 12:00:05",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59",
    "0000000001",
    "9999999999",
    "2019-07-01",
    "２０１９-07-01 12:00:05",
    "yesterday",
    "1" * 5000,
]


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_pay_time_that_is_none_never_loses_the_payment(text: Any) -> None:
    with capture_logs() as logs:
        claim = _claim(pay_time=text)

    assert (claim.status, claim.paid_at) == (OrderStatus.SUCCEEDED, None)
    assert "pay_time_not_understood" in [log["event"] for log in logs]


@pytest.mark.parametrize("text", ["", None, []])
def test_an_empty_pay_time_is_nothing_to_warn_of(text: Any) -> None:
    with capture_logs() as logs:
        assert _claim(pay_time=text).paid_at is None

    assert logs == []


def test_a_time_in_any_format_is_the_time_of_payment() -> None:
    assert _claim(pay_time="2019-07-01T04:00:05.5Z").paid_at == datetime(2019, 7, 1, 4, 0, 5, 500000, tzinfo=UTC)
    assert _claim(pay_time=NumberToken("1561953605123")).paid_at.utcoffset() == timedelta(hours=8)


def test_only_a_success_has_a_time_of_payment() -> None:
    assert _claim(pay_status="fail").paid_at is None


def test_digests_are_stable_across_releases() -> None:
    assert _claim().digest == "2b3bd29bc38674e4a191e926e80fdcd3e746ab995dc7e3e50767f4186ab0a139"


def test_claims_with_the_same_content_have_the_same_digest() -> None:
    same = [
        _claim(),
        _claim(pay_time="1561953605"),
        _claim(shop="7"),
        _claim(channel_response=None),
        _query(OrderStatement(**FIELDS)),
    ]

    assert len({claim.digest for claim in same}) == 1
    assert _claim(pay_status="pending").digest == _claim(pay_status="wait_pay").digest


def test_claims_that_differ_in_any_normalised_field_have_different_digests() -> None:
    different = [
        _claim(),
        _claim(pay_status="fail"),
        _claim(pay_status="x"),
        _claim(pay_status="y"),
        _claim(pay_order_no="P2"),
        _claim(order_type="batch"),
        _claim(pay_type=""),
        _claim(pay_time=""),
        _claim(channel_response="x"),
    ]

    assert len({claim.digest for claim in different}) == len(different)


def test_a_claim_from_a_query_is_as_of_the_time_of_the_query() -> None:
    claim = _query(OrderStatement(biz_order_no="DK1", pay_status="wait_pay"))

    assert (claim.trust, claim.source, claim.stated_at) == (Trust.QUERIED, ClaimSource.QUERY, NOW)
    assert (claim.status, claim.pay_order_no, claim.order_type) == (OrderStatus.PROCESSING, None, "")


def _with_amount(value: Any, *, unit: str = "yuan", ours: str = "yuan", name: str = "total") -> Any:
    merchant = replace(ACME, amount_unit=ours, amount_field=AmountField(name="total", unit=unit))
    return claim_from_callback(
        _verified(**{name: value}), merchant=merchant, trust=Trust.CAPABILITY, received_at=NOW, traceparent=None
    )


@pytest.mark.parametrize("sent", ["100.00", "100.0", NumberToken("100.00"), NumberToken("100.0"), 100])
def test_an_amount_is_read_from_its_field_in_the_unit_of_that_field(sent: Any) -> None:
    assert _with_amount(sent).amount == Money("100.00", "yuan")
    in_our_unit = _with_amount(sent, ours="fen").amount
    assert (in_our_unit.text, in_our_unit.unit) == ("10000", "fen")
    assert _with_amount(sent, unit="fen").amount == Money("1.00", "yuan")


@pytest.mark.parametrize("sent", ["about 100", "1e2", "-5.00", "100.005"])
def test_an_amount_that_cannot_be_read_is_recorded_as_sent_and_not_compared(sent: str) -> None:
    with capture_logs() as logs:
        claim = _with_amount(sent)
    assert (claim.amount, claim.unknown_fields) == (None, {"total": sent})
    assert [line["event"] for line in logs] == ["amount_not_understood"]


def test_the_digest_with_an_amount_is_another_and_depends_on_no_unit() -> None:
    claim = _with_amount("100.00")
    assert claim.digest != claim.digest_without_amount == _claim().digest
    assert claim.digest == _with_amount("100.00", unit="fen", ours="fen").digest
    assert claim.digest == _with_amount(NumberToken("100.00")).digest
    assert claim.digest != _with_amount("100.01").digest


@pytest.mark.parametrize("sent", ["", None])
def test_an_absent_amount_changes_no_digest(sent: Any) -> None:
    for claim in (_with_amount(sent), _with_amount("100.00", name="other")):
        assert (claim.amount, claim.digest, claim.digest_without_amount) == (None, _claim().digest, None)
