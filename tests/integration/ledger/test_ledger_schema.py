"""Migrations create exactly the tables that the code uses, once, however many processes start them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, Inspector, insert, inspect, text

from service.ledger.database import make_engine
from service.ledger.errors import SchemaForeign, SchemaMissing, SchemaNewer, SchemaOutdated
from service.ledger.orders import OrderFilter
from service.ledger.outbox import Outbox
from service.ledger.schema import VERSION_TABLE, make_schema_check, migrate, schema_is_current
from service.ledger.store import LedgerStore
from service.ledger.tables import metadata, orders
from tests.support.claims import NOON, a_claim
from tests.support.ledger import make_store
from tests.support.postgresql import Database, PgBouncer


@pytest.fixture
def empty_engine(empty_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_url, pool_size=8)
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
    later = "0999_of_a_later_release"
    run(empty_engine, f"UPDATE {VERSION_TABLE} SET version_num = '{later}'")
    assert serves()
    migrate(empty_engine)
    with empty_engine.connect() as connection:
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all() == [later]


@pytest.mark.parametrize("attempt", [migrate, schema_is_current, lambda engine: make_schema_check(engine)()])
def test_an_older_release_reports_that_there_is_no_downgrade(
    empty_engine: Engine, attempt: Callable[[Engine], object]
) -> None:
    migrate(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999_of_a_later_release'"))
    with pytest.raises(SchemaNewer, match=r"later release .* 9999_of_a_later_release.*restore a backup"):
        attempt(empty_engine)


@pytest.fixture
def postgresql_engine(postgresql: Database) -> Iterator[Engine]:
    engine = make_engine(postgresql.url)
    yield engine
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


@pytest.mark.parametrize("version", ["0001", "9999_of_theirs"])
def test_another_applications_alembic_version_is_left_alone(empty_engine: Engine, version: str) -> None:
    theirs = [
        "CREATE TABLE alembic_version (version_num varchar(32))",
        f"INSERT INTO alembic_version VALUES ('{version}')",
    ]
    run(empty_engine, *theirs)
    assert not schema_is_current(empty_engine)
    migrate(empty_engine)
    assert schema_is_current(empty_engine)
    with empty_engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [version]


@pytest.mark.parametrize("attempt", [migrate, schema_is_current])
@pytest.mark.parametrize("others", [[], ["CREATE TABLE alembic_version (version_num varchar(32))"]])
def test_tables_with_the_names_of_ours_that_no_migration_of_ours_made_are_an_error_that_says_what_to_do(
    empty_engine: Engine, attempt: Callable[[Engine], object], others: list[str]
) -> None:
    run(empty_engine, "CREATE TABLE orders (id integer)", *others)
    with pytest.raises(SchemaForeign, match=r"called orders, and no payment_callbacks_version.*an empty database"):
        attempt(empty_engine)


@pytest.mark.parametrize("option", ["-csearch_path%3Dpayments", "-c%20search_path%3Dpayments,public"])
@pytest.mark.parametrize("through", ["directly", "pooled"])
def test_the_ledger_lives_in_the_schema_that_the_url_names(
    postgresql: Database, pgbouncer: PgBouncer, postgresql_engine: Engine, option: str, through: str
) -> None:
    run(postgresql_engine, "CREATE SCHEMA payments", "CREATE TABLE public.events (theirs integer)")
    url = pgbouncer.url_of(postgresql.url) if through == "pooled" else postgresql.url
    engine = make_engine(f"{url}?options={option}", pooled=through == "pooled")
    migrate(engine)
    assert schema_is_current(engine)
    assert make_schema_check(engine)()
    assert set(inspect(postgresql_engine).get_table_names(schema="payments")) == {*metadata.tables, VERSION_TABLE}
    assert inspect(postgresql_engine).get_table_names(schema="public") == ["events"]
    engine.dispose()


def test_a_search_path_that_names_no_schema_is_an_error_that_says_to_make_one(postgresql: Database) -> None:
    engine = make_engine(f"{postgresql.url}?options=-csearch_path%3Dpayments")
    assert not schema_is_current(engine)
    with pytest.raises(SchemaMissing, match="CREATE SCHEMA"):
        migrate(engine)
    engine.dispose()


def test_a_ledger_in_a_later_schema_of_the_search_path_is_not_taken_for_this_one(
    postgresql: Database, postgresql_engine: Engine
) -> None:
    migrate(postgresql_engine)
    run(postgresql_engine, "CREATE SCHEMA payments")
    engine = make_engine(f"{postgresql.url}?options=-csearch_path%3Dpayments,public")
    with pytest.raises(SchemaForeign, match="a ledger in another schema of the search_path than payments"):
        migrate(engine)
    engine.dispose()


def test_migrating_twice_is_harmless(ledger_engine: Engine) -> None:
    migrate(ledger_engine)
    assert schema_is_current(ledger_engine)


def test_a_filled_ledger_of_the_baseline_is_upgraded_and_can_be_searched(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = command.upgrade
    with monkeypatch.context() as baseline:
        # The first migration made the baseline's schema.
        baseline.setattr(command, "upgrade", lambda config, _: upgrade(config, "0001"))
        migrate(empty_engine)
    assert not schema_is_current(empty_engine)
    order = {
        "merchant": "acme",
        "status": "succeeded",
        "trust": 20,
        "conflicted": False,
        "sequence": 1,
        "order_type": "single_withhold",
        "pay_type": "baofoo_001",
        "created_at": NOON,
        "updated_at": NOON,
    }
    with empty_engine.begin() as connection:
        for number, amount in enumerate([None, "100.00"]):
            about = {"biz_order_no": f"DK{number}", "pay_order_no": amount and f"P{number}", "amount": amount}
            connection.execute(insert(orders).values({**order, **about, "amount_unit": amount and "yuan"}))
    migrate(empty_engine)
    assert schema_is_current(empty_engine)
    store = make_store(empty_engine, clock=lambda: NOON)
    assert [found.biz_order_no for found in store.find_orders("P1", limit=10)] == ["DK1"]
    assert [found.biz_order_no for found in store.list_orders(OrderFilter(amount="100"), limit=10)] == ["DK1"]
    store.record([a_claim(order="DK0", pay_order_no="P0")])
    assert [found.biz_order_no for found in store.find_orders("P0", limit=10)] == ["DK0"]


def test_several_processes_may_migrate_at_once(empty_engine: Engine) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: migrate(empty_engine), range(8)))
    assert schema_is_current(empty_engine)


def test_recording_without_the_tables_says_to_migrate(ledger_engine: Engine, store: LedgerStore) -> None:
    with ledger_engine.begin() as connection:
        metadata.drop_all(connection)
    with pytest.raises(SchemaOutdated):
        store.record([a_claim()])


def test_the_outbox_without_the_tables_says_to_migrate(ledger_engine: Engine, outbox: Outbox) -> None:
    with ledger_engine.begin() as connection:
        metadata.drop_all(connection)
    with pytest.raises(SchemaOutdated):
        outbox.lease_due(endpoint="books", limit=1, lease_seconds=1)
