from typing import Any

import pytest

from service.gateway.bodies import NumberToken
from service.gateway.errors import MessageInvalid
from service.gateway.messages import CALLBACK, OrderStatement
from service.gateway.requests import (
    CONFIRM_TIED_CARD_ANSWER,
    CONFIRM_TIED_CARD_ARGS,
    ORDER_ANSWER,
    PRE_TIED_CARD_ANSWER,
    PRE_TIED_CARD_ARGS,
    REQUEST_ENVELOPE,
    SINGLE_ORDER_QUERY_ARGS,
    SINGLE_WITHHOLD_ARGS,
    AmountUnit,
    ConfirmTiedCardAnswer,
    ConfirmTiedCardArgs,
    OrderAnswer,
    PreTiedCardArgs,
    RequestEnvelope,
    SingleOrderQueryArgs,
    SingleWithholdArgs,
)

YUAN = SINGLE_WITHHOLD_ARGS[AmountUnit.YUAN]
FEN = SINGLE_WITHHOLD_ARGS[AmountUnit.FEN]
WITHHOLD: dict[str, Any] = {
    "biz_order_no": "DK1",
    "amount": "100",
    "bank_card_number": "6222020200112233445",
    "name": "张三",
    "id_card_number": "11010119900101123X",
    "mobile": "13800138000",
    "biz_data": {"protocol_no": "1201"},
    "notify_url": "https://merchant.example.com/notify",
    "pay_type": "baofoo_001",
}
EVERY_SENT_MESSAGE = [
    (REQUEST_ENVELOPE, RequestEnvelope(ua="u", args="x", sign="a" * 32, request_id="r", method="pre-tied-card")),
    (
        REQUEST_ENVELOPE,
        RequestEnvelope(ua="u", args="x", sign="A" * 32, request_id="r", method="single-withhold", timestamp="15"),
    ),
    (PRE_TIED_CARD_ARGS, PreTiedCardArgs(id_card_number="1", bank_card_number="2", mobile="3", name="4", pay_type="5")),
    (
        CONFIRM_TIED_CARD_ARGS,
        ConfirmTiedCardArgs(verification_code="1", unique_code="2", bank_card_number="3", pay_type="4"),
    ),
    (YUAN, YUAN.read(WITHHOLD)),
    (
        FEN,
        SingleWithholdArgs(
            biz_order_no="1", amount="1", name="2", id_card_number="3", mobile="4", pay_type="5", protocol_no="6"
        ),
    ),
    (SINGLE_ORDER_QUERY_ARGS, SingleOrderQueryArgs(biz_order_no="单 1")),
]


def _problems(message_format: Any, values: Any) -> Any:
    with pytest.raises(MessageInvalid) as invalid:
        message_format.read(values)
    return {problem.field: problem.text for problem in invalid.value.problems}


@pytest.mark.parametrize(("message_format", "message"), EVERY_SENT_MESSAGE)
def test_every_message_that_we_send_is_read_back_as_it_was_written(message_format: Any, message: Any) -> None:
    assert message_format.read(message_format.write(message)) == message


def test_a_withhold_is_written_as_the_document_has_it() -> None:
    assert YUAN.write(YUAN.read(WITHHOLD)) == WITHHOLD


def test_absent_optional_fields_are_left_out_and_biz_data_never_is() -> None:
    args = SingleWithholdArgs(
        biz_order_no="1", amount="1", name="2", id_card_number="3", mobile="4", pay_type="5", bank_card_number="6"
    )
    written = FEN.write(args)

    assert written["biz_data"] == []
    assert "notify_url" not in written


REQUIRED = ["biz_order_no", "amount", "name", "id_card_number", "mobile", "biz_data", "pay_type"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_that_is_missing_is_named(name: Any) -> None:
    problems = _problems(YUAN, {key: value for key, value in WITHHOLD.items() if key != name})

    assert list(problems) == [name]
    assert problems[name].startswith("missing; expected ")


@pytest.mark.parametrize("name", ["name", "mobile", "bank_card_number"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "empty; expected a string that is not empty"),
        (None, "null; expected a string that is not empty"),
        (NumberToken("1"), "a number; expected a string that is not empty"),
        (["1"], "a list; expected a string that is not empty"),
        (b"1", "bytes; expected a string that is not empty"),
    ],
)
def test_a_field_of_another_type_is_named_with_what_is_allowed(name: str, value: Any, text: str) -> None:
    assert _problems(YUAN, {**WITHHOLD, name: value}) == {name: text}


def test_a_withhold_needs_a_card_or_a_protocol() -> None:
    neither = {key: value for key, value in WITHHOLD.items() if key != "bank_card_number"} | {"biz_data": []}

    assert _problems(YUAN, neither) == {
        "": "missing; expected one of bank_card_number and biz_data.protocol_no, or both"
    }
    assert YUAN.read({**neither, "biz_data": {"protocol_no": "1"}}).bank_card_number is None
    assert YUAN.read({**neither, "bank_card_number": "1"}).protocol_no is None


