"""Sessions, forms, scopes and headers: who may see and do what in the console."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.config.secrets import Secret
from service.config.settings import ApiScope, Settings
from service.console.pages import own_path
from service.domain.claims import Trust
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim
from tests.support.console import Browser

pytestmark = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)

_LI_LEI = "token-of-li-lei-with-32-characters-or-more"
_PROXY = {"REMOTE_ADDR": "192.0.2.7"}

OpenBrowser = Callable[..., Browser]


def is_signed_in(browser: Browser) -> bool:
    response = browser.client.get("/")
    assert response.status_code in (200, 302)
    return response.status_code == 200


def take_over(cookie_of: Browser, browser: Browser) -> Browser:
    """Carry the session on to a console with other settings."""
    cookie = cookie_of.client.get_cookie("console")
    assert cookie is not None
    browser.client.set_cookie("console", cookie.value)
    return browser


def let_pass(browser: Browser, *, since_start: float = 0.0, since_use: float = 0.0) -> None:
    """Make the session older, in seconds."""
    with browser.client.session_transaction() as session:
        session["started"] -= since_start
        session["seen"] -= since_use


def csrf_of(text: str) -> str:
    """What protects the page's forms."""
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found is not None
    return found[1]


# ---- sessions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["wrong", _LI_LEI[:-1], _LI_LEI + "x"])
def test_a_wrong_token_signs_nobody_in_and_ends_the_session(browser: Browser, given: str) -> None:
    browser.open("/sign-in")
    text = browser.send("/sign-in", token=given)
    assert browser.page.status_code == 403
    assert "This token is not valid." in text
    assert not is_signed_in(browser)


def test_a_session_ends_once_its_token_is_removed_or_replaced(
    browser: Browser, open_browser: OpenBrowser, settings: Settings
) -> None:
    others = settings.api.tokens[1:]
    replaced = replace(settings.api.tokens[0], token=Secret("another token of 32 characters or more"))
    for tokens, lives in ((settings.api.tokens, True), (others, False), ((replaced, *others), False)):
        changed = replace(settings, api=replace(settings.api, tokens=tokens))
        assert is_signed_in(take_over(browser, open_browser(changed))) is lives


def test_a_session_ends_when_it_is_idle(browser: Browser) -> None:
    let_pass(browser, since_start=1700, since_use=1700)
    assert is_signed_in(browser)
    let_pass(browser, since_start=1700, since_use=1700)  # since the request above
    assert is_signed_in(browser)
    let_pass(browser, since_start=1800, since_use=1800)
    assert not is_signed_in(browser)


def test_a_session_ends_after_its_longest_time_however_much_it_is_used(browser: Browser) -> None:
    let_pass(browser, since_start=43100)
    assert is_signed_in(browser)
    let_pass(browser, since_start=100)
    assert not is_signed_in(browser)


def test_a_page_that_loads_itself_anew_keeps_no_session_alive(browser: Browser) -> None:
    for _ in range(2):
        let_pass(browser, since_use=900)
        response = browser.client.get("/orders?q=1", headers={"X-Live": "1"})
    assert response.status_code == 401
    assert "HX-Redirect" not in response.headers  # it would take with it what somebody is typing


def test_a_session_lives_over_a_rotation_of_keys_and_ends_with_its_own_key(
    browser: Browser, open_browser: OpenBrowser, settings: Settings
) -> None:
    old, new, newest = (
        *settings.console.session_keys,
        *(Secret(f"the session key number {n} of 32 bytes") for n in (2, 3)),
    )
    for keys, lives in (((new, old), True), ((old, new), True), ((newest, new), False)):
        changed = replace(settings, console=replace(settings.console, session_keys=keys))
        assert is_signed_in(take_over(browser, open_browser(changed))) is lives


def test_a_cookie_that_somebody_has_changed_counts_for_nothing(browser: Browser, open_browser: OpenBrowser) -> None:
    cookie = browser.client.get_cookie("console")
    assert cookie is not None
    other = open_browser()
    other.client.set_cookie("console", ("A" if cookie.value[0] != "A" else "B") + cookie.value[1:])
    assert not is_signed_in(other)


