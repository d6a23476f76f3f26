"""The ledger's database for commands, and who changes it. Its errors end a command with a line that says what to do."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine

from service.bootstrap.ledger import make_ledger_engine, make_migration_engine
from service.config.settings import Settings
from service.ledger.audit import Author
from service.ledger.errors import LedgerError, LedgerUnavailable, SchemaOutdated, UnusableDatabaseUrl
from service.ledger.schema import migrate


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Engine]:
    """The ledger's database. An embedded one is migrated first.

    A LedgerError in the `with` block ends the command with a line that says what to do.
    """
    engine = engine_of(settings)
    try:
        if not settings.database_url:
            migrate(engine)
        yield engine
    except SchemaOutdated as error:
        raise click.ClickException(f"run `payment-callbacks migrate` first: {error}") from error
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database cannot be used: {error}") from error
    except LedgerError as error:
        raise click.ClickException(str(error)) from error
    finally:
        engine.dispose()


def engine_of(settings: Settings, *, pool_size: int = 2) -> Engine:
    """The ledger's engine. A database URL that cannot be used ends the command with a line that says why."""
    try:
        return make_ledger_engine(settings, pool_size=pool_size)
    except UnusableDatabaseUrl as error:
        raise click.ClickException(f"database_url: {error}") from error


def migration_engine_of(settings: Settings) -> Engine:
    """The same for migrations."""
    try:
        return make_migration_engine(settings)
    except UnusableDatabaseUrl as error:
        raise click.ClickException(f"database_url: {error}") from error


def author_of(name: str | None, reason: str | None) -> Author:
    """Who makes a change from the command line, and why; see `person`. A missing reason is a `click.UsageError`."""
    if reason is None or not reason.strip():
        raise click.UsageError("--reason must say why")
    return person(name, reason=reason.strip())


def person(name: str | None, *, reason: str = "") -> Author:
    """The person who runs a command. None is the user; a blank name is a `click.UsageError`.

    Whoever may run commands can state any name, so it is believed and not proven.
    """
    name = (_current_user() if name is None else name).strip()
    if not name:
        raise click.UsageError("the name of a person must not be empty")
    return Author(name=f"{name} (command line)", reason=reason, identity=name)


def _current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name; Python's releases differ in the error
        return f"uid {os.getuid()}"
