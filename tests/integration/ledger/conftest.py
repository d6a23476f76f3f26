"""The ledger on both databases: every test that takes `ledger_engine` runs on PostgreSQL and on SQLite."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, func, select

from service.domain.claims import Trust
from service.domain.events import DEFAULT_EVENT_TYPES, EventType
from service.ledger.decisions import EndpointRules, MerchantRules
from service.ledger.engine import make_engine
from service.ledger.inquiry_limits import InquiryRules
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.outbox import Outbox
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from tests.support.claims import NOON

MakeStore = Callable[..., LedgerStore]

_THREADS = 16


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture(params=["postgresql", "sqlite"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, PostgreSQL and SQLite in turn; "pooled" for who wants PostgreSQL behind a pooler as well."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgresql").url
    return request.getfixturevalue("pgbouncer").url_of(url) if request.param == "pooled" else url


@pytest.fixture
def pooled(request: pytest.FixtureRequest, ledger_url: str) -> bool:
    """Whether `ledger_url` goes through a pooler."""
    return bool(request.node.callspec.params["ledger_url"] == "pooled")


@pytest.fixture
def ledger_engine(ledger_url: str, pooled: bool) -> Iterator[Engine]:
    """A migrated ledger with a connection for each thread of a test."""
    engine = make_engine(ledger_url, pool_size=_THREADS, pooled=pooled)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    """Stands at noon, when the claims of `tests.support.claims` begin."""
    return Clock()


@pytest.fixture
def make_store(ledger_engine: Engine, clock: Clock) -> MakeStore:
    """Makes a ledger of one merchant, "acme", and one endpoint, "books", unless told otherwise."""

    def make(
        *,
        required: Trust = Trust.CAPABILITY,
        can_ask: bool = True,
        endpoints: Sequence[EndpointRules] = (EndpointRules(name="books", types=DEFAULT_EVENT_TYPES),),
        merchants: Sequence[str] = ("acme",),
    ) -> LedgerStore:
        rules = MerchantRules(
            required_trust=required,
            can_ask=can_ask,
            answer_due_seconds=600,
            inquiry_horizon_seconds=86_400,
        )
        return LedgerStore(
            engine=ledger_engine, rules=dict.fromkeys(merchants, rules), endpoints=endpoints, clock=clock
        )

    return make


@pytest.fixture
def store(make_store: MakeStore) -> LedgerStore:
    """A ledger that requires CAPABILITY and can ask."""
    return make_store()


MakeInquiryQueue = Callable[..., InquiryQueue]


@pytest.fixture
def make_inquiry_queue(ledger_engine: Engine, clock: Clock) -> MakeInquiryQueue:
    """Makes what is to be asked of the gateway of "acme", by limits that hinder nobody unless told otherwise."""

    def make(store: LedgerStore, **limits: float) -> InquiryQueue:
        values: dict[str, Any] = {
            "least_interval_seconds": 10,
            "most_per_day": 1000,
            "most_per_minute": 60_000,
            "overdue_share": 0.5,
            "first_repeat_seconds": 20,
            "most_repeat_seconds": 3600,
        }
        rules = InquiryRules(**{**values, **limits})
        return InquiryQueue(
            engine=ledger_engine,
            store=store,
            rules={"acme": rules},
            clock=lambda _: clock(),
            chance=lambda: 0.0,
        )

    return make


@pytest.fixture
def outbox(ledger_engine: Engine, clock: Clock) -> Outbox:
    """The outbox of the same database."""
    return Outbox(engine=ledger_engine, clock=lambda _: clock())


@pytest.fixture
def all_types() -> frozenset[EventType]:
    """Every type of event, conflicts included."""
    return frozenset(EventType)


@pytest.fixture
def count(ledger_engine: Engine) -> Callable[[Table], int]:
    """Counts the rows of a table."""

    def rows(table: Table, *conditions: Any) -> int:
        with ledger_engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()

    return rows
