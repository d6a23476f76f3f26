"""What is doubtful about how people sign in to the console."""

from pathlib import Path

import pytest

from service.config.reading import parse_settings

_BASE = """
[console]
session_keys = ["a session key of the console, for tests only"]

[[api.tokens]]
name = "li-lei"
token = "token-of-li-lei-with-32-characters-or-more"
scopes = ["read"{token}]
person = "li.lei"

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = "a token key of 32 bytes, for tests only" }}]
{second}

[console.openid]
issuer = "{issuer}"
client_id = "the-console"
client_secret = "secret"
groups = {{ leads = ["read"{openid}] }}

[console.proxy]
networks = ["10.30.0.0/24"]
groups = {{ leads = ["read"{proxy}] }}
"""
_RESOLVE = ', "resolve"'


def warnings(tmp_path: Path, **given: str) -> list[str]:
    values = {"token": "", "openid": "", "proxy": "", "second": 'second_person_above = "1000"'}
    text = _BASE.format(**{**values, "issuer": "https://id.example.com", **given})
    return parse_settings(text, {}, name="test", folder=tmp_path).warnings()


@pytest.mark.parametrize(
    ("ways", "named"),
    [
        ({"token": _RESOLVE, "openid": _RESOLVE}, "api.tokens and console.openid.groups"),
        ({"openid": _RESOLVE, "proxy": _RESOLVE}, "console.openid.groups and console.proxy.groups"),
    ],
)
def test_several_ways_to_resolve_are_a_warning_where_a_second_person_is_needed(
    tmp_path: Path, ways: dict[str, str], named: str
) -> None:
    (warning,) = warnings(tmp_path, **ways)
    assert warning.startswith(f"{named} give the scope resolve: ")
    assert warnings(tmp_path, **ways, second="") == []


def test_one_way_to_resolve_is_none(tmp_path: Path) -> None:
    for way in ("openid", "proxy"):
        assert warnings(tmp_path, **{way: _RESOLVE}) == []


def test_a_single_person_who_may_resolve_is_a_warning_where_two_are_needed(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, token=_RESOLVE)
    assert warning.endswith("one person alone has the scope resolve: nobody can confirm.")
    assert warnings(tmp_path, token=_RESOLVE, second="") == []


def test_a_provider_without_tls_is_a_warning(tmp_path: Path) -> None:
    (warning,) = warnings(tmp_path, issuer="http://id.example.com")
    assert warning.startswith("console.openid.issuer is not https")
