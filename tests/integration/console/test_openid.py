"""Signing in through OpenID Connect, with a provider that answers over HTTP."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from flask.testing import FlaskClient
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from service.config.secrets import Secret
from service.config.settings import ApiScope, OpenIdSettings, Settings
from tests.support.console import Browser
from tests.support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider

pytestmark = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)

_CALLBACK = "/sign-in/openid/callback"
_LEAD = {"sub": "8f3a-77", "preferred_username": "li.lei", "groups": ["leads", "choir"]}


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider(redirect_uri="http://localhost" + _CALLBACK) as provider:
        provider.claims = _LEAD
        yield provider


@pytest.fixture
def settings(settings: Settings, provider: IdentityProvider) -> Settings:
    """With the provider, and scopes for two of its groups."""
    openid = OpenIdSettings(
        issuer=provider.origin,
        client_id=CLIENT_ID,
        client_secret=Secret(CLIENT_SECRET),
        groups={"staff": frozenset({ApiScope.READ}), "leads": frozenset({ApiScope.READ, ApiScope.OPERATE})},
    )
    return replace(settings, console=replace(settings.console, openid=openid))


@pytest.fixture
def browser(open_browser: Callable[[], Browser]) -> Browser:
    """Nobody has signed in."""
    return open_browser()


def leave_for_provider(client: FlaskClient, path: str = "/sign-in/openid") -> str:
    """Leave the console, and let the provider send the browser back; the path that it sends it to."""
    away = client.get(path)
    assert away.status_code == 302, away.text
    back = urlsplit(requests.get(away.location, allow_redirects=False, timeout=60).headers["Location"])
    assert back.netloc == "localhost"
    return f"{back.path}?{back.query}"


def sign_in(browser: Browser, path: str = "/sign-in/openid") -> TestResponse:
    browser.page = browser.client.get(leave_for_provider(browser.client, path))
    return browser.page


def refuse(browser: Browser) -> None:
    """The person is not signed in, and is told so."""
    assert browser.page.status_code == 403
    assert "The answer of your identity provider was refused." in browser.page.text
    assert browser.client.get("/").location == "/sign-in?next=/"


def test_a_person_signs_in_and_goes_on_where_they_wanted_to(browser: Browser) -> None:
    browser.open("/endpoints/shop?state=parked")
    link = "/sign-in/openid?next=/endpoints/shop?state%3Dparked"
    assert f'href="{link}"' in browser.page.text
    assert sign_in(browser, link).location == "/endpoints/shop?state=parked"
    browser.open("/endpoints/shop")
    browser.submit("/endpoints/shop/pause", reason="deploying")
    assert "li.lei (console, OpenID 8f3a-77)" in browser.open("/audit")


def test_the_session_ends_here_when_the_person_signs_out(browser: Browser) -> None:
    sign_in(browser)
    browser.open("/")
    browser.submit("/sign-out")
    assert browser.client.get("/").location == "/sign-in?next=/"


def test_groups_that_the_settings_do_not_name_are_not_in_the_cookie(
    browser: Browser, provider: IdentityProvider
) -> None:
    provider.claims = {**_LEAD, "groups": [*(f"group {number}" for number in range(1000)), "staff"]}
    sign_in(browser)
    assert browser.client.get("/").status_code == 200
    with browser.client.session_transaction() as session:
        assert session["groups"] == ["staff"]


@pytest.mark.parametrize("groups", [[], ["choir"]])
def test_a_person_without_the_scope_read_is_told_so_and_can_sign_out(
    browser: Browser, provider: IdentityProvider, groups: list[str]
) -> None:
    provider.claims = {**_LEAD, "groups": groups}
    sign_in(browser)
    text = browser.open("/orders")
    assert browser.page.status_code == 403
    assert "You are signed in as li.lei (console, OpenID 8f3a-77), without the scope" in text
    browser.submit("/sign-out")
    assert browser.client.get("/orders").location == "/sign-in?next=/orders"


def test_the_settings_decide_at_each_request_what_groups_may_do(
    browser: Browser, open_browser: Callable[..., Browser], settings: Settings
) -> None:
    sign_in(browser)
    assert settings.console.openid is not None
    fewer = replace(settings.console.openid, groups={"leads": frozenset({ApiScope.READ})})
    other_client = replace(settings.console.openid, client_id="another-client")
    cookie = browser.client.get_cookie("console")
    assert cookie is not None
    for changed, status, may_pause in ((fewer, 200, False), (other_client, 302, False)):
        client = open_browser(replace(settings, console=replace(settings.console, openid=changed))).client
        client.set_cookie("console", cookie.value)
        page = client.get("/endpoints/shop")
        assert page.status_code == status
        assert ("/endpoints/shop/pause" in page.text) is may_pause


@pytest.mark.parametrize(
    "spoilt",
    [
        {"nonce": "of another sign-in"},
        {"aud": "another-client"},
        {"aud": ["another-client"]},
        {"iss": "https://elsewhere.example"},
        {"exp": 1_000_000_000},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"groups": "leads"},
        {"azp": "another-client"},
    ],
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(
    browser: Browser, provider: IdentityProvider, spoilt: dict[str, Any]
) -> None:
    provider.spoil = lambda claims: claims.update(spoilt)
    sign_in(browser)
    refuse(browser)


@pytest.mark.parametrize("missing", ["nonce", "aud", "iss", "exp", "sub"])
def test_an_id_token_that_leaves_out_what_is_checked_is_refused(
    browser: Browser, provider: IdentityProvider, missing: str
) -> None:
    provider.spoil = lambda claims: claims.__delitem__(missing)
    sign_in(browser)
    refuse(browser)


def test_an_id_token_that_another_key_has_signed_is_refused(browser: Browser, provider: IdentityProvider) -> None:
    provider.key = RSAKey.generate_key(2048, {"kid": "key-1"})
    sign_in(browser)
    refuse(browser)


def test_an_unsigned_id_token_is_refused_even_if_the_provider_offers_them(
    browser: Browser, provider: IdentityProvider
) -> None:
    provider.signs = False
    sign_in(browser)
    refuse(browser)


def test_an_answer_with_another_state_or_in_another_browser_is_refused(
    browser: Browser, open_browser: Callable[..., Browser]
) -> None:
    path = leave_for_provider(browser.client)
    code = parse_qs(urlsplit(path).query)["code"][0]
    for changed in (f"{_CALLBACK}?code={code}&state=guessed", f"{_CALLBACK}?code={code}", _CALLBACK):
        browser.page = browser.client.get(changed)
        refuse(browser)
    other = open_browser()
    other.page = other.client.get(path)
    refuse(other)


def test_an_answer_counts_once(browser: Browser) -> None:
    path = leave_for_provider(browser.client)
    browser.client.get(path)
    browser.open("/")
    browser.submit("/sign-out")
    browser.page = browser.client.get(path)
    refuse(browser)


def test_what_an_address_says_of_an_error_is_not_repeated(browser: Browser) -> None:
    browser.page = browser.client.get(f"{_CALLBACK}?error=access_denied&error_description=Call+555+to+sign+in")
    refuse(browser)
    assert "Call 555" not in browser.page.text


def test_nobody_is_led_elsewhere_after_signing_in(browser: Browser) -> None:
    assert sign_in(browser, "/sign-in/openid?next=//evil.example").location == "/"


def test_sign_ins_that_were_begun_and_left_do_not_fill_the_cookie(browser: Browser) -> None:
    for _ in range(20):
        leave_for_provider(browser.client)
    with browser.client.session_transaction() as session:
        assert sum(name.startswith("_state_") for name in session) == 1
    sign_in(browser)
    assert browser.client.get("/").status_code == 200


def test_a_provider_that_is_away_breaks_nothing(browser: Browser, provider: IdentityProvider) -> None:
    path = leave_for_provider(browser.client)
    provider.is_down = True
    for address in ("/sign-in/openid", path):
        page = browser.client.get(address)
        assert page.status_code == 503
        assert "Your identity provider cannot be reached." in page.text
    browser.sign_in("token-of-li-lei-with-32-characters-or-more")
    assert browser.client.get("/").status_code == 200
    provider.is_down = False
    assert sign_in(browser).status_code == 302


def test_a_provider_that_calls_itself_otherwise_is_not_used(browser: Browser, provider: IdentityProvider) -> None:
    provider.issuer = "https://elsewhere.example"
    assert browser.client.get("/sign-in/openid").status_code == 503
