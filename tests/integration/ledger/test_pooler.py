"""Behind a pooler that hands sessions out per transaction, every limit holds, and nothing is left in a session."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from service.domain.claims import OrderKey
from service.domain.order_state import Verdict
from service.ledger import database_url
from service.ledger.database import allow_longer, make_engine, read, write
from service.ledger.errors import ClaimUnstorable, LedgerContended, LedgerUnavailable
from service.ledger.postgresql import LimitedConnection
from service.ledger.schema import migrate, schema_is_current
from service.ledger.store import LedgerStore
from tests.support.claims import a_claim
from tests.support.postgresql import POOL_SIZE, Database, PgBouncer
from tests.support.waiting import eventually

_LIMITS = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "15s",
    "synchronous_commit": "on",
    "TimeZone": "UTC",
}


@pytest.fixture
def pooler_url(postgresql: Database, pgbouncer: PgBouncer) -> str:
    return pgbouncer.url_of(postgresql.url)


@pytest.fixture
def engine(pooler_url: str) -> Iterator[Engine]:
    engine = make_engine(pooler_url, pool_size=8, pooled=True)
    yield engine
    engine.dispose()


@pytest.fixture
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit that the test names is one second."""
    monkeypatch.setitem(database_url._SETTINGS, request.param, "1s")


def show(connection: Connection | psycopg.Connection, name: str) -> object:
    query = f"SHOW {name}"
    if isinstance(connection, Connection):
        return connection.execute(text(query)).scalar_one()
    (value,) = connection.execute(query).fetchone() or ()
    return value


def show_twice(connection: Connection, *, name: str) -> list[object]:
    return [show(connection, name), show(connection, name)]


def test_every_transaction_has_all_limits_and_no_session_keeps_any(engine: Engine, pooler_url: str) -> None:
    migrate(engine)
    for do in (read, write):
        for name, limit in _LIMITS.items():
            # As the first statement of its transaction, with which they are sent, and as a later one.
            assert do(engine, partial(show_twice, name=name)) == [limit] * 2
    with ExitStack() as sessions:
        others = [sessions.enter_context(psycopg.connect(pooler_url, prepare_threshold=None)) for _ in range(POOL_SIZE)]
        for other in others:
            assert [show(other, name) for name in list(_LIMITS)[:3]] == ["0", "0", "0"]
            assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert others[0].execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_server_whose_commits_are_asynchronous_commits_ours_synchronously(
    postgresql: Database, pooler_url: str, pooled: bool
) -> None:
    with psycopg.connect(postgresql.url.replace("+psycopg", ""), autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name)))
    with psycopg.connect(pooler_url) as other:
        assert show(other, "synchronous_commit") == "off"
    engine = make_engine(pooler_url if pooled else postgresql.url, pooled=pooled)

    assert write(engine, lambda connection: show(connection, "synchronous_commit")) == "on"
    engine.dispose()


def test_many_rows_as_the_first_statement_have_the_limits_too(engine: Engine) -> None:
    write(engine, lambda connection: connection.execute(text("CREATE TABLE numbers (number text)")))
    rows = [{"name": "lock_timeout"} for _ in range(3)]
    insert = text("INSERT INTO numbers VALUES (current_setting(:name))")
    assert write(engine, lambda connection: connection.execute(insert, rows).rowcount) == 3
    assert (
        read(engine, lambda connection: connection.execute(text("SELECT * FROM numbers")).scalars().all()) == ["3s"] * 3
    )


@pytest.mark.parametrize("short", ["statement_timeout"], indirect=True)
@pytest.mark.usefixtures("short")
def test_a_slow_statement_ends_at_its_limit_and_one_that_may_take_longer_does_not(engine: Engine) -> None:
    sleep = text("SELECT pg_sleep(2)")
    with pytest.raises(LedgerUnavailable, match="statement timeout"):
        write(engine, lambda connection: connection.execute(sleep))

    def take_longer(connection: Connection) -> None:
        allow_longer(connection, seconds=60)
        connection.execute(sleep)

    write(engine, take_longer)
    with pytest.raises(LedgerUnavailable, match="statement timeout"):
        write(engine, lambda connection: connection.execute(sleep))


