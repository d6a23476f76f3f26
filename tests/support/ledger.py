"""Ledgers for tests, the time that they go by, and a look into their database from outside."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import scalar_row
from sqlalchemy import Engine, QueuePool, Row, Select, func, select

from service.domain.claims import Trust
from service.domain.events import DEFAULT_EVENT_TYPES
from service.domain.money import Money
from service.domain.refused_withholds import RefusalRules
from service.ledger.database import READS_ONLY, make_engine
from service.ledger.decisions import EndpointRules, MerchantRules
from service.ledger.inquiry_queue import InquiryQueue
from service.ledger.refused_withholds import RefusedWithholds
from service.ledger.schema import migrate
from service.ledger.store import LedgerStore
from service.ledger.tables import (
    asked_questions,
    claims,
    deliveries,
    depth_reports,
    events,
    inquiries,
    metadata,
    orders,
    refusals,
)
from tests.support.claims import NOON
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import eventually

#: What the fixtures of these names make or count.
MakeStore = Callable[..., LedgerStore]
MakeInquiryQueue = Callable[..., InquiryQueue]
Count = Callable[..., int]


class Clock:
    """Time that passes when a test says so. It begins at noon, as the claims do."""

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


# Empty ledgers with this release's schema are copies of one, since migrating takes far longer.


def make_sqlite_ledger(file: Path) -> str:
    """Make an empty ledger in `file`, and the folder that it is in, and return its SQLAlchemy URL."""
    file.parent.mkdir(exist_ok=True)
    file.touch(mode=0o600)
    file.write_bytes(_migrated_file())
    return f"sqlite:///{file}"


@cache
def _migrated_file() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.sqlite3"
        _migrate(f"sqlite:///{file}")
        return file.read_bytes()


class LedgerDatabases:
    """Makes empty ledgers in PostgreSQL."""

    def __init__(self) -> None:
        self._databases: dict[int, str] = {}
        self._used: list[str] = []

    def make(self, cluster: PostgreSQL) -> str:
        """Make a database in the cluster, and return its SQLAlchemy URL."""
        if cluster.port not in self._databases:
            url = cluster.create_database()
            _migrate(url)
            self._databases[cluster.port] = url.rpartition("/")[2]
        return cluster.create_database(template=self._databases[cluster.port])

    @contextmanager
    def lend(self, cluster: PostgreSQL) -> Iterator[str]:
        """A database in the cluster that all tests share, by its SQLAlchemy URL.

        It is lent again and emptied for that, since making and removing the hundreds of files of a database takes far
        longer. Leave its schema as it is.
        """
        while self._used:
            url = self._used.pop()
            if _empty(url):
                break
        else:
            url = self.make(cluster)
        yield url
        self._used.append(url)


def _empty(url: str) -> bool:
    """Remove all rows and begin all numbers anew; False where somebody still holds a lock, or a table is gone."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True, row_factory=scalar_row) as connection:
        connection.execute("SET lock_timeout = '1s'")
        try:
            filled = connection.execute(_FILLED_TABLES).fetchall()
            if filled:
                connection.execute(f"TRUNCATE {', '.join(filled)} CASCADE")
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable):
            return False
        connection.execute("SELECT setval(sequencename::regclass, 1, false) FROM pg_sequences WHERE last_value > 0")
    return True


_FILLED_TABLES = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in metadata.tables)


def _migrate(url: str) -> None:
    engine = make_engine(url)
    migrate(engine)
    engine.dispose()


def dispose(engine: Engine) -> None:
    """Close the engine's connections, once no thread uses one any more: such a connection would stay open."""
    pool = engine.pool
    if isinstance(pool, QueuePool):
        eventually(lambda: pool.checkedout() == 0)
    engine.dispose()


def make_store(
    engine: Engine,
    *,
    clock: Callable[[], datetime],
    required: Trust = Trust.CAPABILITY,
    can_ask: bool = True,
    answer_due_seconds: float = 600,
    endpoints: Sequence[EndpointRules | str] = ("books",),
    merchants: Sequence[str] = ("acme",),
    amount_field: str = "",
    horizon_seconds: float = 86_400,
    second_person_above: str | None = None,
) -> LedgerStore:
    """A ledger on a migrated database, of one merchant and one endpoint unless told otherwise.

    An endpoint that is given by its name alone receives the types of events that are usual. `second_person_above` is
    in yuan.
    """
    rules = MerchantRules(
        required_trust=required,
        can_ask=can_ask,
        answer_due_seconds=answer_due_seconds,
        inquiry_horizon_seconds=horizon_seconds,
        amount_field=amount_field,
        second_person_above=None if second_person_above is None else Money(second_person_above, "yuan"),
    )
    return LedgerStore(
        engine=engine,
        rules=dict.fromkeys(merchants, rules),
        endpoints=[
            EndpointRules(name=one, types=DEFAULT_EVENT_TYPES) if isinstance(one, str) else one for one in endpoints
        ],
        clock=clock,
    )


