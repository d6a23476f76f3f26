"""Errors of the database are distinguished from errors of the data, in bounded time."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import DBAPIError

from service.domain.claims import OrderKey
from service.domain.order_state import Verdict
from service.ledger import schema
from service.ledger.database import allow_longer, make_engine, read, write
from service.ledger.errors import LedgerContended, LedgerUnavailable, SequenceBehind, UnusableDatabaseUrl
from service.ledger.postgresql import LimitedConnection
from service.ledger.schema import migrate, schema_is_current
from service.ledger.store import LedgerStore
from service.ledger.tables import claims
from tests.support.claims import a_claim
from tests.support.ledger import Count
from tests.support.postgresql import Database
from tests.support.waiting import HANGS_AFTER_SECONDS, eventually


@contextmanager
def short_limit() -> Iterator[None]:
    """Wait 2 s for an answer of PostgreSQL's, in place of 12."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LimitedConnection, "limit_seconds", 2.0)
        yield


@pytest.fixture
def own_engine(own_postgresql: Database) -> Iterator[Engine]:
    engine = make_engine(own_postgresql.url)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def store_in_own(own_engine: Engine, store: LedgerStore) -> LedgerStore:
    return LedgerStore(engine=own_engine, rules=store._rules, endpoints=(), clock=store._clock)