@pytest.mark.parametrize(
    ("biz_data", "problem"),
    [
        ("x", ("biz_data", "a string; expected an object, or [] for an empty one")),
        (["x"], ("biz_data", "a list; expected an object, or [] for an empty one")),
        (
            {"protocol_no": NumberToken("1")},
            ("biz_data.protocol_no", "a number; expected a string that is not empty"),
        ),
        ({"protocol_no": ""}, ("biz_data.protocol_no", "empty; expected a string that is not empty")),
    ],
)
def test_biz_data_holds_a_protocol_number_or_nothing(biz_data: Any, problem: tuple[str, str]) -> None:
    assert _problems(YUAN, {**WITHHOLD, "biz_data": biz_data}) == dict([problem])


@pytest.mark.parametrize("amount", ["1", "0.01", "100.5", "100.00", "0.10", "999999999999.99"])
def test_an_amount_in_yuan_is_kept_to_the_letter(amount: str) -> None:
    assert YUAN.read({**WITHHOLD, "amount": amount}).amount == amount


NO_AMOUNTS = [
    "",
    "0",
    "0.00",
    "-1",
    "+1",
    "1.",
    ".5",
    "01",
    "1e2",
    "1_000",
    "1,000",
    " 1",
    "1 ",
    "1\n",
    "１",
    "٣",
    "1.234",
]


@pytest.mark.parametrize("amount", [*NO_AMOUNTS, "1.999", "1" * 13])
def test_what_is_no_exact_amount_in_yuan_is_refused_and_never_rounded(amount: Any) -> None:
    text = _problems(YUAN, {**WITHHOLD, "amount": amount})["amount"]

    assert text.endswith("expected an amount in yuan above 0: digits with at most two decimals, e.g. 100.00")


@pytest.mark.parametrize("amount", [*NO_AMOUNTS, "1.00", "1.5"])
def test_what_is_no_exact_amount_in_fen_is_refused(amount: Any) -> None:
    text = _problems(FEN, {**WITHHOLD, "amount": amount})["amount"]

    assert text.endswith("expected an amount in fen above 0: digits only, e.g. 10000")


def test_an_amount_that_is_a_number_is_refused() -> None:
    assert _problems(FEN, {**WITHHOLD, "amount": NumberToken("100")})["amount"].startswith("a number; expected")


@pytest.mark.parametrize("order_no", ["", "x" * 129, "a\tb", "a\u2028b"])
def test_an_order_number_has_up_to_128_printable_characters(order_no: Any) -> None:
    text = _problems(SINGLE_ORDER_QUERY_ARGS, {"biz_order_no": order_no})["biz_order_no"]

    assert text.endswith("expected 1 to 128 printable characters")


def test_what_we_write_is_checked_as_strictly_as_what_we_read() -> None:
    with pytest.raises(MessageInvalid, match=r"^single-order-query: biz_order_no: empty; expected 1 to 128 printable"):
        SINGLE_ORDER_QUERY_ARGS.write(SingleOrderQueryArgs(biz_order_no=""))


def test_errors_quote_no_values() -> None:
    with pytest.raises(MessageInvalid) as invalid:
        YUAN.read(
            {**WITHHOLD, "amount": "secret", "notify_url": "secret", "biz_order_no": "secret\n", "mobile": ["secret"]}
        )

    assert "secret" not in str(invalid.value)
    assert len(invalid.value.problems) == 4


def test_an_unknown_method_is_an_error_that_lists_the_known_ones() -> None:
    values = {"ua": "u", "args": "x", "sign": "a" * 32, "requestId": "r", "method": "refund"}

    assert _problems(REQUEST_ENVELOPE, values)["method"].endswith(
        "expected one of pre-tied-card, confirm-tied-card, single-withhold, single-order-query"
    )


@pytest.mark.parametrize("status", ["1", NumberToken("1"), 1])
def test_status_1_is_success(status: Any) -> None:
    assert PRE_TIED_CARD_ANSWER.read({"status": status, "response": {"unique_code": "u"}}).succeeded


@pytest.mark.parametrize(
    "status", ["-1", "0", "", "01", "1.0", NumberToken("-1"), NumberToken("1.0"), -1, True, None, ["1"]]
)
def test_any_other_status_is_not(status: Any) -> None:
    assert not PRE_TIED_CARD_ANSWER.read({"status": status, "message": "no"}).succeeded


@pytest.mark.parametrize(
    ("status", "expected"),
    [("-1", "-1"), (NumberToken("-1"), "-1"), (-1, "-1"), ("0", "0"), (True, "true"), (None, ""), ("ok", "ok")],
)
def test_a_status_is_kept_as_answered_and_only_minus_1_is_a_failure(status: Any, expected: str) -> None:
    read = ORDER_ANSWER.read({"status": status})

    assert (read.status, read.failed) == (expected, expected == "-1")