def end_refused(store: LedgerStore, rules: RefusalRules | None = None) -> RefusedWithholds:
    """What ends the orders of refused withholds of "acme" by these rules; without rules, none."""
    return RefusedWithholds(rules={"acme": rules} if rules else {}, apply=store.apply)


class ClaimKey(NamedTuple):
    """What an ordinary callback amounts to in the ledger."""

    merchant: str
    biz_order_no: str
    status: str | None


class LedgerView:
    """Reads one ledger; close it."""

    def __init__(self, *, url: str) -> None:
        self._engine = make_engine(url).execution_options(**{READS_ONLY: True})

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def claims_about(self, biz_order_no: str) -> Sequence[Row[Any]]:
        """The order's claims, oldest first."""
        return self._all(select(claims).where(claims.c.biz_order_no == biz_order_no).order_by(claims.c.id))

    def order(self, biz_order_no: str) -> Row[Any] | None:
        """The order's row; None where there is none."""
        found = self._all(select(orders).where(orders.c.biz_order_no == biz_order_no))
        return found[0] if found else None

    def events_about(self, biz_order_no: str) -> Sequence[Row[Any]]:
        """The order's events, in their sequence."""
        return self._all(select(events).where(events.c.biz_order_no == biz_order_no).order_by(events.c.sequence))

    def inquiries_about(self, biz_order_no: str) -> Sequence[Row[Any]]:
        """The question due about the order, if there is one."""
        return self._all(select(inquiries).where(inquiries.c.biz_order_no == biz_order_no))

    def questions(self, prefix: str) -> Sequence[Row[Any]]:
        """Every question about orders whose numbers begin with `prefix`, oldest first, as it was counted."""
        asked = asked_questions.c
        return self._all(
            select(asked_questions).where(asked.biz_order_no.startswith(prefix)).order_by(asked.asked_at, asked.fence)
        )

    def count_claims(self, prefix: str) -> Counter[ClaimKey]:
        """How many rows there are of each claim about orders whose numbers begin with `prefix`."""
        columns = (claims.c.merchant, claims.c.biz_order_no, claims.c.status)
        counted = func.count().label("rows")
        query = select(*columns).add_columns(counted).group_by(*columns)
        rows = self._all(query.where(claims.c.biz_order_no.startswith(prefix)))
        return Counter({ClaimKey(row.merchant, row.biz_order_no, row.status): row.rows for row in rows})

    def count_deliveries(self, state: str) -> int:
        """How many deliveries are `open`, `delivered` or `parked`."""
        query = select(func.count()).select_from(deliveries).where(deliveries.c.state == state)
        return int(self._all(query)[0][0])

    def all_delivered(self) -> bool:
        """True where no delivery is open; else an AssertionError that says what keeps the first ones."""
        columns = deliveries.c
        shown = select(columns.endpoint, columns.biz_order_no, columns.sequence, columns.attempts, columns.last_error)
        rows = self._all(shown.where(columns.state == "open").limit(5))
        assert not rows, f"{self.count_deliveries('open')} deliveries are open: {[row._asdict() for row in rows]}"
        return True

    def count_refused(self) -> int:
        """How many refused callbacks the receivers have told of."""
        return int(self._all(select(func.coalesce(func.sum(refusals.c.callbacks), 0)))[0][0])

    def depths(self) -> dict[str, int]:
        """How many messages the queue and each spool last reported."""
        return {row.reporter: row.messages for row in self._all(select(depth_reports))}

    def delivered_orders(self, endpoint: str) -> set[str]:
        """The orders of which an event counts as delivered to an endpoint."""
        columns = deliveries.c
        query = select(columns.biz_order_no).where(columns.endpoint == endpoint, columns.state == "delivered")
        return {row[0] for row in self._all(query)}

    def count_under_way(self, endpoint: str) -> int:
        """How many open deliveries to an endpoint are leased, or wait for their next try."""
        query = select(func.count()).select_from(deliveries)
        later = query.where(
            deliveries.c.endpoint == endpoint, deliveries.c.state == "open", deliveries.c.due_at > datetime.now(UTC)
        )
        return int(self._all(later)[0][0])

    def _all(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()
