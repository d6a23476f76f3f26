"""A console that runs as it does in production, on a real ledger, with the dispatcher beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from service.bootstrap.ledger import make_ledger_engine, make_store
from service.config.reading import load_settings
from service.domain.claims import OrderKey, OrderStatus, Trust
from service.domain.money import Money
from service.ledger.announcements import Announcement
from service.ledger.claims import Resolution
from service.ledger.dead_letters import DeadLetterRecord, DeadLetterStore
from service.ledger.endpoints import EndpointState, read_endpoint_states
from service.ledger.store import LedgerStore
from service.ledger.totals import Counted, Series, TotalsStore
from service.ledger.withholds import WithholdOutcome, Withholds
from service.runtime.clock import now
from tests.support.claims import a_claim
from tests.support.downstream import WEBHOOK_SECRET, Downstream
from tests.support.ledger import dispose, end_refused
from tests.support.processes import Processes, answers, find_free_port
from tests.support.waiting import eventually

LI_LEI, HAN_MEIMEI = "token-of-li-lei-with-32-characters-or-more", "token-of-han-meimei-with-32-characters"
#: For sessions that have to end while a test waits: longer than a page takes, shorter than a person waits.
SHORT_IDLE_SECONDS = 4.0

# Events of acme go to the shop, which takes them. Those of beta go to the books, which takes them, and to the crm,
# where nobody listens.
_SETTINGS = """
database_url = "{database_url}"

[console]
bind = "127.0.0.1:{port}"
public_url = "http://127.0.0.1:{port}"
session_keys = ["a session key of the console, for tests only"]
max_idle_seconds = {max_idle_seconds}

[dispatcher]
poll_seconds = 0.1

[[api.tokens]]
name = "li-lei"
token = "{li_lei}"
scopes = ["read", "inquire", "operate", "resolve"]
person = "li.lei@example.com"

[[api.tokens]]
name = "han-meimei"
token = "{han_meimei}"
scopes = ["read", "inquire", "operate", "resolve"]
person = "han.meimei@example.com"

[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
second_person_above = "1000"
token_keys = [{{ kid = "k1", key = "the token key of acme, for tests only" }}]
gateway = {{ url = "http://127.0.0.1:9/", ua = "ACME", aes_key = "0123456789abcdef" }}

[merchants.beta]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{{ kid = "k1", key = "the token key of beta, for tests only" }}]

[[endpoints]]
name = "shop"
kind = "webhook"
url = "{downstream_url}"
secrets = ["{secret}"]
merchants = ["acme"]

[[endpoints]]
name = "books"
kind = "webhook"
url = "{downstream_url}"
secrets = ["{secret}"]
merchants = ["beta"]

