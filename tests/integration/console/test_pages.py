"""The console's pages, without JavaScript, on both databases."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import unquote

import pytest
from sqlalchemy import Engine

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.ledger.announcements import Announcement
from service.ledger.audit import Action, Author, record_change
from service.ledger.dead_letters import DeadLetterAction, DeadLetterRecord, DeadLetterStore
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.store import LedgerStore
from service.ledger.totals import Counted, Series, TotalsStore
from tests.support.claims import a_claim
from tests.support.console import Browser

_NOW = datetime.now(UTC)
_HOSTILE = '‮<script>alert("1")</script>' + "x" * 90


def announce(store: LedgerStore, number: str, amount: str | None = "100.00") -> None:
    store.announce(
        Announcement(
            merchant="acme",
            biz_order_no=number,
            amount=amount,
            amount_unit="yuan" if amount else None,
            pay_type="baofoo_001",
            answer_due_at=None,
        )
    )


@pytest.mark.parametrize(
    "path", ["/", "/orders", "/endpoints", "/endpoints/shop", "/dead-letters", "/signs", "/audit", "/charts"]
)
def test_every_page_can_be_read_without_any_data(browser: Browser, path: str) -> None:
    browser.open(path)
    assert browser.page.status_code == 200
    assert "payment-callbacks" in browser.page.text


def test_a_search_by_either_number_leads_to_the_order(browser: Browser, store: LedgerStore) -> None:
    announce(store, "DK-1")
    store.record([a_claim(order="DK-1", pay_order_no="P-77", trust=Trust.CAPABILITY)])
    for number in ("DK-1", "P-77"):
        assert "Announced" in browser.open("/orders?q=" + number)
        assert browser.page.request.path == "/order"
    assert "Announced" in browser.open("/orders?q=dk-1")
    for unknown in ("DK-2", "DK", "P-7"):
        assert "No order has exactly this number." in browser.open("/orders?q=" + unknown)


def test_orders_are_found_by_amount_status_and_time(browser: Browser, store: LedgerStore) -> None:
    announce(store, "DK-1", "100.00")
    announce(store, "DK-2", "250.00")
    assert "DK-1" in browser.open("/orders?amount=100")
    assert "DK-2" not in browser.page.text
    assert "DK-2" in browser.open("/orders?status=initial&merchant=acme")
    assert "DK-2" not in browser.open("/orders?status=failed")
    assert "No order fits what is chosen." in browser.page.text
    later = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M}"
    assert "DK-2" not in browser.open(f"/orders?since={later}")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("amount=abc", "without a unit"),
        ("amount=20.00+yuan", "without a unit"),
        ("amount=-1", "without a unit"),
        ("since=yesterday", "a date and a time"),
        ("since=2026-11-27T10:00&until=2026-11-27T10:00", "later than the start"),
    ],
)
def test_a_search_that_cannot_be_meant_is_refused_at_its_field_and_keeps_the_others(
    browser: Browser, store: LedgerStore, wrong: str, said: str
) -> None:
    announce(store, "DK-1")
    text = browser.open(f"/orders?merchant=acme&status=initial&{wrong}")
    assert browser.page.status_code == 400
    assert said in text.partition('aria-invalid="true"')[2].partition("</strong>")[0]
    assert text.count(" selected>") == 3  # the merchant, the status and the language
    assert "DK-1" not in text


def test_the_timeline_tells_what_happened_and_why(browser: Browser, store: LedgerStore) -> None:
    announce(store, "DK-1")
    store.record(
        [
            a_claim(order="DK-1", status=OrderStatus.SUCCEEDED, pay_type="baofoo_001", trust=Trust.CHECKSUM),
            a_claim(order="DK-1", status=OrderStatus.SUCCEEDED, pay_type="baofoo_001", trust=Trust.CAPABILITY),
        ]
    )
    text = browser.open("/order?merchant=acme&number=DK-1")
    assert text.index("Announced") < text.index("Not believed: its trust is below") < text.index("Event: succeeded")
    assert "Event 1 is sent to shop" in text
    assert "payment-callbacks orders show acme DK-1" in text


def test_the_timeline_has_each_try_of_a_delivery_with_its_time_and_error(
    browser: Browser, store: LedgerStore, engine: Engine
) -> None:
    store.record([a_claim(order="DK-1", pay_type="baofoo_001", trust=Trust.CAPABILITY)])
    outbox = Outbox(engine=engine)
    for error in ("it answered 503", "it did not answer in time"):
        (due,) = outbox.lease_due(endpoint="shop", limit=10, lease_seconds=60)
        outbox.settle_failed([FailedDelivery(delivery=due, error=error, wait_seconds=0)])
    outbox.settle_delivered(outbox.lease_due(endpoint="shop", limit=10, lease_seconds=60))
    text = browser.open("/order?merchant=acme&number=DK-1")
    assert text.count("Event 1 was not taken by shop") == 2
    assert text.index("it answered 503") < text.index("it did not answer in time")
    assert text.index("it did not answer in time") < text.index("Event 1 was delivered to shop")


def test_an_order_says_why_it_has_no_final_status_and_folds_what_repeats_itself(
    browser: Browser, store: LedgerStore
) -> None:
    announce(store, "DK-1")
    path = "/order?merchant=acme&number=DK-1"
    assert "No callback has come yet." in browser.open(path)
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.CHECKSUM, order="DK-1", pay_type="baofoo_001")])
    assert "Callbacks have come, and none is trusted enough." in browser.open(path)
    answers = [
        a_claim(OrderStatus.PROCESSING, Trust.QUERIED, order="DK-1", minute=minute, pay_type="baofoo_001")
        for minute in range(12)
    ]
    for answer in answers:
        store.record([answer])
    text = browser.open(path)
    assert "it answered: processing" in text
    assert "more like these, from" in text
    store.record([a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, order="DK-1", minute=20, pay_type="baofoo_001")])
    assert 'id="why"' not in browser.open(path)


def test_a_person_sees_who_has_to_agree_and_what_is_final_before_deciding(browser: Browser, store: LedgerStore) -> None:
    announce(store, "DK-1", "10.00")
    path = "/order?merchant=acme&number=DK-1"
    assert ">succeeded (a second person confirms it)</option>" in browser.open(path)
    store.record(
        [a_claim(OrderStatus.SUCCEEDED, Trust.QUERIED, order="DK-1", pay_type="baofoo_001", pay_order_no="P-1")]
    )
    text = browser.open(path)
    assert "The status is final: succeeded (query: the gateway's answer)" in text
    assert "Whatever you decide, a second person has to confirm it" in text
    proposed = browser.submit("/order/resolve", status="failed", pay_order_no="P-9", reason="the bank says so")
    assert "Proposed. Another person has to confirm it." in proposed
    assert "<strong><bdi>failed</bdi></strong>" in proposed
    assert "<strong><bdi>P-9</bdi></strong>" in proposed


def test_a_failing_endpoint_is_on_today_with_the_time_since_when(
    browser: Browser, store: LedgerStore, engine: Engine
) -> None:
    store.record([a_claim(order="DK-1", pay_type="baofoo_001", trust=Trust.CAPABILITY)])
    assert "failing since" not in browser.open("/")
    outbox = Outbox(engine=engine)
    (due,) = outbox.lease_due(endpoint="shop", limit=10, lease_seconds=60)
    outbox.settle_failed([FailedDelivery(delivery=due, error="it answered 503", wait_seconds=60)])
    for page in ("/", "/endpoints", "/endpoints/shop"):
        text = browser.open(page)
        assert ("failing since" in text, "it answered 503" in text) == (True, True)


def test_personal_data_is_masked_and_what_cannot_be_seen_is_written_out(browser: Browser, store: LedgerStore) -> None:
    store.record(
        [
            a_claim(
                order=_HOSTILE, trust=Trust.CAPABILITY, channel_response="card 6222021234561234 \u200f<b>of 13812345678"
            )
        ]
    )
    text = browser.open("/orders")
    assert "<script>alert" not in text
    assert "\\u202e&lt;script&gt;" in text
    text = browser.client.get("/order", query_string={"merchant": "acme", "number": _HOSTILE}).text
    assert "6222****1234" in text
    assert "138****5678" in text
    assert "\\u200f&lt;b&gt;of" in text
    assert "6222021234561234" not in text
    assert "\u202e" not in text.replace("value=", "").split("<main")[1].split("<section")[0]


def test_a_resolution_above_the_limit_needs_a_second_person(
    browser: Browser, open_browser: Callable[[], Browser], store: LedgerStore
) -> None:
    announce(store, "DK-1", "5000.00")
    browser.open("/order?merchant=acme&number=DK-1")
    assert "Proposed. Another person" in browser.submit("/order/resolve", status="failed", reason="the bank says so")
    assert "You have proposed it" in browser.page.text
    order = store.load_order(OrderKey("acme", "DK-1"))
    assert order is not None
    assert order.state.status is OrderStatus.INITIAL
    other = open_browser()
    other.sign_in("token-of-han-meimei-with-32-characters")
    other.open("/order?merchant=acme&number=DK-1")
    assert "Confirmed" in other.submit("/order/proposal", decision="confirm")
    assert "li.lei@example.com (console, API token li-lei), confirmed by han.meimei@example.com" in other.page.text
    order = store.load_order(OrderKey("acme", "DK-1"))
    assert order is not None
    assert order.state.status is OrderStatus.FAILED


def test_of_two_people_who_resolve_the_same_order_the_second_is_told_to_look_again(
    browser: Browser, open_browser: Callable[[], Browser], store: LedgerStore
) -> None:
    announce(store, "DK-1", "5.00")
    other = open_browser()
    other.sign_in("token-of-han-meimei-with-32-characters")
    for one in (browser, other):
        one.open("/order?merchant=acme&number=DK-1")
    assert "Decided. Applied: " in browser.submit("/order/resolve", status="failed", reason="mine")
    refused = other.submit("/order/resolve", status="failed", reason="mine too")
    assert "look again" in refused
    assert "<strong>failed</strong>" in refused
    # What was typed is not lost, and can be sent again.
    assert 'value="mine too"' in refused
    assert "li.lei@example.com (console, API token li-lei) has decided: failed (mine)." in refused
    assert '<option value="failed" selected>' in refused
    assert 'hx-get="/order?merchant=acme&amp;number=DK-1&amp;seen=' in refused
    assert "Decided. Duplicate: " in other.submit("/order/resolve", status="failed", reason="mine too")


def test_a_window_that_ends_before_it_begins_is_said_at_its_field_and_what_was_typed_stays(
    browser: Browser,
) -> None:
    text = browser.open("/endpoints/shop/replay?since=2026-07-02T12:00&until=2026-07-01T12:00&status=failed")
    assert "This has to be later than the start." in text
    assert 'value="2026-07-02T12:00"' in text
    assert '<option value="failed" selected>' in text
    assert "Enter a date and a time." in browser.open("/endpoints/shop/replay?since=then&until=2026-07-01T12:00")


def test_an_open_page_of_an_order_that_has_changed_says_so_beside_what_is_new(
    browser: Browser, store: LedgerStore
) -> None:
    announce(store, "DK-1")
    (address,) = re.findall(r'hx-get="([^"]+)"', browser.open("/order?merchant=acme&number=DK-1"))
    assert "has changed since you opened this page" not in browser.open(unescape(address))
    store.record([a_claim(order="DK-1", pay_type="baofoo_001", trust=Trust.CAPABILITY)])
    assert "has changed since you opened this page" in browser.open(unescape(address))
    assert "Event: succeeded" in browser.page.text
    assert "has changed since you opened this page" not in browser.open("/order?merchant=acme&number=DK-1")


def test_an_endpoint_is_paused_and_resumed_with_a_reason_in_the_audit(browser: Browser) -> None:
    browser.open("/endpoints/shop")
    assert "Paused since" in browser.submit("/endpoints/shop/pause", reason="deploying")
    assert "Paused since" not in browser.submit("/endpoints/shop/resume", reason="deployed")
    text = browser.open("/audit")
    assert text.index("deployed") < text.index("deploying")
    assert "li.lei@example.com (console, API token li-lei)" in text


def test_the_audit_leads_to_what_was_changed(browser: Browser, engine: Engine) -> None:
    author = Author(name="li.lei (command line)", reason="a test of ours")
    with engine.begin() as connection:
        record_change(connection, Action.INQUIRE, "acme/DK/1", author, at=_NOW, order=OrderKey("acme", "DK/1"))
    letters = DeadLetterStore(engine=engine)
    letters.record([DeadLetterRecord(id=f"m/{n}", reason="broken", died_at=_NOW, body="{}") for n in (1, 2)])
    letters.request(["m/1"], DeadLetterAction.REPLAY, author=author)
    letters.request(["m/1", "m/2"], DeadLetterAction.DROP, author=author)
    Outbox(engine=engine).replay_parked(endpoint="shop", author=author)
    text = browser.open("/audit")
    for address in ("/order?merchant=acme&amp;number=DK/1", "/dead-letters/one?id=m/1", "/endpoints/shop"):
        assert text.count(f'<td class="identifier"><a href="{address}">') == 1
    assert "shop: 0 events that were given up" in text


def test_decisions_are_in_the_audit_and_once_each_on_the_orders_page(
    browser: Browser, open_browser: Callable[[], Browser], store: LedgerStore
) -> None:
    announce(store, "DK-1", "5000.00")
    page, other = "/order?merchant=acme&number=DK-1", open_browser()
    other.sign_in("token-of-han-meimei-with-32-characters")
    for status, decision in (("succeeded", "withdraw"), ("failed", "confirm")):
        browser.open(page)
        browser.submit("/order/resolve", status=status, reason="the bank says so")
        other.open(page)
        other.submit("/order/proposal", decision=decision, reason="another order")
    announce(store, "DK-2", "5.00")
    browser.open("/order?merchant=acme&number=DK-2")
    browser.submit("/order/resolve", status="failed", reason="the bank says so")
    audit = browser.open("/audit")
    for what, times in (
        *(("resolved an order", 1), ("proposed a resolution", 2), ("confirmed a proposal", 1)),
        *(("withdrew a proposal", 1), ("acme/DK-1: failed", 2), ("acme/DK-1: succeeded", 2), ("acme/DK-2: failed", 1)),
        *(('href="/order?merchant=acme&amp;number=DK-1"', 4), ('href="/order?merchant=acme&amp;number=DK-2"', 1)),
    ):
        assert (what, audit.count(what)) == (what, times)
    timeline = browser.open(page)
    for what, times in (
        *(("Proposed: succeeded", 1), ("The proposal was withdrawn", 1), ("Proposed: failed", 1)),
        *(("The proposal was confirmed", 1), ("Decision of a person: failed", 1)),
        *(("proposed a resolution", 0), ("withdrew a proposal", 0), ("confirmed a proposal", 0)),
    ):
        assert (what, timeline.count(what)) == (what, times)
    browser.send("/preferences", language="zh", time_zone="Asia/Shanghai")
    assert "acme/DK-1：失败" in browser.open("/audit")


def test_an_endpoint_shows_the_share_of_tries_that_succeeded(browser: Browser, engine: Engine) -> None:
    gains = {
        Counted(Series.DELIVERIES, endpoint="shop", outcome="delivered"): 3,
        Counted(Series.DELIVERIES, endpoint="shop", outcome="failed"): 1,
    }
    TotalsStore(engine=engine).add(gains, process="p1")
    assert "3 of 4 (75.0%)" in browser.open("/endpoints")
    assert "3 of 4 (75.0%)" in browser.open("/endpoints/shop")


def test_a_window_is_counted_before_it_is_delivered_again(browser: Browser, store: LedgerStore) -> None:
    store.record([a_claim(order="DK-1", trust=Trust.CAPABILITY)])
    since, until = (f"{_NOW + timedelta(days=days):%Y-%m-%dT%H:%M}" for days in (-2, 2))
    text = browser.open(f"/endpoints/shop/replay?since={since}&until={until}")
    assert "<strong>1</strong>" in text
    hidden = {"since": since, "until": until, "expected": "1"}
    running = browser.send("/endpoints/shop/replay", reason="lost an hour", **hidden)
    assert ("lost an hour" in running, "0 of 1 are queued again" in running) == (True, True)
    assert "delivered again before" in browser.open(f"/endpoints/shop/replay?since={since}&until={until}")
    browser.open("/endpoints/shop")
    stopped = browser.submit("/endpoints/shop/replay/stop", reason="the wrong hour")
    assert ("<strong>stopped</strong>" in stopped, "Stop the replay" in stopped) == (True, False)
    audit = browser.open("/audit")
    shown_times = " to ".join(time.replace("T", " ") + ":00" for time in (since, until))
    assert f'<a href="/endpoints/shop"><bdi>shop: 1 events from {shown_times}, replay 1</bdi></a>' in audit
    assert "has 1 event now" in browser.send("/endpoints/shop/replay", reason="again", **{**hidden, "expected": "2"})


def test_a_window_up_to_now_is_one_click_away_and_an_empty_one_promises_nothing(browser: Browser) -> None:
    [address] = re.findall(r'<a href="([^"]+)">the last hour</a>', browser.open("/endpoints/shop"))
    text = browser.open(unescape(address))
    assert "<strong>0</strong> events were made in this window" in text
    assert "gets each of them again" not in text
    [back] = re.findall(r'<a href="([^"]+)">Back to the endpoint</a>', text)
    since = re.findall(r"since=([^&]+)", back)
    assert f'id="since" name="since" type="datetime-local" value="{unquote(since[0])}"' in browser.open(unescape(back))


def test_who_pauses_or_resumes_second_is_told_so(browser: Browser, open_browser: Callable[[], Browser]) -> None:
    other = open_browser()
    other.sign_in("token-of-han-meimei-with-32-characters")
    for one in (browser, other):
        one.open("/endpoints/shop")
    assert "Paused: its events wait" in browser.send("/endpoints/shop/pause", reason="they deploy")
    second = other.send("/endpoints/shop/pause", reason="it fails")
    assert "li.lei@example.com (console, API token li-lei) has paused it already." in second
    assert "Resumed: " in browser.send("/endpoints/shop/resume", reason="they have deployed")
    assert "It was not paused any more. Nothing was done." in other.send("/endpoints/shop/resume", reason="it works")


def test_a_reason_of_blanks_is_refused_with_a_way_back(browser: Browser) -> None:
    browser.open("/endpoints/shop")
    data = {"csrf": re.findall(r'name="csrf" value="([^"]+)"', browser.page.text)[0], "reason": "  "}
    refused = browser.client.post(
        "/endpoints/shop/pause", data=data, headers={"Referer": "http://localhost/endpoints/shop"}
    )
    assert refused.status_code == 400
    assert '<a href="/endpoints/shop">Open the page again</a>' in refused.text


def test_a_dead_letter_is_shown_masked_and_dropped(browser: Browser, engine: Engine) -> None:
    letters = DeadLetterStore(engine=engine)
    letters.record([DeadLetterRecord(id="m/1", reason="broken", died_at=_NOW, body="of 13812345678")])
    assert "m/1" in browser.open("/dead-letters")
    assert "138****5678" in browser.open("/dead-letters/one?id=m/1")
    assert "Requested" in browser.send("/dead-letters/settle", id="m/1", action="drop", reason="a test of ours")
    assert letters.load_requested()[0].requested_by == "li.lei@example.com (console, API token li-lei)"


def test_what_waits_is_listed_with_its_amount_and_can_be_acknowledged(browser: Browser, store: LedgerStore) -> None:
    announce(store, "DK-1", "100.00")
    store.record([a_claim(order="DK-1", trust=Trust.CAPABILITY, amount=Money("90.00", "yuan"))])
    text = browser.open("/")
    assert "100.00 yuan" in text
    assert "DK-1" in text
    hidden = browser.submit("/attention/acknowledge", note="asked the gateway's staff")
    assert "acme DK-1 is hidden for everybody until it changes." in hidden
    assert browser.page.status_code == 200
    assert "DK-1" not in browser.open("/")
    assert "asked the gateway&#39;s staff" in browser.open("/?all=1")
    for path in ("/order?merchant=acme&number=DK-1", "/audit"):
        text = browser.open(path)
        assert ("somebody is on it" in text, "asked the gateway&#39;s staff" in text) == (True, True)


def test_the_charts_show_what_was_counted_as_tables_too(browser: Browser, engine: Engine) -> None:
    gains = {
        Counted(Series.CLAIMS, merchant="acme", source="callback", outcome="applied"): 7,
        Counted(Series.LAGS, merchant="acme", outcome="2.5"): 3,
        Counted(Series.DELIVERIES, endpoint="shop", outcome="delivered"): 5,
    }
    TotalsStore(engine=engine).add(gains, process="p1")
    for window, buckets in (("1h", 13), ("24h", 25), ("7d", 169)):
        text = browser.open(f"/charts?window={window}")
        [data, *_] = [json.loads(unescape(data)) for data in re.findall(r'data-chart="([^"]+)"', text)]
        assert data["series"][0]["label"] == "applied"
        assert data["series"][0]["values"] == [None] * (len(data["times"]) - 1) + [7]
        assert abs(len(data["times"]) - buckets) <= 1
        assert '<td class="number">7</td>' in text
    assert browser.client.get("/charts?window=1y").status_code == 400


def test_a_list_is_a_file_for_a_spreadsheet_that_runs_no_formula(browser: Browser, store: LedgerStore) -> None:
    store.record([a_claim(order="=HYPERLINK(1)", trust=Trust.CAPABILITY)])
    text = browser.open("/orders?format=csv")
    assert browser.page.content_type == "text/csv; charset=utf-8"
    assert "'=HYPERLINK(1)" in text
    assert "+08:00" in text


def test_no_parameter_of_an_address_leads_a_link_elsewhere(browser: Browser, store: LedgerStore) -> None:
    store.record([a_claim(trust=Trust.CAPABILITY)])
    text = browser.open("/orders?_scheme=javascript&_external=1&endpoint=x&_anchor=y")
    assert browser.page.status_code == 200
    assert 'href="javascript' not in text
    assert 'href="/orders?_scheme=javascript&amp;' in text


def test_the_pages_are_in_the_chosen_language_and_time_zone(browser: Browser) -> None:
    browser.open("/")
    browser.send("/preferences", language="zh", time_zone="UTC")
    assert '<html lang="zh-CN">' in browser.open("/orders")
    assert 'name="time_zone" list="zones" value="UTC"' in browser.page.text
    browser.send("/preferences", language="en", time_zone="Mars/Olympus")
    assert "No time zone is called Mars/Olympus." in browser.page.text
    assert 'value="UTC"' in browser.page.text


def test_a_pasted_callback_is_explained_with_its_personal_data_masked(browser: Browser) -> None:
    browser.open("/signs")
    body = (
        '{"biz_order_no":"DK-1","pay_status":"success","channel_response":"of 13812345678","sign":"' + "0" * 32 + '"}'
    )
    text = browser.send("/signs", body=body)
    assert "The sign does not fit." in text
    assert "13812345678" not in text.split("</textarea>")[1]


def test_dead_letters_come_page_by_page(browser: Browser, engine: Engine) -> None:
    letters = [DeadLetterRecord(id=f"m/{n:03}", reason="broken", died_at=_NOW, body="{}") for n in range(60)]
    DeadLetterStore(engine=engine).record(letters)
    first = browser.open("/dead-letters")
    assert ("m/049" in first, "m/050" in first) == (True, False)
    following = re.search(r'<a href="([^"]*after=[^"]*)"', first)
    assert following
    second = browser.open(unescape(following[1]))
    assert ("m/049" in second, "m/050" in second) == (False, True)
    assert "Next page" not in second


def test_the_last_delivered_events_of_an_endpoint_are_shown(
    browser: Browser, store: LedgerStore, engine: Engine
) -> None:
    store.record([a_claim(order="DK-1", trust=Trust.CAPABILITY), a_claim(order="DK-2", trust=Trust.CAPABILITY)])
    outbox = Outbox(engine=engine)
    outbox.settle_delivered(outbox.lease_due(endpoint="shop", limit=1, lease_seconds=60))
    delivered, waiting = browser.open("/endpoints/shop?state=delivered"), browser.open("/endpoints/shop")
    assert ("DK-1" in delivered, "DK-2" in delivered) == ("DK-1" not in waiting, "DK-2" not in waiting)
    assert ("DK-1" in delivered) != ("DK-2" in delivered)
    # The command line lists no more than an index finds.
    assert "payment-callbacks deliveries list" not in delivered
    assert "payment-callbacks deliveries list --endpoint shop --state open" in waiting
