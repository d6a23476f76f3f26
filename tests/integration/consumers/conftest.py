"""Consumers on both stacks: RabbitMQ with PostgreSQL, and the embedded queue with SQLite."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.domain.claims import Trust
from service.domain.events import DEFAULT_EVENT_TYPES
from service.ledger.decisions import EndpointRules, MerchantRules
from service.ledger.engine import make_engine
from service.ledger.outbox import Outbox
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from tests.support.claims import NOON

_RULES = MerchantRules(
    required_trust=Trust.CAPABILITY,
    can_ask=False,
    answer_due_seconds=600,
    inquiry_horizon_seconds=86_400,
)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = NOON
        #: How often it was looked at: what waits for a time looks again and again.
        self.looks = 0

    def __call__(self) -> datetime:
        self.looks += 1
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """Stands at noon."""
    return Clock()


@pytest.fixture(params=["postgresql", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A migrated ledger, on either database."""
    file = tmp_path / "ledger.sqlite3"
    url = f"sqlite:///{file}" if request.param == "sqlite" else request.getfixturevalue("postgresql").url
    made = make_engine(url, pool_size=4)
    migrate(made)
    yield made
    made.dispose()


MakeStore = Callable[..., LedgerStore]


@pytest.fixture
def make_store(clock: Clock) -> MakeStore:
    """Makes the ledger of the merchant "acme", with endpoints of these names."""

    def make(engine: Engine, *endpoints: str) -> LedgerStore:
        return LedgerStore(
            engine=engine,
            rules={"acme": _RULES},
            endpoints=[EndpointRules(name=name, types=DEFAULT_EVENT_TYPES) for name in endpoints],
            clock=clock,
        )

    return make


@pytest.fixture
def store(engine: Engine, make_store: MakeStore) -> LedgerStore:
    """The ledger with the endpoint "shop"."""
    return make_store(engine, "shop")


@pytest.fixture
def outbox(engine: Engine, clock: Clock) -> Outbox:
    return Outbox(engine=engine, clock=lambda _: clock())
