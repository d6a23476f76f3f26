"""An order in the console: found, read, watched and decided by people."""

import re

from playwright.sync_api import expect

from service.domain.claims import OrderStatus, Trust
from service.domain.money import Money
from tests.support.chromium import Window, Windows
from tests.support.console_site import HAN_MEIMEI, LI_LEI, Site

_ATTACK = "\u202e\u200f<script>hacked=1</script>\"'><img src=x onerror=hacked=1><svg/onload=hacked=1>{{7*7}}"
_HOSTILE = _ATTACK + "x" * (128 - len(_ATTACK))


def decide(window: Window, *, status: str, reason: str) -> None:
    window.page.get_by_role("combobox", name="status", exact=True).select_option(status)
    window.page.get_by_label("Why, and on what evidence").fill(reason)
    window.page.get_by_role("button", name="Decide").click()


def test_a_search_by_either_number_opens_the_orders_timeline(li_lei: Window, site: Site) -> None:
    site.announce("FOUND-1")
    site.record("FOUND-1", trust=Trust.CHECKSUM, pay_order_no="GATEWAY-1")
    site.record("FOUND-1", pay_order_no="GATEWAY-1")
    for number in ("FOUND-1", "GATEWAY-1"):
        li_lei.open("/")
        li_lei.search(number)
        expect(li_lei.page.get_by_role("heading", level=1)).to_have_text("Order FOUND-1")
    happened = li_lei.page.get_by_role("listitem")
    for words in (
        "Announced",
        "Not believed: its trust is below what the merchant requires",
        "Applied: the order took this status.",
        "Event: succeeded",
        "Event 1 was delivered to shop",
    ):
        expect(happened.filter(has_text=words).first).to_be_visible()
    expect(li_lei.page.locator("footer")).to_contain_text("payment-callbacks orders show acme FOUND-1")
    li_lei.search("FOUND-2")
    expect(li_lei.main).to_contain_text("No order has exactly this number.")


def test_a_claim_appears_on_an_open_page_and_leaves_alone_what_is_being_written(li_lei: Window, site: Site) -> None:
    site.announce("LIVE-1")
    li_lei.search("LIVE-1")
    reason = li_lei.page.get_by_label("Why, and on what evidence")
    reason.fill("the bank says")
    li_lei.page.evaluate("window.same = true")
    site.record("LIVE-1")
    expect(li_lei.page.locator("#status")).to_have_text("succeeded")
    expect(li_lei.main).to_contain_text("Event: succeeded")
    assert li_lei.page.evaluate("window.same"), "the page was loaded anew"
    expect(reason).to_have_value("the bank says")
    # The form decides about what the person saw, so it has to be opened anew.
    li_lei.page.get_by_role("link", name="Open it anew before you decide.").click()
    expect(li_lei.main).to_contain_text("The status is final: succeeded")
    decide(li_lei, status="failed", reason="the bank says otherwise")
    expect(li_lei.main).to_contain_text("Proposed. Another person has to confirm it.")


def test_what_an_attacker_writes_is_shown_as_text_and_runs_nowhere(li_lei: Window, site: Site) -> None:
    site.announce(_HOSTILE)
    site.record(_HOSTILE, OrderStatus.PROCESSING, channel_response=f"refused {_ATTACK}")
    site.record(_HOSTILE, pay_order_no=_HOSTILE[::-1], amount=Money("90.00", "yuan"), channel_response=_ATTACK)
    shown = _ATTACK.replace("\u202e", "\\u202e").replace("\u200f", "\\u200f")
    li_lei.open("/orders")
    li_lei.page.get_by_role("link", name="<script>hacked").click()
    expect(li_lei.page.get_by_role("heading", level=1)).to_contain_text(shown)
    expect(li_lei.main).to_contain_text(f"refused {shown}")
    li_lei.page.get_by_label("Why", exact=True).fill(_ATTACK)
    li_lei.page.get_by_role("button", name="Ask", exact=True).click()
    expect(li_lei.main).to_contain_text("The gateway is asked from")
    for path in ("/", "/audit", "/endpoints/shop?state=delivered", f"/orders?merchant={_ATTACK}"):
        li_lei.open(path)
        expect(li_lei.page.get_by_role("heading", level=1)).to_be_visible()
        assert li_lei.page.evaluate("typeof hacked") == "undefined"
    li_lei.search(_HOSTILE)
    expect(li_lei.page.get_by_role("heading", level=1)).to_contain_text(shown)