def test_a_database_that_cannot_hold_every_character_is_refused_with_the_command_that_makes_one_that_can(
    postgresql: Database,
) -> None:
    with psycopg.connect(postgresql.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE ascii_only ENCODING 'SQL_ASCII' TEMPLATE template0")
    engine = make_engine(postgresql.url.rpartition("/")[0] + "/ascii_only")
    with pytest.raises(LedgerUnavailable, match=r"SQL_ASCII.*CREATE DATABASE ascii_only ENCODING 'UTF8'"):
        migrate(engine)
    engine.dispose()


def test_of_several_hosts_the_one_that_answers_is_used(postgresql: Database, free_port: int) -> None:
    url = urlsplit(postgresql.url)
    engine = make_engine(f"postgresql://{url.username}@127.0.0.1:{free_port},{url.hostname}:{url.port}{url.path}")
    migrate(engine)
    assert schema_is_current(engine)
    engine.dispose()


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_database_that_was_away_is_used_again_once_it_is_back(
    own_postgresql: Database, store_in_own: LedgerStore
) -> None:
    store_in_own.record([a_claim()])
    own_postgresql.stop()
    with pytest.raises(LedgerUnavailable):
        store_in_own.record([a_claim(order="DK2")])
    with pytest.raises(LedgerUnavailable):
        store_in_own.load_order(OrderKey("acme", "DK1"))
    own_postgresql.start()
    assert store_in_own.record([a_claim(order="DK2")]) == [Verdict.APPLIED]


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_killed_database_keeps_what_was_recorded(own_postgresql: Database, store_in_own: LedgerStore) -> None:
    store_in_own.record([a_claim()])
    own_postgresql.kill()
    own_postgresql.start()

    def recorded_again() -> bool:
        try:
            return list(store_in_own.record([a_claim(minute=1)])) == [Verdict.DUPLICATE]
        except LedgerUnavailable:
            return False

    eventually(recorded_again)


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_commit_that_a_frozen_database_does_not_confirm_is_done_once_all_the_same(
    own_postgresql: Database, own_engine: Engine, store_in_own: LedgerStore
) -> None:
    @event.listens_for(own_engine, "commit", once=True)
    def freeze(_connection: object) -> None:
        own_postgresql.freeze()

    with short_limit(), pytest.raises(LedgerUnavailable, match="no answer within 2 s"):
        store_in_own.record([a_claim()])
    own_postgresql.thaw()
    assert store_in_own.record([a_claim()]) == [Verdict.DUPLICATE]
    history = store_in_own.order_history(OrderKey("acme", "DK1"))
    assert (len(history.claims), len(history.events)) == (1, 1)


@pytest.mark.parametrize("statement", ["SELECT 1", "INSERT INTO numbers VALUES (:number)"], ids=["one", "many"])
def test_a_database_that_freezes_within_a_transaction_is_given_up(
    own_postgresql: Database, own_engine: Engine, statement: str
) -> None:
    rows = [{"number": number} for number in range(100)] if "number" in statement else None

    def freeze_and_go_on(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE numbers (number int)"))
        own_postgresql.freeze()
        connection.execute(text(statement), rows)

    with short_limit(), pytest.raises(LedgerUnavailable, match="no answer within 2 s"):
        write(own_engine, freeze_and_go_on)
    own_postgresql.thaw()
    assert schema_is_current(own_engine)
    assert "numbers" not in inspect(own_engine).get_table_names()


def test_connections_that_rested_while_the_database_froze_are_given_up(
    own_postgresql: Database, own_engine: Engine
) -> None:
    own_postgresql.freeze()
    with pytest.raises(LedgerUnavailable):
        schema_is_current(own_engine)
    own_postgresql.thaw()
    assert schema_is_current(own_engine)


@pytest.mark.parametrize("seconds", [60, None])
def test_what_must_take_longer_may_until_its_transaction_ends(postgresql: Database, seconds: int | None) -> None:
    engine = make_engine(postgresql.url, pool_size=1)
    sleep = text("SELECT pg_sleep(3)")

    def take_longer(connection: Connection) -> None:
        allow_longer(connection, seconds=seconds)
        connection.execute(sleep)

    with short_limit():
        write(engine, take_longer)
        with pytest.raises(LedgerUnavailable, match="no answer within 2 s"):
            write(engine, lambda connection: connection.execute(sleep))
    engine.dispose()


def test_a_migration_waits_for_another_as_long_as_that_takes(postgresql: Database) -> None:
    engine = make_engine(postgresql.url)
    connected = psycopg.connect(postgresql.url.replace("+psycopg", ""))
    with short_limit(), connected as other, ThreadPoolExecutor(1) as thread:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [schema._ADVISORY_LOCK])
        migrated = thread.submit(migrate, engine)
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND now() - query_start > '3s'"
        eventually(lambda: read(engine, lambda connection: connection.execute(text(waiting)).scalar()))
        other.rollback()
        migrated.result(timeout=HANGS_AFTER_SECONDS)
    assert schema_is_current(engine)
    engine.dispose()


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_deadlock_is_tried_again(ledger_engine: Engine, store: LedgerStore, count: Count) -> None:
    @event.listens_for(ledger_engine, "after_cursor_execute", once=True)
    def deadlock(connection: object, cursor: object, *_: object) -> None:
        cursor.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")  # type: ignore[attr-defined]

    assert store.record([a_claim()]) == [Verdict.APPLIED]
    assert count(claims) == 1


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_sequence_that_a_restore_left_behind_passes_no_new_claim_for_a_repeat(
    ledger_engine: Engine, store: LedgerStore, count: Count
) -> None:
    store.record([a_claim(order=f"DK{number}") for number in range(3)])
    set_sequence = "SELECT setval(pg_get_serial_sequence('claims', 'id'), {})"
    with ledger_engine.begin() as connection:
        connection.execute(text(set_sequence.format(1)))
    with pytest.raises(SequenceBehind):
        store.record([a_claim(order="new")])
    with ledger_engine.begin() as connection:
        connection.execute(text(set_sequence.format("(SELECT max(id) FROM claims)")))
    assert store.record([a_claim(order="new")]) == [Verdict.APPLIED]
    assert count(claims) == 4


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_sqlite_file_that_another_holds_for_long_is_contended(ledger_url: str, store: LedgerStore) -> None:
    other = make_engine(ledger_url)
    with other.begin(), pytest.raises(LedgerContended):
        store.record([a_claim()])
    other.dispose()
    assert store.record([a_claim()]) == [Verdict.APPLIED]


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_the_ledger_can_be_read_while_another_writes(ledger_url: str, store: LedgerStore) -> None:
    other = make_engine(ledger_url)
    with other.begin():
        assert store.load_order(OrderKey("acme", "DK1")) is None
    other.dispose()


def test_a_sqlite_ledger_is_private_to_its_owner(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'new.db'}")
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        modes = {stat.S_IMODE(os.stat(file).st_mode) for file in tmp_path.glob("new.db*")}
    engine.dispose()
    assert modes == {0o600}


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_sqlite_ledger_survives_a_power_cut(ledger_engine: Engine) -> None:
    with ledger_engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_folder_that_does_not_exist_makes_the_ledger_unavailable(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'nowhere' / 'ledger.db'}")
    with pytest.raises(LedgerUnavailable):
        migrate(engine)


@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "sqlite://", "not a url"])
def test_a_url_of_another_database_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(UnusableDatabaseUrl) as caught:
        make_engine(url)
    assert "secret" not in str(caught.value)


def test_errors_show_no_stored_value(ledger_engine: Engine) -> None:
    with pytest.raises(LedgerUnavailable) as caught:
        write(ledger_engine, lambda connection: connection.execute(text("SELECT :p FROM nowhere"), {"p": "6222"}))
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert "6222" not in f"{caught.value} {caught.value.__cause__}"
