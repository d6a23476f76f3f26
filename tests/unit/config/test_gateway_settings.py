"""What an operator can say of how the gateway is reached."""

from pathlib import Path
from typing import Any

import pytest

from service.config.reading import SettingsError, parse_settings

SETTINGS = """
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"

[merchants.acme.gateway]
url = "http://gateway.example.com/"
ua = "ACME"
aes_key = "0123456789abcdef"
"""


def parse(more: Any, folder: Any) -> Any:
    return parse_settings(SETTINGS + more, {}, name="settings", folder=folder)


def test_plain_http_has_to_be_allowed_explicitly_and_gives_a_warning(tmp_path: Path) -> None:
    settings = parse("allow_plain_http = true", tmp_path)
    assert any("allow_plain_http" in warning for warning in settings.warnings())
    assert not any("allow_plain_http" in warning for warning in parse("", tmp_path).warnings())
    with pytest.raises(SettingsError, match="allow_plain_http"):
        parse('allow_plain_http = "yes"', tmp_path)


def test_trusted_certificates_are_read_from_a_file_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    gateway = parse('ca_certificates = { file = "ca.pem" }', tmp_path).merchants["acme"].gateway
    assert gateway.ca_certificates == "-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    ("text", "host", "port", "credentials"),
    [
        ("http://proxy.example.com:3128", "proxy.example.com", 3128, None),
        ("http://proxy.example.com/", "proxy.example.com", 80, None),
        ("http://[::1]:3128", "::1", 3128, None),
        ("http://acme:pass@10.0.0.1:3128", "10.0.0.1", 3128, "acme:pass"),
        ("http://acme@proxy:3128", "proxy", 3128, "acme:"),
        ("http://ac%6De:p%40ss%2F%3A%25@proxy:3128", "proxy", 3128, "acme:p@ss/:%"),
    ],
)
def test_a_proxy_is_read_from_its_url(tmp_path: Path, text: str, host: str, port: int, credentials: str | None) -> None:
    proxy = parse(f'proxy = "{text}"', tmp_path).merchants["acme"].gateway.proxy
    assert (proxy.host, proxy.port) == (host, port)
    assert (proxy.credentials and proxy.credentials.reveal()) == credentials
    assert not credentials or credentials not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        "proxy.example.com:3128",
        "https://acme:hidden-word@proxy:3128",
        "socks5://acme:hidden-word@proxy:1080",
        "http://acme:hidden-word@:3128",
        "http://acme:hidden-word@proxy:0",
        "http://acme:hidden-word@proxy:99999",
        "http://acme:hidden-word@proxy:port",
        "http://acme:hidden@word@proxy:3128",
        "http://acme:hidden/word@proxy:3128",
        "http://acme:hidden#word@proxy:3128",
        "http://acme:hidden?word@proxy:3128",
        "http://acme:80/hidden-word@proxy:3128",
        "http://acme:hidden[word@proxy:3128",
        "http://acme:hidden word@proxy:3128",
        "http://acme:hidden-wörd@proxy:3128",
        "http://acme:hidden-word@proxy:3128/path",
    ],
)
def test_a_wrong_proxy_url_is_refused_without_quoting_its_password(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="percent-encode") as refused:
        parse(f'proxy = "{text}"', tmp_path)
    assert "merchants.acme.gateway.proxy" in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert "word" not in str(refused.value).replace("password", "")


NOT_FOUND = 'not_found_messages = ["订单不存在"]\n'
RULES = "[merchants.acme.refused_withholds]\n"


def test_no_rule_ends_a_refused_withhold_unless_it_is_switched_on(tmp_path: Path) -> None:
    assert parse("", tmp_path).merchants["acme"].refused_withholds is None
    rules = parse(NOT_FOUND + RULES + "not_found_times = 8", tmp_path).merchants["acme"].refused_withholds
    assert (rules.messages, rules.not_found_times) == (frozenset(), 8)
    assert (rules.not_found_hours, rules.max_per_hour) == (24, 20)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (RULES, "names no rule"),
        (RULES + "messages = []", "names no rule"),
        (NOT_FOUND + RULES + "not_found_times = 7", "refused_withholds.not_found_times"),
        (NOT_FOUND + RULES + "not_found_times = 8\nnot_found_hours = 23", "refused_withholds.not_found_hours"),
        (NOT_FOUND + RULES + "not_found_times = 8\nmax_per_hour = 0", "refused_withholds.max_per_hour"),
        (RULES + "not_found_times = 8", "not_found_messages"),
        (NOT_FOUND + RULES + "not_found_times = 8\nnot_found_hours = 168", "less than inquiry_horizon_seconds"),
    ],
)
def test_a_rule_that_cannot_work_or_is_too_quick_is_a_mistake(tmp_path: Path, more: str, part: str) -> None:
    with pytest.raises(SettingsError, match=part):
        parse(more, tmp_path)


def test_rules_for_withholds_of_a_merchant_without_a_gateway_are_a_mistake(tmp_path: Path) -> None:
    without = SETTINGS.partition("[merchants.acme.gateway]")[0] + RULES + 'messages = ["余额不足"]'
    with pytest.raises(SettingsError, match="without a gateway"):
        parse_settings(without, {}, name="settings", folder=tmp_path)