ORDER: dict[str, Any] = {"biz_order_no": "DK1", "pay_order_no": "P1", "pay_status": "success"}


def test_an_answer_keeps_what_it_says_of_an_order_and_fields_that_the_document_does_not_name() -> None:
    order = {**ORDER, "pay_type": "baofoo_001", "pay_time": "2019-07-01 12:00:05", "shop": NumberToken("7")}
    assert ORDER_ANSWER.read({"status": "1", "message": "ok", "response": order, "more": "x"}) == OrderAnswer(
        status="1",
        message="ok",
        order=OrderStatement(
            biz_order_no="DK1",
            pay_order_no="P1",
            pay_type="baofoo_001",
            pay_status="success",
            pay_time="2019-07-01 12:00:05",
            unknown_fields={"shop": "7"},
        ),
    )


def test_a_callback_is_read_with_the_names_of_documented_fields_that_it_lacks() -> None:
    read = CALLBACK.read({**ORDER, "order_type": "single_withhold", "pay_time": None, "shop": "7"})
    assert read == OrderStatement(
        biz_order_no="DK1",
        pay_order_no="P1",
        order_type="single_withhold",
        pay_status="success",
        missing_fields=("pay_type", "channel_response"),
        unknown_fields={"shop": "7"},
    )
    assert list(_problems(CALLBACK, {"biz_order_no": "DK1"})) == ["pay_order_no", "pay_status"]


def test_a_response_may_be_a_list_with_the_one_object() -> None:
    assert ORDER_ANSWER.read({"status": "1", "response": [ORDER]}) == ORDER_ANSWER.read(
        {"status": "1", "response": ORDER}
    )
    success: dict[str, Any] = {"status": 1}
    assert PRE_TIED_CARD_ANSWER.read({**success, "response": [{"unique_code": "u"}]}).unique_code == "u"
    assert CONFIRM_TIED_CARD_ANSWER.read({**success, "response": [{"protocol_no": "p"}]}).protocol_no == "p"


@pytest.mark.parametrize("response", [[ORDER, ORDER], [[ORDER]], [None], ["x"], [{}]])
def test_any_other_list_is_no_order(response: Any) -> None:
    assert ORDER_ANSWER.read({"status": "-1", "response": response}).order is None
    with pytest.raises(MessageInvalid):
        ORDER_ANSWER.read({"status": "1", "response": response})


def test_an_answer_without_a_status_is_invalid() -> None:
    assert _problems(ORDER_ANSWER, {"message": "hm"}) == {"status": "missing; expected 1 (success) or -1 (failure)"}


EMPTY_RESPONSES: list[dict[str, Any]] = [{"response": None}, {"response": []}, {"response": {}}, {"response": ""}, {}]


@pytest.mark.parametrize("rest", EMPTY_RESPONSES)
def test_a_failure_may_have_any_kind_of_empty_response(rest: Any) -> None:
    answer = {"status": "-1", "message": "no", **rest}

    assert ORDER_ANSWER.read(answer) == OrderAnswer(status="-1", message="no")
    assert CONFIRM_TIED_CARD_ANSWER.read(answer) == ConfirmTiedCardAnswer(status="-1", message="no")


@pytest.mark.parametrize("rest", EMPTY_RESPONSES)
def test_a_success_may_not(rest: Any) -> None:
    answer = {"status": "1", **rest}

    assert _problems(ORDER_ANSWER, answer) == {"response": "empty; needed is an order where status is 1"}
    assert _problems(PRE_TIED_CARD_ANSWER, answer) == {"response.unique_code": "missing; required where status is 1"}
    assert _problems(CONFIRM_TIED_CARD_ANSWER, answer) == {
        "response.protocol_no": "missing; required where status is 1"
    }


def test_a_failure_may_hold_an_order_or_anything_else() -> None:
    order: dict[str, Any] = {"biz_order_no": "DK1", "pay_status": "fail"}

    assert ORDER_ANSWER.read({"status": "-1", "response": order}).order == OrderStatement(**order)
    others: list[Any] = ["text", ["x"], {"code": "7"}, {"biz_order_no": ""}]
    for response in others:
        assert ORDER_ANSWER.read({"status": "-1", "response": response}).order is None


def test_numbers_and_nulls_in_an_answer_are_taken_as_text() -> None:
    order: dict[str, Any] = {
        "biz_order_no": NumberToken("7"),
        "pay_order_no": NumberToken("12"),
        "pay_status": "fail",
        "pay_time": None,
    }

    assert ORDER_ANSWER.read({"status": NumberToken("1"), "message": None, "response": order}).order == OrderStatement(
        biz_order_no="7", pay_order_no="12", pay_status="fail"
    )


def test_personal_data_is_in_no_repr() -> None:
    shown = repr(YUAN.read(WITHHOLD))

    assert "DK1" in shown
    for name in ("bank_card_number", "name", "id_card_number", "mobile", "notify_url"):
        assert WITHHOLD[name] not in shown
