"""Migrations make the very tables that the code uses, once, however many processes begin with them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Inspector, inspect, text

from service.ledger.engine import make_engine
from service.ledger.errors import SchemaNewer, SchemaOutdated
from service.ledger.outbox import Outbox
from service.ledger.schema import VERSION_TABLE, make_schema_check, migrate, schema_is_current
from service.ledger.store import LedgerStore
from service.ledger.tables import metadata
from tests.support.claims import a_claim


@pytest.fixture
def empty_engine(ledger_url: str) -> Iterator[Engine]:
    engine = make_engine(ledger_url, pool_size=8)
    yield engine
    engine.dispose()


def indexes(inspector: Inspector) -> set[tuple[str, str, tuple[str | None, ...], bool]]:
    return {
        (table, str(index["name"]), tuple(index["column_names"]), bool(index["unique"]))
        for table in metadata.tables
        for index in inspector.get_indexes(table)
        if "duplicates_constraint" not in index
    }


def test_migrations_make_the_tables_of_the_code(ledger_engine: Engine) -> None:
    with ledger_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        declared = {
            (table.name, str(index.name), tuple(column.name for column in index.columns), bool(index.unique))
            for table in metadata.tables.values()
            for index in table.indexes
        }
        assert indexes(inspect(connection)) == declared


def test_an_empty_database_is_not_current_and_a_migrated_one_is(empty_engine: Engine) -> None:
    assert not schema_is_current(empty_engine)
    migrate(empty_engine)
    assert schema_is_current(empty_engine)


def test_a_schema_serves_that_is_this_release_s_or_a_later_one_s(empty_engine: Engine) -> None:
    serves = make_schema_check(empty_engine)
    assert not serves()
    migrate(empty_engine)
    assert serves()
    for version, expected in (("9999_of_a_later_release", True), ("0001", False)):
        with empty_engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :version"), {"version": version})
        assert serves() is expected


@pytest.mark.parametrize("attempt", [migrate, schema_is_current])
def test_an_older_release_is_told_that_there_is_no_way_back(
    empty_engine: Engine, attempt: Callable[[Engine], object]
) -> None:
    migrate(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999_of_a_later_release'"))
    with pytest.raises(SchemaNewer, match=r"later release .* 9999_of_a_later_release.*restore a backup"):
        attempt(empty_engine)


def test_migrating_twice_is_harmless(ledger_engine: Engine) -> None:
    migrate(ledger_engine)
    assert schema_is_current(ledger_engine)


def test_several_processes_may_migrate_at_once(empty_engine: Engine) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: migrate(empty_engine), range(8)))
    assert schema_is_current(empty_engine)


def test_recording_without_the_tables_says_to_migrate(empty_engine: Engine, store: LedgerStore) -> None:
    with empty_engine.begin() as connection:
        metadata.drop_all(connection)
    with pytest.raises(SchemaOutdated):
        store.record([a_claim()])


def test_the_outbox_without_the_tables_says_to_migrate(empty_engine: Engine, outbox: Outbox) -> None:
    with empty_engine.begin() as connection:
        metadata.drop_all(connection)
    with pytest.raises(SchemaOutdated):
        outbox.claim_due(endpoint="books", limit=1, lease_seconds=1)
