"""A decision that takes two people: proposed, confirmed and withdrawn over HTTP."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.config.reading import parse_settings
from service.config.settings import Settings
from tests.support.api import Answer, ApiCaller, order_path

_SETTINGS = """
database_url = "{database_url}"

[[api.tokens]]
name = "desk-of-li"
token = "the-token-of-li-with-32-characters-or-more"
scopes = ["announce", "read", "resolve"]
person = "li.lei"

[[api.tokens]]
name = "desk-of-wang"
token = "the-token-of-wang-with-32-characters-or-more"
scopes = ["resolve"]
person = "wang.wu"

[[api.tokens]]
name = "till"
token = "the-token-of-nobody-with-32-characters-or-more"
scopes = ["read"]

[merchants.careful]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "checksum"
second_person_above = "100.00"
"""
ORDER = order_path("careful", "DK/1")
DECISION = {"status": "succeeded", "sequence": 0, "name": "Li Lei", "reason": "on the bank's statement"}
WANG = {"name": "Wang Wu"}
REASON = {**WANG, "reason": "another order"}


@pytest.fixture
def settings(ledger_url: str, tmp_path: Path) -> Settings:
    """A merchant whose orders need two people, and the tokens of two."""
    return parse_settings(_SETTINGS.format(database_url=ledger_url), {}, name="test", folder=tmp_path)


@pytest.fixture
def caller(api_url: str) -> Iterator[Callable[[str], ApiCaller]]:
    """Makes the caller of a person."""
    with ExitStack() as made:

        def make(person: str) -> ApiCaller:
            caller = ApiCaller(url=api_url, token=f"the-token-of-{person}-with-32-characters-or-more")
            made.callback(caller.close)
            return caller

        yield make


@pytest.fixture
def li(caller: Callable[[str], ApiCaller]) -> ApiCaller:
    return caller("li")


@pytest.fixture
def wang(caller: Callable[[str], ApiCaller]) -> ApiCaller:
    return caller("wang")


@pytest.fixture
def proposed(li: ApiCaller) -> str:
    """The path of an open proposal of Li's."""
    assert li.announce({"merchant": "careful", "biz_order_no": "DK/1", "amount": "1.00"}).status == 200
    answer = li.post(f"{ORDER}/resolve", DECISION)
    assert (answer.status, answer.value["verdict"], answer.value["order"]["status"]) == (202, None, "initial")
    return f"{ORDER}/proposals/{answer.value['proposal']['id']}"


def kind(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.value["type"].rpartition(":")[2]


def test_another_person_confirms_a_decision_and_the_history_names_both(
    li: ApiCaller, wang: ApiCaller, proposed: str
) -> None:
    [proposal] = li.get(ORDER).value["proposals"]
    assert (proposal["state"], proposal["proposer"], proposal["proposed_by"]) == (
        *("open", "li.lei", "Li Lei (API token desk-of-li of li.lei)"),
    )
    answer = wang.post(f"{proposed}/confirm", WANG)
    assert (answer.status, answer.value["verdict"], answer.value["proposal"]) == (200, "applied", None)
    history = li.get(ORDER).value
    [claim] = history["claims"]
    assert claim["stated_by"] == (
        "Li Lei (API token desk-of-li of li.lei), confirmed by Wang Wu (API token desk-of-wang of wang.wu)"
    )
    [settled] = history["proposals"]
    assert (settled["state"], settled["decided_by"]) == ("confirmed", "Wang Wu (API token desk-of-wang of wang.wu)")
    assert [event["type"] for event in history["events"]] == ["payment.succeeded"]
    assert kind(wang.post(f"{proposed}/confirm", WANG)) == (409, "proposal-closed")


def test_whoever_proposes_cannot_confirm_under_another_name(li: ApiCaller, proposed: str) -> None:
    assert kind(li.post(f"{proposed}/confirm", WANG)) == (409, "same-person")
    assert li.get(ORDER).value["claims"] == []


def test_a_withdrawn_proposal_is_over_and_an_open_one_keeps_others_out(
    li: ApiCaller, wang: ApiCaller, proposed: str
) -> None:
    assert kind(wang.post(f"{ORDER}/resolve", DECISION)) == (409, "proposal-open")
    withdrawn = wang.post(f"{proposed}/withdraw", REASON)
    assert (withdrawn.status, withdrawn.value["state"], withdrawn.value["decision_reason"]) == (
        *(200, "withdrawn", "another order"),
    )
    assert kind(wang.post(f"{proposed}/confirm", WANG)) == (409, "proposal-closed")
    assert wang.post(f"{ORDER}/resolve", DECISION).status == 202


def test_an_unknown_proposal_and_a_caller_without_the_scope_are_refused(
    wang: ApiCaller, caller: Callable[[str], ApiCaller], proposed: str
) -> None:
    assert kind(wang.post(f"{ORDER}/proposals/999/confirm", WANG)) == (404, "unknown-proposal")
    till = caller("nobody")
    assert kind(till.post(f"{proposed}/confirm", WANG)) == (403, "scope-missing")
    assert kind(till.post(f"{proposed}/withdraw", REASON)) == (403, "scope-missing")
