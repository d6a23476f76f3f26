"""`run console` says at its start what keeps people from signing in."""

import sys
from pathlib import Path

import pytest

from service.bootstrap.console_role import OpenIdUnusable, require_openid
from service.config.reading import parse_settings

_SETTINGS = """
[console]
session_keys = ["a session key of the console, for tests only"]
{openid}

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
"""
_OPENID = """
[console.openid]
issuer = "{issuer}"
client_id = "the-console"
client_secret = "secret"
groups = {{ "*" = ["read"] }}
"""


def test_a_missing_extra_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = parse_settings(
        _SETTINGS.format(openid=_OPENID.format(issuer="https://id.example.com")), {}, name="test", folder=tmp_path
    )
    require_openid(settings)
    monkeypatch.setitem(sys.modules, "authlib.common.errors", None)
    for name in [name for name in sys.modules if name.startswith("service.console.openid")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(OpenIdUnusable, match=r"console.openid is set, .* pip install 'payment-callbacks\[oidc\]'"):
        require_openid(settings)


def test_without_openid_nothing_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "service.console.openid", None)
    require_openid(parse_settings(_SETTINGS.format(openid=""), {}, name="test", folder=tmp_path))
