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