def test_a_large_amount_is_decided_by_two_people(windows: Windows, li_lei: Window, site: Site) -> None:
    site.announce("TWO-1", amount="5000.00")
    li_lei.search("TWO-1")
    decide(li_lei, status="failed", reason="the bank's statement has no such payment")
    expect(li_lei.main).to_contain_text("You have proposed it, so another person has to confirm it.")
    expect(li_lei.page.get_by_role("button", name="Confirm")).to_have_count(0)
    expect(li_lei.page.locator("#status")).to_have_text("initial")
    other = windows.open(site.url, HAN_MEIMEI)
    other.search("TWO-1")
    other.page.get_by_role("button", name="Confirm").click()
    expect(other.page.locator("#status")).to_have_text("failed")
    expect(other.main).to_contain_text("confirmed by han.meimei@example.com")
    # Whoever proposed it sees it without loading the page anew.
    expect(li_lei.page.locator("#status")).to_have_text("failed")


def test_a_proposal_is_withdrawn_with_a_reason(li_lei: Window, site: Site) -> None:
    site.announce("TWO-2", amount="5000.00")
    li_lei.search("TWO-2")
    decide(li_lei, status="succeeded", reason="a screenshot of the payer")
    li_lei.page.get_by_label("Why it is withdrawn").fill("a screenshot proves nothing")
    li_lei.page.get_by_role("button", name="Withdraw").click()
    expect(li_lei.main).to_contain_text("a screenshot proves nothing")
    expect(li_lei.page.locator("#status")).to_have_text("initial")


def test_of_two_people_who_decide_at_once_the_second_has_to_look_again(
    li_lei: Window, han_meimei: Window, site: Site
) -> None:
    site.announce("RACE-1", amount="10.00")
    for window in (li_lei, han_meimei):
        window.search("RACE-1")
        window.page.get_by_label("Why, and on what evidence").fill("the bank's statement")
    decide(li_lei, status="failed", reason="the bank's statement")
    expect(li_lei.page.locator("#status")).to_have_text("failed")
    han_meimei.expected_statuses = {409}
    decide(han_meimei, status="succeeded", reason="the payer's word")
    expect(han_meimei.main).to_contain_text("The order has changed since you looked at it.")
    expect(han_meimei.main).to_contain_text("has decided: failed")
    expect(han_meimei.page.locator("#status")).to_have_text("failed")
    expect(han_meimei.page.get_by_label("Why, and on what evidence")).to_have_value("the payer's word")
    # The page goes on to load what is new, and the history with it.
    site.record("RACE-1", pay_order_no="GATEWAY-RACE-1")
    expect(han_meimei.page.locator("#history")).to_contain_text("GATEWAY-RACE-1")


def test_a_browser_without_javascript_reads_and_acts(windows: Windows, site: Site) -> None:
    site.announce("PLAIN-1", amount="10.00")
    window = windows.open(site.url, LI_LEI, javascript=False)
    window.search("PLAIN-1")
    decide(window, status="failed", reason="the bank's statement")
    expect(window.page.locator("#status")).to_have_text("failed")
    window.open("/charts")
    expect(window.page.get_by_role("table").first).to_be_visible()


def test_the_console_works_the_same_on_postgresql(windows: Windows, site_on_postgresql: Site) -> None:
    site_on_postgresql.announce("PG-1", amount="10.00")
    window = windows.open(site_on_postgresql.url, LI_LEI)
    window.search("PG-1")
    site_on_postgresql.record("PG-1", OrderStatus.PROCESSING, pay_order_no="GATEWAY-PG-1")
    expect(window.page.locator("#status")).to_have_text("processing")
    expect(window.main).to_contain_text("Event 1 was delivered to shop")
    window.open("/order?merchant=acme&number=PG-1")
    decide(window, status="failed", reason="the bank's statement")
    expect(window.page.locator("#status")).to_have_text("failed")
    window.open("/orders?amount=10")
    window.page.get_by_role("link", name="PG-1", exact=True).click()
    expect(window.page).to_have_url(re.compile("number=PG-1"))
