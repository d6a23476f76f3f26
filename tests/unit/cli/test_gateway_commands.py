"""`payment-callbacks gateway`: sources of personal data, the choice of the merchant, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli.main import main

PERSON = {
    "name": "张三",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
}
MERCHANT = """
[merchants.{slug}]
pay_types = {pay_types}
amount_unit = "yuan"
"""
# A port that nothing listens on.
GATEWAY = """
[merchants.{slug}.gateway]
url = "http://127.0.0.1:9/"
ua = "ACME"
aes_key = "{key}"
timeout_seconds = 2.0
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # It is for the whole process, and would outlive the test.
    monkeypatch.setattr("service.cli.gateway.configure_logs", lambda **_: None)

    def run(*arguments: Any, settings: Any = None, stdin: Any = None) -> Any:
        file = tmp_path / "settings.toml"
        file.write_text(settings or merchant("acme"))
        return CliRunner().invoke(main, ["--config", str(file), "gateway", *arguments], input=stdin)

    return run


def merchant(
    slug: Any, *, pay_types: tuple[str, ...] = ("baofoo_001",), gateway: bool = True, key: str = "0123456789abcdef"
) -> Any:
    text = MERCHANT.format(slug=slug, pay_types=json.dumps(list(pay_types)))
    return text + (GATEWAY.format(slug=slug, key=key) if gateway else "")


def typed(*names: Any) -> Any:
    return "".join(f"{PERSON[name]}\n" for name in names)


def assert_tells_no_value(output: Any) -> None:
    assert [value for value in PERSON.values() if value in output] == []


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_personal_data_is_read_from_a_file(run: Any, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"person.{suffix}"
    toml = "\n".join(f'{name} = "{value}"' for name, value in PERSON.items())
    file.write_text(json.dumps(PERSON) if suffix == "json" else toml)
    done = run("bind", "--from", str(file))
    assert done.exit_code == 1
    assert "surely not done: the gateway cannot be reached" in done.output
    assert_tells_no_value(done.output)


@pytest.mark.parametrize("text", [json.dumps(PERSON), "\n".join(f'{name} = "{PERSON[name]}"' for name in PERSON)])
def test_a_byte_order_mark_is_no_part_of_personal_data(run: Any, tmp_path: Path, text: Any) -> None:
    file = tmp_path / "person"
    file.write_text(text, encoding="utf-8-sig")
    assert "the gateway cannot be reached" in run("bind", "--from", str(file)).output


def test_personal_data_is_read_from_standard_input(run: Any) -> None:
    done = run("bind", "--from", "-", stdin=json.dumps(PERSON))
    assert "surely not done: the gateway cannot be reached" in done.output


def test_what_a_file_lacks_is_prompted_for(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps({"name": PERSON["name"], "mobile": PERSON["mobile"]}))
    done = run("bind", "--from", str(file), stdin=typed("id_card_number", "bank_card_number"))
    assert "ID number" in done.output
    assert "Mobile number" not in done.output
    assert "the gateway cannot be reached" in done.output


def test_numbers_that_are_typed_stay_off_the_screen(run: Any) -> None:
    done = run("bind", stdin=typed("name", "id_card_number", "mobile", "bank_card_number"))
    for name in ("id_card_number", "mobile", "bank_card_number"):
        assert PERSON[name] not in done.output
    assert "the gateway cannot be reached" in done.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"id_card_nummer": "1"}', "id_card_nummer: unknown key; did you mean `id_card_number`?"),
        ('{"mobile": 13800138000}', "mobile: must be a string, in quotes"),
        ('{"name": "张三"', "neither a JSON object nor TOML"),
        ("张三", "neither a JSON object nor TOML"),
    ],
)
def test_an_unusable_file_is_reported_and_not_quoted(run: Any, text: str, expected: str) -> None:
    done = run("bind", "--from", "-", stdin=text)
    assert done.exit_code == 1
    assert expected in done.output
    assert_tells_no_value(done.output)


def test_what_a_file_may_hold_is_named_once_each(run: Any) -> None:
    done = run("withhold", "--order", "T1", "--amount", "1.00", "--from", "-", stdin='{"x": "1"}')
    assert done.output.count("bank_card_number") == 1


def test_numbers_that_cannot_be_right_are_not_sent(run: Any) -> None:
    done = run("bind", "--from", "-", stdin=json.dumps({**PERSON, "mobile": "1380013800"}))
    assert done.exit_code == 1
    assert "mobile: not a mobile number" in done.output
    assert_tells_no_value(done.output)


def test_no_argument_takes_personal_data(run: Any) -> None:
    for command in ("bind", "confirm", "withhold"):
        options = run(command, "--help").output
        assert "--from" in options
        for name in (*PERSON, "verification_code"):
            assert f"--{name.replace('_', '-')}" not in options


def test_the_only_merchant_with_a_gateway_need_not_be_named(run: Any) -> None:
    settings = merchant("acme") + merchant("other", gateway=False)
    assert "the gateway cannot be reached" in run("query", "T1", settings=settings).output


@pytest.mark.parametrize("arguments", [(), ("--merchant", "silent"), ("--merchant", "nobody")])
def test_a_merchant_that_has_no_gateway_or_is_unclear_is_asked_for(run: Any, arguments: Any) -> None:
    settings = merchant("acme") + merchant("other") + merchant("silent", gateway=False)
    done = run("query", "T1", *arguments, settings=settings)
    assert done.exit_code == 2
    assert "those that have one: acme, other" in done.output


def test_a_pay_type_is_asked_for_where_there_are_several(run: Any) -> None:
    settings = merchant("acme", pay_types=("a", "b"))
    done = run("bind", "--from", "-", settings=settings, stdin=json.dumps(PERSON))
    assert done.exit_code == 2
    assert "--pay-type: one of a, b" in done.output


def test_an_unusable_key_is_reported_and_not_quoted(run: Any) -> None:
    done = run("query", "T1", settings=merchant("acme", key="a short key"))
    assert done.exit_code == 1
    assert "merchants.acme.gateway: key = 'aes_key'" in done.output
    assert "a short key" not in done.output


def test_a_probe_of_an_unreachable_gateway_says_so(run: Any) -> None:
    done = run("probe", "--pause-seconds", "0")
    assert done.exit_code == 1
    assert "the gateway does not answer" in done.output
