"""Who may call the internal API, as an operator writes it."""

from pathlib import Path

import pytest

from service.config.reading import SettingsError, parse_settings
from service.config.secrets import Secret
from service.config.settings import ApiScope, ApiSettings

_MERCHANT = """
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""
LONG = "a-token-of-more-than-32-characters"


def parse(text: str, **environment: str) -> ApiSettings:
    return parse_settings(text + _MERCHANT, environment, name="test", folder=Path()).api


def token(name: str, value: str, scopes: str = '["read"]') -> str:
    return f'[[api.tokens]]\nname = "{name}"\ntoken = {value}\nscopes = {scopes}\n'


def test_the_api_has_no_callers_by_default() -> None:
    assert parse("").tokens == ()


def test_a_token_is_read_from_the_environment_and_never_shown() -> None:
    settings = parse(token("shop", '{ env = "SHOP_TOKEN" }'), SHOP_TOKEN=LONG)
    (shop,) = settings.tokens
    assert (shop.name, shop.token) == ("shop", Secret(LONG))
    assert LONG not in repr(settings)


def test_a_token_has_the_scopes_that_it_names_and_no_others() -> None:
    (shop,) = parse(token("shop", f'"{LONG}"', '["announce", "read"]')).tokens
    assert shop.scopes == {ApiScope.READ, ApiScope.ANNOUNCE}


def test_a_token_without_scopes_is_an_error_that_lists_the_scopes() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(f'[[api.tokens]]\nname = "shop"\ntoken = "{LONG}"\n')
    assert "api.tokens.0.scopes: is needed, with some of: read, announce, withhold" in str(caught.value)


def test_a_token_may_say_which_person_uses_it() -> None:
    (desk,) = parse(token("desk", f'"{LONG}"') + 'person = "li.lei@example.com"\n').tokens
    assert desk.person == "li.lei@example.com"


RULE = _MERCHANT + 'second_person_above = "10000.00"\n'


def test_with_a_rule_for_a_second_person_a_token_that_resolves_says_whose_it_is() -> None:
    texts = token("shop", f'"{LONG}"') + token("desk", f'"{LONG}2"', '["resolve"]')
    with pytest.raises(SettingsError) as caught:
        parse_settings(texts + RULE, {}, name="test", folder=Path())
    (mistake,) = str(caught.value).splitlines()
    assert "api.tokens.1.person: is needed, since `desk` has the scope resolve and merchants.acme." in mistake
    parse_settings(texts + 'person = "li"\n' + RULE, {}, name="test", folder=Path())
    # The settings of 0.1.0 know neither.
    assert parse(texts).tokens[1].person == ""


def with_gateway(timeout_seconds: float, *, api: str) -> str:
    gateway = 'url = "https://gateway.example.com/", ua = "OTHER", aes_key = "0123456789abcdef"'
    return (
        f'{api}[merchants.other]\npay_types = ["baofoo_001"]\namount_unit = "yuan"\n'
        f"gateway = {{ {gateway}, timeout_seconds = {timeout_seconds} }}\n"
    )


def test_a_drain_shorter_than_a_withhold_is_an_error() -> None:
    api = token("shop", f'"{LONG}"')
    assert parse(with_gateway(15.0, api=api)).drain_seconds == 20
    with pytest.raises(SettingsError) as caught:
        parse(with_gateway(15.5, api=api))
    assert "api.drain_seconds: must be at least 5 more than the gateway.timeout_seconds" in str(caught.value)
    assert "`other`" in str(caught.value)
    assert parse(with_gateway(15.5, api=f"[api]\ndrain_seconds = 20.5\n{api}")).drain_seconds == 20.5


def test_the_drain_is_not_checked_without_callers() -> None:
    assert parse(with_gateway(60.0, api="[inquirer]\nlease_seconds = 120\n")).drain_seconds == 20


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (token("shop", '"too-short"'), "api.tokens.0.token"),
        (token("shop", f'"{LONG} with blanks"'), "api.tokens.0.token"),
        (token("Shop Floor", f'"{LONG}"'), "api.tokens.0.name"),
        (token("shop", f'"{LONG}"') + token("shop", f'"{LONG}2"'), "api.tokens"),
        (token("shop", f'"{LONG}"') + token("till", f'"{LONG}"'), "api.tokens"),
        (token("shop", f'"{LONG}"', "[]"), "api.tokens.0.scopes"),
        (token("shop", f'"{LONG}"', '["read", "all"]'), "api.tokens.0.scopes.1"),
        (token("shop", f'"{LONG}"') + 'person = " li"\n', "api.tokens.0.person"),
        (token("shop", f'"{LONG}"') + 'person = "two\\nlines"\n', "api.tokens.0.person"),
        ("[api]\nbnd = 1\n", "api.bnd"),
    ],
)
def test_an_error_names_the_key_and_quotes_no_token(text: str, where: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert f"{where}: " in str(caught.value)
    assert LONG not in str(caught.value)
