"""An endpoint in the console: paused, resumed, and given a window of time again."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.sync_api import expect

from tests.support.chromium import Window
from tests.support.console_site import Site
from tests.support.waiting import eventually


def give_reason(window: Window, heading: str, reason: str) -> None:
    """Fill in and send the form under this heading."""
    title = window.page.get_by_role("heading", name=heading, exact=True)
    form = window.page.locator("section.action").filter(has=title)
    form.get_by_label("Why").fill(reason)
    form.get_by_role("button").click()


def test_a_paused_endpoint_gets_nothing_until_it_is_resumed(li_lei: Window, site: Site) -> None:
    li_lei.open("/endpoints/books")
    give_reason(li_lei, "Pause", "they are deploying")
    expect(li_lei.page.locator("#health")).to_have_text("paused")
    site.record("PAUSED-1", merchant="beta")
    expect(li_lei.main).to_contain_text("beta PAUSED-1")
    assert not site.downstream.about("PAUSED-1")
    give_reason(li_lei, "Resume", "they have deployed")
    eventually(lambda: site.downstream.about("PAUSED-1"))
    expect(li_lei.main).not_to_contain_text("beta PAUSED-1")
    li_lei.open("/audit")
    expect(li_lei.main).to_contain_text("they are deploying")
    expect(li_lei.main).to_contain_text("they have deployed")


def test_a_test_event_shows_what_the_endpoint_answers(li_lei: Window) -> None:
    li_lei.open("/endpoints/books")
    give_reason(li_lei, "Test", "after their deployment")
    expect(li_lei.page.get_by_role("status").filter(has_text="Test")).to_contain_text("204")


def test_a_window_is_counted_before_its_events_are_delivered_again(li_lei: Window, site: Site) -> None:
    began = datetime.now(UTC)
    for number in ("AGAIN-1", "AGAIN-2"):
        site.record(number, merchant="beta")
        eventually(site.downstream.about, number)
    received = len(site.downstream.received)
    li_lei.open("/endpoints/books")
    times = (began, datetime.now(UTC) + timedelta(hours=1))
    for label, time in zip(("events made since", "and before"), times, strict=True):
        li_lei.page.get_by_label(label).fill(f"{time.astimezone(ZoneInfo('Asia/Shanghai')):%Y-%m-%dT%H:%M}")
    li_lei.page.get_by_role("button", name="Count them first").click()
    expect(li_lei.page.locator("#count")).to_contain_text("Nothing is sent yet.")
    # Other tests may have made events in the same minute.
    count = int(li_lei.page.locator("#count strong").inner_text())
    assert count >= 2
    assert len(site.downstream.received) == received
    li_lei.page.get_by_label("Why").fill("they lost an hour")
    li_lei.page.get_by_role("button", name="Deliver them again").click()
    eventually(lambda: len(site.downstream.received) == received + count)
    expect(li_lei.main).to_contain_text(f"{count} of {count} are queued again")