[[endpoints]]
name = "crm"
kind = "webhook"
url = "http://127.0.0.1:9/payment-events"
initial_retry_seconds = 60
max_retry_seconds = 600
secrets = ["{secret}"]
merchants = ["beta"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A console that runs, and what is behind it."""

    url: str
    engine: Engine
    store: LedgerStore
    downstream: Downstream
    processes: Processes

    def announce(self, number: str, *, merchant: str = "acme", amount: str | None = "100.00") -> None:
        """Announce an order, as the merchant's own system does."""
        unit = None if amount is None else "yuan"
        announced = Announcement(
            merchant=merchant, biz_order_no=number, amount=amount, amount_unit=unit, pay_type="baofoo_001"
        )
        self.store.announce(announced)

    def record(self, number: str, status: OrderStatus | None = OrderStatus.SUCCEEDED, **more: Any) -> None:
        """Record a claim about an order, as the ledger role does."""
        self.store.record([a_claim(status, order=number, pay_type="baofoo_001", **more)])

    def describe(self) -> str:
        """What its processes wrote last."""
        return self.processes.describe()


@contextmanager
def open_site(*, database_url: str, folder: Path, max_idle_seconds: float = 1800) -> Iterator[Site]:
    """Run a console and a dispatcher on a ledger."""
    port, processes, settings_path = find_free_port(), Processes(folder=folder), folder / "payment-callbacks.toml"
    with Downstream() as downstream:
        settings_path.touch(mode=0o600)
        settings_path.write_text(
            _SETTINGS.format(
                database_url=database_url,
                port=port,
                max_idle_seconds=max_idle_seconds,
                li_lei=LI_LEI,
                han_meimei=HAN_MEIMEI,
                downstream_url=downstream.url,
                secret=WEBHOOK_SECRET,
            )
        )
        settings = load_settings(settings_path, {})
        engine = make_ledger_engine(settings, pool_size=2)
        environment = {"AMQP_URL": "", "DATABASE_URL": ""}
        try:
            command = ("--config", str(settings_path), "run")
            console = processes.start(*command, "console", name="console", environment=environment)
            processes.start(*command, "dispatcher", name="dispatcher", environment=environment)
            url = f"http://127.0.0.1:{port}"
            console.wait_until(lambda: answers(f"{url}/readyz"))
            yield Site(
                url=url,
                engine=engine,
                store=make_store(settings, engine),
                downstream=downstream,
                processes=processes,
            )
        finally:
            processes.kill_all()
            dispose(engine)


def fill_a_day(site: Site) -> None:
    """Bring it into the midst of a day: much went well, and something of each sort waits for a person."""
    clock = datetime.now(UTC)
    paid_at = clock - timedelta(minutes=3)
    for number in range(1, 13):
        order, amount = f"DK20261126{number:04d}", f"{85 * number}.00"
        known: dict[str, Any] = {
            "pay_order_no": f"P7700{number:04d}",
            "amount": Money(amount, "yuan"),
            "paid_at": paid_at,
        }
        site.announce(order, amount=amount)
        site.record(order, OrderStatus.PROCESSING, **known)
        site.record(order, OrderStatus.FAILED if number % 5 == 0 else OrderStatus.SUCCEEDED, **known)
        site.record(order.replace("DK", "BK"), merchant="beta", **known)
    site.announce("DK202611260100", amount="4800.00")
    site.record("DK202611260100", trust=Trust.CHECKSUM, pay_order_no="P77001000", amount=Money("4800.00", "yuan"))
    site.record("DK202611260100", OrderStatus.PROCESSING, pay_order_no="P77000100")
    site.record("DK202611260100", pay_order_no="P77000100", channel_response="paid by 6222021234561234")
    site.record("DK202611260100", OrderStatus.FAILED, pay_order_no="P77000100", channel_response="insufficient funds")
    site.store.resolve(
        Resolution(
            order=OrderKey("acme", "DK202611260100"),
            status=OrderStatus.SUCCEEDED,
            stated_by="han.meimei@example.com (console, API token han-meimei)",
            identity="han.meimei@example.com",
            reason="the bank's statement of today has the payment",
        )
    )
    site.announce("DK202611260101", amount="260.00")
    site.record("DK202611260101", amount=Money("26.00", "yuan"))
    site.announce("DK202611260102", amount=None)
    withholds = Withholds(engine=site.engine, clock=now, refusals=end_refused(site.store))
    withholds.begin(OrderKey("acme", "DK202611260102"), sent_by="shop")
    withholds.settle(OrderKey("acme", "DK202611260102"), WithholdOutcome.UNKNOWN, detail="no answer within 5 s")
    site.announce("DK202611260103")
    site.record("DK202611260103", None, quarantine="pay_status", unknown_fields={"pay_status": "refunding"})
    letter = DeadLetterRecord(id="m/1", reason="the claim names no order", died_at=clock, body="of 13812345678")
    DeadLetterStore(engine=site.engine).record([letter])
    for hour in range(24):
        time = clock - timedelta(hours=hour)
        TotalsStore(engine=site.engine, clock=partial(_at, time)).add(
            {
                Counted(Series.CLAIMS, merchant="acme", source="callback", outcome="applied"): 900 - 30 * hour,
                Counted(Series.CLAIMS, merchant="acme", source="callback", outcome="duplicate"): 120 + 4 * hour,
                Counted(Series.REFUSALS, merchant="acme", outcome="missing-token"): hour % 5,
                Counted(Series.LAGS, merchant="acme", outcome="2.5"): 880 - 30 * hour,
                Counted(Series.DELIVERIES, endpoint="shop", outcome="delivered"): 900 - 30 * hour,
                Counted(Series.DELIVERIES, endpoint="crm", outcome="failed"): 40,
                Counted(Series.QUESTIONS, merchant="acme", outcome="answered"): 60 + hour,
            },
            process="day",
        )
    eventually(lambda: any(state.endpoint == "crm" and state.last_error for state in _states(site)))


def _at(time: datetime, _connection: Connection) -> datetime:
    return time


def _states(site: Site) -> Sequence[EndpointState]:
    return read_endpoint_states(site.engine, ["shop", "books", "crm"])
