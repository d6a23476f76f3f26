"""The console's pages among many orders: how long each takes."""

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from html import unescape
from http.cookiejar import CookieJar
from pathlib import Path
from statistics import median
from typing import LiteralString
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

from rich.console import Console

from tests.benchmarks.database import Database
from tests.benchmarks.installation import API_TOKEN
from tests.benchmarks.ledger import OurLedger
from tests.benchmarks.measuring import Figures, Findings, Ratio, a_progress
from tests.benchmarks.sizes import Sizes
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ

_REQUESTS = 20
_MAX_MILLISECONDS = 300
_MADE_TOGETHER = 250_000
_PAGES_ON = 100
_MERCHANT = "acme"
_NEXT_PAGE = re.compile(r'<a href="([^"]*[?&;]after=[^"]*)"')

# The orders of thirty days, of which one in fifty is still processing and one in fifty has failed.
_VARIED: Mapping[str, LiteralString] = {
    **dict.fromkeys(
        ("created_at", "updated_at", "recorded_at", "settled_at"),
        "now() - random() * interval '30 days'",
    ),
    "pay_order_no": "'P' || numbers.biz_order_no",
    "amount": "(mod(numbers.number * 7919, 200000) / 100.0)::numeric(12, 2)::text",
    "amount_unit": "'yuan'",
    "status": "CASE mod(numbers.number, 50) WHEN 0 THEN 'processing' WHEN 1 THEN 'failed' ELSE 'succeeded' END",
}
# What waits for people, of which there is as much however many orders there are.
_WAITING: LiteralString = """
    UPDATE orders SET conflicted = true, disputed = '[["amount", "1.00"]]', disputed_fields = 'amount'
        WHERE biz_order_no < 'known-00000200';
    INSERT INTO inquiries (merchant, biz_order_no, state, reasons, raised, due_at, horizon_at, attempts, doubt_attempts,
            doubt_repeats, not_found, last_asked_at, asked_day, asked_today, doubts_today, fence, opened_at)
        SELECT merchant, biz_order_no, 'parked', 2, 1, updated_at, updated_at, 9, 0, false, 0, updated_at, '2026-01-01',
            1, 0, 9, updated_at FROM orders WHERE biz_order_no BETWEEN 'known-00000200' AND 'known-00001200'
        ON CONFLICT DO NOTHING;
    UPDATE deliveries SET state = 'parked', last_error = 'HTTP 410'
        WHERE endpoint = 'shop' AND biz_order_no BETWEEN 'known-00002000' AND 'known-00012000';
    INSERT INTO dead_letters (id, reason, died_at, body, requested_by, requested_reason, outcome)
        SELECT 'letter/' || number, 'not-json: no JSON', now() - number * interval '1 minute', '{}', '', '', ''
        FROM generate_series(1, 1000) AS number;
    INSERT INTO audit (changed_at, changed_by, action, subject, reason)
        SELECT now() - number * interval '1 minute', 'li.lei@example.com', 'pause', 'shop', 'a benchmark'
        FROM generate_series(100000, 1, -1) AS number;
    INSERT INTO totals (series, merchant, endpoint, source, outcome, process, resolution_seconds, starts_at, value)
        SELECT series, 'acme', CASE series WHEN 'deliveries' THEN 'shop' ELSE '' END,
            CASE series WHEN 'claims' THEN 'callback' ELSE '' END, outcome, 'one', length,
            to_timestamp(floor(extract(epoch FROM now()) / length - number) * length), 1000
        FROM unnest(ARRAY['claims', 'refusals', 'deliveries', 'questions']) AS series,
            unnest(ARRAY['applied', 'duplicate', 'stale', 'conflict', 'untrusted']) AS outcome,
            unnest(ARRAY[300, 3600]) AS length, generate_series(0, 840) AS number;
"""
_DELIVERED: LiteralString = """
    DELETE FROM deliveries WHERE endpoint = 'slow';
    UPDATE deliveries SET state = 'delivered', settled_at = now();
"""
# An endpoint that has failed for long.
_BACKLOG: LiteralString = """
    INSERT INTO deliveries (merchant, biz_order_no, endpoint, sequence, state, due_at, attempts, fence, last_error,
            created_at)
        SELECT merchant, biz_order_no, 'slow', sequence, 'open', now() + random() * interval '1 hour', 3, 3,
            'HTTP 503', created_at FROM events ORDER BY merchant, biz_order_no LIMIT 100000;
"""


