"""Every page with data in it, held to WCAG 2.1 (A and AA) by axe-core, in both languages."""

import pytest
from playwright.sync_api import expect

from tests.support.chromium import Windows
from tests.support.console_site import LI_LEI, Site

_PAGES = (
    "/",
    "/?all=1",
    "/orders",
    "/orders?q=nothing",
    "/order?merchant=acme&number=DK202611260001",
    "/order?merchant=acme&number=DK202611260100",
    "/order?merchant=acme&number=DK202611260102",
    "/endpoints",
    "/endpoints/crm",
    "/endpoints/shop?state=delivered",
    "/endpoints/shop/replay?since=2026-01-01T00:00&until=2100-01-01T00:00",
    "/dead-letters",
    "/dead-letters/one?id=m/1",
    "/charts",
    "/signs",
    "/audit",
)
_BODY = '{"biz_order_no":"DK1","pay_status":"success","pay_type":"baofoo_001","sign":"' + "0" * 32 + '"}'


@pytest.mark.parametrize("language", ["en", "zh"])
def test_axe_finds_nothing_wrong_with_any_page(windows: Windows, day: Site, language: str) -> None:
    window = windows.open(day.url)
    window.open("/sign-in")
    window.page.locator("#language").select_option(language)
    window.page.locator("footer button").click()
    faults = [*window.accessibility_faults()]
    window.page.locator("#token").fill(LI_LEI)
    window.page.locator("main button").click()
    for path in _PAGES:
        window.open(path)
        expect(window.page.locator(".uplot")).to_have_count(5 if path in ("/", "/?all=1", "/charts") else 0)
        faults += window.accessibility_faults()
    window.open("/signs")
    window.page.locator("#body").fill(_BODY)
    window.page.locator("main button").click()
    expect(window.page.locator("main pre").first).to_be_visible()
    faults += window.accessibility_faults()
    window.expected_statuses = {404}
    window.open("/order?merchant=acme&number=unknown")
    faults += window.accessibility_faults()
    assert not faults, "\n".join(faults)
