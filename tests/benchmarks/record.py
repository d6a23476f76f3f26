"""How many claims a second one ledger records: `python -m tests.benchmarks.record [SECONDS]`.

One process, one connection, every commit flushed to disk, on PostgreSQL and on SQLite. `new` are first successes of
orders never heard of, each with one event and one delivery; `repeated` are the same claims again.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from service.claims import Claim, Trust
from service.events import DEFAULT_EVENT_TYPES
from service.ledger.engine import make_engine
from service.ledger.rules import EndpointRules, MerchantRules
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim
from tests.support.postgresql import PostgreSQL

_BATCH_SIZES = (1, 20, 100)
_MOST_CLAIMS = 40_000


@contextmanager
def a_store(url: str) -> Iterator[LedgerStore]:
    """A migrated ledger of one merchant and one endpoint."""
    engine = make_engine(url)
    migrate(engine)
    rules = MerchantRules(
        required_trust=Trust.CAPABILITY,
        can_ask=True,
        answer_due_seconds=600,
        inquiry_horizon_seconds=86_400,
    )
    endpoints = [EndpointRules(name="books", types=DEFAULT_EVENT_TYPES)]
    store = LedgerStore(engine=engine, rules={"acme": rules}, endpoints=endpoints, clock=lambda: datetime.now(UTC))
    for batch in range(20):
        store.record([a_claim(order=f"W{batch}-{n}") for n in range(100)])
    with engine.begin() as connection:
        # An empty table's plans are those of an empty table until the database has looked again, within a minute or so.
        connection.exec_driver_sql("ANALYZE")
    yield store
    engine.dispose()


def measure(store: LedgerStore, size: int, seconds: float) -> tuple[float, float]:
    """Claims a second, new and repeated, in batches of `size`."""
    numbers = count()
    recorded: list[list[Claim]] = []
    batches = ([a_claim(order=f"B{size}-{next(numbers)}") for _ in range(size)] for _ in count())
    new = _rate(store, batches, seconds, recorded)
    return new, _rate(store, iter(recorded), seconds, [])


def _rate(store: LedgerStore, batches: Iterator[list[Claim]], seconds: float, recorded: list[list[Claim]]) -> float:
    spent, claims = 0.0, 0
    for batch in batches:
        begun = time.perf_counter()
        store.record(batch)
        spent += time.perf_counter() - begun
        claims += len(batch)
        recorded.append(batch)
        if spent > seconds or claims > _MOST_CLAIMS:
            break
    return claims / spent


def main(seconds: float) -> None:
    """Print a table."""
    print(f"{'database':<12}{'batch':>6}{'new/s':>10}{'repeated/s':>12}")
    with tempfile.TemporaryDirectory() as folder, PostgreSQL(durable=True) as cluster:
        urls = {"postgresql": cluster.create_database(), "sqlite": f"sqlite:///{Path(folder) / 'ledger.db'}"}
        for name, url in urls.items():
            with a_store(url) as store:
                for size in _BATCH_SIZES:
                    new, repeated = measure(store, size, seconds)
                    print(f"{name:<12}{size:>6}{new:>10.0f}{repeated:>12.0f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