@pytest.mark.parametrize(
    ("public_url", "name", "secure"),
    [("http://localhost", "console", False), ("https://console.example.com", "__Host-console", True)],
)
def test_the_cookie_is_bound_to_this_host_and_hidden_from_scripts(
    open_browser: OpenBrowser, settings: Settings, public_url: str, name: str, secure: bool
) -> None:
    browser = open_browser(replace(settings, console=replace(settings.console, public_url=public_url)))
    first, *attributes = browser.client.get("/sign-in", base_url=public_url).headers["Set-Cookie"].split("; ")
    assert first.startswith(f"{name}=")
    assert set(attributes) == {"HttpOnly", "Path=/", "SameSite=Lax", *(["Secure"] if secure else [])}


# ---- forms ------------------------------------------------------------------------------------------------------


def test_a_form_without_this_sessions_protection_is_refused(browser: Browser, open_browser: OpenBrowser) -> None:
    other = open_browser()
    other.sign_in(_LI_LEI)
    other.open("/endpoints/shop")
    of_another = csrf_of(other.page.text)
    for given in ({}, {"csrf": ""}, {"csrf": "guessed"}, {"csrf": of_another}):
        response = browser.client.post("/endpoints/shop/pause", data={"reason": "no", **given})
        assert response.status_code == 403
    assert "Paused since" not in browser.open("/endpoints/shop")


@pytest.mark.parametrize(
    ("referrer", "back"),
    [
        ("http://localhost/endpoints/shop?state=parked", "/endpoints/shop?state=parked"),
        ("http://localhost:81/endpoints/shop", ""),
        ("http://localhost//evil.example", ""),
        ("https://evil.example/", ""),
        ("", ""),
    ],
)
def test_a_form_that_is_sent_after_signing_out_leads_to_the_sign_in_and_back(
    browser: Browser, referrer: str, back: str
) -> None:
    form = {"csrf": csrf_of(browser.open("/endpoints/shop")), "reason": "deploying"}
    browser.submit("/sign-out")  # in another tab
    response = browser.client.post("/endpoints/shop/pause", data=form, headers={"Referer": referrer})
    assert response.status_code == 302
    assert response.location == "/sign-in?next=" + back.replace("=", "%3D")
    assert "You are signed out, so nothing was done." in browser.open(response.location)
    browser.sign_in(_LI_LEI)
    response = browser.client.post("/endpoints/shop/pause", data=form, headers={"Referer": referrer})
    assert response.status_code == 403
    assert "This form is too old." in response.text
    assert (f'<a href="{back}">Open the page again</a>' in response.text) is (back != "")
    assert "Paused since" not in browser.open("/endpoints/shop")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:81", "https://localhost"])
def test_a_form_of_another_site_is_refused(browser: Browser, origin: str) -> None:
    browser.open("/endpoints/shop")
    data = {"csrf": csrf_of(browser.page.text), "reason": "deploying"}
    assert browser.client.post("/endpoints/shop/pause", data=data, headers={"Origin": origin}).status_code == 403
    own = {"Origin": "http://localhost"}
    assert browser.client.post("/endpoints/shop/pause", data=data, headers=own).status_code == 302


def test_another_site_s_form_signs_nobody_out(open_browser: Callable[[], Browser]) -> None:
    browser = open_browser()  # comes without the cookie, which browsers do not send from another site
    answer = browser.client.post("/sign-out", data={"csrf": "?"}, headers={"Origin": "https://evil.example"})
    assert "Set-Cookie" not in answer.headers
    assert "Set-Cookie" in browser.client.post("/sign-out", data={"csrf": "?"}).headers


_ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "https:evil.example",
    "https://evil.example/",
    "javascript:alert(1)",
    "evil.example",
    "//[",
    "///evil.example",
]


