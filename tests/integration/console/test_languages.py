"""The console's pages in Chinese, with data in all of them, on both databases."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape

from flask_babel import force_locale
from sqlalchemy import Engine

from service.console.signs import explanation_in_words
from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.gateway import sign_explanation
from service.gateway.bodies import JsonValue, NumberToken
from service.ledger.announcements import Announcement
from service.ledger.audit import Author
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.endpoints import Pauses
from service.ledger.inquiries import InquiryReason
from service.ledger.outbox import FailedDelivery, Outbox
from service.ledger.replays import Replays, ReplayWindow
from service.ledger.store import LedgerStore
from service.ledger.totals import Counted, Series, TotalsStore
from service.runtime.clock import now
from tests.support.claims import a_claim
from tests.support.console import Browser

# What a person copies, and what people and systems have written, is in their own language.
_NOT_OURS = re.compile(
    r"<(head|code|pre|textarea|select)\b.*?</\1>|<bdi>payment-callbacks .*?</bdi>|\(console, API token \S+\)", re.DOTALL
)
_ENGLISH = re.compile(r"[A-Za-z][a-z']+(?:[ ,]+[A-Za-z][a-z']+)+")


def english_in(page: str) -> list[str]:
    """Two or more English words in a row, in what a page shows and in its labels."""
    page = _NOT_OURS.sub(" ", page)
    labels = re.findall(r'aria-label="([^"]*)"', page)
    texts = re.sub(r"<[^>]*>", "\n", page).splitlines()
    return [found for text in (*texts, *labels) for found in _ENGLISH.findall(unescape(text))]


def test_what_explains_a_sign_is_said_in_chinese(browser: Browser) -> None:
    values: list[JsonValue] = [NumberToken("-1.0"), NumberToken("1"), [], {}, ["x"], None]
    values += ["汉", "\U00020000", "\ud800", "\u2028", "\x07", "/"]
    traits = sign_explanation.find_traits({f"f{number}": value for number, value in enumerate(values)})
    said = {trait.what for trait in traits} | {what for what, _ in sign_explanation._changes({"sign_type": "md5"})}
    assert len(said) > 20
    with browser.client.application.test_request_context(), force_locale("zh"):
        english = [what for what in said if explanation_in_words(what) == what]
    assert english == []


def speak_chinese(browser: Browser) -> None:
    browser.open("/")
    browser.send("/preferences", language="zh", time_zone="Asia/Shanghai")


def fill(store: LedgerStore, engine: Engine) -> None:
    """An order in conflict with a proposal, an inquiry and events, a quarantined claim, and what else people see."""
    store.announce(
        Announcement(
            merchant="acme",
            biz_order_no="DK-1",
            amount="5000.00",
            amount_unit="yuan",
            pay_type="baofoo_001",
            answer_due_at=datetime.now(UTC) + timedelta(minutes=5),
        )
    )
    store.record(
        [
            a_claim(order="DK-1", status=OrderStatus.SUCCEEDED, pay_type="baofoo_001", trust=Trust.CHECKSUM),
            a_claim(order="DK-1", status=OrderStatus.SUCCEEDED, pay_type="baofoo_001", trust=Trust.CAPABILITY),
            a_claim(order="DK-1", trust=Trust.CAPABILITY, amount=Money("90.00", "yuan")),
            a_claim(order="DK-2", trust=Trust.CAPABILITY, quarantine="pay_status"),
        ]
    )
    store.inquire(OrderKey("acme", "DK-1"), InquiryReason.OPERATOR, author=Author(name="LL", reason="x"))
    outbox, replays, author = Outbox(engine=engine), Replays(engine=engine), Author(name="LL", reason="x")
    due = outbox.lease_due(endpoint="shop", limit=10, lease_seconds=60)
    outbox.settle_failed([FailedDelivery(delivery=one, error="503", wait_seconds=60) for one in due])
    window = ReplayWindow(endpoint="shop", since=now() - timedelta(days=1), until=now() + timedelta(days=1))
    replays.request(window, expected=replays.count(window), author=author)
    DeadLetterStore(engine=engine).record([DeadLetterRecord(id="m/1", reason="broken", died_at=now(), body="{}")])
    Pauses(engine=engine, clock=lambda: now() - timedelta(hours=5)).pause("shop", author=Author(name="LL", reason="x"))


def test_a_reader_of_chinese_finds_no_english_sentence(browser: Browser, store: LedgerStore, engine: Engine) -> None:
    fill(store, engine)
    speak_chinese(browser)
    browser.open("/order?merchant=acme&number=DK-1")
    assert "已提交，待他人复核。" in browser.submit("/order/resolve", status="failed", reason="银行回单")
    paths = [
        "/",
        "/orders",
        "/order?merchant=acme&number=DK-1",
        "/endpoints",
        "/endpoints/shop",
        "/endpoints/shop?state=delivered",
        "/endpoints/shop/replay?since=2026-01-01T00:00&until=2026-12-31T00:00",
        "/dead-letters",
        "/dead-letters/one?id=m/1",
        "/charts",
        "/signs",
        "/audit",
        "/no-such-page",
    ]
    found = {path: english_in(browser.open(path)) for path in paths}
    assert found == {path: [] for path in paths}
    assert "起投递失败" in browser.open("/")
    assert '<html lang="zh-CN">' in browser.page.text


def test_units_reasons_and_means_are_in_the_readers_language(
    browser: Browser, store: LedgerStore, engine: Engine
) -> None:
    fill(store, engine)
    TotalsStore(engine=engine).add({Counted(Series.REFUSALS, outcome="forged-token"): 1}, process="p1")
    people = ["LL (command line)", "LL (console, API token ll)", "LL (API token ll), confirmed by HM (console, proxy)"]
    for person in people:
        Outbox(engine=engine).replay_parked(endpoint="shop", author=Author(name=person, reason="x"))
    speak_chinese(browser)
    assert "5000.00 元" in browser.open("/orders")
    assert "伪造的令牌" in browser.open("/charts")
    audit = browser.open("/audit")
    for person in ("LL（命令行）", "LL（控制台，API 令牌 ll）", "LL（API 令牌 ll），复核人：HM（控制台，代理登录）"):
        assert person in audit


def test_what_was_not_done_is_said_in_the_readers_language(browser: Browser, store: LedgerStore) -> None:
    store.record([a_claim(order="DK-1", trust=Trust.CAPABILITY)])
    speak_chinese(browser)
    for fields, words in [
        ({"status": "failed", "amount": "x"}, "金额须为以商户金额单位表示的精确数字"),
        ({"status": "failed", "pay_type": "x"}, "该商户没有此支付类型"),
    ]:
        browser.open("/order?merchant=acme&number=DK-1")
        text = browser.submit("/order/resolve", reason="银行回单", **fields)
        assert f"未执行任何操作：{words}" in text
        assert english_in(text) == []


def test_one_who_confirms_his_own_proposal_is_told_so(
    browser: Browser, open_browser: Callable[[], Browser], store: LedgerStore
) -> None:
    store.record([a_claim(order="DK-1", trust=Trust.CAPABILITY)])
    browser.open("/order?merchant=acme&number=DK-1")
    browser.submit("/order/resolve", status="failed", reason="the bank says so")
    (proposal,) = store.order_history(OrderKey("acme", "DK-1")).proposals
    asked = {"merchant": "acme", "number": "DK-1", "proposal": str(proposal.id), "decision": "confirm"}
    assert "Nothing was done: you have proposed it yourself" in browser.send("/order/proposal", **asked)
    speak_chinese(browser)
    browser.open("/order?merchant=acme&number=DK-1")
    assert "由您本人提交：须由另一人复核" in browser.send("/order/proposal", **asked)
    other = open_browser()
    other.sign_in("token-of-han-meimei-with-32-characters")
    other.open("/order?merchant=acme&number=DK-1")
    other.submit("/order/proposal", decision="confirm")
    assert "已复核" in browser.send("/order/proposal", **asked)
