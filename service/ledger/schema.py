"""The schema's version: migrates a database to this release's tables, or checks whether it has them.

The first digit of a revision is its generation. Within a generation, migrations only add, so a release works with the
later revisions too, and can be rolled back to. Its processes refuse the schema of a later generation.
"""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, inspect, select, text

from service.ledger.database import allow_longer, read, write
from service.ledger.errors import SchemaForeign, SchemaMissing, SchemaNewer
from service.ledger.feed import restart_if_behind
from service.ledger.tables import metadata

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Alembic's default, alembic_version, may be another application's table in the same schema.
VERSION_TABLE = "payment_callbacks_version"

# A number that nobody else in the same database uses for pg_advisory_lock: the letters "payc".
_ADVISORY_LOCK = 0x70617963


def migrate(engine: Engine) -> None:
    """Migrate the database to this release's schema, in one transaction; does nothing where it has that or a later one.

    After a dump was restored, this also begins the event feed anew.

    Any number of processes may call it at once: one migrates, and the others wait. Raises LedgerUnavailable; in
    particular SchemaNewer where it is of a later generation, SchemaForeign where another application's tables have
    our names, and SchemaMissing where the schema to use does not exist.
    """
    write(engine, _upgrade)


def schema_is_current(engine: Engine) -> bool:
    """Whether the database has this release's schema, or a later one that only adds to it.

    Raises the errors of `migrate`.
    """
    return make_schema_check(engine)()


def make_schema_check(engine: Engine) -> Callable[[], bool]:
    """Make the same check, which is cheap to repeat. It raises LedgerUnavailable."""
    known = _known()
    return lambda: _serves(read(engine, _versions), known)


def _serves(found: set[str], known: set[str]) -> bool:
    """Whether a release with the revisions `known` works with a schema of the revision `found`."""
    later = {revision for revision in found - known if revision[:1] > max(known)[:1]}
    if later:
        raise SchemaNewer(
            f"a later release has migrated the database (to {', '.join(sorted(later))}), and there is no way back: run"
            " that release again, or restore a backup"
        )
    return found == {max(known)} or not found <= known


def _known() -> set[str]:
    """The revisions of this release, by which the files of migrations are named; they sort in their order."""
    return {file.stem.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py")}


def _versions(connection: Connection) -> set[str]:
    # Only the schema in which tables are created: another one in the search_path may hold another ledger.
    schema = connection.dialect.default_schema_name
    found: set[str] = set()
    if inspect(connection).has_table(VERSION_TABLE, schema=schema):
        versions = Table(VERSION_TABLE, MetaData(), Column("version_num", Text), schema=schema)
        found = set(connection.scalars(select(versions.c.version_num)))
    if not found:
        _refuse_foreign(connection)
    return found


def _refuse_foreign(connection: Connection) -> None:
    schema, inspector = connection.dialect.default_schema_name, inspect(connection)
    if inspector.has_table(VERSION_TABLE) and not inspector.has_table(VERSION_TABLE, schema=schema):
        raise SchemaForeign(
            f"there is a ledger in another schema of the search_path than {schema}, which is the first: let it name the"
            " ledger's alone"
        )
    if taken := set(inspector.get_table_names(schema=schema)) & set(metadata.tables):
        raise SchemaForeign(
            f"there are tables called {', '.join(sorted(taken))}, and no {VERSION_TABLE}: they are another"
            " application's, or those of a payment-callbacks before its release. Give the ledger an empty database"
            " or a schema of its own: CREATE SCHEMA payments, and ?options=-csearch_path%3Dpayments in the URL"
        )


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # A migration, and the wait for another process's, may take longer than ordinary statements.
        allow_longer(connection, seconds=None)
        for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        if connection.scalar(text("SELECT current_schema()")) is None:
            raise SchemaMissing("the search_path names no schema that exists: create it (CREATE SCHEMA) first")
    if not _serves(_versions(connection), _known()):
        _run_migrations(connection)
    restart_if_behind(connection)


def _run_migrations(connection: Connection) -> None:
    from alembic import command  # slow to import, and needed once per release
    from alembic.config import Config

    config = Config()
    # Alembic takes "%" for the start of a name.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_options"] = {
        "version_table": VERSION_TABLE,
        "version_table_schema": connection.dialect.default_schema_name,
    }
    command.upgrade(config, "head")
