from typing import Any

import pytest

from service.config.secrets import Secret
from service.sandbox.script import (
    VOCABULARY,
    AnswerMode,
    CallbackMode,
    PayStatus,
    Rule,
    SettleSpeed,
    UnknownWord,
    write_script,
)
from service.sandbox.settings import Account, Misbehaviour, SandboxSettings

ACCOUNT = Account(ua="ACME", aes_key=Secret("0123456789abcdef"), pay_types=frozenset({"baofoo_001"}))


def script_of(biz_order_no: Any, amount: str = "10.00", *, rules: tuple[Any, ...] = (), **settings: Any) -> Any:
    return write_script(biz_order_no, amount, rules=rules, settings=SandboxSettings(accounts=[ACCOUNT], **settings))


def test_an_ordinary_order_succeeds() -> None:
    script = script_of("T20190701-0001")
    assert (script.ending, script.speed, script.answer) == (PayStatus.SUCCESS, SettleSpeed.NORMAL, AnswerMode.NORMAL)


def test_keywords_in_the_number_are_combined() -> None:
    script = script_of("T1-fail-slow-LOST")
    assert (script.ending, script.speed, script.answer) == (PayStatus.FAIL, SettleSpeed.SLOW, AnswerMode.LOST)


def test_a_keyword_inside_another_word_is_ignored() -> None:
    assert script_of("T1-failure-slowly").ending is PayStatus.SUCCESS


@pytest.mark.parametrize("word", VOCABULARY, ids=lambda word: word.text)
def test_every_keyword_works_in_the_number_and_as_an_amount(word: Any) -> None:
    assert script_of(f"T1-{word.text}") == script_of("T1", f"12.{word.amount_ending}")
    assert script_of(f"T1-{word.text}") == script_of("T1", f"12{word.amount_ending}")


def test_keywords_override_the_amount_and_a_rule_overrides_both() -> None:
    rules = (Rule("T1-*", ("silent",)),)
    assert script_of("T1-slow", "12.51").ending is PayStatus.SUCCESS
    assert script_of("T1-slow", "12.51", rules=rules).callbacks is CallbackMode.SILENT
    assert script_of("T1-slow", "12.51", rules=rules).speed is SettleSpeed.NORMAL


def test_the_shares_script_orders_without_keywords() -> None:
    odds = Misbehaviour(lose_answer_share=1.0, drop_share=1.0)
    script = script_of("T1", fail_share=1.0, misbehaviour=odds)
    assert (script.ending, script.answer, script.callbacks) == (PayStatus.FAIL, AnswerMode.LOST, CallbackMode.SILENT)
    assert script_of("T1-success", fail_share=1.0, misbehaviour=odds).ending is PayStatus.SUCCESS


def test_the_same_seed_gives_the_same_scripts() -> None:
    def endings(seed: Any) -> Any:
        return [script_of(f"T{number}", fail_share=0.5, seed=seed).ending for number in range(50)]

    assert endings(1) == endings(1) != endings(2)
    assert {PayStatus.SUCCESS, PayStatus.FAIL} == set(endings(1))


def test_a_rule_with_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(UnknownWord, match="success"):
        Rule("*", ("explode",))
