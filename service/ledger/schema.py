"""The schema's version: brings a database to this release's tables, or says that it is not there yet."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from service.ledger.errors import SchemaNewer
from service.ledger.limits import allow_longer
from service.ledger.transactions import read, write

_MIGRATIONS = Path(__file__).parent / "migrations"
# Any number that nobody else in the same database uses for pg_advisory_lock: the letters "payc".
_ADVISORY_LOCK = 0x70617963


def migrate(engine: Engine) -> None:
    """Bring the database to this release's schema, in one transaction; does nothing where it is there already.

    Any number of processes may call it at once: one migrates, the others wait for it. Raises LedgerUnavailable, and
    SchemaNewer, one of its kind, where a later release has been there.
    """
    write(engine, _upgrade)


def schema_is_current(engine: Engine) -> bool:
    """Whether the database has this very release's schema. Raises LedgerUnavailable, and SchemaNewer as `migrate`."""
    found = read(engine, _versions)
    _refuse_newer(found)
    return found == _wanted()


def make_schema_check(engine: Engine) -> Callable[[], bool]:
    """Makes a question that is cheap to repeat: whether the database has this release's schema, or a later one's.

    While an upgrade rolls out, the older processes work on what the newer release has made of the schema. Raises
    LedgerUnavailable when asked.
    """
    wanted, known = _wanted(), _known()

    def serves() -> bool:
        found = read(engine, _versions)
        return found == wanted or not found <= known

    return serves


def _wanted() -> set[str]:
    return set(ScriptDirectory.from_config(_config()).get_heads())


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _refuse_newer(found: set[str]) -> None:
    if newer := found - _known():
        raise SchemaNewer(
            f"a later release has migrated the database (to {', '.join(sorted(newer))}), and there is no way back: run"
            " that release again, or restore a backup"
        )


def _versions(connection: Connection) -> set[str]:
    return set(MigrationContext.configure(connection).get_current_heads())


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # A migration, and waiting for another's, may take longer than any statement of daily work.
        allow_longer(connection, seconds=None)
        for limit in ("lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ADVISORY_LOCK})
    _refuse_newer(_versions(connection))
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    # Alembic reads "%" in it as the start of a name.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