@pytest.mark.parametrize("target", _ELSEWHERE)
def test_nobody_is_led_elsewhere(browser: Browser, target: str) -> None:
    assert own_path(target) == ""
    page = browser.client.get("/sign-in", query_string={"next": target})
    data = {"csrf": csrf_of(page.text), "token": _LI_LEI, "next": target}
    assert browser.client.post("/sign-in", data=data).location == "/"
    page = browser.client.get("/orders")
    data = {"csrf": csrf_of(page.text), "language": "en", "time_zone": "UTC", "next": target}
    assert browser.client.post("/preferences", data=data).location == "/"


@pytest.mark.parametrize("target", ["/", "/order?merchant=acme&number=//x", "/orders?q=a b", "/endpoints/shop"])
def test_a_person_goes_on_where_they_wanted_to(browser: Browser, target: str) -> None:
    data = {"csrf": csrf_of(browser.open("/sign-in")), "token": _LI_LEI, "next": target}
    assert browser.client.post("/sign-in", data=data).location == target.replace(" ", "%20")


# ---- proxies ----------------------------------------------------------------------------------------------------


def by_proxy(browser: Browser, user: str = "han", groups: str = "staff", **environ: str) -> str:
    headers = {"X-Forwarded-User": user, "X-Forwarded-Groups": groups}
    browser.page = browser.client.get("/audit", headers=headers, environ_overrides={**_PROXY, **environ})
    return browser.page.text


@pytest.mark.parametrize("address", ["192.0.2.7", "::ffff:192.0.2.7"])
def test_a_proxy_names_the_person(open_browser: OpenBrowser, address: str) -> None:
    assert "<span>han</span>" in by_proxy(open_browser(), REMOTE_ADDR=address)


@pytest.mark.parametrize("address", ["192.0.3.1", "127.0.0.1", "::1", "::ffff:192.0.3.1", ""])
def test_a_name_that_does_not_come_from_the_proxy_is_nobodys(open_browser: OpenBrowser, address: str) -> None:
    browser = open_browser()
    by_proxy(browser, REMOTE_ADDR=address, HTTP_X_FORWARDED_FOR="192.0.2.7")
    assert browser.page.status_code == 302


@pytest.mark.parametrize("user", ["", " ", "han,li.lei"])
def test_a_proxy_that_names_nobody_or_two_signs_nobody_in(open_browser: OpenBrowser, user: str) -> None:
    browser = open_browser()
    by_proxy(browser, user)
    assert browser.page.status_code == 302


def test_a_persons_groups_decide_what_they_may_do(open_browser: OpenBrowser) -> None:
    for groups, status in (("staff", 200), ("choir, staff", 200), ("choir", 403), ("", 403)):
        browser = open_browser()
        text = by_proxy(browser, groups=groups)
        assert browser.page.status_code == status
        assert ("You are signed in as han (console, proxy), without the scope" in text) is (status == 403)


# ---- scopes -----------------------------------------------------------------------------------------------------

#: Each form with what it needs.
_FORMS = {
    "/order/inquire": ApiScope.INQUIRE,
    "/order/resolve": ApiScope.RESOLVE,
    "/order/proposal": ApiScope.RESOLVE,
    "/attention/acknowledge": ApiScope.RESOLVE,
    "/dead-letters/settle": ApiScope.RESOLVE,
    "/endpoints/<name>/pause": ApiScope.OPERATE,
    "/endpoints/<name>/resume": ApiScope.OPERATE,
    "/endpoints/<name>/test": ApiScope.OPERATE,
    "/endpoints/<name>/parked": ApiScope.OPERATE,
    "/endpoints/<name>/replay": ApiScope.OPERATE,
    "/endpoints/<name>/replay/stop": ApiScope.OPERATE,
}
#: These change nothing but the session, or nothing at all.
_HARMLESS = {"/sign-in", "/sign-out", "/preferences", "/signs"}


def test_every_form_is_covered_here(browser: Browser) -> None:
    rules = {rule.rule for rule in browser.client.application.url_map.iter_rules() if "POST" in (rule.methods or ())}
    assert rules == {*_FORMS, *_HARMLESS}


