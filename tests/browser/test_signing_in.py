"""Signing in, staying signed in, and what a person chooses for all pages."""

import re

from playwright.sync_api import expect

from tests.support.chromium import Window, Windows
from tests.support.console_site import HAN_MEIMEI, LI_LEI, SHORT_IDLE_SECONDS, Site


def test_a_token_opens_the_page_that_was_asked_for_and_a_wrong_one_opens_none(windows: Windows, site: Site) -> None:
    window = windows.open(site.url)
    window.open("/endpoints?format=")
    expect(window.page).to_have_url(re.compile("/sign-in"))
    window.expected_statuses = {403}
    window.sign_in("a token of nobody, as long as one of somebody")
    expect(window.main).to_contain_text("This token is not valid.")
    window.sign_in(LI_LEI)
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Endpoints")
    expect(window.page.locator("header")).to_contain_text("li.lei@example.com")
    window.page.get_by_role("button", name="Sign out").click()
    window.open("/orders")
    expect(window.page).to_have_url(re.compile("/sign-in"))


def test_an_open_page_of_an_ended_session_says_so_keeps_what_is_typed_and_leads_to_the_sign_in(
    windows: Windows, hasty_site: Site
) -> None:
    window = windows.open(hasty_site.url, LI_LEI)
    window.open("/endpoints/shop?state=delivered")
    window.page.locator("#endpoints-pause-reason").fill("deploying")
    # The page asks for what is new by itself, which must not keep the session alive.
    window.expected_statuses = {401}
    expect(window.page.get_by_text("Signed out: this page is not up to date.")).to_be_visible()
    expect(window.page.locator("#endpoints-pause-reason")).to_have_value("deploying")
    window.page.locator("#outdated").get_by_role("link", name="Sign in").click()
    window.sign_in(LI_LEI)
    expect(window.page).to_have_url(re.compile("/endpoints/shop.state=delivered$"))


def test_an_open_page_says_since_when_the_console_does_not_answer(windows: Windows, site: Site) -> None:
    window = windows.open(site.url, LI_LEI)
    window.open("/endpoints")
    refuse = {"status": 503, "body": "503 Service Unavailable"}
    window.expected_statuses = {503}
    window.page.route("**/endpoints", lambda route: route.fulfill(**refuse))
    expect(window.page.get_by_text(re.compile(r"Not up to date since \d\d:\d\d$"))).to_be_visible()
    window.page.unroute("**/endpoints")
    expect(window.page.get_by_text("Not up to date since")).to_be_hidden()


def test_a_click_after_the_end_of_the_session_leads_to_the_sign_in(windows: Windows, hasty_site: Site) -> None:
    window = windows.open(hasty_site.url, HAN_MEIMEI, javascript=False)
    window.open("/signs")
    # Nothing happens meanwhile, and nothing tells when the session is over.
    window.page.wait_for_timeout(SHORT_IDLE_SECONDS * 1000)
    window.page.get_by_role("link", name="Audit").click()
    expect(window.page).to_have_url(re.compile("/sign-in.next=/audit"))


def test_language_and_time_zone_are_chosen_for_every_page(li_lei: Window, site: Site) -> None:
    site.announce("LANGUAGE-1")
    li_lei.search("LANGUAGE-1")
    shanghai = li_lei.page.locator("time").first.inner_text()
    li_lei.page.get_by_label("Times are in").fill("America/New_York")
    li_lei.page.get_by_role("button", name="Change").click()
    expect(li_lei.page.locator("time").first).not_to_have_text(shanghai)
    li_lei.page.get_by_label("Language").select_option("中文")
    li_lei.page.get_by_role("button", name="Change").click()
    expect(li_lei.page.locator("html")).to_have_attribute("lang", "zh-CN")
    li_lei.open("/endpoints")
    expect(li_lei.page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(li_lei.page.locator("#time_zone")).to_have_value("America/New_York")


def test_sign_in_search_and_a_decision_need_no_mouse(windows: Windows, site: Site) -> None:
    site.announce("KEYS-1", amount="10.00")
    window = windows.open(site.url)
    window.open("/")
    window.page.keyboard.type(LI_LEI)  # the field has the keyboard already
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Today")
    window.tab_to(window.page.get_by_role("searchbox", name="Order number"))
    window.page.keyboard.type("KEYS-1")
    window.page.keyboard.press("Enter")
    expect(window.page.get_by_role("heading", level=1)).to_have_text("Order KEYS-1")
    window.tab_to(window.page.get_by_role("combobox", name="status", exact=True))
    window.page.keyboard.type("failed")
    window.tab_to(window.page.get_by_label("Why, and on what evidence"))
    window.page.keyboard.type("the bank's statement has no such payment")
    window.tab_to(window.page.get_by_role("button", name="Decide"))
    window.page.keyboard.press("Enter")
    expect(window.page.locator("#status")).to_have_text("failed")


def test_the_first_stop_of_the_keyboard_leads_past_the_menu(li_lei: Window) -> None:
    li_lei.open("/orders")
    li_lei.page.keyboard.press("Tab")
    li_lei.page.keyboard.press("Enter")
    li_lei.tab_to(li_lei.page.get_by_label("order number, yours or the gateway's"))
    expect(li_lei.page).to_have_url(re.compile("#content$"))