@pytest.mark.parametrize("short", ["lock_timeout"], indirect=True)
@pytest.mark.usefixtures("short")
def test_a_wait_for_a_lock_ends_at_its_limit(engine: Engine, pooler_url: str) -> None:
    write(engine, lambda connection: connection.execute(text("CREATE TABLE numbers (number int)")))
    with psycopg.connect(pooler_url) as other:
        other.execute("LOCK TABLE numbers")
        with pytest.raises(LedgerContended, match="lock timeout"):
            read(engine, lambda connection: connection.execute(text("SELECT * FROM numbers")))


@pytest.mark.parametrize("short", ["idle_in_transaction_session_timeout"], indirect=True)
@pytest.mark.usefixtures("short")
def test_an_idle_transaction_ends_at_its_limit(engine: Engine, pooler_url: str) -> None:
    write(engine, lambda connection: connection.execute(text("CREATE TABLE numbers (number int)")))

    def unlocked() -> bool:
        with psycopg.connect(pooler_url) as other:
            try:
                other.execute("LOCK TABLE numbers NOWAIT")
            except psycopg.errors.LockNotAvailable:
                return False
        return True

    def fall_asleep(connection: Connection) -> None:
        connection.execute(text("LOCK TABLE numbers"))
        assert not unlocked()
        eventually(unlocked)
        connection.execute(text("SELECT 1"))

    with pytest.raises(LedgerUnavailable):
        write(engine, fall_asleep)
    assert read(engine, lambda connection: connection.execute(text("SELECT 1")).scalar_one()) == 1


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_database_that_freezes_behind_the_pooler_is_given_up_and_used_again_once_it_thaws(
    own_postgresql: Database, store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PgBouncer(server_port=own_postgresql.cluster.port) as pooler:
        engine = make_engine(pooler.url_of(own_postgresql.url), pooled=True)
        migrate(engine)
        ours = LedgerStore(engine=engine, rules=store._rules, endpoints=(), clock=store._clock)
        ours.record([a_claim()])
        monkeypatch.setattr(LimitedConnection, "limit_seconds", 2.0)

        def freeze_and_go_on(connection: Connection) -> None:
            connection.execute(text("CREATE TABLE numbers (number int)"))
            own_postgresql.freeze()
            connection.execute(text("SELECT 1"))

        with pytest.raises(LedgerUnavailable, match="no answer within"):
            write(engine, freeze_and_go_on)
        with pytest.raises(LedgerUnavailable):
            ours.record([a_claim(order="DK2")])
        own_postgresql.thaw()

        def recorded() -> bool:
            try:
                return list(ours.record([a_claim(order="DK3")])) == [Verdict.APPLIED]
            except LedgerUnavailable:
                return False

        eventually(recorded)
        history = ours.order_history(OrderKey("acme", "DK1"))
        assert (len(history.claims), len(history.events)) == (1, 1)
        engine.dispose()


def test_an_error_of_the_first_statement_is_reported_as_such(engine: Engine) -> None:
    with pytest.raises(ClaimUnstorable, match="division by zero"):
        write(engine, lambda connection: connection.execute(text("SELECT 1/0")))
    assert not schema_is_current(engine)


def test_the_settings_of_the_url_go_with_each_transaction_and_its_label_with_the_connection(pooler_url: str) -> None:
    url = f"{pooler_url}?options=-cwork_mem%3D5MB%20--enable-seqscan%3Doff&application_name=shop"
    engine = make_engine(url, pooled=True)
    names = ["work_mem", "enable_seqscan", "application_name", "lock_timeout"]
    assert read(engine, lambda connection: [show(connection, name) for name in names]) == ["5MB", "off", "shop", "3s"]
    engine.dispose()


def test_the_settings_of_a_direct_url_are_added_to_ours(postgresql: Database) -> None:
    engine = make_engine(f"{postgresql.url}?options=-cwork_mem%3D5MB%20--enable-seqscan%3Doff&application_name=shop")
    names = ["work_mem", "enable_seqscan", "application_name", *_LIMITS]
    expected = ["5MB", "off", "shop", *_LIMITS.values()]
    assert read(engine, lambda connection: [show(connection, name) for name in names]) == expected
    engine.dispose()


def test_a_pooler_that_is_not_configured_is_reported(pooler_url: str) -> None:
    engine = make_engine(pooler_url)
    with pytest.raises(LedgerUnavailable, match=r"set database\.pooled = true"):
        migrate(engine)
    engine.dispose()
