"""What an operator can say of how the gateway is reached."""

import pytest

from service.settings_file import SettingsError, parse_settings

SETTINGS = """
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"

[merchants.acme.gateway]
url = "http://gateway.example.com/"
ua = "ACME"
aes_key = "0123456789abcdef"
"""


def parse(more, folder):
    return parse_settings(SETTINGS + more, {}, name="settings", folder=folder)


def test_plain_http_is_allowed_by_name_only_and_warned_of(tmp_path):
    settings = parse("allow_plain_http = true", tmp_path)
    assert any("allow_plain_http" in warning for warning in settings.warnings())
    assert not any("allow_plain_http" in warning for warning in parse("", tmp_path).warnings())
    with pytest.raises(SettingsError, match="allow_plain_http"):
        parse('allow_plain_http = "yes"', tmp_path)


def test_certificates_to_trust_are_read_from_a_file_beside_the_settings(tmp_path):
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    gateway = parse('ca_certificates = { file = "ca.pem" }', tmp_path).merchants["acme"].gateway
    assert gateway.ca_certificates == "-----BEGIN CERTIFICATE-----"
