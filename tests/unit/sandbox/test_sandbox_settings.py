from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from service.config.reading import SettingsError
from service.sandbox.document_rules import STRICT, DocumentRule
from service.sandbox.script import VOCABULARY
from service.sandbox.settings import (
    Account,
    CallbackStyle,
    EmptyResponse,
    Misbehaviour,
    SandboxSettings,
    Timing,
    load_sandbox_settings,
)

ACCOUNT = """
[[accounts]]
ua = "ACME"
aes_key = "0123456789abcdef"
pay_types = ["baofoo_001"]
"""


def load(tmp_path: Path, text: str, *, encoding: str = "utf-8") -> SandboxSettings:
    path = tmp_path / "sandbox.toml"
    path.write_text(text, encoding=encoding)
    return load_sandbox_settings(path)


def test_only_an_account_is_required(tmp_path: Path) -> None:
    settings = load(tmp_path, ACCOUNT)
    assert settings == SandboxSettings(accounts=settings.accounts)
    assert settings.accounts[0].pay_types == {"baofoo_001"}


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, ACCOUNT, encoding="utf-8-sig") == load(tmp_path, ACCOUNT)


DOCUMENT = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_documents_example_gives_every_setting(tmp_path: Path) -> None:
    example = DOCUMENT.partition("```toml\n")[2].partition("```")[0]
    settings = load(tmp_path, example)
    assert settings.misbehaviour.forge_share == 0.5
    assert (settings.strictness, settings.empty_responses) == (STRICT, list(EmptyResponse))
    for value in (Account, CallbackStyle, Misbehaviour, SandboxSettings, Timing):
        assert [field.name for field in fields(value) if field.name not in example] == []


def test_the_document_explains_every_keyword() -> None:
    for word in VOCABULARY:
        assert f"| `{word.text}` | {word.amount_ending} |" in DOCUMENT


def test_the_document_explains_every_rule_and_its_example_switches_each() -> None:
    for rule in DocumentRule:
        assert f"| `{rule}` |" in DOCUMENT
        assert f"\n{rule} = {str(rule in STRICT).lower()}\n" in DOCUMENT


@pytest.mark.parametrize("rule", DocumentRule)
def test_each_rule_can_be_switched_alone(tmp_path: Path, rule: Any) -> None:
    switched = load(tmp_path, f"{ACCOUNT}\n[strictness]\n{rule} = {str(rule not in STRICT).lower()}\n").strictness
    assert switched ^ STRICT == {rule}


def test_the_empty_responses_can_be_chosen(tmp_path: Path) -> None:
    settings = load(tmp_path, f'empty_responses = ["[]", "absent"]\n{ACCOUNT}')
    assert settings.empty_responses == [EmptyResponse.LIST, EmptyResponse.ABSENT]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "accounts"),
        (ACCOUNT + "surprise = 1", "surprise"),
        ("fail_share = 1.5\n" + ACCOUNT, "fail_share"),
        ("bind = 'here'\n" + ACCOUNT, "bind"),
        ("empty_responses = []\n" + ACCOUNT, "empty_responses"),
        ("empty_responses = ['nothing']\n" + ACCOUNT, "empty_responses.*absent"),
        (ACCOUNT + "[strictness]\nsorted = true", "sorted"),
        (ACCOUNT + "[strictness]\nsorted_args = 'no'", "sorted_args"),
        ("= 1", "not TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: Any, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_sandbox_settings(tmp_path / "none.toml")