def measure(sizes: Sizes, console: Console) -> list[Findings]:
    """Each page, again and again, by the role `console` on PostgreSQL."""
    with tempfile.TemporaryDirectory() as name, RabbitMQ() as broker, PostgreSQL() as cluster:
        endpoints = {"shop": "http://127.0.0.1:9/", "slow": "http://127.0.0.1:9/"}
        ours = OurLedger.make(Path(name), broker=broker, cluster=cluster, console=console, endpoints=endpoints)
        ours.record(1, prefix="known")
        _fill(ours.database, sizes.many_orders, console)
        with ours.installation.running("console"):
            browser = _Browser(ours.installation.console_url)
            figures = {title: [_time(browser, path)] for title, path in _pages(browser, sizes.many_orders)}
    for title, (figure,) in figures.items():
        text = "; ".join(f"{column} {value:.0f}" for column, value in figure.items())
        console.print(f"{title}: {text}", highlight=False, soft_wrap=True)
    return [
        Findings(
            title="Pages of the console",
            method=f"Each page {_REQUESTS} times, one request after the other, among {sizes.many_orders:,} orders of "
            "thirty days on PostgreSQL. 1,200 orders, 10,000 deliveries and 1,000 dead letters wait for a person, and "
            "100,000 deliveries of one endpoint are open. A page is ready when its last byte has come.",
            figures=figures,
            ratios=[
                Ratio(
                    name=f"{title}: worst of {_REQUESTS} / {_MAX_MILLISECONDS} ms",
                    per_round=[figure["worst, ms"] / _MAX_MILLISECONDS],
                    at_most=1,
                )
                for title, (figure,) in figures.items()
            ],
        )
    ]


def _fill(database: Database, orders: int, console: Console) -> None:
    database.execute(_DELIVERED)
    with database.without_indexes(), a_progress(console) as progress:
        for first in progress.track(range(1, orders, _MADE_TOGETHER), description="making orders"):
            count = min(_MADE_TOGETHER, orders - first)
            database.multiply("known-00000000", prefix="known", first=first, count=count, varied=_VARIED)
    database.execute(_BACKLOG)
    database.execute(_WAITING)
    database.analyze()


def _pages(browser: "_Browser", orders: int) -> Iterator[tuple[str, str]]:
    """Every page with its path."""
    number = f"known-{orders // 2:08}"
    yield "Today", "/"
    yield "Orders", "/orders"
    yield "Orders, by number", "/orders?q=" + number
    yield "Orders, by the gateway's number", "/orders?q=P" + number
    yield "Orders, by a number that none has", "/orders?q=none"
    yield "Orders, by amount", "/orders?amount=79.19"
    yield "Orders, by an amount that none has", "/orders?amount=1000000"
    yield "Orders, by status and merchant", f"/orders?merchant={_MERCHANT}&status=processing"
    yield "Orders, by time", "/orders?" + urlencode(_window())
    path = "/orders"
    for page in range(2, _PAGES_ON + 1):
        path = browser.next_page(path)
        if page in (2, _PAGES_ON):
            yield f"Orders, page {page}", path
    yield "An order", f"/order?merchant={_MERCHANT}&number={number}"
    yield "Endpoints", "/endpoints"
    yield "An endpoint with 100,000 open deliveries", "/endpoints/slow"
    yield "An endpoint's events that were given up", "/endpoints/shop?state=parked"
    yield "An endpoint's delivered events", "/endpoints/shop?state=delivered"
    yield "Dead letters", "/dead-letters"
    yield "Audit", "/audit"
    for window in ("1h", "24h", "7d"):
        yield f"Charts, {window}", "/charts?window=" + window


def _window() -> Mapping[str, str]:
    """An hour of ten days ago, as a browser's fields write it."""
    since = time.time() - 10 * 86_400
    return {
        name: time.strftime("%Y-%m-%dT%H:%M", time.localtime(at))
        for name, at in (("since", since), ("until", since + 3600))
    }


class _Browser:
    """A person who has signed in."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))
        csrf = re.search(r'name="csrf" value="([^"]+)"', self.open("/sign-in"))
        assert csrf, "the page for signing in has no form"
        data = urlencode({"csrf": csrf[1], "token": API_TOKEN}).encode()
        with self._opener.open(url + "/sign-in", data) as response:
            assert response.geturl() == url + "/", "the token was not taken"

    def open(self, path: str) -> str:
        """The page's text, from where it leads. Raises HTTPError for an error page."""
        with self._opener.open(self._url + path) as response:
            return str(response.read().decode())

    def next_page(self, path: str) -> str:
        """The path of the list's next page."""
        found = _NEXT_PAGE.search(self.open(path))
        assert found, f"{path} has no next page"
        return unescape(found[1])


def _time(browser: _Browser, path: str) -> Figures:
    taken = []
    for _ in range(_REQUESTS):
        began = time.monotonic()
        browser.open(path)
        taken.append((time.monotonic() - began) * 1000)
    return {"median, ms": median(taken), "worst, ms": max(taken)}