@pytest.mark.parametrize("path", _FORMS)
def test_a_form_is_refused_without_its_scope_and_not_shown(
    open_browser: OpenBrowser, settings: Settings, store: LedgerStore, path: str
) -> None:
    store.record([a_claim(order="DK-1", trust=Trust.CAPABILITY)])
    action = path.replace("<name>", "shop")
    tokens = list(settings.api.tokens)
    fewer = replace(tokens[0], scopes=frozenset(ApiScope) - {_FORMS[path]})
    browser = open_browser(replace(settings, api=replace(settings.api, tokens=[fewer, *tokens[1:]])))
    browser.sign_in(_LI_LEI)
    for page in ("/", "/order?merchant=acme&number=DK-1", "/endpoints/shop", "/dead-letters"):
        assert f'method="post" action="{action}"' not in browser.open(page)
    fields = {"merchant": "acme", "number": "DK-1", "reason": "no", "note": "no"}
    browser.send(action, **fields)
    assert browser.page.status_code == 403


@pytest.mark.parametrize("path", ["/", "/orders", "/endpoints", "/dead-letters", "/signs", "/audit"])
def test_a_token_without_the_scope_read_shows_nothing(open_browser: OpenBrowser, path: str) -> None:
    browser = open_browser()
    browser.sign_in("token-of-an-announcer-with-32-characters")
    text = browser.open(path)
    assert browser.page.status_code == 403
    assert "You are signed in as announcer (console, API token announcer), without the scope `read`." in text
    browser.submit("/sign-out")
    assert not is_signed_in(browser)


def test_every_page_asks_who_is_there(open_browser: OpenBrowser) -> None:
    client = open_browser().client
    for rule in client.application.url_map.iter_rules():
        if rule.endpoint not in ("static", "alive", "ready", "metrics", "sign_in") and "GET" in (rule.methods or ()):
            response = client.get(rule.rule.replace("<name>", "shop"))
            assert (response.status_code, response.location[:13]) == (302, "/sign-in?next"), rule


# ---- headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/orders?format=csv", 200), ("/nowhere", 404), ("/orders?after=x", 400), ("/order/resolve", 405)],
)
def test_every_answer_forbids_scripts_frames_and_keeping_it(browser: Browser, path: str, status: int) -> None:
    response = browser.client.get(path)
    assert response.status_code == status
    check_headers(response.headers, cache="no-store")


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/sign-in", "/orders"])
def test_what_nobody_signs_in_for_has_these_headers_too(open_browser: OpenBrowser, path: str) -> None:
    check_headers(open_browser().client.get(path).headers, cache="no-store")


@pytest.mark.parametrize(
    ("path", "cache"),
    [
        ("console.js?v=1", "public, max-age=31536000, immutable"),
        ("console.js", "no-cache"),
        ("missing.js?v=1", "no-store"),
        ("../app.py?v=1", "no-store"),
    ],
)
def test_static_files_may_be_kept_under_their_own_address_only(browser: Browser, path: str, cache: str) -> None:
    let_pass(browser, since_use=900)  # any page would renew the cookie now
    with browser.client.get(f"/static/{path}") as response:
        check_headers(response.headers, cache=cache)
        assert cache == "no-store" or "Set-Cookie" not in response.headers


def test_an_error_of_ours_has_these_headers_and_quotes_nothing(browser: Browser) -> None:
    def fail() -> str:
        raise ZeroDivisionError("of 13812345678")

    browser.client.application.view_functions["audit.show"] = fail
    response = browser.client.get("/audit")
    assert response.status_code == 500
    assert "13812345678" not in response.text
    check_headers(response.headers, cache="no-store")


def check_headers(headers: Any, *, cache: str) -> None:
    policy = headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == cache


def test_no_page_has_a_script_or_a_style_of_its_own(browser: Browser) -> None:
    for path in ("/", "/orders", "/endpoints", "/endpoints/shop", "/dead-letters", "/signs", "/audit"):
        text = browser.open(path)
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", text), path
