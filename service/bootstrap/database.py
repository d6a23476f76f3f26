"""The ledger's database."""

from sqlalchemy import Engine

from service.bootstrap.files import find_data_file
from service.config.settings import Settings
from service.ledger.engine import make_engine


def make_ledger_engine(settings: Settings, *, pool_size: int = 2) -> Engine:
    """The ledger's database: `database_url`, or a SQLite file in the data directory. Raises UnusableDatabaseUrl."""
    if settings.database_url:
        return make_engine(settings.database_url.reveal(), pool_size=pool_size, pooled=settings.database.pooled)
    return make_engine(f"sqlite:///{find_data_file(settings, 'ledger.sqlite3')}", pool_size=pool_size)


def make_migration_engine(settings: Settings) -> Engine:
    """The same database for migrations, past its pooler where the settings say how. Raises UnusableDatabaseUrl."""
    if settings.database.migrate_url:
        return make_engine(settings.database.migrate_url.reveal())
    return make_ledger_engine(settings)
