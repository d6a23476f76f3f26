"""Who may call the internal API, as an operator writes it."""

from pathlib import Path

import pytest

from service.settings import ApiScope, ApiSettings, Secret
from service.settings_file import SettingsError, parse_settings

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


def test_nobody_may_call_it_unless_told() -> None:
    assert parse("").tokens == ()


def test_a_token_comes_from_the_environment_and_shows_nowhere() -> None:
    settings = parse(token("shop", '{ env = "SHOP_TOKEN" }'), SHOP_TOKEN=LONG)
    (shop,) = settings.tokens
    assert (shop.name, shop.token) == ("shop", Secret(LONG))
    assert LONG not in repr(settings)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (token("shop", '"too-short"'), "api.tokens.0.token"),
        (token("shop", f'"{LONG} with blanks"'), "api.tokens.0.token"),
        (token("Shop Floor", f'"{LONG}"'), "api.tokens.0.name"),
        (token("shop", f'"{LONG}"') + token("shop", f'"{LONG}2"'), "api.tokens"),
        (token("shop", f'"{LONG}"') + token("till", f'"{LONG}"'), "api.tokens"),
        ("[api]\nbnd = 1\n", "api.bnd"),
    ],
)
def test_a_mistake_is_named_by_its_key_and_quotes_no_token(text: str, where: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert f"{where}: " in str(caught.value)
    assert LONG not in str(caught.value)
        (token("shop", f'"{LONG}"', "[]"), "api.tokens.0.scopes"),
        (token("shop", f'"{LONG}"', '["read", "all"]'), "api.tokens.0.scopes.1"),
